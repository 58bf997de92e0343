"""A partition's position record."""

from __future__ import annotations

from functools import lru_cache

from pydantic import ValidationError

from consumer.kafka.records.unreadable import Unreadable, first_error
from schemas.pending_action import Position, SourceIdentity


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
        return Unreadable(first_error(error))
