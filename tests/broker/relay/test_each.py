"""Several actions from one event: all of them or none, each once, in the order of the items."""

from __future__ import annotations

import json

from consumer.core.places import item_at
from consumer.events.routing.rules import RouteRule
from consumer.kafka.dead_letters.redrive import Selection, redrive
from consumer.kafka.records import place_of_key
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Asked, Engage, Reply, ScriptedEngage
from tests.support.events import Raw, order_id, publish_raw
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

ROUTES = {
    "fulfilled": RouteRule(
        each="parcels",
        action="ConfirmShipment",
        order_id="item.order || id",
        job_id="item.job",
        data="{event: item.number}",
    )
}
PARCELS = 5


def test_the_parcels_of_an_order_are_accepted_in_their_order_also_over_a_restart(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("A")
    with Engage(processing="uniform:300ms..1500ms") as engage, Books(sandbox) as books:
        parcels = [{"number": number, "job": engage.submit(order)} for number in range(1, PARCELS + 1)]
        with RelayThread(sandbox, engage.url, rules=ROUTES):
            publish_raw(sandbox, [Raw(b"k", json.dumps({"id": order, "parcels": parcels}).encode())])
            until(lambda: len(books.read().live) > 0, "the actions are open")
        with RelayThread(sandbox, engage.url, rules=ROUTES):
            books.wait_until_settled()
        assert engage.events_of(order) == list(range(1, PARCELS + 1))
        items = {item_at(place_of_key(key) or 0) for _, key in books.history}
        assert items == set(range(PARCELS))
        assert books.dead_letters == []


def test_a_redriven_dead_letter_of_an_item_is_that_item_alone(sandboxes: SandboxFactory) -> None:
    refused = True

    def answers(asked: Asked) -> Reply:
        if asked.method == "POST" and refused and asked.path.endswith("/B/action"):
            return Reply(400, {"error": "no"})
        if asked.method == "POST":
            return Reply(202, {})
        return Reply(200, {"status": "Completed", "versionTag": "t-1"})

    sandbox = sandboxes()
    event = {"parcels": [{"order": each} for each in ("A", "B", "C")]}
    with ScriptedEngage(answers) as engage, RelayThread(sandbox, engage.url, rules=ROUTES), Books(sandbox) as books:
        publish_raw(sandbox, [Raw(b"k", json.dumps(event).encode())])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert (dead_letter.reason, dead_letter.why.item) == (Reason.REJECTED, 1)
        refused = False
        results = list(redrive(sandbox.properties, [sandbox.topics], Selection(), dry_run=False))
        assert [getattr(each, "result", each) for each in results] == ["redriven"]

        def sent() -> list[str]:
            return sorted(each.path.split("/")[-2] for each in engage.asked if each.method == "POST")

        publish_raw(sandbox, [Raw(b"k", b'{"parcels": [{"order": "D"}]}')])
        until(lambda: sent().count("B") == 2 and "D" in sent(), "the item is sent again, and what came after it")
        assert sent() == ["A", "B", "B", "C", "D"]


def test_an_item_that_cannot_be_used_sends_nothing_of_its_event(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with (
        ScriptedEngage(lambda _: Reply(202, {})) as engage,
        RelayThread(sandbox, engage.url, rules=ROUTES),
        Books(sandbox) as books,
    ):
        publish_raw(sandbox, [Raw(b"k", b'{"parcels": [{"order": "A"}, {"order": ".."}]}')])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.why.detail.startswith("item 1: order_id: ")
        assert engage.asked == []
