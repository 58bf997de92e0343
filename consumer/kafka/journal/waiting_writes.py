"""The writes that wait for the journal's next transaction.

Rules:
 1. They are taken in the order in which they were submitted, for transactions of a bounded size.
 2. Group commit: what is submitted during one transaction goes into the next one. Where nobody waits for it, a write
    waits for company as well, for PATIENCE_S at the most. At a shop's ordinary rate an action is three writes, seconds
    apart, and a transaction of one record costs as much as one of ten.
 3. What others wait for never waits: an intent, what ends one (until it is there, a crash leaves its action in doubt),
    a dead letter, a barrier. It takes along what was submitted before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from consumer.core.clock import Clock
from consumer.kafka.journal.writes import Item, Position, Put, goes_on, size_of

PATIENCE_S = 0.1
COMPANY = 100  # so many writes wait for no more
MAX_WRITES = 2000  # per transaction: it takes 3-25 ms
MAX_BYTES = 16 * 1024 * 1024  # per transaction: it must be written within transaction.timeout.ms, or never is


class WaitingWrites:
    """A queue from any thread to the journal's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._items: deque[Item] = deque()
        self._urgent = 0  # how many of them may not wait
        self._queued_bytes = 0
        self._taken_bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        """How many bytes the records have that wait, or were taken last."""
        return self._queued_bytes + self._taken_bytes

    def submit(self, items: Iterable[Item]) -> None:
        """Add these, in this order. From any thread."""
        new = list(items)
        urgent = sum(not may_wait(each) for each in new)
        with self._changed:
            was_empty = not self._items
            self._items.extend(new)
            self._urgent += urgent
            self._queued_bytes += sum(map(size_of, new))
            if was_empty or self._waits_for_nothing:  # otherwise the journal waits for company already
                self._changed.notify()

    def close(self) -> None:
        """Wait for nothing any more: `take` returns what there is, and then nothing. From any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self) -> list[Item]:
        """Wait for the next transaction's writes and return them; none at the end. On the journal's thread."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            until = self._clock() + PATIENCE_S
            while not self._waits_for_nothing and (left_s := until - self._clock()) > 0:
                self._changed.wait(left_s)
            return self._next()

    @property
    def _waits_for_nothing(self) -> bool:
        return self._urgent > 0 or len(self._items) >= COMPANY or self._closed

    def _next(self) -> list[Item]:
        items: list[Item] = []
        size = 0
        while self._items and ((len(items) < MAX_WRITES and size < MAX_BYTES) or goes_on(items)):
            items.append(self._items.popleft())
            size += size_of(items[-1])
        self._urgent -= sum(not may_wait(each) for each in items)
        self._queued_bytes -= size
        self._taken_bytes = size
        return items


def may_wait(write: Item) -> bool:
    """Tell whether nobody waits for it: a new action is polled before it is safe, and a position is only progress.

    A record without a position, even of no intent, takes the place of an intent: its action was surely not processed.
    """
    match write:
        case Put(intent=None, keeps=None, outcome=None):
            return write.next_offset is not None or write.with_next
        case Position(outcomes=()):
            return True
        case _:
            return False
