"""EDGE. What brokers say of topics: their partitions, their configuration, and what we may do with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
)

from consumer.kafka import clients
from consumer.kafka.topics.rules import (
    Entries,
)

CALL_TIMEOUT_S = 10.0
RIGHTS_TIMEOUT_S = 3.0
T = TypeVar("T")

_MAY_NOT_ASK = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


def partition_counts(admin: AdminClient, names: Iterable[str]) -> dict[str, int]:
    """Return the partition count of each topic that exists.

    Raises KafkaException where no broker answers, or it may not be asked for one of them.
    """
    counts, forbidden = counts_of_existing(admin, names)
    for error in forbidden.values():
        raise error
    return counts


def counts_of_existing(admin: AdminClient, names: Iterable[str]) -> tuple[dict[str, int], dict[str, KafkaException]]:
    """Return the existing topics' partition counts, and by topic that we may not ask."""
    # All topics at once: asked for one by name, list_topics makes it where the broker allows it
    # (auto.create.topics.enable). Describing says why one is not among them, but only the controller can be asked.
    listed = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    wanted = list(dict.fromkeys(names))
    counts = {name: len(listed[name].partitions) for name in wanted if name in listed and listed[name].partitions}
    forbidden: dict[str, KafkaException] = {}
    missing = [name for name in wanted if name not in counts]
    if not missing:
        return counts, forbidden
    described = admin.describe_topics(TopicCollection(missing), request_timeout=CALL_TIMEOUT_S)
    for name, future in described.items():
        try:
            counts[name] = len(answer_of(future, name).partitions)
        except KafkaException as error:
            code = clients.error_of(error).code()
            if code in _MAY_NOT_ASK:
                forbidden[name] = error
            elif code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return counts, forbidden


def copies(admin: AdminClient, names: Iterable[str]) -> tuple[dict[str, int], int]:
    """Return how many brokers have each of these topics, of its partition with the fewest; and how many brokers are up.

    Raises KafkaException.
    """
    cluster = admin.list_topics(timeout=CALL_TIMEOUT_S)
    partitions = {name: cluster.topics[name].partitions for name in names if name in cluster.topics}
    fewest = {name: min(len(each.replicas) for each in at.values()) for name, at in partitions.items() if at}
    return fewest, len(cluster.brokers)


def missing_rights(admin: AdminClient, needed: Mapping[str, Collection[AclOperation]]) -> list[str]:
    """Return what we may not do with these topics, a text for each (KIP-430). Raises KafkaException.

    A topic that we may describe may still be closed to our reads. Where the broker does not tell, nothing is missing.
    """
    described = admin.describe_topics(
        TopicCollection(list(needed)), include_authorized_operations=True, request_timeout=RIGHTS_TIMEOUT_S
    )
    missing = []
    for name, wanted in needed.items():
        granted = answer_of(described[name], name).authorized_operations
        if granted and (lacking := set(wanted) - set(granted)):
            missing.append(f"{' and '.join(sorted(each.name.title() for each in lacking))} {name}")
    return missing


def may_write(admin: AdminClient, name: str) -> bool:
    """Tell whether we may write a topic. Where the broker does not say, we may: a write says so later."""
    try:
        return not missing_rights(admin, {name: (AclOperation.WRITE,)})
    except KafkaException:  # librdkafka's mock cluster never answers this
        return True


def configurations(admin: AdminClient, names: Iterable[str]) -> dict[str, Entries]:
    """Return the topics' configurations, without those that may not or cannot be asked for (a right of its own)."""
    cluster = admin.list_topics(timeout=CALL_TIMEOUT_S)
    if cluster.controller_id >= 0 and cluster.controller_id not in cluster.brokers:
        return {}  # librdkafka asks the controller and nobody else; here it is none of the brokers
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, Entries] = {}
    if not resources:
        return found
    for resource, future in admin.describe_configs(resources, request_timeout=CALL_TIMEOUT_S).items():
        try:
            found[resource.name] = {name: entry.value for name, entry in answer_of(future, resource.name).items()}
        except KafkaException as error:
            if clients.error_of(error).code() not in _MAY_NOT_ASK:
                raise
    return found


def answer_of(future: Future[T], what: str) -> T:
    """Return the answer. Raises KafkaException that names `what`: librdkafka's text doesn't."""
    try:
        return future.result(2 * CALL_TIMEOUT_S)
    except KafkaException as error:
        raise clients.exception(clients.error_of(error), what) from None
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{what}: no answer")) from None
