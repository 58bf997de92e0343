"""Engage beside the relay under test: the simulator on a thread, or a server that answers from a script."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self, TypedDict, TypeVar, Unpack

from consumer.simulator import Moods, Simulator, SimulatorOptions
from consumer.simulator.account import AcceptedAction
from consumer.simulator.world import Fate, UnknownOrders
from tests.support.broker import PORTS
from tests.support.events import number_of
from tests.support.waiting import PATIENCE_S

API_KEY = "key-that-must-never-be-logged-4711"
STANDSTILL_LOOK_S = 0.05
T = TypeVar("T")


class EngageOptions(TypedDict, total=False):
    """Those of SimulatorOptions that tests choose."""

    seed: int
    processing: str
    failing: float
    stuck: float
    moods: Moods
    unknown_orders: UnknownOrders
    requests_per_second: int
    faults: tuple[str, ...]
    slow: str
    valid_keys: frozenset[str] | None


class Engage:
    """The simulator on a thread of its own; it may go down and come up again, at the same address with the same orders.

    Processes at once, takes any key and has no limit, unless told otherwise.
    """

    def __init__(self, **options: Unpack[EngageOptions]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engage", daemon=True)
        self._thread.start()
        self._stood_still_s = 0.0
        self._loop.call_soon_threadsafe(self._look_for_standstill, time.monotonic())
        self._up = False
        defaults: EngageOptions = {"processing": "instant", "requests_per_second": 0}
        chosen: EngageOptions = {**defaults, **options}
        for port in random.sample(PORTS, 50):  # below the ephemeral ports: nobody takes it while we are down
            self._simulator = Simulator(SimulatorOptions(listen=f"127.0.0.1:{port}", **chosen))
            try:
                self.up()
            except OSError:
                continue
            break
        self.url = self._simulator.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def up(self) -> None:
        asyncio.run_coroutine_threadsafe(self._simulator.__aenter__(), self._loop).result(PATIENCE_S)
        self._up = True

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._up:
            self._up = False
            leaving = self._simulator.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leaving, self._loop).result(PATIENCE_S)

    def _on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE_S)

    def submit(
        self, order: str, *, contact: bool = True, takes_s: float | None = None, fate: Fate | None = None
    ) -> str:
        """Do what the commerce platform does before it publishes an event; returns the job's id."""
        return self._on_loop(lambda: self._simulator.submit_order(order, contact=contact, takes_s=takes_s, fate=fate))

    def tag(self, order: str) -> str:
        """Return the order's versionTag."""
        tag = self._on_loop(lambda: self._simulator.world.current_tag(order, time.time()))
        assert tag is not None
        return tag

    def document(self, order: str) -> dict[str, object]:
        """Return the order as Engage shows it."""
        answer = self._on_loop(lambda: self._simulator.world.order(order, time.time()))
        shown: dict[str, object] = json.loads(answer.body)
        return shown

    def register_contacts(self, orders: Iterable[str]) -> None:
        """Let the contacts of these orders be known from now on."""
        self._on_loop(lambda: self._simulator.world.register_contacts(orders, time.time()))

    def set_faults(self, *faults: str) -> None:
        self._on_loop(lambda: self._simulator.api.set_faults(faults))

    def set_keys(self, *valid: str, forbidden: Sequence[str] = ()) -> None:
        """Take these keys only; none: any but the forbidden ones."""
        self._on_loop(lambda: self._simulator.api.set_keys(valid or None, forbidden))

    @property
    def accepted(self) -> list[AcceptedAction]:
        """Every action that was accepted, in that order."""
        return self._on_loop(lambda: list(self._simulator.world.account.accepted))

    def accepted_of(self, order: str) -> list[AcceptedAction]:
        return self._on_loop(lambda: self._simulator.world.account.of_order(order))

    def events_of(self, order: str) -> list[object]:
        """Return the numbers of the order's events in the order of their acceptance."""
        return [number_of(each.data) for each in self.accepted_of(order)]

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How often each call was answered how: `("action", "202")`."""
        return self._on_loop(lambda: Counter(self._simulator.world.account.requests))

    def actions_asked(self) -> int:
        """How often an action was sent, whatever became of it."""
        return sum(times for (call, _), times in self.requests.items() if call == "action")

    @property
    def faults(self) -> Counter[str]:
        """How often each fault befell a request."""
        return self._on_loop(lambda: Counter(self._simulator.world.account.faults))

    def max_in_a_second(self, key: str = API_KEY) -> int:
        return self._on_loop(lambda: self._simulator.world.account.max_in_a_second(key))

    def _look_for_standstill(self, due: float) -> None:
        now = time.monotonic()
        self._stood_still_s = max(self._stood_still_s, now - due)
        self._loop.call_later(STANDSTILL_LOOK_S, self._look_for_standstill, now + STANDSTILL_LOOK_S)

    @property
    def stood_still_s(self) -> float:
        """The longest time for which this server was not given the processor: what came meanwhile arrives at once."""
        return self._stood_still_s


@dataclass(frozen=True)
class Asked:
    """A request as it came, its headers' names in lower case."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """What is answered to it."""

    status: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


class LocalServer:
    """An HTTP server on this machine, on a thread of its own."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no news."""

        self._server = Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)


class ScriptedEngage(LocalServer):
    """Answers what the script says, and keeps every request's very line."""

    def __init__(self, script: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, body, headers)
                outer.asked.append(asked)
                reply = script(asked)
                body = b"" if reply.body is None else json.dumps(reply.body).encode()
                self.send_response_only(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Answering)

    def actions(self) -> list[Asked]:
        return [each for each in self.asked if each.path.endswith("/action")]


def tagged_order(asked: Asked) -> Reply:
    """Answer every question for an order or job with a tag, and take every action."""
    return Reply(202) if asked.method == "POST" else Reply(200, {"status": "Completed", "versionTag": "tag-1"})
