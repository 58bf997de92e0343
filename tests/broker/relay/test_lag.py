"""Lag is what the relay has yet to read: a transaction's marker, aborted records and gaps are none.

Otherwise each transactional producer, and each redrive, leaves a lag of 1 for ever, and pages somebody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import pytest
from confluent_kafka import Producer

from consumer.kafka.dead_letters.redrive import Selection, redrive
from consumer.kafka.topics.offsets import watermarks
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import PATIENCE_S, until

_NAMES = count()
ASKED_WITHIN_S = 12.0  # of the broker, at the most: ASK_INTERVAL_S of ends.py, and a second of the event loop's


def transaction(sandbox: Sandbox, records: list[bytes]) -> Producer:
    """Return a shop's producer with these events in an open transaction, which outlasts what the relay asks."""
    longer = {"transaction.timeout.ms": 60_000}
    producer = sandbox.producer(f"{sandbox.topics.source}-shop-{next(_NAMES)}", **longer)
    producer.begin_transaction()
    for value in records:
        producer.produce(sandbox.topics.source, value, b"order", 0)
    assert producer.flush(PATIENCE_S) == 0
    return producer


def ready(engage: Engage, name: str) -> tuple[str, bytes]:
    order = order_id(name)
    return order, event(order, engage={"jobId": engage.submit(order)})


def committed(sandbox: Sandbox, engage: Engage) -> None:
    transaction(sandbox, [ready(engage, "committed")[1]]).commit_transaction(PATIENCE_S)


def aborted(sandbox: Sandbox, engage: Engage) -> None:
    transaction(sandbox, [ready(engage, f"aborted-{n}")[1] for n in range(30)]).abort_transaction(PATIENCE_S)


def both(sandbox: Sandbox, engage: Engage) -> None:
    committed(sandbox, engage)
    aborted(sandbox, engage)


def nothing_but_a_marker(sandbox: Sandbox, _: Engage) -> None:
    transaction(sandbox, []).abort_transaction(PATIENCE_S)
    transaction(sandbox, [b"garbage"]).commit_transaction(PATIENCE_S)


def redriven(sandbox: Sandbox, engage: Engage) -> None:
    publish(sandbox, [("x", b"no JSON")])
    until(lambda: sandbox.read(sandbox.topics.dead_letters), "the event is a dead letter")
    assert list(redrive(sandbox.properties, [sandbox.topics], Selection(), dry_run=False))


def end(sandbox: Sandbox) -> int:
    at = (sandbox.topics.source, 0)
    return watermarks(sandbox.admin, [at])[at][1]


def lag(relay: RelayThread, sandbox: Sandbox) -> float | None:
    return relay.registry.get_sample_value(
        "engage_relay_consumer_lag_records", {"topic": sandbox.topics.source, "partition": "0"}
    )


def settled(relay: RelayThread, sandbox: Sandbox) -> bool:
    """Whether nothing is left to read, to the relay and to whoever asks the group (KEDA, kafka-consumer-groups)."""
    return lag(relay, sandbox) == 0 and sandbox.offset(sandbox.topics.source) == end(sandbox)


@pytest.mark.parametrize("what", [committed, aborted, both, nothing_but_a_marker, redriven])
@pytest.mark.parametrize("when", ["while it runs", "before it starts"])
def test_what_is_no_event_is_no_lag(
    sandboxes: SandboxFactory, what: Callable[[Sandbox, Engage], None], when: str
) -> None:
    sandbox = sandboxes()
    with Engage() as engage:
        order, value = ready(engage, "first")
        publish(sandbox, [(order, value)])
        with RelayThread(sandbox, engage.url) as relay:
            until(lambda: engage.accepted, "the first action is accepted")
            if when == "while it runs" or what is redriven:
                what(sandbox, engage)
                until(lambda: settled(relay, sandbox), "the lag is 0 again")
                assert end(sandbox) > 1
        if when == "before it starts":
            what(sandbox, engage)
            with RelayThread(sandbox, engage.url) as relay:
                until(lambda: settled(relay, sandbox), "the lag is 0 after a start, too")


def test_the_position_behind_a_marker_is_where_a_successor_continues(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage:
        for number in range(3):
            with RelayThread(sandbox, engage.url) as relay:
                committed(sandbox, engage)
                until(lambda: settled(relay, sandbox), "the position is behind the marker")
                publish(sandbox, [ready(engage, f"plain-{number}")])
                until(lambda: settled(relay, sandbox), "the next event is read")
        until(lambda: len(engage.accepted) == 6, "none is left out")


def test_records_of_an_open_transaction_are_lag_and_its_reason_is_known(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay:
        order, value = ready(engage, "first")
        publish(sandbox, [(order, value)])
        until(lambda: settled(relay, sandbox), "the lag is 0")
        producer = transaction(sandbox, [ready(engage, "held")[1]])
        order, value = ready(engage, "behind")
        publish(sandbox, [(order, value)])
        until(lambda: lag(relay, sandbox) == 2, "both events are lag")
        until(lambda: relay.readings[sandbox.topics.source, 0].held, "its reason is known", 2 * ASKED_WITHIN_S)
        producer.commit_transaction(PATIENCE_S)
        until(lambda: len(engage.accepted) == 3, "they are read when the transaction has ended")
        until(lambda: settled(relay, sandbox), "the lag is 0 again")
        assert not relay.readings[sandbox.topics.source, 0].held


def test_a_source_that_grows_while_it_is_paused_has_a_lag(sandboxes: SandboxFactory) -> None:
    """A paused consumer fetches nothing, so it learns nothing of the end."""
    sandbox = sandboxes()
    with (
        Engage(processing="fixed:60m") as engage,
        RelayThread(sandbox, engage.url, max_pending=3, max_parked=1) as relay,
    ):
        publish(sandbox, [ready(engage, f"open-{n}") for n in range(4)])
        until(lambda: relay.metric("source_paused") == 1, "the source is paused")
        publish(sandbox, [ready(engage, f"waits-{n}") for n in range(7)])
        started = time.monotonic()
        until(lambda: lag(relay, sandbox) == 7, "what waits is lag")
        assert time.monotonic() - started < ASKED_WITHIN_S + 5
