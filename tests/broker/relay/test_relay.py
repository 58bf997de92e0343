"""The whole relay on a real broker: what it does when nothing goes wrong."""

from __future__ import annotations

import asyncio
import json

import pytest
import uvloop
from confluent_kafka import Producer

from consumer.kafka import clients
from consumer.kafka.dead_letters.redrive import Redrive, Selection, redrive
from consumer.kafka.records.dead_letters import dead_letter_of_event
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.source.membership import MAX_RECORDS
from consumer.kafka.topics.topics import RelayTopics
from consumer.simulator import Moods
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Asked, Engage, Reply, ScriptedEngage, tagged_order
from tests.support.events import CUSTOMER, Raw, event, order_id, publish, publish_raw
from tests.support.figures import Figures
from tests.support.relay_thread import LoopFactory, RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory, TopicFactory
from tests.support.waiting import PATIENCE_S, until

REDIRECTED = Moods(redirects=("relative=1",))


def document_of(order: str) -> dict[str, object]:
    return {"orderId": order, "contact": {"matchKey": CUSTOMER, "matchKeyType": "Email"}}


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_every_canonical_event_arrives_at_engage_as_its_action(
    sandboxes: SandboxFactory, loop_factory: LoopFactory
) -> None:
    actions = {
        "order.confirmed": "ConfirmOrder",
        "order.shipped": "ConfirmShipment",
        "order.delivered": "ConfirmDelivery",
        "order.cancelled": "ConfirmCancellation",
        "order.completed": "ConfirmCompletion",
        "order.custom": "Custom",
    }
    sandbox = sandboxes(partitions=2)
    with Engage() as engage, RelayThread(sandbox, engage.url, loop_factory=loop_factory), Books(sandbox) as books:
        events = []
        for kind in actions:
            order = order_id(kind)
            events.append((order, event(order, kind=kind, engage={"jobId": engage.submit(order)})))
        publish(sandbox, events)
        books.wait_until_settled()
        assert {each.order_id: each.action for each in engage.accepted} == {order_id(k): a for k, a in actions.items()}
        assert len(engage.accepted) == len(actions)
        assert books.dead_letters == []


def test_data_and_language_arrive_as_they_were(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    data = {"a": [1, 2.5, None, True, {"ö": 'å\u2028\n"\\'}], "n": 2**63 - 1, "x": {}, "y": [], "e": 1e300}
    order = order_id("data")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(order)
        publish(sandbox, [(order, event(order, data=data, language="sv-SE"))])
        books.wait_until_settled()
        (accepted,) = engage.accepted
        assert (accepted.data, accepted.language) == (data, "sv-SE")


def test_without_data_and_language_none_are_sent(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("bare")
    with ScriptedEngage(tagged_order) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(order, json.dumps({"type": "order.shipped", "orderId": order}).encode())])
        books.wait_until_settled()
        (action,) = engage.actions()
        assert json.loads(action.body) == {"action": "ConfirmShipment", "versionTag": "tag-1"}


def test_a_version_tag_in_the_event_is_sent_at_once(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("tagged")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(order)
        publish(sandbox, [(order, event(order, engage={"versionTag": engage.tag(order)}))])
        books.wait_until_settled()
        assert dict(engage.requests) == {("action", "202"): 1}


def test_a_job_in_the_event_is_polled_until_it_is_processed(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("job")
    statuses = iter(["Queued", "Processing", "Processing", "Completed"])

    def script(asked: Asked) -> Reply:
        if asked.method == "POST":
            return Reply(202)
        status = next(statuses)
        return Reply(200, {"status": status} | ({"versionTag": "tag-1"} if status == "Completed" else {}))

    with ScriptedEngage(script) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(order, event(order, engage={"jobId": "job-1"}))])
        books.wait_until_settled()
        paths = [each.path for each in engage.asked]
        assert paths == ["/api/v3/orders/jobs/job-1"] * 4 + [f"/api/v3/orders/{order}/action"]


def test_a_tag_learnt_for_a_job_spares_the_order_s_next_action_its_poll(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("learnt")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        job = engage.submit(order)
        publish(sandbox, [(order, event(order, number, engage={"jobId": job})) for number in (1, 2, 3)])
        books.wait_until_settled()
        assert dict(engage.requests) == {("job", "200"): 1, ("action", "202"): 3}


def test_with_neither_tag_nor_job_the_order_is_polled(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("order")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(order)
        publish(sandbox, [(order, event(order))])
        books.wait_until_settled()
        assert dict(engage.requests) == {("order", "200"): 1, ("action", "202"): 1}


def test_an_order_older_than_the_event_says_counts_as_not_yet_processed(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("newer")
    changes = iter(["2026-01-01T00:00:00Z", "2026-01-01T23:59:59Z", "2026-01-02T12:00:00+02:00"])

    def script(asked: Asked) -> Reply:
        if asked.method == "POST":
            return Reply(202)
        return Reply(200, {"orderId": order, "versionTag": "tag-1", "lastChangedAt": next(changes)})

    with ScriptedEngage(script) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(order, event(order, engage={"newerThan": "2026-01-02T00:00:00Z"}))])
        books.wait_until_settled()
        assert [each.method for each in engage.asked] == ["GET", "GET", "GET", "POST"]


def test_an_order_document_is_posted_then_its_job_is_polled(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("document")
    document = document_of(order)
    with Engage(processing="fixed:300ms") as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(order, event(order, order=document))])
        books.wait_until_settled()
        assert engage.requests["document", "202"] == 1
        assert engage.requests["job", "200"] >= 1
        assert engage.events_of(order) == [1]


def test_a_document_of_an_order_that_exists_replaces_it(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("exists")
    document = document_of(order)
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(order)
        old = engage.tag(order)
        publish(sandbox, [(order, event(order, order=document))])
        books.wait_until_settled()
        assert (engage.requests["document", "409"], engage.requests["document", "202"]) == (1, 1)
        (accepted,) = engage.accepted
        assert accepted.version_tag != old


def test_a_completed_job_that_redirects_to_its_order_is_followed(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("redirected")
    with Engage(moods=REDIRECTED) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)}))])
        books.wait_until_settled()
        assert dict(engage.requests) == {("job", "302"): 1, ("order", "200"): 1, ("action", "202"): 1}


def test_what_follows_a_call_is_within_the_rate_limit_as_well(sandboxes: SandboxFactory) -> None:
    """Each poll is redirected, each document exists already: two requests for one permit of the pace."""
    sandbox, rate_limit = sandboxes(partitions=3), 40
    redirected = [order_id(f"redirected-{n}") for n in range(40)]
    existing = [order_id(f"existing-{n}") for n in range(10)]
    with Engage(moods=REDIRECTED) as engage, Books(sandbox) as books:
        for order in existing:
            engage.submit(order)
        events = [(order, event(order, engage={"jobId": engage.submit(order)})) for order in redirected]
        events += [(order, event(order, order=document_of(order))) for order in existing]
        publish(sandbox, events)
        with RelayThread(sandbox, engage.url, requests_per_second=rate_limit):
            books.wait_until_settled()
        assert len(engage.accepted) == len(events)
        assert engage.requests["order", "200"] >= len(redirected)
        assert engage.requests["document", "202"] == engage.requests["document", "409"] == len(existing)
        # Counted where they arrive: what Engage had no processor for falls into the next second.
        assert engage.max_in_a_second() <= (1 + engage.stood_still_s) * rate_limit + 2


def test_events_that_no_route_wants_and_tombstones_are_ignored_and_counted(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("after")
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay, Books(sandbox) as books:
        engage.submit(order)
        publish_raw(sandbox, [Raw(b"k", None), Raw(b"k", b'{"type": "order.paid"}'), Raw(b"k", event(order))])
        books.wait_until_settled()
        assert engage.events_of(order) == [1]
        assert books.dead_letters == []
        assert relay.metric("tombstones_ignored_total", topic=sandbox.topics.source) == 1
        assert relay.metric("events_unrouted_total", topic=sandbox.topics.source) == 1


def test_what_a_second_relay_on_the_source_redrives_is_not_mailed_again_by_the_first(
    sandboxes: SandboxFactory, topics: TopicFactory, figures: Figures
) -> None:
    """Staging reads production's source. Its redrive writes to the source, which production reads."""
    sandbox = sandboxes()
    order, ours = order_id("redriven"), order_id("our-own")
    source = sandbox.topics.source
    elsewhere = RelayTopics(source, "unused", topics("staging.dead-letters"))
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay:
        for each in (order, ours):
            engage.submit(each)
        publish(sandbox, [(order, event(order))])
        until(lambda: engage.events_of(order) == [1], "production's relay sends it")
        redrive_one(sandbox, elsewhere, order)
        until(lambda: relay.metric("foreign_redrives_ignored_total", topic=source), "it is ignored")
        redrive_one(sandbox, sandbox.topics, ours)
        until(lambda: engage.events_of(ours) == [1], "what was redriven from its own dead letters is sent")
        assert engage.events_of(order) == [1]
        assert relay.metric("foreign_redrives_ignored_total", topic=source) == 1
        figures(ignored=1, sent=len(engage.accepted))


def redrive_one(sandbox: Sandbox, topics: RelayTopics, order: str) -> None:
    """Put the dead letter of an order's event on the topic, and redrive it, for a group of its own."""
    at = SourceEvent(
        topic=topics.source, partition=0, offset=0, timestamp_ms=None, key=order.encode(), value=event(order)
    )
    dead_letter = dead_letter_of_event(at, Reason.REJECTED, "why", 1.0)
    producer = Producer(clients.base(sandbox.properties))
    producer.produce(topics.dead_letters, dead_letter.value, dead_letter.key, 0, headers=dead_letter.headers)
    assert producer.flush(PATIENCE_S) == 0
    properties = {**sandbox.properties, "group.id": f"{topics.dead_letters}-group"}
    (done,) = redrive(properties, [topics], Selection(), dry_run=False)
    assert isinstance(done, Redrive)
    assert done.result == "redriven"


def test_an_action_goes_to_the_connection_that_the_event_names(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("elsewhere")
    with Engage() as here, Engage() as there, Books(sandbox) as books:
        with RelayThread(sandbox, {"default": here.url, "finland": there.url}):
            there.submit(order)
            publish(sandbox, [(order, event(order, engage={"connection": "finland"}))])
            books.wait_until_settled()
        assert (there.events_of(order), here.requests.total()) == ([1], 0)


@pytest.mark.long
def test_back_pressure_bounds_what_is_open_and_loses_nothing(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    limit, parked, waiting = 50, 100, 2000
    orders = [order_id(number) for number in range(waiting)]
    with Engage() as engage, Books(sandbox) as books:
        for order in orders:
            engage.submit(order)
        publish(sandbox, [(order, event(order)) for order in orders])
        engage.down()  # so that nothing leaves while the source would bring everything
        with RelayThread(sandbox, engage.url, max_pending=limit, max_parked=parked, requests_per_second=2000) as relay:
            until(lambda: relay.metric("source_paused"), "the source is paused")
            engage.up()
            books.wait_until_settled()
            assert (
                relay.metric("rebalances_total", kind="lost") == relay.metric("rebalances_total", kind="revoked") == 0
            )
        assert books.max_live <= limit + parked + 2 * MAX_RECORDS
        assert sorted(each.order_id for each in engage.accepted) == sorted(orders)
