"""`pending list` against real delay topics: what it shows, and that it always ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.places import place_of
from consumer.kafka import clients
from consumer.kafka.pending import EVERY_ONE, Filter, Open, Pending, open_at, pending_actions
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.positions import position_value
from consumer.kafka.topics import scan
from consumer.kafka.topics.scan import Gap, moment, records_between
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, FromJob, PendingAction, RoutedAction, SourceIdentity, SourceRecord
from tests.support.sandbox import TopicFactory, relay_topics

NOON_MS = 1_762_171_200_000  # 2025-11-03T12:00:00Z


class Delay:
    """The delay topic of a source topic of its own, and a group."""

    def __init__(self, bootstrap_servers: str, admin: AdminClient, source: str) -> None:
        self.properties = {"bootstrap.servers": bootstrap_servers, "group.id": f"relay-{uuid4().hex[:8]}"}
        self.topics = relay_topics(admin, source)
        self._producer = Producer({"bootstrap.servers": bootstrap_servers})

    def write(self, key: bytes, value: bytes | None, partition: int = 0) -> None:
        self._producer.produce(self.topics.delay, value, key, partition)
        assert self._producer.flush(30) == 0

    def commit(self, offset: int) -> None:
        with closing(Consumer(clients.reader(self.properties))) as consumer:
            consumer.commit(
                offsets=[TopicPartition(self.topics.delay, 0, offset, metadata="a relay")], asynchronous=False
            )

    @contextmanager
    def transaction(self, key: bytes, value: bytes) -> Iterator[Producer]:
        """An open transaction that holds the record; it is aborted in the end."""
        producer = Producer(clients.producer(self.properties, f"t-{uuid4().hex[:8]}"))
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(self.topics.delay, value, key, 0)
        producer.flush(30)
        yield producer
        producer.abort_transaction(30)

    def listed(self, wanted: Filter = EVERY_ONE) -> list[Pending | Gap]:
        return list(pending_actions(self.properties, [self.topics], wanted))

    def offsets(self) -> list[int | None]:
        found = self.listed()
        return [each.offset for each in found if isinstance(each, Pending)]


@pytest.fixture
def delay(bootstrap_servers: str, admin: AdminClient, topics: TopicFactory) -> Delay:
    return Delay(bootstrap_servers, admin, topics(partitions=2))


def pending(order_id: str = "A-1", *, sending: bool = False, attempts: int = 0, partition: int = 0) -> bytes:
    payload = RoutedAction(
        route="shipped",
        connection="default",
        order_id=order_id,
        action="ConfirmShipment",
        tag_source=FromJob(job_id="job-7"),
        event_time_ms=NOON_MS,
        source=SourceRecord(topic="orders", partition=partition, offset=0),
    )
    record = PendingAction(
        state="sending" if sending else "pending",
        first_seen_ms=NOON_MS,
        due_ms=NOON_MS + 60_000,
        attempts=attempts,
        sends=int(sending),
        payload=payload,
    )
    return record.model_dump_json().encode()


def test_of_each_open_action_its_latest_state_is_listed_in_the_order_of_the_source(delay: Delay) -> None:
    delay.write(action_key(place_of(0, 12), "shipped"), pending("B"))
    delay.write(action_key(place_of(0, 9), "shipped"), pending("A"))
    delay.write(action_key(place_of(0, 3), "shipped"), pending("C", partition=1), partition=1)
    delay.write(action_key(place_of(0, 10), "shipped"), pending("D"))
    delay.write(POSITION_KEY, position_value(SourceIdentity(group="g", topic="orders"), 0, 13))
    delay.write(action_key(place_of(0, 10), "shipped"), None)  # done
    delay.write(action_key(place_of(0, 9), "shipped"), pending("A", sending=True, attempts=2))
    found = [each for each in delay.listed() if isinstance(each, Pending)]
    assert [(each.partition, each.offset, each.order_id, each.state) for each in found] == [
        (0, 9, "A", "sending"),
        (0, 12, "B", "pending"),
        (1, 3, "C", "pending"),
    ]
    first = found[0]
    assert (first.topic, first.route, first.action) == ("orders", "shipped", "ConfirmShipment")
    assert (first.connection, first.attempts, first.sends) == ("default", 2, 1)
    assert (str(first.first_seen), str(first.due)) == ("2025-11-03 12:00:00+00:00", "2025-11-03 12:01:00+00:00")


def test_only_what_is_wanted_is_listed_as_it_stands_now(delay: Delay) -> None:
    delay.write(action_key(place_of(0, 1), "shipped"), pending("A"))
    delay.write(action_key(place_of(0, 2), "shipped"), pending("A"))
    delay.write(action_key(place_of(0, 3), "shipped"), pending("B"))
    delay.write(action_key(place_of(0, 4), "shipped"), b"nonsense")
    delay.write(action_key(place_of(0, 2), "shipped"), pending("A", sending=True))
    noon = moment(NOON_MS)
    assert noon is not None

    def offsets(wanted: Filter) -> list[int | None]:
        return [each.offset for each in delay.listed(wanted) if isinstance(each, Pending)]

    assert offsets(Filter(order_id="A")) == [1, 2]
    assert offsets(Filter(order_id="A", state="pending")) == [1]
    assert offsets(Filter(state="sending")) == [2]
    assert offsets(Filter(state="unreadable")) == [4]
    assert offsets(Filter(connection="default")) == [1, 2, 3]
    assert offsets(Filter(connection="other")) == []
    assert offsets(Filter(seen_before=noon)) == []
    assert offsets(Filter(seen_before=noon + timedelta(milliseconds=1))) == [1, 2, 3]


def test_what_could_not_be_read_is_reported_whatever_is_wanted(delay: Delay) -> None:
    missing = RelayTopics("nobody", "nobody.engage.delay", "nobody.engage.dead-letters")
    found = list(pending_actions(delay.properties, [missing], Filter(order_id="A")))
    assert [type(each) for each in found] == [Gap]


def test_it_reads_from_the_low_water_mark_and_moves_no_offset(delay: Delay) -> None:
    for offset in range(4):
        delay.write(action_key(place_of(0, offset), "shipped"), pending())
    delay.commit(2)
    assert delay.offsets() == [2, 3]
    assert delay.offsets() == [2, 3]


def test_a_low_water_mark_that_cannot_be_means_from_the_beginning(delay: Delay) -> None:
    delay.write(action_key(place_of(0, 0), "shipped"), pending())
    delay.commit(99)
    assert delay.offsets() == [0]


def test_a_record_that_cannot_be_read_is_listed_too(delay: Delay) -> None:
    delay.write(action_key(place_of(0, 7), "shipped"), b'{"version": 9}')
    delay.write(b"nonsense", b"nonsense")
    assert delay.listed() == [
        Pending(topic=delay.topics.source, partition=0, offset=None, state="unreadable"),
        Pending(topic=delay.topics.source, partition=0, offset=7, state="unreadable"),
    ]


def test_an_aborted_transaction_at_the_end_hides_nothing_and_is_not_shown(delay: Delay) -> None:
    delay.write(action_key(place_of(0, 0), "shipped"), pending())
    with delay.transaction(action_key(place_of(0, 1), "shipped"), pending()):
        pass
    assert delay.listed() == [each for each in delay.listed() if isinstance(each, Pending)]
    assert delay.offsets() == [0]


def test_behind_an_open_transaction_the_list_ends_and_says_that_it_is_not_complete(
    delay: Delay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "STALLED_S", 1.0)
    delay.write(action_key(place_of(0, 0), "shipped"), pending())
    with delay.transaction(action_key(place_of(0, 1), "shipped"), pending()):
        delay.write(action_key(place_of(0, 2), "shipped"), pending())
        delay.write(action_key(place_of(0, 3), "shipped"), pending(partition=1), partition=1)
        found = delay.listed()
        gaps = [each for each in found if isinstance(each, Gap)]
        assert [(each.partition, each.offset) for each in found if isinstance(each, Pending)] == [(0, 0), (1, 3)]
        assert [(each.topic, each.partition) for each in gaps] == [(delay.topics.delay, 0)]
        assert "read to 1 of 3" in gaps[0].why
    assert delay.offsets() == [0, 2, 3]


def test_a_transaction_that_ends_meanwhile_is_waited_for(delay: Delay) -> None:
    with (
        closing(Consumer(clients.reader(delay.properties))) as reader,
        delay.transaction(action_key(place_of(0, 0), "shipped"), pending()) as producer,
    ):
        delay.write(action_key(place_of(0, 1), "shipped"), pending())
        found = records_between(reader, (delay.topics.delay, 0), 0, 2)
        producer.abort_transaction(30)
        assert [record.offset() for record in found] == [1]
        producer.begin_transaction()  # for the fixture to abort


def test_what_is_written_after_the_end_was_taken_is_not_waited_for(delay: Delay) -> None:
    for offset in range(5):
        delay.write(action_key(place_of(0, offset), "shipped"), pending())
    with closing(Consumer(clients.reader(delay.properties))) as reader:
        for end in (3, 5):
            found = records_between(reader, (delay.topics.delay, 0), 1, end)
            assert [record.offset() for record in found] == list(range(1, end))


def test_a_topic_that_does_not_exist_is_reported(delay: Delay) -> None:
    missing = RelayTopics("nobody", "nobody.engage.delay", "nobody.engage.dead-letters")
    assert list(pending_actions(delay.properties, [missing])) == [
        Gap("nobody.engage.delay", 0, "the topic does not exist")
    ]


def test_one_action_is_shown_whole_with_the_action_of_its_order_that_it_waits_for(delay: Delay) -> None:
    for offset, order_id in ((7, "A-1"), (8, "B-2"), (9, "A-1")):
        delay.write(action_key(place_of(0, offset), "shipped"), pending(order_id, attempts=offset))
    delay.write(action_key(place_of(0, 10), "shipped"), b"what is this?")
    delay.write(action_key(place_of(0, 7), "shipped"), None)
    delay.write(action_key(place_of(0, 7), "shipped"), pending("A-1"), partition=1)

    def opened(offset: int, topic: str = "orders") -> list[Open | Gap]:
        return list(open_at(delay.properties, [delay.topics], topic, 0, offset))

    assert opened(7) == []  # it ended; what has its offset in the other partition is another one
    (last,) = opened(9)
    assert isinstance(last, Open)
    assert last.record is not None
    assert (last.record.payload.order_id, last.record.attempts, last.ahead) == ("A-1", 9, None)
    delay.write(action_key(place_of(0, 7), "shipped"), pending("A-1"))
    (last,) = opened(9)
    assert isinstance(last, Open)
    assert last.ahead == "orders/0/7"
    (unreadable,) = opened(10, delay.topics.source)
    assert isinstance(unreadable, Open)
    assert (unreadable.record, unreadable.line.state) == (None, "unreadable")
    assert opened(9, "another topic") == []
