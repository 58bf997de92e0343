"""A connection that does not serve stays within its share of the memory; the others are served, nothing is lost."""

from __future__ import annotations

import pytest

from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

ORDERS, EACH, LIMIT = 10, 12, 30
SERVED = 2 * LIMIT


def publish_orders(sandbox: Sandbox, engage: Engage, connection: str, orders: list[str], each: int) -> None:
    jobs = {order: engage.submit(order) for order in orders}
    events = [
        (order, event(order, number, engage={"jobId": jobs[order], "connection": connection}))
        for number in range(1, each + 1)
        for order in orders
    ]
    publish(sandbox, events)


@pytest.mark.long
def test_what_a_hanging_connection_has_beyond_its_share_is_parked_and_comes_back_in_order(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    sandbox = sandboxes(partitions=2)
    hung = [order_id(f"hung-{number}") for number in range(ORDERS)]
    served = [order_id(f"served-{number}") for number in range(SERVED)]
    with Engage() as good, Engage(faults=("hang=1,calls=job",)) as bad, Books(sandbox) as books:
        urls = {"default": good.url, "hanging": bad.url}
        with RelayThread(sandbox, urls, max_pending=LIMIT) as relay:
            publish_orders(sandbox, bad, "hanging", hung, EACH)
            until(
                lambda: relay.metric("parked_actions", connection="hanging") >= ORDERS * EACH - LIMIT, "most are parked"
            )
            publish_orders(sandbox, good, "default", served, 1)
            until(lambda: len(good.accepted) == SERVED, "the other connection is served")
            assert relay.metric("source_paused") == 0
            parked = relay.metric("parked_actions", connection="hanging")
            assert relay.metric("parked_bytes", connection="hanging") > 0
        assert len(books.read().live) == ORDERS * EACH
        with RelayThread(sandbox, urls, max_pending=LIMIT) as relay:
            relay.wait_until_restored()
            until(lambda: relay.metric("parked_actions", connection="hanging") > 0, "they are still parked")
            publish_orders(sandbox, good, "default", [order_id("later")], 1)
            until(lambda: len(good.accepted) == SERVED + 1, "the other connection is served again")
            assert bad.accepted == []
            bad.set_faults()
            books.wait_until_settled()
            until(lambda: relay.metric("parked_actions", connection="hanging") == 0, "nothing is parked any more")
        for order in hung:
            assert bad.events_of(order) == list(range(1, EACH + 1))
        assert books.dead_letters == []
        figures(pending=ORDERS * EACH, parked=int(parked), served_beside_them=SERVED, out_of_order=0)
