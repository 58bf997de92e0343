"""The HTTP engine through a proxy: tunnels for https, forwarded requests for plain http, and what a proxy refuses."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from consumer.engage.http import Failure, HttpEngine, Origin, Response
from consumer.engage.proxies import Proxy, proxy_at, proxy_for
from consumer.engage.transport import async_client
from tests.contract.test_http import server_tls
from tests.support.scripted_server import Peer, Script, Server, answer, answering, refused_url, serving

pytestmark = pytest.mark.anyio

LONG_S = 20.0
OK = answer(200, b"fine")
FINE = Response(200, b"fine")
SECRET = "hush-hush"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n"


def tunnel(said: bytes = ESTABLISHED) -> Script:
    """Connect to whatever CONNECT names, and pass bytes in both directions."""

    async def script(peer: Peer) -> None:
        head = await peer.head()
        host, _, port = head.target.decode().rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            await peer.send(said)
            await asyncio.gather(passing(peer.reader, writer), passing(reader, peer.writer))
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        if writer.can_write_eof():
            writer.write_eof()

    return script


@asynccontextmanager
async def asking(origin: str, proxy: str, ca_file: Path | None = None) -> AsyncIterator[HttpEngine]:
    engine = HttpEngine(origin=Origin(origin), timeout_s=LONG_S, ca_file=ca_file, proxy=proxy_at(proxy))
    yield engine
    await engine.aclose()


async def ask(engine: HttpEngine) -> Response | Failure:
    headers = [(b"host", b"engage"), (b"content-length", b"2")]
    return await engine.exchange("action", b"POST", b"/orders/1/action", headers, b"{}")


def with_credentials(server: Server) -> str:
    return server.url.replace("http://", f"http://someone:{SECRET}@")


async def test_https_goes_through_a_tunnel_and_is_verified_for_the_host_behind_it(
    authority: trustme.CA, ca_file: Path
) -> None:
    async with serving(answering(OK), server_tls(authority)) as engage, serving(tunnel()) as proxy:
        async with asking(engage.url, with_credentials(proxy), ca_file) as engine:
            assert [await ask(engine), await ask(engine)] == [FINE, FINE]
        (connect,) = proxy.requests
        assert connect.line == b"CONNECT localhost:%d HTTP/1.1" % engage.port
        credentials = base64.b64encode(f"someone:{SECRET}".encode())
        assert connect.headers == {
            b"host": b"localhost:%d" % engage.port,
            b"proxy-authorization": b"Basic " + credentials,
        }
        assert all(b"proxy-authorization" not in each.headers for each in engage.requests)
        assert len(engage.requests) == 2


async def test_a_certificate_is_not_the_proxys_to_give(authority: trustme.CA, ca_file: Path) -> None:
    async with serving(answering(OK), server_tls(authority, "elsewhere.example")) as other, serving(tunnel()) as proxy:
        async with asking(other.url, proxy.url, ca_file) as engine:
            failure = await ask(engine)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent) == ("connect", False)
        assert failure.why.startswith("TLS certificate was refused")


async def test_plain_http_is_forwarded_with_the_whole_url() -> None:
    async with serving(answering(OK)) as proxy:
        async with asking("http://engage.example:81", with_credentials(proxy)) as engine:
            assert await ask(engine) == FINE
        (request,) = proxy.requests
        assert request.line == b"POST http://engage.example:81/orders/1/action HTTP/1.1"
        assert request.headers[b"proxy-authorization"].startswith(b"Basic ")


def says(*said: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.head()
        for each in said:
            await peer.send(each)

    return script


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (says(answer(407)), "proxy: answered 407 to CONNECT"),
        (says(answer(403, b"<html>")), "proxy: answered 403 to CONNECT"),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "proxy: answer was not HTTP"),
        (says(ESTABLISHED + b"more"), "proxy: spoke into the tunnel"),
        (says(ESTABLISHED[:20]), "proxy: closed the connection"),
        (says(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 20_000), "proxy: answer was not HTTP"),
    ],
    ids=["credentials", "forbidden", "another protocol", "speaks first", "closes", "endless"],
)
async def test_what_a_proxy_refuses_was_not_sent(script: Script, why: str) -> None:
    async with serving(script) as proxy, asking("https://engage.example", with_credentials(proxy)) as engine:
        assert await ask(engine) == Failure("connect", why, sent=False)


async def test_a_proxy_that_wants_credentials_for_a_forwarded_request_did_not_send_it() -> None:
    async with serving(answering(answer(407))) as proxy, asking("http://engage.example", proxy.url) as engine:
        assert await ask(engine) == Failure("connect", "proxy: answered 407", sent=False)


@pytest.mark.parametrize("origin", ["http://engage.example", "https://engage.example"])
async def test_a_proxy_that_is_not_there_is_named_as_the_reason(origin: str) -> None:
    async with asking(origin, refused_url()) as engine:
        assert await ask(engine) == Failure("connect", "proxy: connection refused", sent=False)


# Which one


@pytest.mark.parametrize(
    "url",
    [
        "https://proxy:1",
        "socks5://proxy:1",
        "proxy:3128",
        "http://",
        "http://proxy/path",
        "http://proxy:99999",
        "http://a b",
        "http://[::1",
        "http://" + "a" * 64,
    ],
)
def test_what_is_no_http_proxy_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must be http://\[user:password@\]host\[:port\]$"):
        proxy_at(url)


def test_credentials_are_decoded_and_never_shown() -> None:
    proxy = proxy_at(f"http://some%40one:{SECRET}%2F@Proxy.example/")
    assert (proxy.host, proxy.port) == ("proxy.example", 80)
    assert proxy.authorization == b"Basic " + base64.b64encode(f"some@one:{SECRET}/".encode())
    assert repr(proxy) == "Proxy(host='proxy.example', port=80)"


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "acme.voyado.com", False),
        ("*", "acme.voyado.com", True),
        ("voyado.com", "acme.voyado.com", True),
        (".voyado.com", "ACME.voyado.com", True),
        ("*.voyado.com", "acme.voyado.com", True),
        ("acme.voyado.com", "acme.voyado.com", True),
        ("other.example, voyado.com", "acme.voyado.com", True),
        ("voyado.com:443", "acme.voyado.com", True),
        ("voyado.com:8443", "acme.voyado.com", False),
        ("oyado.com", "acme.voyado.com", False),
        ("acme.voyado.com.evil", "acme.voyado.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("fd00::/8", "fd00::7", True),
        ("[fd00::7]:443", "fd00::7", True),
        ("10.0.0.0/8", "acme.voyado.com", False),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "::1", True),
    ],
)
def test_no_proxy_names_what_is_asked_directly(no_proxy: str, host: str, direct: bool) -> None:
    environment = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy}
    found = proxy_for(host, 443, secure=True, environment=environment)
    assert found == (None if direct else Proxy("proxy", 3128))


@pytest.mark.parametrize(
    ("secure", "environment", "port"),
    [
        (True, {"HTTPS_PROXY": "http://proxy:1", "HTTP_PROXY": "http://proxy:2"}, 1),
        (False, {"HTTPS_PROXY": "http://proxy:1", "HTTP_PROXY": "http://proxy:2"}, 2),
        (True, {"https_proxy": "proxy:3"}, 3),
        (True, {"HTTPS_PROXY": "", "https_proxy": "http://proxy:4"}, 4),
        (True, {"HTTP_PROXY": "http://proxy:5"}, None),
        (False, {}, None),
    ],
)
def test_the_scheme_decides_which_variable_counts(secure: bool, environment: dict[str, str], port: int | None) -> None:
    found = proxy_for("acme.voyado.com", 443, secure=secure, environment=environment)
    assert (found and found.port) == port


def test_a_wrong_variable_is_named_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY: must be http://") as raised:
        proxy_for("acme.voyado.com", 443, secure=True, environment={"HTTPS_PROXY": f"ftp://u:{SECRET}@proxy"})
    assert SECRET not in str(raised.value)


# httpx over the engine


async def test_httpx_goes_through_the_environments_proxy_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(OK)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", with_credentials(proxy))
        async with async_client(timeout_s=LONG_S, proxied=True) as http:
            response = await http.post("http://engage.example/a?b=c", content=b"hello", headers={"X": "y"})
        assert (response.status_code, response.text) == (200, "fine")
        (request,) = proxy.requests
        assert (request.line, request.body) == (b"POST http://engage.example/a?b=c HTTP/1.1", b"hello")
        assert (request.headers[b"x"], request.headers[b"accept-encoding"]) == (b"y", b"identity")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (says(), "ReadError"),
        (says(b"SSH-2.0\r\n"), "RemoteProtocolError"),
        (says(answer(200, b"\x1f\x8b", {"content-encoding": "gzip"})), "RemoteProtocolError"),
    ],
    ids=["closed", "garbage", "compressed"],
)
async def test_httpx_raises_its_own_errors(script: Script, error: str) -> None:
    async with serving(script) as server, async_client(timeout_s=LONG_S) as http:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - named below
            await http.get(server.url)
    assert type(raised.value).__name__ == error


async def test_httpx_says_that_nobody_is_there() -> None:
    async with async_client(timeout_s=LONG_S) as http:
        with pytest.raises(Exception, match="connection refused") as raised:
            await http.get(refused_url())
    assert type(raised.value).__name__ == "ConnectError"


async def test_httpx_sees_all_headers_and_no_redirect_is_followed() -> None:
    moved = answer(302, b"", {"Location": "/b", "A": "1", "a": "2"})
    async with serving(answering(moved)) as server, async_client(timeout_s=LONG_S, base_url=server.url) as http:
        response = await http.get("/a")
        assert (response.status_code, response.headers["location"]) == (302, "/b")
        assert response.headers.get_list("a") == ["1", "2"]
        assert [each.target for each in server.requests] == [b"/a"]
