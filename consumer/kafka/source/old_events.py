"""EDGE. How many old events a start from the beginning would send, before it sends them.

Rules:
 1. A record's own timestamp tells first: the broker finds the offset of a time without reading.
 2. An import writes old orders into new records. So where no record is old, events are read, and their own time
    tells, until READ_S is over. What was not read is not known, and the text says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from consumer.core.ownership import Partition
from consumer.errors import OldEventsError
from consumer.kafka import clients
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.source.initial_offsets import Beginnings
from consumer.kafka.source.membership import event_of
from consumer.kafka.topics.asking import CALL_TIMEOUT_S
from consumer.kafka.topics.offsets import Watermarks
from consumer.kafka.topics.scan import StalledError, records_between

OLD_S = 86_400.0
READ_S = 10.0

IsOld = Callable[[SourceEvent], bool]
"""Tells whether an event would be sent, and is older than OLD_S by its own time."""


@dataclass(frozen=True, slots=True)
class OldEvents:
    """Old events of a topic: `count` of `total` records. `by`: which time says so. `complete`: all were looked at."""

    topic: str
    count: int
    total: int
    by: str
    complete: bool

    def __str__(self) -> str:
        least = "" if self.complete else "at least "
        return f"{self.topic}: {least}{self.count} of {self.total} records are older than a day, by {self.by}"


def refuse_old_events(
    properties: clients.Properties, starting: Iterable[Beginnings], is_old: IsOld, now: float
) -> None:
    """Raise OldEventsError where a start from the beginning would send old events. Raises KafkaException.

    `starting`: the topics that are about to start there.
    """
    found = []
    for each in starting:
        unread = {(each.topics.source, n): marks for n, marks in each.marks.items() if n not in each.committed}
        old = _by_records(properties, unread, now) or _by_events(properties, unread, is_old)
        if old is not None:
            found.append(str(old))
    if found:
        raise OldEventsError("\n".join(found))


def _by_records(
    properties: clients.Properties, partitions: Mapping[Partition, Watermarks], now: float
) -> OldEvents | None:
    held = {each: marks for each, marks in partitions.items() if marks[0] < marks[1]}
    if not held:
        return None
    day_ago_ms = int((now - OLD_S) * 1000)
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        asked = [TopicPartition(*each, day_ago_ms) for each in held]
        found = reader.offsets_for_times(asked, CALL_TIMEOUT_S)
    old = 0
    for each in found:
        if each.error is not None:
            raise clients.exception(each.error, f"{each.topic}[{each.partition}]")
        low, high = held[each.topic, each.partition]
        old += max(0, (high if each.offset < 0 else each.offset) - low)
    total = sum(high - low for low, high in held.values())
    topic = next(iter(held))[0]
    return OldEvents(topic, old, total, "their records' time", complete=True) if old else None


def _by_events(
    properties: clients.Properties, partitions: Mapping[Partition, Watermarks], is_old: IsOld
) -> OldEvents | None:
    until = time.monotonic() + READ_S
    count, complete = 0, True
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for each, (low, high) in partitions.items():
            if time.monotonic() > until:
                complete = False
                break
            try:
                for record in records_between(reader, each, low, high):
                    count += is_old(event_of(record, each, record.offset() or 0))
                    if time.monotonic() > until:
                        complete = False
                        break
            except StalledError:
                complete = False
    if not count:
        return None
    topic = next(iter(partitions))[0]
    total = sum(high - low for low, high in partitions.values())
    return OldEvents(topic, count, total, "their events' time", complete=complete)
