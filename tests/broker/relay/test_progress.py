"""A partition that stands still is named, with the reason where it is known: in the log, the metrics and the status."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import get_args

import structlog.testing

from consumer.core.progress import StallReason
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import PATIENCE_S, until

STALL_S = 2.0


def orders(engage: Engage, names: Sequence[object]) -> list[tuple[str, bytes]]:
    ids = [order_id(str(name)) for name in names]
    return [(order, event(order, engage={"jobId": engage.submit(order)})) for order in ids]


def stalled(relay: RelayThread) -> dict[str, float]:
    """Return the reasons for which partitions stand still, and how many."""
    found = {reason: relay.metric("stalled_partitions", reason=reason) for reason in get_args(StallReason)}
    return {reason: partitions for reason, partitions in found.items() if partitions}


def stands_still(relay: RelayThread, reason: StallReason, sandbox: Sandbox) -> bool:
    """Whether it is said everywhere."""
    status = relay.status
    return (
        stalled(relay) == {reason: 1}
        and [each.stalled for each in status.partitions if each.stalled_since is not None] == [reason]
        and any(f"on {sandbox.topics.source}[0]: " in each for each in status.attention)
    )


def test_a_consumer_that_fetches_nothing_and_reports_nothing_is_found(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    """The group is joined, the partition is ours, no error comes: only the missing progress tells."""
    sandbox = sandboxes()
    with (
        Engage() as engage,
        structlog.testing.capture_logs() as logs,
        RelayThread(sandbox, engage.url, stall_s=STALL_S) as relay,
    ):
        publish(sandbox, orders(engage, ["first"]))
        until(lambda: engage.accepted, "the first action is accepted")
        relay.on_consumer(lambda consumer: consumer.pause(consumer.assignment()))
        publish(sandbox, orders(engage, range(5)))
        since = time.monotonic()
        until(partial(stands_still, relay, "unknown", sandbox), "it is named")
        figures(named_after=f"{time.monotonic() - since:.1f} s", of=f"{STALL_S:g} s")

        def said() -> list[str]:
            return [str(each["partitions"]) for each in logs if each["event"] == "partitions stand still"]

        until(said, "the log says it")
        (only,) = said()
        assert f"{sandbox.topics.source}[0]" in only
        relay.on_consumer(lambda consumer: consumer.resume(consumer.assignment()))
        until(lambda: len(engage.accepted) == 6, "it continues")
        until(lambda: stalled(relay) == {}, "it is named no more")
        assert relay.status.attention == []


def test_the_known_reasons_are_told_apart(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with (
        Engage(processing="fixed:60m") as engage,
        RelayThread(sandbox, engage.url, stall_s=STALL_S, max_pending=3, max_parked=1) as relay,
    ):
        publish(sandbox, orders(engage, range(4)))
        until(lambda: relay.metric("source_paused"), "no more can be parked")
        publish(sandbox, orders(engage, range(4, 6)))
        until(partial(stands_still, relay, "paused", sandbox), "no more can be parked")
        engage.set_keys("another")
        until(partial(stands_still, relay, "suspended", sandbox), "and the key is refused")


def test_a_producer_that_does_not_end_its_transaction_is_the_reason(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url, stall_s=STALL_S) as relay:
        producer = sandbox.producer("shop")
        producer.begin_transaction()
        producer.produce(sandbox.topics.source, orders(engage, ["held"])[0][1], b"order", 0)
        assert producer.flush(PATIENCE_S) == 0
        until(partial(stands_still, relay, "foreign_transaction", sandbox), "it is named")
        producer.commit_transaction(PATIENCE_S)
        until(lambda: len(engage.accepted) == 1, "it continues")
        until(lambda: stalled(relay) == {}, "it is named no more")


def test_an_idle_partition_is_not_named(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    with Engage() as engage, RelayThread(sandbox, engage.url, stall_s=STALL_S) as relay:
        publish(sandbox, orders(engage, ["first"]))
        until(lambda: engage.accepted, "the action is accepted")
        seen: set[str] = set()
        moments = {0.0}

        def looked_for_a_while() -> bool:
            seen.update(stalled(relay))
            at = relay.status.at
            assert at is not None
            moments.add(at.timestamp())
            return max(moments) - min(moments - {0.0}, default=at.timestamp()) > 3 * STALL_S

        until(looked_for_a_while, "it looked several times")
        assert seen == set()
