"""The answer reader beside h11: a corpus of raw answers, whole and byte by byte, on connections that stay and that end.

Where the two differ, `DIFFERENCES` says what ours does, and why. A refused answer leaves the request in doubt, which is
always safe; the status line that was seen still counts (consumer/engage/meanings.py, rule 2).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.engage.answers import MAX_BODY_BYTES, MAX_FRAMING_BYTES, AnswerReader, Fault, Response

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, bytes] = {
    "with a length": OK + b"content-length: 4\r\n\r\nfine",
    "empty": OK + b"content-length: 0\r\n\r\n",
    "until the end": OK + b"\r\nfine",
    "chunked": OK + b"transfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunked, with an extension": OK + b"transfer-encoding: chunked\r\n\r\n4;a=b\r\nfine\r\n0\r\n\r\n",
    "chunked, with a trailer": OK + b"transfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\na: b\r\n\r\n",
    "chunked in capitals": OK + b"Transfer-Encoding: CHUNKED\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunked, with spaces behind it": OK + b"transfer-encoding: chunked  \r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunked, with a tab behind it": OK + b"transfer-encoding: chunked\t\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunks with capital digits": OK + b"transfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "a chunk size with spaces": OK + b"transfer-encoding: chunked\r\n\r\n4  \r\nfine\r\n0\r\n\r\n",
    "a chunk size of no digits": OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\nfine\r\n0\r\n\r\n",
    "a chunk longer than said": OK + b"transfer-encoding: chunked\r\n\r\n2\r\nfine\r\n0\r\n\r\n",
    "a chunk size in bare LF": OK + b"transfer-encoding: chunked\r\n\r\n4\nfine\r\n0\r\n\r\n",
    "a huge chunk size": OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nfine\r\n0\r\n\r\n",
    "close": OK + b"connection: close\r\ncontent-length: 4\r\n\r\nfine",
    "Close among others": OK + b"connection: foo, Close\r\ncontent-length: 4\r\n\r\nfine",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nfine",
    "HTTP/1.0 keep-alive": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\nfine",
    "HTTP/1.0 until the end": b"HTTP/1.0 200 OK\r\n\r\nfine",
    "HTTP/1.0 chunked": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n",
    "204 chunked": b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n",
    "no reason phrase": b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
    "empty reason phrase": b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n",
    "a reason phrase in latin-1": b"HTTP/1.1 200 Tr\xe8s bien\r\ncontent-length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\ncontent-length: 0\r\n\r\n",
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 4\r\n\r\nfine",
    "103 with headers first": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK + b"content-length: 4\r\n\r\nfine",
    "100 with a length": b"HTTP/1.1 100 Continue\r\ncontent-length: 4\r\n\r\n" + OK + b"content-length: 4\r\n\r\nfine",
    "100 that closes": b"HTTP/1.1 100 Continue\r\nconnection: close\r\n\r\n" + OK + b"content-length: 4\r\n\r\nfine",
    "101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "101 with what it upgrades to": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "200 that upgrades": OK + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\nfine",
    "empty lines first": b"\r\n\r\n" + OK + b"content-length: 4\r\n\r\nfine",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 4\n\nfine",
    "bare LF behind a header": OK + b"a: b\ncontent-length: 4\r\n\r\nfine",
    "bare CR in a header": OK + b"a: b\rc\r\ncontent-length: 4\r\n\r\nfine",
    "NUL in a header": OK + b"a: b\0c\r\ncontent-length: 4\r\n\r\nfine",
    "obs-fold": OK + b"a: b\r\n c\r\ncontent-length: 4\r\n\r\nfine",
    "space before the colon": OK + b"content-length : 4\r\n\r\nfine",
    "space before a name": OK + b" content-length: 4\r\n\r\nfine",
    "no colon": OK + b"nonsense\r\ncontent-length: 4\r\n\r\nfine",
    "empty name": OK + b": b\r\ncontent-length: 4\r\n\r\nfine",
    "empty value": OK + b"a:\r\ncontent-length: 4\r\n\r\nfine",
    "spaces around a value": OK + b"content-length: \t 4 \t\r\n\r\nfine",
    "bytes above ASCII in a value": OK + b"a: \xe4\r\ncontent-length: 4\r\n\r\nfine",
    "the same length twice": OK + b"content-length: 4\r\ncontent-length: 4\r\n\r\nfine",
    "two lengths": OK + b"content-length: 4\r\ncontent-length: 5\r\n\r\nfine",
    "a list of lengths": OK + b"content-length: 4, 4\r\n\r\nfine",
    "a negative length": OK + b"content-length: -4\r\n\r\nfine",
    "a length with a sign": OK + b"content-length: +4\r\n\r\nfine",
    "a length in hex": OK + b"content-length: 0x4\r\n\r\nfine",
    "a length that is empty": OK + b"content-length:\r\n\r\nfine",
    "a length of 30 digits": OK + b"content-length: " + b"9" * 30 + b"\r\n\r\nfine",
    "length and chunked": OK + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunked and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "another coding": OK + b"transfer-encoding: gzip\r\n\r\nfine",
    "another coding, then chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "chunked, then identity": OK
    + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    "an answer behind it": OK
    + b"content-length: 4\r\n\r\nfine"
    + b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
    "a byte behind it": OK + b"content-length: 4\r\n\r\nfine\r",
    "bytes behind one that closes": OK + b"connection: close\r\ncontent-length: 4\r\n\r\nfine" + b"more",
    "a cut head": OK + b"content-le",
    "a cut body": OK + b"content-length: 4\r\n\r\nfi",
    "a cut chunk": OK + b"transfer-encoding: chunked\r\n\r\n4\r\nfi",
    "a missing last chunk": OK + b"transfer-encoding: chunked\r\n\r\n4\r\nfine\r\n",
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a request": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "binary": bytes(range(256)),
    "RTSP": b"RTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a page without a head": b"<html>502 Bad Gateway</html>\r\n\r\n",
}

STRICT = "two parsers could read it differently, so nobody should build on one reading (llhttp's rule)"
DIFFERENCES = {
    "chunked, with a tab behind it": ("garbage", "llhttp reads it until the end: its chunks would be the body"),
    "a chunk size with spaces": ("garbage", STRICT),
    "a huge chunk size": ("garbage", "it cannot be meant, and h11 would wait for it"),
    "HTTP/0.9": ("garbage", "Engage speaks HTTP/1.1; HTTP/1.0 is what an old gateway speaks"),
    "HTTP/1.2": ("garbage", "there is none"),
    "HTTP/2.0": ("garbage", "it has no such status line"),
    "100 with a length": ("garbage", "an informational answer has no body: what would follow it?"),
    "100 that closes": ("garbage", "what follows comes on a connection that was said to be over"),
    "bare LF": ("garbage", STRICT),
    "bare LF behind a header": ("garbage", STRICT),
    "obs-fold": ("garbage", STRICT),
    "the same length twice": ("garbage", STRICT),
    "a list of lengths": ("garbage", STRICT),
    "length and chunked": ("garbage", STRICT),
    "chunked and length": ("garbage", STRICT),
    "another protocol": ("garbage", "h11 waits for the end of a line that can never be right"),
}
# Ours may be used again, h11's not: an old gateway that says keep-alive keeps its word.
KEPT_BY_US_ONLY = {"HTTP/1.0 keep-alive"}


@dataclass(frozen=True)
class Read:
    """What a parser made of an answer."""

    outcome: tuple[int, bytes] | str
    """Status and body; or pending, closed, garbage."""
    reusable: bool = False


def read_by_h11(pieces: list[bytes], *, ends: bool) -> Read:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "engage")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    for data in [*pieces, *([b""] if ends else [])]:
        try:
            connection.receive_data(data)
            while (event := connection.next_event()) is not h11.NEED_DATA:
                match event:
                    case h11.Response():
                        status = event.status_code
                    case h11.Data():
                        body += bytes(event.data)
                    case h11.EndOfMessage():
                        again = connection.their_state is h11.DONE and not connection.trailing_data[0]
                        return Read((status, body), again)
                    case h11.PAUSED:
                        return Read("garbage")
                    case h11.ConnectionClosed():
                        return Read("closed")
        except h11.RemoteProtocolError:
            return Read("garbage" if data else "closed")
    return Read("pending")


def read_by_us(pieces: list[bytes], *, ends: bool) -> Read:
    reader = AnswerReader()
    for data in pieces:
        came = reader.feed(data)
        if isinstance(came, Fault):
            return Read(came.kind)
        if came is not None:
            return Read((came.status, came.body), reader.reusable)
    complete = reader.end() if ends else None
    if complete is not None:
        return Read((complete.status, complete.body))
    return Read("closed" if ends else "pending")


def in_pieces(raw: bytes, *, split: bool) -> list[bytes]:
    return [raw[n : n + 1] for n in range(len(raw))] if split else [raw] * bool(raw)


@pytest.mark.parametrize("ends", [False, True], ids=["stays", "ends"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_as_by_h11_or_as_was_decided(name: str, split: bool, ends: bool) -> None:
    pieces = in_pieces(ANSWERS[name], split=split)
    theirs, ours = read_by_h11(pieces, ends=ends), read_by_us(pieces, ends=ends)
    decided, _ = DIFFERENCES.get(name, (theirs.outcome, ""))
    assert ours.outcome == decided
    assert not ours.reusable or theirs.reusable or name in KEPT_BY_US_ONLY


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_one(name: str) -> None:
    pieces = in_pieces(ANSWERS[name], split=False)
    assert any(read_by_us(pieces, ends=ends) != read_by_h11(pieces, ends=ends) for ends in (False, True))


@given(st.sampled_from(sorted(ANSWERS)), st.sets(st.integers(1, 120)), st.booleans())
def test_where_an_answer_is_split_changes_nothing(name: str, cuts: set[int], ends: bool) -> None:
    raw = ANSWERS[name]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    pieces = [raw[start:end] for start, end in itertools.pairwise(bounds) if end > start]
    assert read_by_us(pieces, ends=ends).outcome == read_by_us(in_pieces(raw, split=False), ends=ends).outcome


@given(
    st.lists(st.binary(min_size=1, max_size=60) | st.sampled_from(sorted(ANSWERS.values())).filter(bool), max_size=4)
)
def test_whatever_comes_the_reader_says_what_it_is(pieces: list[bytes]) -> None:
    assert read_by_us(pieces, ends=True).outcome != "pending"


def test_an_answer_can_be_read_after_another() -> None:
    reader = AnswerReader()
    for number in range(3):
        reader.begin()
        body = b"%d" % number
        assert reader.feed(OK + b"content-length: 1\r\na: b\r\n\r\n" + body) == Response(200, body)
        assert reader.reusable


@pytest.mark.parametrize(
    "endless",
    [
        b"a: " + bytes(1 << 10).replace(b"\0", b"b") + b"\r\n",
        b"transfer-encoding: chunked\r\n\r\n4;" + bytes(MAX_FRAMING_BYTES).replace(b"\0", b"b"),
        b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * MAX_FRAMING_BYTES,
    ],
    ids=["headers", "a chunk's extension", "trailers"],
)
def test_what_is_no_body_has_a_limit(endless: bytes) -> None:
    reader = AnswerReader()
    assert reader.feed(OK) is None
    size, came = 0, None
    while came is None:
        came = reader.feed(endless[size % len(endless) :][: 1 << 10])
        size += 1 << 10
    assert isinstance(came, Fault)
    assert came.kind == "garbage"
    assert size <= MAX_FRAMING_BYTES + (2 << 10)


def test_informational_answers_have_a_limit_in_all() -> None:
    reader = AnswerReader()
    came = None
    while came is None:
        came = reader.feed(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100)
        assert reader.received_bytes < 2 * MAX_BODY_BYTES
    assert isinstance(came, Fault)
