"""The HTTP engine's connections: how they come about, which of them carries what, and what a server can do to them."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from consumer.engage import connecting, http, idling, names
from consumer.engage.connection import Connection
from consumer.engage.http import Failure, HttpEngine, Origin, Response
from consumer.engage.idling import IdleTime
from tests.contract.test_answers import ANSWERS, read_by_us
from tests.support.scripted_server import Peer, Server, answer, answering, serving

pytestmark = pytest.mark.anyio

LONG_S = 20.0
PATIENCE_S = 10.0
OK = answer(200, b"fine")
FINE = Response(200, b"fine")


def engine_for(url: str, timeout_s: float = LONG_S) -> HttpEngine:
    return HttpEngine(origin=Origin(url), timeout_s=timeout_s)


async def get(engine: HttpEngine) -> Response | Failure:
    return await engine.exchange("order", b"GET", b"/orders/1", [(b"host", b"engage")])


async def post(engine: HttpEngine, target: bytes = b"/orders/1/action", body: bytes = b"{}") -> Response | Failure:
    headers = [(b"host", b"engage"), (b"content-length", b"%d" % len(body))]
    return await engine.exchange("action", b"POST", target, headers, body)


# How they come about


@contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port that answers no connection: its queue is full, and what comes is dropped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for each in waiting:
                each.close()


def address(port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)


def test_the_authorities_are_loaded_once_however_many_connections_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []
    load = ssl.create_default_context

    def counted(**given: Any) -> ssl.SSLContext:
        made.append(load(**given))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    for number in range(20):
        HttpEngine(origin=Origin(f"https://tenant-{number}.example"), timeout_s=1.0)
    assert len(made) <= 1  # each takes 0.7 MB: a relay may have 2,000 connections


async def test_an_address_that_swallows_packets_costs_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(OK)) as server:
        with black_hole() as port:

            async def addresses(host: str, number: int) -> list[object]:
                return [address(port), address(server.port)]

            monkeypatch.setattr(connecting, "addresses", addresses)
            engine = engine_for(server.url)
            began = asyncio.get_running_loop().time()
            assert await get(engine) == FINE
            assert connecting.STAGGER_S <= asyncio.get_running_loop().time() - began + 0.01 < LONG_S / 4
            await engine.aclose()


async def test_where_no_address_answers_nothing_was_sent() -> None:
    with black_hole() as port:
        failure = await post(engine_for(f"http://127.0.0.1:{port}", timeout_s=0.3))
        assert failure == Failure("connect", "could not connect in time", sent=False)


async def test_the_next_address_is_tried_where_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(OK)) as server:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))

            async def addresses(host: str, number: int) -> list[object]:
                return [address(unheard.getsockname()[1]), address(server.port)]

            monkeypatch.setattr(connecting, "addresses", addresses)
            engine = engine_for(server.url)
            assert await get(engine) == FINE
            await engine.aclose()


async def test_a_name_that_moved_is_followed_though_its_former_server_still_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it, polls on a connection that is always busy ask the former one for as long as it answers: 404, say."""
    async with serving(answering(answer(404), answer(404))) as former, serving(answering(OK)) as present:
        ports = [former.port]

        async def addresses(host: str, number: int) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", ports[-1]))]

        monkeypatch.setattr(connecting, "addresses", addresses)
        engine = engine_for("http://engage.example")
        assert await get(engine) == Response(404, b"")
        ports.append(present.port)
        monkeypatch.setattr(http, "MAX_AGE_S", 0.0)
        assert await get(engine) == Response(404, b""), "on the connection that is open"
        assert await get(engine) == FINE
        await engine.aclose()
        assert former.connections == 1


async def test_ipv6_is_spoken() -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()
        gone.set()

    came: list[bytes] = []
    gone = asyncio.Event()
    listener = await asyncio.start_server(connected, "::1", 0)
    url = f"http://[::1]:{listener.sockets[0].getsockname()[1]}"
    engine = engine_for(url)
    assert await get(engine) == FINE
    assert len(came) == 1
    await engine.aclose()
    await gone.wait()
    listener.close()


@contextmanager
def a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the names that were asked for. Those that begin with `lost` get no answer until the end."""
    asked: list[str] = []
    over = threading.Event()
    look_up = socket.getaddrinfo

    def unanswered(host: str, port: int, **given: Any) -> object:
        if not host.startswith("lost") or "flags" in given:
            return look_up(host, port, **given)
        asked.append(host)
        over.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    try:
        yield asked
    finally:
        over.set()


NO_ANSWER = Failure("connect", "could not connect in time", sent=False)


async def test_names_that_nobody_answers_keep_no_other_host_from_being_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(OK)) as server:
        with a_name_server_that_does_not_answer(monkeypatch):
            lost = [engine_for(f"http://lost-{number}.example", timeout_s=2.0) for number in range(50)]
            calls = [asyncio.create_task(get(engine)) for engine in lost]
            await asyncio.sleep(0)  # they ask first
            engine = engine_for(f"http://localhost:{server.port}", timeout_s=2.0)
            assert await get(engine) == FINE
            assert set(await asyncio.gather(*calls)) == {NO_ANSWER}
            await engine.aclose()


async def test_a_name_is_looked_up_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_name_server_that_does_not_answer(monkeypatch) as asked:
        engine = engine_for("http://lost.example", timeout_s=0.2)
        assert {await each for each in [asyncio.create_task(get(engine)) for _ in range(20)]} == {NO_ANSWER}
        assert await get(engine) == NO_ANSWER
        assert asked == ["lost.example"]
    for lookup in [each for each in threading.enumerate() if each.name == "lookup"]:
        await asyncio.to_thread(lookup.join)
    failure = await get(engine_for("http://lost.example", timeout_s=LONG_S))
    assert failure == Failure("connect", "host name could not be resolved", sent=False)
    assert asked == ["lost.example"] * 2, "and again, once that has ended"


async def test_where_too_many_names_have_no_answer_the_next_one_has_none_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "_free", threading.BoundedSemaphore(1))
    with a_name_server_that_does_not_answer(monkeypatch) as asked:
        first = asyncio.create_task(get(engine_for("http://lost-1.example", timeout_s=0.5)))
        await asyncio.sleep(0)  # it asks first
        second = await get(engine_for("http://lost-2.example", timeout_s=LONG_S))
        assert second == Failure("connect", "host name could not be resolved", sent=False)
        assert await first == NO_ANSWER
        assert asked == ["lost-1.example"]


def test_the_end_of_the_process_waits_for_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_name_server_that_does_not_answer(monkeypatch):
        began = time.monotonic()
        assert asyncio.run(get(engine_for("http://lost.example", timeout_s=0.2))) == NO_ANSWER
        assert time.monotonic() - began < PATIENCE_S / 2
        assert all(each.daemon for each in threading.enumerate() if each.name == "lookup")


async def heard_by_the_loop(connection: Connection) -> None:
    await asyncio.wait([connection.lost])


async def still_in_the_kernel(connection: Connection) -> None:
    connection._transport.pause_reading()
    while not connection._poll.poll(0):  # noqa: ASYNC110 - only the kernel knows
        await asyncio.sleep(0)


@pytest.mark.parametrize("greeting", [OK, b"220 mail.example ESMTP\r\n"], ids=["an answer", "another protocol"])
@pytest.mark.parametrize("greeted", [heard_by_the_loop, still_in_the_kernel])
async def test_what_a_server_says_before_it_is_asked_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, greeting: bytes, greeted: Callable[[Connection], Awaitable[None]]
) -> None:
    async def greets(peer: Peer) -> None:
        peer.send_now(greeting)
        await peer.client_left()
        gone.set()

    async def connect(*args: Any) -> Connection | Failure:
        made = await connecting.connect(*args)
        assert isinstance(made, Connection)
        await greeted(made)
        return made

    gone = asyncio.Event()
    monkeypatch.setattr(http, "connect", connect)
    async with serving(greets) as server:
        engine = engine_for(server.url)
        assert await post(engine) == Failure("closed", "connection was closed before the request", sent=False)
        await gone.wait()
        await engine.aclose()


# Which of them carries what


async def test_a_get_takes_the_last_used_and_an_action_the_longest_idle() -> None:
    async with serving(numbered) as server:
        engine = engine_for(server.url)
        await asyncio.gather(*(get(engine) for _ in range(3)))
        assert await get(engine) == await get(engine)
        turns = [await post(engine) for _ in range(6)]
        assert turns[:3] == turns[3:]
        assert len({each.body for each in turns if isinstance(each, Response)}) == server.connections == 3
        await engine.aclose()


async def numbered(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(answer(200, b"%d" % peer.number))


async def test_a_server_that_closes_behind_an_answer_without_a_word_costs_no_action(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its FIN comes right behind the answer, later than a client as fast as this one could write again."""
    monkeypatch.setattr(http, "REST_S", 0.05)  # so that a busy machine is no reason to fail

    async def closes(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await asyncio.sleep(http.REST_S / 10)
        peer.close_now()
        await peer.client_left()

    async with serving(closes) as server:
        engine = engine_for(server.url)
        assert [await post(engine) for _ in range(10)] == [FINE] * 10
        assert server.connections == 10
        await engine.aclose()


# How long they are kept


def aged(engine: HttpEngine, seconds: float) -> None:
    """Have the idle connections be so much older."""
    for connection in engine._idle:
        connection.idle_since -= seconds


async def test_an_action_takes_no_connection_that_is_older_than_is_known_to_be_safe() -> None:
    async with serving(numbered) as server:
        engine = engine_for(server.url)
        assert await post(engine) == Response(200, b"1")
        aged(engine, idling.FIRST_S - 1)
        assert await post(engine) == Response(200, b"1")
        aged(engine, idling.FIRST_S + 1)
        assert await post(engine) == Response(200, b"2")
        await engine.aclose()


async def test_a_get_finds_out_what_an_action_may_then_use() -> None:
    async with serving(numbered) as server:
        engine = engine_for(server.url)
        assert await get(engine) == Response(200, b"1")
        aged(engine, 30)
        assert await get(engine) == Response(200, b"1")
        aged(engine, 29)
        assert await post(engine) == Response(200, b"1")
        aged(engine, 31)
        assert await post(engine) == Response(200, b"2")
        await engine.aclose()


async def test_a_get_that_meets_the_servers_closing_is_sent_once_more() -> None:
    """And no action is: whether it was processed is not known."""

    async def closes_at_the_second(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(200, b"%d" % peer.number))
        await peer.request()

    async with serving(closes_at_the_second) as server:
        engine = engine_for(server.url)
        assert await get(engine) == Response(200, b"1")
        aged(engine, 30)
        assert await get(engine) == Response(200, b"2")
        assert len(server.requests) == 3
        aged(engine, 20)  # known to be safe: 30 s less the margin
        failure = await post(engine)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent) == ("closed", True)
        await engine.aclose()


async def test_a_get_is_not_repeated_where_the_connection_was_young() -> None:
    async def closes_at_the_second(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    async with serving(closes_at_the_second) as server:
        engine = engine_for(server.url)
        assert await get(engine) == FINE
        assert isinstance(await get(engine), Failure)
        assert len(server.requests) == 2
        await engine.aclose()


async def test_when_a_server_closes_an_idle_connection_its_time_out_is_learnt() -> None:
    async def closes_when_told(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(200, b"%d" % peer.number))
        if peer.number == 1:
            await told.wait()
            return
        await numbered(peer)

    told = asyncio.Event()
    async with serving(closes_when_told) as server:
        engine = engine_for(server.url)
        assert await post(engine) == Response(200, b"1")
        (idle,) = engine._idle
        aged(engine, 75)
        told.set()
        await asyncio.wait([idle.lost])
        assert await post(engine) == Response(200, b"2")
        aged(engine, 59)
        assert await post(engine) == Response(200, b"2")
        aged(engine, 61)
        assert await post(engine) == Response(200, b"3")
        await engine.aclose()


@pytest.mark.parametrize("said", ["timeout=30, max=100", "max=7,Timeout=30", 'timeout="30"'])
async def test_a_server_that_says_how_long_it_keeps_a_connection_is_believed(said: str) -> None:
    async with serving(answering(answer(200, b"fine", {"Keep-Alive": said}))) as server:
        engine = engine_for(server.url)
        assert await post(engine) == FINE
        aged(engine, 23)
        assert await post(engine) == FINE
        assert server.connections == 1
        aged(engine, 25)
        assert await get(engine) == FINE
        assert server.connections == 2
        await engine.aclose()


@pytest.mark.parametrize("said", ["", "timeout", "timeout=-1", "timeout=x", "xtimeout=1"])
async def test_a_keep_alive_that_says_nothing_changes_nothing(said: str) -> None:
    idle = IdleTime()
    idle.said(said.encode())
    assert (idle.safe_s, idle.usable_s) == (idling.FIRST_S, idling.MAX_S)


async def test_a_restart_is_no_time_out_for_long() -> None:
    idle = IdleTime()
    idle.closed(0.3)
    assert idle.safe_s == idling.FIRST_S
    idle.closed(2.0)
    assert idle.safe_s == idling.MARGIN * 2.0
    idle.survived(6.0)
    assert idle.safe_s == 6.0
    idle.survived(10_000.0)
    assert idle.safe_s == idling.MAX_S


# What was sent


async def test_what_the_kernel_refuses_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks between the look at the socket and the write."""

    def breaks(connection: Connection) -> bool:
        connection._sock.shutdown(socket.SHUT_WR)
        return False

    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        with monkeypatch.context() as broken:
            broken.setattr(Connection, "has_news", breaks)
            failure = await post(engine)
        assert failure == Failure("closed", "connection was closed before the request", sent=False)
        assert await post(engine) == FINE
        assert len(server.requests) == 1
        await engine.aclose()


async def test_a_header_that_http_cannot_carry_is_the_callers_error() -> None:
    engine = engine_for("http://127.0.0.1:1")
    for headers in ([(b"a", b"b\r\nc: d")], [(b"a", b"b\n")], [(b"a\0", b"b")]):
        with pytest.raises(ValueError, match="cannot carry"):
            await engine.exchange("order", b"GET", b"/", headers)
    with pytest.raises(ValueError, match="cannot carry"):
        await engine.exchange("order", b"GET", b"/ HTTP/1.1\r\nx: y", [])


# Whatever a server does


@dataclass(frozen=True)
class Answering:
    """What a server does with one connection: its answer in pieces, then an end."""

    name: str
    cuts: frozenset[int]
    reads_first: bool
    ends: str

    @property
    def pieces(self) -> list[bytes]:
        raw = ANSWERS[self.name]
        bounds = [0, *sorted(cut for cut in self.cuts if cut < len(raw)), len(raw)]
        return [raw[start:end] for start, end in itertools.pairwise(bounds) if end > start]

    async def play(self, peer: Peer) -> None:
        if self.reads_first:
            await peer.head()
        for piece in self.pieces:
            await peer.send(piece)
            await asyncio.sleep(0)
        if self.ends == "resets":
            peer.reset()
        elif self.ends == "closes":
            peer.writer.close()
        else:
            with suppress(OSError):  # the client may have left
                peer.writer.write_eof()
            await peer.client_left()


ANSWERINGS = st.builds(
    Answering,
    name=st.sampled_from(sorted(ANSWERS)),
    cuts=st.frozensets(st.integers(1, 120), max_size=8),
    reads_first=st.booleans(),
    ends=st.sampled_from(["closes", "resets", "half-closes"]),
)


@given(ANSWERINGS, ANSWERINGS)
@example(
    Answering("with a length", frozenset(), reads_first=True, ends="resets"),
    Answering("a cut body", frozenset(), reads_first=True, ends="closes"),
)
@settings(
    max_examples=settings().max_examples * 3 // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_request_hangs_and_none_is_said_not_to_be_sent_that_was(first: Answering, second: Answering) -> None:
    """Two servers' ways in turn, three requests: each has its own number, and the server keeps all bytes that came."""
    turns = [first, second]
    came: list[bytes] = []

    async def script(peer: Peer) -> None:
        keep(peer, came)
        await turns[(peer.number - 1) % 2].play(peer)

    async with serving(script) as server:
        engine = engine_for(server.url)
        for number in range(3):
            connections = server.connections
            async with asyncio.timeout(PATIENCE_S):
                outcome = await post(engine, b"/number-%d" % number)
            if isinstance(outcome, Failure) and not outcome.sent:
                assert not any(b"/number-%d " % number in each for each in came)
            if isinstance(outcome, Response):
                assert_that_it_was_answered(outcome, server, turns, connections)
        await engine.aclose()


def assert_that_it_was_answered(outcome: Response, server: Server, turns: list[Answering], before: int) -> None:
    """A response is what the server of a connection that this request could have used sends as a whole."""
    possible = [turns[number % 2] for number in range(max(before - 1, 0), server.connections)]
    read = [read_by_us([ANSWERS[each.name]], ends=True).outcome for each in possible if ANSWERS[each.name]]
    assert (outcome.status, outcome.body) in read


def keep(peer: Peer, came: list[bytes]) -> None:
    """Keep whatever the peer receives, also what no script reads."""
    feed = peer.reader.feed_data

    def kept(data: Any) -> None:
        came.append(bytes(data))
        feed(data)

    setattr(peer.reader, "feed_data", kept)  # noqa: B010 - mypy takes no assignment to a method
