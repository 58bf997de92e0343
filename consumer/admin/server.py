"""EDGE. /metrics, /healthz, /readyz, /status, /orders/ID, /fleet, on threads of their own.

They answer even while the event loop is stuck.

Rules:
 1. Alive means that this process can still do its work: its threads show life, and no client has failed for good.
    Errors that a restart cannot fix (brokers, Engage, lag, a rebalance) never count.
 2. Ready means that it has joined the group once, is not draining, and waits for no Schema Registry. It never means
    "owns a partition".
 3. No client can make another one wait: each connection has a thread and a short time to ask in and to take its
    answer, and there are only a few connections (a new one cuts off the oldest). Making the answer counts for nothing:
    with a thousand connections to Engage a scrape alone takes seconds.
 4. Nothing that a client sends is echoed or logged.
 5. /status, /orders/ID and /fleet are JSON, unless the client prefers HTML, as browsers do. /status.json and
    /fleet.json are always JSON.
 6. An order is looked up in Kafka, which takes seconds. One is looked up at a time (orders.py): no probe and no scrape
    ever waits for it. Nor for /fleet, which asks all instances (fleet.py).
 7. One scrape is made at a time, however many ask: the event loop shares its core with one of them at most.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, unquote

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from consumer import __version__
from consumer.admin.fleet import Fleet
from consumer.admin.fleet_page import fleet_page
from consumer.admin.order_page import order_page
from consumer.admin.orders import Answer, NotLookedUp, Orders
from consumer.admin.page import CONTENT_SECURITY_POLICY, page
from consumer.admin.status import status_of
from consumer.admin.status_model import Identity, Status
from consumer.errors import ListenError
from consumer.kafka.orders.lookup import Nothing
from consumer.kafka.orders.timeline import Timeline
from consumer.telemetry.metrics import Thread
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import Snapshot

# Seconds without a heartbeat after which a thread counts as stuck: more than anything takes that ends by itself.
HEARTBEAT_LIMITS_S: Mapping[Thread, float] = {
    # It beats every second. Its longest step, taking over 100,000 restored actions, takes 0.3 s on one CPU, 3 s on
    # a tenth of one; ten times that.
    "event_loop": 30.0,
    # It beats with each poll, 1 s at the most. A revoke holds it up to 20 s, and the next one may follow without a
    # poll between: 40 s, and half as much again. Well below max.poll.interval.ms (300 s).
    "consumer": 60.0,
}

CONNECTION_S = 5.0  # that a client has to ask in, and to take its answer
MAX_CONNECTIONS = 32  # a scraper and a few probes; each costs a thread
MAX_REQUEST_LINE_BYTES = 8 << 10  # the headers have the standard library's limits: 100 of 64 KiB
MIN_COMPRESSED_BYTES = 1 << 10  # a scrape of 60 KB takes 6 KB, and 2 ms
CHECK_S = 0.5  # how often connections that are too old are looked for, and the end of the server

NOT_TAKEN_S = 0.1  # until a connection is tried again that could not be taken

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """The relay's health at one moment, for both probes."""

    heartbeat_ages_s: Mapping[Thread, float] = field(default_factory=dict)  # absent: not started yet, or ended
    fatal: str | None = None  # the name of a client's error from which it cannot recover
    joined: bool = False  # the group, once
    draining: bool = False
    waiting: str | None = None  # what the start waits for, or partitions whose events nobody can decide on


def not_alive(health: Health) -> list[str]:
    """Say why the process should be restarted; empty where it should not."""
    stuck = [
        f"{thread}: no heartbeat for {age_s:.0f} s (limit {HEARTBEAT_LIMITS_S[thread]:.0f} s)"
        for thread, age_s in health.heartbeat_ages_s.items()
        if age_s > HEARTBEAT_LIMITS_S[thread]
    ]
    return stuck if health.fatal is None else [*stuck, f"fatal client error: {health.fatal}"]


def not_ready(health: Health) -> list[str]:
    """Say why the process does not count as ready; empty where it does."""
    wrong = [] if health.joined else [health.waiting or "has not joined the consumer group yet"]
    if health.joined and health.waiting is not None:
        wrong.append(health.waiting)
    return [*wrong, "draining"] if health.draining else wrong


class Heartbeats:
    """When each thread last showed life. Every method may be called from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._beats: dict[Thread, float] = {}

    def beat(self, thread: Thread) -> None:
        """Show life; the first beat starts the watch."""
        self._beats[thread] = self._now()

    def ended(self, thread: Thread) -> None:
        """End the watch: the thread is done and will not beat again."""
        self._beats.pop(thread, None)

    def ages(self) -> dict[Thread, float]:
        """Return the seconds since each thread's last beat."""
        beats = self._beats.copy()
        now = self._now()  # read last: no age is negative
        return {thread: now - at for thread, at in beats.items()}


class AdminServer:
    """The HTTP server for the operator's tools. Plain HTTP, read only, no secrets behind it."""

    def __init__(
        self,
        listen: tuple[str, int],
        registry: CollectorRegistry,
        health: Callable[[], Health],
        published: Callable[[], tuple[Snapshot, Flow]],
        *,
        identity: Callable[[], Identity] = Identity,
        orders: Orders | None = None,
        fleet: Fleet | None = None,
        connection_s: float = CONNECTION_S,
    ) -> None:
        """`listen` is (host, port); port 0 takes a free one. The three functions are called on its threads.

        `orders`: looks orders up, where that is possible. `fleet`: all instances, where it is known where they are.
        """

        def status() -> Status:
            return _status(health(), published(), identity())

        scrapes = _Scrapes(registry)
        self._listen = listen
        self._pages: dict[str, Callable[[str], _Page]] = {
            "/metrics": scrapes.take,
            "/healthz": lambda _: _verdict(not_alive(health())),
            "/readyz": lambda _: _verdict(not_ready(health())),
            "/status": lambda accept: _html(status(), orders, fleet) if rather_html(accept) else _json(status()),
            "/status.json": lambda _: _json(status()),
            "/": lambda _: _Page(302, b"status\n", headers=(("Location", "status"),)),
        }
        if fleet is not None:
            self._pages["/fleet"] = lambda accept: _fleet(fleet, html=rather_html(accept))
            self._pages["/fleet.json"] = lambda _: _fleet(fleet, html=False)
        self._orders = orders
        self._connection_s = connection_s
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and answer from now on. Raises ListenError, for example where the port is taken."""
        host, port = self._listen
        try:
            self._server = _Server(host, port, self._pages, self._orders, self._connection_s)
        except (OSError, OverflowError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not an address"
            raise ListenError(f"cannot listen on {host}:{port}: {why}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(CHECK_S,), name="admin", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before `start`."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def close(self) -> None:
        """Stop listening."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None


@dataclass(frozen=True, slots=True)
class _Page:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


_Pages = Mapping[str, Callable[[str], _Page]]  # each is given what the request accepts


class _Scrapes:
    """The registry's metrics as pages, for any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one = threading.Lock()

    def take(self, accept: str) -> _Page:
        """Return a scrape in the format that was asked for: OpenMetrics has exemplars."""
        encode, content_type = choose_encoder(accept)
        with self._one:  # rule 7
            scrape = encode(self._registry)
        return _Page(200, scrape, content_type, (("Vary", "Accept, Accept-Encoding"),))


def _verdict(wrong: list[str]) -> _Page:
    return _Page(503, "".join(f"{each}\n" for each in wrong).encode()) if wrong else _Page(200, b"ok\n")


def _status(health: Health, published: tuple[Snapshot, Flow], identity: Identity) -> Status:
    return status_of(
        published,
        version=__version__,
        age_s=health.heartbeat_ages_s.get("event_loop"),  # it publishes with each of its heartbeats
        not_alive=not_alive(health),
        joined=health.joined,
        draining=health.draining,
        waiting=health.waiting,
        identity=identity,
    )


def _json(status: Status) -> _Page:
    body = status.model_dump_json(indent=2).encode() + b"\n"
    return _Page(
        200, body, "application/json", (("Vary", "Accept, Accept-Encoding"), ("X-Content-Type-Options", "nosniff"))
    )


def _html(status: Status, orders: Orders | None, fleet: Fleet | None) -> _Page:
    return _document(200, page(status, with_search=orders is not None, with_fleet=fleet is not None))


def _fleet(fleet: Fleet, *, html: bool) -> _Page:
    """Return all instances, as a page or as JSON."""
    view = fleet.look()
    if view is None:
        return _Page(503, b"the instances are being asked: ask again in a few seconds\n")
    if html:
        return _document(200, fleet_page(view))
    return _json_of(200, view.as_json())


def _json_of(status: int, told: object) -> _Page:
    body = json.dumps(told, indent=2).encode() + b"\n"
    return _Page(status, body, "application/json", (("Vary", "Accept"), ("X-Content-Type-Options", "nosniff")))


def _order(order_id: str, answer: Answer, accept: str, up: str) -> _Page:
    """Return what became of an order, as a page or as JSON."""
    if isinstance(answer, NotLookedUp):
        status = answer.status
    else:
        status = (504 if answer.gaps else 404) if isinstance(answer, Nothing) else 200
    if rather_html(accept):
        return _document(status, order_page(order_id, answer, up=up))
    return _json_of(status, answer.as_json() if isinstance(answer, Timeline) else asdict(answer))


def _document(status: int, text: str) -> _Page:
    return _Page(
        status,
        text.encode(),
        "text/html; charset=utf-8",
        (
            ("Vary", "Accept, Accept-Encoding"),
            ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ),
    )


def rather_html(accept: str) -> bool:
    """Tell whether an Accept header (RFC 9110, 12.5.1) prefers HTML to JSON; where it has no preference: no."""
    ranges = dict(map(_media_range, accept.split(",")))

    def quality(kind: str, subtype: str) -> float:
        found = (ranges.get(each) for each in (f"{kind}/{subtype}", f"{kind}/*", "*/*"))
        return next((each for each in found if each is not None), 0.0)

    return quality("text", "html") > quality("application", "json")


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header (RFC 9110, 12.5.3) allows gzip; one that names nothing does not."""
    weights = dict(map(_media_range, accept_encoding.split(",")))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (each.strip().lower() for each in text.split(";"))
    for each in parameters:
        if each.startswith("q="):
            weight = re.fullmatch(r"[01](\.[0-9]{0,3})?", each[2:])
            return name, float(weight[0]) if weight else 0.0
    return name, 1.0


class _Server(ThreadingMixIn, TCPServer):
    """A thread per connection, with limits on their number and their time."""

    daemon_threads = True
    block_on_close = False  # a slow client does not delay the end
    allow_reuse_address = True  # what still lingers of an earlier process; a live one keeps the port
    request_queue_size = 64

    def __init__(self, host: str, port: int, pages: _Pages, orders: Orders | None, connection_s: float) -> None:
        self.pages = pages
        self.orders = orders
        self._connection_s = connection_s
        self._open: dict[socket.socket, float] = {}  # since when the client is waited for, the oldest connection first
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__((str(address[0]), port), _Connection)  # not its port: it wraps one that is too large

    def get_request(self) -> Any:
        """Take a connection. Where no descriptor is left it cannot be taken, and is still there a little later."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(NOT_TAKEN_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._open) >= MAX_CONNECTIONS and (oldest := next(iter(self._open.copy()), None)) is not None:
            self._open.pop(oldest, None)
            _cut(oldest)
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def waits_for_us(self, request: Any) -> None:
        """Give a client time until its answer is made."""
        self._wait_since(request, math.inf)

    def waits_for_client(self, request: Any) -> None:
        """Give a client its time to take its answer."""
        self._wait_since(request, time.monotonic())

    def _wait_since(self, request: Any, since: float) -> None:
        if request in self._open:
            self._open[request] = since

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        too_old = time.monotonic() - self._connection_s
        for request, since in self._open.copy().items():
            if since < too_old:
                _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        # A client that went away, or was cut off, is no news.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            _LOGGER.error("admin request failed", exc_info=True)


def _cut(request: socket.socket) -> None:
    """End a connection; its thread wakes up and closes it."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        return


class _Connection(BaseHTTPRequestHandler):
    """One request, one answer, and the end of the connection (HTTP/1.0)."""

    server: _Server
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(MAX_REQUEST_LINE_BYTES + 1)
        if len(self.raw_requestline) > MAX_REQUEST_LINE_BYTES:
            self.command, self.requestline, self.request_version = "", "", "HTTP/1.0"
            self.send_error(414)
        elif self.parse_request():
            self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        answer = self._order_of(path, query) or self.server.pages.get(path)
        if answer is None:
            self._send(_Page(404, " ".join(self.server.pages).encode() + b"\n"))
        elif self.command not in ("GET", "HEAD"):
            self._send(_Page(405, b"GET and HEAD only\n", headers=(("Allow", "GET, HEAD"),)))
        else:
            self.server.waits_for_us(self.request)
            page = answer(", ".join(self.headers.get_all("Accept", [])))
            self.server.waits_for_client(self.request)
            self._send(page)

    def _order_of(self, path: str, query: str) -> Callable[[str], _Page] | None:
        """Return what answers for an order: /orders/ID, or /orders?id=ID, as the form asks. None: it is none."""
        orders = self.server.orders
        asked = parse_qs(query)
        match path.split("/", 2)[1:]:
            case ["orders", name] if orders is not None:
                order_id, up = unquote(name), "../" * (1 + name.count("/"))
            case ["orders"] if orders is not None and "id" in asked:
                order_id, up = asked["id"][0].strip(), ""
            case _:
                return None

        def answer(accept: str) -> _Page:
            found = orders.look_up(order_id, asked.get("connection", [None])[0])
            return _order(order_id, found, accept, up)

        return answer

    def _send(self, page: _Page) -> None:
        encodings = ", ".join(self.headers.get_all("Accept-Encoding", []))
        if len(page.body) >= MIN_COMPRESSED_BYTES and accepts_gzip(encodings):
            packed, encoding = gzip.compress(page.body, 5, mtime=0), ("Content-Encoding", "gzip")
            page = replace(page, body=packed, headers=(*page.headers, encoding))
        self.send_response(page.status)
        for name, value in (
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
            *page.headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Open an answer, without the Server and Date headers that the standard library adds."""
        self.send_response_only(code, message)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse what is no request, without echoing it."""
        super().send_error(code)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Log nothing: probes and scrapes would be most of the log."""
