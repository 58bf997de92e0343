"""A network between Kafka's clients and a broker that loses its temper: it cuts, swallows, and delivers too late.

    with KafkaProxy() as proxy:
        broker = KafkaBroker(PROXIED, listeners=("PROXIED",), advertised={"PROXIED": proxy.port})
        ...
        proxy.forward_to(broker.address("PROXIED"))
        proxy.judge(lambda request: Hold(2.0) if request.api == END_TXN else None)

What is delivered too late are a request's very bytes, on a connection of their own, after the client's connection was
cut: to the broker the same as bytes that lay in a switch, or in the socket of a broker that stood still.

Rules:
 1. No answer is rewritten: the broker itself advertises the proxy's port for the listener PROXIED.
 2. Requests are told apart by their header alone (length, API key, version); of EndTxn also whether it commits.
 3. All of it happens on one thread with an event loop of its own; what a test asks of it is done when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Self, TypeVar

from tests.support import broker
from tests.support.waiting import PATIENCE_S

PRODUCE, INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 0, 22, 24, 25, 26, 28
TRANSACTIONAL = frozenset({INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT})
DELIVERY_S = 15.0  # for the broker's answer to a request that is delivered late
PROXIED = {
    "listener.security.protocol.map": broker.PROPERTIES["listener.security.protocol.map"] + ",PROXIED:PLAINTEXT",
}
"""What a broker needs for a listener PROXIED."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request. `commits`: of END_TXN, whether it commits or aborts."""

    api: int
    version: int
    commits: bool | None
    number: int  # among those of its API, from 1


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the request back, cut its connection, deliver it after so many seconds (inf: when it is released)."""

    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Let the request through, and cut its connection before it is answered."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Become a black hole before this request passes (see `swallow`): it is the first that passes afterwards."""


Fault = Hold | LoseAnswer | Stall | None
Judge = Callable[[Request], Fault]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that was delivered too late, and the broker's error code (0: it was done; None: no answer)."""

    request: Request
    error: int | None


class KafkaProxy:
    """Lets everything through, until told otherwise."""

    def __init__(self) -> None:
        self._judge: Judge = lambda _: None
        self._target = ("127.0.0.1", 0)
        self._held: list[tuple[Request, bytes, asyncio.TimerHandle | None]] = []
        self._delivering: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.seen: Counter[int] = Counter()
        self.faults: Counter[tuple[int, str]] = Counter()
        self.aborts = 0
        self.delivered: list[Delivery] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything, deliver nothing more, end."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    # -- what a test asks ---------------------------------------------------------------------------------------

    def forward_to(self, address: str) -> None:
        """Say where the broker listens."""
        host, _, port = address.rpartition(":")
        self._call(lambda: setattr(self, "_target", (host, int(port))))

    def judge(self, judge: Judge) -> None:
        """Have each request judged from now on. Called on the proxy's thread, one request at a time."""
        self._call(lambda: setattr(self, "_judge", judge))

    def let_through(self) -> None:
        """Judge nothing any more, and open the black hole."""
        self._call(lambda: setattr(self, "_judge", lambda _: None))
        self._call(self._open.set)

    def swallow(self) -> None:
        """Be a black hole: connections stay and may be made, nothing passes in either direction."""
        self._call(self._open.clear)

    @property
    def swallows(self) -> bool:
        """Whether it is a black hole at the moment."""
        return not self._open.is_set()

    def cut(self) -> None:
        """Cut every connection."""
        self._run(self._cancel(self._connections))

    @property
    def held(self) -> list[Request]:
        """What is kept back at the moment."""
        return self._call(lambda: [request for request, _, _ in self._held])

    def release_all(self) -> list[Delivery]:
        """Deliver all that is held, in the order in which it came; returns what the broker answered."""
        before = len(self.delivered)
        self._run(self._release_all())
        return self.delivered[before:]

    # -- on the proxy's thread ----------------------------------------------------------------------------------

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        up_writer = None
        answers: asyncio.Task[None] | None = None
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            answers = asyncio.create_task(self._pass_answers(up_reader, writer, task))
            while await self._pass_request(reader, up_writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # somebody hung up: so does the other side
        finally:
            self._connections.discard(task)
            if answers is not None:
                answers.cancel()
            for each in (writer, up_writer):
                if each is not None:
                    each.close()

    async def _pass_request(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter) -> bool:
        """Pass one request on; False: cut the connection."""
        frame = await _read_frame(reader)
        await self._open.wait()
        request = self._read(frame)
        fault = self._judge(request)
        if fault is not None:
            self.faults[request.api, type(fault).__name__] += 1
        if isinstance(fault, Hold):
            self._hold(request, frame, fault.seconds)
            return False
        if isinstance(fault, Stall):
            self._open.clear()
            await self._open.wait()
        up.write(frame)
        await up.drain()
        return not isinstance(fault, LoseAnswer)

    async def _pass_answers(
        self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: asyncio.Task[None]
    ) -> None:
        with contextlib.suppress(OSError):
            while some := await up.read(1 << 16):
                await self._open.wait()
                writer.write(some)
                await writer.drain()
        connection.cancel()

    def _read(self, frame: bytes) -> Request:
        api, version = int.from_bytes(frame[4:6]), int.from_bytes(frame[6:8])
        self.seen[api] += 1
        commits = None
        if api == END_TXN:
            assert version < 3, "its last byte is no longer what it was"
            commits = frame[-1] == 1
            self.aborts += not commits
        return Request(api, version, commits, self.seen[api])

    def _hold(self, request: Request, frame: bytes, seconds: float) -> None:
        timer = None if seconds == math.inf else self._loop.call_later(seconds, lambda: self._release(request, frame))
        self._held.append((request, frame, timer))

    def _release(self, request: Request, frame: bytes) -> None:
        self._held = [each for each in self._held if each[0] != request]
        task = self._loop.create_task(self._deliver(request, frame))
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)

    async def _release_all(self) -> None:
        held, self._held = self._held, []
        for request, frame, timer in held:
            if timer is not None:
                timer.cancel()
            await self._deliver(request, frame)

    async def _deliver(self, request: Request, frame: bytes) -> None:
        error = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            reader, writer = await asyncio.open_connection(*self._target)
            try:
                writer.write(frame)
                error = _error_of(request, await asyncio.wait_for(_read_frame(reader), DELIVERY_S))
            finally:
                writer.close()
        self.delivered.append(Delivery(request, error))

    async def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        ending = list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _end(self) -> None:
        self._server.close()
        for _, _, timer in self._held:
            if timer is not None:
                timer.cancel()
        self._held = []
        await self._cancel(self._connections | self._delivering)
        await asyncio.sleep(0)  # the transports close in the loop's next tick


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size))


def _error_of(request: Request, answer: bytes) -> int:
    """Return an answer's error code: of TXN_OFFSET_COMMIT and ADD_PARTITIONS_TO_TXN the first partition's."""
    if request.api == PRODUCE:
        return 0
    compact = request.api == TXN_OFFSET_COMMIT and request.version >= 3
    at = 4 + 4 + compact + 4  # length, correlation id, (tags,) throttle time
    if request.api in {TXN_OFFSET_COMMIT, ADD_PARTITIONS_TO_TXN}:
        if compact:
            at += 1  # how many topics
            at += 1 + answer[at] - 1  # its name, one longer than it says
            at += 1 + 4  # how many partitions, which one
        else:
            at += 4
            at += 2 + int.from_bytes(answer[at : at + 2])
            at += 4 + 4
    return int.from_bytes(answer[at : at + 2], signed=True)
