"""Brokers that go: one that is all there is, and nodes of three that lead and coordinate what the relays stand on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from consumer.kafka import clients
from consumer.kafka.topics.rules import COMPACTED, CONTROL, DEAD_LETTERS, TopicRules, outcomes_configuration
from consumer.kafka.topics.topics import RelayTopics
from tests.chaos.stage import EVENTS, Stage, StageFactory, looked_after
from tests.support.broker import KafkaBroker, started
from tests.support.cluster import KafkaCluster
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess
from tests.support.sandbox import Sandbox, SandboxFactory, control_topic

OPEN = 100  # events at the least, lest it run out of work
WHILE_AWAY = 30  # actions that are accepted while it is away
QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}


@pytest.fixture(scope="module")
def lone_broker() -> Iterator[KafkaBroker]:
    with started(KafkaBroker()) as broker:
        yield broker


@pytest.fixture(scope="module")
def cluster(lone_broker: KafkaBroker) -> Iterator[KafkaCluster]:
    """Where one broker can be had, three can."""
    with KafkaCluster() as cluster:
        yield cluster


def replicated(cluster: KafkaCluster, partitions: int) -> Sandbox:
    """Return a place whose topics have a copy on each node."""
    name = f"orders-{uuid4().hex[:8]}"
    topics = RelayTopics(name, f"{name}.engage.delay", f"{name}.engage.dead-letters", f"{name}.engage.outcomes")
    configurations = (COMPACTED, DEAD_LETTERS, outcomes_configuration(TopicRules()))
    for topic, config in ((topics.source, {}), *zip(topics.own, configurations, strict=True)):
        cluster.create_topic(topic, partitions, config)
    cluster.create_topic(control_topic(f"{name}-group"), 1, CONTROL)
    # The first that answers is asked on: a client that knew a frozen node would wait for it.
    properties = clients.base({"bootstrap.servers": cluster.bootstrap_servers, "reconnect.backoff.max.ms": 500})
    admin = AdminClient({**properties, "socket.timeout.ms": 5000}, logger=clients.LOGGER)
    return Sandbox({**properties, "group.id": f"{name}-group"}, topics, admin, partitions)


def standstill_s(stage: Stage, since: float) -> float:
    """Return the longest time between two acceptances, the earlier of them after `since`."""
    moments = [each.accepted_at for each in stage.engage.accepted if each.accepted_at >= since]
    return max((after - before for before, after in pairwise(sorted(moments))), default=0.0)


def is_stopped(relay: RelayProcess) -> bool:
    """Tell whether a fail point has stopped it (SIGSTOP)."""
    assert relay.running, relay.last_words
    return Path(f"/proc/{relay._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Show:
    """A stage on the cluster with two relays, and what is done to its nodes."""

    def __init__(self, cluster: KafkaCluster, stage: Stage) -> None:
        self.cluster = cluster
        self.stage = stage
        self.relays: dict[str, RelayProcess] = {}
        self.standstills: list[float] = []
        self.ended = 0

    def starts(self, name: str, fail_at: str = "") -> RelayProcess:
        """Start a relay, or another in its place."""
        self.relays[name] = self.stage.relay(name, static=True, fail_at=fail_at)
        return self.relays[name]

    def _continues(self, target: int) -> bool:
        for name, relay in self.relays.items():
            self.ended += looked_after(relay, partial(self.starts, name)) is not relay
        return self.stage.engage.accepted_count() >= target

    def continues(self, count: int) -> None:
        """Wait until so many more are accepted."""
        target = self.stage.engage.accepted_count() + count
        self.stage.wait_for(lambda: self._continues(target), f"{count} more actions are accepted")

    def goes(self, node: int, how: str, then: Callable[[], None] = lambda: None) -> None:
        """Have a node go, see the others carry on, have it come back and catch up."""
        since = time.time()
        with self.stage.fault():
            getattr(self.cluster, how)(node)
            then()
            self.continues(WHILE_AWAY)
            self.standstills.append(standstill_s(self.stage, since))
            self.cluster.thaw(node) if how == "freeze" else self.cluster.start(node)
            self.cluster.wait_until_in_sync()
        self.continues(10)

    def leaves_in_mid_transaction(self, relay: RelayProcess, node: Callable[[], int]) -> None:
        """Have a node be killed while this relay stands in the midst of a transaction."""
        self.stage.wait_for(lambda: is_stopped(relay), "it stops in mid-transaction")
        self.goes(node(), "kill", relay.thaw)


@pytest.mark.long
def test_no_node_is_missed_in_mid_transaction(
    cluster: KafkaCluster, stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    sandbox = replicated(cluster, partitions=6)
    stage = stages(sandbox=sandbox, rate_limit=100, kafka=QUICK)
    stage.keep_open = OPEN
    stage.publish(OPEN // len(EVENTS))
    show = Show(cluster, stage)
    group, source, delay = str(sandbox.properties["group.id"]), sandbox.topics.source, sandbox.topics.delay

    first = show.starts("relay-0", "before the commit:10:SIGSTOP")
    show.leaves_in_mid_transaction(first, lambda: cluster.transaction_coordinator(f"{group}-relay-0"))
    second = show.starts("relay-1", "before the commit:5:SIGSTOP")
    show.leaves_in_mid_transaction(second, lambda: cluster.group_coordinator(group))

    draw = random.Random(8)
    for _ in range(scale.of(0, 60)):
        choices = [
            cluster.transaction_coordinator(f"{group}-relay-{draw.randrange(2)}"),
            cluster.group_coordinator(group),
            cluster.leader(source, draw.randrange(6)),
            cluster.leader(delay, draw.randrange(6)),
        ]
        show.goes(draw.choice(choices), draw.choice(["stop", "kill", "freeze"]))

    # A session may end while its coordinator moves: then what was in flight there is in doubt.
    balance = stage.finish(kills=2 * len(show.standstills) + show.ended)
    figures(
        nodes_that_went=len(show.standstills),
        relays_that_ended=show.ended,
        longest_standstill_while_one_went=f"{max(show.standstills):.1f} s",
        **balance.figures(),
    )
    stage.stop_all()


@pytest.mark.long
def test_a_broker_that_is_gone_comes_back_to_all_that_was_pending(
    lone_broker: KafkaBroker, sandboxes: SandboxFactory, stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    stage = stages(sandbox=sandboxes(partitions=4, broker=lone_broker), kafka=QUICK)
    instances = 2
    for n in range(instances):
        stage.relay(f"relay-{n}")
    stage.keep_open = OPEN
    stage.publish(OPEN // len(EVENTS))
    absences = [("kill", scale.of(10, 60)), *([("stop", 0), ("kill", 0), ("kill", 3), ("stop", 20)] * scale.of(0, 4))]
    for how, seconds in absences:
        stage.until_accepted_more(20)
        with stage.fault():
            lone_broker.stop() if how == "stop" else lone_broker.kill()
            time.sleep(seconds)  # the fault itself
            lone_broker.start()
        stage.until_accepted_more(20)
    # Their sessions are over meanwhile: what was in flight when the broker went is in doubt.
    balance = stage.finish(kills=instances * len(absences))
    figures(absences=len(absences), seconds_gone=max(seconds for _, seconds in absences), **balance.figures())
    stage.stop_all()
