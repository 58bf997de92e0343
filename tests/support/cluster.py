"""Three Kafka brokers on this machine, for the faults that one cannot have: a leader or a coordinator that is lost.

    with KafkaCluster() as cluster:
        cluster.kill(cluster.leader("orders", 0))

Each is broker and controller at once (KRaft). So any one of them may be killed, frozen or stopped: the other two
continue.

Rules:
 1. Ready means that all nodes know each other and that the group's and the transactions' topics exist: those are made
    when they are first asked for, with a copy on each node, which fails while one is away.
 2. Everything has three copies, two of which must be in sync (min.insync.replicas).
 3. Where something is led is asked of the cluster; which partition holds it follows from Kafka's own hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar

from confluent_kafka import Consumer, ElectionType, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, PartitionMetadata
from confluent_kafka.cimpl import NewTopic

from consumer.kafka import clients
from tests.support.broker import (
    START_ATTEMPTS,
    START_TIMEOUT_S,
    BrokerUnavailableError,
    KafkaBroker,
    Seat,
    free_ports,
    new_cluster_id,
)
from tests.support.waiting import PATIENCE_S, until

GROUPS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"
COPIES = 3
T = TypeVar("T")

JVM = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")

PROPERTIES: Mapping[str, str] = {
    "default.replication.factor": str(COPIES),
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": str(COPIES),
    "transaction.state.log.replication.factor": str(COPIES),
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": str(COPIES),
    "share.coordinator.state.topic.min.isr": "2",
    # A node that is lost is found out within two seconds, a controller as well; production takes some ten.
    "broker.session.timeout.ms": "2000",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "500",
    "replica.lag.time.max.ms": "2000",
    # Who leads is the test's to say: see `elect_preferred`.
    "auto.leader.rebalance.enable": "false",
}


def partition_of(name: str, partitions: int) -> int:
    """Say which partition of GROUPS or TRANSACTIONS a group's or transactional id lies in.

    Kafka's rule: the absolute value of Java's String.hashCode (0 of the least one), modulo their number.
    """
    number = 0
    for character in name:  # ASCII, as these names are
        number = (31 * number + ord(character)) & 0xFFFFFFFF
    return min(number, (1 << 32) - number) % (1 << 31) % partitions


class KafkaCluster:
    """Nodes 1 to 3. What ends a node keeps its data; `close()` ends all of them and removes everything."""

    def __init__(self, properties: Mapping[str, str] | None = None, *, version: str | None = None) -> None:
        self._properties = {**PROPERTIES, **(properties or {})}
        self._version = version
        self._brokers: dict[int, KafkaBroker] = {}
        self._client: AdminClient | None = None
        self._away: set[int] = set()  # nodes that do not run, or do not answer

    @property
    def nodes(self) -> list[int]:
        """The nodes' ids."""
        return list(self._brokers)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to: all of them."""
        return ",".join(broker.bootstrap_servers for broker in self._brokers.values())

    @property
    def admin(self) -> AdminClient:
        """A client of the nodes that are there: one that knew a frozen one might keep asking it."""
        if self._client is None:
            there = [broker.bootstrap_servers for node, broker in self._brokers.items() if node not in self._away]
            self._client = AdminClient(
                {"bootstrap.servers": ",".join(there), "reconnect.backoff.max.ms": 500, "socket.timeout.ms": 5000},
                logger=clients.LOGGER,
            )
        return self._client

    def _went(self, *nodes: int) -> None:
        self._away.update(nodes)
        self._client = None

    def _came(self, *nodes: int) -> None:
        self._away.difference_update(nodes)
        self._client = None

    def log(self, node: int) -> str:
        """Return what a node has written so far."""
        return self._brokers[node].log

    # -- nodes --------------------------------------------------------------------------------------------------

    def start(self, node: int | None = None) -> None:
        """Start a node again, or (None) all that do not run; returns when they answer, in sync or not.

        Raises BrokerUnavailableError.
        """
        if not self._brokers:
            self._start_again()
            return
        wanted = [node] if node is not None else sorted(self._away)
        self._launch(wanted)
        self._came(*wanted)
        self._await_agreement()

    def stop(self, node: int) -> None:
        """Stop a node as an operator does: it hands its leaderships over first."""
        self._went(node)
        self._brokers[node].stop()

    def kill(self, *nodes: int) -> None:
        """Stop nodes as a power cut does."""
        self._went(*nodes)
        for node in nodes:
            self._brokers[node].kill()

    def freeze(self, node: int) -> None:
        """Let a node stand still (SIGSTOP): its connections stay open, nobody answers on them."""
        self._went(node)
        self._brokers[node].freeze()

    def thaw(self, node: int) -> None:
        """Let it continue; returns when it knows what became of its partitions meanwhile."""
        self._brokers[node].thaw()

        self._came(node)
        self._await_agreement()

    def close(self) -> None:
        """End all of them at once and remove their data."""
        self._client = None
        for broker in self._brokers.values():
            broker.close()
        self._brokers = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_again(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self._brokers = dict(self._seated())
            try:
                self._launch(self.nodes)
                self._await_agreement()
                self._make_internal_topics()
            except BrokerUnavailableError as error:
                self.close()
                if attempt == START_ATTEMPTS or "already in use" not in str(error):
                    raise
            except BaseException:
                self.close()
                raise
            else:
                return

    def _seated(self) -> Iterable[tuple[int, KafkaBroker]]:
        nodes = range(1, COPIES + 1)
        ports = free_ports(tuple(f"{name} {node}" for node in nodes for name in ("PLAINTEXT", "CONTROLLER")))
        voters = ",".join(f"{node}@127.0.0.1:{ports[f'CONTROLLER {node}']}" for node in nodes)
        cluster_id = new_cluster_id()
        for node in nodes:
            own = {name: ports[f"{name} {node}"] for name in ("PLAINTEXT", "CONTROLLER")}
            seat = Seat(node, own, cluster_id, voters)
            yield node, KafkaBroker(self._properties, jvm=JVM, version=self._version, seat=seat)

    def _launch(self, nodes: Iterable[int]) -> None:
        # Side by side: the first one answers when two are up.
        with ThreadPoolExecutor(COPIES) as pool:
            for started in [pool.submit(self._brokers[node].start) for node in nodes]:
                started.result(2 * START_TIMEOUT_S)

    def _make_internal_topics(self) -> None:
        """Rule 1: asking for a coordinator makes them."""
        # Not the admin client's list_consumer_group_offsets: it crashes where the coordinator moves (librdkafka 2.16).
        own = {"bootstrap.servers": self.bootstrap_servers}
        reader = Consumer({**own, "group.id": "nobody"}, logger=clients.LOGGER)
        self._await(lambda: reader.committed([TopicPartition("nothing", 0)], 5), "groups have coordinators")
        reader.close()
        producer = Producer({**own, "transactional.id": "nobody"}, logger=clients.LOGGER)
        producer.init_transactions(PATIENCE_S)
        self.wait_until_in_sync(GROUPS, TRANSACTIONS)

    def _await_agreement(self) -> None:
        """Wait until every node that is there knows the others, and they agree on who leads what."""
        there = {node: broker.bootstrap_servers for node, broker in self._brokers.items() if node not in self._away}
        admins = [AdminClient({"bootstrap.servers": address}, logger=clients.LOGGER) for address in there.values()]

        def agree() -> bool:
            views = [admin.list_topics(timeout=2) for admin in admins]
            return all(view.brokers.keys() >= there.keys() and _led(view) == _led(views[0]) for view in views)

        self._await(agree, "the nodes agree")

    def _await(self, condition: Callable[[], T], what: str) -> T:
        """Wait until it returns something true; no answer counts as not yet."""

        def answered() -> T | None:
            with suppress(KafkaException):
                return condition()
            return None

        try:
            answer = until(answered, what)
        except AssertionError as error:
            raise BrokerUnavailableError(str(error)) from error
        assert answer is not None
        return answer

    # -- topics -------------------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Make a topic with three copies of each partition; the preferred leaders go round the nodes."""
        nodes = self.nodes
        copies = [[nodes[(n + k) % COPIES] for k in range(COPIES)] for n in range(partitions)]
        new = NewTopic(name, partitions, replica_assignment=copies, config=dict(config or {}))
        try:
            self.admin.create_topics([new])[name].result(PATIENCE_S)
        except KafkaException as error:  # the client asks again where the answer takes its time
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        self.wait_until_in_sync(name)

    def leader(self, topic: str, partition: int) -> int:
        """Return the node that leads a partition, awaited while that is none, or one that is away."""
        return self._await(lambda: self._led_by(topic, partition), f"{topic}[{partition}] has a leader")

    def group_coordinator(self, group: str) -> int:
        """Return the node that coordinates a group."""
        return self.leader(GROUPS, partition_of(group, len(self._partitions(GROUPS))))

    def transaction_coordinator(self, transactional_id: str) -> int:
        """Return the node that coordinates a transactional id."""
        return self.leader(TRANSACTIONS, partition_of(transactional_id, len(self._partitions(TRANSACTIONS))))

    def elect_preferred(self, *topics: str) -> None:
        """Give each partition (no topics given: of all) back to the first of its copies; returns when they have it."""
        self.wait_until_in_sync(*topics)
        # A partition that is led as preferred answers ELECTION_NOT_NEEDED: nothing to look at.
        some = [TopicPartition(topic, n) for topic in topics for n in self._partitions(topic)]
        self.admin.elect_leaders(ElectionType.PREFERRED, some or None).result(PATIENCE_S)

        def preferred() -> bool:
            known = self.admin.list_topics(timeout=2).topics
            return all(p.leader == p.replicas[0] for name in topics or known for p in known[name].partitions.values())

        self._await(preferred, "the preferred leaders lead")
        self._await_agreement()

    def wait_until_in_sync(self, *topics: str) -> None:
        """Wait until every copy of every partition (none given: of all topics) is in sync."""

        def in_sync() -> bool:
            known = self.admin.list_topics(timeout=2).topics
            wanted = topics or tuple(known)
            if not all(name in known and known[name].partitions for name in wanted):
                return False
            partitions = [p for name in wanted for p in known[name].partitions.values()]
            return all(p.leader > 0 and len(p.isrs) == len(p.replicas) for p in partitions)

        self._await(in_sync, "every copy is in sync")

    def _led_by(self, topic: str, partition: int) -> int:
        leader = self._partitions(topic)[partition].leader
        return 0 if leader in self._away else max(leader, 0)

    def _partitions(self, topic: str) -> dict[int, PartitionMetadata]:
        return dict(
            self._await(lambda: self.admin.list_topics(topic, timeout=2).topics[topic].partitions, f"{topic} is there")
        )


def _led(view: ClusterMetadata) -> dict[tuple[str, int], int]:
    return {(name, n): p.leader for name, topic in view.topics.items() for n, p in topic.partitions.items()}
