"""EDGE. What the delay topics hold now, for the `pending` commands.

It is read as a restart would read it, without joining the group.

Rules:
 1. It reads one partition at a time and keeps one line of each live record, and whole those of the one event that
    is asked for: memory holds one partition's open actions at most.
 2. The low-water mark only saves reading. Without one, the partition is read from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from consumer.core.ownership import Assignment
from consumer.core.places import offset_at
from consumer.kafka import clients, refused
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import committed_offsets, watermarks
from consumer.kafka.topics.scan import Gap, StalledError, moment, records_between
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, PendingAction

State = Literal["pending", "sending", "refused", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A live record of the delay topic. `partition` and `offset` are its event's.

    What is unreadable has no more, nor has a dead letter that its topic refused.
    """

    topic: str
    partition: int
    offset: int | None
    state: State
    route: str | None = None
    action: str | None = None
    order_id: str | None = field(default=None, repr=False)
    connection: str | None = None
    first_seen: datetime | None = None
    due: datetime | None = None
    attempts: int | None = None
    sends: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """One of them, whole. `record`: None where it is refused or unreadable. `saved_ms`: when the record was written.

    `ahead`: the event of the action that is before it in its order, as `topic/partition/offset`.
    """

    line: Pending
    record: PendingAction | None = field(default=None, repr=False)
    saved_ms: int | None = None
    ahead: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of them are wanted: all that is set must hold. Of an unreadable record nothing but its state is known."""

    order_id: str | None = field(default=None, repr=False)
    connection: str | None = None
    state: State | None = None
    seen_before: datetime | None = None  # its event was read earlier than that

    def takes(self, pending: Pending) -> bool:
        """Whether this one is wanted."""
        return (
            self.order_id in (None, pending.order_id)
            and self.connection in (None, pending.connection)
            and self.state in (None, pending.state)
            and (self.seen_before is None or (pending.first_seen is not None and pending.first_seen < self.seen_before))
        )


EVERY_ONE = Filter()


def pending_actions(
    properties: clients.Properties, topics: Iterable[RelayTopics], wanted: Filter = EVERY_ONE
) -> Iterator[Pending | Gap]:
    """Yield the open actions that are wanted, in the order of topic, partition and source offset.

    A Gap follows what could be read of its partition. Raises KafkaException where the broker does not answer or a
    topic does not exist.
    """
    for live in _live_of(properties, topics):
        if isinstance(live, Gap):
            yield live
            continue
        for found in live.sorted():
            if wanted.takes(found):
                yield found


def open_at(
    properties: clients.Properties, topics: Iterable[RelayTopics], source: str, partition: int, offset: int
) -> Iterator[Open | Gap]:
    """Yield what is open of the event at this offset of a source topic, in the order of its items.

    Raises as `pending_actions`.
    """
    for live in _live_of(properties, topics, partition, offset):
        if isinstance(live, Gap):
            yield live
        else:
            yield from live.whole(source)


def _low_water_marks(reader: Consumer, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    try:
        return committed_offsets(reader, (), partitions)
    except KafkaException:  # a transaction that has sent its offsets stays open: rule 2
        return {}


@dataclass(slots=True)
class _Live:
    """The live records of a partition: a line of each, and those of one offset whole."""

    source: str
    partition: int
    offset: int | None
    lines: dict[bytes, Pending] = field(default_factory=dict)
    records: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)  # value, ms since 1970

    def take(self, record: Message) -> None:
        """Take the next record of the partition."""
        key, value = record.key(), record.value()
        if key is None or key == POSITION_KEY:
            return
        if value is None:
            self.lines.pop(key, None)
            self.records.pop(key, None)
            return
        line = self.lines[key] = _pending(self.source, self.partition, key, value)
        if self.offset is not None and line.offset == self.offset:
            self.records[key] = (value, record.timestamp()[1])

    def sorted(self) -> list[Pending]:
        """Return the lines in the order of their events."""
        return [self.lines[key] for key in self._keys()]

    def whole(self, source: str) -> Iterator[Open]:
        """Yield those of the source topic that were kept whole."""
        ahead: dict[tuple[str | None, str], str] = {}
        for key in self._keys():
            line = self.lines[key]
            lane = None if line.order_id is None else (line.connection, line.order_id)
            if key in self.records and line.topic == source:
                value, saved_ms = self.records[key]
                readable = line.state in ("pending", "sending")
                yield Open(
                    line=line,
                    record=PendingAction.model_validate_json(value) if readable else None,
                    saved_ms=saved_ms,
                    ahead=None if lane is None else ahead.get(lane),
                )
            if lane is not None:
                ahead[lane] = f"{line.topic}/{line.partition}/{line.offset}"

    def _keys(self) -> list[bytes]:
        return sorted(self.lines, key=lambda key: -1 if (place := place_of_key(key)) is None else place)


def _live_of(
    properties: clients.Properties, topics: Iterable[RelayTopics], only: int | None = None, offset: int | None = None
) -> Iterator[_Live | Gap]:
    """Yield what is live in each partition, or in the `only` one; a Gap behind one that was not read to its end."""
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for each in topics:
            count = partition_counts(admin, (each.delay,)).get(each.delay)
            if count is None:
                yield Gap(each.delay, 0, "the topic does not exist")
                continue
            partitions = [(each.delay, number) for number in range(count) if only in (None, number)]
            marks = _low_water_marks(reader, partitions)  # before the ends: a mark never lies behind its end, then
            ends = watermarks(admin, partitions)
            for partition in partitions:
                low, end = ends[partition]
                mark = marks.get(partition, low)
                yield from _of_partition(
                    reader,
                    _Live(each.source, partition[1], offset),
                    partition,
                    mark if low <= mark <= end else low,
                    end,
                )


def _of_partition(
    reader: Consumer, live: _Live, partition: tuple[str, int], start: int, end: int
) -> Iterator[_Live | Gap]:
    gap: Gap | None = None
    try:
        for record in records_between(reader, partition, start, end):
            live.take(record)
    except StalledError as error:
        gap = Gap(*partition, str(error))
    yield live
    if gap is not None:
        yield gap


def _pending(topic: str, partition: int, key: bytes, value: bytes) -> Pending:
    place = place_of_key(key)
    offset = None if place is None else offset_at(place)
    try:
        record = PendingAction.model_validate_json(value)
    except ValidationError:
        dead_letter = refused.read(Assignment(topic, partition, 0), key, value)
        if dead_letter is not None:
            return Pending(topic=topic, partition=partition, offset=dead_letter.offset, state="refused")
        return Pending(topic=topic, partition=partition, offset=offset, state="unreadable")
    payload = record.payload
    return Pending(
        topic=payload.source.topic,
        partition=payload.source.partition,
        offset=offset,
        state=record.state,
        route=payload.route,
        action=payload.action,
        order_id=payload.order_id,
        connection=payload.connection,
        first_seen=moment(record.first_seen_ms),
        due=moment(record.due_ms),
        attempts=record.attempts,
        sends=record.sends,
    )
