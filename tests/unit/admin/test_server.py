"""Probes tell what a restart can cure; the server answers whoever asks, whatever others do."""

from __future__ import annotations

import errno
import gzip
import http.client
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from socketserver import TCPServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from consumer.admin import server
from consumer.admin.server import HEARTBEAT_LIMITS_S, AdminServer, Health, Heartbeats, not_alive, not_ready, rather_html
from consumer.admin.status_model import Status
from consumer.errors import ListenError
from consumer.telemetry.metrics import Metrics, Thread
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import Snapshot
from tests.support.waiting import until
from tests.unit.admin import status_sample

WELL = Health(heartbeat_ages_s={"event_loop": 0.5, "consumer": 0.5}, joined=True)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def NOTHING() -> tuple[Snapshot, Flow]:  # noqa: N802 - a constant that is called
    return Snapshot(), Flow()


# -- what the probes are judged by ------------------------------------------------------------------------------


def test_fresh_heartbeats_are_all_that_life_needs() -> None:
    assert not_alive(WELL) == []
    assert not_alive(Health(heartbeat_ages_s=WELL.heartbeat_ages_s, joined=False, draining=True)) == []


def test_a_process_that_still_starts_is_not_restarted() -> None:
    assert not_alive(Health()) == []


def test_a_consumer_that_is_held_by_a_revoke_is_not_restarted() -> None:
    assert not_alive(Health(heartbeat_ages_s={"event_loop": 1, "consumer": 20 + 1})) == []


@pytest.mark.parametrize("thread", ["event_loop", "consumer"])
def test_a_stuck_thread_is_named(thread: Thread) -> None:
    limit_s = HEARTBEAT_LIMITS_S[thread]
    assert not_alive(Health(heartbeat_ages_s={thread: limit_s})) == []
    (wrong,) = not_alive(Health(heartbeat_ages_s={**WELL.heartbeat_ages_s, thread: limit_s + 1}))
    assert wrong.startswith(f"{thread}: no heartbeat for {limit_s + 1:.0f} s")


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    wrong = not_alive(Health(heartbeat_ages_s={"event_loop": 100, "consumer": 100}, fatal="_FENCED"))
    assert [each.partition(":")[0] for each in wrong] == ["event_loop", "consumer", "fatal client error"]


def test_ready_once_the_group_was_joined_until_draining() -> None:
    assert not_ready(Health()) == ["has not joined the consumer group yet"]
    assert not_ready(Health(waiting="waiting for Kafka at a:1: refused")) == ["waiting for Kafka at a:1: refused"]
    assert not_ready(Health(joined=True)) == []
    assert not_ready(Health(joined=True, draining=True)) == ["draining"]


def test_readiness_does_not_ask_for_life() -> None:
    assert not_ready(Health(heartbeat_ages_s={"consumer": 1e6}, fatal="_FENCED", joined=True)) == []


def test_a_heartbeat_ages_until_the_next_one() -> None:
    now = [100.0]
    beats = Heartbeats(lambda: now[0])
    assert beats.ages() == {}
    beats.beat("consumer")
    now[0] = 107.0
    beats.beat("event_loop")
    assert beats.ages() == {"consumer": 7.0, "event_loop": 0.0}


def test_a_thread_that_ended_on_purpose_is_not_stuck() -> None:
    now = [0.0]
    beats = Heartbeats(lambda: now[0])
    beats.beat("consumer")
    beats.ended("consumer")
    now[0] = 1e6
    assert not_alive(Health(heartbeat_ages_s=beats.ages(), draining=True)) == []


def test_the_heartbeats_that_are_judged_are_those_that_are_measured() -> None:
    registry, beats = CollectorRegistry(), Heartbeats(lambda: 5.0)
    Metrics(registry).watch_heartbeats(beats.ages)
    beats.beat("consumer")
    assert registry.get_sample_value("engage_relay_heartbeat_age_seconds", {"thread": "consumer"}) == 0


# -- the server -------------------------------------------------------------------------------------------------


class Process:
    """A process whose health can be set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.health: Callable[[], Health] = lambda: WELL
        self.published = Snapshot(), Flow()
        self.server = AdminServer(
            ("127.0.0.1", 0), self.registry, self.ask_health, lambda: self.published, connection_s=60.0
        )

    def ask_health(self) -> Health:
        return self.health()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=10)

    def raw(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return remaining(client)


def remaining(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while chunk := client.recv(65536):
        received += chunk
    return received


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(server, "CHECK_S", 0.01)  # so that the tests end soon
    process = Process()
    process.server.start()
    yield process
    process.server.close()


def test_a_healthy_process_says_ok(process: Process) -> None:
    assert process.ask("/healthz")[:2] == (200, "ok\n")
    assert process.ask("/readyz")[:2] == (200, "ok\n")


def test_a_sick_process_says_what_is_wrong(process: Process) -> None:
    process.health = lambda: Health(heartbeat_ages_s={"event_loop": 31}, fatal="_FATAL", draining=True)
    assert process.ask("/healthz")[:2] == (
        503,
        "event_loop: no heartbeat for 31 s (limit 30 s)\nfatal client error: _FATAL\n",
    )
    assert process.ask("/readyz")[:2] == (503, "has not joined the consumer group yet\ndraining\n")


def test_a_scrape_holds_the_registrys_metrics(process: Process) -> None:
    Counter("parcels", "Parcels.", registry=process.registry).inc(3)
    status, body, headers = process.ask("/metrics?name=x")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    (family, *_) = text_string_to_metric_families(body)
    assert (family.name, family.samples[0].value) == ("parcels", 3)


def test_a_scrape_is_open_metrics_with_exemplars_for_who_asks_for_it(process: Process) -> None:
    metrics = Metrics(process.registry)
    metrics.accepted("default", "ConfirmOrder", 12.0, 0.1, "4bf92f3577b34da6a3ce929d0e0e4736")
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    with urllib.request.urlopen(urllib.request.Request(process.url("/metrics"), headers={"Accept": accept})) as answer:
        body = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    exemplars = {
        (sample.name, sample.exemplar.labels["trace_id"])
        for family in open_metrics(body)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    }
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    names = ("event_to_accepted_seconds_bucket", "tag_ready_to_accepted_seconds_bucket")
    assert exemplars == {(f"engage_relay_{name}", trace_id) for name in names}


@pytest.mark.parametrize(
    ("asked", "packed"),
    [
        ("gzip", True),
        ("br;q=1, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/status"])
def test_what_is_long_is_compressed_for_who_can_read_it(process: Process, path: str, asked: str, packed: bool) -> None:
    Metrics(process.registry)
    plain = urllib.request.urlopen(process.url(path)).read()
    request = urllib.request.Request(process.url(path), headers={"Accept-Encoding": asked})
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
        assert (answer.headers["Content-Encoding"] == "gzip") is packed
        assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    if packed:
        assert len(body) < len(plain) / 3
        body = gzip.decompress(body)
    assert body[:300] == plain[:300]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/status", "/status.json"])
def test_head_is_get_without_the_body(process: Process, path: str) -> None:
    Counter("parcels", "Parcels.", registry=process.registry)
    status, body, headers = process.ask(path, "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) == len(process.ask(path)[1])


@pytest.mark.parametrize("path", ["/status/", "/index.html", "/healthz/", "/../metrics", "/favicon.ico", "//x"])
def test_other_paths_are_not_found(process: Process, path: str) -> None:
    assert process.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_only_reading_is_allowed(process: Process, method: str) -> None:
    status, _, headers = process.ask("/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


# -- the status page --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/*; q=0.4 , application/json;q=0.3", True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("text/html;q=0", False),
        ("text/html;q=0.5, */*", False),
        ("text/html, application/json", False),
        ("text/html;q=nonsense", False),
        (";,;;q=,=", False),
    ],
)
def test_who_names_html_first_gets_html_and_everybody_else_json(process: Process, accept: str, html: bool) -> None:
    assert rather_html(accept) is html
    _, body, headers = process.ask("/status", Accept=accept)
    assert headers["Content-Type"] == ("text/html; charset=utf-8" if html else "application/json")
    assert headers["Vary"] == "Accept, Accept-Encoding"
    assert body.startswith("<!doctype html>") if html else Status.model_validate_json(body)


def test_status_json_is_json_for_browsers_too(process: Process) -> None:
    assert json.loads(process.ask("/status.json", Accept=BROWSER)[1])["state"] == "starting"


def test_the_root_leads_to_the_status_page_under_whatever_path_a_proxy_serves_it(process: Process) -> None:
    status, _, headers = process.ask("/")
    assert (status, headers["Location"]) == (302, "status")


def test_the_page_may_load_and_run_nothing_but_its_own(process: Process) -> None:
    headers = process.ask("/status", Accept=BROWSER)[2]
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert policy.pop("style-src").startswith("'sha256-")
    assert policy.pop("script-src").startswith("'sha256-")
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_while_the_event_loop_is_stuck_the_status_says_how_old_its_figures_are(process: Process) -> None:
    process.published = status_sample.snapshot(), status_sample.flow()
    process.health = lambda: Health(heartbeat_ages_s={"event_loop": 47.0}, joined=True)
    status = Status.model_validate_json(process.ask("/status")[1])
    assert (status.state, status.age_s) == ("stuck", 47.0)
    assert status.attention[0] == "event_loop: no heartbeat for 47 s (limit 30 s)"
    assert "has not shown life for 47 s" in process.ask("/status", Accept=BROWSER)[1]


# -- whoever asks -----------------------------------------------------------------------------------------------


def test_no_answer_names_the_server_or_its_version(process: Process) -> None:
    for path in ("/metrics", "/nowhere"):
        headers = process.ask(path)[2]
        assert "Server" not in headers
    assert b"server" not in process.raw(b"rubbish\r\n\r\n").lower()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * (8 << 10) + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\na: " + b"b" * (65 << 10) + b"\r\n\r\n", b"431"),
        (b"marker marker marker marker\r\n\r\n", b"400"),
        (b"GET /healthz marker/1.1\r\n\r\n", b"400"),
    ],
    ids=["long line", "many headers", "long header", "no request", "no version"],
)
def test_what_is_too_large_or_no_request_is_refused_unechoed(process: Process, request_: bytes, status: bytes) -> None:
    with process.connect() as client:
        client.sendall(request_)
        head = client.recv(65536)
    assert status in head.split(b"\r\n")[0]
    assert b"marker" not in head


def test_a_client_that_says_nothing_keeps_nobody_waiting(process: Process) -> None:
    with process.connect(), process.connect() as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost")
        assert process.ask("/healthz")[0] == 200


def test_a_page_that_does_not_come_keeps_nobody_waiting(process: Process) -> None:
    asked, answer = threading.Event(), threading.Event()

    def stuck() -> Health:
        asked.set()
        answer.wait(10)
        return WELL

    process.health = stuck
    with process.connect() as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert asked.wait(10)
        assert process.ask("/metrics")[0] == 200
        answer.set()
        assert remaining(waiting).endswith(b"ok\n")


def test_the_oldest_connection_makes_room_for_a_new_one(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with process.connect() as oldest, process.connect() as second, process.connect() as third:
        assert remaining(oldest) == b""
        for client in (second, third):
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert remaining(client).endswith(b"ok\n")


def test_without_a_free_descriptor_it_does_not_ask_for_one_without_pause(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    take = TCPServer.get_request

    def none_is_free(_: TCPServer) -> tuple[socket.socket, object]:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(TCPServer, "get_request", none_is_free)
    with process.connect() as client:
        time.sleep(0.5)
        assert 0 < tries <= 6
        monkeypatch.setattr(TCPServer, "get_request", take)
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200" in remaining(client)


def test_a_slow_client_is_cut_off_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CHECK_S", 0.01)
    admin = AdminServer(("127.0.0.1", 0), CollectorRegistry(), lambda: WELL, NOTHING, connection_s=0.05)
    admin.start()
    try:
        with socket.create_connection(("127.0.0.1", admin.port), timeout=10) as slow:
            slow.sendall(b"GET /heal")
            # Cut off in the middle of a line, it gets a refusal or nothing, but surely the end.
            assert b"200" not in remaining(slow)
    finally:
        admin.close()


class Slow(Collector):
    """Takes as long as it is told, and tells how many ask it at once."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()
        self.at_once, self.most_at_once = 0, 0

    def collect(self) -> Iterable[Metric]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.set()
        self.answer.wait(10)
        self.at_once -= 1
        return []

    def describe(self) -> Iterable[Metric]:
        return []


def test_an_answer_that_takes_longer_than_a_client_may_is_given_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = server._Server.service_actions

    def counted(of: server._Server) -> None:
        nonlocal looks
        looks += 1
        look(of)

    monkeypatch.setattr(server, "CHECK_S", 0.01)
    monkeypatch.setattr(server._Server, "service_actions", counted)
    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    admin = AdminServer(("127.0.0.1", 0), registry, lambda: WELL, NOTHING, connection_s=0.05)
    admin.start()
    try:
        with socket.create_connection(("127.0.0.1", admin.port), timeout=10) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert slow.asked.wait(10)
            before = looks
            until(lambda: looks > before + 10, "connections that are too old were looked for, ten times")
            slow.answer.set()
            assert b" 200 " in remaining(client).partition(b"\r\n")[0]
    finally:
        slow.answer.set()
        admin.close()


def test_one_scrape_is_made_at_a_time(process: Process) -> None:
    slow = Slow()
    process.registry.register(slow)
    with process.connect() as first, process.connect() as second:
        first.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert slow.asked.wait(10)
        second.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert process.ask("/healthz")[0] == 200
        slow.answer.set()
        assert b" 200 " in remaining(first).partition(b"\r\n")[0]
        assert b" 200 " in remaining(second).partition(b"\r\n")[0]
    assert slow.most_at_once == 1


def test_no_request_is_logged(process: Process, capfd: pytest.CaptureFixture[str]) -> None:
    process.ask("/healthz")
    process.ask("/nowhere")
    process.raw(b"rubbish\r\n\r\n")
    with process.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
    process.server.close()
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_our_own_is_logged_and_answers_nothing(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Health:
        raise RuntimeError("broken")

    process.health = broken
    assert process.raw(b"GET /healthz HTTP/1.0\r\n\r\n") == b""
    assert "admin request failed" in caplog.text
    process.health = lambda: WELL
    assert process.ask("/healthz")[0] == 200


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = AdminServer(("127.0.0.1", port), CollectorRegistry(), lambda: WELL, NOTHING)
        with pytest.raises(ListenError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            server.start()
        server.close()


@pytest.mark.parametrize("listen", [("127.0.0.1", 99999), ("a" * 70, 0)])
def test_an_address_that_is_none_is_named(listen: tuple[str, int]) -> None:
    with pytest.raises(ListenError, match=f"^cannot listen on {listen[0]}:{listen[1]}: "):
        AdminServer(listen, CollectorRegistry(), lambda: WELL, NOTHING).start()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_it_listens_on_ipv6_too() -> None:
    server = AdminServer(("::1", 0), CollectorRegistry(), lambda: WELL, NOTHING)
    try:
        server.start()
    except ListenError:
        pytest.skip("no IPv6 loopback here")
    try:
        with closing(http.client.HTTPConnection("::1", server.port, timeout=10)) as connection:
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
    finally:
        server.close()


def test_after_the_end_the_port_is_free_and_a_second_end_is_harmless(process: Process) -> None:
    port = process.server.port
    process.server.close()
    process.server.close()
    with socket.create_server(("127.0.0.1", port)):
        pass
