"""The test cluster does what the tests that stand on it take for granted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from confluent_kafka import KafkaException, Producer

from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.rules import COMPACTED, DEAD_LETTERS, TopicRules
from consumer.kafka.topics.topics import RelayTopics, check, create
from tests.support.cluster import TRANSACTIONS, KafkaCluster, partition_of
from tests.support.downloads import needed
from tests.support.waiting import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    cluster = KafkaCluster()
    needed("Kafka cluster", cluster.start)
    with cluster:
        yield cluster


@pytest.mark.parametrize(
    ("name", "partition"),
    [("hello", 99162322 % 50), ("engage-relay", 2021926181 % 50), ("polygenelubricants", 0), ("", 0)],
    ids=["ordinary", "positive", "the least hash", "empty"],
)
def test_a_name_lies_in_the_partition_that_kafka_gives_it(name: str, partition: int) -> None:
    assert partition_of(name, 50) == partition


def _written(cluster: KafkaCluster) -> dict[int, int]:
    partitions = [(TRANSACTIONS, n) for n in cluster.admin.list_topics(timeout=10).topics[TRANSACTIONS].partitions]
    return {n: high for (_, n), (_, high) in watermarks(cluster.admin, partitions).items()}


def test_a_transactional_id_has_the_coordinator_that_is_named(cluster: KafkaCluster) -> None:
    before = _written(cluster)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": "somebody"})
    producer.init_transactions(30)

    after = _written(cluster)
    (partition,) = [n for n, end in after.items() if end > before[n]]
    assert partition == partition_of("somebody", len(after))
    assert cluster.transaction_coordinator("somebody") == cluster.leader(TRANSACTIONS, partition)


def holds_both(cluster: KafkaCluster, topic: str) -> bool:
    """Tell whether two records are there; a leader that has just changed does not answer at first."""
    try:
        return watermarks(cluster.admin, [(topic, 0)])[topic, 0] == (0, 2)
    except KafkaException:
        return False


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_node_that_goes_loses_nothing_and_its_partitions_get_another_leader(cluster: KafkaCluster, how: str) -> None:
    topic = f"kept-{how}"
    cluster.create_topic(topic, partitions=1)
    first = cluster.leader(topic, 0)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "acks": "all"})

    producer.produce(topic, b"before", partition=0)
    assert producer.flush(30) == 0
    cluster.stop(first) if how == "stop" else cluster.kill(first)
    producer.produce(topic, b"meanwhile", partition=0)
    assert producer.flush(30) == 0
    assert cluster.leader(topic, 0) != first

    cluster.start(first)
    cluster.elect_preferred(topic)
    assert cluster.leader(topic, 0) == first
    until(partial(holds_both, cluster, topic), "both records are there")


def test_a_node_that_froze_finds_out_that_it_leads_no_more(cluster: KafkaCluster) -> None:
    cluster.create_topic("frozen", partitions=1)
    first = cluster.leader("frozen", 0)

    cluster.freeze(first)
    assert cluster.leader("frozen", 0) != first

    cluster.thaw(first)
    cluster.wait_until_in_sync("frozen")
    assert cluster.leader("frozen", 0) != first


def test_topics_that_a_lost_node_would_take_with_it_are_told_of(cluster: KafkaCluster) -> None:
    """Not one of the test cluster's own doings, but only a cluster has topics with copies."""
    orders = RelayTopics("orders", "orders.engage.delay", "orders.engage.dead-letters", "orders.engage.outcomes")
    cluster.create_topic(orders.source, partitions=2, config={"min.insync.replicas": "1"})  # its owner's to decide
    cluster.create_topic(orders.delay, 2, {**COMPACTED, "min.insync.replicas": "2"})
    cluster.create_topic(orders.dead_letters, 2, {**DEAD_LETTERS, "min.insync.replicas": "1"})
    rules = TopicRules()
    create(cluster.admin, [orders], replication=1, rules=rules)

    assert check(cluster.admin, [orders], rules) == [
        f"topic {orders.dead_letters} has min.insync.replicas=1: what one broker has is acknowledged, and lost with "
        "it; set 2",
        f"topic {orders.outcomes} has one copy, on one of 3 brokers: what the relay keeps there is lost with that "
        "broker (docs/guarantees.md, what it depends on)",
    ]
