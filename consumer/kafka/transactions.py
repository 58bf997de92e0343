"""The journal's transactions: what is written together, under whose name, and what a failure means.

Each holds, for each partition p that it touches, the records (and dead letters), p's `position` record, p's source
offset, and the low-water mark, both committed under the group. Everything here is called on one thread, `journal.py`'s;
what it needs of the outside it is given, so that the simulation (tests/simulation) drives these very rules.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. The ownership snapshot is taken first; what it does not cover is dropped, and only then is anything committed,
    with that snapshot's metadata. A stale generation aborts; what is still owned is tried again.
 2. Records are flushed before the offsets are sent, dead letters before the records. Each record is true and
    idempotent by key by itself, the position record as well: all that lies before it is dealt with.
 3. A producer that aborted, or whose transaction call failed or timed out, is never used again: a new one with the
    same transactional.id fences what is still under way. (librdkafka has no client side of KIP-890: a delayed abort
    ate the next transaction's records while its offsets committed.)
 4. Where a commit's outcome is unknown, the new producer ends it one way or the other, and the committed offset's
    metadata (it names the transaction) tells which: nothing is written twice.
 5. A fenced producer gives up every partition and rejoins. A forgotten transactional.id (7 idle days) is no crash.
 6. The broker refuses whole produce batches: a record is too large only if it is refused alone.
 7. No open transaction is left behind: whoever restores the partition next would wait for it.
 8. A delay topic that was deleted and made again begins at 0: its mark begins anew with it, and what is pending is
    written again. The old mark would hide all that follows.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, generation
from consumer.kafka import clients
from consumer.kafka.facts import (
    Committed,
    DelayTopicRecreated,
    Dropped,
    Fenced,
    Pinned,
    RecordTooLarge,
    Report,
    TransactionAborted,
)
from consumer.kafka.low_water_mark import PINNING, LowWaterMark, Pinning
from consumer.kafka.records import DeadLetterRecord, position_value
from consumer.kafka.topics import RelayTopics
from consumer.kafka.writes import Adoption, Write
from schemas.pending_action import POSITION_KEY

CALL_TIMEOUT_S = 15.0  # per call: above transaction.timeout.ms (10 s), so that the broker decides before we do
RETRY_S = (0.05, 0.2, 1.0, 5.0)  # between attempts after an abort
ABORT_TIMEOUT_S = 1.0  # what the abort saves

T = TypeVar("T")

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED})
# Fatal for a producer, though nobody took its place: a new one goes on, or says again what is not allowed.
_FATAL_YET_NOT_FENCED = frozenset(
    {
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.INVALID_TXN_STATE,  # a delayed request of our own has ended this transaction
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)


@dataclass(slots=True)
class _Partition:
    mark: LowWaterMark
    next_offset: int
    end: int
    recreated: bool = False  # the delay topic, since the last transaction that was committed
    too_large: set[bytes | None] = field(default_factory=set)  # keys that were set aside for their record's size


@dataclass(slots=True)
class _Batch:
    """The writes of one partition in one transaction, and where they came to lie in the delay topic."""

    assignment: Assignment
    writes: list[Write]
    next_offset: int
    start: int
    end: int
    recreated: bool = False  # the delay topic, since the last transaction
    latest: dict[Hashable, Write] = field(default_factory=dict)
    written: dict[Hashable, int | None] = field(default_factory=dict)


class _AbortedError(Exception):
    """The transaction came to nothing."""


class _UnknownOutcomeError(_AbortedError):
    """The commit was asked for and not answered."""


class _BatchTooLargeError(_AbortedError):
    """The broker refused a produce request's batch: some record in it is too large, or only all of them together."""


class _TooLargeError(Exception):
    """One record is too large by itself."""

    def __init__(self, write: Write) -> None:
        super().__init__("a record is too large")
        self.write = write


class _FencedError(Exception):
    """Another producer took our transactional.id."""


class Clients(Protocol):
    """The clients that transactions are made with."""

    def producer(self, *, one_by_one: bool) -> Producer:
        """Build a producer. `one_by_one`: each record is a batch of its own, so a refused size is that record's."""

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        """Ask for the group's settled offsets with their metadata."""


def _random_name() -> str:
    return uuid.uuid4().hex


class Transactions:
    """The rules of the module. `settle` and `end` are for one thread; `end_at` may be set by another."""

    def __init__(
        self,
        clients: Clients,
        *,
        topics: Mapping[str, RelayTopics],
        ownership: Callable[[], Ownership],
        clock: Clock,
        pause: Callable[[float], None],
        report: Report,
        replace_too_large: Callable[[Write], Write],
        pinning: Pinning = PINNING,
        new_name: Callable[[], str] = _random_name,
    ) -> None:
        """`topics` by source topic; `ownership` returns the latest snapshot; `pause` waits between two attempts.

        `new_name` returns a name for a transaction that no other one ever had (rule 4).
        """
        self._clients = clients
        self._topics = topics
        self._ownership = ownership
        self._clock = clock
        self._pause = pause
        self._report = report
        self._replace_too_large = replace_too_large
        self._pinning = pinning
        self._new_name = new_name
        self._partitions: dict[Assignment, _Partition] = {}
        self._given_up: frozenset[Assignment] = frozenset()
        self._producer: Producer | None = None
        self._ownership_confirmed_at = -math.inf
        self._one_by_one = False
        self._refused: tuple[KafkaError, str, Write | None] | None = None
        self.end_at = math.inf  # by the clock: what is not committed by then is dropped
        self.busy_since: float | None = None  # when the present call into librdkafka began

    def begin(self) -> None:
        """End what a former run under our transactional.id left open (rule 7): our own restore would wait for it."""
        self._replace_producer()

    def end(self) -> None:
        """Free the producer."""
        self._discard_producer()

    def settle(self, items: list[Write | Adoption]) -> None:
        """Bring these to their end: committed, or dropped because they are no longer ours."""
        writes: list[Write] = []
        for item in items:
            if isinstance(item, Adoption):
                self._adopt(item)
            else:
                self._forget_too_large(item)
                writes.append(item)
        attempt = 0
        while writes:
            ownership = self._ownership()
            writes = self._keep_covered(writes, ownership)
            if not writes:
                break
            if self._clock() > self.end_at:
                self._report(Dropped(writes))
                break
            try:
                self._transact(writes, ownership)
            except _TooLargeError as error:
                writes[writes.index(error.write)] = self._smaller(error.write)
                self._replace_producer()
            except _FencedError as error:
                self._discard_producer()
                self._partitions.clear()
                self._given_up = frozenset(ownership.assignments)
                self._report(Fenced(str(error)))
                self._report(Dropped(writes))
                break
            except _AbortedError as error:
                self._report(TransactionAborted(str(error)))
                if isinstance(error, _BatchTooLargeError):
                    self._one_by_one = True
                self._replace_producer()
                self._pause(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            else:
                break
        if self._one_by_one:
            self._one_by_one = False
            self._discard_producer()

    def _smaller(self, write: Write) -> Write:
        """What is written in the place of a record that the broker refuses for its size."""
        replacement = self._replace_too_large(write)
        if replacement is write:
            self._report(TransactionAborted("the dead-letter topic refuses even a letter without its value"))
            self._pause(RETRY_S[-1])
        elif write.dead_letter is None:
            self._partitions[write.assignment].too_large.add(replacement.key)
            self._report(RecordTooLarge(write, replacement))
        return replacement

    def _forget_too_large(self, write: Write) -> None:
        """What was handed in before its action was set aside would set it aside once more."""
        partition = self._partitions.get(write.assignment)
        if partition is not None and write.key in partition.too_large:
            write.key = write.value = write.dead_letter = None

    def _adopt(self, adoption: Adoption) -> None:
        if adoption.assignment in self._given_up:
            return
        ownership = self._ownership()
        for gone in [a for a in self._partitions if not ownership.covers(a)]:
            del self._partitions[gone]
        mark = LowWaterMark(adoption.live, adoption.end, self._pinning)
        self._partitions[adoption.assignment] = _Partition(mark, adoption.next_offset, adoption.end)

    def _keep_covered(self, writes: list[Write], ownership: Ownership) -> list[Write]:
        """Rule 1: a stale entry must not be written under a fresh generation."""
        kept: list[Write] = []
        gone: list[Write] = []
        for write in writes:
            ours = write.assignment in self._partitions and ownership.covers(write.assignment)
            (kept if ours else gone).append(write)
        if gone:
            self._report(Dropped(gone))
        return kept

    def _transact(self, writes: list[Write], ownership: Ownership) -> None:
        started = self._clock()
        transaction = self._new_name()
        batches = self._batches(writes)
        try:
            self._commit(batches, ownership, transaction)
        except _UnknownOutcomeError as error:
            if not self._was_committed(batches, transaction, error):
                raise
        for batch in batches:
            state = self._partitions[batch.assignment]
            state.mark.apply(batch.written, batch.end)
            state.next_offset, state.end, state.recreated = batch.next_offset, batch.end, False
        self._report(Committed(writes, self._ownership_confirmed_at, self._clock() - started))
        for batch in batches:
            if batch.recreated:
                self._report(DelayTopicRecreated(batch.assignment))
            keys = self._partitions[batch.assignment].mark.pinned()
            if keys:
                self._report(Pinned(batch.assignment, keys))

    def _batches(self, writes: list[Write]) -> list[_Batch]:
        batches: dict[Assignment, _Batch] = {}
        for write in writes:
            batch = batches.get(write.assignment)
            if batch is None:
                state = self._partitions[write.assignment]
                batch = _Batch(write.assignment, [], state.next_offset, state.end, state.end, state.recreated)
                batches[write.assignment] = batch
            batch.writes.append(write)
            if write.next_offset is not None:
                batch.next_offset = write.next_offset
            if write.key is not None:
                batch.latest[write.key] = write  # group commit: only the latest state of an action is written
        return list(batches.values())

    def _commit(self, batches: list[_Batch], ownership: Ownership, transaction: str) -> None:
        if ownership.group_metadata is None or generation(ownership.group_metadata) < 0:
            raise _AbortedError("not a member of the group yet")  # the broker would not check it: no fencing
        self._refused = None
        producer = self._producer or self._build_producer()
        self._call(producer.begin_transaction)
        if sum(self._produce_dead_letters(producer, batch) for batch in batches):
            self._flush(producer)
        for batch in batches:
            self._produce(producer, batch)
        self._flush(producer)
        offsets = []
        for batch in batches:
            topic, partition, _ = batch.assignment
            state = self._partitions[batch.assignment]
            if batch.recreated:
                state.mark = LowWaterMark(pinning=self._pinning)
            mark = state.mark.after(batch.written, batch.end)
            offsets.append(TopicPartition(topic, partition, batch.next_offset, metadata=transaction))
            offsets.append(TopicPartition(self._topics[topic].delay, partition, mark, metadata=transaction))
        self._ownership_confirmed_at = self._clock()
        self._call(producer.send_offsets_to_transaction, offsets, ownership.group_metadata, self._timeout())
        try:
            self._call(producer.commit_transaction, self._timeout())
        except _AbortedError as error:
            raise _UnknownOutcomeError(str(error)) from None

    def _produce_dead_letters(self, producer: Producer, batch: _Batch) -> int:
        """Produce the batch's dead letters; returns how many there are."""
        topic, partition, _ = batch.assignment
        count = 0
        for write in batch.writes:
            if write.dead_letter is not None:
                dead_letter, where = write.dead_letter, self._topics[topic].dead_letters
                delivered = partial(self._dead_letter_delivered, write)
                self._produce_one(producer, where, partition, dead_letter, delivered=delivered, write=write)
                count += 1
        return count

    def _produce(self, producer: Producer, batch: _Batch) -> None:
        topic, partition, _ = batch.assignment
        delay_topic = self._topics[topic].delay
        for write in batch.latest.values():
            record = _Record(write.key, write.value)
            delivered = partial(self._delivered, batch, write)
            self._produce_one(producer, delay_topic, partition, record, delivered=delivered, write=write)
        position = _Record(POSITION_KEY, position_value(batch.next_offset))
        delivered = partial(self._delivered, batch, None)
        self._produce_one(producer, delay_topic, partition, position, delivered=delivered)

    def _produce_one(
        self,
        producer: Producer,
        topic: str,
        partition: int,
        record: DeadLetterRecord | _Record,
        *,
        delivered: Callable[[KafkaError | None, Message], None],
        write: Write | None = None,
    ) -> None:
        while True:
            try:
                producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition,
                    on_delivery=delivered,
                    timestamp=record.timestamp_ms or 0,
                    headers=record.headers,
                )
            except BufferError:
                self._call(producer.poll, 0.1)
            except KafkaException as exception:
                error = clients.error_of(exception)
                if _is_too_large(error) and write is not None:
                    raise _TooLargeError(write) from None
                raise _meaning(error, f"writing to {topic}[{partition}]") from None
            else:
                return

    def _flush(self, producer: Producer) -> None:
        """Wait until all is written, or one record is refused: those behind it would stay until their time-out."""
        give_up_at = self._clock() + self._timeout()
        while self._call(producer.flush, 0.1) and self._refused is None:
            if self._clock() > give_up_at:
                raise _AbortedError("the broker did not take the records in time")
        self._check_delivery()

    def _dead_letter_delivered(self, write: Write, error: KafkaError | None, record: Message) -> None:
        if error is not None:
            self._note_refusal(error, record, write)

    def _delivered(self, batch: _Batch, write: Write | None, error: KafkaError | None, record: Message) -> None:
        if error is not None:
            self._note_refusal(error, record, write)
            return
        offset = record.offset()
        if offset is None:  # written by an earlier try whose answer was lost: somewhere behind the batch's start
            offset = batch.start
        elif offset < batch.start:  # rule 8
            state = self._partitions[batch.assignment]
            state.recreated = batch.recreated = True  # an abort does not undo it
            state.end = batch.start = batch.end = 0
            batch.written.clear()  # what lay in the former one
        batch.end = max(batch.end, offset + 1)
        if write is not None:
            batch.written[write.key] = None if write.value is None else offset

    def _note_refusal(self, error: KafkaError, record: Message, write: Write | None) -> None:
        """Keep the first one, as the others follow from it; the size of a record is always a first one."""
        if self._refused is None or (_is_too_large(error) and not _is_too_large(self._refused[0])):
            self._refused = (error, f"writing to {record.topic()}[{record.partition()}]", write)

    def _check_delivery(self) -> None:
        if self._refused is None:
            return
        error, where, write = self._refused
        if _is_too_large(error):
            if not self._one_by_one:
                raise _BatchTooLargeError(f"{where}: {error.name()}: {error.str()}")
            if write is not None:
                raise _TooLargeError(write)
        raise _meaning(error, where)

    def _call(self, method: Callable[..., T], *arguments: object) -> T:
        """Call into librdkafka under the watchdog, with its errors as what they mean for the transaction."""
        self.busy_since = self._clock()
        try:
            return method(*arguments)
        except (KafkaException, SystemError) as exception:
            raise _meaning(_cause_of(exception), method.__name__) from None
        finally:
            self.busy_since = None

    def _timeout(self) -> float:
        return max(0.1, min(CALL_TIMEOUT_S, self.end_at - self._clock()))

    # -- the producer's life ------------------------------------------------------------------------------------

    def _build_producer(self) -> Producer:
        self._producer = self._clients.producer(one_by_one=self._one_by_one)
        self._call(self._producer.init_transactions, self._timeout())
        return self._producer

    def _discard_producer(self) -> None:
        """Free it, with whatever it has not written."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(_AbortedError, _FencedError):
                self._call(producer.purge)
                self._call(producer.flush, 0.1)  # what was purged is told here; untold, its callbacks are never freed

    def _replace_producer(self) -> None:
        """Rule 3. The old one's transaction ends with it, for which a restore of the partition would wait.

        The new one would end it as well, but asks again only every half second (librdkafka) until that is done: for so
        long every member would be without its journal, at every rebalance.
        """
        if self._producer is not None:
            with suppress(_AbortedError, _FencedError):
                self._call(self._producer.abort_transaction, min(ABORT_TIMEOUT_S, self._timeout()))
        self._discard_producer()
        try:
            self._build_producer()
        except (_AbortedError, _FencedError):  # the next transaction meets it again, and says so
            self._discard_producer()

    def _was_committed(self, batches: list[_Batch], transaction: str, error: Exception) -> bool:
        """Rule 4: fence the transaction, which ends it either way, then look which way it went."""
        why = str(error)
        while True:
            self._discard_producer()
            self._report(TransactionAborted(f"outcome of a commit unknown: {why}"))
            try:
                self._build_producer()
                return transaction in self._committed_transactions(batches)
            except _AbortedError as again:
                why = str(again)
            ownership = self._ownership()
            if self._clock() > self.end_at or not any(ownership.covers(batch.assignment) for batch in batches):
                return False  # then nothing of it is written again either
            self._pause(RETRY_S[-1])

    def _committed_transactions(self, batches: list[_Batch]) -> set[str | None]:
        """Who committed these partitions' offsets last. All are asked: one may have got a new owner since."""
        asked = [TopicPartition(batch.assignment.topic, batch.assignment.partition) for batch in batches]
        committed = self._call(self._clients.committed, asked, self._timeout())
        for each in committed:
            if each.error is not None:
                raise _meaning(each.error, f"the offset of {each.topic}[{each.partition}]")
        return {each.metadata for each in committed}


@dataclass(frozen=True, slots=True)
class _Record:
    """A record of the delay topic: like a dead letter, with nothing of the source's."""

    key: bytes | None
    value: bytes | None
    headers: None = None
    timestamp_ms: None = None


def _cause_of(exception: KafkaException | SystemError) -> KafkaError:
    """Return librdkafka's error.

    A fatal one is raised amid the callbacks of a `flush`: those called behind it end in a SystemError on top of it.
    """
    cause: BaseException | None = exception
    while isinstance(cause, SystemError):
        cause = cause.__cause__
    if not isinstance(cause, KafkaException):
        raise exception
    return clients.error_of(cause)


def _meaning(error: KafkaError, where: str) -> _AbortedError | _FencedError:
    """What an error of librdkafka's means for the transaction."""
    text = f"{where}: {error.name()}: {error.str()}"
    if error.code() in _FENCED or (error.fatal() and error.code() not in _FATAL_YET_NOT_FENCED):
        return _FencedError(text)
    return _AbortedError(text)


def _is_too_large(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError.MSG_SIZE_TOO_LARGE)
