"""A delay partition whose only copy is lost, with the broker that had it: the other partitions go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from consumer.kafka.topics.rules import COMPACTED
from tests.chaos.test_broker_faults import replicated
from tests.support.cluster import KafkaCluster
from tests.support.engage import Engage
from tests.support.events import Raw, event, order_id, publish_raw
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.waiting import until

PARTITIONS = 3
SERVED_WITHIN_S = 45.0


@pytest.fixture
def cluster(scale: Scale) -> Iterator[KafkaCluster]:
    if scale is Scale.SHORT:
        pytest.skip("three brokers: see --long")
    with KafkaCluster() as cluster:
        yield cluster


def test_a_delay_partition_that_is_lost_stops_no_other_one(
    cluster: KafkaCluster, tmp_path: Path, figures: Figures
) -> None:
    """Its transaction cannot be ended: the broker keeps the transactional.id for as long as the partition is away."""
    sandbox = replicated(cluster, PARTITIONS)
    sandbox.admin.delete_topics([sandbox.topics.delay])[sandbox.topics.delay].result(30)
    copies = [[node] for node in cluster.nodes]
    new = NewTopic(sandbox.topics.delay, PARTITIONS, replica_assignment=copies, config=dict(COMPACTED))
    until(lambda: sandbox.topics.delay not in cluster.admin.list_topics(timeout=5).topics, "the topic is gone")
    cluster.admin.create_topics([new])[sandbox.topics.delay].result(30)
    cluster.wait_until_in_sync(sandbox.topics.delay)

    with Engage() as engage:
        file = written(tmp_path, configuration(sandbox, engage.url))
        with RelayProcess(tmp_path, file, "--from", "earliest") as relay:
            relay.wait_until_ready().wait_until_owning(PARTITIONS)
            sent = 0

            def publish(partition: int) -> str:
                nonlocal sent
                sent += 1
                order = order_id(sent)
                engage.submit(order)
                publish_raw(sandbox, [Raw(order.encode(), event(order))], partition=partition)
                return order

            first = [publish(n) for n in range(PARTITIONS)]
            until(lambda: all(engage.events_of(order) == [1] for order in first), "all are served")
            cluster.kill(2)
            orders = [publish(n) for n in range(PARTITIONS) for _ in range(5)]
            others = [order for n, order in enumerate(orders) if n // 5 != 1]
            killed_at = time.monotonic()
            until(lambda: all(engage.events_of(order) for order in others), "the others are served", SERVED_WITHIN_S)
            served_s = time.monotonic() - killed_at
            until(lambda: relay.said("partition set apart: it cannot be served, the others go on"), "it is named", 60)
            more = [publish(n) for n in (0, 2)]
            at = time.monotonic()
            until(lambda: all(engage.events_of(order) == [1] for order in more), "the others go on")
            figures(the_others_served_after_s=round(served_s, 1), later_ones_after_s=round(time.monotonic() - at, 1))
            assert relay.running
            cluster.start(2)
            until(lambda: all(engage.events_of(order) for order in orders), "it is served, too", 120)
