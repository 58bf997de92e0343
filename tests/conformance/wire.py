"""What our client really sends: a proxy in front of the Engage under test that writes down every request.

It passes on exactly what came, so that a header that the client forgets is missing at Engage, too. `without` makes a
client that forgets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx

from consumer.engage.client import EngageClient
from tests.conformance.target import Tamper, Target
from tests.support.scripted_server import Peer, Request, Server, answer, serving

USER_AGENT = "AcmePOS/1.5 engage-relay/1"
KEPT = ("content-type", "location", "retry-after")


@dataclass(frozen=True)
class Wired:
    """Our client, and what went over the wire."""

    client: EngageClient
    wire: Server

    @property
    def sent(self) -> list[Request]:
        return self.wire.requests


def without(header: bytes, *, method: bytes = b"", path: bytes = b"") -> Tamper:
    """Forget a header, on requests whose method and path begin so."""

    def tamper(request: Request) -> Request:
        verb, target, _ = request.line.split(b" ", 2)
        if not verb.startswith(method) or not target.startswith(path):
            return request
        return replace(request, headers={name: value for name, value in request.headers.items() if name != header})

    return tamper


@asynccontextmanager
async def wired(engage: Target) -> AsyncIterator[Wired]:
    """Connect our client to the Engage under test, through the proxy."""
    verify = engage.base_url.startswith("https:")
    async with httpx.AsyncClient(base_url=engage.base_url, trust_env=False, timeout=30, verify=verify) as passing_on:
        passing_on.headers.clear()

        async def script(peer: Peer) -> None:
            while True:
                request = engage.tamper(await peer.request())
                peer.server.requests[-1] = request
                await peer.send(await _forwarded(passing_on, request))

        async with serving(script) as server:
            client = EngageClient(
                base_url=server.url, api_key=lambda: engage.api_key, user_agent=USER_AGENT, timeout_s=30
            )
            try:
                yield Wired(client, server)
            finally:
                await client.aclose()


async def _forwarded(passing_on: httpx.AsyncClient, request: Request) -> bytes:
    method, target, _ = (part.decode("latin-1") for part in request.line.split(b" ", 2))
    # A simulated Engage may write our own origin into a Location; a real one serves but its own name.
    own_name = passing_on.base_url.scheme == "https"
    headers = [(name, value) for name, value in request.headers.items() if not (own_name and name == b"host")]
    answered = await passing_on.request(method, target, headers=headers, content=request.body)
    kept = {name: value for name, value in answered.headers.items() if name in KEPT}
    return answer(answered.status_code, answered.content, kept)
