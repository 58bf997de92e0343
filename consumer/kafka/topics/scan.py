"""EDGE. Reads a partition once, up to what was its end, for listings: no membership, no offset is moved.

Rules:
 1. The end is the high watermark, taken before the reading starts (topics.watermarks): it ends while others write.
 2. Only settled records are seen. A transaction that stays open hides what lies behind it; the wait for it is
    bounded, and the caller hears of it: a listing that is not complete must never look as if it were.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.kafka import clients
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.source.membership import event_of
from consumer.kafka.throttling import READERS
from consumer.kafka.topics.offsets import watermarks

STALLED_S = 15.0  # above the journal's transaction.timeout.ms (10 s): an abandoned transaction has ended by then
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Gap:
    """A partition that could not be read to its end."""

    topic: str
    partition: int
    why: str

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]: {self.why}"


class StalledError(Exception):
    """Nothing came for too long. Its text says how far it came."""


def records_between(
    reader: Consumer, partition: tuple[str, int], start: int, end: int, *, stalled_s: float | None = None
) -> Iterator[Message]:
    """Yield the settled records with offsets in [start, end). `reader` has `clients.reader`'s settings.

    Raises StalledError where nothing came for `stalled_s` (default STALLED_S) and no quota was the reason,
    KafkaException for an error that does not pass.
    """
    if start >= end:
        return
    reader.assign([TopicPartition(*partition, start)])
    reached, moved_at = start, time.monotonic()
    while reached < end:
        record = reader.poll(POLL_S)
        error = None if record is None else record.error()
        before = reached
        if record is not None and error is None:
            offset = record.offset() or 0
            reached = offset + 1
            if offset < end:
                yield record
        elif record is not None and error is not None and error.code() == KafkaError._PARTITION_EOF:
            reached = max(reached, record.offset() or 0)  # tells how far it came, transaction markers included
        elif error is not None and (error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise clients.exception(error, f"{partition[0]}[{partition[1]}]")
        if reached > before or READERS.left_s:
            moved_at = time.monotonic() + READERS.left_s
        elif time.monotonic() - moved_at > (STALLED_S if stalled_s is None else stalled_s):
            raise StalledError(
                f"read to {reached} of {end}; a transaction is open there, or the broker does not answer"
            )
    reader.unassign()


def record_at(properties: clients.Properties, topic: str, partition: int, offset: int) -> SourceEvent | None:
    """Read one record; None where there is none at that offset. Raises KafkaException, StalledError."""
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    low, high = watermarks(admin, [(topic, partition)])[topic, partition]
    if not low <= offset < high:
        return None
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for found in records_between(reader, (topic, partition), offset, offset + 1):
            return event_of(found, (topic, partition), offset) if found.offset() == offset else None
    return None


def moment(milliseconds: int) -> datetime | None:
    """Return the time that a record names; None where it names none that there is (it comes from outside)."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
