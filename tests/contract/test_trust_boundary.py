"""An Engage that means harm, or somebody who speaks in its name: what it may say draws nothing out of us.

Neither the key nor a request goes elsewhere, no answer changes what the next request carries, and no answer costs more
memory or time than one is allowed to. (Redirects elsewhere, compression and untrusted certificates, each as one failure
among others: test_engage_client.py and test_http.py.)
"""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from consumer.core.outcomes import Accepted, DocumentTaken, InDoubt, NoContact, Ready, Rejected, Unavailable
from consumer.engage.client import EngageClient
from consumer.engage.http import MAX_BODY_BYTES
from schemas.engage import ActionRequest
from tests.support.scripted_server import Peer, Script, Server, answer, answering, serving

pytestmark = pytest.mark.anyio

KEY = "key-that-goes-nowhere-else-4711"
ACTION = ActionRequest(action="ConfirmShipment", version_tag="t-1", language=None, data=None)
ENOUGH_S = 60.0  # on a busy machine, while every allocation is traced
READY = b'{"status": "Completed", "versionTag": "t-1"}'


@asynccontextmanager
async def engage_that(script: Script, key: str = KEY) -> AsyncIterator[tuple[EngageClient, Server]]:
    async with serving(script) as server:
        engage = EngageClient(base_url=server.url, api_key=lambda: key, user_agent="relay/1", timeout_s=ENOUGH_S)
        try:
            yield engage, server
        finally:
            await engage.aclose()


# Elsewhere

HOSTILE_HEADERS = {
    "set-cookie": "session=1; Path=/",
    "www-authenticate": 'Basic realm="again"',
    "proxy-authenticate": "Basic",
    "authentication-info": 'nextnonce="1"',
    "strict-transport-security": "max-age=0",
    "connection": "keep-alive, x-next",
    "keep-alive": "timeout=99999",
    "vary": "apikey",
    "access-control-allow-origin": "*",
}


def pointing_to(url: str) -> dict[str, str]:
    """Return every header by which an answer can name another place; only a redirect's Location means anything."""
    return {
        "location": url,
        "content-location": url,
        "refresh": f"0; url={url}",
        "link": f"<{url}>; rel=canonical, <{url}>; rel=preload",
        "alt-svc": f'h2="{url.partition("//")[2]}"; ma=99999',
        "sourcemap": url,
        "report-to": f'{{"endpoints": [{{"url": "{url}"}}]}}',
    }


async def test_no_link_in_an_answer_is_followed() -> None:
    async with serving(answering(answer(200, READY))) as elsewhere:
        headers = pointing_to(f"{elsewhere.url}/api/v3/orders/o-1")
        named = f'"href": "{elsewhere.url}/", "Href": "{elsewhere.url}/", "_links": {{"self": "{elsewhere.url}/"}}'
        taken = answer(202, f'{{"jobId": "j-1", {named}}}'.encode(), headers)
        completed = answer(200, f'{{"status": "Completed", "orderId": "o-2", {named}}}'.encode(), headers)
        answers = [taken, completed, answer(200, READY, headers), answer(202, b"", headers)]
        async with engage_that(answering(*answers)) as (engage, server):
            assert await engage.send_document("o-1", {}) == DocumentTaken("j-1")
            assert await engage.poll_job("j-1") == Ready("t-1")
            assert await engage.send_action("o-1", ACTION) == Accepted()
            assert [request.target for request in server.requests] == [
                b"/api/v3/orders",
                b"/api/v3/orders/jobs/j-1",
                b"/api/v3/orders/o-2",
                b"/api/v3/orders/o-1/action",
            ]
        assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [200, 401, 407, 503])
async def test_no_answer_changes_what_the_next_request_carries(status: int) -> None:
    async with engage_that(answering(answer(status, READY, HOSTILE_HEADERS), answer(200, READY))) as (
        engage,
        server,
    ):
        await engage.poll_order("o-1")
        await engage.poll_order("o-1")
        first, second = server.requests
        assert second == first
        common = {b"host", b"user-agent", b"accept", b"accept-encoding", b"content-type"}
        assert second.headers.keys() == {*common, b"apikey"}


@pytest.mark.parametrize("raw_id", ["../../admin", "..", "%2e%2e%2fadmin", "a/../../b", "//elsewhere.example/", "."])
async def test_an_id_that_engage_itself_names_is_one_segment_too(raw_id: str) -> None:
    job = f'{{"status": "Completed", "orderId": "{raw_id}", "jobId": "{raw_id}"}}'.encode()
    async with engage_that(answering(answer(200, job))) as (engage, server):
        assert await engage.poll_job("j-1") == Rejected(0, "order id cannot be a path segment")
        taken = await engage.send_document("o-1", {})
        assert isinstance(taken, DocumentTaken)
        assert await engage.poll_job(taken.job_id or "") == Rejected(0, "job id cannot be a path segment")
        assert len(server.requests) == 2


async def test_a_tag_that_engage_names_stays_inside_the_body() -> None:
    tag = 't\r\n\r\nPOST /api/v3/orders/o-2/action HTTP/1.1\r\n","action":"Custom'
    async with engage_that(answering(answer(202))) as (engage, server):
        assert await engage.send_action("o-1", ACTION.model_copy(update={"version_tag": tag})) == Accepted()
        (request,) = server.requests
        assert ActionRequest.model_validate_json(request.body).version_tag == tag


# Too much

BOMB = gzip.compress(bytes(64 << 20), compresslevel=1)  # 64 MiB in 0.3
ENDLESSLY: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 500),
    "a status line": (b"HTTP/1.1 200 ", b"O" * 10_000),
    "header lines": (b"HTTP/1.1 200 OK\r\n", b"x-padding: x\r\n" * 1000),
    "one header": (b"HTTP/1.1 200 OK\r\nx-padding: ", b"x" * 10_000),
    "a body until the connection ends": (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 10_000),
    "a body as long as it says": (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", b" " * 10_000),
    "chunks of one byte": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 2000),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x" * 10_000),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-padding: x\r\n" * 1000),
    "a compressed body": (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", BOMB),
    "a compressed transfer": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n10000\r\n", BOMB),
}


def endlessly(beginning: bytes, more: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(beginning)
        while True:
            await peer.send(more)

    return script


@pytest.mark.slow  # while every allocation is traced
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("what", ENDLESSLY)
async def test_an_answer_without_end_costs_a_bounded_amount_of_memory(what: str) -> None:
    async with engage_that(endlessly(*ENDLESSLY[what])) as (engage, _):
        tracemalloc.start()
        try:
            outcome = await asyncio.wait_for(engage.send_action("o-1", ACTION), ENOUGH_S)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(outcome, InDoubt)
        assert most < 16 * MAX_BODY_BYTES  # of short chunks each byte is an object


@pytest.mark.parametrize("packed", [BOMB, zlib.compress(READY)], ids=["bomb", "tag"])
async def test_what_is_compressed_and_does_not_say_so_is_no_json(packed: bytes) -> None:
    async with engage_that(answering(answer(200, packed, {"content-type": "application/json"}))) as (engage, _):
        assert await engage.poll_order("o-1") == Unavailable("answer was not a JSON object")


# What we say of it


async def echo(peer: Peer) -> None:
    """Answer with all that was asked: in the status line, in headers, and in a page."""
    while True:
        request = await peer.request()
        told = b" ".join([request.line, *request.headers.values(), request.body])
        head = b"HTTP/1.1 422 %b\r\nx-request: %b\r\nretry-after: %b\r\n" % (told, told, told)
        page = b"<html>%b</html>" % told
        await peer.send(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(page), page))


async def echo_as_json(peer: Peer) -> None:
    """Answer as a gateway in debug mode does: a JSON error that shows the request."""
    while True:
        request = await peer.request()
        body = b'{"message": "not accepted", "request": {"apikey": "%b"}}' % request.headers[b"apikey"]
        await peer.send(answer(422, body, {"content-type": "application/json"}))


@pytest.mark.parametrize(
    "script",
    [echo, echo_as_json],
)
async def test_a_key_that_is_sent_back_does_not_show_in_any_outcome(script: Script) -> None:
    async with engage_that(script) as (engage, server):
        outcomes = [
            await engage.send_action("o-1", ACTION),
            await engage.send_document("o-1", {}),
            await engage.poll_job("j-1"),
            await engage.poll_order("o-1"),
        ]
        assert len(server.requests) == len(outcomes)
        assert all(isinstance(each, Rejected | NoContact) for each in outcomes)
        assert KEY not in repr(outcomes)


def escaped(key: str) -> str:
    return '"' + "".join(f"\\u{ord(each):04x}" for each in key) + '"'


@pytest.mark.parametrize("key", [KEY, 'ke"y\\4711'])
@pytest.mark.parametrize("written", [json.dumps, escaped])
async def test_a_key_does_not_show_however_an_error_escapes_it(key: str, written: Callable[[str], str]) -> None:
    body = f'{{"errors": [{{"message": {written(key)}}}]}}'.encode()
    async with engage_that(answering(answer(422, body)), key) as (engage, _):
        outcome = await engage.send_action("o-1", ACTION)
    assert outcome == NoContact('{"errors":[{"message":"***"}]}')


@pytest.mark.parametrize("key", ["1", "t", "versionTag", "Completed", "o-1"])
async def test_a_key_that_is_also_a_word_of_an_answer_changes_nothing_that_the_answer_says(key: str) -> None:
    async with engage_that(answering(answer(200, READY)), key) as (engage, _):
        assert await engage.poll_job("j-1") == Ready("t-1")
    taken = b'{"jobId": "t-1", "status": "Processing", "orderId": "o-1"}'
    async with engage_that(answering(answer(202, taken)), key) as (engage, _):
        assert await engage.send_document("o-1", {}) == DocumentTaken("t-1")
