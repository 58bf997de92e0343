"""The HTTP engine: one request gives one typed answer, and it is certain whether anything was sent.

httpcore (httpx's own engine) speaks HTTP. `_Wire` stands between it and its socket, as its documented network
backend, because rules 1 and 4 can be kept only there. There is no pool: a list of idle connections is enough.

Rules:
 1. A request is *not sent* while no byte of it was given to the socket. From the first byte on it is in doubt until
    its answer is complete. This flag (`Failure.sent`) decides, not the name of an exception.
    `may_send` is called right before the first byte. If it says no, nothing is written.
 2. A connection carries one request at a time, and is used again only after a complete, clean answer.
    After anything else (failure, cancellation) it is dropped.
 3. Only the origin of `base_url` is ever connected to: no redirect, proxy or environment variable leads elsewhere.
 4. A connection that received bytes without a request is not used again (RFC 9112, 6.3): if they were read as the
    next answer, a later action would count as accepted. The same holds for one that the server has closed.
 5. Nothing is decompressed, and an answer ends at `MAX_BODY_BYTES`. `why` never holds what came over the wire.
 6. The status line that was seen is reported also where the body of the answer is of no use (`Failure.status`).

Time-outs, from `timeout_s` = T: connecting (DNS, TCP, TLS) T/2, a silence T, the whole request 2 T
(T/2 to connect + T until the first byte + T/2 for what follows); the last one ends a slow drip. A request with an
`answer_s` of its own has that long from its first byte to the end of its answer: T/2 + `answer_s` in all.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin, urlsplit

import certifi
import httpcore

# Counted on the wire, head and framing included: what one answer may cost in memory.
MAX_BODY_BYTES = 1 << 20
# Rule 4 sees what lies in the first 64 KiB of one read, in whole TLS records (of 16 KiB): 32 KiB of an answer leave
# room for one behind it, and for the records' overhead. After a longer answer the connection is not used again.
MAX_REUSE_BYTES = 32 << 10
# Shorter than the shortest idle time-out in wide use (Node 5 s; nginx 75 s): a server that closes at the
# moment in which we send costs an action in doubt.
IDLE_S = 4.0

Endpoint = Literal["job", "order", "document", "action"]
FailureKind = Literal["connect", "timeout", "closed", "garbage", "oversized", "encoded", "withdrawn"]
OnRequest = Callable[[str, str, float], None]
MaySend = Callable[[], bool]
HeaderList = Sequence[tuple[bytes, bytes]]

# Of an answer's beginning so much is kept until its status line is known; informational answers may come before it.
MAX_STATUS_LINE_BYTES = 8 << 10

_TARGET = re.compile(r"/[!-~]*")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer."""

    status: int
    body: bytes
    location: str | None = None
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """No complete answer. `sent` is False where Engage surely has nothing of the request.

    `status`: what the answer's status line said, where that one was complete.
    """

    kind: FailureKind
    why: str
    sent: bool
    status: int | None = None


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

        Whatever scheme and host it names are left out: a server behind a gateway writes its inner ones. None where
        it has no path that a request can carry.
        """
        try:
            parts = urlsplit(urljoin(self._root + seen_from.decode(), location))
        except ValueError:
            return None
        if parts.scheme not in ("http", "https"):
            return None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return target.encode() if _TARGET.fullmatch(target) else None


class _BrokenError(Exception):
    """The connection is of no further use; says what happened."""

    def __init__(self, kind: FailureKind, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why


class _StaleError(Exception):
    """An idle connection was closed, or spoke unasked; nothing was sent on it."""


class _Wire(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """One connection's socket: httpcore opens it through this, its network backend, and then uses it as its stream.

    A request is collected and leaves in one write when httpcore first reads its answer. So there is one moment to check
    the connection and to call `may_send`. The last received byte is returned only when httpcore asks for it, too: if it
    is still here when an answer is complete, there are bytes after that answer.
    """

    def __init__(self) -> None:
        self.sent = False
        self.ended = False
        self.received_bytes = 0
        self.beginning = b""
        self._deadline = 0.0
        self._answer_s = 0.0
        self._connected_by = 0.0
        self._may_send: MaySend | None = None
        self._requests = 0
        self._unsent = b""
        self._held = b""
        self._tls: ssl.SSLObject | None = None
        self._stream: httpcore.AsyncNetworkStream

    def begin(self, deadline: float, answer_s: float, may_send: MaySend | None) -> None:
        """Start a request that must be over at `deadline` (monotonic seconds), and `answer_s` after its first byte."""
        self.sent = False
        self.received_bytes = 0
        self.beginning = b""
        self._deadline = deadline
        self._answer_s = answer_s
        self._may_send = may_send
        self._requests += 1

    def _within(self, timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        return left if timeout is None else min(timeout, left)

    # The network backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        left = self._within(timeout)
        self._connected_by = time.monotonic() + left
        self._stream = await _SOCKETS.connect_tcp(host, port, left, local_address, socket_options)
        return self

    # The network stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - httpcore gives TCP and TLS the whole time each
    ) -> httpcore.AsyncNetworkStream:
        left = self._connected_by - time.monotonic()
        try:
            self._stream = await self._stream.start_tls(ssl_context, server_hostname, left)
        except BaseException:
            await self.aclose()  # httpcore forgets the socket where the task is cancelled meanwhile
            raise
        self._tls = self._stream.get_extra_info("ssl_object")
        return self

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        self._unsent += buffer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._unsent:
            await self._send(timeout)
        if self._held:
            last, self._held = self._held, b""
            return last
        data = await self._stream.read(max_bytes, self._within(timeout))
        self.ended = not data
        self.received_bytes += len(data)
        if len(self.beginning) < MAX_STATUS_LINE_BYTES:
            self.beginning += data[: MAX_STATUS_LINE_BYTES - len(self.beginning)]
        if self.received_bytes > MAX_BODY_BYTES:
            raise _BrokenError("oversized", f"answer was longer than {MAX_BODY_BYTES} bytes")
        if len(data) > 1:
            data, self._held = data[:-1], data[-1:]
        return data

    async def _send(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if self._requests > 1 and self._has_news():
            raise _StaleError
        if self._may_send is not None and not self._may_send():
            raise _BrokenError("withdrawn", "no longer ours to send")
        self.sent = True
        self._deadline = min(self._deadline, time.monotonic() + self._answer_s)
        request, self._unsent = self._unsent, b""
        with suppress(httpcore.WriteError):  # the answer may lie there although not all was taken
            await self._stream.write(request, self._within(timeout))

    def get_extra_info(self, info: str) -> object:
        # httpcore asks for it in has_expired()
        return self._has_news() if info == "is_readable" else self._stream.get_extra_info(info)

    def _has_news(self) -> bool:
        """Tell whether something came unasked: the connection's end, or bytes."""
        if self._held or self.received_bytes > MAX_REUSE_BYTES or self._stream.get_extra_info("is_readable"):
            return True
        if self._tls is None:
            return False
        try:
            self._tls.read(1)  # what was decrypted, or lies there to be, is no longer the socket's to tell
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            return True
        return True

    async def aclose(self) -> None:
        await self._stream.aclose()


_SOCKETS = httpcore.AnyIOBackend()


class _Connection:
    """One connection to the origin, with httpcore's view of it and ours."""

    def __init__(self, origin: httpcore.Origin, ssl_context: ssl.SSLContext | None) -> None:
        self.idle_until = 0.0
        self.wire = _Wire()
        self.http = httpcore.AsyncHTTPConnection(origin, ssl_context, network_backend=self.wire)

    async def ask(self, request: httpcore.Request) -> Response:
        """Send and read the whole answer."""
        answer = await self.http.handle_async_request(request)
        try:
            headers = {name.lower(): value for name, value in answer.headers}  # of a repeated one the last
            if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
                raise _BrokenError("encoded", "answer was compressed, though identity was asked for")
            body = await answer.aread()
        finally:
            await answer.aclose()
        return Response(answer.status, body, _text(headers.get(b"location")), _text(headers.get(b"retry-after")))


class HttpEngine:
    """Requests to one origin. As many connections as there are requests in flight; the last used is used first."""

    def __init__(
        self, *, origin: Origin, timeout_s: float, ca_file: Path | None = None, on_request: OnRequest | None = None
    ) -> None:
        self._scheme = b"https" if origin.secure else b"http"
        self._host = origin.host.encode()
        self._port = origin.port
        self._timeout_s = timeout_s
        self._ssl = _ssl_context(ca_file) if origin.secure else None
        self._on_request = on_request
        self._idle: deque[_Connection] = deque()
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
        Raises httpcore.LocalProtocolError for a header or target that HTTP cannot carry: the caller's error.
        """
        started = time.monotonic()
        url = httpcore.URL(scheme=self._scheme, host=self._host, port=self._port, target=target)
        silence_s = self._timeout_s if answer_s is None else answer_s
        timeouts = {"connect": self._timeout_s / 2, "read": silence_s, "write": silence_s}
        request = httpcore.Request(method, url, headers=headers, content=body or None, extensions={"timeout": timeouts})
        answer_within_s = 1.5 * self._timeout_s if answer_s is None else answer_s
        answer = await self._exchange(request, started + self._timeout_s / 2, answer_within_s, may_send)
        if self._on_request is not None:
            status = str(answer.status) if isinstance(answer, Response) else answer.kind
            self._on_request(endpoint, status, time.monotonic() - started)
        return answer

    async def _exchange(
        self, request: httpcore.Request, connected_by: float, answer_s: float, may_send: MaySend | None
    ) -> Response | Failure:
        while True:
            connection = await self._last_used() or _Connection(request.url.origin, self._ssl)
            connection.wire.begin(connected_by + answer_s, answer_s, may_send)
            try:
                return await connection.ask(request)
            except _StaleError:
                continue
            except _FAILURES as error:
                return _failure(error, connection.wire)
            finally:  # also for a cancelled task
                if connection.http.is_available() and not self._closed:
                    connection.idle_until = time.monotonic() + IDLE_S
                    self._idle.append(connection)
                else:
                    await connection.http.aclose()

    async def _last_used(self) -> _Connection | None:
        now = time.monotonic()
        while self._idle and self._idle[0].idle_until < now:  # after a burst, those at the far end
            await self._idle.popleft().http.aclose()
        while self._idle:
            connection = self._idle.pop()
            if not connection.http.has_expired():
                return connection
            await connection.http.aclose()
        return None

    async def aclose(self) -> None:
        """Close what is idle; what is in flight ends by itself and isn't kept."""
        self._closed = True
        while self._idle:
            await self._idle.pop().http.aclose()


# Whatever the network and the server can do. An ssl.SSLError (an OSError) is what a TLS alert after the handshake is.
_FAILURES = (
    _BrokenError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.RemoteProtocolError,
    OSError,
)


def _failure(error: Exception, wire: _Wire) -> Failure:
    when = "in the midst of the answer" if wire.received_bytes else "before the answer"
    kind: FailureKind
    match error:
        case _BrokenError():
            kind, why = error.kind, error.why
        case httpcore.ConnectError() | httpcore.ConnectTimeout():
            kind, why = "connect", _why_unconnected(error)
        case httpcore.TimeoutException():
            kind, why = "timeout", f"time ran out {when}"
        case httpcore.RemoteProtocolError() if not wire.ended:  # its text may hold what was answered
            kind, why = "garbage", "answer was not HTTP"
        case httpcore.RemoteProtocolError():
            kind, why = "closed", f"connection was closed {when}"
        case _:
            kind, why = "closed", f"connection was reset {when}"
    return Failure(kind, why, wire.sent, _status_seen(wire.beginning))


def _status_seen(answer: bytes) -> int | None:
    """Read the status line of an answer's beginning, behind informational ones; None where it is not complete."""
    while line := _STATUS_LINE.match(answer):
        status = int(line[1])
        if status >= 200:
            return status
        _, _, answer = answer.partition(b"\r\n\r\n")
    return None


def _ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verify against certifi's authorities, or only against the given file's. TLS 1.2 is Engage's minimum."""
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _why_unconnected(error: BaseException) -> str:
    while cause := error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__:
        error = cause
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS certificate was refused: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS handshake failed: {error.reason or 'unknown reason'}"
        case socket.gaierror():
            return "host name could not be resolved"
        case TimeoutError():
            return "could not connect in time"
        case ConnectionRefusedError():
            return "connection refused"
        case OSError(errno=int() as number):
            return f"could not connect: {os.strerror(number)}"
        case _:
            return "could not connect: connection closed"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
