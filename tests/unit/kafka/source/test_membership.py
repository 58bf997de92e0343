"""Which records a membership reports, and where a partition continues behind them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from consumer.core.ownership import Assignment
from consumer.kafka.facts import ClientError, Fact, Failed, Read
from consumer.kafka.source.membership import MAX_BATCH_BYTES, MAX_RECORDS, Membership, event_of

AT = ("orders", 0)
CONFIRMED = ClientError("confirmed")  # stands for the look whether the source is still the same


def record(
    offset: int, error: int | None = None, *, value: bytes = b"{}", timestamp: tuple[int, int] = (0, 0)
) -> Message:
    said = {
        "topic": AT[0],
        "partition": AT[1],
        "offset": offset,
        "error": None if error is None else KafkaError(error),
        "timestamp": timestamp,
        "key": None,
        "value": value,
        "headers": None,
    }
    return cast("Message", SimpleNamespace(**{name: lambda value=value: value for name, value in said.items()}))


def end(offset: int) -> Message:
    return record(offset, KafkaError._PARTITION_EOF)


class FakeConsumer:
    """Hands out what it is told to, in the order of the client."""

    def __init__(self) -> None:
        self.records: list[Message] = []

    def poll(self, _: float) -> Message | None:
        return self.records.pop(0) if self.records else None

    def consume(self, most: int, __: float) -> list[Message]:
        rest, self.records = self.records[:most], self.records[most:]
        return rest

    def consumer_group_metadata(self) -> bytes:
        return b"CGMDv2:\x01\x00\x00\x00"

    def incremental_assign(self, _: object) -> None: ...
    def pause(self, _: object) -> None: ...
    def resume(self, _: object) -> None: ...
    def seek(self, _: object) -> None: ...


def begun_at(offset: int | None) -> tuple[Membership, FakeConsumer, list[Fact]]:
    """Return a membership that owns a partition; None: it is not restored yet."""
    facts: list[Fact] = []
    fake = FakeConsumer()
    membership = Membership(
        [AT[0]],
        facts.append,
        clock=lambda: 0.0,
        wait=lambda *_: True,
        beat=lambda: None,
        confirm=lambda: facts.append(CONFIRMED),
        incarnations={AT[0]: 0},
    )
    membership._on_assign(cast("Consumer", fake), [TopicPartition(*AT)])
    if offset is not None:
        assert membership.begin(cast("Consumer", fake), Assignment(*AT, 1), offset)
    return membership, fake, facts


def polled(membership: Membership, fake: FakeConsumer, *records: Message) -> Sequence[tuple[list[int], int]]:
    """Return the offsets of what is reported, and where it continues."""
    fake.records = list(records)
    reads: list[Read] = membership.poll(cast("Consumer", fake))
    return [([each.offset for each in read.events], read.next_offset) for read in reads]


@pytest.mark.parametrize(
    ("timestamp", "found"),
    [
        ((TIMESTAMP_CREATE_TIME, 1_762_162_200_000), 1_762_162_200_000),
        ((TIMESTAMP_CREATE_TIME, -1), None),  # Kafka's own for "none", which a broker takes
        ((TIMESTAMP_NOT_AVAILABLE, 0), None),
    ],
)
def test_a_record_whose_producer_set_no_time_has_none(timestamp: tuple[int, int], found: int | None) -> None:
    assert event_of(record(3, timestamp=timestamp), AT, 3).timestamp_ms == found


def test_the_end_of_a_partition_is_where_it_continues_whatever_lies_before_it() -> None:
    membership, fake, _ = begun_at(3)
    assert polled(membership, fake, record(3), record(4), end(9)) == [([3, 4], 9)]
    assert dict(membership.positions) == {AT: 9}


def test_an_end_without_an_event_is_reported_once_and_only_if_something_lies_before_it() -> None:
    membership, fake, _ = begun_at(3)
    assert polled(membership, fake, end(3)) == []
    assert polled(membership, fake, end(5)) == [([], 5)]
    assert polled(membership, fake, end(5)) == []


def test_records_behind_an_end_are_reported_and_those_before_it_are_not() -> None:
    membership, fake, _ = begun_at(3)
    assert polled(membership, fake, end(5), record(4), record(5), end(6)) == [([5], 6)]


def test_an_end_that_is_older_than_what_was_read_moves_nothing_back() -> None:
    membership, fake, _ = begun_at(3)
    assert polled(membership, fake, record(7), end(6)) == [([7], 8)]
    assert dict(membership.positions) == {AT: 8}


def test_an_end_before_the_partition_is_restored_says_nothing() -> None:
    membership, fake, _ = begun_at(None)
    assert polled(membership, fake, end(5)) == []
    assert dict(membership.positions) == {}


def test_an_end_is_no_error_and_an_error_is_no_end() -> None:
    membership, fake, facts = begun_at(3)
    facts.clear()
    polled(membership, fake, end(4))
    assert facts == [CONFIRMED]
    polled(membership, fake, end(4))
    assert facts == [CONFIRMED], "an end that is known already costs no look"
    polled(membership, fake, record(9, KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert [type(each) for each in facts] == [ClientError] * 3
    assert dict(membership.positions) == {AT: 4}
    polled(membership, fake, record(9, KafkaError._FATAL))
    assert isinstance(facts[-1], Failed)


def test_a_batch_of_large_events_has_fewer_of_them() -> None:
    membership, fake, _ = begun_at(0)
    ((small, _),) = polled(membership, fake, *map(record, range(2 * MAX_RECORDS)))
    assert len(small) == MAX_RECORDS
    membership, fake, _ = begun_at(0)
    large = b"x" * (MAX_BATCH_BYTES // 10)
    ((offsets, _),) = polled(membership, fake, *(record(offset, value=large) for offset in range(MAX_RECORDS)))
    assert len(offsets) == 11


class PausingConsumer(FakeConsumer):
    """Knows what is paused, and refuses to resume what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.paused: set[tuple[str, int]] = set()

    def pause(self, partitions: object) -> None:
        self.paused |= {(each.topic, each.partition) for each in cast("list[TopicPartition]", partitions)}

    def resume(self, partitions: object) -> None:
        resumed = {(each.topic, each.partition) for each in cast("list[TopicPartition]", partitions)}
        assert resumed <= self.paused
        self.paused -= resumed


@pytest.mark.parametrize("held_first", [True, False])
def test_a_partition_that_is_held_stays_so_through_back_pressure(held_first: bool) -> None:
    fake = PausingConsumer()
    consumer = cast("Consumer", fake)
    other = ("orders", 1)
    membership = Membership(
        [AT[0]],
        lambda _: None,
        clock=lambda: 0.0,
        wait=lambda *_: True,
        beat=lambda: None,
        confirm=lambda: None,
        incarnations={AT[0]: 0},
    )
    membership._on_assign(consumer, [TopicPartition(*AT), TopicPartition(*other)])
    mine = Assignment(*AT, 1)
    assert membership.begin(consumer, mine, 0)
    assert membership.begin(consumer, Assignment(*other, 2), 0)
    assert fake.paused == set()

    if held_first:
        membership.hold(consumer, mine)
    membership.pause(consumer)
    if not held_first:
        membership.hold(consumer, mine)
    assert fake.paused == {AT, other}
    membership.resume(consumer)
    assert fake.paused == {AT}
    membership.pause(consumer)
    membership.release(consumer, mine)
    assert fake.paused == {AT, other}
    membership.resume(consumer)
    assert fake.paused == set()

    membership.hold(consumer, Assignment(*AT, 7))
    membership.release(consumer, mine)
    assert fake.paused == set()
