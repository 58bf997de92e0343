"""EDGE. The topics that the relay needs: made, checked, and where the source starts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    ListOffsetsResultInfo,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from consumer.errors import TopicError
from consumer.kafka import clients

CALL_TIMEOUT_S = 10.0
LIST_OFFSETS_TIMEOUT_S = 4.0  # twice in a row: while a partition has no leader it is waited for to the end
VISIBLE_RETRY_S = 0.05
COMPACTED = {
    "cleanup.policy": "compact",
    # Tombstones stay readable for a day: a reader that started before one must still see it.
    "delete.retention.ms": str(24 * 3600 * 1000),
    # A pending record is its event plus the routed action; the broker's default limit is 1 MiB.
    "max.message.bytes": str(8 * 1024 * 1024),
    "segment.ms": str(3600 * 1000),
}
DEAD_LETTERS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",  # a dead letter goes when a person says so
    "retention.bytes": "-1",
    "max.message.bytes": str(8 * 1024 * 1024),
    # Dead letters keep the source's timestamp, whatever it is.
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": str(2**63 - 1),
}

T = TypeVar("T")
Watermarks = tuple[int, int]

_MAY_NOT_ASK = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


@dataclass(frozen=True, slots=True)
class RelayTopics:
    """A source topic and the two that belong to it."""

    source: str
    delay: str
    dead_letters: str


def partition_counts(admin: AdminClient, names: Iterable[str]) -> dict[str, int]:
    """Return the partition count of each topic that exists.

    Raises KafkaException where no broker answers, or it may not be asked for one of them.
    """
    counts, forbidden = _counts(admin, names)
    if forbidden:
        raise forbidden[0]
    return counts


def check(admin: AdminClient, topics: Iterable[RelayTopics]) -> None:
    """Raise TopicError where a topic is missing, has another partition count, or is not compacted."""
    errors: list[str] = []
    for each in topics:
        counts = _counts_of(admin, each, errors)
        if counts is None:
            continue
        wanted = counts[each.source]
        for name in (each.delay, each.dead_letters):
            if name not in counts:
                errors.append(f"topic {name} does not exist")
            elif counts[name] != wanted:
                errors.append(f"topic {name} has {counts[name]} partitions, its source {each.source} has {wanted}")
        if each.delay in counts:
            policy = _cleanup_policy(admin, each.delay)
            if policy is not None and policy != "compact":
                errors.append(f"topic {each.delay} has cleanup.policy={policy}: it would lose pending actions")
    if errors:
        raise TopicError("\n".join(errors))


def create(admin: AdminClient, topics: Iterable[RelayTopics], replication: int = -1) -> list[str]:
    """Make what is missing, with the source's partition count; add partitions where the source has more.

    Returns what was done, a line each. Raises TopicError for what cannot be made.
    """
    done: list[str] = []
    errors: list[str] = []
    made: dict[str, int] = {}
    for each in topics:
        counts = _counts_of(admin, each, errors)
        if counts is None:
            continue
        wanted = counts[each.source]
        for name, config in ((each.delay, COMPACTED), (each.dead_letters, DEAD_LETTERS)):
            try:
                if name not in counts:
                    new = NewTopic(name, wanted, replication, config=config)
                    _wait(admin.create_topics([new], operation_timeout=CALL_TIMEOUT_S)[name], name)
                    made[name] = wanted
                    done.append(f"created {name} with {wanted} partitions, cleanup.policy={config['cleanup.policy']}")
                elif counts[name] < wanted:
                    _grow(admin, name, wanted)
                    made[name] = wanted
                    done.append(f"grew {name} from {counts[name]} to {wanted} partitions")
            except KafkaException as error:
                if clients.error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    errors.append(clients.error_of(error).str())
    if errors:
        raise TopicError("\n".join(errors))
    _await_visible(admin, made)
    return done


def watermarks(admin: AdminClient, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Watermarks]:
    """Return each partition's first offset and its high watermark, open transactions included (read-uncommitted).

    Raises KafkaException where the broker does not answer, or a partition does not exist or has no leader.
    """
    asked = [TopicPartition(topic, partition) for topic, partition in partitions]
    if not asked:
        return {}
    # list_offsets asks the leaders that it remembers: after a failover it fails until somebody else renews them.
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
    offset = _wait(answer, what).offset
    if offset < 0:  # librdkafka answers so, without an error, while a partition changes its leader
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, f"{what}: its leader is not known"))
    return offset


def committed_offsets(
    reader: Consumer, partitions: Iterable[tuple[str, int]], marks: Iterable[tuple[str, int]] = ()
) -> dict[tuple[str, int], int]:
    """Return the group's settled offsets, absent ones left out.

    `marks` are delay partitions: their low-water mark counts only with the metadata that a relay gives it. A tool that
    moves all offsets of a group (`kafka-consumer-groups.sh --all-topics`) would else hide what is pending.

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


def _counts_of(admin: AdminClient, topics: RelayTopics, errors: list[str]) -> dict[str, int] | None:
    """Return the partition counts of those that exist; None, and the mistake, where nothing can be said of them."""
    counts, forbidden = _counts(admin, (topics.source, topics.delay, topics.dead_letters))
    if forbidden:
        errors += [clients.error_of(error).str() for error in forbidden]
    elif topics.source not in counts:
        errors.append(f"source topic {topics.source} does not exist")
    else:
        return counts
    return None


def _counts(admin: AdminClient, names: Iterable[str]) -> tuple[dict[str, int], list[KafkaException]]:
    """Return the existing topics' partition counts, and what we may not ask."""
    # All topics at once: asked for one by name, list_topics makes it where the broker allows it
    # (auto.create.topics.enable). Describing says why one is not among them, but only the controller can be asked.
    listed = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    wanted = list(dict.fromkeys(names))
    counts = {name: len(listed[name].partitions) for name in wanted if name in listed and listed[name].partitions}
    forbidden: list[KafkaException] = []
    missing = [name for name in wanted if name not in counts]
    if not missing:
        return counts, forbidden
    described = admin.describe_topics(TopicCollection(missing), request_timeout=CALL_TIMEOUT_S)
    for name, future in described.items():
        try:
            counts[name] = len(_wait(future, name).partitions)
        except KafkaException as error:
            code = clients.error_of(error).code()
            if code in _MAY_NOT_ASK:
                forbidden.append(error)
            elif code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return counts, forbidden


def _await_visible(admin: AdminClient, made: dict[str, int]) -> None:
    """Wait until the brokers' metadata show what was made: who asks right after it would not find it."""
    give_up_at = time.monotonic() + CALL_TIMEOUT_S
    while made and partition_counts(admin, made) != made and time.monotonic() < give_up_at:
        time.sleep(VISIBLE_RETRY_S)


def _cleanup_policy(admin: AdminClient, topic: str) -> str | None:
    """Return the topic's cleanup.policy; None where it may not or cannot be asked for (a right of its own)."""
    cluster = admin.list_topics(timeout=CALL_TIMEOUT_S)
    if cluster.controller_id >= 0 and cluster.controller_id not in cluster.brokers:
        return None  # librdkafka asks the controller and nobody else; here it is none of the brokers
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries = _wait(admin.describe_configs([resource], request_timeout=CALL_TIMEOUT_S)[resource], topic)
    except KafkaException as error:
        if clients.error_of(error).code() in _MAY_NOT_ASK:
            return None
        raise
    policy = entries["cleanup.policy"].value
    return None if policy is None else str(policy)


def _grow(admin: AdminClient, topic: str, partitions: int) -> None:
    _wait(admin.create_partitions([NewPartitions(topic, partitions)], operation_timeout=CALL_TIMEOUT_S)[topic], topic)


def _wait(future: Future[T], what: str) -> T:
    """Return the answer. Raises KafkaException that names `what`: librdkafka's text doesn't."""
    try:
        return future.result(2 * CALL_TIMEOUT_S)
    except KafkaException as error:
        raise clients.exception(clients.error_of(error), what) from None
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{what}: no answer")) from None
