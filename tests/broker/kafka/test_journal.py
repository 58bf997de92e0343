"""The journal on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypedDict, Unpack

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

import consumer.kafka.journal.journal
import consumer.kafka.journal.waiting_writes
from consumer.core.effects import ActionId
from consumer.core.ownership import Ownership, generation
from consumer.kafka import clients
from consumer.kafka.facts import (
    Committed,
    DeadLetterRefused,
    DelayTopicRecreated,
    Dropped,
    Fenced,
    Pinned,
    RecordTooLarge,
    TransactionAborted,
)
from consumer.kafka.journal.journal import Journal
from consumer.kafka.journal.low_water_mark import PINNING, Pinning
from consumer.kafka.journal.waiting_writes import MAX_WRITES
from consumer.kafka.journal.writes import Begin, DeadLetter, Intent, Position, Put, Tombstone, Write
from consumer.kafka.records.dead_letters import DeadLetterRecord
from consumer.kafka.restore.restored import Restored
from schemas.dead_letter import DETAIL, Reason
from schemas.pending_action import POSITION_KEY
from tests.support.broker import KafkaBroker, started
from tests.support.sandbox import Heard, Member, Sandbox, SandboxFactory
from tests.support.waiting import until

DEAD_LETTER = DeadLetterRecord(b"k", b"v", [("why", b"because")])


class More(TypedDict, total=False):
    key: bytes
    next_offset: int


@dataclass
class Bench:
    """A place with a journal at work there, all partitions of which are ours."""

    sandbox: Sandbox
    metadata: bytes
    ownership: Ownership
    journal: Journal
    heard: Heard

    def adopt(self, *, live: list[tuple[Hashable, int]] | None = None, next_offset: int = 0) -> None:
        self.journal.submit(Begin(a, live or [], 0, next_offset) for a in self.ownership.assignments)

    def submit(self, *writes: Write) -> None:
        self.journal.submit(writes)

    def settle(self, *writes: Write) -> None:
        self.submit(*writes)
        self.heard.wait_until_settled(*writes)

    def pending(self, offset: int, value: bytes = b"pending", partition: int = 0, intent: Intent | None = None) -> Put:
        return Put(self.sandbox.assignment(partition), b"0:%d:r" % offset, value, offset + 1, intent)

    def ended(self, offset: int) -> Tombstone:
        return Tombstone(self.sandbox.assignment(), b"0:%d:r" % offset)

    def dead_letter(self, record: DeadLetterRecord, partition: int = 0, **more: Unpack[More]) -> DeadLetter:
        return DeadLetter(
            assignment=self.sandbox.assignment(partition), record=record, reason=Reason.REJECTED, offset=None, **more
        )

    def delay(self, partition: int = 0) -> dict[bytes | None, bytes | None]:
        """What the delay partition holds, compacted."""
        return dict(self.sandbox.pairs(self.sandbox.topics.delay, partition))


@pytest.fixture
def bench_of(shared_member: Member) -> Callable[..., Bench]:
    def make(
        sandbox: Sandbox, metadata: bytes | None = None, pinning: Pinning = PINNING, **properties: str | int
    ) -> Bench:
        metadata = metadata or shared_member.metadata()
        ownership = sandbox.owned(metadata, *(sandbox.assignment(n) for n in range(sandbox.partitions)))
        made: list[Bench] = []
        journal, heard = sandbox.journal(lambda: made[0].ownership, pinning, **properties)
        made.append(Bench(sandbox, metadata, ownership, journal, heard))
        made[0].adopt()
        return made[0]

    return make


@pytest.fixture
def bench(sandboxes: SandboxFactory, bench_of: Callable[..., Bench], shared_member: Member) -> Bench:
    return bench_of(sandboxes(group=shared_member.group))


def held(restored: Restored) -> dict[bytes, bytes]:
    """Return what the live records hold (here nothing that a relay could read)."""
    assert not restored.actions
    return {record.key: record.value for record in restored.unreadable}


def stale(metadata: bytes) -> bytes:
    """Return the metadata with another generation."""
    start = len(b"CGMDv2:")
    return metadata[:start] + struct.pack("=i", generation(metadata) + 7) + metadata[start + 4 :]


# -- what a transaction holds -----------------------------------------------------------------------------------


def test_a_record_is_never_committed_without_its_offsets(bench: Bench) -> None:
    intent = Intent(ActionId(bench.sandbox.assignment(), 4), 1)
    bench.settle(bench.pending(4, intent=intent))

    assert bench.delay() == {b"0:4:r": b"pending", POSITION_KEY: bench.sandbox.position(5)[1]}
    assert bench.sandbox.offset(bench.sandbox.topics.source) == 5
    assert bench.sandbox.offset(bench.sandbox.topics.delay) == 0  # where the one live record lies
    (committed,) = bench.heard.of(Committed)[0].writes
    assert isinstance(committed, Put)
    assert committed.intent is intent


def test_an_offset_is_never_committed_without_its_record(bench: Bench) -> None:
    """A stale generation: the records were written when the offsets are refused."""
    bench.ownership = bench.sandbox.owned(stale(bench.metadata), bench.sandbox.assignment())
    bench.submit(bench.pending(4))
    assert "ILLEGAL_GENERATION" in bench.heard.wait_for(TransactionAborted).why
    bench.ownership = Ownership(bench.metadata)
    bench.heard.wait_for(Dropped)

    assert bench.delay() == {}
    assert bench.sandbox.offset(bench.sandbox.topics.source) is None
    assert bench.sandbox.offset(bench.sandbox.topics.delay) is None
    assert b"0:4:r" in [r.key() for r in bench.sandbox.read(bench.sandbox.topics.delay, isolation="read_uncommitted")]


def test_the_position_is_written_even_where_only_progress_was_made(bench: Bench) -> None:
    """Group offsets expire; compaction keeps the last position record only as long as there is one."""
    bench.settle(bench.pending(4))
    bench.settle(Put(bench.sandbox.assignment(), b"0:4:r", b"sending"))

    positions = [value for key, value in bench.sandbox.pairs(bench.sandbox.topics.delay) if key == POSITION_KEY]
    assert positions == 2 * [bench.sandbox.position(5)[1]]


def test_what_waited_does_not_cost_a_transaction_each(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    """Group commit: what came up meanwhile shares the next transaction; only an action's last state is written."""
    bench = bench_of(sandboxes(group=shared_member.group))
    changes = [Put(bench.sandbox.assignment(), b"0:4:r", b"%d" % n) for n in range(50)]
    bench.settle(bench.pending(4), *changes)

    values = [value for key, value in bench.sandbox.pairs(bench.sandbox.topics.delay) if key == b"0:4:r"]
    assert len(values) == len(bench.heard.of(Committed)) < 5
    assert values[-1] == b"49"


def test_a_dead_letter_never_appears_beside_its_pending_record(bench: Bench) -> None:
    bench.settle(bench.pending(4))
    bench.ownership = bench.sandbox.owned(stale(bench.metadata), bench.sandbox.assignment())
    last = bench.dead_letter(DEAD_LETTER, key=b"0:4:r")
    bench.submit(last)
    bench.heard.wait_for(TransactionAborted)
    assert bench.sandbox.read(bench.sandbox.topics.dead_letters) == []
    assert bench.delay()[b"0:4:r"] == b"pending"

    bench.ownership = bench.sandbox.owned(bench.metadata, bench.sandbox.assignment())
    bench.heard.wait_until_settled(last)
    assert len(bench.sandbox.read(bench.sandbox.topics.dead_letters)) == 1
    assert bench.delay()[b"0:4:r"] is None


@pytest.mark.parametrize(
    "dead_letter",
    [
        DeadLetterRecord(b"\x00\xffkey", b"\x00\xfe\xff", [("a", b"\xff\x00"), ("a", b"twice"), ("b", None)]),
        DeadLetterRecord(None, None, []),
        DeadLetterRecord(b"", b"", [("empty", b"")]),
    ],
    ids=["binary", "nothing", "empty"],
)
def test_a_dead_letter_is_not_altered(
    dead_letter: DeadLetterRecord, sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    bench = bench_of(sandboxes(group=shared_member.group))
    bench.settle(bench.dead_letter(dead_letter, next_offset=1))

    (record,) = bench.sandbox.read(bench.sandbox.topics.dead_letters)
    assert (record.key(), record.value()) == (dead_letter.key, dead_letter.value)
    assert record.headers() == (dead_letter.headers or None)


def test_a_large_batch_is_not_torn(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    bench = bench_of(sandboxes(partitions=4, group=shared_member.group))
    writes = [bench.pending(n // 4, partition=n % 4) for n in range(MAX_WRITES)]
    bench.settle(*writes)

    for partition in range(4):
        assert len(bench.delay(partition)) == MAX_WRITES // 4 + 1
        assert bench.sandbox.offset(bench.sandbox.topics.source, partition) == MAX_WRITES // 4
        assert bench.sandbox.offset(bench.sandbox.topics.delay, partition) == 0


def test_what_cannot_be_written_in_time_is_not_one_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer.kafka.journal.waiting_writes, "MAX_BYTES", 1000)
    writes = [bench.pending(n, b"v" * 400) for n in range(30)]
    bench.settle(*writes)

    assert max(len(fact.writes) for fact in bench.heard.of(Committed)) <= 4
    assert len(bench.delay()) == 31


# -- fencing ----------------------------------------------------------------------------------------------------


def test_a_stale_entry_is_never_committed_under_a_fresh_generation(bench: Bench) -> None:
    """The broker takes such a commit: whoever owns the partition now would lose its offset."""
    bench.ownership = bench.sandbox.owned(bench.metadata, bench.sandbox.assignment(epoch=2))
    write = bench.pending(4)
    bench.settle(write)

    assert [fact.writes for fact in bench.heard.of(Dropped)] == [[write]]
    assert bench.sandbox.read(bench.sandbox.topics.delay, isolation="read_uncommitted") == []
    assert bench.sandbox.offset(bench.sandbox.topics.source) is None


def test_a_rebalance_loses_only_what_is_no_longer_owned(
    sandboxes: SandboxFactory, bench_of: Callable[..., Bench]
) -> None:
    sandbox = sandboxes(partitions=2)
    first = sandbox.member()
    until(lambda: first.poll() == [0, 1], "the first member owns both")
    bench = bench_of(sandbox, first.metadata())
    bench.settle(bench.pending(0), bench.pending(0, partition=1))
    second = sandbox.member()
    until(lambda: [len(first.poll()), len(second.poll())] == [1, 1], "each member owns one")
    (kept,) = first.poll()

    def look_again() -> None:
        bench.ownership = sandbox.owned(first.metadata(), sandbox.assignment(kept))

    bench.heard.on_aborted = look_again
    ours, theirs = bench.pending(1, partition=kept), bench.pending(1, partition=1 - kept)
    bench.settle(ours, theirs)

    assert "ILLEGAL_GENERATION" in bench.heard.wait_for(TransactionAborted).why
    assert bench.heard.of(Committed)[-1].writes == [ours]
    assert bench.heard.of(Dropped)[-1].writes == [theirs]
    assert (bench.delay(kept).get(b"0:1:r"), bench.delay(1 - kept).get(b"0:1:r")) == (b"pending", None)
    assert sandbox.offset(sandbox.topics.source, 1 - kept) == 1


CONSUMER_PROTOCOL = pytest.param(
    "consumer",
    marks=pytest.mark.skipif(os.environ.get("KAFKA_VERSION", "4").startswith("3"), reason="Kafka 4 and later"),
)


@pytest.mark.parametrize("protocol", ["classic", CONSUMER_PROTOCOL])
def test_a_generation_that_the_broker_does_not_check_is_recognised(protocol: str, sandboxes: SandboxFactory) -> None:
    member = sandboxes().member(**{"group.protocol": protocol})
    before = generation(member.metadata())
    until(member.poll, "the member joins")

    assert before < 0 <= generation(member.metadata())


def test_nothing_is_committed_before_the_group_was_joined(bench: Bench, sandboxes: SandboxFactory) -> None:
    """A negative generation is not checked by the broker: anybody's commit would be taken."""
    stranger = Consumer(clients.member({**bench.sandbox.properties, "group.id": "never-joined"}), logger=clients.LOGGER)
    metadata = stranger.consumer_group_metadata()
    stranger.close()
    assert isinstance(metadata, bytes)
    bench.ownership = bench.sandbox.owned(metadata, bench.sandbox.assignment())
    write = bench.pending(4)
    bench.submit(write)
    bench.heard.wait_for(TransactionAborted, 2)
    assert bench.heard.of(Committed) == []

    bench.ownership = bench.sandbox.owned(bench.metadata, bench.sandbox.assignment())
    bench.heard.wait_until_settled(write)
    assert bench.heard.of(Committed)[0].writes == [write]


def test_a_second_instance_with_our_transactional_id_ends_this_one(bench: Bench) -> None:
    bench.settle(bench.pending(4))
    bench.sandbox.producer(bench.sandbox.transactional_id)
    write = bench.pending(5)
    bench.settle(write)

    assert bench.heard.wait_for(Fenced).why
    assert bench.heard.of(Dropped)[0].writes == [write]
    assert b"0:5:r" not in bench.delay()
    assert bench.sandbox.offset(bench.sandbox.topics.source) == 5


def test_after_being_fenced_nothing_continues_under_the_old_assignment(bench: Bench) -> None:
    """An adoption that was under way: the group may not know yet that we give everything up."""
    bench.settle(bench.pending(4))
    bench.sandbox.producer(bench.sandbox.transactional_id)
    bench.settle(bench.pending(5))
    bench.adopt(next_offset=6)
    late = bench.pending(6)
    bench.settle(late)
    assert bench.heard.of(Dropped)[-1].writes == [late]

    bench.ownership = bench.sandbox.owned(bench.metadata, bench.sandbox.assignment(epoch=2))
    bench.adopt(next_offset=5)
    again = Put(bench.sandbox.assignment(epoch=2), b"0:5:r", b"pending", next_offset=6)
    bench.settle(again)
    assert bench.heard.of(Committed)[-1].writes == [again]


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
    monkeypatch.setattr(consumer.kafka.journal.journal, "Producer", Recorded)
    return Recorded


def test_offsets_never_overtake_records(recorded: type[Recorded], bench: Bench) -> None:
    bench.settle(*(bench.pending(n, b"v" * 10_000) for n in range(200)))

    assert [producer.outstanding for producer in recorded.made] == [0]


@pytest.mark.parametrize("call", ["begin", "offsets", "commit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delayed_abort_never_eats_the_next_transaction(
    call: str, when: str, recorded: type[Recorded], bench: Bench
) -> None:
    """A producer is not used again once a call of its failed: librdkafka has no client side of KIP-890."""
    bench.settle(bench.pending(4))
    recorded.fail = (call, when)
    write = bench.pending(5)
    bench.settle(write)

    first, *others = recorded.made
    assert first.failed_at == len(first.calls)
    assert others
    assert bench.heard.of(Committed)[-1].writes == [write]
    assert bench.delay() == {b"0:4:r": b"pending", b"0:5:r": b"pending", POSITION_KEY: bench.sandbox.position(6)[1]}
    assert bench.sandbox.offset(bench.sandbox.topics.source) == 6


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_without_an_answer_is_not_written_twice(when: str, recorded: type[Recorded], bench: Bench) -> None:
    bench.settle(bench.pending(4))
    recorded.fail = ("commit", when)
    write = bench.dead_letter(DEAD_LETTER, key=b"0:4:r")
    bench.settle(write)

    assert "outcome of a commit unknown" in bench.heard.wait_for(TransactionAborted).why
    assert len(bench.sandbox.read(bench.sandbox.topics.dead_letters)) == 1
    assert len(bench.heard.of(Committed)) == 2


def test_a_commit_without_an_answer_is_found_though_one_partition_went_on_elsewhere(
    recorded: type[Recorded], sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    bench = bench_of(sandboxes(partitions=2, group=shared_member.group))
    other = bench.sandbox.producer("other")

    def other_owner_commits() -> None:
        bench.heard.on_aborted = lambda: None
        bench.ownership = bench.sandbox.owned(bench.metadata, bench.sandbox.assignment(1))
        other.begin_transaction()
        theirs = TopicPartition(bench.sandbox.topics.source, 0, 9, metadata="theirs")
        other.send_offsets_to_transaction([theirs], bench.metadata, 10)
        other.commit_transaction(10)

    bench.heard.on_aborted = other_owner_commits
    recorded.fail = ("commit", "after")
    writes = [bench.dead_letter(DEAD_LETTER, n, next_offset=1) for n in range(2)]
    bench.settle(*writes)

    assert bench.heard.of(Committed)[-1].writes == writes
    assert len(bench.sandbox.read(bench.sandbox.topics.dead_letters, 1)) == 1


def test_an_idle_week_is_no_crash(sandboxes: SandboxFactory, bench_of: Callable[..., Bench]) -> None:
    """The broker forgets a transactional id that was not used for `transactional.id.expiration.ms`."""
    forgetful = {
        "transactional.id.expiration.ms": "1000",
        "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
    }
    broker = started(KafkaBroker(forgetful))
    try:
        sandbox = sandboxes(broker=broker)
        member = sandbox.member()
        until(member.poll, "the member joins")
        bench = bench_of(sandbox, member.metadata())
        bench.settle(bench.pending(4))
        log = Consumer({**clients.reader(sandbox.properties), "enable.partition.eof": False}, logger=clients.LOGGER)
        log.assign([TopicPartition("__transaction_state", n, 0) for n in range(4)])

        def forgotten() -> bool:
            record = log.poll(0.1)
            key = record.key() if record is not None and record.error() is None else None
            return record is not None and record.value() is None and key is not None and key.endswith(b"-relay")

        until(forgotten, "the broker forgets the transactional id")
        log.close()
        bench.settle(bench.pending(5))

        assert bench.heard.of(Fenced) == []
        assert bench.sandbox.offset(bench.sandbox.topics.source) == 6
        assert bench.heard.wait_for(TransactionAborted).why
        sandbox.close()
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
    monkeypatch.setattr(consumer.kafka.journal.journal, "Producer", Failing)
    return Failing


def fatal(code: int) -> KafkaException:
    return KafkaException(KafkaError(code, "fatal", True))


def test_a_forgotten_transactional_id_is_not_taken_for_fencing(failing: type[Failing], bench: Bench) -> None:
    """librdkafka calls it fatal where it cannot begin a new epoch."""
    failing.said = [fatal(KafkaError.INVALID_PRODUCER_ID_MAPPING)]
    write = bench.pending(4)
    bench.settle(write)

    assert "INVALID_PRODUCER_ID_MAPPING" in bench.heard.wait_for(TransactionAborted).why
    assert bench.heard.of(Fenced) == []
    assert bench.heard.of(Committed)[0].writes == [write]


def test_a_fatal_error_amid_callbacks_is_no_crash(failing: type[Failing], bench: Bench) -> None:
    """confluent-kafka raises it, and still calls back: what is called then ends in a SystemError."""
    on_top = SystemError("returned a result with an exception set")
    on_top.__cause__ = fatal(KafkaError._FENCED)
    failing.said = [on_top]
    write = bench.pending(4)
    bench.settle(write)

    assert "_FENCED" in bench.heard.wait_for(Fenced).why
    assert bench.heard.of(Dropped)[0].writes == [write]


def test_a_call_that_never_returns_is_noticed(
    recorded: type[Recorded],
    sandboxes: SandboxFactory,
    bench_of: Callable[..., Bench],
    shared_member: Member,
) -> None:
    """librdkafka's `send_offsets_to_transaction` may ignore its time-out (issues 5456, 5511)."""
    hang = threading.Event()

    class Hanging(Recorded):
        def begin_transaction(self) -> None:
            hang.wait(30)
            super().begin_transaction()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumer.kafka.journal.journal, "Producer", Hanging)  # before its thread makes one
        bench = bench_of(sandboxes(group=shared_member.group))
        write = bench.pending(4)
        bench.submit(write)
        until(lambda: bench.journal.stuck_for() > 0.05, "the watchdog sees it")
        hang.set()
        bench.heard.wait_until_settled(write)
    until(lambda: bench.journal.stuck_for() == 0.0, "the watchdog is content")


def test_an_aborted_transaction_holds_up_nobody(recorded: type[Recorded], bench: Bench, shared_member: Member) -> None:
    """What was dropped after an abort leaves no open transaction behind, for which the next owner would wait."""
    bench.ownership = bench.sandbox.owned(stale(bench.metadata), bench.sandbox.assignment())

    def give_away() -> None:
        bench.ownership = Ownership(bench.metadata)

    bench.heard.on_aborted = give_away
    started = time.monotonic()
    bench.settle(bench.pending(4))
    assert bench.sandbox.read(bench.sandbox.topics.delay) == []  # to the end, so nothing is open

    assert time.monotonic() - started < 8  # transaction.timeout.ms is 10 s


# -- what the broker refuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["the broker's", "the client's"])
def test_a_record_that_is_too_large_does_not_stop_the_others(
    limit: str, sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    """The broker refuses whole produce batches: only the culprit may end as a dead letter."""
    broker, client = ("4000", 1_000_000) if limit == "the broker's" else ("1000000", 4000)
    sandbox = sandboxes(group=shared_member.group, delay={"max.message.bytes": broker})
    bench = bench_of(sandbox, **{"message.max.bytes": client})
    small = [bench.pending(n, random.Random(n).randbytes(500)) for n in range(20)]
    large = bench.pending(20, random.Random(0).randbytes(8000))
    bench.submit(*small[:10], large, *small[10:])
    bench.heard.wait_until_settled(*small)

    fact = bench.heard.wait_for(RecordTooLarge)
    bench.heard.wait_until_settled(fact.replacement)
    assert fact.write is large
    assert len(bench.heard.of(RecordTooLarge)) == 1
    assert [r.value() for r in sandbox.read(sandbox.topics.dead_letters)] == [b"too large"]
    kept = bench.delay()
    assert {key for key, value in kept.items() if value is None} == {b"0:20:r"}
    assert len(kept) == 22


def test_a_refused_batch_is_not_a_refused_record(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    """All together they are larger than the topic's limit, none of them is."""
    sandbox = sandboxes(group=shared_member.group, delay={"max.message.bytes": "4000"})
    bench = bench_of(sandbox)
    bench.settle(*(bench.pending(n, random.Random(n).randbytes(1500)) for n in range(10)))

    assert bench.heard.of(RecordTooLarge) == []
    assert len(bench.delay()) == 11


def test_a_dead_letter_that_is_too_large_does_not_stop_the_stream(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    sandbox = sandboxes(group=shared_member.group, dead_letters={"max.message.bytes": "1000"})
    bench = bench_of(sandbox)
    dead_letter = DeadLetterRecord(b"k", random.Random(0).randbytes(3000), [(DETAIL, b"why"), ("x", b"1")])
    bench.submit(bench.dead_letter(dead_letter, next_offset=1))
    bench.settle(bench.pending(1))

    (written,) = sandbox.read(sandbox.topics.dead_letters)
    assert (written.key(), written.value()) == (b"k", None)
    assert dict(written.headers() or [])["x"] == b"1"
    assert "why; its value of 3000 bytes was left out" in str(dict(written.headers() or [])[DETAIL])
    assert bench.heard.of(RecordTooLarge) == []


def test_a_dead_letter_that_the_broker_refuses_even_so_is_not_lost(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    sandbox = sandboxes(group=shared_member.group, dead_letters={"max.message.bytes": "1000"})
    bench = bench_of(sandbox)
    dead_letter = DeadLetterRecord(random.Random(0).randbytes(3000), None, [])
    bench.submit(bench.dead_letter(dead_letter, next_offset=1))
    fact = bench.heard.wait_for(DeadLetterRefused)
    assert "even a dead letter without its value" in fact.why

    bench.settle(bench.pending(1))
    assert read_back(bench, 0) == [fact.write.record]
    allow = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    altered(sandbox, allow)
    bench.settle(fact.write)
    assert [r.key() for r in sandbox.read(sandbox.topics.dead_letters)] == [dead_letter.key]
    assert read_back(bench, 0) == []


def altered(sandbox: Sandbox, entry: ConfigEntry) -> None:
    resource = ConfigResource(ResourceType.TOPIC, sandbox.topics.dead_letters, incremental_configs=[entry])
    sandbox.admin.incremental_alter_configs([resource])[resource].result(10)


def read_back(bench: Bench, partition: int) -> list[DeadLetterRecord]:
    """Return the refused dead letters that a restart would find."""
    bench.sandbox.fill(bench.sandbox.topics.source, 250, partition)  # where the position may be
    (restored,) = bench.sandbox.restore(bench.sandbox.assignment(partition))
    return [write.record for write in restored.refused]


def test_a_refused_dead_letter_stops_nothing_else(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    """The broker refuses whole produce batches, and a transaction with them."""
    sandbox = sandboxes(partitions=2, group=shared_member.group, dead_letters={"cleanup.policy": "compact"})
    bench = bench_of(sandbox)
    writes: list[Write] = []
    for n in range(0, 120, 2):
        writes += [
            bench.pending(n, partition=n % 4 // 2),
            bench.dead_letter(
                DeadLetterRecord(None if n in (20, 68) else b"k", b"%d" % n, [("a", b"1")]),
                partition=n % 4 // 2,
                key=b"%d:r" % n,
            ),
        ]
    refused = {20, 68}
    started = time.monotonic()
    bench.submit(*writes)
    last = [bench.pending(200, partition=n) for n in range(2)]
    bench.settle(*last)

    assert time.monotonic() - started < 15
    written = {r.value() for n in range(2) for r in sandbox.read(sandbox.topics.dead_letters, n)}
    assert written == {b"%d" % n for n in range(0, 120, 2) if n not in refused}
    kept = [record for n in range(2) for record in read_back(bench, n)]
    assert {record.value for record in kept} == {b"%d" % n for n in refused}
    assert [sandbox.offset(sandbox.topics.source, n) for n in range(2)] == [201, 201]
    assert all("INVALID_RECORD" in fact.why for fact in bench.heard.of(DeadLetterRefused))
    assert len(bench.heard.of(TransactionAborted)) <= 2 * 7  # log2(60), or fewer where the broker names the record
    print(len(bench.heard.of(TransactionAborted)), "transactions aborted")


def test_an_event_whose_dead_letter_is_refused_is_not_passed_over(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    """It never became an action: nothing but its dead letter says that it was there."""
    sandbox = sandboxes(group=shared_member.group, dead_letters={"cleanup.policy": "compact"})
    bench = bench_of(sandbox)
    event = DeadLetterRecord(None, b"\xffgarbage", [("h", None), ("why", b"\xfe")])
    bench.submit(bench.dead_letter(event, next_offset=1))
    bench.settle(bench.pending(1))

    assert sandbox.offset(sandbox.topics.source) == 2
    assert read_back(bench, 0) == [event]
    refused = bench.heard.wait_for(DeadLetterRefused).write
    bench.submit(refused)
    bench.heard.wait_for(DeadLetterRefused, 2)
    assert read_back(bench, 0) == [event]
    altered(sandbox, ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET))
    bench.settle(refused)
    assert [(r.value(), r.headers()) for r in sandbox.read(sandbox.topics.dead_letters)] == [
        (event.value, event.headers)
    ]
    assert read_back(bench, 0) == []


def test_a_delay_topic_that_was_recreated_does_not_hide_what_follows(bench: Bench) -> None:
    sandbox = bench.sandbox
    sandbox.fill(sandbox.topics.source, 21)
    bench.settle(*(bench.pending(n) for n in range(20)))
    for future in sandbox.admin.delete_topics([sandbox.topics.delay]).values():
        future.result(10)
    until(lambda: recreated(sandbox), "the topic is recreated")
    bench.settle(bench.pending(20))

    assert bench.heard.of(DelayTopicRecreated)
    (restored,) = sandbox.restore()
    assert [key for key, _ in restored.live] == [b"0:20:r"]


def recreated(sandbox: Sandbox) -> bool:
    new = NewTopic(sandbox.topics.delay, sandbox.partitions, 1, config={"cleanup.policy": "compact"})
    try:
        sandbox.admin.create_topics([new])[sandbox.topics.delay].result(10)
    except KafkaException:  # its deletion is under way
        return False
    return True


def test_a_dead_letter_that_we_may_not_write_is_not_lost(
    strict_broker: KafkaBroker, sandboxes: SandboxFactory, bench_of: Callable[..., Bench]
) -> None:
    sandbox = sandboxes(broker=strict_broker)
    member = sandbox.member()
    until(member.poll, "the member joins")
    rule = (
        ResourceType.TOPIC,
        sandbox.topics.dead_letters,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    (created,) = sandbox.admin.create_acls([AclBinding(*rule)]).values()
    created.result(10)
    bench = bench_of(sandbox, member.metadata())
    bench.submit(*(bench.dead_letter(DEAD_LETTER, next_offset=n) for n in range(1, 31)))
    bench.settle(bench.pending(30))
    said = bench.heard.wait_for(TransactionAborted).why
    assert len(bench.heard.of(TransactionAborted)) < 3  # all of the topic at once
    assert sandbox.topics.dead_letters in said
    assert "TOPIC_AUTHORIZATION_FAILED" in said
    assert bench.heard.of(Fenced) == []

    (deleted,) = sandbox.admin.delete_acls([AclBindingFilter(*rule)]).values()
    deleted.result(10)
    assert len(read_back(bench, 0)) == 30
    bench.settle(*(fact.write for fact in bench.heard.of(DeadLetterRefused)))
    assert len(sandbox.read(sandbox.topics.dead_letters)) == 30
    assert read_back(bench, 0) == []


# -- the low-water mark -----------------------------------------------------------------------------------------


def test_the_mark_never_passes_a_live_record(bench: Bench) -> None:
    """After every step a restart would find exactly what is open."""
    bench.sandbox.fill(bench.sandbox.topics.source, 20)
    draw = random.Random(1)
    model: dict[bytes, bytes] = {}
    for step in range(30):
        writes: list[Put | Tombstone] = []
        for _ in range(draw.randrange(1, 6)):
            offset = draw.randrange(8)
            writes.append(bench.ended(offset) if draw.random() < 0.4 else bench.pending(offset, b"%d" % step))
        for write in writes:
            if isinstance(write, Put):
                model[write.key] = write.value
            else:
                model.pop(write.key, None)
        bench.settle(*writes)
        (restored,) = bench.sandbox.restore()
        assert held(restored) == model


def test_an_old_record_does_not_pin_the_mark_for_ever(
    sandboxes: SandboxFactory, shared_member: Member, bench_of: Callable[..., Bench]
) -> None:
    bench = bench_of(sandboxes(group=shared_member.group), pinning=Pinning(span=50))
    bench.settle(bench.pending(0))
    bench.settle(*(bench.pending(n) for n in range(1, 61)))
    assert bench.heard.of(Pinned) == []
    bench.settle(*(bench.ended(n) for n in range(1, 61)), Position(bench.sandbox.assignment(), 61))
    assert bench.heard.wait_for(Pinned).keys == [b"0:0:r"]
    assert bench.sandbox.offset(bench.sandbox.topics.delay) == 0

    bench.settle(Put(bench.sandbox.assignment(), b"0:0:r", b"pending"))
    mark = bench.sandbox.offset(bench.sandbox.topics.delay)
    assert mark is not None
    assert mark > 120
    assert len(bench.heard.of(Pinned)) == 1


# -- the journal's life -----------------------------------------------------------------------------------------


def test_a_stop_loses_nothing_that_was_submitted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer.kafka.journal.waiting_writes, "MAX_WRITES", 10)
    writes = [bench.pending(n) for n in range(100)]
    bench.submit(*writes)

    assert bench.journal.stop(20)
    assert len(bench.delay()) == 101


def test_an_unknown_answer_while_stopping_does_not_hang(sandboxes: SandboxFactory, strict_broker: KafkaBroker) -> None:
    """Nor does the broker's absence: a stop ends within its time."""
    sandbox = sandboxes(broker=strict_broker)
    member = sandbox.member()
    until(member.poll, "the member joins")
    ownership = sandbox.owned(member.metadata(), sandbox.assignment())
    journal, heard = sandbox.journal(lambda: ownership)
    first = Put(sandbox.assignment(), b"0:0:r", b"pending", next_offset=1)
    journal.submit([Begin(sandbox.assignment(), [], 0, 0), first])
    heard.wait_until_settled(first)
    strict_broker.stop()
    try:
        write = Put(sandbox.assignment(), b"0:1:r", b"pending", next_offset=2)
        journal.submit([write])
        started = time.monotonic()
        done = journal.stop(1.0)
        seconds = time.monotonic() - started
        heard.wait_until_settled(write)
    finally:
        strict_broker.start()
    assert not done
    assert seconds < 1.5
    assert heard.of(Dropped)[0].writes == [write]


def test_a_broker_that_comes_back_finds_nothing_lost(
    sandboxes: SandboxFactory, strict_broker: KafkaBroker, bench_of: Callable[..., Bench]
) -> None:
    sandbox = sandboxes(broker=strict_broker)
    member = sandbox.member(**{"session.timeout.ms": 30_000})
    until(member.poll, "the member joins")
    bench = bench_of(sandbox, member.metadata())
    bench.settle(bench.pending(0))
    strict_broker.stop()
    try:
        writes = [bench.pending(n) for n in range(1, 50)]
        bench.submit(*writes)
        until(lambda: bench.journal.backlog == 0, "the journal takes it up")
    finally:
        strict_broker.start()

    def continues() -> bool:
        member.poll()
        bench.ownership = sandbox.owned(member.metadata(), sandbox.assignment())
        return len(bench.heard.of(Committed)) > 1

    until(continues, "the journal continues")
    bench.heard.wait_until_settled(*writes)

    assert bench.heard.of(Dropped) == []
    assert len(bench.delay()) == 51
    assert sandbox.offset(sandbox.topics.source) == 50
