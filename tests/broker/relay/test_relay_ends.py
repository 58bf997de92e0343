"""What ends a relay, and how: loudly, and with what is in flight brought to its end."""

from __future__ import annotations

import threading

import pytest

from consumer.errors import OffsetOutOfRangeError
from consumer.relay.journal_facts import JournalFacts
from consumer.relay.loop import Relay
from tests.support.books import Books, doubled
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until


def tagged(engage: Engage, order: str) -> tuple[str, bytes]:
    engage.submit(order)
    return order, event(order, engage={"versionTag": engage.tag(order)})


class DefectError(Exception):
    """Something that nobody foresaw."""


def _fails(*_: object) -> None:
    raise DefectError


@pytest.mark.parametrize(
    ("of", "step"), [(Relay, "_tick"), (Relay, "_consumed"), (JournalFacts, "_committed"), (Relay, "_check")]
)
def test_a_defect_in_a_callback_ends_the_relay_instead_of_leaving_it_standing(
    of: type, step: str, sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = sandboxes()
    order = order_id("defect")
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay:
        relay.wait_until_restored()
        monkeypatch.setattr(of, step, _fails)
        publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)}))])
        assert isinstance(relay.failure(), DefectError)


def test_a_source_whose_thread_dies_without_a_word_ends_the_relay(
    sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's own cannot show a KafkaError
    sandbox = sandboxes()
    # Settings refuse it: the client then raises a bare KafkaError within a poll, which no `except` sees.
    sandbox.properties["partition.assignment.strategy"] = "range"
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay:
        assert "the source's thread has ended" in str(relay.failure())


def test_what_is_in_flight_is_finished_before_a_failure_ends_the_relay(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    orders = [order_id(number) for number in range(20)]
    with Engage() as engage, Books(sandbox) as books:
        with RelayThread(sandbox, engage.url) as relay:
            relay.wait_until_restored()
            engage.set_faults("slow=1,calls=action")
            publish(sandbox, [tagged(engage, order) for order in orders])
            until(lambda: relay.metric("pending_actions", state="sending") >= len(orders), "all are being sent")
            relay.fail(OffsetOutOfRangeError("the test says so"))
            assert isinstance(relay.failure(), OffsetOutOfRangeError)
        assert not books.read().intents
        assert len(engage.accepted) == len(orders)


def test_a_pace_slower_than_the_lease_still_sends(sandboxes: SandboxFactory) -> None:
    """Intents that wait for their permit longer than their lease lasts are withdrawn, over and over."""
    sandbox = sandboxes()
    sandbox.properties["session.timeout.ms"] = 2500  # a lease of 1 s
    orders = [order_id(number) for number in range(12)]
    with Engage() as engage, RelayThread(sandbox, engage.url, requests_per_second=3) as relay, Books(sandbox) as books:
        publish(sandbox, [tagged(engage, order) for order in orders])
        books.wait_until_settled()
        assert {each.order_id for each in engage.accepted} == set(orders)
        # On a machine that is busy for so long a session, its partitions are lost, and what is in flight is in doubt.
        assert doubled(engage.accepted).keys() <= books.resent
        withdrawn = relay.metric(
            "actions_answered_total", connection="default", action="ConfirmOrder", outcome="withdrawn"
        )
        assert withdrawn <= len(orders)
