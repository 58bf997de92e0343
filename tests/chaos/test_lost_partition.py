"""Delay partitions whose only copy is lost, with the broker that had it: the other partitions go on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
from tests.support.sandbox import Sandbox
from tests.support.waiting import until

PARTITIONS = 3
SERVED_WITHIN_S = 45.0
MANY = 9
SET_APART = "partition set apart: it cannot be served, the others go on"
AGAIN = "partition served again"
STOOD_STILL_S = 1.0  # ten times what a quiet relay may take


@pytest.fixture
def cluster(scale: Scale) -> Iterator[KafkaCluster]:
    if scale is Scale.SHORT:
        pytest.skip("three brokers: see --long")
    with KafkaCluster() as cluster:
        yield cluster


def without_replicas(cluster: KafkaCluster, partitions: int) -> Sandbox:
    """Return a place whose delay partitions have one copy each, on one node after the other."""
    sandbox = replicated(cluster, partitions)
    sandbox.admin.delete_topics([sandbox.topics.delay])[sandbox.topics.delay].result(30)
    copies = list(itertools.islice(itertools.cycle([node] for node in cluster.nodes), partitions))
    new = NewTopic(sandbox.topics.delay, partitions, replica_assignment=copies, config=dict(COMPACTED))
    until(lambda: sandbox.topics.delay not in cluster.admin.list_topics(timeout=5).topics, "the topic is gone")
    cluster.admin.create_topics([new])[sandbox.topics.delay].result(30)
    cluster.wait_until_in_sync(sandbox.topics.delay)
    return sandbox


class Shop:
    """Publishes one event each of new orders."""

    def __init__(self, sandbox: Sandbox, engage: Engage) -> None:
        self._sandbox = sandbox
        self._engage = engage
        self._sent = 0

    def publish(self, partition: int) -> str:
        """Return the order."""
        self._sent += 1
        order = order_id(self._sent)
        self._engage.submit(order)
        publish_raw(self._sandbox, [Raw(order.encode(), event(order))], partition=partition)
        return order

    def are_served(self, orders: Sequence[str]) -> bool:
        return all(self._engage.events_of(order) for order in orders)


@contextmanager
def served(cluster: KafkaCluster, partitions: int, directory: Path) -> Iterator[tuple[Engage, RelayProcess, Shop]]:
    """Have a relay that has served an order of each partition, of topics without copies."""
    sandbox = without_replicas(cluster, partitions)
    with Engage() as engage:
        file = written(directory, configuration(sandbox, engage.url))
        with RelayProcess(directory, file, "--from", "earliest") as relay:
            relay.wait_until_ready().wait_until_owning(partitions)
            shop = Shop(sandbox, engage)
            first = [shop.publish(n) for n in range(partitions)]
            until(lambda: all(engage.events_of(order) == [1] for order in first), "all are served")
            yield engage, relay, shop


@pytest.mark.long
def test_a_delay_partition_that_is_lost_stops_no_other_one(
    cluster: KafkaCluster, tmp_path: Path, figures: Figures
) -> None:
    """Its transaction cannot be ended: the broker keeps the transactional.id for as long as the partition is away."""
    with served(cluster, PARTITIONS, tmp_path) as (engage, relay, shop):
        cluster.kill(2)
        orders = [shop.publish(n) for n in range(PARTITIONS) for _ in range(5)]
        others = [order for n, order in enumerate(orders) if n // 5 != 1]
        killed_at = time.monotonic()
        until(lambda: shop.are_served(others), "the others are served", SERVED_WITHIN_S)
        served_s = time.monotonic() - killed_at
        until(lambda: relay.said(SET_APART), "it is named", 60)
        more = [shop.publish(n) for n in (0, 2)]
        at = time.monotonic()
        until(lambda: all(engage.events_of(order) == [1] for order in more), "the others go on")
        figures(the_others_served_after_s=round(served_s, 1), later_ones_after_s=round(time.monotonic() - at, 1))
        assert relay.running
        cluster.start(2)
        until(lambda: shop.are_served(orders), "it is served, too", 120)


@pytest.mark.long
def test_of_several_delay_partitions_that_are_lost_the_others_stand_still_once(
    cluster: KafkaCluster, tmp_path: Path, figures: Figures
) -> None:
    """An order comes to the next lost partition when the one before is set apart: none is known by the others' writes.

    What an order waits for counts from its publication, and a second within another's wait counts once.
    """
    lost, others = [1, 4, 7], itertools.cycle([0, 2, 3, 5, 6, 8])
    with served(cluster, MANY, tmp_path) as (engage, relay, shop):
        cluster.kill(cluster.nodes[lost[0] % len(cluster.nodes)])
        apart: set[object] = set()
        waiting, standstills = [shop.publish(lost[0])], []
        while not apart.issuperset(lost):
            at = time.monotonic()
            order = shop.publish(next(others))
            until(partial(engage.events_of, order), "another one is served", SERVED_WITHIN_S)
            if (took_s := time.monotonic() - at) > STOOD_STILL_S:
                standstills.append(round(took_s, 1))
            apart = {each["partition"] for each in relay.said(SET_APART)}
            if len(waiting) < len(lost) and apart.issuperset(lost[: len(waiting)]):
                waiting.append(shop.publish(lost[len(waiting)]))
        figures(lost=len(lost), of=MANY, the_others_stood_still_s=standstills)
        assert max(standstills) < 20
        assert sum(standstills) < 30
        cluster.start(cluster.nodes[lost[0] % len(cluster.nodes)])
        until(lambda: shop.are_served(waiting), "they are served, too", 120)
        until(lambda: {each["partition"] for each in relay.said(AGAIN)} == {*lost}, "that is said")
