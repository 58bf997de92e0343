"""The event loop's timers, as the relay sets them, on the real loop."""

import asyncio
import random
import time

import uvloop

from consumer.relay.loop import TIMER_S


def early(margin_s: float) -> int:
    """Return how many of 1,000 timers fire before they are due."""
    draw = random.Random(5)

    async def fires_early(delay_s: float) -> bool:
        loop, fired = asyncio.get_running_loop(), asyncio.Event()
        due = time.monotonic() + delay_s
        loop.call_later(delay_s + margin_s, fired.set)
        await fired.wait()
        return time.monotonic() < due

    async def run() -> int:
        return sum([await fires_early(draw.uniform(0.0001, 0.003)) for _ in range(1000)])

    return uvloop.run(run())


def test_a_tick_never_comes_before_what_is_due() -> None:
    """It would find nothing and set the timer again, until the millisecond is over."""
    assert early(TIMER_S) == 0


def test_uvloops_timers_alone_are_rounded_to_milliseconds() -> None:
    assert early(0.0) > 0
