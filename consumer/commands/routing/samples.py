"""For `check-config --sample`: what the routes read that no sample has, and routes that take no sample.

A path that is misspelt is no error to JMESPath: it gives null, for ever. Only events can show it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from consumer.config.formats import formats_of
from consumer.config.settings import Settings
from consumer.events.decoding import Undecodable
from consumer.events.expressions import paths_of, record_paths
from consumer.events.formats.formats import Awaiting, Formats
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.elsewhere import read_instead
from consumer.events.routing.near_misses import own_field
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.trees import value_at, written_path
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.registry.schemas import RegistryError, Schemas, UnknownSchemaError

DECISIVE = frozenset({"when", "order_id", "each"})
"""Keys that no event gets past without."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """A path that no sample has. `fails`: no event would ever be sent by this route."""

    route: str
    key: str
    path: str
    nearest: str | None
    fails: bool

    def __str__(self) -> str:
        meant = "" if self.nearest is None else f", did you mean {self.nearest}?"
        return f"route {self.route}: {self.key}: no sample has {self.path}{meant}"


def unseen(settings: Settings, records: Sequence[SourceEvent]) -> Iterator[Unseen]:
    """Yield each path of the user's routes that no sample has, in the order of the routes."""
    formats, schemas = formats_of(settings, time.time)
    found = [(event, record) for record in records if (event := _event(record, formats, schemas)) is not None]
    for name, rule in settings.effective_routes.items():
        if rule != BUILT_IN_ROUTES.get(name):
            yield from _unseen_of(name, rule, [event for event, _ in found])
            yield from _unseen_in_records(name, rule, found)


def _unseen_in_records(name: str, rule: RouteRule, found: Sequence[tuple[object, SourceEvent]]) -> Iterator[Unseen]:
    """Yield what a route reads of the record, and only the events have."""
    for key, text in expressions_of(rule).items():
        for path in dict(record_paths(text)):
            own = [own_field(path, event, record) for event, record in found] if path[0] != "event" else []
            if own and all(own):
                yield Unseen(name, key, written_path(path), own[0], fails=False)  # samples may lack keys and headers


def _unseen_of(name: str, rule: RouteRule, events: Sequence[object]) -> Iterator[Unseen]:
    for key, text in expressions_of(rule).items():
        for path, optional in dict(paths_of(text)).items():
            of_item = path[0] == "item" and rule.each is not None
            if of_item or any(_has(event, path) for event in events):
                continue
            is_default = key not in rule.model_fields_set and key != "order_id"
            if not is_default:
                yield Unseen(name, key, ".".join(path), _nearest(path, events), key in DECISIVE and not optional)


def _event(record: SourceEvent, formats: Formats, schemas: Schemas | None) -> object:
    if record.value is None:
        return None
    event = formats.decode(record.topic, record.value, record.headers)
    if isinstance(event, Awaiting) and schemas is not None:
        with contextlib.suppress(RegistryError, UnknownSchemaError):
            schemas.fetch(event.schema, event.sample)
            event = formats.decode(record.topic, record.value, record.headers)
    return None if isinstance(event, Undecodable | Awaiting) else event


def _has(event: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(event, dict) or name not in event:
            return False
        event = event[name]
    return True


def _nearest(path: tuple[str, ...], events: Sequence[object]) -> str | None:
    """Return the path of a sample that this one may be an error for: with one name written otherwise."""
    if any(_has(event, ("event", *path)) for event in events):
        return written_path(("event", "event", *path))
    in_another_shape = [found for event in events if (found := read_instead(path, event)) is not None]
    if in_another_shape:
        return in_another_shape[0]
    for depth in range(len(path)):
        beside = [value_at(event, path[:depth]) for event in events]
        names = {str(name) for each in beside if isinstance(each, dict) for name in each}
        if path[depth] not in names:
            matches = get_close_matches(path[depth], sorted(names), n=1, cutoff=0.7)
            return ".".join((*path[:depth], matches[0], *path[depth + 1 :])) if matches else None
    return None
