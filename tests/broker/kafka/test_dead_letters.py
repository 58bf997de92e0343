"""Dead letters against a real broker: what is listed, and that a redrive is the original, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from consumer.kafka import clients, scan
from consumer.kafka.dead_letters import Letter, Place, Redrive, Selection, dead_letters, redrive
from consumer.kafka.records import (
    DeadLetterRecord,
    KafkaHeaders,
    SourceEvent,
    Unreadable,
    dead_letter_of_event,
    dead_letter_of_unreadable,
)
from consumer.kafka.scan import Gap, records_between
from consumer.kafka.topics import watermarks
from schemas.dead_letter import REDRIVE_OF, Reason
from tests.broker.conftest import TopicFactory
from tests.support.relay_topics import relay_topics

YESTERDAY_MS = 1_762_171_200_000
FAILED_AT_S = 1_762_257_600.0
EVERY = Selection()


class Letters:
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
        return SourceEvent(self.topics.source, partition, offset, YESTERDAY_MS, key, value, headers)

    def set_aside(self, event: SourceEvent, reason: Reason = Reason.REJECTED, failed_at: float = FAILED_AT_S) -> Place:
        return self.put(dead_letter_of_event(event, reason, "why: so", failed_at, "shipped"), event.partition)

    def put(self, letter: DeadLetterRecord, partition: int = 0) -> Place:
        written: list[Message] = []
        self.producer.produce(
            self.topics.dead_letters,
            letter.value,
            letter.key,
            partition,
            on_delivery=lambda _, record: written.append(record),
            timestamp=letter.timestamp_ms or 0,
            headers=letter.headers,
        )
        assert self.producer.flush(30) == 0
        return Place(self.topics.dead_letters, partition, written[0].offset() or 0)

    @contextmanager
    def open_transaction(self) -> Iterator[None]:
        producer = Producer(clients.producer(self.properties, f"t-{uuid4().hex[:8]}"))
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(self.topics.dead_letters, b"{}", partition=0)
        producer.flush(30)
        yield
        producer.abort_transaction(30)

    def listed(self, selection: Selection = EVERY) -> list[Letter | Gap]:
        return list(dead_letters(self.properties, [self.topics], selection))

    def letters(self, selection: Selection = EVERY) -> list[Letter]:
        return [each for each in self.listed(selection) if isinstance(each, Letter)]

    def places(self, selection: Selection = EVERY) -> list[Place]:
        return [each.place for each in self.letters(selection)]

    def redrives(self, selection: Selection = EVERY, *, dry_run: bool = False) -> list[Redrive | Gap]:
        return list(redrive(self.properties, [self.topics], selection, dry_run=dry_run))

    def results(self, selection: Selection = EVERY, *, dry_run: bool = False) -> list[tuple[Place, str]]:
        found = self.redrives(selection, dry_run=dry_run)
        return [(each.place, each.result) for each in found if isinstance(each, Redrive)]

    def source(self, partition: int = 0) -> list[Message]:
        where = (self.topics.source, partition)
        low, high = watermarks(self.admin, [where])[where]
        with closing(Consumer(clients.reader(self.properties))) as reader:
            return list(records_between(reader, where, low, high))


@pytest.fixture
def letters(bootstrap_servers: str, admin: AdminClient, topics: TopicFactory) -> Letters:
    return Letters(bootstrap_servers, admin, topics(partitions=2))


# -- listing ------------------------------------------------------------------------------------------------------


def test_letters_are_listed_with_all_that_their_headers_say(letters: Letters) -> None:
    event = letters.event(7, partition=1, key=b"A-1")
    place = letters.set_aside(event, Reason.INVALID_EVENT)
    (letter,) = letters.letters()
    assert letter.place == place
    assert (letter.why.reason, letter.why.detail, letter.why.route) == (Reason.INVALID_EVENT, "why: so", "shipped")
    assert (letter.why.source_topic, letter.why.source_partition, letter.why.source_offset) == (event.topic, 1, 7)
    assert (letter.key, letter.redriven, letter.redrive_of) == (b"A-1", False, None)


def test_letters_are_chosen_by_reason_time_place_and_source_topic(letters: Letters) -> None:
    old = letters.set_aside(letters.event(0), Reason.REJECTED, FAILED_AT_S)
    new = letters.set_aside(letters.event(1), Reason.REJECTED, FAILED_AT_S + 1)
    other = letters.set_aside(letters.event(2, partition=1), Reason.DEADLINE, FAILED_AT_S)
    assert letters.places() == [old, new, other]
    assert letters.places(Selection(reasons=frozenset({Reason.REJECTED}))) == [old, new]
    assert letters.places(Selection(since_ms=round(FAILED_AT_S * 1000) + 1)) == [new]
    assert letters.places(Selection(places=frozenset({new, other}))) == [new, other]
    assert letters.places(Selection(reasons=frozenset({Reason.DEADLINE}), places=frozenset({new}))) == []
    assert letters.places(Selection(source_topic=letters.topics.source)) == [old, new, other]
    assert letters.places(Selection(source_topic="another")) == []


def test_what_somebody_else_put_there_is_told_and_passed(letters: Letters) -> None:
    letters.put(DeadLetterRecord(b"?", b"?", [], None))
    place = letters.set_aside(letters.event())
    gap, letter = letters.listed()
    assert isinstance(gap, Gap)
    assert "offset 0" in gap.why
    assert isinstance(letter, Letter)
    assert letter.place == place


def test_an_open_transaction_makes_the_list_incomplete_and_not_endless(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "STALLED_S", 1.0)
    letters.set_aside(letters.event())
    elsewhere = letters.set_aside(letters.event(partition=1))
    with letters.open_transaction():
        gap, letter = letters.listed()
        assert isinstance(gap, Gap)
        assert gap.partition == 0
        assert isinstance(letter, Letter)
        assert letter.place == elsewhere


# -- redrive ------------------------------------------------------------------------------------------------------

EVENTS: dict[str, tuple[bytes | None, bytes | None, KafkaHeaders]] = {
    "ordinary": (b"A-1", b'{"orderId": "A-1"}', [("traceparent", b"00-1"), ("x", b"\x00\xff")]),
    "any bytes": (b"\xff\x00", b"\x80 not JSON \x00", [("x", b"1"), ("y", b""), ("x", b"2"), ("z", None)]),
    "empty": (b"", b"", []),
    "nothing but a value": (None, b"{}", []),
}


@pytest.mark.parametrize("name", EVENTS)
def test_a_redriven_event_is_the_original_byte_for_byte_in_its_own_partition(letters: Letters, name: str) -> None:
    key, value, headers = EVENTS[name]
    place = letters.set_aside(letters.event(5, partition=1, key=key, value=value, headers=headers))
    assert letters.redrives() == [Redrive(place, "redriven", (letters.topics.source, 1))]
    assert letters.source(0) == []
    (event,) = letters.source(1)
    assert (event.key(), event.value()) == (key, value)
    assert event.headers() == [*headers, (REDRIVE_OF, str(place).encode())]


def test_a_letter_that_lost_its_value_is_never_redriven_as_a_tombstone(letters: Letters) -> None:
    place = letters.set_aside(letters.event(value=None))
    assert letters.results() == [(place, "failed")]
    assert letters.source() == []


def test_its_timestamp_is_new_so_that_retention_does_not_take_it_before_it_is_read(letters: Letters) -> None:
    letters.set_aside(letters.event())
    letters.redrives()
    (event,) = letters.source()
    assert event.timestamp()[1] > FAILED_AT_S * 1000


def test_a_letter_is_redriven_once_whoever_asks_again(letters: Letters) -> None:
    first = letters.set_aside(letters.event(0))
    assert letters.results() == [(first, "redriven")]
    second = letters.set_aside(letters.event(1))
    assert letters.results() == [(first, "skipped"), (second, "redriven")]
    assert letters.results(Selection(places=frozenset({first}))) == [(first, "skipped")]
    assert [(each.place, each.redriven) for each in letters.letters()] == [(first, True), (second, True)]
    assert len(letters.source()) == 2


def test_a_redriven_event_that_fails_again_is_a_letter_of_its_own(letters: Letters) -> None:
    first = letters.set_aside(letters.event(0))
    letters.redrives()
    (event,) = letters.source()
    again = SourceEvent(
        letters.topics.source, 0, 0, None, event.key(), event.value(), [(REDRIVE_OF, str(first).encode())]
    )
    second = letters.set_aside(again)
    assert [each.redrive_of for each in letters.letters()] == [None, str(first)]
    assert letters.results() == [(first, "skipped"), (second, "redriven")]
    assert letters.source()[-1].headers() == [(REDRIVE_OF, str(second).encode())]


def test_of_two_redrives_at_once_the_later_wins_and_nothing_is_redriven_twice(letters: Letters) -> None:
    for offset in range(3):
        letters.set_aside(letters.event(offset, value=b"%d" % offset))
    earlier = redrive(letters.properties, [letters.topics], EVERY, dry_run=False)
    next(earlier)
    assert [result for _, result in letters.results()] == ["skipped", "redriven", "redriven"]
    with pytest.raises(KafkaException):
        next(earlier)
    assert [event.value() for event in letters.source()] == [b"0", b"1", b"2"]


def test_a_letter_that_the_broker_refuses_fails_alone_and_is_not_marked(
    bootstrap_servers: str, admin: AdminClient, topics: TopicFactory
) -> None:
    letters = Letters(bootstrap_servers, admin, topics(config={"max.message.bytes": "2000"}))
    before = letters.set_aside(letters.event(0))
    large = letters.set_aside(letters.event(1, value=bytes(range(256)) * 4000))
    after = letters.set_aside(letters.event(2))
    assert letters.results() == [(before, "redriven"), (large, "failed"), (after, "redriven")]
    assert [each.place for each in letters.letters() if not each.redriven] == [large]
    assert len(letters.source()) == 2


def test_a_partition_that_is_no_more_fails_the_letter(letters: Letters) -> None:
    event = letters.event()
    place = letters.put(
        dead_letter_of_event(
            SourceEvent(event.topic, 9, 0, None, event.key, event.value), Reason.REJECTED, "", FAILED_AT_S
        )
    )
    after = letters.set_aside(letters.event(1))
    assert letters.results() == [(place, "failed"), (after, "redriven")]


def test_a_record_of_the_delay_topic_is_no_event_and_stays(letters: Letters) -> None:
    source = (letters.topics.source, 0)
    letters.put(dead_letter_of_unreadable(source, b"7:shipped", b"{}", Unreadable("version: 9"), FAILED_AT_S))
    letters.put(dead_letter_of_unreadable(source, b"nonsense", b"{}", Unreadable("the key"), FAILED_AT_S))
    found = [each for each in letters.redrives() if isinstance(each, Redrive)]
    assert [each.result for each in found] == ["failed", "failed"]
    assert all("delay topic" in (each.why or "") for each in found)
    assert letters.source() == []


def test_headers_that_name_another_topic_send_nothing_there(letters: Letters, topics: TopicFactory) -> None:
    other = topics("payments")
    forged = SourceEvent(other, 0, 0, None, b"k", b"v")
    place = letters.put(dead_letter_of_event(forged, Reason.REJECTED, "", FAILED_AT_S))
    assert letters.results() == [(place, "failed")]
    assert watermarks(letters.admin, [(other, 0)]) == {(other, 0): (0, 0)}


def test_a_dry_run_says_what_it_would_do_and_does_nothing(letters: Letters) -> None:
    place = letters.set_aside(letters.event())
    assert letters.results(dry_run=True) == [(place, "chosen")]
    assert letters.source() == []
    assert [each.redriven for each in letters.letters()] == [False]


def test_a_letter_that_was_named_and_is_not_there_fails(letters: Letters) -> None:
    there = letters.set_aside(letters.event())
    gone = Place(letters.topics.dead_letters, 0, 99)
    elsewhere = Place(letters.topics.source, 0, 0)
    results = letters.results(Selection(places=frozenset({there, gone, elsewhere})))
    assert sorted(results) == sorted([(there, "redriven"), (gone, "failed"), (elsewhere, "failed")])


def test_where_marks_may_be_hidden_nothing_is_redriven(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STALLED_S", 1.0)
    letters.set_aside(letters.event())
    with letters.open_transaction():
        (gap,) = letters.redrives()
        assert isinstance(gap, Gap)
    assert letters.source() == []
