"""The simulator over HTTP: every endpoint and status of Engage's order API, keys, rate, and the control endpoints."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvloop

from consumer.simulator import Moods, Simulator, SimulatorOptions

NOON = 1_762_171_200.0  # 2025-11-03T12:00:00Z
ORDERS = "/api/v3/orders"
JSON = {"Content-Type": "application/json"}
DOCUMENT = {"orderId": "A-1", "contact": {"matchKey": "a@example.com", "matchKeyType": "Email"}, "status": "Confirmed"}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@dataclass
class SetClock:
    """A clock that stands still until it is moved."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulated:
    """A running simulator and a client of it."""

    simulator: Simulator
    clock: SetClock
    client: httpx.Client = field(repr=False)

    def pass_seconds(self, seconds: float) -> None:
        self.clock.now += seconds

    def create(self, order_id: str = "A-1") -> str:
        answer = self.client.post(ORDERS, json=DOCUMENT | {"orderId": order_id})
        assert answer.status_code == 202
        return str(answer.json()["jobId"])

    def tag(self, order_id: str = "A-1") -> str | None:
        found = self.client.get(f"{ORDERS}/{order_id}").json().get("versionTag")
        return None if found is None else str(found)

    def act(self, tag: str | None, order_id: str = "A-1", **more: object) -> httpx.Response:
        body = {"action": "ConfirmOrder", "versionTag": tag} | more
        return self.client.post(f"{ORDERS}/{order_id}/action", json=body)

    def account(self, query: str = "") -> dict[str, object]:
        found: dict[str, object] = httpx.get(f"{self.simulator.url}/simulator/account{query}").json()
        return found


@contextmanager
def simulating(options: SimulatorOptions, loop: str = "asyncio") -> Iterator[Simulated]:
    """Run a simulator in a thread of its own, on a clock that only the test moves."""
    clock = SetClock()
    simulator = Simulator(options, clock=clock)
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with simulator:
            ready.set()
            await stop.wait()

    runner = asyncio.Runner(loop_factory=LOOPS[loop])
    thread = threading.Thread(target=lambda: runner.run(serve()))
    with runner:
        event_loop = runner.get_loop()
        thread.start()
        try:
            assert ready.wait(10)
            headers = {"apikey": "key", "User-Agent": "test/1", "Content-Type": "application/json"}
            with httpx.Client(base_url=simulator.url, headers=headers, trust_env=False, timeout=10) as client:
                yield Simulated(simulator, clock, client)
        finally:
            event_loop.call_soon_threadsafe(stop.set)
            thread.join(10)


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    with simulating(SimulatorOptions(processing="fixed:2s")) as running:
        yield running


# Orders


def test_a_created_order_is_taken_with_a_job(simulated: Simulated) -> None:
    answer = simulated.client.post(ORDERS, json=DOCUMENT)
    job = answer.json()
    assert answer.status_code == 202
    assert (job["orderId"], job["status"]) == ("A-1", "Processing")
    assert job["href"] == f"{ORDERS}/jobs/{job['jobId']}"


def test_an_order_is_created_once(simulated: Simulated) -> None:
    simulated.create()
    assert simulated.client.post(ORDERS, json=DOCUMENT).status_code == 409


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"{}", b'{"orderId": 7}', b'{"orderId": "A", "contact": 1}'])
def test_a_document_that_is_wrong_is_refused_with_a_list_of_errors(simulated: Simulated, body: bytes) -> None:
    answer = simulated.client.post(ORDERS, content=body)
    assert answer.status_code == 400
    assert all(error["message"] for error in answer.json())
    assert len(answer.json()) == 1


def test_an_order_shows_no_tag_until_its_first_version_is_processed(simulated: Simulated) -> None:
    simulated.create()
    assert simulated.tag() is None
    simulated.pass_seconds(2)
    order = simulated.client.get(f"{ORDERS}/A-1").json()
    assert order["versionTag"]
    assert order["status"] == "Confirmed"


def test_an_order_that_nobody_created_is_not_found(simulated: Simulated) -> None:
    assert simulated.client.get(f"{ORDERS}/A-1").status_code == 404
    assert simulated.client.put(f"{ORDERS}/A-1", json=DOCUMENT).status_code == 404
    assert simulated.client.delete(f"{ORDERS}/A-1").status_code == 404
    assert simulated.client.post(f"{ORDERS}/A-1/change-status", json={"status": "Shipped"}).status_code == 404
    assert simulated.act("tag").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "", DOCUMENT | {"status": "Shipped"}),
        ("POST", "/change-status", {"status": "Shipped"}),
        ("POST", "/change-delivery", {"method": "Pickup"}),
    ],
)
def test_a_change_makes_a_new_version_and_the_old_tag_stale(
    simulated: Simulated, method: str, path: str, body: dict[str, object]
) -> None:
    simulated.create()
    simulated.pass_seconds(2)
    old = simulated.tag()
    answer = simulated.client.request(method, f"{ORDERS}/A-1{path}", json=body)
    assert answer.status_code == 202
    assert simulated.tag() == old
    assert simulated.act(old).status_code == 202
    simulated.pass_seconds(2)
    job = simulated.client.get(answer.json()["href"]).json()
    assert job["versionTag"] == simulated.tag() != old
    assert simulated.act(old).status_code == 404
    assert simulated.act(simulated.tag()).status_code == 202


def test_a_changed_status_and_delivery_are_seen_in_the_order(simulated: Simulated) -> None:
    simulated.create()
    simulated.client.post(f"{ORDERS}/A-1/change-status", json={"status": "Shipped"})
    simulated.client.post(f"{ORDERS}/A-1/change-delivery", json={"method": "Pickup"})
    simulated.pass_seconds(2)
    order = simulated.client.get(f"{ORDERS}/A-1").json()
    assert (order["status"], order["delivery"], order["contact"]) == (
        "Shipped",
        {"method": "Pickup"},
        DOCUMENT["contact"],
    )


def test_a_replacement_for_another_order_is_refused(simulated: Simulated) -> None:
    simulated.create()
    assert simulated.client.put(f"{ORDERS}/A-1", json=DOCUMENT | {"orderId": "A-2"}).status_code == 400


def test_a_deleted_order_is_gone_when_its_job_is_done(simulated: Simulated) -> None:
    simulated.create()
    simulated.pass_seconds(2)
    answer = simulated.client.delete(f"{ORDERS}/A-1")
    assert answer.status_code == 202
    assert simulated.client.get(f"{ORDERS}/A-1").status_code == 200
    simulated.pass_seconds(2)
    assert simulated.client.get(f"{ORDERS}/A-1").status_code == 404
    job = simulated.client.get(answer.json()["href"]).json()
    assert job["status"] == "Completed"
    assert "versionTag" not in job
    simulated.create()


# Jobs


def test_a_job_is_processing_and_then_completed_with_the_tag(simulated: Simulated) -> None:
    job = f"{ORDERS}/jobs/{simulated.create()}"
    simulated.pass_seconds(1.9)
    processing = simulated.client.get(job)
    assert (processing.status_code, processing.json()["status"]) == (200, "Processing")
    assert "versionTag" not in processing.json()
    simulated.pass_seconds(0.2)
    completed = simulated.client.get(job)
    assert (completed.status_code, completed.json()["status"]) == (200, "Completed")
    assert (completed.json()["orderId"], completed.json()["versionTag"]) == ("A-1", simulated.tag())


def test_a_completed_job_redirects_to_its_order_where_so_chosen() -> None:
    with simulating(SimulatorOptions(processing="fixed:2s", moods=Moods(redirects=("relative=1",)))) as simulated:
        job = f"{ORDERS}/jobs/{simulated.create('A/1 å')}"
        assert simulated.client.get(job).status_code == 200
        simulated.pass_seconds(2)
        answer = simulated.client.get(job)
        assert answer.status_code == 302
        assert answer.headers["location"] == f"{ORDERS}/A%2F1%20%C3%A5"
        assert simulated.client.get(job, follow_redirects=True).json()["versionTag"]


def test_a_failed_job_answers_with_an_error_and_leaves_no_order() -> None:
    with simulating(SimulatorOptions(processing="instant", failing=1)) as simulated:
        answer = simulated.client.get(f"{ORDERS}/jobs/{simulated.create()}")
        assert (answer.status_code, answer.json()["status"]) == (422, "Failed")
        assert answer.json()["errors"]
        assert simulated.client.get(f"{ORDERS}/A-1").status_code == 404


def test_a_job_that_never_completes_stays_processing() -> None:
    with simulating(SimulatorOptions(processing="instant", stuck=1)) as simulated:
        job = f"{ORDERS}/jobs/{simulated.create()}"
        simulated.pass_seconds(1e7)
        assert simulated.client.get(job).json()["status"] == "Processing"


def test_an_unknown_job_is_not_found(simulated: Simulated) -> None:
    assert simulated.client.get(f"{ORDERS}/jobs/none").status_code == 404


# Actions


def test_an_accepted_action_is_in_the_account(simulated: Simulated) -> None:
    simulated.create()
    simulated.pass_seconds(3)
    tag = simulated.tag()
    answer = simulated.act(tag, language="sv-SE", data={"tracking": "JJSE1"})
    assert answer.status_code == 202
    assert simulated.account()["actions"] == [
        {
            "sequence": 1,
            "orderId": "A-1",
            "action": "ConfirmOrder",
            "versionTag": tag,
            "language": "sv-SE",
            "data": {"tracking": "JJSE1"},
            "tagReadyAt": NOON + 2,
            "acceptedAt": NOON + 3,
            "withDocument": False,
            "afterNoContact": False,
        }
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"not json", [""]),
        (b"[1]", [""]),
        (b"{}", ["action", "versionTag"]),
        (b'{"action": " ", "versionTag": "t"}', ["action"]),
        (b'{"action": ["Custom"], "versionTag": "t"}', ["action"]),
        (b'{"action": "Custom"}', ["versionTag"]),
        (b'{"action": "Custom", "versionTag": ""}', ["versionTag"]),
        (b'{"action": "Custom", "versionTag": "t", "language": 1}', ["language"]),
        (b'{"action": "Custom", "versionTag": "t", "data": "\\ud800"}', [""]),
    ],
)
def test_an_action_that_is_wrong_is_refused_with_every_error(
    simulated: Simulated, body: bytes, fields: list[str]
) -> None:
    simulated.create()
    answer = simulated.client.post(f"{ORDERS}/A-1/action", content=body)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()] == fields


def test_an_action_upon_an_order_without_contact_is_refused(simulated: Simulated) -> None:
    simulated.client.post(ORDERS, json={"orderId": "A-1"})
    simulated.pass_seconds(2)
    assert simulated.act(simulated.tag()).status_code == 422
    assert simulated.account()["accepted"] == 0


def test_an_action_before_the_tag_is_ready_is_not_found(simulated: Simulated) -> None:
    job_id = simulated.create()
    simulated.pass_seconds(1)
    assert simulated.act(job_id).status_code == 404


# Ids, paths, methods


@pytest.mark.parametrize("order_id", ["a/b", "..", "a b?c#d", "%2e", "å", "jobs", "."])
def test_an_encoded_id_is_exactly_one_segment(simulated: Simulated, order_id: str) -> None:
    simulated.simulator.world.submit_order(order_id, NOON)
    segment = "".join(f"%{byte:02X}" for byte in order_id.encode())
    assert raw_get(simulated, f"{ORDERS}/{segment}") == 200
    assert simulated.simulator.world.account.requests["order", "200"] == 1


@pytest.mark.parametrize("target", [f"{ORDERS}/../orders/A-1", f"{ORDERS}/A-1/..", f"{ORDERS}/./A-1", f"{ORDERS}/%FF"])
def test_a_raw_dot_segment_or_bytes_that_are_no_text_are_refused(simulated: Simulated, target: str) -> None:
    simulated.create()
    assert raw_get(simulated, target) == 400


@pytest.mark.parametrize("target", ["/", "/api/v3/order", f"{ORDERS}/", f"{ORDERS}/jobs/a/b", f"{ORDERS}/A-1/x"])
def test_another_path_is_not_found(simulated: Simulated, target: str) -> None:
    assert raw_get(simulated, target) == 404


def test_another_method_is_not_allowed(simulated: Simulated) -> None:
    assert simulated.client.get(ORDERS).status_code == 405
    assert simulated.client.patch(f"{ORDERS}/A-1").status_code == 405
    assert simulated.client.head(f"{ORDERS}/A-1").status_code == 405
    assert simulated.client.get(f"{ORDERS}/A-1").status_code == 404


COMMON = "User-Agent: t\r\napikey: k\r\nContent-Type: application/json\r\n"


def raw_get(simulated: Simulated, target: str) -> int:
    """Ask for a target as it is: clients tidy paths up."""
    wire = f"GET {target} HTTP/1.1\r\nHost: x\r\n{COMMON}Connection: close\r\n\r\n"
    return int(exchange(simulated, wire.encode()).split()[1])


def exchange(simulated: Simulated, wire: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    url = httpx.URL(simulated.simulator.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(wire)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# HTTP itself


def test_what_is_not_http_is_refused(simulated: Simulated) -> None:
    assert exchange(simulated, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_requests_that_come_in_one_write_are_answered_in_their_order(simulated: Simulated) -> None:
    one = b"GET /simulator/account?summary=1 HTTP/1.1\r\nHost: x\r\n"
    answers = exchange(simulated, one + b"\r\n" + one + b"Connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 ") == 2


def test_a_client_that_asks_before_it_sends_its_body_is_told_to(simulated: Simulated) -> None:
    head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\n{COMMON}Content-Length: 2\r\n"
    url = httpx.URL(simulated.simulator.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


# Keys and rate


def test_every_call_needs_a_key_and_a_user_agent(simulated: Simulated) -> None:
    url = f"{simulated.simulator.url}{ORDERS}/A-1"
    assert httpx.get(url, headers={"User-Agent": "t"}).status_code == 401
    assert httpx.get(url, headers={"User-Agent": "", "apikey": "k"}).status_code == 400
    assert httpx.get(url, headers={"User-Agent": "t", "apikey": "k", **JSON}).status_code == 404


@pytest.mark.parametrize("sent", [{}, {"Content-Type": ""}, {"Content-Type": "text/plain"}])
def test_without_the_content_type_every_call_fails_even_a_get_without_a_body(
    simulated: Simulated, sent: dict[str, str]
) -> None:
    simulated.create("A-1")
    answer = httpx.get(f"{simulated.client.base_url}{ORDERS}/A-1", headers={"User-Agent": "t", "apikey": "k", **sent})
    assert (answer.status_code, answer.json()) == (500, [{"message": "An error has occurred"}])


@pytest.mark.parametrize("written", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_content_type_may_be_written_as_http_allows(simulated: Simulated, written: str) -> None:
    simulated.create("A-1")
    headers = {"User-Agent": "t", "apikey": "k", "Content-Type": written}
    assert httpx.get(f"{simulated.client.base_url}{ORDERS}/A-1", headers=headers).status_code == 200


def test_only_valid_keys_are_served_where_there_is_a_list() -> None:
    options = SimulatorOptions(
        api_key_header="X-Api-Key", valid_keys=frozenset({"good"}), forbidden_keys=frozenset({"barred"})
    )
    with simulating(options) as simulated:

        def ask(key: str) -> int:
            return simulated.client.get(f"{ORDERS}/A-1", headers={"x-api-key": key}).status_code

        assert [ask("good"), ask("bad"), ask("barred")] == [404, 401, 403]
        assert simulated.client.get(f"{ORDERS}/A-1").status_code == 401  # apikey isn't the header's name
        changed = httpx.put(f"{simulated.simulator.url}/simulator/keys", json={"valid": ["bad"], "forbidden": ["good"]})
        assert changed.status_code == 200
        assert [ask("good"), ask("bad"), ask("barred")] == [403, 404, 401]
        assert "good" not in repr(options)


def test_too_many_requests_in_any_second_are_told_to_come_back() -> None:
    with simulating(SimulatorOptions(requests_per_second=3)) as simulated:

        def ask(key: str = "key") -> int:
            return simulated.client.get(f"{ORDERS}/A-1", headers={"apikey": key}).status_code

        assert [ask(), ask(), ask()] == [404, 404, 404]
        simulated.pass_seconds(0.9)
        answer = simulated.client.get(f"{ORDERS}/A-1")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert ask("another") == 404
        simulated.pass_seconds(0.1)
        assert [ask(), ask(), ask(), ask()] == [404, 404, 404, 429]
        account = simulated.simulator.world.account
        assert (account.max_in_a_second("key"), account.max_in_a_second("another")) == (5, 1)


# Orders that nobody created


def test_an_unknown_order_is_created_when_it_is_first_asked_for_where_so_chosen() -> None:
    with simulating(SimulatorOptions(processing="fixed:2s", unknown_orders="create")) as simulated:
        assert simulated.tag() is None
        simulated.pass_seconds(2)
        assert simulated.act(simulated.tag()).status_code == 202


def test_an_unknown_jobs_tag_serves_for_whatever_order_the_action_names() -> None:
    with simulating(SimulatorOptions(processing="fixed:2s", unknown_orders="create")) as simulated:

        def tag_of(job_id: str) -> str | None:
            found: str | None = simulated.client.get(f"{ORDERS}/jobs/{job_id}").json().get("versionTag")
            return found

        assert (tag_of("one"), tag_of("two")) == (None, None)
        assert simulated.act("some tag").status_code == 404
        simulated.pass_seconds(2)
        assert simulated.act(tag_of("one")).status_code == 202
        assert simulated.act(tag_of("two")).status_code == 202
        assert simulated.act(tag_of("one")).status_code == 404  # two was the later version
        assert simulated.act(tag_of("two"), order_id="B-1").status_code == 404


# Control


def test_many_orders_are_submitted_at_once(simulated: Simulated) -> None:
    bulk = f"{simulated.simulator.url}/simulator/orders/bulk"
    jobs = httpx.post(bulk, json={"count": 300, "prefix": "B-"}).json()["jobs"]
    assert [job["orderId"] for job in jobs][::299] == ["B-1", "B-300"]
    named = httpx.post(bulk, json={"orderIds": ["C-1"], "contact": False}).json()["jobs"]
    simulated.pass_seconds(2)
    assert simulated.client.get(f"{ORDERS}/jobs/{jobs[299]['jobId']}").json()["versionTag"] == simulated.tag("B-300")
    assert simulated.client.get(f"{ORDERS}/jobs/{named[0]['jobId']}").json()["status"] == "Completed"
    assert simulated.act(simulated.tag("C-1"), order_id="C-1").status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "orders/bulk", b"{}"),
        ("POST", "orders/bulk", b'{"count": 100001}'),
        ("POST", "orders/bulk", b'{"count": "3"}'),
        ("POST", "orders/bulk", b'{"orders": 3}'),
        ("PUT", "faults", b'{"faults": ["hang=2"]}'),
        ("PUT", "faults", b'{"faults": "hang=1"}'),
        ("PUT", "faults", b"nonsense"),
        ("PUT", "keys", b'{"valid": [1]}'),
        ("GET", "account?limit=x", b""),
    ],
)
def test_a_control_request_that_is_wrong_says_why(simulated: Simulated, method: str, path: str, body: bytes) -> None:
    answer = httpx.request(method, f"{simulated.simulator.url}/simulator/{path}", content=body)
    assert answer.status_code == 400
    assert answer.json()[0]["message"]


def test_the_account_comes_whole_in_pages_by_order_or_as_a_summary(simulated: Simulated) -> None:
    for order_id in ("A-1", "B-1"):
        simulated.create(order_id)
    simulated.pass_seconds(2)
    for order_id in ("A-1", "B-1", "A-1"):
        simulated.act(simulated.tag(order_id), order_id=order_id)

    def listed(query: str) -> tuple[list[int], object]:
        account = simulated.account(query)
        actions = account["actions"]
        assert isinstance(actions, list)
        return [action["sequence"] for action in actions], account["next"]

    assert listed("") == ([1, 2, 3], None)
    assert listed("?limit=2") == ([1, 2], 2)
    assert listed("?after=2&limit=2") == ([3], None)
    assert listed("?after=3") == ([], None)
    assert listed("?order=A-1") == ([1, 3], None)
    assert listed("?order=A-1&after=1&limit=5") == ([3], None)
    assert listed("?order=none") == ([], None)
    summary = simulated.account("?summary=1")
    assert "actions" not in summary
    assert (summary["accepted"], summary["orders"], summary["repeated"]) == (3, 2, 1)
    assert summary["acceptedByAction"] == {"ConfirmOrder": 3}
    assert summary["requests"] == {"action": {"202": 3}, "document": {"202": 2}, "order": {"200": 3}}
    assert summary["requestsTotal"] == 8
    assert list(summary["mostRequestsPerSecond"].values()) == [6]  # type: ignore[attr-defined]


def test_the_account_gives_no_key_away(simulated: Simulated) -> None:
    simulated.client.get(f"{ORDERS}/A-1", headers={"apikey": "s3cret"})
    assert "s3cret" not in str(simulated.account())


def test_a_reset_forgets_orders_and_account_and_keeps_faults_moods_and_keys() -> None:
    with simulating(SimulatorOptions(faults=("throttle=1,calls=order",))) as simulated:
        simulated.create()
        assert httpx.post(f"{simulated.simulator.url}/simulator/reset").status_code == 200
        assert simulated.account("?summary=1")["requestsTotal"] == 0
        assert simulated.client.get(f"{ORDERS}/A-1").status_code == 429
        simulated.create()


# As a process and in a loop


async def _use_in_process() -> None:
    async with Simulator(SimulatorOptions(processing="instant")) as simulator:
        job_id = simulator.submit_order("A-1001", takes_s=0)
        async with httpx.AsyncClient(base_url=simulator.url, headers={"apikey": "k", **JSON}) as client:
            answer = await client.get(f"{ORDERS}/jobs/{job_id}")
        assert answer.json()["orderId"] == "A-1001"


@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_used_in_process(loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(_use_in_process())


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_stop(signal_number: signal.Signals) -> None:
    program = (
        "from functools import partial; from consumer.simulator import *; "
        "run(SimulatorOptions(listen='[::1]:0' if SIX else '127.0.0.1:0'), partial(print, flush=True)); print('end')"
    ).replace("SIX", str(_has_ipv6()))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert httpx.get(f"{said.split()[-1]}/simulator/account").status_code == 200
        os.kill(process.pid, signal_number)
        assert process.stdout.read() == "end\n"
        assert process.wait(10) == 0


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
