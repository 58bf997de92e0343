"""A transaction's requests that arrive when their transaction is long over: the broker takes them for the next one's.

A client whose connection is cut asks again on another one; what it wrote on the first may still be under way, in a
switch or in the socket of a broker that stood still. Epochs of a producer tell the two apart only where each
transaction has one of its own (KIP-890), which librdkafka's have not. So each of these requests may hit whatever the
same producer is at by then.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

from consumer.core.clock import steady_clock
from consumer.core.ownership import Assignment, Ownership
from consumer.kafka.facts import Committed, Fact
from consumer.kafka.journal.transactions import Transactions
from consumer.kafka.journal.writes import Begin, DeadLetter
from consumer.kafka.outcomes.outcomes import EndedEvent
from consumer.kafka.records.dead_letters import DeadLetterRecord
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import Reason
from schemas.pending_action import SourceIdentity
from tests.chaos.kafka_proxy import (
    ADD_OFFSETS_TO_TXN,
    ADD_PARTITIONS_TO_TXN,
    END_TXN,
    INIT_PRODUCER_ID,
    PROXIED,
    TXN_OFFSET_COMMIT,
    Delivery,
    Fault,
    Hold,
    KafkaProxy,
    LoseAnswer,
    Request,
    Stall,
)
from tests.chaos.stage import StageFactory
from tests.support.books import Books
from tests.support.broker import KafkaBroker, started
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

NEVER_S = 3600.0
MAX_LATE_S = 3.0  # several transactions' time, and less than transaction.timeout.ms
SHARES = {
    END_TXN: 0.15,
    TXN_OFFSET_COMMIT: 0.1,
    ADD_OFFSETS_TO_TXN: 0.05,
    ADD_PARTITIONS_TO_TXN: 0.03,
    INIT_PRODUCER_ID: 0.05,
}
QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}


@dataclass(frozen=True)
class Proxied:
    """A broker that clients reach through a proxy, or directly."""

    broker: KafkaBroker
    proxy: KafkaProxy


@pytest.fixture(scope="module")
def proxied() -> Iterator[Proxied]:
    with KafkaProxy() as proxy:
        broker = started(KafkaBroker(PROXIED, listeners=("PROXIED",), advertised={"PROXIED": proxy.port}))
        with broker:
            proxy.forward_to(broker.address("PROXIED"))
            yield Proxied(broker, proxy)


class Line:
    """One relay behind the proxy, and events that go one by one."""

    def __init__(self, proxied: Proxied, sandboxes: SandboxFactory, directory: Path, engage: Engage) -> None:
        self.proxy = proxied.proxy
        self.sandbox: Sandbox = sandboxes(broker=proxied.broker)
        self.engage = engage
        self.directory = directory
        # A static member: the next relay takes its place at once, and ends its transaction.
        through = {"bootstrap.servers": self.proxy.bootstrap_servers, "group.instance.id": "relay-0"}
        self.file = written(directory, configuration(self.sandbox, engage.url, kafka=through))
        self.proxy.let_through()

    def relay(self) -> RelayProcess:
        return RelayProcess(self.directory, self.file, "--from", "earliest", impatient=True)

    def publish(self, number: int, *, takes_s: float | None = None) -> None:
        """Publish the only event of an order that Engage processes within so many seconds."""
        order = order_id(number)
        job = self.engage.submit(order, takes_s=takes_s)
        publish(self.sandbox, [(order, event(order, engage={"jobId": job}))])

    def publish_and_wait(self, number: int) -> None:
        """The same, to the end: accepted, and forgotten."""
        self.publish(number)
        until(lambda: self.accepted[-1:] == [number], f"{number} is accepted")

    def begin_with_a_late_commit(self, relay: RelayProcess, books: Books) -> None:
        """Have the first event accepted and forgotten, and the first commit held."""
        relay.wait_until_ready()
        self.proxy.judge(first(lambda request: request.api == END_TXN and request.commits is True))
        self.publish_and_wait(1)
        books.wait_until_settled()

    @property
    def accepted(self) -> list[int]:
        """The orders' numbers, as accepted."""
        return [int(each.order_id.rpartition("-")[2]) for each in self.engage.accepted]

    def stall_before(self, api: int) -> None:
        """Have the next transaction stand still before it asks this, and wait for that."""
        self.proxy.judge(lambda request: Stall() if request.api == api else None)

    def deliver_late(self) -> Delivery:
        """Deliver what is held, into the transaction that stands still."""
        until(lambda: self.proxy.swallows, "the transaction stands still")
        (delivery,) = self.proxy.release_all()
        return delivery


@pytest.fixture
def line(proxied: Proxied, sandboxes: SandboxFactory, tmp_path: Path) -> Iterator[Line]:
    with Engage() as engage:
        yield Line(proxied, sandboxes, tmp_path, engage)


def first(wanted: Callable[[Request], bool]) -> Callable[[Request], Hold | None]:
    """Hold the first request that is wanted."""
    found: list[Request] = []

    def judge(request: Request) -> Hold | None:
        if found or not wanted(request):
            return None
        found.append(request)
        return Hold()

    return judge


def test_offsets_that_arrive_late_do_not_bring_back_what_is_done(line: Line) -> None:
    with Books(line.sandbox) as books, line.relay() as relay:
        relay.wait_until_ready()
        line.proxy.judge(first(lambda request: request.api == TXN_OFFSET_COMMIT))
        line.publish_and_wait(1)  # its offset is asked for twice: once is under way
        line.publish_and_wait(2)
        books.wait_until_settled()
        line.stall_before(END_TXN)
        line.publish(3, takes_s=NEVER_S)
        assert line.deliver_late().error == 0, "the broker took it for the third event's transaction"
        line.proxy.let_through()
        until(lambda: books.read().live, "the third event is saved")
        relay.kill()
        assert line.sandbox.offset(line.sandbox.topics.source) == 1, "the offset went back behind the second event"

        with line.relay():
            line.publish_and_wait(4)
            assert line.accepted == [1, 2, 4]


def test_a_commit_that_arrives_late_neither_loses_nor_doubles_what_it_tears(line: Line) -> None:
    with Books(line.sandbox) as books, line.relay() as relay:
        line.begin_with_a_late_commit(relay, books)
        line.stall_before(ADD_OFFSETS_TO_TXN)
        publish(line.sandbox, [("nobody", b"garbage")])
        assert line.deliver_late().error == 0, "the broker took it for the next transaction's"
        assert [dead_letter.reason for dead_letter in books.read().dead_letters] == [Reason.UNDECODABLE], "it is torn"
        relay.kill()
        line.proxy.cut()
        line.proxy.let_through()
        assert line.sandbox.offset(line.sandbox.topics.source) == 1, "the dead letter lies there without its offset"

        with line.relay():
            line.publish_and_wait(2)
            books.wait_until_settled()
            assert [dead_letter.reason for dead_letter in books.dead_letters] == [Reason.UNDECODABLE]
            assert line.accepted == [1, 2]


def test_a_commit_that_arrives_late_does_not_cost_the_partitions(line: Line) -> None:
    with Books(line.sandbox) as books, line.relay() as relay:
        line.begin_with_a_late_commit(relay, books)
        line.stall_before(TXN_OFFSET_COMMIT)
        line.publish(2)
        assert line.deliver_late().error == 0, "it has ended the second event's transaction"
        line.proxy.let_through()
        until(lambda: line.accepted == [1, 2], "the second event is accepted")
        assert relay.said("transaction aborted, trying again")
        assert relay.metric("rebalances_total") == 1, "the assignment that it began with"


@dataclass(frozen=True)
class Written:
    """A record as its delivery tells of it."""

    of: str
    within: int
    content: bytes | None

    def topic(self) -> str:
        return self.of

    def partition(self) -> int:
        return self.within

    def value(self) -> bytes | None:
        return self.content

    def offset(self) -> int:
        return 0


class Noted:
    """A producer that notes what is asked of it; whatever is flushed was written at offset 0."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._unwritten: list[tuple[Callable[[None, Written], None], Written]] = []

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        *,
        on_delivery: Callable[[None, Written], None],
        **more: object,
    ) -> None:
        self.asked.append(topic)
        self._unwritten.append((on_delivery, Written(topic, partition, value)))

    def flush(self, timeout_s: float) -> int:
        self.asked.append("flush")
        for delivered, record in self._unwritten:
            delivered(None, record)
        self._unwritten.clear()
        return 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.asked.append(name)


def test_a_dead_letter_is_safe_before_the_position_that_stands_for_it() -> None:
    producer, assignment = Noted(), Assignment("orders", 0, 1)
    clients = Mock(producer=lambda **_: producer)
    facts: list[Fact] = []
    transactions = Transactions(
        clients,
        topics={"orders": RelayTopics("orders", "delay", "dead-letters", "outcomes")},
        identities={"orders": SourceIdentity(group="g", topic="orders")},
        ownership=lambda: Ownership(b"CGMDv2:" + (1).to_bytes(4, sys.byteorder), {("orders", 0): 1}),
        clock=steady_clock(),
        pause=lambda _: None,
        report=facts.append,
        replace_too_large=Mock(),
    )
    dead_letter = DeadLetterRecord(b"key", b"garbage", [])
    garbage = SourceEvent(topic="orders", partition=0, offset=0, timestamp_ms=None, key=b"key", value=b"garbage")
    write = DeadLetter(
        assignment=assignment,
        record=dead_letter,
        reason=Reason.UNDECODABLE,
        offset=0,
        next_offset=1,
        outcome=EndedEvent(event=garbage, reason=Reason.UNDECODABLE, ended=1.0),
    )
    transactions.settle([Begin(assignment, [], 0, 0), write])
    written = producer.asked[producer.asked.index("begin_transaction") + 1 :]
    assert written == [
        *("dead-letters", "flush"),
        *("outcomes", "delay", "flush"),
        *("send_offsets_to_transaction", "commit_transaction"),
    ]
    assert [type(fact) for fact in facts] == [Committed]


def at_random(draw: random.Random) -> Callable[[Request], Fault]:
    """Hold some of the transactions' requests for a while, and lose the answers of as many."""

    def judge(request: Request) -> Fault:
        if draw.random() >= SHARES.get(request.api, 0.0):
            return None
        return Hold(draw.uniform(0.0, MAX_LATE_S)) if draw.random() < 0.5 else LoseAnswer()

    return judge


@pytest.mark.long
def test_requests_that_arrive_late_at_random_lose_and_double_nothing(
    proxied: Proxied, sandboxes: SandboxFactory, stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    proxy, instances = proxied.proxy, 2
    proxy.let_through()
    sandbox = sandboxes(partitions=4, broker=proxied.broker)
    stage = stages(sandbox=sandbox, kafka={"bootstrap.servers": proxy.bootstrap_servers, **QUICK})
    stage.publish(scale.of(60, 2000))
    for n in range(instances):
        stage.relay(f"relay-{n}")
    stage.until_accepted(20)
    before = Counter(proxy.faults), len(proxy.delivered)
    with stage.fault():
        proxy.judge(at_random(random.Random(3)))
        stage.until_accepted(int(0.8 * len(stage.published)))
        proxy.let_through()
    # An instance that a late request fences gives up its partitions, with what is in flight there.
    balance = stage.finish(kills=proxy.faults[INIT_PRODUCER_ID, "Hold"] * instances)
    late = proxy.delivered[before[1] :]
    assert any(each.error == 0 for each in late), "the broker took none for news"
    figures(
        held=sum(count for (_, fault), count in (proxy.faults - before[0]).items() if fault == "Hold"),
        answers_lost=sum(count for (_, fault), count in (proxy.faults - before[0]).items() if fault == "LoseAnswer"),
        taken_late=sum(each.error == 0 for each in late),
        **balance.figures(),
    )
    stage.stop_all()
