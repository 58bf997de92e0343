"""One way to make requests, and the CPU that each costs. A process of its own, as another commit's code may run in it.

    python benchmarks/engine_probe.py WAY URL        WAY: engine, transport or client

Prints the directory of the code that ran, then a number for each line that it reads: microseconds of CPU per request.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import uvloop

import consumer.engage.http
from consumer.engage.http import HttpEngine, Origin

REQUESTS, IN_FLIGHT = 8000, 32
TIMEOUT_S = 30.0
PATH = "/api/v3/orders/jobs/job-1"

Ask = Callable[[], Awaitable[None]]


def engine(url: str) -> Ask:
    """Ask as the relay does."""
    origin = Origin(url)
    asked = HttpEngine(origin=origin, timeout_s=TIMEOUT_S)
    headers = [
        (b"host", origin.host_header),
        (b"apikey", b"benchmark"),
        (b"user-agent", b"engage-relay"),
        (b"accept", b"application/json"),
        (b"content-type", b"application/json"),
    ]

    async def ask() -> None:
        answer = await asked.exchange("job", b"GET", PATH.encode(), headers)
        if getattr(answer, "status", None) != 200:
            raise RuntimeError(f"answered {answer!r}")

    return ask


def transport(url: str) -> Ask:
    """Ask by httpx's requests and answers, without its client."""
    from consumer.engage.transport import EngineTransport  # noqa: PLC0415 - an older commit may have none

    asked = EngineTransport(timeout_s=TIMEOUT_S)
    headers = {"apikey": "benchmark", "user-agent": "engage-relay", "content-type": "application/json"}

    async def ask() -> None:
        _check(await asked.handle_async_request(httpx.Request("GET", url + PATH, headers=headers)))

    return ask


def client(url: str) -> Ask:
    """Ask by httpx's client."""
    from consumer.engage.transport import async_client  # noqa: PLC0415 - an older commit may have none

    asked = async_client(timeout_s=TIMEOUT_S, base_url=url)
    headers = {"apikey": "benchmark", "user-agent": "engage-relay", "content-type": "application/json"}

    async def ask() -> None:
        _check(await asked.get(PATH, headers=headers))

    return ask


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        raise RuntimeError(f"answered {answer.status_code}")


async def _round(ask: Ask) -> float:
    left = REQUESTS

    async def one_after_another() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await ask()

    before = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(one_after_another())
    return (time.process_time() - before) / REQUESTS * 1e6


async def _probe(way: str, url: str) -> None:
    ask = WAYS[way](url)
    print(Path(consumer.engage.http.__file__).parents[2], flush=True)
    for _ in sys.stdin:
        print(await _round(ask), flush=True)


WAYS: dict[str, Callable[[str], Ask]] = {"engine": engine, "transport": transport, "client": client}

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_probe(*sys.argv[1:]))
