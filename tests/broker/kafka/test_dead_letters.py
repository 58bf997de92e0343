"""Dead letters against a real broker: what is listed, and that a redrive is the original, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.effects import ActionId, Save
from consumer.core.ownership import Assignment
from consumer.core.places import place_of
from consumer.events.routing.results import Routed
from consumer.kafka import clients
from consumer.kafka.dead_letters.redrive import Coordinates, DeadLetter, Redrive, Selection, redrive
from consumer.kafka.dead_letters.redrive import dead_letters as list_dead_letters
from consumer.kafka.dead_letters.waiting import WaitingDeadLetters
from consumer.kafka.records.dead_letters import DeadLetterRecord, dead_letter_of_event, dead_letter_of_unreadable
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.pending import new_action, pending_value
from consumer.kafka.records.source_events import KafkaHeaders, SourceEvent
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.topics import scan
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.scan import Gap, records_between
from schemas.dead_letter import FIRST_OFFSET, REDRIVE_OF, Reason
from schemas.pending_action import FromJob
from tests.support.sandbox import TopicFactory, relay_topics
from tests.support.waiting import until

YESTERDAY_MS = 1_762_171_200_000
FAILED_AT_S = 1_762_257_600.0
EVERY = Selection()


class DeadLetters:
    """A source topic of two partitions with its dead-letter topic."""

    def __init__(self, bootstrap_servers: str, admin: AdminClient, source: str) -> None:
        self.properties = {"bootstrap.servers": bootstrap_servers, "group.id": f"relay-{uuid4().hex[:8]}"}
        self.topics = relay_topics(admin, source)
        self.admin = admin
        self.producer = Producer({"bootstrap.servers": bootstrap_servers, "message.max.bytes": 8 << 20})

    def event(
        self,
        offset: int = 0,
        *,
        partition: int = 0,
        key: bytes | None = b"A-1",
        value: bytes | None = b"{}",
        headers: KafkaHeaders = (),
    ) -> SourceEvent:
        return SourceEvent(
            topic=self.topics.source,
            partition=partition,
            offset=offset,
            timestamp_ms=YESTERDAY_MS,
            key=key,
            value=value,
            headers=headers,
        )

    def fail(self, event: SourceEvent, reason: Reason = Reason.REJECTED, failed_at: float = FAILED_AT_S) -> Coordinates:
        return self.put(dead_letter_of_event(event, reason, "why: so", failed_at, "shipped"), event.partition)

    def put(self, dead_letter: DeadLetterRecord, partition: int = 0) -> Coordinates:
        written: list[Message] = []
        self.producer.produce(
            self.topics.dead_letters,
            dead_letter.value,
            dead_letter.key,
            partition,
            on_delivery=lambda _, record: written.append(record),
            headers=dead_letter.headers,
        )
        assert self.producer.flush(30) == 0
        return Coordinates(self.topics.dead_letters, partition, written[0].offset() or 0)

    @contextmanager
    def open_transaction(self) -> Iterator[None]:
        producer = Producer(clients.producer(self.properties, f"t-{uuid4().hex[:8]}"))
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(self.topics.dead_letters, b"{}", partition=0)
        producer.flush(30)
        yield
        producer.abort_transaction(30)

    def listed(self, selection: Selection = EVERY) -> list[DeadLetter | Gap]:
        return list(list_dead_letters(self.properties, [self.topics], selection))

    def dead_letters(self, selection: Selection = EVERY) -> list[DeadLetter]:
        return [each for each in self.listed(selection) if isinstance(each, DeadLetter)]

    def coordinates(self, selection: Selection = EVERY) -> list[Coordinates]:
        return [each.coordinates for each in self.dead_letters(selection)]

    def redrives(
        self, selection: Selection = EVERY, *, dry_run: bool = False, only_mark: bool = False
    ) -> list[Redrive | Gap]:
        return list(redrive(self.properties, [self.topics], selection, dry_run=dry_run, only_mark=only_mark))

    def results(self, selection: Selection = EVERY, *, dry_run: bool = False) -> list[tuple[Coordinates, str]]:
        found = self.redrives(selection, dry_run=dry_run)
        return [(each.coordinates, each.result) for each in found if isinstance(each, Redrive)]

    def source(self, partition: int = 0) -> list[Message]:
        where = (self.topics.source, partition)
        low, high = watermarks(self.admin, [where])[where]
        with closing(Consumer(clients.reader(self.properties))) as reader:
            return list(records_between(reader, where, low, high))


@pytest.fixture
def dead_letters(bootstrap_servers: str, admin: AdminClient, topics: TopicFactory) -> DeadLetters:
    return DeadLetters(bootstrap_servers, admin, topics(partitions=2))


# -- listing ------------------------------------------------------------------------------------------------------


def test_letters_are_listed_with_all_that_their_headers_say(dead_letters: DeadLetters) -> None:
    event = dead_letters.event(7, partition=1, key=b"A-1")
    coordinates = dead_letters.fail(event, Reason.INVALID_EVENT)
    (dead_letter,) = dead_letters.dead_letters()
    assert dead_letter.coordinates == coordinates
    assert (dead_letter.why.reason, dead_letter.why.detail, dead_letter.why.route) == (
        Reason.INVALID_EVENT,
        "why: so",
        "shipped",
    )
    assert (dead_letter.why.source_topic, dead_letter.why.source_partition, dead_letter.why.source_offset) == (
        event.topic,
        1,
        7,
    )
    assert (dead_letter.key, dead_letter.redriven, dead_letter.redrive_of) == (b"A-1", False, None)


def test_letters_are_chosen_by_reason_time_place_and_source_topic(dead_letters: DeadLetters) -> None:
    old = dead_letters.fail(dead_letters.event(0), Reason.REJECTED, FAILED_AT_S)
    new = dead_letters.fail(dead_letters.event(1), Reason.REJECTED, FAILED_AT_S + 1)
    other = dead_letters.fail(dead_letters.event(2, partition=1), Reason.DEADLINE, FAILED_AT_S)
    assert dead_letters.coordinates() == [old, new, other]
    assert dead_letters.coordinates(Selection(reasons=frozenset({Reason.REJECTED}))) == [old, new]
    assert dead_letters.coordinates(Selection(since_ms=round(FAILED_AT_S * 1000) + 1)) == [new]
    assert dead_letters.coordinates(Selection(coordinates=frozenset({new, other}))) == [new, other]
    assert dead_letters.coordinates(Selection(reasons=frozenset({Reason.DEADLINE}), coordinates=frozenset({new}))) == []
    assert dead_letters.coordinates(Selection(source_topic=dead_letters.topics.source)) == [old, new, other]
    assert dead_letters.coordinates(Selection(source_topic="another")) == []


def test_what_somebody_else_put_there_is_told_and_ignored(dead_letters: DeadLetters) -> None:
    dead_letters.put(DeadLetterRecord(b"?", b"?", []))
    coordinates = dead_letters.fail(dead_letters.event())
    gap, dead_letter = dead_letters.listed()
    assert isinstance(gap, Gap)
    assert "offset 0" in gap.why
    assert isinstance(dead_letter, DeadLetter)
    assert dead_letter.coordinates == coordinates


def test_an_open_transaction_makes_the_list_incomplete_and_not_endless(
    dead_letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "STALLED_S", 1.0)
    dead_letters.fail(dead_letters.event())
    elsewhere = dead_letters.fail(dead_letters.event(partition=1))
    with dead_letters.open_transaction():
        gap, dead_letter = dead_letters.listed()
        assert isinstance(gap, Gap)
        assert gap.partition == 0
        assert isinstance(dead_letter, DeadLetter)
        assert dead_letter.coordinates == elsewhere


# -- redrive ------------------------------------------------------------------------------------------------------

EVENTS: dict[str, tuple[bytes | None, bytes | None, KafkaHeaders]] = {
    "ordinary": (b"A-1", b'{"orderId": "A-1"}', [("traceparent", b"00-1"), ("x", b"\x00\xff")]),
    "any bytes": (b"\xff\x00", b"\x80 not JSON \x00", [("x", b"1"), ("y", b""), ("x", b"2"), ("z", None)]),
    "empty": (b"", b"", []),
    "nothing but a value": (None, b"{}", []),
}


@pytest.mark.parametrize("name", EVENTS)
def test_a_redriven_event_is_the_original_byte_for_byte_in_its_own_partition(
    dead_letters: DeadLetters, name: str
) -> None:
    key, value, headers = EVENTS[name]
    coordinates = dead_letters.fail(dead_letters.event(5, partition=1, key=key, value=value, headers=headers))
    assert dead_letters.redrives() == [Redrive(coordinates, "redriven", (dead_letters.topics.source, 1))]
    assert dead_letters.source(0) == []
    (event,) = dead_letters.source(1)
    assert (event.key(), event.value()) == (key, value)
    assert event.headers() == [*headers, (REDRIVE_OF, str(coordinates).encode()), (FIRST_OFFSET, b"5")]


def test_a_letter_that_lost_its_value_is_never_redriven_as_a_tombstone(dead_letters: DeadLetters) -> None:
    coordinates = dead_letters.fail(dead_letters.event(value=None))
    assert dead_letters.results() == [(coordinates, "failed")]
    assert dead_letters.source() == []


def test_its_timestamp_is_new_so_that_retention_does_not_take_it_before_it_is_read(dead_letters: DeadLetters) -> None:
    dead_letters.fail(dead_letters.event())
    dead_letters.redrives()
    (event,) = dead_letters.source()
    assert event.timestamp()[1] > FAILED_AT_S * 1000


def test_a_letter_is_redriven_once_whoever_asks_again(dead_letters: DeadLetters) -> None:
    first = dead_letters.fail(dead_letters.event(0))
    assert dead_letters.results() == [(first, "redriven")]
    second = dead_letters.fail(dead_letters.event(1))
    assert dead_letters.results() == [(first, "skipped"), (second, "redriven")]
    assert dead_letters.results(Selection(coordinates=frozenset({first}))) == [(first, "skipped")]
    assert [(each.coordinates, each.redriven) for each in dead_letters.dead_letters()] == [
        (first, True),
        (second, True),
    ]
    assert len(dead_letters.source()) == 2


def test_a_redriven_event_that_fails_again_is_a_letter_of_its_own(dead_letters: DeadLetters) -> None:
    first = dead_letters.fail(dead_letters.event(0))
    dead_letters.redrives()
    (event,) = dead_letters.source()
    again = SourceEvent(
        topic=dead_letters.topics.source,
        partition=0,
        offset=9,
        timestamp_ms=None,
        key=event.key(),
        value=event.value(),
        headers=clients.headers_of(event),
    )
    second = dead_letters.fail(again)
    assert [each.redrive_of for each in dead_letters.dead_letters()] == [None, str(first)]
    assert dead_letters.results() == [(first, "skipped"), (second, "redriven")]
    assert dead_letters.source()[-1].headers() == [(REDRIVE_OF, str(second).encode()), (FIRST_OFFSET, b"0")]


def test_of_two_redrives_at_once_the_later_wins_and_nothing_is_redriven_twice(dead_letters: DeadLetters) -> None:
    for offset in range(3):
        dead_letters.fail(dead_letters.event(offset, value=b"%d" % offset))
    earlier = redrive(dead_letters.properties, [dead_letters.topics], EVERY, dry_run=False)
    next(earlier)
    assert [result for _, result in dead_letters.results()] == ["skipped", "redriven", "redriven"]
    with pytest.raises(KafkaException):
        next(earlier)
    assert [event.value() for event in dead_letters.source()] == [b"0", b"1", b"2"]


def test_a_redrive_that_was_fenced_does_not_fence_back_when_it_meets_a_dead_letter_that_is_refused(
    dead_letters: DeadLetters,
) -> None:
    """It would go on with the marks of before, and redrive what the other one has redriven."""
    dead_letters.fail(dead_letters.event(0, value=b"0"))
    nowhere = replace(dead_letters.event(), partition=9)
    dead_letters.put(dead_letter_of_event(nowhere, Reason.REJECTED, "", FAILED_AT_S))
    for offset in range(1, 4):
        dead_letters.fail(dead_letters.event(offset, value=b"%d" % offset))
    earlier = redrive(dead_letters.properties, [dead_letters.topics], EVERY, dry_run=False)
    assert result_of(next(earlier)) == "redriven"
    later = redrive(dead_letters.properties, [dead_letters.topics], EVERY, dry_run=False)
    assert [result_of(next(later)) for _ in range(4)] == ["skipped", "failed", "redriven", "redriven"]

    with pytest.raises(KafkaException):
        list(earlier)
    assert [result_of(each) for each in later] == ["redriven"]
    assert [event.value() for event in dead_letters.source()] == [b"0", b"1", b"2", b"3"]


def test_a_redrive_that_takes_the_id_again_sees_what_was_redriven_while_it_had_none(
    bootstrap_servers: str, admin: AdminClient, topics: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the id up when the broker refuses an event, and another redrive runs before it has it back."""
    dead_letters = DeadLetters(bootstrap_servers, admin, topics(config={"max.message.bytes": "2000"}))
    dead_letters.fail(dead_letters.event(0, value=bytes(range(256)) * 4000))
    for offset in range(1, 4):
        dead_letters.fail(dead_letters.event(offset, value=b"%d" % offset))
    meanwhile: list[tuple[Coordinates, str]] = []

    class Interrupted(Producer):
        def abort_transaction(self, timeout: float = 30) -> None:
            super().abort_transaction(timeout)
            if not meanwhile:
                meanwhile.append((Coordinates("", 0, 0), "begins"))
                small = Selection(coordinates=frozenset(dead_letters.coordinates()[1:]))
                meanwhile.extend(dead_letters.results(small))

    monkeypatch.setattr("consumer.kafka.dead_letters.redrive.Producer", Interrupted)
    results = [result for _, result in dead_letters.results()]
    assert [result for _, result in meanwhile] == ["begins", "redriven", "redriven", "redriven"]
    assert results == ["failed", "skipped", "skipped", "skipped"]
    assert [event.value() for event in dead_letters.source()] == [b"1", b"2", b"3"]


def result_of(found: Redrive | Gap) -> str:
    return found.result if isinstance(found, Redrive) else str(found)


def test_a_letter_that_the_broker_refuses_fails_alone_and_is_not_marked(
    bootstrap_servers: str, admin: AdminClient, topics: TopicFactory
) -> None:
    dead_letters = DeadLetters(bootstrap_servers, admin, topics(config={"max.message.bytes": "2000"}))
    before = dead_letters.fail(dead_letters.event(0))
    large = dead_letters.fail(dead_letters.event(1, value=bytes(range(256)) * 4000))
    after = dead_letters.fail(dead_letters.event(2))
    assert dead_letters.results() == [(before, "redriven"), (large, "failed"), (after, "redriven")]
    assert [each.coordinates for each in dead_letters.dead_letters() if not each.redriven] == [large]
    assert len(dead_letters.source()) == 2


def test_a_partition_that_is_no_more_fails_the_letter(dead_letters: DeadLetters) -> None:
    event = dead_letters.event()
    coordinates = dead_letters.put(
        dead_letter_of_event(
            SourceEvent(topic=event.topic, partition=9, offset=0, timestamp_ms=None, key=event.key, value=event.value),
            Reason.REJECTED,
            "",
            FAILED_AT_S,
        )
    )
    after = dead_letters.fail(dead_letters.event(1))
    assert dead_letters.results() == [(coordinates, "failed"), (after, "redriven")]


def pending_record(event: SourceEvent) -> tuple[bytes, bytes]:
    """Key and value of an event's pending record, as this version writes them."""
    routed = Routed(
        route="shipped",
        connection="default",
        order_id="A-1",
        action="ConfirmShipment",
        language="sv",
        data=None,
        tag_source=FromJob(job_id="j"),
        on_unknown="resend",
        event_time_ms=1,
        trace_context=None,
    )
    save = Save(
        action_id=ActionId(Assignment(event.topic, event.partition, 1), event.offset),
        route="shipped",
        payload=new_action(routed, event).payload,
        sending=False,
        first_seen=0,
        due=0,
        attempts=0,
        sends=0,
        version_tag=None,
        job_id=None,
    )
    return action_key(place_of(0, event.offset), "shipped"), pending_value(save)


def test_what_an_older_version_could_not_read_is_redriven_by_one_that_can(dead_letters: DeadLetters) -> None:
    """The way out that upgrading.md names. What lies there is a record of the delay topic: its event is sent back."""
    event = dead_letters.event(7, partition=1, key=b"A-1", value=b'{"n": 7}', headers=[("x", b"\xff"), ("y", None)])
    where = (event.topic, event.partition)
    coordinates = dead_letters.put(
        dead_letter_of_unreadable(where, *pending_record(event), Unreadable("version: 1"), FAILED_AT_S), 1
    )
    assert dead_letters.redrives() == [Redrive(coordinates, "redriven", where)]
    (redriven,) = dead_letters.source(1)
    assert (redriven.key(), redriven.value()) == (event.key, event.value)
    assert redriven.headers() == [*event.headers, (REDRIVE_OF, str(coordinates).encode()), (FIRST_OFFSET, b"7")]


def test_what_this_version_cannot_read_either_stays_and_says_who_can(dead_letters: DeadLetters) -> None:
    where = (dead_letters.topics.source, 0)
    key, value = pending_record(dead_letters.event(7))
    newer = value.replace(b'"version":2', b'"version":3')
    _, elsewhere = pending_record(dead_letters.event(7, partition=1))
    for each in (b"{}", newer, elsewhere):
        dead_letters.put(dead_letter_of_unreadable(where, key, each, Unreadable("version"), FAILED_AT_S))
    found = [each for each in dead_letters.redrives() if isinstance(each, Redrive)]
    assert [each.result for each in found] == ["failed", "failed", "failed"]
    assert "redrive it with the version that wrote it" in (found[1].why or "")
    assert "another partition" in (found[2].why or "")
    assert dead_letters.source() == []


def test_headers_that_name_another_topic_send_nothing_there(dead_letters: DeadLetters, topics: TopicFactory) -> None:
    other = topics("payments")
    forged = SourceEvent(topic=other, partition=0, offset=0, timestamp_ms=None, key=b"k", value=b"v")
    coordinates = dead_letters.put(dead_letter_of_event(forged, Reason.REJECTED, "", FAILED_AT_S))
    assert dead_letters.results() == [(coordinates, "failed")]
    assert watermarks(dead_letters.admin, [(other, 0)]) == {(other, 0): (0, 0)}


def test_a_dry_run_says_what_it_would_do_and_does_nothing(dead_letters: DeadLetters) -> None:
    coordinates = dead_letters.fail(dead_letters.event())
    assert dead_letters.results(dry_run=True) == [(coordinates, "chosen")]
    assert dead_letters.source() == []
    assert [each.redriven for each in dead_letters.dead_letters()] == [False]


def test_a_letter_that_was_named_and_is_not_there_fails(dead_letters: DeadLetters) -> None:
    there = dead_letters.fail(dead_letters.event())
    gone = Coordinates(dead_letters.topics.dead_letters, 0, 99)
    elsewhere = Coordinates(dead_letters.topics.source, 0, 0)
    results = dead_letters.results(Selection(coordinates=frozenset({there, gone, elsewhere})))
    assert sorted(results) == sorted([(there, "redriven"), (gone, "failed"), (elsewhere, "failed")])


def test_where_marks_may_be_hidden_nothing_is_redriven(
    dead_letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "STALLED_S", 1.0)
    dead_letters.fail(dead_letters.event())
    with dead_letters.open_transaction():
        (gap,) = dead_letters.redrives()
        assert isinstance(gap, Gap)
    assert dead_letters.source() == []


# -- those that wait ----------------------------------------------------------------------------------------------


@contextmanager
def counted(
    dead_letters: DeadLetters, *, owned: list[tuple[str, int]]
) -> Iterator[Callable[[], dict[str, int] | None]]:
    reported: list[dict[str, int]] = []
    counter = WaitingDeadLetters(
        dead_letters.properties,
        {dead_letters.topics.source: dead_letters.topics},
        owned=lambda: owned,
        report=lambda counts: reported.append(dict(counts)),
        interval_s=0.1,
    )
    counter.start()
    try:
        yield lambda: reported[-1] if reported else None
    finally:
        counter.stop()


def test_what_waits_is_counted_and_falls_with_a_redrive_a_mark_and_a_partition_that_leaves(
    dead_letters: DeadLetters,
) -> None:
    source = dead_letters.topics.source
    for offset in range(3):
        dead_letters.fail(dead_letters.event(offset))
    elsewhere = dead_letters.fail(dead_letters.event(9, partition=1))
    dead_letters.put(DeadLetterRecord(b"?", b"?", []))  # somebody else's record waits for nothing
    owned = [(source, 0), (source, 1)]
    with counted(dead_letters, owned=owned) as count:
        until(lambda: count() == {source: 4}, "all four are counted")
        dead_letters.redrives(Selection(coordinates=frozenset({elsewhere})))
        until(lambda: count() == {source: 3}, "the redriven one waits no longer")
        dead_letters.fail(dead_letters.event(10, partition=1))
        until(lambda: count() == {source: 4}, "a new one is counted")
        owned.remove((source, 1))
        until(lambda: count() == {source: 3}, "another instance counts that partition")
        dead_letters.redrives(only_mark=True)
        until(lambda: count() == {source: 0}, "nothing waits")


def test_what_the_topic_deleted_waits_no_longer(dead_letters: DeadLetters) -> None:
    source = dead_letters.topics.source
    for offset in range(3):
        dead_letters.fail(dead_letters.event(offset))
    with counted(dead_letters, owned=[(source, 0)]) as count:
        until(lambda: count() == {source: 3}, "all are counted")
        deleted = dead_letters.admin.delete_records([TopicPartition(dead_letters.topics.dead_letters, 0, 2)])
        [each.result(30) for each in deleted.values()]
        until(lambda: count() == {source: 1}, "one is left")


def test_a_dead_letter_that_is_only_marked_is_never_sent(dead_letters: DeadLetters) -> None:
    at = dead_letters.fail(dead_letters.event(value=None))  # it could not even be sent
    other = dead_letters.fail(dead_letters.event(1))
    marked = dead_letters.redrives(only_mark=True)
    assert [(each.coordinates, each.result) for each in marked if isinstance(each, Redrive)] == [
        (at, "marked"),
        (other, "marked"),
    ]
    assert dead_letters.source() == []
    assert dead_letters.results() == [(at, "skipped"), (other, "skipped")]
    assert [each.redriven for each in dead_letters.dead_letters()] == [True, True]
