"""As much HTTP as a stand-in for Engage needs: an asyncio.Protocol that answers at once, and is cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

Answer = Callable[[bytes, bytes, bytes], bytes | None]
"""Returns the whole answer to method, target and body; None: there is none."""


def response(status: bytes, body: bytes) -> bytes:
    """Return an answer with JSON."""
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class Served(asyncio.Protocol):
    """A connection: one request after another, each answered as soon as it is there."""

    def __init__(self, answer: Answer) -> None:
        """Answer so."""
        self._answer = answer
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it, to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            start = head.lower().find(b"\r\ncontent-length:")
            length = int(head[start + 17 :].partition(b"\r\n")[0]) if start >= 0 else 0
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            method, target, _ = head.split(b" ", 2)
            answer = self._answer(method, target, body)
            if answer is not None:
                self._transport.write(answer)
