"""The outcomes topic's records as bytes (schemas/outcome.py).

What ended is handed to the journal as it is (`Ended`), and becomes bytes on the journal's thread: where no outcomes are
written, it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from consumer.core.clock import to_ms
from consumer.core.effects import Times
from consumer.events.deciding import redrive_of
from consumer.kafka.records.packing import unpacked
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.records.unreadable import Unreadable
from schemas.dead_letter import REDRIVE_OF, Reason
from schemas.outcome import Outcome, OutcomeName

_ANSWERS = frozenset(
    {
        Reason.REJECTED,
        Reason.NO_CONTACT,
        Reason.FORBIDDEN,
        Reason.POLL_REJECTED,
        Reason.JOB_FAILED,
        Reason.NOT_FOUND,
        Reason.UNDATED_ORDER,
        Reason.STALE_TAG,
    }
)
"""An answer of Engage's ended the action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAction:
    """An action that ended. `payload`: NewAction's. `ended`: when, in seconds since 1970.

    `reason`: see the contract.
    """

    outcome: OutcomeName
    payload: bytes = field(repr=False)
    ended: float
    times: Times
    attempts: int = 0
    sends: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedEvent:
    """An event that became a dead letter before it was an action. What it names is told where it is known."""

    event: SourceEvent
    reason: Reason
    ended: float
    route: str | None = None
    connection: str | None = None
    order_id: str | None = None


Ended = EndedAction | EndedEvent


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """A record of the outcomes topic."""

    key: bytes | None
    value: bytes
    headers: None = None


def key_of(connection: str | None, order_id: str | None) -> bytes | None:
    """Return the key of an order's outcomes; None where one of the two is not known."""
    return None if connection is None or order_id is None else f"{connection}:{order_id}".encode()


def record_of(ended: Ended) -> OutcomeRecord:
    """Return the record of what ended."""
    fields = _of_action(ended) if isinstance(ended, EndedAction) else _of_event(ended)
    value = to_json({name: value for name, value in fields.items() if value is not None})
    return OutcomeRecord(key_of(fields["connection"], fields["order_id"]), value)  # type: ignore[arg-type]


def read_outcome(value: bytes) -> Outcome | Unreadable:
    """Read a record's value back."""
    try:
        return Outcome.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return Unreadable(f"{'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}")


def _of_action(ended: EndedAction) -> dict[str, object]:
    payload = from_json(unpacked(ended.payload))
    source, times = payload["source"], ended.times
    place = {name: source[name] for name in ("topic", "partition", "offset", "incarnation") if name in source}
    if (item := payload.get("item")) is not None:
        place["item"] = item
    answered = ended.outcome is OutcomeName.ACCEPTED or ended.reason in _ANSWERS
    ended_ms = to_ms(ended.ended)
    return {
        "version": 1,
        "outcome": ended.outcome,
        "reason": ended.reason,
        "connection": payload["connection"],
        "order_id": payload["order_id"],
        "route": payload["route"],
        "action": payload["action"],
        "fact": payload.get("fact"),
        "place": place,
        "event_ms": payload["event_time_ms"] or None,
        "first_seen_ms": to_ms(times.first_seen),
        "tag_ready_ms": None if times.tag_ready is None else to_ms(times.tag_ready),
        "sent_ms": None if times.sent is None else to_ms(times.sent),
        "answered_ms": ended_ms if answered else None,
        "ended_ms": ended_ms,
        "attempts": ended.attempts,
        "sends": ended.sends,
        "trace_id": _trace_id(payload.get("trace_context")),
        "asked_by": payload.get("asked_by") or _asked_by(source.get("headers", ())),
        "why_asked": payload.get("why_asked"),
    }


def _of_event(ended: EndedEvent) -> dict[str, object]:
    event, ended_ms = ended.event, to_ms(ended.ended)
    place = {"topic": event.topic, "partition": event.partition, "offset": event.offset}
    if event.incarnation:
        place["incarnation"] = event.incarnation
    redriven = redrive_of(event.headers)
    return {
        "version": 1,
        "outcome": OutcomeName.DEAD_LETTER,
        "reason": ended.reason,
        "connection": ended.connection,
        "order_id": ended.order_id,
        "route": ended.route,
        "place": place,
        "first_seen_ms": ended_ms,
        "ended_ms": ended_ms,
        "asked_by": "event" if redriven is None else f"redrive of {redriven.decode(errors='replace')}",
    }


def _asked_by(headers: list[tuple[str, dict[str, str] | None]]) -> str:
    for name, value in headers:
        if name == REDRIVE_OF and value and "text" in value:
            return f"redrive of {value['text']}"
    return "event"


def _trace_id(context: dict[str, str] | None) -> str | None:
    """Return the trace's id out of a W3C traceparent: `00-TRACE-SPAN-FLAGS`."""
    parts = (context or {}).get("traceparent", "").split("-")
    return parts[1] if len(parts) > 1 else None
