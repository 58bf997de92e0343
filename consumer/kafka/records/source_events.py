"""A record of the source topic as it was consumed, and what its headers say of a redrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consumer.core.effects import UNKNOWN
from consumer.events.deciding import redrive_of
from schemas.dead_letter import FIRST_OFFSET, REDRIVE_OF
from schemas.pending_action import Bytes, SourceRecord

KafkaHeaders = Sequence[tuple[str, bytes | None]]
OF_REDRIVES = (REDRIVE_OF, FIRST_OFFSET)


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


def event_of(source: SourceRecord) -> SourceEvent:
    """Read it back from a pending action's record."""
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


def wrapped(raw: bytes | None) -> dict[str, str] | None:
    """Return a key or value as it is written in a pending action's record."""
    return None if raw is None else Bytes.fields_of(raw)


def first_offset_in(headers: KafkaHeaders, incarnation: int) -> int | None:
    """Return the offset of the event that a redriven one repeats. See NewAction.

    It does not say in which topic. So of a source that was recreated it is not known.
    """
    if redrive_of(headers) is None:
        return None
    if incarnation:
        return UNKNOWN
    first = next((value for name, value in reversed(headers) if name == FIRST_OFFSET), None)
    return int(first) if first and first.isdigit() and len(first) < 20 else UNKNOWN
