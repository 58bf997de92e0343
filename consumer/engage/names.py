"""The addresses of a host, asked of the system (getaddrinfo), which may take half a minute to find nothing.

An event loop's own lookups share few threads (two in uvloop). A name whose server gives no answer would keep them, and
nobody could connect to any other host meanwhile. Nor could the process end.

Rules:
 1. Each lookup has a thread of its own, for which nobody waits when the process ends.
 2. One lookup of a host is under way at a time: who asks meanwhile gets its answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from aiohappyeyeballs import AddrInfoType

MAX_UNDER_WAY = 256  # threads: where no name server answers, a relay may have thousands of names

_Name = tuple[asyncio.AbstractEventLoop, str, int]
_under_way: dict[_Name, asyncio.Future[Sequence[AddrInfoType]]] = {}
_free = threading.BoundedSemaphore(MAX_UNDER_WAY)


async def addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    """Return where a host is reached. Raises OSError where nobody can say, RuntimeError where no thread is left."""
    with suppress(socket.gaierror):  # a name
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    name = asyncio.get_running_loop(), host, port
    if name not in _under_way:
        _under_way[name] = _look_up(name)
    return await asyncio.shield(_under_way[name])


def _look_up(name: _Name) -> asyncio.Future[Sequence[AddrInfoType]]:
    (loop, host, port), free = name, _free
    answer: asyncio.Future[Sequence[AddrInfoType]] = loop.create_future()

    def settle(found: Sequence[AddrInfoType] | Exception) -> None:
        del _under_way[name]
        if isinstance(found, Exception):
            answer.set_exception(found)
            answer.exception()  # perhaps nobody waits any more
        else:
            answer.set_result(found)

    def ask() -> None:
        found: Sequence[AddrInfoType] | Exception
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            found = error
        free.release()
        try:
            loop.call_soon_threadsafe(settle, found)
        except RuntimeError:  # the event loop is closed
            del _under_way[name]

    if not free.acquire(blocking=False):
        raise socket.gaierror(socket.EAI_AGAIN, "too many lookups are under way")
    try:
        threading.Thread(target=ask, name="lookup", daemon=True).start()
    except RuntimeError:
        free.release()
        raise
    return answer
