"""The HTTP engine against real sockets: each way in which an answer can fail to come, and whether anything was sent.

Whether an action is in doubt hangs on `sent`, so every failure pins it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from consumer.engage import idling
from consumer.engage.http import MAX_BODY_BYTES, Failure, HttpEngine, MaySend, Origin, Response
from tests.support.scripted_server import Peer, Script, answer, answering, refused_url, serving

pytestmark = pytest.mark.anyio

LONG_S = 20.0  # a time-out that no test waits for
SHORT_S = 0.15  # one that is waited for
OK = answer(200, b"fine")
NOT_ASKED = answer(202, b"to nobody's question")


def engine_for(url: str, timeout_s: float = LONG_S, ca_file: Path | None = None) -> HttpEngine:
    return HttpEngine(origin=Origin(url), timeout_s=timeout_s, ca_file=ca_file)


async def ask(engine: HttpEngine, body: bytes = b"{}", may_send: MaySend | None = None) -> Response | Failure:
    headers = [(b"host", b"engage"), (b"content-length", b"%d" % len(body))]
    return await engine.exchange("action", b"POST", b"/orders/1/action", headers, body, may_send=may_send)


async def outcome_of(
    script: Script,
    *,
    timeout_s: float = LONG_S,
    tls: ssl.SSLContext | None = None,
    ca_file: Path | None = None,
    body: bytes = b"{}",
) -> Response | Failure:
    """Ask once, of a server that behaves like this."""
    async with serving(script, tls) as server:
        engine = engine_for(server.url, timeout_s, ca_file)
        outcome = await ask(engine, body)
        await engine.aclose()
        return outcome


def after_the_request(*sent: bytes, then: Callable[[Peer], None] = lambda peer: None) -> Script:
    """Read the request, send this, do that, and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for data in sent:
            await peer.send(data)
        then(peer)

    return script


async def silent(peer: Peer) -> None:
    await peer.client_left()


async def dripping(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        await peer.send(b".")
        await asyncio.sleep(SHORT_S / 10)


def server_tls(authority: trustme.CA, *hosts: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts or ("localhost",)).configure_cert(context)
    return context


async def tls_request(peer: Peer, context: ssl.SSLContext) -> Callable[..., bytes]:
    """Shake hands and read a request; returns what encrypts each argument as a record of its own."""
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes, server_side=True)

    async def step(call: Callable[[], object]) -> None:
        while True:
            try:
                call()
            except ssl.SSLWantReadError:
                await peer.send(goes.read())
                came.write(await peer.reader.read(1 << 16))
            else:
                return

    def encrypted(*records: bytes) -> bytes:
        for record in records:
            tls.write(record)
        return goes.read()

    await step(tls.do_handshake)
    await step(lambda: tls.read(1 << 16))
    return encrypted


# What ends well


async def test_a_complete_answer_is_returned_with_what_its_headers_say() -> None:
    said = {"Location": "/orders/1", "RETRY-AFTER": "7"}
    response = await outcome_of(answering(answer(302, b"look there", said)))
    assert response == Response(302, b"look there", location="/orders/1", retry_after="7")


async def test_blanks_around_a_headers_value_are_no_part_of_it() -> None:
    response = await outcome_of(answering(answer(429, headers={"location": " /orders/1\t", "retry-after": "  7  "})))
    assert response == Response(429, b"", location="/orders/1", retry_after="7")


@pytest.mark.parametrize(
    ("status", "connections"), [(200, 1), (404, 1), (500, 1), (421, 2), (502, 2), (503, 2), (504, 2)]
)
async def test_where_a_gateway_has_nobody_to_ask_the_next_request_looks_for_engage_again(
    status: int, connections: int
) -> None:
    """Its address may be another one by now, and a connection that is kept alive would never find out."""
    async with serving(answering(answer(status))) as server:
        engine = engine_for(server.url)
        for _ in range(2):
            assert await ask(engine) == Response(status, b"")
        await engine.aclose()
        assert server.connections == connections


async def test_the_request_arrives_whole_and_as_written() -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        headers = [(b"host", b"engage"), (b"content-length", b"3")]
        await engine.exchange("document", b"PUT", b"/a%2Fb?c=%0A", headers, b"abc")
        await engine.exchange("order", b"GET", b"/", [(b"host", b"engage")])
        await engine.aclose()
        put, get = server.requests
        assert (put.line, put.body) == (b"PUT /a%2Fb?c=%0A HTTP/1.1", b"abc")
        assert (get.line, get.headers) == (b"GET / HTTP/1.1", {b"host": b"engage"})


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 4\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: identity  \r\ncontent-length:  4 \r\n\r\nfine",
        b"HTTP/1.0 200 OK\r\n\r\nfine",
    ],
    ids=[
        *("informational answers first", "chunked", "identity", "identity with blanks behind it"),
        "until the end of the connection",
    ],
)
async def test_every_form_of_an_answer_is_read(raw: bytes) -> None:
    assert await outcome_of(after_the_request(raw)) == Response(200, b"fine")
    assert await outcome_of(after_the_request(*(raw[n : n + 1] for n in range(len(raw))))) == Response(200, b"fine")


async def test_an_answer_that_comes_before_the_request_was_read_counts() -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(413, b"too long", {"connection": "close"}))
        await peer.client_left()

    assert await outcome_of(early, body=bytes(100_000)) == Response(413, b"too long")


async def test_tls_is_verified_against_the_given_authority(authority: trustme.CA, ca_file: Path) -> None:
    async with serving(answering(OK), server_tls(authority)) as server:
        engine = engine_for(server.url, ca_file=ca_file)
        assert [await ask(engine) for _ in range(3)] == [Response(200, b"fine")] * 3
        assert server.connections == 1
        await engine.aclose()


async def test_each_answer_is_reported_once() -> None:
    facts: list[tuple[str, str]] = []

    async with serving(answering(OK)) as server:
        engine = HttpEngine(
            origin=Origin(server.url),
            timeout_s=LONG_S,
            on_request=lambda endpoint, status, seconds: facts.append((endpoint, status)),
        )
        await ask(engine)
        await ask(engine, may_send=lambda: False)
        await engine.aclose()
    assert facts == [("action", "200"), ("action", "withdrawn")]


# Surely not sent


async def test_refused_is_not_sent() -> None:
    assert await ask(engine_for(refused_url())) == Failure("connect", "connection refused", sent=False)


async def test_a_name_without_an_address_is_not_sent() -> None:
    failure = await ask(engine_for("http://nowhere.invalid"))
    assert failure == Failure("connect", "host name could not be resolved", sent=False)


@pytest.mark.parametrize("host", ["localhost", "elsewhere.example"], ids=["unknown authority", "other host"])
async def test_a_certificate_that_is_not_trusted_is_not_sent_to(ca_file: Path, host: str) -> None:
    tls = server_tls(trustme.CA(), host)
    failure = await outcome_of(answering(OK), tls=tls, ca_file=ca_file)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.sent) == ("connect", False)
    assert failure.why.startswith("TLS certificate was refused")


async def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    failure = await outcome_of(answering(OK), tls=server_tls(authority, "elsewhere.example"), ca_file=ca_file)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.sent) == ("connect", False)
    assert "Hostname mismatch" in failure.why


async def test_a_server_without_tls_is_not_sent_to(ca_file: Path) -> None:
    async def speaks_plainly(peer: Peer) -> None:
        await peer.send(answer(400))
        await peer.client_left()

    async with serving(speaks_plainly) as server:
        failure = await ask(engine_for(server.url.replace("http:", "https:"), ca_file=ca_file))
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent) == ("connect", False)
        assert failure.why.startswith("TLS handshake failed")


async def test_a_handshake_that_gets_no_answer_is_not_sent(ca_file: Path) -> None:
    async with serving(silent) as server:
        engine = engine_for(server.url.replace("http:", "https:"), SHORT_S, ca_file)
        assert await ask(engine) == Failure("connect", "could not connect in time", sent=False)
        assert server.requests == []


async def test_a_handshake_that_is_cut_off_is_not_sent(ca_file: Path) -> None:
    async def closes(peer: Peer) -> None:
        await peer.reader.read(1)

    async with serving(closes) as server:
        failure = await ask(engine_for(server.url.replace("http:", "https:"), ca_file=ca_file))
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent) == ("connect", False)


async def test_what_is_withdrawn_at_the_last_moment_is_not_sent() -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        withdrawn = Failure("withdrawn", "no longer ours to send", sent=False)
        assert await ask(engine, may_send=lambda: False) == withdrawn
        assert await ask(engine, may_send=lambda: True) == Response(200, b"fine")
        assert await ask(engine, may_send=lambda: False) == withdrawn  # also on a connection that was idle
        await asyncio.gather(*(peer.client_left() for peer in server.peers[:1]))
        assert len(server.requests) == 1
        await engine.aclose()


async def test_whether_it_may_be_sent_is_asked_only_when_it_could_be() -> None:
    def may_send() -> bool:
        pytest.fail("there is no connection yet")

    await ask(engine_for(refused_url()), may_send=may_send)


# In doubt


@pytest.mark.parametrize(
    ("script", "kind", "why"),
    [
        (after_the_request(), "closed", "connection was closed before the answer"),
        (after_the_request(then=Peer.reset), "closed", "connection was reset before the answer"),
        (after_the_request(OK[:20]), "closed", "connection was closed in the midst of the answer"),
        (after_the_request(OK[:-1]), "closed", "connection was closed in the midst of the answer"),
        (
            after_the_request(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nfi\r\n"),
            "closed",
            "connection was closed in the midst of the answer",
        ),
        (after_the_request(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "garbage", "answer was not HTTP"),
        (after_the_request(bytes(range(256)) * 4), "garbage", "answer was not HTTP"),
        (after_the_request(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "garbage", "answer was not HTTP"),
        (after_the_request(answer(200, headers={"x": "y" * 300_000})), "garbage", "answer was not HTTP"),
        (
            after_the_request(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"),
            "garbage",
            "answer was not HTTP",
        ),
        (
            after_the_request(answer(200, bytes(MAX_BODY_BYTES + 1)), then=lambda peer: None),
            "oversized",
            f"answer was longer than {MAX_BODY_BYTES} bytes",
        ),
        (
            after_the_request(answer(200, b"\x1f\x8b", {"content-encoding": "GZIP"})),
            "encoded",
            "answer was compressed, though identity was asked for",
        ),
    ],
    ids=[
        "closed before the answer",
        "reset",
        "cut head",
        "cut body",
        "cut chunk",
        "another protocol",
        "binary",
        "upgraded unasked",
        "oversized headers",
        "bad chunk",
        "oversized body",
        "compressed",
    ],
)
async def test_a_request_without_a_readable_answer_is_in_doubt(script: Script, kind: str, why: str) -> None:
    failure = await outcome_of(script)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.why, failure.sent) == (kind, why, True)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\n", 202),
        (b"HTTP/1.0 503 \r\ncontent-le", 503),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 500\r\n", 500),
        (b"HTTP/1.1 103 Early Hints\r\nHTTP/1.1 202 Accepted\r\n", None),
        (b"HTTP/1.1 202 Accepted", None),
        (b"HTTP/1.1 2020 Accepted\r\n", None),
        (b"x HTTP/1.1 202 Accepted\r\n", None),
        (b"", None),
    ],
)
async def test_the_status_line_that_was_seen_is_reported_where_the_body_is_of_no_use(
    said: bytes, status: int | None
) -> None:
    for parts in ((said,), [said[n : n + 1] for n in range(len(said))]):
        failure = await outcome_of(after_the_request(*parts))
        assert isinstance(failure, Failure)
        assert (failure.sent, failure.status) == (True, status)


async def test_a_status_line_never_counts_for_the_next_request() -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    async with serving(once) as server:
        engine = engine_for(server.url)
        assert await ask(engine) == Response(200, b"fine")
        failure = await ask(engine)
        assert isinstance(failure, Failure)
        assert (failure.sent, failure.status) == (True, None)
        assert server.connections == 1
        await engine.aclose()


async def test_a_request_may_have_a_time_of_its_own_from_its_first_byte() -> None:
    """What a lease and a hand-over count with: a drip does not make it longer."""

    async with serving(dripping) as server:
        engine = engine_for(server.url)
        head = [(b"host", b"engage"), (b"content-length", b"0")]
        failure = await engine.exchange("action", b"POST", b"/a", head, answer_s=SHORT_S)
        assert failure == Failure("timeout", "time ran out in the midst of the answer", sent=True, status=200)
        await engine.aclose()


async def test_an_answer_without_end_is_cut_off() -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    failure = await outcome_of(endless)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.sent) == ("oversized", True)


@pytest.mark.parametrize(
    ("script", "why"),
    [(silent, "time ran out before the answer"), (dripping, "time ran out in the midst of the answer")],
    ids=["silent", "slow drip"],
)
async def test_a_request_whose_answer_takes_too_long_is_in_doubt(script: Script, why: str) -> None:
    failure = await outcome_of(script, timeout_s=SHORT_S)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.why, failure.sent) == ("timeout", why, True)


async def test_a_server_that_takes_no_bytes_is_in_doubt_when_the_time_is_up() -> None:
    async def takes_nothing(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads, too
        await gone.wait()

    gone = asyncio.Event()

    failure = await outcome_of(takes_nothing, timeout_s=SHORT_S, body=bytes(32 << 20))
    assert failure == Failure("timeout", "time ran out before the answer", sent=True)


async def test_a_server_that_breaks_tls_after_the_handshake_is_in_doubt(authority: trustme.CA, ca_file: Path) -> None:
    async def breaks(peer: Peer) -> None:
        await tls_request(peer, server_tls(authority))
        await peer.send(OK)  # in plain
        await peer.client_left()

    async with serving(breaks) as server:
        engine = engine_for(server.url.replace("http://127.0.0.1", "https://localhost"), ca_file=ca_file)
        failure = await ask(engine)
        assert failure == Failure("closed", "connection was reset before the answer", sent=True)


# Which connection is used again


async def test_there_are_as_many_connections_as_requests_in_flight() -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        for _ in range(3):
            assert await asyncio.gather(*(ask(engine) for _ in range(8))) == [Response(200, b"fine")] * 8
        assert server.connections == 8
        await engine.aclose()


async def test_after_a_failure_the_connection_is_dropped() -> None:
    async with serving(answering(b"nonsense\r\n\r\n", OK)) as server:
        engine = engine_for(server.url)
        assert isinstance(await ask(engine), Failure)
        assert await ask(engine) == Response(200, b"fine")
        assert server.connections == 2
        await engine.aclose()


async def test_a_cancelled_request_drops_its_connection() -> None:
    async def first_never(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            in_flight.set()
            await peer.client_left()
            dropped.set()
        else:
            await peer.send(OK)

    in_flight, dropped = asyncio.Event(), asyncio.Event()
    async with serving(first_never) as server:
        engine = engine_for(server.url)
        request = asyncio.create_task(ask(engine))
        await in_flight.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await dropped.wait()
        assert await ask(engine) == Response(200, b"fine")
        assert server.connections == 2
        await engine.aclose()


async def test_a_request_cancelled_during_the_handshake_drops_its_connection(ca_file: Path) -> None:
    async def never_shakes(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        in_flight.set()
        await peer.client_left()
        dropped.set()

    in_flight, dropped = asyncio.Event(), asyncio.Event()
    async with serving(never_shakes) as server:
        engine = engine_for(server.url.replace("http:", "https:"), ca_file=ca_file)
        request = asyncio.create_task(ask(engine))
        await in_flight.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await dropped.wait()


async def test_a_connection_that_the_server_closed_while_idle_costs_nothing() -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        assert await ask(engine) == Response(200, b"fine")
        await server.peers[0].close()
        assert await ask(engine) == Response(200, b"fine")
        assert server.connections == 2
        await engine.aclose()


@pytest.mark.parametrize("happens", [Peer.close_now, lambda peer: peer.send_now(NOT_ASKED)], ids=["closed", "spoke"])
async def test_a_connection_that_ends_on_the_way_to_the_first_byte_costs_nothing(
    happens: Callable[[Peer], None],
) -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        await ask(engine)
        # It runs after the engine took the idle connection, and before the engine sends.
        asyncio.get_running_loop().call_soon(happens, server.peers[0])
        assert await ask(engine) == Response(200, b"fine")
        assert (server.connections, len(server.requests)) == (2, 2)
        await engine.aclose()


@pytest.mark.parametrize("behind", [NOT_ASKED, NOT_ASKED[:9], b"\r"], ids=["an answer", "half an answer", "a byte"])
async def test_bytes_behind_an_answer_never_answer_the_next_request(behind: bytes) -> None:
    async with serving(answering(OK + behind, OK)) as server:
        engine = engine_for(server.url)
        assert [await ask(engine), await ask(engine)] == [Response(200, b"fine")] * 2
        assert server.connections == 2
        await engine.aclose()


async def test_an_answer_that_nobody_asked_for_never_answers_the_next_request() -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        await ask(engine)
        server.peers[0].send_now(NOT_ASKED)
        assert await ask(engine) == Response(200, b"fine")
        assert server.connections == 2
        await engine.aclose()


async def test_bytes_behind_an_answer_are_seen_in_a_tls_record_of_their_own(
    authority: trustme.CA, ca_file: Path
) -> None:
    """Both records come in one piece: the socket then has nothing more to tell, only the TLS layer has."""

    async def two_records(peer: Peer) -> None:
        encrypted = await tls_request(peer, server_tls(authority))
        await peer.send(encrypted(OK, NOT_ASKED) if peer.number == 1 else encrypted(OK))
        await peer.client_left()

    async with serving(two_records) as server:
        engine = engine_for(server.url.replace("http://127.0.0.1", "https://localhost"), ca_file=ca_file)
        assert [await ask(engine), await ask(engine)] == [Response(200, b"fine")] * 2
        assert server.connections == 2
        await engine.aclose()


async def test_bytes_behind_an_answer_are_seen_behind_the_longest_answer_as_well() -> None:
    long = bytes(MAX_BODY_BYTES - 1024)
    async with serving(answering(answer(200, long) + NOT_ASKED, OK)) as server:
        engine = engine_for(server.url)
        assert [await ask(engine), await ask(engine)] == [Response(200, long), Response(200, b"fine")]
        assert server.connections == 2
        await engine.aclose()


async def test_idle_connections_are_closed_before_a_server_would(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(OK)) as server:
        engine = engine_for(server.url)
        monkeypatch.setattr(idling, "MAX_S", -1.0)  # as if it were over at once
        await asyncio.gather(*(ask(engine) for _ in range(4)))
        await ask(engine)
        await asyncio.gather(*(peer.client_left() for peer in server.peers[:4]))
        assert server.connections == 5
        await engine.aclose()


# Where to


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://engage.example",
        "engage.example",
        "http://",
        "http://user:secret@engage.example",
        "http://engage.example/?a=b",
        "http://engage.example/#a",
        "http://engage.example/a b",
        "http://engage..example",
        "http://" + "a" * 64 + ".example",
        "http://engage.example:99999",
        "http://[::1",
    ],
)
def test_a_base_url_that_leads_nowhere_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one depends on what is wrong
        Origin(base_url)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/api/v3/orders/1", b"/api/v3/orders/1"),
        ("../2?a=b#c", b"/api/v3/2?a=b"),
        ("https://ENGAGE.example/a", b"/a"),
        ("https://engage.example:443", b"/"),
        ("http://engage.example/a", b"/a"),
        ("https://engage.example:444/a", b"/a"),
        ("https://engage.example:99999/a", b"/a"),
        ("//elsewhere.example/a?b", b"/a?b"),
        ("https://someone:secret@elsewhere.example/a", b"/a"),
        ("http://10.0.0.7:8080/api/v3/orders/1", b"/api/v3/orders/1"),
        ("https://[/a", None),
        ("ftp://engage.example/a", None),
        ("javascript:a", None),
        ("/a b", b"/a%20b"),
        ("/\xc3\xa4", b"/%C3%A4"),  # as it comes: bytes read as Latin-1
    ],
)
def test_of_a_location_the_path_is_asked_whatever_host_it_names(location: str, target: bytes | None) -> None:
    assert Origin("https://engage.example").target(location, seen_from=b"/api/v3/orders/1") == target


@given(st.text() | st.from_regex(r"[a-z]{0,5}:?/{0,3}[ -~]{0,20}"))
def test_whatever_a_location_says_its_target_is_one_line_of_visible_characters(location: str) -> None:
    target = Origin("https://engage.example").target(location, seen_from=b"/")
    assert target is None or (target.startswith(b"/") and all(0x21 <= byte <= 0x7E for byte in target))
