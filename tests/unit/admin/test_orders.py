"""/orders/ID on the admin port: the page, the JSON, and what keeps it from being a burden."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from consumer.admin import orders as admin_orders
from consumer.admin.order_page import order_page
from consumer.admin.orders import Answer, NotLookedUp, Orders
from consumer.admin.server import AdminServer, Health
from consumer.events.routing.router import Router
from consumer.kafka.orders.history import Search
from consumer.kafka.orders.lookup import Nothing, WrongQuestionError
from consumer.kafka.orders.timeline import At, Entry, Searched, Step, Timeline
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import Snapshot

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
SEARCH = Search(properties={}, router=cast("Router", None), dead_letter_topics=())
SEARCHED = [Searched("orders", 3, 1200, 1_000)]
ENTRY = Entry(
    at=At("orders", 3, 17),
    state="dead_letter",
    route="shipped",
    action="ConfirmShipment",
    connection="default",
    reason="rejected",
    steps=[Step(1_764_230_400_000, "the event is in the source"), Step(None, "<b>it is escaped</b>")],
)


class Looked:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = Timeline("A/1", [ENTRY], SEARCHED, [])
        self.asked: list[tuple[str, str | None]] = []

    def look_up(self, order_id: str, connection: str | None = None) -> Answer:
        self.asked.append((order_id, connection))
        return self.answer


class Server:
    def __init__(self) -> None:
        self.looked = Looked()
        published = Snapshot(), Flow()
        self.server = AdminServer(
            ("127.0.0.1", 0),
            CollectorRegistry(),
            lambda: Health(joined=True),
            lambda: published,
            orders=cast("Orders", self.looked),
        )

    def ask(self, path: str, accept: str = "application/json", method: str = "GET") -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)) as connection:
            connection.request(method, path, headers={"Accept": accept})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.server.start()
    yield made
    made.server.close()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/orders/A-1", ("A-1", None)),
        ("/orders/A%2F1%20b", ("A/1 b", None)),
        ("/orders/A/1", ("A/1", None)),
        ("/orders?id=+A-1+", ("A-1", None)),
        ("/orders/A-1?connection=acme", ("A-1", "acme")),
    ],
)
def test_an_order_is_asked_for_by_its_address_or_by_the_form(
    server: Server, path: str, asked: tuple[str, str | None]
) -> None:
    assert server.ask(path)[0] == 200
    assert server.looked.asked == [asked]


def test_a_program_gets_json_and_a_browser_a_page_in_which_everything_is_escaped(server: Server) -> None:
    found = json.loads(server.ask("/orders/A-1")[1])
    (entry,) = found["entries"]
    assert entry["state"] == "dead_letter"
    assert entry["place"] == {"topic": "orders", "partition": 3, "offset": 17, "item": None, "incarnation": 0}
    page = server.ask("/orders/A-1", BROWSER)[1]
    assert "ConfirmShipment (route shipped, connection default)" in page
    assert "dead letter (rejected)" in page
    assert "&lt;b&gt;it is escaped&lt;/b&gt;" in page
    assert 'action="../orders"' in page
    assert "<b>" not in page
    assert "2025-11-27 08:00:00.000Z</time>" in page


def test_a_time_that_there_is_not_is_shown_as_it_is() -> None:
    entry = replace(ENTRY, steps=[Step(1_790_000_000_000_000, "it happened")])
    assert "<td>1790000000000000</td>" in order_page("A-1", Timeline("A-1", [entry], [], []), up="")


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (Nothing("A", "partition 3", SEARCHED, []), 404, "Nothing found"),
        (Nothing("A", "partition 3", [], ["orders[3]: a transaction is open"]), 504, "a transaction is open"),
        (NotLookedUp(503, "another order is looked up"), 503, "another order is looked up"),
        (NotLookedUp(400, "several connections"), 400, "several connections"),
    ],
)
def test_what_is_not_found_says_so_in_its_status_too(server: Server, answer: Answer, status: int, text: str) -> None:
    server.looked.answer = answer
    found, page = server.ask("/orders/A-1", BROWSER)
    assert (found, text in page) == (status, True)
    assert server.ask("/orders/A-1")[0] == status


def test_it_is_read_only_and_nothing_else_below_orders_is_there(server: Server) -> None:
    assert server.ask("/orders/A-1", method="POST")[0] == 405
    assert server.ask("/orders")[0] == 404
    assert server.looked.asked == []


def test_the_status_page_searches_where_orders_can_be_looked_up(server: Server) -> None:
    assert '<form action="orders" method="get"' in server.ask("/status", BROWSER)[1]


def test_one_order_is_looked_up_at_a_time_and_the_next_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> Nothing:
        begun.set()
        assert end.wait(10)
        return Nothing("A", "", [], [])

    monkeypatch.setattr(admin_orders, "look_up", look_up)
    orders = Orders([], lambda: SEARCH)
    first = threading.Thread(target=orders.look_up, args=("A",))
    first.start()
    assert begun.wait(10)
    refused = orders.look_up("B")
    assert isinstance(refused, NotLookedUp)
    assert refused.status == 503
    end.set()
    first.join()
    assert isinstance(orders.look_up("B"), Nothing)


def test_a_question_that_cannot_be_answered_is_the_askers_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> Nothing:
        raise WrongQuestionError("several connections have it")

    monkeypatch.setattr(admin_orders, "look_up", look_up)
    orders = Orders([], lambda: SEARCH)
    assert orders.look_up("A") == NotLookedUp(400, "several connections have it")
