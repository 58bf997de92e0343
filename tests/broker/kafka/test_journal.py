"""The journal on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

import consumer.kafka.journal
from consumer.core.ownership import Ownership, generation
from consumer.kafka import clients, low_water_mark
from consumer.kafka.journal import MOST_WRITES, Journal
from consumer.kafka.low_water_mark import REWRITES
from consumer.kafka.records import DeadLetterRecord, position_value
from consumer.kafka.transactions import Adoption, Write
from schemas.dead_letter import DETAIL
from schemas.pending_action import POSITION_KEY
from tests.broker.conftest import Heard, Member, Place, PlaceFactory, eventually, started
from tests.support.broker import KafkaBroker

LETTER = DeadLetterRecord(b"k", b"v", [("why", b"because")], 1_700_000_000_000)


@dataclass
class World:
    """A place with a journal at work there, all partitions of which are ours."""

    place: Place
    metadata: bytes
    ownership: Ownership
    journal: Journal
    heard: Heard

    def adopt(self, *, live: list[tuple[Hashable, int]] | None = None, next_offset: int = 0) -> None:
        self.journal.hand_in(Adoption(a, live or [], 0, next_offset) for a in self.ownership.assignments)

    def hand_in(self, *writes: Write) -> None:
        self.journal.hand_in(writes)

    def settle(self, *writes: Write) -> None:
        self.hand_in(*writes)
        self.heard.wait_until_settled(*writes)

    def pending(self, offset: int, value: bytes | None = b"pending", partition: int = 0) -> Write:
        return Write(self.place.assignment(partition), b"%d:r" % offset, value, next_offset=offset + 1)

    def delay(self, partition: int = 0) -> dict[bytes | None, bytes | None]:
        """What the delay partition holds, compacted."""
        return dict(self.place.pairs(self.place.topics.delay, partition))


@pytest.fixture
def world_of(shared_member: Member) -> Callable[..., World]:
    def make(place: Place, metadata: bytes | None = None, **properties: str | int) -> World:
        metadata = metadata or shared_member.metadata()
        ownership = place.owned(metadata, *(place.assignment(n) for n in range(place.partitions)))
        made: list[World] = []
        journal, heard = place.journal(lambda: made[0].ownership, **properties)
        made.append(World(place, metadata, ownership, journal, heard))
        made[0].adopt()
        return made[0]

    return make


@pytest.fixture
def world(places: PlaceFactory, world_of: Callable[..., World], shared_member: Member) -> World:
    return world_of(places(group=shared_member.group))


def stale(metadata: bytes) -> bytes:
    """Return the metadata with another generation."""
    start = len(b"CGMDv2:")
    return metadata[:start] + struct.pack("=i", generation(metadata) + 7) + metadata[start + 4 :]


# -- what a transaction holds -----------------------------------------------------------------------------------


def test_a_record_is_never_committed_without_its_offsets(world: World) -> None:
    write = world.pending(4)
    write.ticket = "ours"
    world.settle(write)

    assert world.delay() == {b"4:r": b"pending", POSITION_KEY: position_value(5)}
    assert world.place.offset(world.place.topics.source) == 5
    assert world.place.offset(world.place.topics.delay) == 0  # where the one live record lies
    assert world.heard.of("committed")[0].writes[0].ticket == "ours"


def test_an_offset_is_never_committed_without_its_record(world: World) -> None:
    """A stale generation: the records were written when the offsets are refused."""
    world.ownership = world.place.owned(stale(world.metadata), world.place.assignment())
    world.hand_in(world.pending(4))
    assert "ILLEGAL_GENERATION" in world.heard.wait_for("aborted").text
    world.ownership = Ownership(world.metadata)
    world.heard.wait_for("dropped")

    assert world.delay() == {}
    assert world.place.offset(world.place.topics.source) is None
    assert world.place.offset(world.place.topics.delay) is None
    assert b"4:r" in [r.key() for r in world.place.read(world.place.topics.delay, isolation="read_uncommitted")]


def test_the_position_is_written_even_where_only_progress_was_made(world: World) -> None:
    """Group offsets expire; compaction keeps the last position record only as long as there is one."""
    world.settle(world.pending(4))
    world.settle(Write(world.place.assignment(), b"4:r", b"sending"))

    positions = [value for key, value in world.place.pairs(world.place.topics.delay) if key == POSITION_KEY]
    assert positions == [position_value(5), position_value(5)]


def test_what_waited_does_not_cost_a_transaction_each(
    places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    """Group commit: what came up meanwhile shares the next transaction; only an action's last state is written."""
    world = world_of(places(group=shared_member.group))
    changes = [Write(world.place.assignment(), b"4:r", b"%d" % n) for n in range(50)]
    world.settle(world.pending(4), *changes)

    values = [value for key, value in world.place.pairs(world.place.topics.delay) if key == b"4:r"]
    assert len(values) == len(world.heard.of("committed")) < 5
    assert values[-1] == b"49"


def test_a_dead_letter_never_appears_beside_its_pending_record(world: World) -> None:
    world.settle(world.pending(4))
    world.ownership = world.place.owned(stale(world.metadata), world.place.assignment())
    last = Write(world.place.assignment(), b"4:r", None, LETTER)
    world.hand_in(last)
    world.heard.wait_for("aborted")
    assert world.place.read(world.place.topics.dead_letters) == []
    assert world.delay()[b"4:r"] == b"pending"

    world.ownership = world.place.owned(world.metadata, world.place.assignment())
    world.heard.wait_until_settled(last)
    assert len(world.place.read(world.place.topics.dead_letters)) == 1
    assert world.delay()[b"4:r"] is None


@pytest.mark.parametrize(
    "letter",
    [
        DeadLetterRecord(b"\x00\xffkey", b"\x00\xfe\xff", [("a", b"\xff\x00"), ("a", b"twice"), ("b", None)], 1),
        DeadLetterRecord(None, None, [], 1_700_000_000_123),
        DeadLetterRecord(b"", b"", [("empty", b"")], 4_102_444_800_000),
    ],
    ids=["binary", "nothing", "empty"],
)
def test_a_dead_letter_is_not_altered(
    letter: DeadLetterRecord, places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    world = world_of(places(group=shared_member.group))
    world.settle(Write(world.place.assignment(), dead_letter=letter, next_offset=1))

    (record,) = world.place.read(world.place.topics.dead_letters)
    assert (record.key(), record.value()) == (letter.key, letter.value)
    assert record.headers() == (letter.headers or None)
    assert record.timestamp()[1] == letter.timestamp_ms


def test_a_large_batch_is_not_torn(places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]) -> None:
    world = world_of(places(partitions=4, group=shared_member.group))
    writes = [world.pending(n // 4, partition=n % 4) for n in range(MOST_WRITES)]
    world.settle(*writes)

    for partition in range(4):
        assert len(world.delay(partition)) == MOST_WRITES // 4 + 1
        assert world.place.offset(world.place.topics.source, partition) == MOST_WRITES // 4
        assert world.place.offset(world.place.topics.delay, partition) == 0


def test_what_cannot_be_written_in_time_is_not_one_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer.kafka.journal, "MOST_BYTES", 1000)
    writes = [world.pending(n, b"v" * 400) for n in range(30)]
    world.settle(*writes)

    assert max(len(fact.writes) for fact in world.heard.of("committed")) <= 4
    assert len(world.delay()) == 31


# -- fencing ----------------------------------------------------------------------------------------------------


def test_a_stale_entry_is_never_committed_under_a_fresh_generation(world: World) -> None:
    """The broker takes such a commit: whoever owns the partition now would lose its offset."""
    world.ownership = world.place.owned(world.metadata, world.place.assignment(epoch=2))
    write = world.pending(4)
    world.settle(write)

    assert [fact.writes for fact in world.heard.of("dropped")] == [[write]]
    assert world.place.read(world.place.topics.delay, isolation="read_uncommitted") == []
    assert world.place.offset(world.place.topics.source) is None


def test_a_rebalance_loses_only_what_is_no_longer_owned(places: PlaceFactory, world_of: Callable[..., World]) -> None:
    place = places(partitions=2)
    first = place.member()
    eventually(lambda: first.poll() == [0, 1], "the first member owns both")
    world = world_of(place, first.metadata())
    world.settle(world.pending(0), world.pending(0, partition=1))
    second = place.member()
    eventually(lambda: [len(first.poll()), len(second.poll())] == [1, 1], "each member owns one")
    (kept,) = first.poll()

    def look_again() -> None:
        world.ownership = place.owned(first.metadata(), place.assignment(kept))

    world.heard.on_aborted = look_again
    ours, theirs = world.pending(1, partition=kept), world.pending(1, partition=1 - kept)
    world.settle(ours, theirs)

    assert "ILLEGAL_GENERATION" in world.heard.wait_for("aborted").text
    assert world.heard.of("committed")[-1].writes == [ours]
    assert world.heard.of("dropped")[-1].writes == [theirs]
    assert (world.delay(kept).get(b"1:r"), world.delay(1 - kept).get(b"1:r")) == (b"pending", None)
    assert place.offset(place.topics.source, 1 - kept) == 1


CONSUMER_PROTOCOL = pytest.param(
    "consumer",
    marks=pytest.mark.skipif(os.environ.get("KAFKA_VERSION", "4").startswith("3"), reason="Kafka 4 and later"),
)


@pytest.mark.parametrize("protocol", ["classic", CONSUMER_PROTOCOL])
def test_a_generation_that_the_broker_does_not_check_is_recognised(protocol: str, places: PlaceFactory) -> None:
    member = places().member(**{"group.protocol": protocol})
    before = generation(member.metadata())
    eventually(member.poll, "the member joins")

    assert before < 0 <= generation(member.metadata())


def test_nothing_is_committed_before_the_group_was_joined(world: World, places: PlaceFactory) -> None:
    """A negative generation is not checked by the broker: anybody's commit would be taken."""
    stranger = Consumer(clients.member({**world.place.properties, "group.id": "never-joined"}), logger=clients.LOGGER)
    metadata = stranger.consumer_group_metadata()
    stranger.close()
    assert isinstance(metadata, bytes)
    world.ownership = world.place.owned(metadata, world.place.assignment())
    write = world.pending(4)
    world.hand_in(write)
    world.heard.wait_for("aborted", 2)
    assert world.heard.of("committed") == []

    world.ownership = world.place.owned(world.metadata, world.place.assignment())
    world.heard.wait_until_settled(write)
    assert world.heard.of("committed")[0].writes == [write]


def test_a_second_instance_with_our_transactional_id_ends_this_one(world: World) -> None:
    world.settle(world.pending(4))
    world.place.producer(world.place.transactional_id)
    write = world.pending(5)
    world.settle(write)

    assert world.heard.wait_for("fenced").text
    assert world.heard.of("dropped")[0].writes == [write]
    assert b"5:r" not in world.delay()
    assert world.place.offset(world.place.topics.source) == 5


def test_after_being_fenced_nothing_goes_on_under_the_old_assignment(world: World) -> None:
    """An adoption that was under way: the group may not know yet that we give everything up."""
    world.settle(world.pending(4))
    world.place.producer(world.place.transactional_id)
    world.settle(world.pending(5))
    world.adopt(next_offset=6)
    late = world.pending(6)
    world.settle(late)
    assert world.heard.of("dropped")[-1].writes == [late]

    world.ownership = world.place.owned(world.metadata, world.place.assignment(epoch=2))
    world.adopt(next_offset=5)
    again = Write(world.place.assignment(epoch=2), b"5:r", b"pending", next_offset=6)
    world.settle(again)
    assert world.heard.of("committed")[-1].writes == [again]


# -- the producer's life ----------------------------------------------------------------------------------------


class Recorded(Producer):
    """A producer that notes its calls, and fails one of them once, before or after it was done."""

    made: list[Recorded]
    fail: tuple[str, str] | None

    def __init__(self, config: dict[str, str | int | float | bool], **more: object) -> None:
        super().__init__(config, **more)
        self.calls: list[str] = []
        self.failed_at: int | None = None
        self.outstanding: int | None = None
        self.made.append(self)

    def _called(self, name: str, call: Callable[[], None]) -> None:
        self.calls.append(name)
        fail = type(self).fail
        if fail is None or fail[0] != name:
            return call()
        type(self).fail = None
        if fail[1] == "after":
            call()
        self.failed_at = len(self.calls)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))

    def begin_transaction(self) -> None:
        self._called("begin", super().begin_transaction)

    def send_offsets_to_transaction(
        self, positions: list[TopicPartition], group_metadata: object, timeout: float = -1
    ) -> None:
        self.outstanding = len(self)
        self._called("offsets", lambda: Producer.send_offsets_to_transaction(self, positions, group_metadata, timeout))

    def commit_transaction(self, timeout: float = -1) -> None:
        self._called("commit", lambda: Producer.commit_transaction(self, timeout))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    Recorded.made, Recorded.fail = [], None
    monkeypatch.setattr(consumer.kafka.journal, "Producer", Recorded)
    return Recorded


def test_offsets_never_overtake_records(recorded: type[Recorded], world: World) -> None:
    world.settle(*(world.pending(n, b"v" * 10_000) for n in range(200)))

    assert [producer.outstanding for producer in recorded.made] == [0]


@pytest.mark.parametrize("call", ["begin", "offsets", "commit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delayed_abort_never_eats_the_next_transaction(
    call: str, when: str, recorded: type[Recorded], world: World
) -> None:
    """A producer is not used again once a call of its failed: librdkafka has no client side of KIP-890."""
    world.settle(world.pending(4))
    recorded.fail = (call, when)
    write = world.pending(5)
    world.settle(write)

    first, *others = recorded.made
    assert first.failed_at == len(first.calls)
    assert others
    assert world.heard.of("committed")[-1].writes == [write]
    assert world.delay() == {b"4:r": b"pending", b"5:r": b"pending", POSITION_KEY: position_value(6)}
    assert world.place.offset(world.place.topics.source) == 6


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_without_an_answer_is_not_written_twice(when: str, recorded: type[Recorded], world: World) -> None:
    world.settle(world.pending(4))
    recorded.fail = ("commit", when)
    write = Write(world.place.assignment(), b"4:r", None, LETTER)
    world.settle(write)

    assert "outcome of a commit unknown" in world.heard.wait_for("aborted").text
    assert len(world.place.read(world.place.topics.dead_letters)) == 1
    assert len(world.heard.of("committed")) == 2


def test_a_commit_without_an_answer_is_found_though_one_partition_went_on_elsewhere(
    recorded: type[Recorded], places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    world = world_of(places(partitions=2, group=shared_member.group))
    other = world.place.producer("other")

    def other_owner_commits() -> None:
        world.heard.on_aborted = lambda: None
        world.ownership = world.place.owned(world.metadata, world.place.assignment(1))
        other.begin_transaction()
        theirs = TopicPartition(world.place.topics.source, 0, 9, metadata="theirs")
        other.send_offsets_to_transaction([theirs], world.metadata, 10)
        other.commit_transaction(10)

    world.heard.on_aborted = other_owner_commits
    recorded.fail = ("commit", "after")
    writes = [Write(world.place.assignment(n), dead_letter=LETTER, next_offset=1) for n in range(2)]
    world.settle(*writes)

    assert world.heard.of("committed")[-1].writes == writes
    assert len(world.place.read(world.place.topics.dead_letters, 1)) == 1


def test_an_idle_week_is_no_crash(places: PlaceFactory, world_of: Callable[..., World]) -> None:
    """The broker forgets a transactional id that was not used for `transactional.id.expiration.ms`."""
    forgetful = {
        "transactional.id.expiration.ms": "1000",
        "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
    }
    broker = started(KafkaBroker(forgetful))
    try:
        place = places(broker=broker)
        member = place.member()
        eventually(member.poll, "the member joins")
        world = world_of(place, member.metadata())
        world.settle(world.pending(4))
        log = Consumer({**clients.reader(place.properties), "enable.partition.eof": False}, logger=clients.LOGGER)
        log.assign([TopicPartition("__transaction_state", n, 0) for n in range(4)])

        def forgotten() -> bool:
            record = log.poll(0.1)
            key = record.key() if record is not None and record.error() is None else None
            return record is not None and record.value() is None and key is not None and key.endswith(b"-relay")

        eventually(forgotten, "the broker forgets the transactional id")
        log.close()
        world.settle(world.pending(5))

        assert world.heard.of("fenced") == []
        assert world.place.offset(world.place.topics.source) == 6
        assert world.heard.wait_for("aborted").text
        place.close()
    finally:
        broker.close()


class Failing(Producer):
    """A producer whose first `flush` says something."""

    said: list[BaseException]

    def flush(self, timeout: float = -1) -> int:
        if self.said:
            raise self.said.pop()
        return super().flush(timeout)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    Failing.said = []
    monkeypatch.setattr(consumer.kafka.journal, "Producer", Failing)
    return Failing


def fatal(code: int) -> KafkaException:
    return KafkaException(KafkaError(code, "fatal", True))


def test_a_forgotten_transactional_id_is_not_taken_for_fencing(failing: type[Failing], world: World) -> None:
    """librdkafka calls it fatal where it cannot begin a new epoch."""
    failing.said = [fatal(KafkaError.INVALID_PRODUCER_ID_MAPPING)]
    write = world.pending(4)
    world.settle(write)

    assert "INVALID_PRODUCER_ID_MAPPING" in world.heard.wait_for("aborted").text
    assert world.heard.of("fenced") == []
    assert world.heard.of("committed")[0].writes == [write]


def test_a_fatal_error_amid_callbacks_is_no_crash(failing: type[Failing], world: World) -> None:
    """confluent-kafka raises it, and goes on calling back: what is called then ends in a SystemError."""
    on_top = SystemError("returned a result with an exception set")
    on_top.__cause__ = fatal(KafkaError._FENCED)
    failing.said = [on_top]
    write = world.pending(4)
    world.settle(write)

    assert "_FENCED" in world.heard.wait_for("fenced").text
    assert world.heard.of("dropped")[0].writes == [write]


def test_a_call_that_never_returns_is_noticed(recorded: type[Recorded], world: World) -> None:
    """librdkafka's `send_offsets_to_transaction` may ignore its time-out (issues 5456, 5511)."""
    hang = threading.Event()

    class Hanging(Recorded):
        def begin_transaction(self) -> None:
            hang.wait(30)
            super().begin_transaction()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumer.kafka.journal, "Producer", Hanging)
        write = world.pending(4)
        world.hand_in(write)
        eventually(lambda: world.journal.stuck_for() > 0.05, "the watchdog sees it")
        hang.set()
        world.heard.wait_until_settled(write)
    eventually(lambda: world.journal.stuck_for() == 0.0, "the watchdog is content")


def test_an_aborted_transaction_holds_up_nobody(recorded: type[Recorded], world: World, shared_member: Member) -> None:
    """What was dropped after an abort leaves no open transaction behind, for which the next owner would wait."""
    world.ownership = world.place.owned(stale(world.metadata), world.place.assignment())

    def give_away() -> None:
        world.ownership = Ownership(world.metadata)

    world.heard.on_aborted = give_away
    started = time.monotonic()
    world.settle(world.pending(4))
    assert world.place.read(world.place.topics.delay) == []  # to the end, so nothing is open

    assert time.monotonic() - started < 8  # transaction.timeout.ms is 10 s


# -- what the broker refuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["the broker's", "the client's"])
def test_a_record_that_is_too_large_does_not_stop_the_others(
    limit: str, places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    """The broker refuses whole produce batches: only the culprit may end as a dead letter."""
    broker, client = ("4000", 1_000_000) if limit == "the broker's" else ("1000000", 4000)
    place = places(group=shared_member.group, delay={"max.message.bytes": broker})
    world = world_of(place, **{"message.max.bytes": client})
    small = [world.pending(n, random.Random(n).randbytes(500)) for n in range(20)]
    large = world.pending(20, random.Random(0).randbytes(8000))
    world.hand_in(*small[:10], large, *small[10:])
    world.heard.wait_until_settled(*small)

    refused, replacement = world.heard.wait_for("too_large").writes
    world.heard.wait_until_settled(replacement)
    assert refused is large
    assert len(world.heard.of("too_large")) == 1
    assert [r.value() for r in place.read(place.topics.dead_letters)] == [b"too large"]
    kept = world.delay()
    assert {key for key, value in kept.items() if value is None} == {b"20:r"}
    assert len(kept) == 22


def test_a_refused_batch_is_not_a_refused_record(
    places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    """All together they are larger than the topic's limit, none of them is."""
    place = places(group=shared_member.group, delay={"max.message.bytes": "4000"})
    world = world_of(place)
    world.settle(*(world.pending(n, random.Random(n).randbytes(1500)) for n in range(10)))

    assert world.heard.of("too_large") == []
    assert len(world.delay()) == 11


def test_a_dead_letter_that_is_too_large_does_not_stop_the_stream(
    places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    place = places(group=shared_member.group, dead_letters={"max.message.bytes": "1000"})
    world = world_of(place)
    letter = DeadLetterRecord(b"k", random.Random(0).randbytes(3000), [(DETAIL, b"why"), ("x", b"1")], None)
    world.hand_in(Write(place.assignment(), dead_letter=letter, next_offset=1))
    world.settle(world.pending(1))

    (written,) = place.read(place.topics.dead_letters)
    assert (written.key(), written.value()) == (b"k", None)
    assert dict(written.headers() or [])["x"] == b"1"
    assert "why; its value of 3000 bytes was left out" in str(dict(written.headers() or [])[DETAIL])
    assert world.heard.of("too_large") == []


def test_a_dead_letter_that_the_broker_refuses_even_so_is_not_lost(
    places: PlaceFactory, shared_member: Member, world_of: Callable[..., World]
) -> None:
    place = places(group=shared_member.group, dead_letters={"max.message.bytes": "1000"})
    world = world_of(place)
    letter = DeadLetterRecord(random.Random(0).randbytes(3000), None, [], None)
    write = Write(place.assignment(), dead_letter=letter, next_offset=1)
    world.hand_in(write)
    eventually(
        lambda: any("even a letter without its value" in fact.text for fact in world.heard.of("aborted")), "it is said"
    )

    entry = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, place.topics.dead_letters, incremental_configs=[entry])
    place.admin.incremental_alter_configs([resource])[resource].result(10)
    world.heard.wait_until_settled(write)
    assert [r.key() for r in place.read(place.topics.dead_letters)] == [letter.key]


def test_a_delay_topic_that_was_made_anew_does_not_hide_what_follows(world: World) -> None:
    place = world.place
    place.fill(place.topics.source, 21)
    world.settle(*(world.pending(n) for n in range(20)))
    for future in place.admin.delete_topics([place.topics.delay]).values():
        future.result(10)
    eventually(lambda: made_again(place), "the topic is made again")
    world.settle(world.pending(20))

    assert world.heard.of("made_anew")
    (restored,) = place.restore()
    assert [record.key for record in restored.live] == [b"20:r"]


def made_again(place: Place) -> bool:
    new = NewTopic(place.topics.delay, place.partitions, 1, config={"cleanup.policy": "compact"})
    try:
        place.admin.create_topics([new])[place.topics.delay].result(10)
    except KafkaException:  # its deletion is under way
        return False
    return True


def test_a_dead_letter_that_we_may_not_write_is_not_lost(
    strict_broker: KafkaBroker, places: PlaceFactory, world_of: Callable[..., World]
) -> None:
    place = places(broker=strict_broker)
    member = place.member()
    eventually(member.poll, "the member joins")
    rule = (
        ResourceType.TOPIC,
        place.topics.dead_letters,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    (created,) = place.admin.create_acls([AclBinding(*rule)]).values()
    created.result(10)
    world = world_of(place, member.metadata())
    write = Write(place.assignment(), dead_letter=LETTER, next_offset=1)
    world.hand_in(write)
    said = world.heard.wait_for("aborted", 2).text
    assert place.topics.dead_letters in said
    assert "TOPIC_AUTHORIZATION_FAILED" in said
    assert world.heard.of("fenced") == []

    (deleted,) = place.admin.delete_acls([AclBindingFilter(*rule)]).values()
    deleted.result(10)
    world.heard.wait_until_settled(write)
    assert len(place.read(place.topics.dead_letters)) == 1


# -- the low-water mark -----------------------------------------------------------------------------------------


def test_the_mark_never_passes_a_live_record(world: World) -> None:
    """After every step a restart would find exactly what is open."""
    world.place.fill(world.place.topics.source, 20)
    draw = random.Random(1)
    model: dict[bytes, bytes] = {}
    for step in range(30):
        writes = []
        for _ in range(draw.randrange(1, 6)):
            offset = draw.randrange(8)
            value = None if draw.random() < 0.4 else b"%d" % step
            writes.append(world.pending(offset, value))
        for write in writes:
            assert write.key is not None
            if write.value is None:
                model.pop(write.key, None)
            else:
                model[write.key] = write.value
        world.settle(*writes)
        (restored,) = world.place.restore()
        assert {record.key: record.value for record in restored.live} == model


def test_an_old_record_does_not_pin_the_mark_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_water_mark, "PINNED_SPAN", 50)
    world.settle(world.pending(0))
    world.settle(*(world.pending(n) for n in range(1, 61)))
    assert world.heard.of("pinned") == []
    world.settle(*(world.pending(n, None) for n in range(1, 61)))
    assert world.heard.wait_for("pinned").keys == [b"0:r"]
    assert world.place.offset(world.place.topics.delay) == 0

    world.settle(Write(world.place.assignment(), b"0:r", b"pending"))
    mark = world.place.offset(world.place.topics.delay)
    assert mark is not None
    assert mark > 120
    assert len(world.heard.of("pinned")) == 1 <= REWRITES


# -- the journal's life -----------------------------------------------------------------------------------------


def test_a_stop_loses_nothing_that_was_handed_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer.kafka.journal, "MOST_WRITES", 10)
    writes = [world.pending(n) for n in range(100)]
    world.hand_in(*writes)

    assert world.journal.stop(20)
    assert len(world.delay()) == 101


def test_an_unknown_answer_while_stopping_does_not_hang(places: PlaceFactory, strict_broker: KafkaBroker) -> None:
    """Nor does the broker's absence: a stop ends within its time."""
    place = places(broker=strict_broker)
    member = place.member()
    eventually(member.poll, "the member joins")
    ownership = place.owned(member.metadata(), place.assignment())
    journal, heard = place.journal(lambda: ownership)
    first = Write(place.assignment(), b"0:r", b"pending", next_offset=1)
    journal.hand_in([Adoption(place.assignment(), [], 0, 0), first])
    heard.wait_until_settled(first)
    strict_broker.stop()
    try:
        write = Write(place.assignment(), b"1:r", b"pending", next_offset=2)
        journal.hand_in([write])
        started = time.monotonic()
        done = journal.stop(1.0)
        seconds = time.monotonic() - started
        heard.wait_until_settled(write)
    finally:
        strict_broker.start()
    assert not done
    assert seconds < 1.5
    assert heard.of("dropped")[0].writes == [write]


def test_a_broker_that_comes_back_finds_nothing_lost(
    places: PlaceFactory, strict_broker: KafkaBroker, world_of: Callable[..., World]
) -> None:
    place = places(broker=strict_broker)
    member = place.member(**{"session.timeout.ms": 30_000})
    eventually(member.poll, "the member joins")
    world = world_of(place, member.metadata())
    world.settle(world.pending(0))
    strict_broker.stop()
    try:
        writes = [world.pending(n) for n in range(1, 50)]
        world.hand_in(*writes)
        eventually(lambda: world.journal.backlog == 0, "the journal takes it up")
    finally:
        strict_broker.start()

    def goes_on() -> bool:
        member.poll()
        world.ownership = place.owned(member.metadata(), place.assignment())
        return len(world.heard.of("committed")) > 1

    eventually(goes_on, "the journal goes on")
    world.heard.wait_until_settled(*writes)

    assert world.heard.of("dropped") == []
    assert len(world.delay()) == 51
    assert place.offset(place.topics.source) == 50
