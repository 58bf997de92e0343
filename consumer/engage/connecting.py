"""How a connection comes about: addresses, TCP, a proxy's tunnel, TLS. Nothing of a request is sent meanwhile.

Addresses are tried one after the other, each `STAGGER_S` after the former (RFC 8305): one that swallows packets costs
that much, not the whole time. uvloop's `create_connection` would wait for it.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import certifi
from aiohappyeyeballs import start_connection

from consumer.engage.connection import Connection, Failure
from consumer.engage.names import addresses
from consumer.engage.proxies import Proxy

STAGGER_S = 0.25  # RFC 8305, section 5
CLOSE_TLS_S = 1.0  # how long a server has to say goodbye in turn
MAX_PROXY_HEAD_BYTES = 64 << 10

# A connection that a gateway forgot without a word ends as one that is closed, not as a request in doubt.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_PROXY_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes, and by which way. `tls`: how the host is verified; None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None


class _ProxyError(Exception):
    """The proxy opens no tunnel; says what it did."""


async def connect(to: Destination, within_s: float) -> Connection | Failure:
    """Connect; TLS is verified for the host's name. Never raises for what the network or the server does.

    Through a proxy TLS goes by a tunnel (CONNECT); a plain request goes to the proxy as it is.
    """
    where = ""
    try:
        async with asyncio.timeout(within_s):
            if to.proxy is None:
                sock = await _socket(to.host, to.port)
            else:
                where = "proxy: "
                sock = await _socket(to.proxy.host, to.proxy.port)
            try:
                if to.proxy is not None and to.tls is not None:
                    await _open_tunnel(sock, to, to.proxy)
                    where = ""
                return await _secured(sock, to)
            except BaseException:
                sock.close()
                raise
    except _ProxyError as error:
        return Failure("connect", f"proxy: {error}", sent=False)
    except (OSError, RuntimeError) as error:  # uvloop has its RuntimeErrors, too
        return Failure("connect", where + _why_unconnected(error), sent=False)


async def _socket(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = await start_connection(await addresses(host, port), happy_eyeballs_delay=STAGGER_S, loop=loop)
    with suppress(OSError):  # they help, but nothing hangs on them
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            if (number := getattr(socket, option, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, number, value)
    return sock


async def _open_tunnel(sock: socket.socket, to: Destination, proxy: Proxy) -> None:
    """Have the proxy connect us to the host (RFC 9110, 9.3.6)."""
    loop = asyncio.get_running_loop()
    authority = f"[{to.host}]:{to.port}" if ":" in to.host else f"{to.host}:{to.port}"
    lines = [f"CONNECT {authority} HTTP/1.1".encode(), f"Host: {authority}".encode()]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    await loop.sock_sendall(sock, b"\r\n".join([*lines, b"", b""]))
    head = b""
    while b"\r\n\r\n" not in head:
        data = await loop.sock_recv(sock, 1 << 12)
        head += data
        if not data or len(head) > MAX_PROXY_HEAD_BYTES:
            raise _ProxyError("closed the connection" if not data else "answer was not HTTP")
    status = _PROXY_STATUS.match(head)
    if status is None:
        raise _ProxyError("answer was not HTTP")
    if not status[1].startswith(b"2"):
        raise _ProxyError(f"answered {status[1].decode()} to CONNECT")
    if not head.endswith(b"\r\n\r\n") or head.count(b"\r\n\r\n") > 1:  # who speaks first in TLS is us
        raise _ProxyError("spoke into the tunnel")


async def _secured(sock: socket.socket, to: Destination) -> Connection:
    loop = asyncio.get_running_loop()
    if to.tls is None:
        _, connection = await loop.create_connection(lambda: Connection(sock, secure=False), sock=sock)
    else:
        _, connection = await loop.create_connection(
            lambda: Connection(sock, secure=True),
            sock=sock,
            ssl=to.tls,
            server_hostname=to.host,
            ssl_shutdown_timeout=CLOSE_TLS_S,
        )
    return connection


@cache
def ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verify against certifi's authorities, or only against the given file's. TLS 1.2 is Engage's minimum.

    One for all connections: certifi's authorities take 0.7 MB and 20 ms, and a relay may have 2,000 connections.
    """
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _why_unconnected(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS certificate was refused: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS handshake failed: {error.reason or 'unknown reason'}"
        case socket.gaierror():
            return "host name could not be resolved"
        case TimeoutError():
            return "could not connect in time"
        case ConnectionRefusedError():
            return "connection refused"
        case OSError(errno=int() as number) if number > 0:
            return f"could not connect: {os.strerror(number)}"
        case _:
            return "could not connect: connection closed"
