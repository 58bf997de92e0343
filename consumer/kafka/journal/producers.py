"""The journal's transactional producers, one at a time: when a new one is needed, and what an error means.

All have the same transactional.id. Everything here runs on one thread, the journal's. A watchdog sees every call into
librdkafka (`busy_since`). Errors of librdkafka are raised as what they mean for the transaction.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. A producer that aborted, or whose transaction call failed or timed out, is never used again. A new one with the
    same transactional.id fences what is still under way. (librdkafka lacks the client side of KIP-890: a delayed abort
    discarded the next transaction's records while its offsets were committed.)
 2. The broker refuses whole produce batches. So a record is known to be too large only if it is refused alone.
 3. A fatal error means that we are fenced only if another producer took our transactional.id. A transactional.id that
    the broker forgot (after 7 idle days) is no reason to crash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.core.clock import Clock
from consumer.kafka import clients
from consumer.kafka.journal.writes import DeadLetter, Put
from consumer.kafka.outcomes import OutcomeRecord
from consumer.kafka.records import DeadLetterRecord

CALL_TIMEOUT_S = 15.0  # per call: above transaction.timeout.ms (10 s), so that the broker decides before we do
ABORT_TIMEOUT_S = 1.0  # what the abort saves

T = TypeVar("T")

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED})
# Fatal for a producer, though nobody took its place: a new one continues, or says again what is not allowed.
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


class AbortedError(Exception):
    """The transaction was aborted: nothing of it is committed."""


class UnknownOutcomeError(AbortedError):
    """The commit was requested, and its answer did not come."""


class BatchTooLargeError(AbortedError):
    """The broker refused a produce request's batch: some record in it is too large, or only all of them together."""


class TooLargeError(Exception):
    """One record is too large by itself."""

    def __init__(self, write: Put | DeadLetter) -> None:
        super().__init__("a record is too large")
        self.write = write


class FencedError(Exception):
    """Another producer took our transactional.id."""


class Clients(Protocol):
    """The clients that transactions are made with."""

    def producer(self, *, one_by_one: bool) -> Producer:
        """Build a producer. `one_by_one`: each record is a batch of its own, so a refused size is that record's."""

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
    began. `one_by_one`: for the next producer that is built, see Clients.
    """

    def __init__(self, clients: Clients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._producer: Producer | None = None
        self._refused: tuple[KafkaError, str, Put | DeadLetter | None] | None = None
        self.one_by_one = False
        self.end_at = math.inf
        self.busy_since: float | None = None

    # -- a transaction ------------------------------------------------------------------------------------------

    def begin_transaction(self) -> None:
        """Begin one, with a new producer where there is none."""
        self._refused = None
        producer = self._producer or self.build()
        self._call(producer.begin_transaction)

    def produce(
        self,
        topic: str,
        partition: int,
        record: DeadLetterRecord | OutcomeRecord | Record,
        *,
        delivered: Callable[[Message], None] = lambda _: None,
        write: Put | DeadLetter | None = None,
    ) -> None:
        """Produce a record. `delivered` hears where it lies, within a `flush`; `write` is what may be too large."""
        producer = self._present()
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
                if _is_too_large(error) and write is not None:
                    raise TooLargeError(write) from None
                raise _meaning(error, f"writing to {topic}[{partition}]") from None
            else:
                return

    def flush(self) -> None:
        """Wait until all is written, or one record is refused: those behind it would stay until their time-out."""
        producer = self._present()
        give_up_at = self._clock() + self._timeout()
        while self._call(producer.flush, 0.1) and self._refused is None:
            if self._clock() > give_up_at:
                raise AbortedError("the broker did not take the records in time")
        self._check_delivery()

    def send_offsets(self, offsets: list[TopicPartition], group_metadata: bytes) -> None:
        """Send the offsets that the transaction settles."""
        self._call(self._present().send_offsets_to_transaction, offsets, group_metadata, self._timeout())

    def commit(self) -> None:
        """Commit. Raises UnknownOutcomeError where that fails."""
        try:
            self._call(self._present().commit_transaction, self._timeout())
        except AbortedError as error:
            raise UnknownOutcomeError(str(error)) from None

    def committed(self, partitions: list[TopicPartition]) -> Sequence[TopicPartition]:
        """Ask for these partitions' settled offsets with their metadata."""
        committed = self._call(self._clients.committed, partitions, self._timeout())
        for each in committed:
            if each.error is not None:
                raise _meaning(each.error, f"the offset of {each.topic}[{each.partition}]")
        return committed

    # -- one after the other ------------------------------------------------------------------------------------

    def build(self) -> Producer:
        """Build a producer, which ends whatever a former one left open."""
        self._producer = self._clients.producer(one_by_one=self.one_by_one)
        self._call(self._producer.init_transactions, self._timeout())
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
            self.build()
        except (AbortedError, FencedError):  # the next transaction meets it again, and says so
            self.discard()

    # -- inside -------------------------------------------------------------------------------------------------

    def _present(self) -> Producer:
        assert self._producer is not None  # noqa: S101 - a transaction was begun
        return self._producer

    def _on_delivery(
        self,
        write: Put | DeadLetter | None,
        delivered: Callable[[Message], None],
        error: KafkaError | None,
        record: Message,
    ) -> None:
        """Keep the first refusal, as the others follow from it; the size of a record is always a first one."""
        if error is None:
            delivered(record)
        elif self._refused is None or (_is_too_large(error) and not _is_too_large(self._refused[0])):
            self._refused = (error, f"writing to {record.topic()}[{record.partition()}]", write)

    def _check_delivery(self) -> None:
        if self._refused is None:
            return
        error, where, write = self._refused
        if _is_too_large(error):
            if not self.one_by_one:
                raise BatchTooLargeError(f"{where}: {error.name()}: {error.str()}")
            if write is not None:
                raise TooLargeError(write)
        raise _meaning(error, where)

    def _call(self, method: Callable[..., T], *arguments: object) -> T:
        self.busy_since = self._clock()
        try:
            return method(*arguments)
        except (KafkaException, SystemError) as exception:
            raise _meaning(cause_of(exception), method.__name__) from None
        finally:
            self.busy_since = None

    def _timeout(self) -> float:
        return max(0.1, min(CALL_TIMEOUT_S, self.end_at - self._clock()))


def cause_of(exception: KafkaException | SystemError) -> KafkaError:
    """Return librdkafka's error.

    A fatal one is raised amid the callbacks of a `flush`: those called behind it end in a SystemError on top of it.
    """
    cause: BaseException | None = exception
    while isinstance(cause, SystemError):
        cause = cause.__cause__
    if not isinstance(cause, KafkaException):
        raise exception
    return clients.error_of(cause)


def _meaning(error: KafkaError, where: str) -> AbortedError | FencedError:
    """Return what an error of librdkafka's means for the transaction."""
    text = f"{where}: {error.name()}: {error.str()}"
    if error.code() in _FENCED or (error.fatal() and error.code() not in _FATAL_YET_NOT_FENCED):
        return FencedError(text)
    return AbortedError(text)


def _is_too_large(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError.MSG_SIZE_TOO_LARGE)
