"""One connection to the origin, which knows how far a request got.

    not connected -> nothing given to the kernel -> some given -> answer begun -> answer complete
                     (ask returned None)            (sent)        (received_bytes)

The request is written straight to the socket, past the event loop's transport, because send(2) says how much it took:
an error means nothing. The transport takes only what did not fit. Under TLS there is no such knowledge: from the moment
in which the TLS layer has the request, it is in doubt.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from consumer.engage.answers import AnswerReader, FailureKind, Fault, Response, says_enough

MaySend = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Failure:
    """No complete answer. `sent` is False where Engage surely has nothing of the request.

    `status`: what the answer's status line said, where that one was complete.
    """

    kind: FailureKind
    why: str
    sent: bool
    status: int | None = None


class Connection(asyncio.Protocol):
    """Carries one request at a time. Times are monotonic seconds."""

    def __init__(self, sock: socket.socket, *, secure: bool) -> None:
        self.on_idle_end: Callable[[float], None] | None = None
        """Told how long it had been idle when the server closed it."""
        self.on_sooner_deadline: Callable[[float], None] | None = None
        """Told of a deadline that comes before the one that the request had."""
        self.fresh = True
        self.made_at = time.monotonic()
        self.idle_since = 0.0
        self.deadline = 0.0
        self.quiet_until = 0.0
        self._silence_s = 0.0
        self._body_s: float | None = None
        self._sock = sock
        self._secure = secure
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._reader = AnswerReader()
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Response | Failure] | None = None
        self._ended = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # A request

    def ask(
        self,
        request: bytes,
        may_send: MaySend | None,
        *,
        silence_s: float,
        answer_s: float,
        ends_by: float,
        body_s: float | None = None,
    ) -> asyncio.Future[Response | Failure] | Failure | None:
        """Write a request: `may_send`, a look at the socket and the write, with nothing in between.

        Returns what will hold the answer; `withdrawn`; or None where the connection is of no use any more, and the
        kernel took nothing. The answer must have come by `ends_by`, and `answer_s` after the first byte. `body_s`:
        how long what follows its status line may take, where that says enough.
        """
        if may_send is not None and not may_send():
            return Failure("withdrawn", "no longer ours to send", sent=False)
        if self.has_news():
            return None
        now = time.monotonic()
        self.deadline = min(ends_by, now + answer_s)
        self.quiet_until = now + silence_s
        self._silence_s, self._body_s = silence_s, body_s
        self._reader.begin()
        if not self._write(request):
            return None
        self.fresh = False
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    @property
    def ended(self) -> bool:
        """Whether it is closed, by whomever."""
        return self._ended

    def has_news(self) -> bool:
        """Tell whether something came unasked: the connection's end, or bytes.

        Of a fresh TLS connection the socket tells nothing: the session's tickets may lie there.
        """
        if self._ended or self._transport.is_closing():
            return True
        return not (self.fresh and self._secure) and bool(self._poll.poll(0))

    def _write(self, request: bytes) -> bool:
        """Give the request to the kernel; False where it took nothing."""
        if self._secure:
            self._transport.write(request)
            return True
        try:
            taken = self._sock.send(request)
        except OSError:
            return False
        if taken < len(request):
            self._transport.write(memoryview(request)[taken:])
        return True

    @property
    def answer_begun(self) -> bool:
        """Whether a byte of the last request's answer came."""
        return self._reader.received_bytes > 0

    @property
    def reusable(self) -> bool:
        """Whether another request may follow the one whose answer is complete."""
        return self._reader.reusable and not self._ended and not self._transport.get_write_buffer_size()

    def time_out(self) -> None:
        """Give the request up: its time is over."""
        self._fail("timeout", "time ran out")

    def close(self) -> None:
        """Close it as the protocol wants it: TLS says goodbye."""
        self._ended = True
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._ended = True
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport that reads for us."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Read on in the answer; bytes without a request end the connection."""
        answer = self._answer
        if answer is None:  # nobody asked
            self.abort()
            return
        now = time.monotonic()
        self.quiet_until = now + self._silence_s
        came = self._reader.feed(data)
        if came is not None:
            self._settle(came)
        elif self._body_s is not None and says_enough(self._reader.status_seen()):
            self.deadline, self._body_s = min(self.deadline, now + self._body_s), None
            if self.on_sooner_deadline is not None:
                self.on_sooner_deadline(self.deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is in flight: complete, where an answer ends with its connection, or failed."""
        if not self._ended and self._answer is None and not self.fresh and self.on_idle_end is not None:
            self.on_idle_end(time.monotonic() - self.idle_since)
        self._ended = True
        if exc is not None and self._answer is not None and not self._secure:
            self._read_what_is_left()
        if self._answer is not None:
            came = self._reader.end()
            if came is not None:
                self._settle(came)
            else:
                self._fail("closed", "connection was closed" if exc is None else "connection was reset")
        if not self.lost.done():
            self.lost.set_result(None)

    def _read_what_is_left(self) -> None:
        """Read what lies behind a write that failed: the answer may be there although not all was taken."""
        try:
            while self._answer is not None and (data := self._sock.recv(1 << 16)):
                self.data_received(data)
        except OSError:
            return

    def _settle(self, came: Response | Fault) -> None:
        if isinstance(came, Fault):
            self._end(Failure(came.kind, came.why, sent=True, status=self._reader.status_seen()))
        else:
            self._end(came)

    def _fail(self, kind: FailureKind, why: str) -> None:
        when = "in the midst of the answer" if self._reader.received_bytes else "before the answer"
        self._end(Failure(kind, f"{why} {when}", sent=True, status=self._reader.status_seen()))

    def _end(self, outcome: Response | Failure) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():  # else the one who asked was cancelled
            answer.set_result(outcome)
