"""EDGE. Where the source's partitions end, asked of the brokers at intervals.

The consumer learns a partition's end with what it fetches. One that fetches nothing (it is paused, or something is
broken) never learns that the source grows, and would report no lag for ever.

Rules:
 1. A look never makes the consumer's thread wait.
 2. Two ends are asked for: the high watermark, and the last stable offset. Between them lie the records of
    transactions that have not ended, which nobody may read yet.
 3. One question at a time, first for the high watermark: what lay there by then and is not stable at the second
    question is held. Two at once may end the process by a segmentation fault: librdkafka looks for the leaders on the
    caller's thread, and where the metadata come meanwhile that the first one asked for, its main thread ends the second
    one under the caller's hands (`rd_kafka_topic_partition_list_query_leaders_async`, 2.16.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec

from consumer.core.ownership import Partition
from consumer.kafka import clients

ASK_INTERVAL_S = 10.0
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Ends:
    """A partition's high watermark and its last stable offset."""

    high: int
    stable: int


_Answers = Mapping[TopicPartition, "Future[ListOffsetsResultInfo]"]


class EndWatch:
    """Asks every ASK_INTERVAL_S. For one thread."""

    def __init__(self, properties: clients.Properties) -> None:
        self._admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
        self._asked_at = 0.0
        self._high: _Answers = {}
        self._stable: _Answers = {}
        self.known: Mapping[Partition, Ends] = {}

    def look(self, partitions: Iterable[Partition], now: float) -> None:
        """Take in what was answered, and ask again where it is time. `now` is monotonic seconds."""
        if not all(each.done() for each in (*self._high.values(), *self._stable.values())):
            return
        if self._high and not self._stable:
            self._stable = self._ask(self._high, IsolationLevel.READ_COMMITTED)
            return
        if self._stable:
            found = {(at.topic, at.partition): _ends(high, self._stable[at]) for at, high in self._high.items()}
            self.known = {at: ends for at, ends in {**self.known, **found}.items() if ends is not None}
            self._high = self._stable = {}
        wanted = [TopicPartition(*at) for at in partitions]
        if wanted and now - self._asked_at >= ASK_INTERVAL_S:
            self._asked_at = now
            self._high = self._ask(wanted, IsolationLevel.READ_UNCOMMITTED)

    def _ask(self, partitions: Iterable[TopicPartition], level: IsolationLevel) -> _Answers:
        wanted = dict.fromkeys(partitions, OffsetSpec.latest())
        return self._admin.list_offsets(wanted, isolation_level=level, request_timeout=REQUEST_TIMEOUT_S)


def _ends(high: Future[ListOffsetsResultInfo], stable: Future[ListOffsetsResultInfo]) -> Ends | None:
    try:
        return Ends(high.result().offset, stable.result().offset)
    except KafkaException:  # the broker does not answer, or the right to describe the topic is missing
        return None
