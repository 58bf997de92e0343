"""EDGE. /metrics, /healthz and /readyz, on threads of their own: they answer even while the event loop is stuck.

Rules:
 1. Alive means that this process can still do its work: its threads show life and no client has failed for good.
    What a restart cannot cure (brokers, Engage, lag, a rebalance) never counts.
 2. Ready means joined the group once, and not draining; never "owns a partition".
 3. Nothing that a client does keeps another one waiting: a thread per connection, a few connections at the most
    (the oldest is cut off for a new one), each for a short time.
 4. Nothing a client sends is echoed or logged.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from consumer.metrics import Thread

# Seconds without a heartbeat after which a thread counts as stuck: more than anything takes that ends by itself.
HEARTBEAT_LIMITS_S: Mapping[Thread, float] = {
    # It beats every second. Its longest step, taking over 100,000 restored actions, takes 0.3 s on one CPU, 3 s on
    # a tenth of one; ten times that.
    "event_loop": 30.0,
    # It beats with each poll, 1 s at the most. A revoke holds it up to 20 s, and the next one may follow without a
    # poll between: 40 s, and half as much again. Well below max.poll.interval.ms (300 s).
    "consumer": 60.0,
}

CONNECTION_S = 5.0  # a connection's whole life: a scrape takes milliseconds, a probe gives up after seconds
MOST_CONNECTIONS = 32  # a scraper and a few probes; each costs a thread
MAX_REQUEST_LINE_BYTES = 8 << 10  # the headers have the standard library's limits: 100 of 64 KiB
CHECK_S = 0.5  # how often connections that are too old are looked for, and the end of the server

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """What both probes are judged by, at one moment."""

    heartbeat_ages_s: Mapping[Thread, float] = field(default_factory=dict)  # absent: not started yet, or ended
    fatal: str | None = None  # a client error that nothing cures, by its name
    joined: bool = False  # the group, once
    draining: bool = False


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
    wrong = [] if health.joined else ["has not joined the consumer group yet"]
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


class ListenError(Exception):
    """The admin server cannot listen where it was told to."""


class AdminServer:
    """The HTTP server for the operator's tools. Plain HTTP, read only, no secrets behind it."""

    def __init__(
        self,
        listen: tuple[str, int],
        registry: CollectorRegistry,
        health: Callable[[], Health],
        *,
        connection_s: float = CONNECTION_S,
    ) -> None:
        """`listen` is (host, port); port 0 takes a free one. `health` is called on this server's threads."""
        self._listen = listen
        self._pages = {
            "/metrics": lambda: _Page(200, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4),
            "/healthz": lambda: _verdict(not_alive(health())),
            "/readyz": lambda: _verdict(not_ready(health())),
        }
        self._connection_s = connection_s
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and answer from now on. Raises ListenError, for example where the port is taken."""
        host, port = self._listen
        try:
            self._server = _Server(host, port, self._pages, self._connection_s)
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


def _verdict(wrong: list[str]) -> _Page:
    return _Page(503, "".join(f"{each}\n" for each in wrong).encode()) if wrong else _Page(200, b"ok\n")


class _Server(ThreadingMixIn, TCPServer):
    """A thread per connection, and an eye on how many there are and how long they take."""

    daemon_threads = True
    block_on_close = False  # a slow client does not delay the end
    allow_reuse_address = True  # what still lingers of an earlier process; a live one keeps the port
    request_queue_size = 64

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], _Page]], connection_s: float) -> None:
        self.pages = pages
        self._connection_s = connection_s
        self._open: dict[socket.socket, float] = {}  # since when, the oldest first
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__((str(address[0]), port), _Connection)  # not its port: it wraps one that is too large

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._open) >= MOST_CONNECTIONS and (oldest := next(iter(self._open.copy()), None)) is not None:
            self._open.pop(oldest, None)
            _cut(oldest)
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

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
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._send(_Page(404, " ".join(self.server.pages).encode() + b"\n"))
        elif self.command not in ("GET", "HEAD"):
            self._send(_Page(405, b"GET and HEAD only\n"), ("Allow", "GET, HEAD"))
        else:
            self._send(page())

    def _send(self, page: _Page, *headers: tuple[str, str]) -> None:
        self.send_response(page.status)
        for name, value in (
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
            *headers,
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
