"""A quota, or a thin uplink: what does not fit into a transaction's time gets through in smaller ones."""

from __future__ import annotations

import random
import time

import pytest

from tests.support.broker import KafkaBroker, started
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

EVENTS, EVENT_BYTES, QUOTA = 400, 8000, 100_000  # all at once: 32 s, where a transaction has 10 s


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
