"""A raw HTTP server for the failure classes that a well-behaved one cannot show.

A test says byte by byte what each connection answers (its *script*), and looks at the bytes that came.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it came: `line` raw, header names in lower case."""

    line: bytes
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]


@dataclass
class Peer:
    """The server's end of one connection; `number` counts from 1."""

    server: Server
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Request:
        """Read one whole request."""
        request = await self.head()
        request = Request(
            request.line, request.headers, await self.reader.readexactly(int(request.headers.get(b"content-length", 0)))
        )
        self.server.requests[-1] = request
        return request

    async def head(self) -> Request:
        """Read a request's head only."""
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self.server.requests.append(Request(line, headers, b""))
        return self.server.requests[-1]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def client_left(self) -> None:
        """Return when the client has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        with self._socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close_now(self) -> None:
        """Close at once, past the event loop."""
        with self._socket() as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def send_now(self, data: bytes) -> None:
        """Send at once, past the event loop."""
        with self._socket() as sock:
            sock.send(data)

    def _socket(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    """What a test sees of the server: its URL, and everything that came, in order."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    @property
    def connections(self) -> int:
        return len(self.peers)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve on a free loopback port: `script` once per connection, which is closed when it returns.

    A script that fails for another reason than a client that left fails the test.
    """
    server = Server()
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        peer = Peer(server, len(server.peers) + 1, reader, writer)
        server.peers.append(peer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                await script(peer)
            await peer.close()
        except asyncio.CancelledError:  # the test is over
            pass
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
        finally:
            writer.transport.abort()

    errors: list[Exception] = []
    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}"
    try:
        yield server
    finally:
        listener.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if errors:
        raise errors[0]


def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """Write an answer with a correct length."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    if status != 204:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answering(*answers: bytes) -> Script:
    """Answer the first request with the first, and so on, whatever connection it comes on; the last one forever."""
    left = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def refused_url() -> str:
    """Return a URL at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"
