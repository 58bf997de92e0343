"""Restarts in the middle of the load: a stop doubles nothing, a kill doubles only what was in doubt.

What was in doubt is not taken from the relay: it is read from the delay topic at the moment of the kill (intents
without an outcome), after the dead instance's transaction was ended as the next instance would end it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from consumer.relay.connections import slots_of
from schemas.dead_letter import Reason
from tests.support.books import Books, doubled
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

RATE = 200  # requests a second: 100 actions
EVENTS = (1, 2, 3, 4)


def load(sandbox: Sandbox, engage: Engage, orders: Sequence[str]) -> None:
    """Publish the events of these orders, as they would come: one event of every order, then the next of each."""
    events = []
    for number in EVENTS:
        for order in orders:
            events.append((order, event(order, number, engage={"jobId": engage.submit(order)})))
    publish(sandbox, events)


def assert_all_in_order(engage: Engage, orders: Sequence[str]) -> None:
    """Every event was accepted, and none after a later one of its order."""
    for order in orders:
        numbers = engage.events_of(order)
        assert sorted(set(map(str, numbers))) == [str(number) for number in EVENTS], order
        assert numbers == sorted(numbers, key=str), order


def test_a_stop_in_the_middle_leaves_nothing_in_doubt_and_everything_is_accepted_once(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes(partitions=3)
    orders = [order_id(number) for number in range(50)]
    total = len(orders) * len(EVENTS)
    with Engage(seed=1, processing="uniform:0s..400ms") as engage, Books(sandbox) as books:
        load(sandbox, engage, orders)
        for part in (0.3, 0.6):
            with RelayThread(sandbox, engage.url, requests_per_second=RATE) as relay:
                until(lambda: len(engage.accepted) >= part * total, "a part of it is accepted")  # noqa: B023
                relay.stop()
            assert len(engage.accepted) < total
            assert books.read().intents == set()
        with RelayThread(sandbox, engage.url, requests_per_second=RATE):
            books.wait_until_settled()
        assert len(engage.accepted) == total
        assert_all_in_order(engage, orders)
        assert books.resent == set()


def test_after_kills_in_the_middle_everything_is_accepted_and_only_what_was_in_doubt_twice(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=3)
    orders = [order_id(number) for number in range(70)]
    total, kills = len(orders) * len(EVENTS), 3
    moments = sorted(random.Random(5).sample(range(20, total - 60), kills))
    # A static member: the next instance takes its place at once, and ends its transaction.
    # Answers come late, so that there is something in flight at every moment.
    with (
        Engage(
            seed=2, processing="uniform:0s..300ms", faults=("slow=0.5,calls=action",), slow="uniform:20ms..150ms"
        ) as engage,
        Books(sandbox) as books,
    ):
        load(sandbox, engage, orders)
        file = written(
            tmp_path,
            configuration(
                sandbox, engage.url, kafka={"group.instance.id": "relay-0"}, connection={"requests_per_second": RATE}
            ),
        )
        in_doubt: set[tuple[str, object]] = set()
        for moment in moments:
            with RelayProcess(tmp_path, file, "--from", "earliest", impatient=True) as relay:
                until(lambda: len(engage.accepted) >= moment, f"{moment} actions are accepted")  # noqa: B023
                relay.kill()
            sandbox.producer(f"{sandbox.properties['group.id']}-relay-0")
            in_doubt |= books.read().intents
        with RelayProcess(tmp_path, file, impatient=True) as relay:
            books.wait_until_settled()
            assert relay.stop() == 0
        assert_all_in_order(engage, orders)
        twice = doubled(engage.accepted)
        print(f"{total} events, {kills} kills: {len(in_doubt)} in doubt, {twice.total()} accepted once too often")
        assert twice.keys() <= in_doubt
        assert twice.total() <= kills * slots_of(RATE)
        assert books.dead_letters == []


@pytest.mark.long
def test_after_a_kill_what_was_in_doubt_is_dead_lettered_where_the_route_says_so(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes()
    order, other = order_id("doubt"), order_id("other")
    shipped = {
        "when": "type == 'order.shipped'",
        "action": "ConfirmShipment",
        "data": "data",
        "on_unknown": "dead_letter",
    }
    with Engage(faults=("lost-answer=1,calls=action",)) as engage, Books(sandbox) as books:
        engage.submit(order)
        engage.submit(other)
        file = written(
            tmp_path,
            configuration(sandbox, engage.url, kafka={"group.instance.id": "relay-0"}, routes={"shipped": shipped}),
        )
        with RelayProcess(tmp_path, file, "--from", "earliest") as relay:
            relay.wait_until_ready()
            publish(sandbox, [(order, event(order, kind="order.shipped"))])
            until(lambda: engage.faults["lost-answer"], "the action is under way")
            relay.kill()
        engage.set_faults()
        publish(sandbox, [(other, event(other, kind="order.shipped"))])
        with RelayProcess(tmp_path, file):
            books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert (dead_letter.reason, dead_letter.why.source_offset) == (Reason.OUTCOME_UNKNOWN, 0)
        assert [each.order_id for each in engage.accepted] == [order, other]
