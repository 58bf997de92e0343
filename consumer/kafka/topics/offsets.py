"""EDGE. Where partitions begin and end, and which offsets the group has settled."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
)

from consumer.kafka import clients
from consumer.kafka.topics.asking import CALL_TIMEOUT_S, answer_of, partition_counts

LIST_OFFSETS_TIMEOUT_S = 4.0  # for each of two calls; while a partition has no leader, a call waits all of it
Watermarks = tuple[int, int]


def watermarks(admin: AdminClient, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Watermarks]:
    """Return each partition's first offset and its high watermark, open transactions included (read-uncommitted).

    Raises KafkaException where the broker does not answer, or a partition does not exist or has no leader.
    """
    asked = [TopicPartition(topic, partition) for topic, partition in partitions]
    if not asked:
        return {}
    # list_offsets asks the leaders that it remembers. After a failover it fails until another call renews them.
    partition_counts(admin, {tp.topic for tp in asked})
    ends = []
    for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
        futures = admin.list_offsets(
            dict.fromkeys(asked, spec),
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=LIST_OFFSETS_TIMEOUT_S,
        )
        ends.append({(tp.topic, tp.partition): _offset(tp, future) for tp, future in futures.items()})
    return {tp: (low, ends[1][tp]) for tp, low in ends[0].items()}


def _offset(at: TopicPartition, answer: Future[ListOffsetsResultInfo]) -> int:
    what = f"{at.topic}[{at.partition}]"
    offset = answer_of(answer, what).offset
    if offset < 0:  # librdkafka answers so, without an error, while a partition changes its leader
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, f"{what}: its leader is not known"))
    return offset


def committed_offsets(
    reader: Consumer, partitions: Iterable[tuple[str, int]], marks: Iterable[tuple[str, int]] = ()
) -> dict[tuple[str, int], int]:
    """Return the group's settled offsets, absent ones left out.

    `marks` are delay partitions. Their low-water mark counts only with the metadata that a relay writes with it.
    Otherwise a tool that moves all offsets of a group (`kafka-consumer-groups.sh --all-topics`) would hide what is
    pending.

    `reader` is read_committed: it waits for a transaction that has sent its offsets and not ended. Raises
    KafkaException when that takes longer than CALL_TIMEOUT_S.
    """
    marks = set(marks)
    answered = reader.committed([TopicPartition(*each) for each in (*partitions, *marks)], CALL_TIMEOUT_S)
    for each in answered:
        if each.error is not None:
            raise clients.exception(each.error, f"{each.topic}[{each.partition}]")
    return {
        (each.topic, each.partition): each.offset
        for each in answered
        if each.offset >= 0 and (each.metadata or (each.topic, each.partition) not in marks)
    }
