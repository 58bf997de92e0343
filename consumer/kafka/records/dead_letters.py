"""Dead letters: the original record, with the headers that say why it became one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from consumer.core.clock import to_ms
from consumer.core.effects import GiveUp
from consumer.core.places import incarnation_at, offset_at
from consumer.events.identifiers import hint_on
from consumer.events.routing.results import Routed
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.records.payloads import read_payload
from consumer.kafka.records.source_events import OF_REDRIVES, SourceEvent, event_of
from consumer.kafka.records.unreadable import Unreadable
from schemas.dead_letter import DETAIL, PREFIX, ROUTE, DeadLetterHeaders, Reason

REDRIVEN = PREFIX + "redriven"


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """The original record with the headers that say why it became one."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]

    @property
    def route(self) -> str | None:
        """The route that took its event; None where none did."""
        found = next((value for name, value in self.headers if name == ROUTE), None)
        return found.decode() if isinstance(found, bytes) else found


def redriven_mark(offset: int) -> DeadLetterRecord:
    """Return the mark of the dead letter at this offset of the mark's partition: it was redriven."""
    return DeadLetterRecord(None, None, [(REDRIVEN, b"%d" % offset)])


def dead_letter_of_action(given_up: GiveUp, now: float) -> DeadLetterRecord:
    """Return the dead letter of an action that was given up. `now` is seconds since 1970."""
    payload = read_payload(given_up.payload)
    event, hint = event_of(payload.source), hint_on(payload.order_id)
    return _dead_letter(
        event,
        DeadLetterHeaders(
            reason=given_up.reason,
            detail=given_up.detail if hint is None else f"{given_up.detail}; the order's id {hint}",
            errors=given_up.errors,
            item=payload.item,
            route=payload.route,
            action=payload.action,
            connection=payload.connection,
            attempts=given_up.attempts,
            sends=given_up.sends,
            **_source_of(event, now),
        ),
    )


def dead_letter_of_event(
    event: SourceEvent, reason: Reason, detail: str, now: float, route: str | None = None
) -> DeadLetterRecord:
    """Return the dead letter of an event that never became an action."""
    return _dead_letter(event, DeadLetterHeaders(reason=reason, detail=detail, route=route, **_source_of(event, now)))


def dead_letter_of_stopped(action: Routed, event: SourceEvent, detail: str, now: float) -> DeadLetterRecord:
    """Return the dead letter of an action whose event is too old. `now` is seconds since 1970."""
    headers = DeadLetterHeaders(
        reason=Reason.TOO_OLD,
        detail=detail,
        item=action.item,
        route=action.route,
        action=action.action,
        connection=action.connection,
        **_source_of(event, now),
    )
    return _dead_letter(event, headers)


class _Source(TypedDict):
    """What a dead letter says of the record that it was, and when it became one."""

    source_topic: str
    source_partition: int
    source_offset: int
    source_incarnation: int | None
    source_timestamp_ms: int | None
    failed_at_ms: int


def _source_of(event: SourceEvent, now: float) -> _Source:
    return {
        "source_topic": event.topic,
        "source_partition": event.partition,
        "source_offset": event.offset,
        "source_incarnation": event.incarnation or None,
        "source_timestamp_ms": event.timestamp_ms,
        "failed_at_ms": to_ms(now),
    }


def dead_letter_of_unreadable(
    source: tuple[str, int], key: bytes, value: bytes, unreadable: Unreadable, now: float
) -> DeadLetterRecord:
    """Return the dead letter of a delay record that this version cannot read: that record itself, as it is."""
    event = event_of_unreadable_record(source, key, value)
    return dead_letter_of_event(event, Reason.UNREADABLE_PENDING, unreadable.detail, now)


def event_of_unreadable_record(source: tuple[str, int], key: bytes, value: bytes) -> SourceEvent:
    """Return a delay record that cannot be read in its event's place, as far as its key names that."""
    place = place_of_key(key)
    topic, partition = source
    return SourceEvent(
        topic=topic,
        partition=partition,
        offset=-1 if place is None else offset_at(place),
        timestamp_ms=None,
        key=key,
        value=value,
        incarnation=0 if place is None else incarnation_at(place),
    )


def without_value(dead_letter: DeadLetterRecord) -> DeadLetterRecord:
    """Return a dead letter without its value, for one that the dead-letter topic refuses.

    The event itself is still in the source.
    """
    detail = (
        f"; its value of {len(dead_letter.value or b'')} bytes was left out: this topic refuses it (max.message.bytes)"
    )
    headers = [
        (name, value + detail.encode() if name == DETAIL and isinstance(value, bytes) else value)
        for name, value in dead_letter.headers
    ]
    return replace(dead_letter, value=None, headers=headers)


def _dead_letter(event: SourceEvent, headers: DeadLetterHeaders) -> DeadLetterRecord:
    # An event that was redriven before still has that dead letter's headers: the new ones replace them.
    original: list[tuple[str, str | bytes | None]] = [
        (name, value) for name, value in event.headers if not name.startswith(PREFIX) or name in OF_REDRIVES
    ]
    # It has no timestamp of its own, so the broker sets the time of writing. Retention counts from the timestamp: with
    # the event's, the dead letter of an old event would be deleted at once.
    return DeadLetterRecord(event.key, event.value, [*original, *headers.to_kafka()])
