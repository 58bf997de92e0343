"""The HTTP engine: one request gives one typed answer, and it is certain whether anything was sent.

An answer is parsed in `answers.py`, a socket is written and read in `connection.py`, and made in `connecting.py`. Here
is which connection carries a request, and how long that may take. There is no pool: a list of idle connections is
enough.

Rules:
 1. A request is *not sent* while no byte of it was given to the kernel. From the first byte on it is in doubt until
    its answer is complete. This flag (`Failure.sent`) decides, not the name of an exception.
    `may_send` is called right before the first byte. If it says no, nothing is written.
 2. A connection carries one request at a time, and is used again only after a complete, clean answer.
    After anything else (failure, cancellation) it is dropped.
 3. Only the origin of `base_url` is ever connected to, or the proxy that was given: no redirect leads elsewhere.
    Through a proxy https goes by a tunnel, so that it sees nothing; what a proxy itself refuses was not sent.
 4. A connection that received bytes without a request is not used again (RFC 9112, 6.3): if they were read as the
    next answer, a later action would count as accepted. The same holds for one that the server has closed.
 5. Nothing is decompressed, and an answer ends at `MAX_BODY_BYTES`. `why` never holds what came over the wire.
 6. The status line that was seen is reported also where the body of the answer is of no use (`Failure.status`).
 7. What must not be repeated takes the connection that has been idle longest, and after `REST_S` only: a server that
    closes behind an answer has said so by then. A GET takes the last used, so that the others get older.
 8. An answer of what stands before Engage, that nobody is there (`ELSEWHERE`), ends its connection: the next request
    asks the name server where Engage is now.
 9. A connection is kept as long as the server keeps it (`idling.py`). A GET on one that is older than is known to be
    safe finds out; where the server had closed it, the GET is sent once more, on a new connection.
10. After `MAX_AGE_S` an answer ends its connection: the name may belong to another server by now, while the former one
    still answers, such as 404 to everything.

Time-outs, from `timeout_s` = T: connecting (DNS, TCP, TLS) T/2, a silence T, the whole request 2 T
(T/2 to connect + T until the first byte + T/2 for what follows); the last one ends a slow drip. A request with an
`answer_s` of its own has that long from its first byte to the end of its answer: T/2 + `answer_s` in all. Where
its status line says enough (answers.py), what follows has T/2: a body without end would keep the order's next action.
One timer serves all requests: each has two moments, its end and the end of its silence.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urljoin, urlsplit

from consumer.engage.answers import MAX_BODY_BYTES, FailureKind, Response
from consumer.engage.connecting import Destination, connect, ssl_context
from consumer.engage.connection import Connection, Failure, MaySend
from consumer.engage.idling import IdleTime
from consumer.engage.proxies import Proxy

__all__ = [
    "MAX_BODY_BYTES",
    "Endpoint",
    "Failure",
    "FailureKind",
    "HttpEngine",
    "MaySend",
    "OnRequest",
    "Origin",
    "Response",
]

# Behind an answer a server closes within this, if it does so without saying it: 46 to 87 of 10,000 actions met such an
# end without it, and none with it.
REST_S = 0.002
# 421 (RFC 9110, 15.5.20) asks for another connection; the others are a gateway's whose servers are gone, and may have
# moved. Kept alive, it would answer so for as long as requests come.
ELSEWHERE = frozenset({421, 502, 503, 504})
# Less than `polling.not_found_grace` (10 min), of which a server that was left behind may take this much. One handshake
# in that time costs nothing.
MAX_AGE_S = 300.0
# A goodbye (TLS) is waited for so long when the engine closes.
CLOSE_S = 1.0

Endpoint = Literal["job", "order", "document", "action"]
OnRequest = Callable[[str, str, float], None]
HeaderList = Sequence[tuple[bytes, bytes]]

_TARGET = re.compile(r"/[!-~]*")
_UNENCODED = re.compile(r"[ \x80-\xff]+")


class Origin:
    """Scheme, host and port of the base URL, parsed once; whatever is elsewhere has no target here."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("base_url must be http(s)://host[:port][/path]")
        if parts.username is not None or not _TARGET.fullmatch(parts.path or "/"):
            raise ValueError("base_url must hold neither credentials nor unencoded characters")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname.encode("idna").decode()  # UnicodeError is a ValueError: no host name has that form
        self.port = parts.port or (443 if self.secure else 80)
        self.prefix = parts.path.rstrip("/").encode()
        host = f"[{self.host}]" if ":" in self.host else self.host
        netloc = host if parts.port is None else f"{host}:{self.port}"
        self.host_header = netloc.encode()
        self._root = f"{parts.scheme}://{netloc}"

    def target(self, location: str, seen_from: bytes) -> bytes | None:
        """Resolve a Location against the target that answered: its path and query, to be asked of this origin.

        Whatever scheme and host it names are left out: a server behind a gateway writes its inner ones. Blanks and
        letters above ASCII, as an id may have them, are encoded where the server has not. None where it has no path
        that a request can carry.
        """
        try:
            parts = urlsplit(urljoin(self._root + seen_from.decode(), location))
        except ValueError:
            return None
        if parts.scheme not in ("http", "https"):
            return None
        target = _UNENCODED.sub(_percent, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        return target.encode() if _TARGET.fullmatch(target) else None


def _percent(found: re.Match[str]) -> str:
    """Encode a piece of a Location, whose bytes are read as Latin-1 (answers.py)."""
    return quote(found[0].encode("latin-1"), safe="")


@dataclass(slots=True)
class _Request:
    """A request, and how long it may take: seconds, and the moment (monotonic) by which it must be connected.

    `body_s`: how long what follows its answer's status line may take, where that says enough.
    """

    written: bytes
    may_send: MaySend | None
    repeatable: bool
    silence_s: float
    answer_s: float
    body_s: float | None
    connected_by: float


class HttpEngine:
    """Requests to one origin. As many connections as there are requests in flight."""

    def __init__(
        self,
        *,
        origin: Origin,
        timeout_s: float,
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        tls = ssl_context(ca_file) if origin.secure else None
        self._destination = Destination(origin.host, origin.port, tls, proxy)
        self._forwarded_by = None if origin.secure else proxy
        self._root = b"http://" + origin.host_header
        self._timeout_s = timeout_s
        self._on_request = on_request
        self._idle: deque[Connection] = deque()  # the longest idle first
        self._idle_time = IdleTime()
        self._in_flight: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def exchange(
        self,
        endpoint: Endpoint,
        method: bytes,
        target: bytes,
        headers: HeaderList,
        body: bytes = b"",
        *,
        may_send: MaySend | None = None,
        answer_s: float | None = None,
    ) -> Response | Failure:
        """Send one request and read its answer. Never raises for what the network or the server does.

        `answer_s`: seconds from the first byte to the end of the answer, where that is not the engine's time-out.
        `may_send` is asked right before the first byte is written (more than once where nothing was written yet).
        Raises ValueError for a header or target that HTTP cannot carry: the caller's error.
        """
        if self._forwarded_by is not None:
            target = self._root + target
            if self._forwarded_by.authorization is not None:
                headers = [*headers, (b"proxy-authorization", self._forwarded_by.authorization)]
        written = _written(method, target, headers, body)
        started = time.monotonic()
        silence_s = self._timeout_s if answer_s is None else answer_s
        answer_within_s = 1.5 * self._timeout_s if answer_s is None else answer_s
        body_s = None if answer_s is None else self._timeout_s / 2
        connected_by = started + self._timeout_s / 2
        answer = await self._exchange(
            _Request(written, may_send, method == b"GET", silence_s, answer_within_s, body_s, connected_by)
        )
        if self._forwarded_by is not None and isinstance(answer, Response) and answer.status == 407:
            answer = Failure("connect", "proxy: answered 407", sent=False)  # RFC 9110, 15.5.8: it asks for credentials
        if self._on_request is not None:
            status = str(answer.status) if isinstance(answer, Response) else answer.kind
            self._on_request(endpoint, status, time.monotonic() - started)
        return answer

    async def _exchange(self, request: _Request) -> Response | Failure:
        finds_out = False
        while True:
            connection = None if finds_out else self._idle_connection(repeatable=request.repeatable)
            if connection is None:
                made = await connect(self._destination, request.connected_by - time.monotonic())
                if isinstance(made, Failure):
                    return made
                connection = made
                connection.on_idle_end = self._idle_time.closed
                connection.on_sooner_deadline = self._look_by
            idle_s = 0.0 if connection.fresh else time.monotonic() - connection.idle_since
            finds_out = idle_s > self._idle_time.safe_s
            outcome = await self._carried(request, connection, idle_s)
            if outcome is None:
                finds_out = False
            elif isinstance(outcome, Response):
                if finds_out:
                    self._idle_time.survived(idle_s)
                if outcome.keep_alive is not None:
                    self._idle_time.said(outcome.keep_alive)
                return outcome
            elif idle_s > 0 and outcome.kind == "closed" and not connection.answer_begun:
                self._idle_time.closed(idle_s)
                if not (finds_out and request.repeatable):
                    return outcome
            else:
                return outcome

    async def _carried(self, request: _Request, connection: Connection, idle_s: float) -> Response | Failure | None:
        """Ask on this connection; None where it was of no use any more, and nothing was sent."""
        keep = False
        try:
            if not (request.repeatable or connection.fresh) and idle_s < REST_S:
                await asyncio.sleep(REST_S - idle_s)
            answer = connection.ask(
                request.written,
                request.may_send,
                silence_s=request.silence_s,
                answer_s=request.answer_s,
                ends_by=request.connected_by + request.answer_s,
                body_s=request.body_s,
            )
            if answer is None and connection.fresh:
                return Failure("closed", "connection was closed before the request", sent=False)
            if answer is None or isinstance(answer, Failure):
                return answer
            self._watch(connection)
            outcome = await answer
            keep = isinstance(outcome, Response) and connection.reusable and not self._closed
            keep = keep and outcome.status not in ELSEWHERE and time.monotonic() - connection.made_at < MAX_AGE_S
            return outcome
        finally:  # also for a cancelled task
            self._in_flight.discard(connection)
            if keep:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.abort()

    def _idle_connection(self, *, repeatable: bool) -> Connection | None:
        idle, now = self._idle, time.monotonic()
        while idle and (idle[0].ended or now - idle[0].idle_since > self._idle_time.usable_s):
            idle.popleft().close()
        first = 0
        if not repeatable:
            safe_s = self._idle_time.safe_s
            first = next((n for n, each in enumerate(idle) if now - each.idle_since <= safe_s), len(idle))
        while len(idle) > first:
            if repeatable:
                connection = idle.pop()
            else:
                connection = idle[first]
                del idle[first]
            if not connection.has_news():
                return connection
            connection.abort()
        return None

    # The one timer

    def _watch(self, connection: Connection) -> None:
        self._in_flight.add(connection)
        self._look_by(min(connection.deadline, connection.quiet_until))

    def _look_by(self, due: float) -> None:
        if self._timer is None or due < self._timer_due:
            self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later(max(due - time.monotonic(), 0.001), self._tick)

    def _tick(self) -> None:
        """End what is due. A moment that was put off meanwhile (bytes came) is looked at again when it comes."""
        self._timer = None
        now = time.monotonic()
        next_due = None
        for connection in self._in_flight:
            due = min(connection.deadline, connection.quiet_until)
            if due <= now:
                connection.time_out()
            elif next_due is None or due < next_due:
                next_due = due
        if next_due is not None:
            self._set_timer(next_due)

    async def aclose(self) -> None:
        """Close what is idle; what is in flight ends by itself and isn't kept."""
        self._closed = True
        idle = list(self._idle)
        self._idle.clear()
        for connection in idle:
            connection.close()
        if idle:
            _, late = await asyncio.wait([connection.lost for connection in idle], timeout=CLOSE_S)
            if late:
                for connection in idle:
                    connection.abort()


def _written(method: bytes, target: bytes, headers: HeaderList, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, target), *[b"%b: %b" % header for header in headers], b"\r\n"]
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) or b"\0" in head:
        raise ValueError("a header or target holds what HTTP cannot carry")
    return head + body
