"""The inbox: the one way from the edges' threads to the event loop.

Rules:
 1. Facts are read in the order in which they were put.
 2. `put` never waits: it leaves the fact and wakes the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from consumer.kafka.facts import Fact


class Inbox:
    """Facts on their way to the event loop. `put` is for any thread, all else for the loop's."""

    def __init__(self) -> None:
        self._facts: deque[Fact] = deque()
        self._woken = False  # the loop will read; cleared before it does, so that no fact is left lying
        self._loop: asyncio.AbstractEventLoop | None = None
        self._take: Callable[[Fact], None]

    def put(self, fact: Fact) -> None:
        """Leave a fact. One that nobody reads any more (the loop has ended) is dropped."""
        self._facts.append(fact)
        self._wake()

    def open(self, take: Callable[[Fact], None]) -> None:
        """Have each fact taken by the running loop from now on, those included that came before."""
        self._take = take
        self._loop = asyncio.get_running_loop()
        if self._facts:
            self._wake()

    def _wake(self) -> None:
        if self._woken or self._loop is None:
            return
        self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._read)

    def _read(self) -> None:
        self._woken = False
        try:
            for _ in range(len(self._facts)):
                self._take(self._facts.popleft())
        finally:
            if self._facts:  # one could not be taken, which ends the process; a hand-over needs the others even so
                self._wake()
