"""httpx over our HTTP engine, for calls that are rare: one HTTP stack, one TLS and proxy configuration.

What httpx's objects cost stays off the hot path: `client.py` calls the engine itself.
Nothing is decompressed: it asks for identity. There are no time-outs but the engine's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx

from consumer.engage.answers import FailureKind
from consumer.engage.connection import Failure
from consumer.engage.http import HttpEngine, Origin
from consumer.engage.proxies import proxy_for

_ERRORS: dict[FailureKind, Callable[[str], httpx.TransportError]] = {
    "connect": httpx.ConnectError,
    "timeout": httpx.ReadTimeout,
    "closed": httpx.ReadError,
    "garbage": httpx.RemoteProtocolError,
    "oversized": httpx.RemoteProtocolError,
    "encoded": httpx.RemoteProtocolError,
}
_NOT_ITS_OWN = (b"accept-encoding", b"connection", b"content-length", b"transfer-encoding")


class EngineTransport(httpx.AsyncBaseTransport):
    """One engine per origin. `timeout_s` and `ca_file` as the engine's; `proxied`: by the environment's proxy."""

    def __init__(self, *, timeout_s: float, proxied: bool = False, ca_file: Path | None = None) -> None:
        self._timeout_s = timeout_s
        self._proxied = proxied
        self._ca_file = ca_file
        self._engines: dict[tuple[str, str, int | None], HttpEngine] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request. Raises httpx.TransportError, as httpx's own transport does."""
        if request.method in ("HEAD", "CONNECT"):
            raise httpx.UnsupportedProtocol(f"{request.method} is not spoken", request=request)
        body = await request.aread()
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _NOT_ITS_OWN]
        headers.append((b"accept-encoding", b"identity"))
        if body or request.method not in ("GET", "DELETE"):
            headers.append((b"content-length", b"%d" % len(body)))
        engine = self._engine(request)
        try:
            answer = await engine.exchange("order", request.method.encode(), request.url.raw_path, headers, body)
        except ValueError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from None
        if isinstance(answer, Failure):
            raise _ERRORS[answer.kind](answer.why)
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=request)

    def _engine(self, request: httpx.Request) -> HttpEngine:
        url = request.url
        where = (url.scheme, url.host, url.port)
        if where not in self._engines:
            try:
                origin = Origin(str(url.copy_with(userinfo=b"", raw_path=b"/")))
                proxy = None
                if self._proxied:
                    proxy = proxy_for(origin.host, origin.port, secure=origin.secure, environment=os.environ)
            except ValueError as error:
                raise httpx.UnsupportedProtocol(str(error), request=request) from None
            self._engines[where] = HttpEngine(
                origin=origin, timeout_s=self._timeout_s, ca_file=self._ca_file, proxy=proxy
            )
        return self._engines[where]

    async def aclose(self) -> None:
        """Close all engines."""
        for engine in self._engines.values():
            await engine.aclose()


def async_client(
    *, timeout_s: float, base_url: str = "", proxied: bool = False, ca_file: Path | None = None
) -> httpx.AsyncClient:
    """Return httpx's client over the engine."""
    transport = EngineTransport(timeout_s=timeout_s, proxied=proxied, ca_file=ca_file)
    return httpx.AsyncClient(base_url=base_url, transport=transport, timeout=None, trust_env=False)  # noqa: S113
