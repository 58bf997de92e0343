"""The journal's transactional producers, one at a time: when a new one is needed, and what an error means.

All have the same transactional.id. Everything here runs on one thread, the journal's. A watchdog sees every call into
librdkafka (`busy_since`). Errors of librdkafka are raised as what they mean for the transaction (meanings.py).

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. A producer that aborted, or whose transaction call failed or timed out, is never used again. A new one with the
    same transactional.id fences what is still under way. (librdkafka lacks the client side of KIP-890: a delayed abort
    discarded the next transaction's records while its offsets were committed.)
 2. The broker refuses whole produce batches. So a record is known to be too large only if it is refused alone.
 3. A fatal error means that we are fenced only if another producer took our transactional.id. A transactional.id that
    the broker forgot (after 7 idle days) is no reason to crash. Nor is a transaction that the broker ended because
    it lasted too long: it looks as if we were fenced.
 4. A transactional.id whose transaction cannot be ended, because a partition of it is lost, is not waited for. A
    successor's takes its place. What the old one may still have under way is decided: the broker ends it as aborted,
    or as committed where that was asked for, which rule 3 of transactions.py looks up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.journal.meanings import (
    FOR_NOW,
    OF_THE_TOPIC,
    AbortedError,
    BatchTooLargeError,
    Failure,
    FencedError,
    OverranError,
    RefusedError,
    TooLargeError,
    UnknownOutcomeError,
    cause_of,
    is_refusal,
    is_too_large,
    meaning_of,
    refusal_of,
    text_of,
    where_of,
)
from consumer.kafka.journal.writes import DeadLetter, Keyed, Put
from consumer.kafka.limits import beyond_limits
from consumer.kafka.outcomes.outcomes import OutcomeRecord
from consumer.kafka.records.dead_letters import DeadLetterRecord

CALL_TIMEOUT_S = 15.0  # per call: above transaction.timeout.ms (10 s), so that the broker decides before we do
ABORT_TIMEOUT_S = 1.0  # what the abort saves
# For the former transaction to end, where it holds a partition that took nothing: a lost one lets it end never.
SUSPECT_INIT_TIMEOUT_S = 2.0
LATE_S = 3.0  # a transaction takes milliseconds
SLOWER = 4.0  # than the last record that was taken may be one that is waited for, where the time is short

T = TypeVar("T")


class Clients(Protocol):
    """The clients that transactions are made with."""

    def producer(self, *, one_by_one: bool, successor: int) -> Producer:
        """Build a producer. `one_by_one`: each record is a batch of its own, so a refused size is that record's.

        `successor`: which one of the transactional.id, 0 the id itself.
        """

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        """Ask for the group's settled offsets with their metadata."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the delay topic: like a dead letter, with nothing of the source's."""

    key: bytes
    value: bytes | None
    headers: None = None


class Producers:
    """The present producer, if there is one, and how it is replaced.

    `end_at`: no call lasts longer than until then, by the clock. `busy_since`: when the present call into librdkafka
    began. `one_by_one`: for the next producer that is built, see Clients. `offsets_s`: how long the offsets may take.
    `records_s`: so may the records, or SLOWER times as long as what came last of them.
    """

    def __init__(self, clients: Clients, clock: Clock, timeout_s: float) -> None:
        """`timeout_s`: how long a transaction may last (transaction.timeout.ms)."""
        self._clients = clients
        self._clock = clock
        self._timeout_s = timeout_s
        self._began_at = -math.inf
        self._successor = 0
        self._timed_out = 0  # in a row: the calls that begin a producer
        self._producer: Producer | None = None
        self._failures: list[Failure] = []
        self._written = 0
        self._unwritten: Counter[Partition] = Counter()
        self._taken: set[Partition] = set()
        self._first_taken_at = math.inf
        self._taken_at = -math.inf
        self.one_by_one = False
        self.offsets_s = math.inf
        self.records_s = math.inf
        self.end_at = math.inf
        self.busy_since: float | None = None

    # -- a transaction ------------------------------------------------------------------------------------------

    def begin_transaction(self) -> None:
        """Begin one, with a new producer where there is none."""
        self._failures, self._written = [], 0
        self._unwritten.clear()
        self._taken.clear()
        self._first_taken_at = math.inf
        producer = self._producer or self.build()
        self._began_at = self._clock()
        self._call(producer.begin_transaction)

    def produce(
        self,
        topic: str,
        partition: int,
        record: DeadLetterRecord | OutcomeRecord | Record,
        *,
        delivered: Callable[[Message], None] = lambda _: None,
        write: Keyed | None = None,
    ) -> None:
        """Produce a record. `delivered` hears where it lies, within a `flush`; `write` is what may be refused."""
        producer = self._present()
        self._unwritten[topic, partition] += 1
        while True:
            try:
                producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition,
                    on_delivery=partial(self._on_delivery, write, delivered),
                    headers=record.headers,
                )
            except BufferError:
                self._call(producer.poll, 0.1)
            except KafkaException as exception:
                error = clients.error_of(exception)
                if is_too_large(error) and isinstance(write, Put | DeadLetter):
                    raise TooLargeError(write) from None
                if error.code() in OF_THE_TOPIC:
                    self._failures.append(Failure(error, (topic, partition), write))
                    self._check_delivery()
                raise meaning_of(error, f"writing to {topic}[{partition}]") from None
            else:
                return

    def flush(self, late: Callable[[], None] = lambda: None) -> None:
        """Wait until all is written, or one record is refused: those behind it would stay until their time-out.

        `late` is called where that takes longer than LATE_S; it may produce more.
        """
        producer = self._present()
        is_late = False
        started, timeout_s = self._clock(), self._timeout()
        while self._call(producer.flush, 0.1) and not self._failures:
            patience_s = max(self.records_s, SLOWER * (self._taken_at - started))
            now = self._clock()
            if not is_late and now > started + LATE_S:
                is_late = True
                late()
            if now > started + min(timeout_s, patience_s):
                raise self._overran("the broker did not take the records in time")
        self._check_delivery()

    def send_offsets(self, offsets: list[TopicPartition], group_metadata: bytes) -> None:
        """Send the offsets that the transaction settles."""
        try:
            timeout_s = min(self.offsets_s, self._timeout())
            self._call(self._present().send_offsets_to_transaction, offsets, group_metadata, timeout_s)
        except FencedError as error:
            raise self._outlasted(error) from None
        except AbortedError as error:
            if isinstance(error.cause, KafkaError) and error.cause.code() in OF_THE_TOPIC:
                raise RefusedError(str(error), whole_topic=True) from None
            raise

    def commit(self) -> None:
        """Commit. Raises UnknownOutcomeError where that fails."""
        try:
            self._call(self._present().commit_transaction, self._timeout())
        except (AbortedError, FencedError) as error:
            if isinstance(error, FencedError) and not self._is_too_long():
                raise
            raise UnknownOutcomeError(str(error)) from None

    def committed(self, partitions: list[TopicPartition]) -> Sequence[TopicPartition]:
        """Ask for these partitions' settled offsets with their metadata."""
        committed = self._call(self._clients.committed, partitions, self._timeout())
        for each in committed:
            if each.error is not None:
                raise meaning_of(each.error, f"the offset of {each.topic}[{each.partition}]")
        return committed

    # -- one after the other ------------------------------------------------------------------------------------

    def build(self, *, suspect: bool = False) -> Producer:
        """Build a producer, which ends whatever a former one left open. `suspect`: perhaps it cannot end (rule 4)."""
        timeout_s = SUSPECT_INIT_TIMEOUT_S if suspect else CALL_TIMEOUT_S
        self._producer = self._clients.producer(one_by_one=self.one_by_one, successor=self._successor)
        try:
            self._call(self._producer.init_transactions, min(timeout_s, self._timeout()))
        except AbortedError as error:
            code = error.cause.code() if isinstance(error.cause, KafkaError) else None
            self._timed_out += code in (KafkaError.CONCURRENT_TRANSACTIONS, KafkaError._TIMED_OUT)
            if self._timed_out >= (1 if suspect else 2):
                self._successor += 1
                self._timed_out = 0
            elif code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                self._successor = 0  # the only one that is granted
            raise
        self._timed_out = 0
        return self._producer

    def discard(self) -> None:
        """Free the producer, with whatever it has not written."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(AbortedError, FencedError):
                self._call(producer.purge)
                self._call(producer.flush, 0.1)  # what was purged is told here; untold, its callbacks are never freed

    def replace(self) -> None:
        """Rule 1. The old one's transaction ends with it, for which a restore of the partition would wait.

        The new one would end it as well, but asks again only every half second (librdkafka) until that is done: for so
        long every member would be without its journal, at every rebalance.
        """
        if self._producer is not None:
            with suppress(AbortedError, FencedError):
                self._call(self._producer.abort_transaction, min(ABORT_TIMEOUT_S, self._timeout()))
        self.discard()
        try:
            self.build(suspect=bool(self._silent()))
        except (AbortedError, FencedError):  # the next transaction meets it again, and says so
            self.discard()

    # -- inside -------------------------------------------------------------------------------------------------

    def _present(self) -> Producer:
        assert self._producer is not None  # noqa: S101 - a transaction was begun
        return self._producer

    def _on_delivery(
        self,
        write: Keyed | None,
        delivered: Callable[[Message], None],
        error: KafkaError | None,
        record: Message,
    ) -> None:
        at = (record.topic() or "", record.partition() or 0)
        if error is not None:
            self._failures.append(Failure(error, at, write))
            return
        self._written += len(record.value() or b"")
        self._unwritten[at] -= 1
        self._taken.add(at)
        self._taken_at = self._clock()
        self._first_taken_at = min(self._first_taken_at, self._taken_at)
        delivered(record)

    def _check_delivery(self) -> None:
        """Raise what the records' failures mean: first what the broker said of a record, the others follow from it."""
        if not self._failures:
            return
        too_large = next((each for each in self._failures if is_too_large(each.error)), None)
        if too_large is not None:
            if not self.one_by_one:
                raise BatchTooLargeError(text_of(too_large))
            if isinstance(too_large.write, Put | DeadLetter):
                raise TooLargeError(too_large.write)
        refused = [each for each in self._failures if is_refusal(each.error)]
        if refused:
            raise refusal_of(refused)
        first = self._failures[0]
        meaning = meaning_of(first.error, where_of(first.at))
        if isinstance(meaning, FencedError):
            raise self._outlasted(meaning)
        if first.error.code() in FOR_NOW and isinstance(meaning, AbortedError):
            raise self._overran(str(meaning))
        raise meaning

    def _overran(self, text: str) -> OverranError:
        outdone = self._first_taken_at <= (self._began_at + self._clock()) / 2
        return OverranError(text, self._written, self._silent(), others_taken=bool(self._taken), outdone=outdone)

    def _silent(self) -> set[Partition]:
        """The partitions of which nothing was taken."""
        return {at for at, count in self._unwritten.items() if count and at not in self._taken}

    def _is_too_long(self) -> bool:
        return self._clock() - self._began_at >= self._timeout_s

    def _outlasted(self, error: FencedError) -> OverranError | FencedError:
        """Return what looks as if we were fenced, though the broker may have ended what lasted too long (rule 3)."""
        return self._overran(str(error)) if self._is_too_long() else error

    def _call(self, method: Callable[..., T], *arguments: object) -> T:
        self.busy_since = self._clock()
        try:
            return method(*arguments)
        except (KafkaException, SystemError) as exception:
            cause = cause_of(exception)
            raise beyond_limits(cause) or meaning_of(cause, method.__name__) from None
        finally:
            self.busy_since = None

    def _timeout(self) -> float:
        return max(0.1, min(CALL_TIMEOUT_S, self.end_at - self._clock()))
