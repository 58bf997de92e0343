"""The delay topic's records as bytes. Only this module knows how the ledger's facts are written and read.

Rules:
 1. `payload` is serialised once, when the event is read, and stays bytes from then on. A progress record is composed
    around it. In memory it is compressed: an event and its action have much in common, and so have all of them. That
    saves two thirds for 7 microseconds, and keeps a pending action under 1 KiB. The latest ones are kept as they were,
    too: an action's intent, its request and its outcome follow close on one another.
 2. A record that cannot be read becomes a dead letter with its contents (`Unreadable`). It is never skipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypedDict, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from consumer.core.clock import to_ms
from consumer.core.effects import (
    THE_CHANGE,
    THE_DOCUMENT,
    THE_ORDER,
    THE_REDRIVEN_DOCUMENT,
    UNKNOWN,
    Document,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Order,
    PollTarget,
    Save,
)
from consumer.core.places import MAX_ITEMS, incarnation_at, item_at, offset_at, place_of
from consumer.events.deciding import redrive_of
from consumer.events.facts import digest_of
from consumer.events.identifiers import hint_on
from consumer.events.numbers import read_exactly, written
from consumer.events.routing.results import Routed
from consumer.events.routing.tag_sources import ORDER_ACTION, names_order_action
from schemas.dead_letter import DETAIL, FIRST_OFFSET, ITEM, PREFIX, REDRIVE_OF, ROUTE, DeadLetterHeaders, Reason
from schemas.engage import ActionRequest, Change, OrderAction
from schemas.pending_action import (
    Bytes,
    FromChange,
    FromDocument,
    FromEvent,
    FromJob,
    FromOrder,
    PendingAction,
    Position,
    RoutedAction,
    SourceIdentity,
    SourceRecord,
    TagSource,
    WithDocument,
)

REDRIVEN = PREFIX + "redriven"
_OF_REDRIVES = (REDRIVE_OF, FIRST_OFFSET)
KafkaHeaders = Sequence[tuple[str, bytes | None]]

_PENDING: TypeAdapter[PendingAction] = TypeAdapter(PendingAction)
_PAYLOAD: TypeAdapter[RoutedAction] = TypeAdapter(RoutedAction)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEvent:
    """A record of the source topic as it was consumed. `incarnation`: of that topic (core/places.py)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: KafkaHeaders = ()
    incarnation: int = 0


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


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record of the delay topic that this version cannot read. `detail` names the field, never its contents."""

    detail: str


def action_key(place: int, route: str) -> bytes:
    """Return the delay topic's key of an action."""
    item = item_at(place)
    event = b"%d:%d" % (incarnation_at(place), offset_at(place))
    return b"%b:%b" % (b"%b.%d" % (event, item) if item else event, route.encode())


def place_of_key(key: bytes) -> int | None:
    """Return the place of the action's event (core/places.py); None where it is no action's key."""
    parts = key.split(b":", 2)
    if len(parts) < 3:
        return None
    offset, dot, item = parts[1].partition(b".")
    numbers = (parts[0], offset, item if dot else b"0")
    if not all(number.isdigit() and len(number) < 20 for number in numbers) or int(numbers[2]) >= MAX_ITEMS:
        return None
    return place_of(*map(int, numbers))


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
        "key": _wrapped(event.key),
        "value": _wrapped(event.value),
        "headers": [(name, _wrapped(value)) for name, value in event.headers] or None,
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
        "source": _without_absent(source),
    }
    first_offset = _first_offset(event.headers, event.incarnation)
    if first_offset is None and asked is not None:
        first_offset = event.offset
    document = _document(tag_source, first_offset)
    payload = written(_without_absent(record))
    packed = _packed(payload)
    _note_latest(packed, payload)  # its record is next
    return NewAction(
        route=routed.route,
        connection=routed.connection,
        order_id=routed.order_id,
        payload=packed,
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
        return Unreadable(_first_error(error))
    payload = pending.payload
    tag_source = payload.tag_source
    headers = payload.source.headers
    of_redrives = [(name, each.raw()) for name, each in headers if each and name in _OF_REDRIVES]
    first_offset = _first_offset(of_redrives, incarnation_at(place))
    if first_offset is None and payload.asked_by is not None:
        first_offset = offset_at(place)
    document = _document(tag_source, first_offset)
    action = NewAction(
        route=payload.route,
        connection=payload.connection,
        order_id=payload.order_id,
        # The envelope's last field, as it is. If another version wrote the record otherwise, it is composed again.
        payload=_packed(_payload_bytes(value) or written(_payload_of(value))),
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


def _fact_of(payload: RoutedAction) -> bytes | None:
    try:
        return None if payload.fact is None else bytes.fromhex(payload.fact)
    except ValueError:
        return None


def _event_time(ms: int) -> float | None:
    return ms / 1000 if ms else None


def read_payload(payload: bytes) -> RoutedAction:
    """Read what a route made of an event, from `NewAction.payload`."""
    return _PAYLOAD.validate_json(unpacked(payload))


def document_of(payload: bytes) -> dict[str, object]:
    """Return the order document that is posted first, from the payload of an action whose target is `Document`."""
    document: dict[str, object] = _opened(payload)["tag_source"]["document"]
    return document


def document_with_action_of(payload: bytes) -> dict[str, object]:
    """Return the order document with the action in it, from the payload of an action that travels so."""
    fields = _opened(payload)
    action = OrderAction(action=fields["action"], language=fields.get("language"))
    document: dict[str, object] = {
        name: value for name, value in fields["tag_source"]["document"].items() if not names_order_action(name)
    }
    data = _without_absent({"data": fields.get("data")})  # beside the model: its numbers stay as they came
    return document | {ORDER_ACTION: action.model_dump(mode="json", by_alias=True, exclude_none=True) | data}


def change_of(payload: bytes) -> tuple[Change, dict[str, object]]:
    """Return how the order is changed first, from the payload of an action whose target is `Change`."""
    source = _opened(payload)["tag_source"]
    return source["change"], source["body"]


def request_of(payload: bytes, version_tag: str) -> tuple[ActionRequest, int]:
    """Return the request of an action, from `NewAction.payload`, and when its event happened (ms since 1970, UTC)."""
    fields = _opened(payload)  # a third of `read_payload`'s time: once per action
    request = ActionRequest(
        action=fields["action"], version_tag=version_tag, language=fields.get("language"), data=fields.get("data")
    )
    return request, fields["event_time_ms"]


def _opened(payload: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", read_exactly(unpacked(payload)))


def action_of(payload: bytes) -> tuple[str, int]:
    """Return an action's name, from `NewAction.payload`, and when its event happened (ms since 1970, UTC)."""
    fields = from_json(unpacked(payload))
    return fields["action"], fields["event_time_ms"]


def trace_context_of(payload: bytes) -> dict[str, str] | None:
    """Return an action's W3C trace context, from `NewAction.payload`; None where it has none."""
    context: dict[str, str] | None = from_json(unpacked(payload)).get("trace_context")
    return context


def position_value(
    source: SourceIdentity, partition: int, next_offset: int, outcomes_topic_id: str | None = None
) -> bytes:
    """Return the value of a partition's position record."""
    outcomes = b"" if outcomes_topic_id is None else b',"outcomes_topic_id":"%b"' % outcomes_topic_id.encode()
    return b'{"version":2,"next_offset":%d,"partition":%d,"source":%b%b}' % (
        next_offset, partition, _as_json(source), outcomes,
    )  # fmt: skip


@lru_cache(64)
def _as_json(source: SourceIdentity) -> bytes:
    return source.model_dump_json(exclude_defaults=True).encode()


def read_position(value: bytes) -> Position | Unreadable:
    """Read a position record."""
    try:
        return Position.model_validate_json(value)
    except ValidationError as error:
        return Unreadable(_first_error(error))


def dead_letter_of_action(given_up: GiveUp, now: float) -> DeadLetterRecord:
    """Return the dead letter of an action that was given up. `now` is seconds since 1970."""
    payload = read_payload(given_up.payload)
    event, hint = _event_of(payload.source), hint_on(payload.order_id)
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


def event_of_unreadable(value: bytes) -> SourceEvent | Unreadable:
    """Return the event of a pending record that an older version could not read, where this one can."""
    try:
        payload = _PENDING.validate_json(value).payload
        event = _event_of(payload.source)
        item = [] if payload.item is None else [(ITEM, b"%d" % payload.item)]
        return replace(event, headers=[*event.headers, *item])
    except ValidationError as error:
        return Unreadable(_first_error(error))


def _event_of(source: SourceRecord) -> SourceEvent:
    return SourceEvent(
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        timestamp_ms=source.timestamp_ms,
        key=source.key.raw() if source.key else None,
        value=source.value.raw() if source.value else None,
        headers=[(name, value.raw() if value else None) for name, value in source.headers],
        incarnation=source.incarnation,
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
        (name, value) for name, value in event.headers if not name.startswith(PREFIX) or name in _OF_REDRIVES
    ]
    # It has no timestamp of its own, so the broker sets the time of writing. Retention counts from the timestamp: with
    # the event's, the dead letter of an old event would be deleted at once.
    return DeadLetterRecord(event.key, event.value, [*original, *headers.to_kafka()])


# What most payloads have in common, the most common part last. It packs memory only, so it may change at any time.
_SKELETON = (
    b'"carrier":"","trackingNumber":"","trackingUri":"https://'
    rb"\"language\":\"\"occurredAt\":\"20\"engage\":{\"jobId\":\"\"data\":{\"\"orderId\":\"{\"version\":1,\"type\":\"order."
    b'{"route":"","connection":"default","order_id":"","action":"Confirm","language":"","data":{},'
    b'"tag_source":{"kind":"job","job_id":""},"on_unknown":"resend","event_time_ms":17,'
    b'"source":{"topic":"orders","partition":0,"offset":1,"timestamp_ms":17,"key":{"text":""},"value":{"text":"{'
)
_WINDOW_BITS, _MEMORY_LEVEL = -12, 5  # 4 KiB back is far enough; the usual 256 KiB would have to be cleared each time


_MAX_LATEST, _MAX_LATEST_BYTES = 512, 4096  # 2 MiB at most
_latest: dict[bytes, bytes] = {}  # packed payloads -> what they hold; for all threads


def _packed(payload: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zdict=_SKELETON)
    return packer.compress(payload) + packer.flush()


def unpacked(payload: bytes) -> bytes:
    """Return the JSON of `NewAction.payload`."""
    latest = _latest.get(payload)
    if latest is None:
        latest = zlib.decompressobj(_WINDOW_BITS, zdict=_SKELETON).decompress(payload)
        _note_latest(payload, latest)
    return latest


def _note_latest(packed: bytes, payload: bytes) -> None:
    if len(payload) <= _MAX_LATEST_BYTES:
        if len(_latest) >= _MAX_LATEST:
            _latest.clear()
        _latest[packed] = payload


def _fields_of(tag_source: TagSource) -> object:
    """Open up a document or change, so that its numbers are written as they came."""
    return dict(tag_source) if isinstance(tag_source, FromDocument | FromChange | WithDocument) else tag_source


def _first_offset(headers: KafkaHeaders, incarnation: int) -> int | None:
    """Return the offset of the event that a redriven one repeats. See NewAction.

    It does not say in which topic. So of a source that was recreated it is not known.
    """
    if redrive_of(headers) is None:
        return None
    if incarnation:
        return UNKNOWN
    first = next((value for name, value in reversed(headers) if name == FIRST_OFFSET), None)
    return int(first) if first and first.isdigit() and len(first) < 20 else UNKNOWN


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


def _wrapped(raw: bytes | None) -> dict[str, str] | None:
    return None if raw is None else Bytes.fields_of(raw)


def _without_absent(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


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


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'value'}: {first['msg']}"
