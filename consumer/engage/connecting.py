"""How a connection comes about: addresses, TCP, TLS. Nothing of a request is sent meanwhile.

Addresses are tried one after the other, each `STAGGER_S` after the former (RFC 8305): one that swallows packets costs
that much, not the whole time. uvloop's `create_connection` would wait for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import certifi
from aiohappyeyeballs import AddrInfoType, start_connection

from consumer.engage.connection import Connection, Failure

STAGGER_S = 0.25  # RFC 8305, section 5
CLOSE_TLS_S = 1.0  # how long a server has to say goodbye in turn

# A connection that a gateway forgot without a word ends as one that is closed, not as a request in doubt.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


async def connect(host: str, port: int, tls: ssl.SSLContext | None, within_s: float) -> Connection | Failure:
    """Connect to the host; TLS is verified for its name. Never raises for what the network or the server does."""
    try:
        async with asyncio.timeout(within_s):
            return await _secured(await _socket(host, port), host, tls)
    except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:  # uvloop has its RuntimeErrors, too
        return Failure("connect", _why_unconnected(error), sent=False)


async def _socket(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = await start_connection(await _addresses(host, port), happy_eyeballs_delay=STAGGER_S, loop=loop)
    with suppress(OSError):  # they help, but nothing hangs on them
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            if (number := getattr(socket, option, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, number, value)
    return sock


async def _addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _secured(sock: socket.socket, host: str, tls: ssl.SSLContext | None) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        if tls is None:
            _, connection = await loop.create_connection(lambda: Connection(sock, secure=False), sock=sock)
        else:
            _, connection = await loop.create_connection(
                lambda: Connection(sock, secure=True),
                sock=sock,
                ssl=tls,
                server_hostname=host,
                ssl_shutdown_timeout=CLOSE_TLS_S,
            )
    except BaseException:
        sock.close()
        raise
    return connection


def ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verify against certifi's authorities, or only against the given file's. TLS 1.2 is Engage's minimum."""
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
