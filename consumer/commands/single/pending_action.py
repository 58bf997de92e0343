"""What is known of one pending action, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from consumer.commands import output
from consumer.core.pauses import NO_PAUSES, Pause, Pauses, Scope

if TYPE_CHECKING:
    from consumer.kafka.pending import Open
    from schemas.pending_action import PendingAction

_TAG_SOURCES = {
    "event": "its versionTag came with the event",
    "job": "its versionTag comes from a job",
    "order": "its versionTag comes from the order",
    "document": "the order document is put into Engage first",
    "change": "the order is changed in Engage first",
    "with_document": "it travels in the order document",
}
_IN_DOUBT = {
    "resend": "If its answer was lost, it is sent again after a wait (on_unknown: resend)",
    "dead_letter": "If its answer was lost, it becomes a dead letter (on_unknown: dead_letter)",
}


def facts_of(found: Open, now_ms: int, deadline_s: float, pauses: Pauses = NO_PAUSES) -> Iterator[tuple[str, object]]:
    """Yield what is known of an open action, by name. `deadline_s`: seconds since its event was first read."""
    line, record = found.line, found.record
    yield "event", f"{line.topic}/{line.partition}/{line.offset}"
    yield "state", line.state
    if record is None:
        yield "why", _WITHOUT_RECORD[line.state]
        return
    payload = record.payload
    scope, now = Scope(payload.connection, payload.route, payload.action), now_ms / 1000
    pause, held_s = pauses.holding(scope, now), pauses.held_s(scope, record.first_seen_ms / 1000, now)
    yield "item", payload.item
    yield "order_id", payload.order_id
    yield "action", payload.action
    yield "route", payload.route
    yield "connection", payload.connection
    yield "shadow", payload.shadow
    yield "paused", None if pause is None else f"pause {pause.id}: {pause.reason}"
    yield "why", _why(found, record, now_ms, pause)
    yield "event_time", _time(payload.event_time_ms)
    yield "first_seen", _time(record.first_seen_ms)
    yield "saved", None if found.saved_ms is None else _time(found.saved_ms)
    yield "attempts", record.attempts
    yield "sends", record.sends
    yield "next_due", _time(record.due_ms)
    yield "contact_until", None if record.contact_until_ms is None else _time(record.contact_until_ms)
    yield "on_hold_s", round(held_s) if held_s else None
    yield "deadline", _time(record.first_seen_ms + round((deadline_s + held_s) * 1000))
    yield "tag", "known" if record.version_tag is not None else _TAG_SOURCES[payload.tag_source.kind]


_WITHOUT_RECORD = {
    "refused": "it is a dead letter that its topic refuses, and is written there when that takes it",
    "unreadable": "this version cannot read its record, which becomes a dead letter at the next restore",
}


def _why(found: Open, record: PendingAction, now_ms: int, pause: Pause | None) -> str:
    """Say why the action waits, as far as its record tells."""
    if record.state == "sending":
        sent = f"send {record.sends} has no known answer yet: it is under way, or its relay ended meanwhile"
        return f"{sent}. {_IN_DOUBT[record.payload.on_unknown]}"
    if pause is not None:
        ends = "until a person ends it" if pause.until is None else f"until {_time(round(pause.until * 1000))}"
        does = "it ends as withheld when its turn comes" if pause.discard else f"it is on hold {ends}"
        return f"{does}: pause {pause.id} of {pause.what} ({pause.reason})"
    if found.ahead is not None:
        return f"it waits for the order's earlier action, that of {found.ahead}"
    if record.contact_until_ms is not None:
        return f"Engage says that its order has no contact; it is tried until {_time(record.contact_until_ms)}"
    if record.due_ms > now_ms:
        return f"it is tried next at {_time(record.due_ms)}"
    return (
        "it was due when it was last saved: it is polled and sent by the relay that owns its partition, unless its "
        "connection is suspended or slow, or no relay runs; `engage-relay status` says which"
    )


def _time(ms: int) -> str:
    from consumer.kafka.topics.scan import moment

    found = moment(ms)
    return str(ms) if found is None else output.time_of(found)
