"""Two instances: partitions change hands under load, by the rules or not, and nobody is mailed twice for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest
from confluent_kafka.admin import NewPartitions

from consumer.kafka.topics.topics import create
from tests.support.books import Books, doubled
from tests.support.engage import Asked, Engage, Reply, ScriptedEngage, tagged_order
from tests.support.events import event, order_id, partition_of, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import PATIENCE_S, until

PARTITIONS = 4
EVENTS = (1, 2, 3)

Protocol = Mapping[str, object]
CLASSIC: Protocol = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
CONSUMER: Protocol = {"group.protocol": "consumer"}


class Beside(Sandbox):
    """The same place, for another instance."""

    @property
    def transactional_id(self) -> str:
        return f"{super().transactional_id}-2"


class Load:
    """Events that keep coming while partitions change hands, however long that takes on this machine."""

    def __init__(self, sandbox: Sandbox, engage: Engage) -> None:
        self._sandbox = sandbox
        self._engage = engage
        self.orders: list[str] = []

    def continues(self) -> Literal[True]:
        """Publish more, where little is left to be accepted. To be asked again and again."""
        if len(self.orders) * len(EVENTS) - len(self._engage.accepted) < 60:
            new = [order_id(len(self.orders) + number) for number in range(20)]
            events = []
            for number in EVENTS:
                for order in new:
                    events.append((order, event(order, number, engage={"jobId": self._engage.submit(order)})))
            publish(self._sandbox, events)
            self.orders += new
        return True

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, under load."""
        until(lambda: self.continues() and condition(), what)

    def until_accepted(self, count: int) -> None:
        """Wait, under load, until so many actions were accepted from now on."""
        wanted = len(self._engage.accepted) + count
        self.until(lambda: len(self._engage.accepted) >= wanted, f"{count} more actions are accepted")


@pytest.mark.parametrize("protocol", [CLASSIC, CONSUMER], ids=["classic", "consumer"])
def test_an_instance_joins_and_another_leaves_under_load(
    sandboxes: SandboxFactory, tmp_path: Path, protocol: Protocol
) -> None:
    sandbox, rate_limit = sandboxes(partitions=PARTITIONS), 60
    with Engage(seed=4, processing="uniform:0s..300ms") as engage, Books(sandbox) as books:
        load = Load(sandbox, engage)
        file = written(
            tmp_path, configuration(sandbox, engage.url, kafka=protocol, connection={"requests_per_second": rate_limit})
        )
        with RelayProcess(tmp_path, file, "--from", "earliest") as first:
            load.until_accepted(20)
            with RelayProcess(tmp_path, file) as second:
                load.until(lambda: first.partitions == second.partitions == PARTITIONS // 2, "both have their share")
                load.until_accepted(20)
                first.terminate()
                load.until(lambda: second.partitions == PARTITIONS, "the second one has all")
                assert first.wait() == 0
                load.until_accepted(20)
                books.wait_until_settled()
                assert second.stop() == 0
        assert [engage.events_of(order) for order in load.orders] == [list(EVENTS)] * len(load.orders)
        assert (books.dead_letters, books.resent) == ([], set())
        # Counted where they arrive: what a busy machine delays falls into the next second. Unshared, it would be twice.
        assert engage.max_in_a_second() <= (1.25 + engage.stood_still_s) * rate_limit


def test_a_document_under_way_during_a_hand_over_never_replaces_a_newer_one(sandboxes: SandboxFactory) -> None:
    """Each order exists already. Its first document's POST is answered so late that another instance joins before."""
    sandbox = sandboxes(partitions=2)
    orders = [next(o for o in map(order_id, range(100)) if partition_of(o, 2) == number) for number in (0, 1)]
    versions: dict[str, list[int]] = {order: [] for order in orders}
    is_slow = set(orders)
    overtaken = threading.Event()  # what must not come: the slow answer is not waited for

    def script(asked: Asked) -> Reply:
        document = json.loads(asked.body) if asked.body else {}
        if asked.method == "PUT":
            versions[document["orderId"]].append(document["version"])
            if all(2 in taken for taken in versions.values()):
                overtaken.set()
            return Reply(202, {"jobId": "job"})
        if asked.path.endswith("/orders"):
            if document["orderId"] in is_slow:
                is_slow.discard(document["orderId"])
                overtaken.wait(5)
            return Reply(409)
        return tagged_order(asked)

    def begun() -> bool:
        return len([each for each in engage.asked if each.path.endswith("/orders")]) == len(orders)

    with ScriptedEngage(script) as engage, Books(sandbox) as books, RelayThread(sandbox, engage.url):
        for number in (1, 2):
            publish(sandbox, [(o, event(o, number, order={"orderId": o, "version": number})) for o in orders])
        until(begun, "both first documents are under way")
        beside = Beside(sandbox.properties, sandbox.topics, sandbox.admin, sandbox.partitions)
        with RelayThread(beside, engage.url):
            books.wait_until_settled()
    assert versions == {order: [1, 2] for order in orders}
    assert books.dead_letters == []


def test_an_instance_that_was_frozen_while_another_took_over_sends_nothing(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=PARTITIONS)
    quick = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300, "transaction.timeout.ms": 3000}
    slow = ("slow=0.5,calls=action",)  # so that some are in flight when it freezes
    with (
        Engage(seed=6, processing="uniform:0s..300ms", faults=slow, slow="uniform:20ms..150ms") as engage,
        Books(sandbox) as books,
    ):
        load = Load(sandbox, engage)
        file = written(
            tmp_path, configuration(sandbox, engage.url, kafka=quick, connection={"requests_per_second": 150})
        )
        with RelayProcess(tmp_path, file, "--from", "earliest", impatient=True) as zombie:
            load.until_accepted(40)
            zombie.freeze()
            with RelayProcess(tmp_path, file, impatient=True) as heir:
                until(lambda: heir.partitions == PARTITIONS, "the other one has all")
                books.wait_until_settled()
                # All is done. Whatever the zombie still sends, it sends without a right to.
                asked = engage.actions_asked()
                zombie.thaw()
                until(lambda: zombie.partitions == heir.partitions == PARTITIONS // 2, "it has come back")
                assert zombie.said("partitions lost: another instance has them already")
                assert engage.actions_asked() == asked
                # It is a member like any other again.
                consumed = zombie.metric("events_consumed_total")
                load.until(lambda: zombie.metric("events_consumed_total") > consumed, "it works again")
                books.wait_until_settled()
        for order in load.orders:
            numbers = engage.events_of(order)
            assert sorted(set(map(str, numbers))) == [str(number) for number in EVENTS], order
            assert numbers == sorted(numbers, key=str), order
        twice = doubled(engage.accepted)
        print(f"{len(books.resent)} in doubt, {twice.total()} accepted twice")
        assert twice.keys() <= books.resent
        assert books.dead_letters == []


def test_a_fenced_instance_gives_everything_up_comes_back_and_continues(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=PARTITIONS)
    with Engage(seed=9, processing="uniform:0s..300ms") as engage, Books(sandbox) as books:
        load = Load(sandbox, engage)
        with RelayThread(sandbox, engage.url, requests_per_second=150) as relay:
            load.until_accepted(40)
            sandbox.producer(sandbox.transactional_id)  # somebody else's, with the same transactional.id
            load.until(lambda: relay.metric("rebalances_total", kind="lost") > 0, "it gives everything up")
            load.until_accepted(40)
            books.wait_until_settled()
        for order in load.orders:
            numbers = engage.events_of(order)
            assert sorted(set(map(str, numbers))) == [str(number) for number in EVENTS], order
            assert numbers == sorted(numbers, key=str), order
        assert doubled(engage.accepted).keys() <= books.resent
        assert books.dead_letters == []


def test_partitions_that_are_added_while_it_runs_are_taken_from_their_beginning(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    sandbox.properties["topic.metadata.refresh.interval.ms"] = 500
    with Engage() as engage, Books(sandbox) as books:
        with RelayThread(sandbox, engage.url) as relay:
            relay.wait_until_restored()
            # The source first, as its owner does; what belongs to it follows when the operator hears of it.
            _grow(sandbox, sandbox.topics.source)
            order = order_id("new")
            engage.submit(order)
            sandbox.write(sandbox.topics.source, [(order.encode(), event(order))], partition=1)
            until(lambda: relay.metric("partitions_owned") == 2, "the new partition is assigned")
            assert create(sandbox.admin, [sandbox.topics]) != []
            until(lambda: engage.events_of(order) == [1], "the new partition's event is accepted")
            assert relay.metric("rate_limit_share_ratio") == 1
        assert books.read().dead_letters == []


def _grow(sandbox: Sandbox, topic: str) -> None:
    for grown in sandbox.admin.create_partitions([NewPartitions(topic, 2)]).values():
        grown.result(PATIENCE_S)
