"""Order within an order: its actions are accepted in the order of its events, and no order waits for another."""

from __future__ import annotations

from itertools import groupby

from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

ORDERS, EVENTS = 30, 4
FAULTS = ("error=0.04", "unavailable=0.02", "reset-after=0.02,calls=action", "stale=0.02", "close-after=0.02")


def test_events_of_an_order_are_accepted_in_their_order_whatever_delays_and_faults(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=3)
    orders = [order_id(number) for number in range(ORDERS)]
    with (
        Engage(seed=7, processing="uniform:0s..1500ms", faults=FAULTS) as engage,
        RelayThread(sandbox, engage.url) as relay,
        Books(sandbox) as books,
    ):
        relay.wait_until_restored()
        events = []
        for number in range(1, EVENTS + 1):
            for order in orders:
                events.append((order, event(order, number, engage={"jobId": engage.submit(order)})))
        publish(sandbox, events)
        books.wait_until_settled()
        # What was in doubt was sent again: then the same event appears twice in a row, never another one between.
        accepted = {order: [number for number, _ in groupby(engage.events_of(order))] for order in orders}
        assert accepted == {order: list(range(1, EVENTS + 1)) for order in orders}
        assert books.dead_letters == []
        assert engage.faults.total() > 20


def test_an_order_whose_job_never_completes_delays_no_other(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    stuck, others = order_id("stuck"), [order_id(number) for number in range(20)]
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        job = engage.submit(stuck, fate="never")
        events = [(stuck, event(stuck, number, engage={"jobId": job})) for number in (1, 2, 3)]
        for order in others:
            engage.submit(order)
            events.append((order, event(order)))
        publish(sandbox, events)
        until(lambda: len(engage.accepted) == len(others), "all other orders are accepted")
        until(lambda: len(books.read().live) == 3, "only the stuck order's actions are open")
        assert {each.payload.order_id for each in books.live.values()} == {stuck}
        assert engage.events_of(stuck) == []
