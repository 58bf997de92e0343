"""A quota, or a thin uplink: what does not fit into a transaction's time gets through in smaller ones."""

from __future__ import annotations

import random
import time

import pytest

from tests.support.books import Books
from tests.support.broker import KafkaBroker, started
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

READ_EVENTS, READ_QUOTA = 120, 60_000  # more than ten seconds allow
EVENTS, EVENT_BYTES, QUOTA = 400, 8000, 100_000  # all at once: 32 s, where a transaction has 10 s
# Given and lifted while it runs, with so many events each time. An event is written three times, and read once.
QUOTAS = (300_000, None, 200_000, None, 400_000, None)
EVENTS_EACH, LEAST_BYTES, MOST_BYTES = 400, 1000, 9000
STANDSTILL_S = 30.0  # two attempts of a transaction's time, which is 10 s, and a new producer after each


@pytest.mark.long
@pytest.mark.slow
def test_a_transaction_that_does_not_fit_into_its_time_is_not_tried_again_unchanged(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    broker = started(KafkaBroker())
    try:
        sandbox = sandboxes(broker=broker)
        draw = random.Random(1)
        orders = [order_id(n) for n in range(EVENTS)]
        with Engage() as engage:
            for order in orders:
                engage.submit(order)
            publish(sandbox, [(order, event(order, blob=draw.randbytes(EVENT_BYTES // 2).hex())) for order in orders])
            broker.limit_producers(QUOTA)
            with RelayThread(sandbox, engage.url) as relay:
                since = time.monotonic()
                until(lambda: sandbox.offset(sandbox.topics.source) == EVENTS, "all events are taken", 150)
                aborted = relay.registry.get_sample_value("engage_relay_transactions_aborted_total")
                assert aborted is not None
                assert aborted <= 4
                until(lambda: all(engage.events_of(order) for order in orders), "all are accepted", 150)
                figures(aborted=int(aborted), all_accepted_after=f"{time.monotonic() - since:.0f} s")
    finally:
        broker.close()


@pytest.mark.long
@pytest.mark.slow
def test_a_quota_on_reading_makes_a_restart_slow_and_not_impossible(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    """Who has used it up gets nothing for ten seconds and more: that was taken for a broker that does not answer."""
    broker = started(KafkaBroker())
    try:
        sandbox = sandboxes(broker=broker, partitions=3)
        draw = random.Random(1)
        orders = [order_id(n) for n in range(READ_EVENTS)]
        numbers = range(sandbox.partitions)

        def taken() -> bool:
            return sum(sandbox.offset(sandbox.topics.source, n) or 0 for n in numbers) == READ_EVENTS

        with Engage() as engage:
            jobs = dict.fromkeys(orders, "unknown")
            blobs = {order: draw.randbytes(EVENT_BYTES // 2).hex() for order in orders}
            publish(sandbox, [(o, event(o, blob=blobs[o], engage={"jobId": jobs[o]})) for o in orders])
            with RelayThread(sandbox, engage.url):
                until(taken, "all events are taken")
            broker.limit_consumers(READ_QUOTA)
            since = time.monotonic()
            with RelayThread(sandbox, engage.url) as relay:
                until(lambda: relay.metric("restore_duration_seconds_count") >= len(numbers), "restored", 240)
                figures(served_after=f"{time.monotonic() - since:.0f} s")
    finally:
        broker.close()


class Progress:
    """Notes for how long at a time neither an event was taken nor an action accepted."""

    def __init__(self, sandbox: Sandbox, engage: Engage) -> None:
        self._sandbox, self._engage = sandbox, engage
        self._seen: tuple[object, ...] = ()
        self._since = time.monotonic()
        self.longest_s = 0.0

    def look(self) -> None:
        numbers = range(self._sandbox.partitions)
        taken = [self._sandbox.offset(self._sandbox.topics.source, number) for number in numbers]
        seen, now = (*taken, len(self._engage.accepted)), time.monotonic()
        self.longest_s = max(self.longest_s, now - self._since)
        if seen != self._seen:
            self._seen, self._since = seen, now


@pytest.mark.long
@pytest.mark.slow
def test_quotas_that_come_and_go_lose_and_double_nothing_and_stop_nothing_for_long(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    broker = started(KafkaBroker())
    try:
        sandbox = sandboxes(broker=broker, partitions=3)
        draw = random.Random(2)
        published: list[str] = []
        with Engage() as engage, RelayThread(sandbox, engage.url) as relay, Books(sandbox) as books:
            progress = Progress(sandbox, engage)

            def accepted(orders: list[str]) -> bool:
                progress.look()
                return {each.order_id for each in engage.accepted} >= set(orders)

            for quota in QUOTAS:
                orders = [order_id(len(published) + n) for n in range(EVENTS_EACH)]
                published += orders
                sizes = {order: draw.randrange(LEAST_BYTES, MOST_BYTES) for order in orders}
                for order in orders:
                    engage.submit(order)
                new = [(order, event(order, blob=draw.randbytes(sizes[order] // 2).hex())) for order in orders]
                publish(sandbox, new)
                broker.limit_producers(quota)
                some = orders[: EVENTS_EACH // 3]  # the quota changes while much is still to be written
                until(lambda: accepted(some), f"a third is accepted under {quota}", 150)  # noqa: B023
            until(lambda: accepted(published), "all are accepted", 150)
            books.wait_until_settled()
            assert all(engage.events_of(order) == [1] for order in published), "nobody is mailed twice"
            assert books.dead_letters == []
            assert progress.longest_s < STANDSTILL_S
            figures(
                events=len(published),
                aborted=int(relay.registry.get_sample_value("engage_relay_transactions_aborted_total") or 0),
                longest_standstill=f"{progress.longest_s:.1f} s",
            )
    finally:
        broker.close()
