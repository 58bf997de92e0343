"""/fleet on the admin port: all instances, as `status --all` shows them, and what keeps it from being a burden."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from consumer.admin import fleet
from consumer.admin import server as admin_server
from consumer.admin.fleet import Fleet, Instance, View
from consumer.admin.fleet_page import fleet_page
from consumer.admin.server import AdminServer, Health
from consumer.admin.status_model import Identity
from consumer.config.loading import load
from consumer.errors import ConfigurationError
from tests.unit.admin import fleet_sample, status_sample

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
WELL = Health({"event_loop": 0.4, "consumer": 0.4}, joined=True)
Start = Callable[..., AdminServer]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start an instance that knows of these others."""
    monkeypatch.setattr(admin_server, "CHECK_S", 0.01)
    running: list[AdminServer] = []

    def started(name: str, *others: str) -> AdminServer:
        made = AdminServer(
            ("127.0.0.1", 0),
            CollectorRegistry(),
            lambda: WELL,
            lambda: (status_sample.snapshot(), status_sample.flow()),
            identity=lambda: Identity(name, "engage-relay", "kafka-1"),
            fleet=Fleet(others) if others else None,
        )
        made.start()
        running.append(made)
        return made

    yield started
    for each in running:
        each.close()


def url(of: AdminServer) -> str:
    return f"http://127.0.0.1:{of.port}"


def ask(of: AdminServer, path: str, accept: str = "application/json", method: str = "GET") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", of.port, timeout=10)) as connection:
        connection.request(method, path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_one_instance_shows_all_and_names_those_that_do_not_answer_in_time(
    start: Start, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "TIMEOUT_S", 1.0)
    one = start("relay-1", url(start("relay-0")), silent, "http://127.0.0.1:1")
    code, text = ask(one, "/fleet")
    told = json.loads(text)
    assert code == 200
    assert told["together"] == "1 instances own 4 partitions; 122 actions are pending, lag 15"
    assert [each["status"] and each["status"]["instance"] for each in told["instances"]] == ["relay-0", None, None]
    assert {each["address"]: each["why"] for each in told["instances"] if each["status"] is None} == {
        silent: f"nobody answers at {silent} within 1 s",
        "http://127.0.0.1:1": "nobody answers at http://127.0.0.1:1: connection refused",
    }
    code, page = ask(one, "/fleet", BROWSER)
    assert code == 200
    assert f"nobody answers at {silent} within 1 s" in page
    assert "relay-0: Connection outlet is suspended" in page
    assert json.loads(ask(one, "/fleet.json", BROWSER)[1]).keys() == told.keys()


def test_a_name_that_stands_for_nobody_is_said(start: Start) -> None:
    one = start("relay-0", "http://no-such-host.invalid:8080")
    (gap,) = json.loads(ask(one, "/fleet")[1])["gaps"]
    assert gap == "nobody answers at http://no-such-host.invalid:8080: host name could not be resolved"
    assert "no-such-host.invalid" in ask(one, "/fleet", BROWSER)[1]


def test_the_status_page_leads_there_where_the_instances_are_known(start: Start) -> None:
    alone, known = start("relay-0"), start("relay-1", "http://127.0.0.1:1")
    assert '<a href="fleet">' in ask(known, "/status", BROWSER)[1]
    page = ask(alone, "/status", BROWSER)[1]
    assert '<a href="fleet">' not in page
    assert "engage-relay status --all" in page
    assert ask(alone, "/fleet")[0] == 404


@pytest.mark.parametrize("path", ["/fleet", "/fleet.json"])
def test_it_only_reads(start: Start, path: str) -> None:
    assert ask(start("relay-0", "http://127.0.0.1:1"), path, method="POST")[0] == 405


def test_however_many_look_the_instances_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fleet, "addresses", list)

    def answer(urls: list[str]) -> list[Instance]:
        asked.append(len(urls))
        return [Instance(each, None, "gone") for each in urls]

    monkeypatch.setattr(fleet, "asked", answer)
    seen = Fleet(["http://a", "http://b"])
    first = seen.look()
    assert (seen.look(), asked) == (first, [2])
    monkeypatch.setattr(fleet, "FRESH_S", 0.0)
    seen.look()
    assert asked == [2, 2]


def test_whoever_would_wait_for_another_ones_question_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "TIMEOUT_S", 0.05)
    began, ends = threading.Event(), threading.Event()

    def slow(_: object) -> list[str]:
        began.set()
        assert ends.wait(10)
        return []

    monkeypatch.setattr(fleet, "addresses", slow)
    seen = Fleet(["http://a"])
    first = threading.Thread(target=seen.look)
    first.start()
    assert began.wait(10)
    assert seen.look() is None
    ends.set()
    first.join()


def test_no_more_are_asked_than_a_page_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_INSTANCES", 2)
    monkeypatch.setattr(fleet, "addresses", list)
    monkeypatch.setattr(fleet, "asked", lambda urls: [Instance(each, None, "gone") for each in urls])
    view = Fleet(["http://a", "http://b", "http://c"]).look()
    assert view is not None
    assert len(view.instances) == 2
    assert view.gaps == ["1 more addresses are not asked"]


@pytest.mark.parametrize("wrong", ["relay:8080", "ftp://relay", ""])
def test_an_address_that_is_none_is_refused_at_the_start(wrong: str) -> None:
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": "b:9092",
        "ENGAGE_BASE_URL": "https://acme.voyado.com",
        "ENGAGE_API_KEY": "k",
        "ENGAGE_RELAY__ADMIN__INSTANCES": f'["{wrong}"]',
    }
    with pytest.raises(ConfigurationError, match="admin"):
        load(None, given)


# -- the page -----------------------------------------------------------------------------------------------------


def test_the_page_says_what_all_have_together_and_what_to_look_at() -> None:
    page = fleet_page(fleet_sample.view())
    assert "<title>engage-relay: all instances (4 to look at)</title>" in page
    assert '<dt>Instances</dt><dd class="bad">2<small>1 without an answer</small></dd>' in page
    assert "orders[3] is owned by " in page
    assert '<span class="pill bad">no answer</span>' in page
    assert "2 open, outlet suspended" in page


def test_every_text_of_an_instance_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    view = fleet_sample.view()
    status = view.instances[0].status
    assert status is not None
    said = replace(
        view.instances[0],
        address=f"http://{evil}",
        status=status.model_copy(
            update={
                "instance": evil,
                "version": evil,
                "group": evil,
                "cluster": evil,
                "state": evil,
                "attention": [evil],
            }
        ),
    )
    page = fleet_page(View([said, Instance(evil, None, evil)], [evil]))
    assert evil not in page
    assert page.count("&lt;script&gt;") >= 8


def test_where_nobody_is_known_the_page_says_so() -> None:
    assert "None is known." in fleet_page(View([], ["http://relay: Name or service not known"]))
