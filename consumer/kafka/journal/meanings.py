"""What an error of librdkafka's, or of the broker's, means for the transaction in which it came."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException

from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.journal.writes import DeadLetter, Keyed, Put

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
# What is refused whatever the transaction holds: who we are, or the state of the transaction, is what is wrong.
_OF_THE_TRANSACTION = frozenset(
    {
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.INVALID_TXN_STATE,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.DUPLICATE_SEQUENCE_NUMBER,
        KafkaError.PRODUCER_FENCED,
        KafkaError.TRANSACTION_ABORTABLE,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
# A broker says so while it cannot serve a partition; librdkafka tries again, within the transaction's time.
FOR_NOW = frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
    }
)
# Every record of the topic is refused.
OF_THE_TOPIC = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
# A batch holds a refused record, and this is another one.
_FOR_ANOTHER = KafkaError._INVALID_DIFFERENT_RECORD


class AbortedError(Exception):
    """The transaction was aborted: nothing of it is committed. `cause`: librdkafka's error, where it is one."""

    def __init__(self, text: str = "", cause: KafkaError | None = None) -> None:
        super().__init__(text)
        self.cause = cause


class UnknownOutcomeError(AbortedError):
    """The commit was requested, and its answer did not come."""


class OverranError(AbortedError):
    """The broker did not take the records in time. `written`: bytes that it took. `unwritten`: where it took none.

    `others_taken`: it took records of another partition. `outdone`: some of them in the first half of the time.
    """

    def __init__(
        self, text: str, written: int, unwritten: Collection[Partition], *, others_taken: bool, outdone: bool = False
    ) -> None:
        super().__init__(text)
        self.written = written
        self.unwritten = frozenset(unwritten)
        self.others_taken = others_taken
        self.outdone = outdone


class RefusedError(AbortedError):
    """The broker refuses something, and would refuse it again.

    `topics`: whose records; none where it is the offsets. `suspects`: the dead letters among the refused records.
    `exact`: each of these is refused for itself. `whole_topic`: so would be every other record of these topics.
    """

    def __init__(
        self,
        text: str,
        *,
        topics: Collection[str] = (),
        suspects: Collection[DeadLetter] = (),
        exact: bool = False,
        whole_topic: bool = False,
    ) -> None:
        super().__init__(text)
        self.topics = frozenset(topics)
        self.suspects = suspects
        self.exact = exact
        self.whole_topic = whole_topic


class BatchTooLargeError(AbortedError):
    """The broker refused a produce request's batch: some record in it is too large, or only all of them together."""


class TooLargeError(Exception):
    """One record is too large by itself."""

    def __init__(self, write: Put | DeadLetter) -> None:
        super().__init__("a record is too large")
        self.write = write


class FencedError(Exception):
    """Another producer took our transactional.id."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that was not written."""

    error: KafkaError
    at: Partition
    write: Keyed | None


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


def meaning_of(error: KafkaError, where: str) -> AbortedError | FencedError:
    """Return what an error of librdkafka's means for the transaction."""
    text = f"{where}: {error.name()}: {error.str()}"
    if error.code() in _FENCED or (error.fatal() and error.code() not in _FATAL_YET_NOT_FENCED):
        return FencedError(text)
    return AbortedError(text, error)


def is_refusal(error: KafkaError) -> bool:
    """Whether the broker would refuse the record again."""
    if error.code() in OF_THE_TOPIC or error.code() == _FOR_ANOTHER:
        return True
    return error.code() > 0 and error.code() not in _OF_THE_TRANSACTION | FOR_NOW


def refusal_of(refused: Sequence[Failure]) -> RefusedError:
    """Return what these refusals of one transaction mean together."""
    own = [each for each in refused if each.error.code() != _FOR_ANOTHER] or refused
    topics = {each.at[0] for each in own}
    return RefusedError(
        text_of(own[0]),
        topics=topics,
        suspects=[each.write for each in own if isinstance(each.write, DeadLetter)],
        exact=len(own) < len(refused),
        whole_topic=all(each.error.code() in OF_THE_TOPIC for each in own),
    )


def where_of(at: Partition) -> str:
    """Name what failed."""
    return f"writing to {at[0]}[{at[1]}]"


def text_of(failure: Failure) -> str:
    """Return what is said of a failure: where, and the error."""
    return f"{where_of(failure.at)}: {failure.error.name()}: {failure.error.str()}"


def is_too_large(error: KafkaError) -> bool:
    """Whether the broker, or the client before it, refuses a record's or a batch's size."""
    return bool(error.code() == KafkaError.MSG_SIZE_TOO_LARGE)
