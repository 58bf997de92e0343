"""What a broker refuses stops nothing else, and is not lost."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from consumer.kafka.pending import Filter, Pending, pending_actions
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import Raw, event, order_id, publish_raw
from tests.support.figures import Figures
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until


def set_policy(sandbox: Sandbox, policy: str) -> None:
    alter(sandbox, sandbox.topics.dead_letters, "cleanup.policy", policy)


def alter(sandbox: Sandbox, topic: str | None, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    assert topic is not None
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    sandbox.admin.incremental_alter_configs([resource])[resource].result(10)


def test_a_dead_letter_that_its_topic_refuses_stops_no_other_event_and_outlives_a_restart(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    """A compacted topic takes no record without a key."""
    sandbox = sandboxes(dead_letters={"cleanup.policy": "compact"})
    topic = {"topic": sandbox.topics.source}
    orders = [order_id(n) for n in range(12)]
    bad = [Raw(None, b"garbage %d" % n) for n in range(3)]
    good = [Raw(order.encode(), event(order)) for order in orders]
    with Engage() as engage, Books(sandbox) as books:
        for order in orders:
            engage.submit(order)
        with RelayThread(sandbox, engage.url) as relay:
            publish_raw(sandbox, [bad[0], *good[:5], bad[1], Raw(b"k", b"garbage with a key"), bad[2], *good[5:]])
            until(lambda: all(engage.events_of(order) == [1] for order in orders), "the good events are accepted")
            until(
                lambda: relay.registry.get_sample_value("engage_relay_refused_dead_letters", topic) == 3,
                "the refused dead letters are counted",
            )
            assert (relay.registry.get_sample_value("engage_relay_dead_letters_refused_total", topic) or 0) >= 3
            aborted = relay.registry.get_sample_value("engage_relay_transactions_aborted_total")
            figures(refused=len(bad), accepted_beside_them=len(orders), transactions_aborted=aborted)
        assert [each.value for each in books.read().dead_letters] == [b"garbage with a key"]
        waiting = pending_actions(sandbox.properties, [sandbox.topics], Filter(state="refused"))
        assert [each.offset for each in waiting if isinstance(each, Pending)] == [0, 6, 8]

        set_policy(sandbox, "delete")
        with RelayThread(sandbox, engage.url):
            books.wait_until_settled()
        assert sorted(each.value or b"" for each in books.dead_letters) == sorted(
            [b"garbage with a key", *(each.value for each in bad if each.value)]
        )
        assert {each.reason for each in books.dead_letters} == {Reason.UNDECODABLE}
        assert [engage.events_of(order) for order in orders] == [[1]] * len(orders)


@pytest.mark.long
def test_what_engage_accepted_is_not_sent_again_because_its_outcome_is_refused(sandboxes: SandboxFactory) -> None:
    """Its partition was given up and restored, so that it was in doubt and sent again, as long as the topic refused."""
    sandbox = sandboxes(partitions=2)
    orders = [order_id(n) for n in range(20)]
    with Engage() as engage, Books(sandbox) as books:
        for order in orders:
            engage.submit(order)
        with RelayThread(sandbox, engage.url) as relay:
            alter(sandbox, sandbox.topics.outcomes, "max.message.bytes", "100")
            publish_raw(sandbox, [Raw(order.encode(), event(order)) for order in orders])
            until(lambda: any(engage.events_of(order) for order in orders), "Engage accepts some")
            name = "engage_relay_transactions_aborted_total"
            refused = relay.registry.get_sample_value(name) or 0
            until(lambda: (relay.registry.get_sample_value(name) or 0) >= refused + 6, "they are refused again")
            alter(sandbox, sandbox.topics.outcomes, "max.message.bytes", "1048588")
            books.wait_until_settled()
        assert [engage.events_of(order) for order in orders] == [[1]] * len(orders)


@pytest.mark.long
def test_a_dead_letter_is_written_by_itself_once_its_topic_takes_it(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(dead_letters={"cleanup.policy": "compact"})
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay, Books(sandbox) as books:
        publish_raw(sandbox, [Raw(None, b"garbage %d" % n) for n in range(80)])
        name, topic = "engage_relay_refused_dead_letters", {"topic": sandbox.topics.source}
        until(lambda: relay.registry.get_sample_value(name, topic) == 80, "all are refused")
        set_policy(sandbox, "delete")
        books.wait_until_settled()
        until(lambda: relay.registry.get_sample_value(name, topic) == 0, "none waits any more")
        assert len(books.dead_letters) == 80
