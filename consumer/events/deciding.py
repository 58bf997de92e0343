"""From a record's bytes to the decision: what `run` does with it, and what `route` says that `run` would do.

There is one way, and both go it. So whatever a dry run shows for a record (its value, key, headers and time) is what
happens to it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, Protocol, get_args

from consumer.events.decoding import JSON_IN_BASE64, Undecodable, is_null, kind
from consumer.events.formats import debezium
from consumer.events.formats.formats import JSON, Awaiting, Formats, Named
from consumer.events.guards import stopped
from consumer.events.routing.results import Misrouted, Routed, RouteTrace, Several
from consumer.events.routing.router import Router
from consumer.events.routing.scope import RecordFacts
from schemas.dead_letter import REDRIVE_OF, Reason
from schemas.order_event import OrderEventType

Headers = Sequence[tuple[str, bytes | None]]
Ignoring = Literal["tombstone", "foreign_redrive", "unrouted"]


class Record(RecordFacts, Protocol):
    """A record of a source topic, as far as a decision depends on it."""

    @property
    def value(self) -> bytes | None:
        """Its value; None: it has none, which is Kafka's own tombstone."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing becomes of the record, and nothing is wrong with it."""

    why: Ignoring


Decided = Routed | Several | Misrouted | Ignored
Decision = Decided | Awaiting


def decide(
    record: Record,
    router: Router,
    dead_letter_topics: Collection[str],
    trace: list[RouteTrace] | None = None,
    *,
    now: float,
    formats: Formats = JSON,
    asked: bool = False,
) -> Decision:
    """Say what becomes of a record, and in `trace` what each route said. Never raises for what it holds.

    `dead_letter_topics`: ours. An event that was redriven from another topic is another relay's. `now`: seconds since
    1970, for the guards: an action that is `stopped` is not sent. `asked`: a person asks for its action.
    `Awaiting`: its schema must be fetched first; then ask again.
    """
    value = record.value
    if _tombstone(value) in router.tombstones and not formats.is_event_without_value(record.topic, record.headers):
        return Ignored("tombstone")
    if redriven_elsewhere(record.headers, dead_letter_topics):
        return Ignored("foreign_redrive")
    event = formats.decode(record.topic, value, record.headers)
    if isinstance(event, Awaiting):
        return event
    record_name = event.record_name if isinstance(event, Named) else None
    if isinstance(event, Named):
        event = event.event
    if isinstance(event, Undecodable):
        return Misrouted(event.reason, event.detail, None)
    if event is None and "literal_null" in router.tombstones:
        return Ignored("tombstone")
    result = router.route(event, record, trace, record_name=record_name)
    match result:
        case Routed():
            return _guarded(result, record, router, now, asked)
        case Several(actions):
            return Several(tuple(_guarded(each, record, router, now, asked) for each in actions))
        case Misrouted():
            return result
    if not isinstance(event, dict) and not result.read and not formats.is_plain_text(record.topic, event):
        return Misrouted(Reason.UNDECODABLE, f"JSON, but {kind(event)}, not an object{_hint(event)}", None)
    return Ignored("unrouted")


def _guarded(action: Routed, record: Record, router: Router, now: float, asked: bool) -> Routed:
    redriven = asked or redrive_of(record.headers) is not None
    why = stopped(action, now, router.shadow, redriven=redriven)
    return action if why is None else replace(action, stopped=why)


def _hint(event: object) -> str:
    if isinstance(event, list):
        return "; a route with `each: event[]` takes its items"
    if not isinstance(event, str):
        return ""
    if event.startswith(JSON_IN_BASE64):
        return "; a route reads it by `json(base64(event))`"
    return "; a route reads it by `json(event)`" if event.startswith(("{", "[")) else ""


def hint_on_unrouted(event: object) -> str | None:
    """Say what an event that no route takes looks like; None: it is what no route is about."""
    if not isinstance(event, dict):
        return None
    if debezium.has_envelope(event):
        return "it looks like Kafka Connect's envelope: the format `debezium` takes it off"
    kind_of = event.get("type")
    types: tuple[str, ...] = get_args(OrderEventType)
    for name, value in event.items():
        if name != "type" and isinstance(value, str) and value in types:
            return f"its {name[:_SHOWN]} is {value}, and a canonical event has that in `type`"
    near = get_close_matches(kind_of.strip().lower(), types, 1, _NEARLY) if isinstance(kind_of, str) else []
    return f"its type is nearly {near[0]}" if near and kind_of not in types else None


_NEARLY = 0.85
_SHOWN = 40  # characters of a field's name


def _tombstone(value: bytes | None) -> str | None:
    if value is None:
        return "absent"
    if not value:
        return "empty"
    return "literal_null" if len(value) < 16 and is_null(value) else None


def redriven_elsewhere(headers: Headers, dead_letter_topics: Collection[str]) -> bool:
    """Tell whether an event was redriven from another relay's dead letter.

    A source topic may have several relays. The redrive is for one of them; the others had the event before.
    """
    named = redrive_of(headers)
    if named is None:
        return False
    topic, *numbers = named.split(b"/")
    is_one = len(numbers) == 2 and all(number.isdigit() for number in numbers)
    return is_one and topic.decode(errors="replace") not in dead_letter_topics


def redrive_of(headers: Headers) -> bytes | None:
    """Return which dead letter an event is a redrive of; None: it is none."""
    return next((value for name, value in reversed(headers) if name == REDRIVE_OF and value is not None), None)
