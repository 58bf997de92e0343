"""The simulator's server: bytes in, bytes out, and every way in which a connection can end badly.

EDGE. HTTP/1.1 by h11 on an asyncio.Protocol, under asyncio's loop or uvloop. What is answered is decided in `api.py`.
Rules:
 1. One request at a time per connection; the next is read when this one's answer is written (pipelining works).
 2. A silent connection stays until its client closes it, or the simulator stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Self, cast

import h11

from consumer.core.clock import Clock, steady_clock
from consumer.simulator.answer import Answer, refuse
from consumer.simulator.api import Api, Reaction
from consumer.simulator.options import SimulatorOptions
from consumer.simulator.world import Fate, World

MAX_BODY_BYTES = 8 << 20
MAX_HEADER_BYTES = 64 << 10
MAX_READ_AHEAD_BYTES = 1 << 20

_GARBAGE = b"\x00\x16\x03\x01this is not HTTP\r\n\r\n\xff"
TICKS_TO_CONNECT = 3  # accepted, given a transport, made known to the protocol
_LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends RST instead of FIN


class Simulator:
    """The simulator, to be used in-process.

    async with Simulator(SimulatorOptions(processing="instant")) as simulator:
        job_id = simulator.submit_order("A-1001")
        ...  # anything that speaks HTTP, against simulator.url
        simulator.world.account.of_order("A-1001")
    """

    def __init__(self, options: SimulatorOptions | None = None, *, clock: Clock | None = None) -> None:
        """`clock` returns seconds since 1970 and never goes back; default: the real time."""
        self._options = options or SimulatorOptions()
        self._clock = clock or steady_clock()
        self._world = World(
            seed=self._options.seed,
            processing=self._options.version_processing(),
            moods=self._options.moods,
            unknown_orders=self._options.unknown_orders,
        )
        self.api = Api(self._options, self._world)
        self.url = ""  # known once it listens
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def world(self) -> World:
        """The orders and the account as they are now, with everything processed that is due."""
        self._world.settle(self._clock())
        return self._world

    async def __aenter__(self) -> Self:
        host, port = self._options.address()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._react, self._connections), host, port, backlog=1024
        )
        host, port, *_ = self._server.sockets[0].getsockname()
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # noqa: S101 - entered before it is left
        # asyncio forgets whom it has accepted where the server closes before that is a connection: nobody more is
        # accepted, those few ticks of the loop pass, and only then it closes.
        for listening in self._server.sockets:
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(TICKS_TO_CONNECT):
            await asyncio.sleep(0)
        self._server.close()
        open_still = list(self._connections)
        for connection in open_still:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in open_still))
        await self._server.wait_closed()

    def submit_order(
        self, order_id: str, *, contact: bool = True, takes_s: float | None = None, fate: Fate | None = None
    ) -> str:
        """Do what the commerce platform does before it publishes an event: submit the order. Returns the job's id."""
        return self._world.submit_order(order_id, self._clock(), contact=contact, takes_s=takes_s, fate=fate)

    def _react(self, request: h11.Request, body: bytes) -> Reaction:
        method = request.method.decode("ascii")
        return self.api.react(method, request.target, request.headers, body, self._clock())


async def serve(options: SimulatorOptions, say: Callable[[str], None]) -> None:
    """Serve until cancelled. Says on which URL, once it listens. Raises OSError where it cannot listen."""
    async with Simulator(options) as simulator:
        say(f"Engage simulator listens on {simulator.url}")
        await asyncio.get_running_loop().create_future()


def run(options: SimulatorOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, on uvloop where there is one."""
    with asyncio.Runner(loop_factory=_fast_loop()) as runner, contextlib.suppress(asyncio.CancelledError):
        runner.run(_serve_until_told(options, say))


async def _serve_until_told(options: SimulatorOptions, say: Callable[[str], None]) -> None:
    loop, serving = asyncio.get_running_loop(), asyncio.current_task()
    if serving is not None and sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, serving.cancel)
    await serve(options, say)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - there is none on Windows

    return uvloop.new_event_loop


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, react: Callable[[h11.Request, bytes], Reaction], connections: set[_Connection]) -> None:
        self._react = react
        self._connections = connections
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._held = False  # an answer is pending: nothing more is read from what came
        self._read_ahead = 0
        self._timer: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = True
        self._transport = None
        self._connections.discard(self)
        self.lost.set_result(exc)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._read_ahead += len(data)
            if self._read_ahead > MAX_READ_AHEAD_BYTES:
                self.abort()
                return
        self._h11.receive_data(data)
        self._advance()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        try:
            while not self._held:
                event = self._h11.next_event()
                if type(event) is h11.Request:
                    self._request = event
                    self._body.clear()
                elif type(event) is h11.Data:
                    self._body += event.data
                    if len(self._body) > MAX_BODY_BYTES:
                        self._answer(refuse(413, "the body is too long"))
                        self._close()
                elif type(event) is h11.EndOfMessage and self._request is not None:
                    self._perform(self._react(self._request, bytes(self._body)))
                else:  # need data, paused, closed
                    self._continue()
                    return
        except h11.RemoteProtocolError:
            if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._answer(refuse(400, "the request is not HTTP/1.1"))
            self._close()

    def _continue(self) -> None:
        """Let a client send its body that waits to be asked for it."""
        if self._h11.they_are_waiting_for_100_continue:
            self._write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))

    def _perform(self, reaction: Reaction) -> None:
        match reaction.ending:
            case "answer":
                self._answer(reaction.answer)
            case "late":
                self._held = True
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(reaction.delay_s, self._answer_late, reaction.answer)
            case "silence":
                self._held = True
            case "reset":
                self._reset()
            case "close":
                self._close()
            case "cut":
                head = self._h11.send(_head(reaction.answer)) or b""
                self._write(head + reaction.answer.body[: len(reaction.answer.body) // 2])
                self._close()
            case "garbage":
                self._write(_GARBAGE)
                self._close()

    def _answer(self, answer: Answer) -> None:
        send = self._h11.send
        wire = send(_head(answer)) or b""
        if self._request is None or self._request.method != b"HEAD":
            wire += send(h11.Data(data=answer.body)) or b""
        wire += send(h11.EndOfMessage()) or b""
        self._write(wire)
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            self._close()

    def _answer_late(self, answer: Answer) -> None:
        self._held = False
        self._read_ahead = 0
        self._answer(answer)
        self._advance()

    def _write(self, data: bytes | None) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _close(self) -> None:
        self._held = True
        if self._transport is not None:
            self._transport.close()

    def _reset(self) -> None:
        self._held = True
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self._transport.abort()


def _head(answer: Answer) -> h11.Response:
    if answer.location is None and answer.retry_after_s is None:
        return _plain_head(answer.status, answer.content_type, len(answer.body))
    headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
    if answer.location is not None:
        headers.append(("Location", answer.location))
    if answer.retry_after_s is not None:
        headers.append(("Retry-After", str(answer.retry_after_s)))
    return h11.Response(status_code=answer.status, headers=headers)


@lru_cache(maxsize=1024)
def _plain_head(status: int, content_type: str, length: int) -> h11.Response:
    """Answers are much alike; to make their head again costs a third of the time of answering."""
    return h11.Response(status_code=status, headers=[("Content-Type", content_type), ("Content-Length", str(length))])
