"""The writes that wait for the journal's next transaction.

Rules:
 1. They are taken in the order in which they were submitted, for transactions of a bounded size.
 2. Group commit: what is submitted during one transaction goes into the next one. An idle journal waits for company as
    well, for as long as the first of its writes may wait (`patience_s`): a transaction of one record costs as much as
    one of ten, and at a shop's ordinary rate an action is three writes, seconds apart. What a full transaction left
    waits for no more.
 3. A write waits as long as that costs nobody anything. A new action is polled before it is safe, and a position is
    only progress: NEW_S. An intent makes its e-mail so much later: INTENT_S. What ends an action that was sent lets a
    crash leave it in doubt for so much longer, as the answer's own time does: END_S. What others stand still for never
    waits: a dead letter, a barrier, an answer, the record that takes an intent's place.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable

from consumer.core.clock import Clock
from consumer.kafka.journal.writes import Item, Position, Put, Tombstone, goes_on, size_of

NEW_S = 0.1
INTENT_S = 0.02
END_S = 0.01
COMPANY = 100  # so many writes wait for no more
MAX_WRITES = 2000  # per transaction: it takes 3-25 ms
MAX_BYTES = 16 * 1024 * 1024  # per transaction: it must be written within transaction.timeout.ms, or never is


class WaitingWrites:
    """A queue from any thread to the journal's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._items: deque[Item] = deque()
        self._due = math.inf  # when the first of them may wait no more
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
        due = self._clock() + min(map(patience_s, new), default=math.inf)
        with self._changed:
            self._items.extend(new)
            self._queued_bytes += sum(map(size_of, new))
            is_sooner = due < self._due
            self._due = min(self._due, due)
            if is_sooner or len(self._items) >= COMPANY:  # otherwise the journal waits for company already
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
            while len(self._items) < COMPANY and not self._closed and (left_s := self._due - self._clock()) > 0:
                self._changed.wait(left_s)
            return self._next()

    def _next(self) -> list[Item]:
        items: list[Item] = []
        size = 0
        while self._items and ((len(items) < MAX_WRITES and size < MAX_BYTES) or goes_on(items)):
            items.append(self._items.popleft())
            size += size_of(items[-1])
        self._due = -math.inf if self._items else math.inf
        self._queued_bytes -= size
        self._taken_bytes = size
        return items


def patience_s(write: Item) -> float:
    """Return for how many seconds a write may wait for company (rule 3)."""
    match write:
        case Put(intent=None, keeps=None, outcome=None) if write.next_offset is not None or write.with_next:
            return NEW_S
        case Position(outcomes=()):
            return NEW_S
        case Put(intent=intent, keeps=None, outcome=None) if intent is not None:
            return INTENT_S
        case Tombstone():
            return END_S
        case _:
            return 0.0
