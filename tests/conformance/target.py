"""The Engage under test: where it is, how to make orders there, and what of it can be brought about."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest

from consumer.simulator import Simulator, SimulatorOptions
from tests.support.scripted_server import Request

Tamper = Callable[[Request], Request]
T = TypeVar("T")

ORDERS = "/api/v3/orders"
JSON = "application/json"
PLAIN = SimulatorOptions(processing="fixed:30ms")
NOBODY = "nobody-of-this-name@example.com"


@dataclass(frozen=True)
class Target:
    """An Engage, and a client of it that does everything right."""

    base_url: str
    api_key: str
    contact: str | None
    controllable: bool
    poll_interval_s: float
    patience_s: float
    http: httpx.Client = field(repr=False)
    tamper: Tamper = lambda request: request  # what becomes of our client's requests (wire.py)
    made: list[str] = field(default_factory=list, repr=False)

    # Orders

    def document(self, order_id: str | None = None, **more: object) -> dict[str, Any]:
        """Return an order of somebody whom Engage knows, where we know of one."""
        order_id = order_id or f"conformance-{uuid4()}"
        self.made.append(order_id)
        contact = {"matchKey": self.contact or NOBODY, "matchKeyType": "Email"}
        return {"orderId": order_id, "contact": contact, "currencyCode": "SEK", "status": "Confirmed", **more}

    def create(self, document: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Create an order; return its id and its job's."""
        document = document or self.document()
        answer = self.http.post(ORDERS, json=document)
        assert answer.is_success, answer.text
        return document["orderId"], answer.json()["jobId"]

    def processed(self, document: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Create an order and wait until it is processed; return its id and tag."""
        order_id, _ = self.create(document)
        return order_id, self.tag(order_id)

    def order(self, order_id: str) -> dict[str, Any]:
        answer = self.http.get(f"{ORDERS}/{order_id}")
        assert answer.is_success, answer.text
        order: dict[str, Any] = answer.json()
        return order

    def tag(self, order_id: str, *, other_than: str | None = None) -> str:
        """Wait for the order's tag."""

        def find() -> str | None:
            answer = self.http.get(f"{ORDERS}/{order_id}")
            tag = answer.json().get("versionTag") if answer.is_success else None
            return None if tag == other_than else tag

        return self.until(find)

    def finished(self, job_id: str) -> httpx.Response:
        """Wait until the job is no longer under way, and return what it answers then. No redirect is followed."""

        def find() -> httpx.Response | None:
            answer = self.http.get(f"{ORDERS}/jobs/{job_id}")
            under_way = answer.status_code == 200 and str(answer.json().get("status", "")) == "Processing"
            return None if under_way or answer.status_code == 404 else answer

        return self.until(find)

    def act(self, order_id: str, tag: str, action: str = "Custom", **more: object) -> httpx.Response:
        body = {"action": action, "versionTag": tag, **more}
        return self.http.post(f"{ORDERS}/{order_id}/action", json=body)

    def until(self, find: Callable[[], T | None]) -> T:
        """Ask until there is something."""
        end = time.monotonic() + self.patience_s
        while (found := find()) is None:
            assert time.monotonic() < end, f"nothing came within {self.patience_s:g} s"
            time.sleep(self.poll_interval_s)
        return found

    def with_key(self, api_key: str) -> Target:
        """Return the same Engage for our client, with another key; `http` keeps the former one."""
        return replace(self, api_key=api_key)

    def fresh(self) -> Target:
        """Return the same Engage with a limit of its own: a simulator counts by key, and takes any."""
        if not self.controllable:
            return self
        self.http.headers["apikey"] = key = f"key-{uuid4()}"
        return self.with_key(key)

    # What only some targets can do

    def needs_known_contact(self) -> None:
        """Skip where no contact is known whom actions may reach."""
        if self.contact is None:
            pytest.skip("ENGAGE_CONTACT names no registered contact, so no action may be accepted")

    def needs_control(self) -> None:
        """Skip where the target cannot be brought to answer in a certain way."""
        if not self.controllable:
            pytest.skip("this Engage has no control endpoints (/simulator/...) to bring the fact about")

    def control(self, method: str, path: str, **body: object) -> None:
        self.needs_control()
        answer = self.http.request(method, f"/simulator/{path}", json=body)
        assert answer.is_success, answer.text

    def moods(self, **moods: object) -> None:
        """Bring the simulator into these moods, as the fields of `PUT /simulator/moods`."""
        self.control("PUT", "moods", **moods)

    def account(self, query: str = "") -> dict[str, Any]:
        self.needs_control()
        account: dict[str, Any] = self.http.get(f"/simulator/account{query}").json()
        return account

    def accepted(self, order_id: str) -> list[dict[str, Any]]:
        """Return the order's accepted actions."""
        actions: list[dict[str, Any]] = self.account(f"?order={order_id}")["actions"]
        return actions

    def accepted_once(self, order_id: str) -> dict[str, Any]:
        """Return the order's only accepted action."""
        actions = self.accepted(order_id)
        assert len(actions) == 1
        return actions[0]


def plain_client(base_url: str) -> httpx.Client:
    """Return an HTTP client that sends no header of its own. Trusting somebody takes it long: only where it must."""
    client = httpx.Client(base_url=base_url, trust_env=False, timeout=30, verify=base_url.startswith("https:"))
    client.headers.clear()
    return client


@contextmanager
def target_at(base_url: str, api_key: str, contact: str | None, patience_s: float) -> Iterator[Target]:
    """Connect to an Engage; on the way out delete the orders that were made, or undo what it was brought to do."""
    headers = {"apikey": api_key, "User-Agent": "engage-relay-conformance/1", "Content-Type": JSON}
    with plain_client(base_url) as http:
        http.headers.update(headers)
        found = http.get("/simulator/account?summary=1")
        controllable = found.is_success and "acceptedByAction" in found.text
        interval_s = 0.02 if controllable else 1.0
        contact = contact or ("customer@example.com" if controllable else None)
        if not controllable:
            http.event_hooks = {"request": [_pace()]}
        target = Target(base_url, api_key, contact, controllable, interval_s, patience_s, http)
        try:
            yield target
        finally:
            if controllable:
                target.moods()
            else:
                for order_id in dict.fromkeys(target.made):
                    http.delete(f"{ORDERS}/{order_id}")


def _pace() -> Callable[[httpx.Request], None]:
    """Keep below what Engage advises: 50 requests/s."""
    next_at = time.monotonic()

    def wait(request: httpx.Request) -> None:
        nonlocal next_at
        time.sleep(max(0.0, next_at - time.monotonic()))
        next_at = time.monotonic() + 1 / 40

    return wait


@contextmanager
def simulated(options: SimulatorOptions = PLAIN, *, patience_s: float = 10.0) -> Iterator[Target]:
    """Run the simulator on a thread of its own."""
    simulator, ready, stop = Simulator(options), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with simulator:
            ready.set()
            await stop.wait()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=lambda: runner.run(serve()))
        thread.start()
        try:
            assert ready.wait(10)
            with target_at(simulator.url, "a-key", None, patience_s) as target:
                yield target
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)


@contextmanager
def named_or_simulated() -> Iterator[Target]:
    """Return the Engage that the environment names, else a simulator."""
    base_url = os.environ.get("ENGAGE_BASE_URL")
    if not base_url:
        with simulated() as target:
            yield target
        return
    api_key, contact = os.environ.get("ENGAGE_API_KEY", ""), os.environ.get("ENGAGE_CONTACT")
    with target_at(base_url, api_key, contact, patience_s=120) as target:
        yield target
