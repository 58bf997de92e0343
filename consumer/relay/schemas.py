"""Events whose schema is not known yet: they wait, and with them all that lies behind them in their partition.

Rules:
 1. The event loop never waits for a registry: each schema is asked for on a thread.
 2. What waits was not settled: its position is not saved. A partition that is given away takes it along, and its next
    owner reads it again.
 3. While something of a partition waits, nothing more is read of it. The other partitions go on.
 4. Only the registry's own word that it has no such schema counts against an event, and only when it stayed so for
    the grace time. Anything else is the registry's failure, which never makes a dead letter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment
from consumer.core.progress import StallReason
from consumer.events.formats.formats import Awaiting
from consumer.kafka.facts import Read
from consumer.kafka.registry.schemas import RegistryError, UnknownSchemaError, named
from consumer.relay.edges import Source
from consumer.relay.log import ThrottledLog
from consumer.relay.tasks import Tasks

MIN_RETRY_S = 0.5
MAX_RETRY_S = 10.0
THREADS = 4  # so that one schema that hangs does not keep the others waiting


class Schemas(Protocol):
    """What asks the registry (kafka/registry/schemas.py). `fetch` waits; it is called on a thread."""

    def fetch(self, schema: str, sample: bytes) -> None:
        """Ask the registry. Raises RegistryError, UnknownSchemaError."""

    def give_up(self, schema: str) -> None:
        """Let the events of a schema become dead letters."""

    def was_given_up(self, schema: str) -> bool:
        """Whether it was given up before."""


@dataclass(slots=True)
class _Held:
    """A partition that waits. `reads`: what was read of it, from the event that cannot be decided on."""

    schema: str
    reads: deque[Read] = field(default_factory=deque)


@dataclass(slots=True)
class _Asking:
    """A schema that is being asked for. `unknown_since`: since when the registry says that it has none."""

    reason: StallReason = "registry"
    unknown_since: float | None = None
    why: str = "it did not answer yet"


class SchemaWaits:
    """The partitions that wait for a schema. `take` is given what can be decided on again; it returns what cannot."""

    def __init__(
        self,
        schemas: Schemas | None,
        *,
        source: Source,
        take: Callable[[Read, float], tuple[Read, Awaiting] | None],
        grace_s: float,
        clock: Clock,
        tasks: Tasks,
        tick_soon: Callable[[], None],
        log: ThrottledLog,
    ) -> None:
        """`schemas`: None where no registry is configured, so that nothing ever waits."""
        self._schemas = schemas
        self._source = source
        self._take = take
        self._grace_s = grace_s
        self._clock = clock
        self._tasks = tasks
        self._tick_soon = tick_soon
        self._log = log
        self._held: dict[Assignment, _Held] = {}
        self._asking: dict[str, _Asking] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="registry") if schemas is not None else None

    @property
    def why(self) -> str | None:
        """What the partitions wait for, for people; None: none waits."""
        if not self._held:
            return None
        schema = next(iter(self._held.values())).schema
        return f"waits for the Schema Registry (schema {named(schema)}): {self._asking[schema].why}"

    def reason(self, assignment: Assignment) -> StallReason | None:
        """Return why nothing of a partition is read; None: it does not wait."""
        held = self._held.get(assignment)
        return None if held is None else self._asking[held.schema].reason

    def take(self, read: Read, now: float) -> None:
        """Decide on what was read, or keep it where its partition waits (rule 3)."""
        held = self._held.get(read.assignment)
        if held is not None:
            held.reads.append(read)
        elif (left := self._take(read, now)) is not None:
            self._hold(*left)

    def drop(self, assignments: Iterable[Assignment]) -> None:
        """Forget what was read of partitions that are given away (rule 2)."""
        for assignment in assignments:
            self._held.pop(assignment, None)

    def close(self) -> None:
        """End the threads as soon as they can."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _hold(self, rest: Read, awaiting: Awaiting) -> None:
        self._held[rest.assignment] = _Held(awaiting.schema, deque([rest]))
        self._source.hold(rest.assignment)
        if awaiting.schema not in self._asking:
            self._asking[awaiting.schema] = _Asking()
            self._tasks.start(self._ask(awaiting))

    async def _ask(self, awaiting: Awaiting) -> None:
        """Ask for a schema until it is there, given up, or nobody waits for it any more."""
        retry_s = MIN_RETRY_S
        while self._waiting_for(awaiting.schema):
            if await self._settled(awaiting):
                break
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, MAX_RETRY_S)
        del self._asking[awaiting.schema]
        for assignment in self._waiting_for(awaiting.schema):
            self._continue(assignment)
        self._tick_soon()

    async def _settled(self, awaiting: Awaiting) -> bool:
        assert self._schemas is not None  # noqa: S101 - without a registry nothing is ever awaited
        asking, loop = self._asking[awaiting.schema], asyncio.get_running_loop()
        about = f"schema {named(awaiting.schema)}"
        try:
            await loop.run_in_executor(self._threads, self._schemas.fetch, awaiting.schema, awaiting.sample)
        except UnknownSchemaError:
            return self._unknown(awaiting.schema, asking)
        except RegistryError as error:
            asking.reason, asking.why, asking.unknown_since = "registry", str(error), None
            self._log.throttled("the Schema Registry cannot be asked; partitions wait", schema=about, why=str(error))
            return False
        self._log.info("a schema was fetched", schema=about)
        return True

    def _unknown(self, schema: str, asking: _Asking) -> bool:
        """Take in that the registry has no such schema; tells whether its grace is over (rule 4)."""
        assert self._schemas is not None  # noqa: S101
        now = self._clock()
        asking.reason, asking.why = "unknown_schema", "it has no such schema"
        asking.unknown_since = now if asking.unknown_since is None else asking.unknown_since
        over = now - asking.unknown_since >= self._grace_s or self._schemas.was_given_up(schema)
        if over:
            self._schemas.give_up(schema)
            self._log.error("a schema stayed unknown; its events become dead letters", schema=f"schema {named(schema)}")
        else:
            self._log.throttled("the Schema Registry has no such schema yet; partitions wait", schema=named(schema))
        return over

    def _waiting_for(self, schema: str) -> Sequence[Assignment]:
        return [assignment for assignment, held in self._held.items() if held.schema == schema]

    def _continue(self, assignment: Assignment) -> None:
        """Decide on what was kept, and read on, unless it waits for another schema now."""
        reads = self._held.pop(assignment).reads
        while reads:
            if (left := self._take(reads.popleft(), self._clock())) is not None:
                self._hold(*left)
                self._held[assignment].reads.extend(reads)
                return
        self._source.release(assignment)
