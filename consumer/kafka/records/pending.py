"""The record of a pending action: the payload that its event became, and its progress around it.

Rule: the payload is cut out of the record as it lies there, and never composed again from what was read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from consumer.core.clock import to_ms
from consumer.core.effects import (
    THE_CHANGE,
    THE_DOCUMENT,
    THE_ORDER,
    THE_REDRIVEN_DOCUMENT,
    Document,
    Job,
    LiveAction,
    NewAction,
    Order,
    PollTarget,
    Save,
)
from consumer.core.places import incarnation_at, offset_at
from consumer.events.facts import digest_of
from consumer.events.numbers import read_exactly, written
from consumer.events.routing.results import Routed
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.records.packing import note_latest, packed, unpacked
from consumer.kafka.records.payloads import without_absent
from consumer.kafka.records.source_events import OF_REDRIVES, SourceEvent, event_of, first_offset_in, wrapped
from consumer.kafka.records.unreadable import Unreadable, first_error
from schemas.dead_letter import ITEM
from schemas.pending_action import (
    FromChange,
    FromDocument,
    FromEvent,
    FromJob,
    FromOrder,
    PendingAction,
    RoutedAction,
    TagSource,
    WithDocument,
)

_PENDING: TypeAdapter[PendingAction] = TypeAdapter(PendingAction)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for an action that its event does not bring by itself, and why. `again`: it was sent before, perhaps."""

    by: str
    why: str
    again: bool


def new_action(routed: Routed, event: SourceEvent, *, shadow: bool = False, asked: Asked | None = None) -> NewAction:
    """Make the ledger's action of a routed event; everything else about it becomes bytes.

    `shadow`: it is not to be sent, in no run. `asked`: a person asks for it. Sent again, it needs a tag of now, which
    only the order has.
    """
    tag_source = routed.tag_source
    if asked is not None and asked.again and isinstance(tag_source, FromEvent | FromJob):
        tag_source = FromOrder()
    fact = None if routed.fact is None else digest_of(routed.connection, routed.fact)
    source = {
        "topic": event.topic,
        "partition": event.partition,
        "offset": event.offset,
        "incarnation": event.incarnation or None,
        "timestamp_ms": event.timestamp_ms,
        "key": wrapped(event.key),
        "value": wrapped(event.value),
        "headers": [(name, wrapped(value)) for name, value in event.headers] or None,
    }
    record = {
        "route": routed.route,
        "connection": routed.connection,
        "order_id": routed.order_id,
        "action": routed.action,
        "language": routed.language,
        "data": routed.data,
        "tag_source": _fields_of(tag_source),
        "on_unknown": routed.on_unknown,
        "event_time_ms": routed.event_time_ms,
        "trace_context": routed.trace_context,
        "item": routed.item,
        "asked_by": None if asked is None else asked.by,
        "why_asked": None if asked is None else asked.why,
        "fact": fact,
        "shadow": shadow or None,
        "source": without_absent(source),
    }
    first_offset = first_offset_in(event.headers, event.incarnation)
    if first_offset is None and asked is not None:
        first_offset = event.offset
    document = _document(tag_source, first_offset)
    payload = written(without_absent(record))
    in_memory = packed(payload)
    note_latest(in_memory, payload)  # its record is next
    return NewAction(
        route=routed.route,
        connection=routed.connection,
        order_id=routed.order_id,
        payload=in_memory,
        resend=routed.on_unknown == "resend",
        document=document,
        with_document=isinstance(tag_source, WithDocument),
        first_offset=first_offset,
        version_tag=_tag_of(tag_source),
        target=document or _target(tag_source),
        event_time=None if asked is not None else _event_time(routed.event_time_ms),
        shadow=shadow,
        fact=None if fact is None else bytes.fromhex(fact),
        action=routed.action,
        asked=asked is not None,
    )


def pending_value(save: Save) -> bytes:
    """Return the delay topic's value of an open action (schemas/pending_action.py)."""
    progress: dict[str, object] = {
        "version": 2,
        "state": "sending" if save.sending else "pending",
        "first_seen_ms": to_ms(save.first_seen),
        "due_ms": to_ms(save.due),
        "attempts": save.attempts,
        "sends": save.sends,
    }
    if save.version_tag is not None:
        progress["version_tag"] = save.version_tag
    if save.job_id is not None:
        progress["job_id"] = save.job_id
    if save.contact_due is not None:
        progress["contact_until_ms"] = to_ms(save.contact_due)
    if save.document_sent:
        progress["document_sent"] = True
    return b'%b,"payload":%b}' % (to_json(progress)[:-1], unpacked(save.payload))


def live_action(key: bytes, value: bytes) -> LiveAction | Unreadable:
    """Read a live record back."""
    place = place_of_key(key)
    if place is None:
        return Unreadable("the key is not `incarnation:offset:route`")
    try:
        pending = _PENDING.validate_json(value)
    except ValidationError as error:
        return Unreadable(first_error(error))
    payload = pending.payload
    tag_source = payload.tag_source
    headers = payload.source.headers
    of_redrives = [(name, each.raw()) for name, each in headers if each and name in OF_REDRIVES]
    first_offset = first_offset_in(of_redrives, incarnation_at(place))
    if first_offset is None and payload.asked_by is not None:
        first_offset = offset_at(place)
    document = _document(tag_source, first_offset)
    action = NewAction(
        route=payload.route,
        connection=payload.connection,
        order_id=payload.order_id,
        # The envelope's last field, as it is. If another version wrote the record otherwise, it is composed again.
        payload=packed(_payload_bytes(value) or written(_payload_of(value))),
        resend=payload.on_unknown == "resend",
        document=document,
        with_document=isinstance(tag_source, WithDocument),
        first_offset=first_offset,
        version_tag=pending.version_tag or _tag_of(tag_source),
        target=Job(pending.job_id) if pending.job_id else document or _target(tag_source),
        event_time=None if payload.asked_by is not None else _event_time(payload.event_time_ms),
        shadow=payload.shadow,
        fact=_fact_of(payload),
        action=payload.action,
        asked=payload.asked_by is not None,
    )
    return LiveAction(
        offset=place,
        source=(payload.source.topic, payload.source.partition),
        action=action,
        sending=pending.state == "sending",
        first_seen=pending.first_seen_ms / 1000,
        due=pending.due_ms / 1000,
        attempts=pending.attempts,
        sends=pending.sends,
        document_sent=pending.document_sent,
        contact_due=None if pending.contact_until_ms is None else pending.contact_until_ms / 1000,
    )


def event_of_unreadable(value: bytes) -> SourceEvent | Unreadable:
    """Return the event of a pending record that an older version could not read, where this one can."""
    try:
        payload = _PENDING.validate_json(value).payload
        event = event_of(payload.source)
        item = [] if payload.item is None else [(ITEM, b"%d" % payload.item)]
        return replace(event, headers=[*event.headers, *item])
    except ValidationError as error:
        return Unreadable(first_error(error))


def _fact_of(payload: RoutedAction) -> bytes | None:
    try:
        return None if payload.fact is None else bytes.fromhex(payload.fact)
    except ValueError:
        return None


def _event_time(ms: int) -> float | None:
    return ms / 1000 if ms else None


def _fields_of(tag_source: TagSource) -> object:
    """Open up a document or change, so that its numbers are written as they came."""
    return dict(tag_source) if isinstance(tag_source, FromDocument | FromChange | WithDocument) else tag_source


def _document(tag_source: TagSource, first_offset: int | None) -> Document | None:
    if not isinstance(tag_source, FromDocument | WithDocument):
        return None
    return THE_DOCUMENT if first_offset is None else THE_REDRIVEN_DOCUMENT


def _tag_of(tag_source: TagSource) -> str | None:
    return tag_source.version_tag if isinstance(tag_source, FromEvent) else None


def _target(tag_source: TagSource) -> PollTarget:
    match tag_source:
        case FromJob(job_id=job_id):
            return Job(job_id)
        case FromDocument() | WithDocument():
            return THE_DOCUMENT
        case FromChange():
            return THE_CHANGE
        case FromOrder(newer_than=newer_than) if newer_than is not None:
            return Order(newer_than)
        case FromOrder() | FromEvent():
            return THE_ORDER


def _payload_bytes(value: bytes) -> bytes | None:
    """Cut `payload` out of an envelope that `pending_value` wrote.

    A quote inside a JSON string is always escaped, so the first match is the field itself.
    """
    start = value.find(b',"payload":')
    if start < 0 or not value.startswith(b'{"version":2,"state":'):
        return None
    return value[start + len(b',"payload":') : -1]


def _payload_of(value: bytes) -> object:
    envelope = read_exactly(value)
    return envelope["payload"] if isinstance(envelope, dict) else None
