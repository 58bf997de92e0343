"""The schemas that are known: fetched once, each, and never changed, as a registry promises.

Rules:
 1. `reader` never waits and does no I/O: the event loop calls it for each event. `fetch` asks the registry, and is
    called from another thread.
 2. A registry that cannot be reached, refuses our credentials or answers nonsense says nothing about a schema. Only
    its own "schema not found" (error code 40403) does.
 3. A schema that stays unknown for the whole grace is given up: its events become dead letters. It is asked for again
    now and then, because a producer may have been earlier than its registry's copy.
 4. No error's text holds what a schema, a value or an answer holds; but the name of an import that is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from consumer.core.clock import Clock
from consumer.events.decoding import Undecodable
from consumer.events.formats.formats import Reader
from schemas.dead_letter import Reason

if TYPE_CHECKING:
    from consumer.kafka.registry.readers import Fetched

ASK_AGAIN_S = 60.0
"""How long a schema that was given up counts as unknown without asking again."""


class RegistryError(Exception):
    """The registry could not be asked. The text says why, in an operator's words."""


class UnknownSchemaError(Exception):
    """The registry says that it has no such schema."""


class UnusableSchemaError(ValueError):
    """A schema cannot be used. The text says why, and follows "its schema cannot be used: "."""


class Registry(Protocol):
    """Asks a Schema Registry."""

    def fetch(self, schema: str) -> Fetched:
        """Return a schema and those it refers to. Raises RegistryError, UnknownSchemaError. It waits."""


class Schemas:
    """The readers of all schemas that were fetched. Every method may be called from any thread."""

    def __init__(self, registry: Registry, clock: Clock, make: Callable[[Fetched], Reader | Undecodable]) -> None:
        """`make` makes a schema's reader, or says why its values cannot be read."""
        self._registry = registry
        self._clock = clock
        self._make = make
        self._readers: dict[str, Reader | Undecodable] = {}
        self._given_up: dict[str, float] = {}
        self._lock = threading.Lock()

    def reader(self, schema: str) -> Reader | Undecodable | None:
        """Return what reads a schema's values, or why none does; None: ask the registry first."""
        found = self._readers.get(schema)
        if found is not None or schema not in self._given_up:
            return found
        if self._clock() - self._given_up[schema] > ASK_AGAIN_S:
            return None
        return _unknown(schema)

    def fetch(self, schema: str, sample: bytes) -> None:
        """Ask the registry, so that `reader` knows the schema. Raises RegistryError, UnknownSchemaError.

        The sample is read once, so that whatever a first value costs is spent on this thread.
        """
        fetched = self._registry.fetch(schema)
        reader = self._make(fetched)
        if not isinstance(reader, Undecodable):
            reader(sample, as_change=False)
        with self._lock:
            self._readers[schema] = reader
            self._given_up.pop(schema, None)

    def give_up(self, schema: str) -> None:
        """Let the events of a schema become dead letters: the grace is over, and the registry still has none."""
        with self._lock:
            self._given_up[schema] = self._clock()

    def was_given_up(self, schema: str) -> bool:
        """Whether it was given up before, and so has had its grace."""
        return schema in self._given_up


def _unknown(schema: str) -> Undecodable:
    return Undecodable(f"the Schema Registry has no schema {named(schema)}", Reason.UNKNOWN_SCHEMA)


def named(schema: str) -> str:
    """Return a schema's name for people: its id, or its GUID."""
    return f"id {schema}" if schema.isdigit() else schema
