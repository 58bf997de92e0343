"""The low-water mark: from where a restart must read a delay partition. Pure.

It is the delay-topic offset of the partition's oldest live record. Live records are kept in the order of their
offsets. A record that was written again or ended is skipped when it comes to the front, so every step is O(1)
amortised.

Of parked records (core/parking.py) only a lower bound of their offsets is kept. Once one was read back, it is a live
record as all others are.

Rule: the mark is never above a live record, or a parked one. Nothing is applied before its transaction is committed
(`after` returns the mark for a transaction that is about to commit, `apply` takes the transaction over).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True)
class Pinning:
    """When old live records are written again because they hold the mark back.

    `span`: records between the mark and the end (or 8 per live one) before that happens. `rewrites`: how many of the
    oldest are written again at a time.
    """

    span: int = 10_000
    rewrites: int = 100


PINNING = Pinning()


class LowWaterMark:
    """The live records of one delay partition. Keys are the records' own."""

    def __init__(
        self,
        live: Iterable[tuple[Hashable, int]] = (),
        end: int = 0,
        pinning: Pinning = PINNING,
        parked_from: int | None = None,
    ) -> None:
        """`live`: key and delay offset of each live record; `end`: where the partition ended when they were read.

        `parked_from`: no parked record lies before it; None where there is none.
        """
        ordered = sorted(live, key=lambda item: item[1])
        self._latest: dict[Hashable, int] = dict(ordered)
        self._keys = deque(key for key, _ in ordered)
        self._offsets = deque(offset for _, offset in ordered)
        self._end = end
        self._pinning = pinning
        self._returned: list[tuple[int, Hashable]] = []  # what was read back: a heap
        self._parked_from = parked_from  # of what the relay knew when it last read some back,
        self._parked_since: int | None = None  # and of what was parked after that
        self._parked_last = -1

    def after(self, written: Mapping[Hashable, int | None], end: int) -> int:
        """Return the mark for a transaction that wrote these records (None: a tombstone) and ends before `end`."""
        others = (self._parked_from, self._parked_since, self._oldest_returned(written))
        return min([self._oldest(written, end), *(each for each in others if each is not None)])

    def _oldest(self, written: Mapping[Hashable, int | None], end: int) -> int:
        while self._keys and self._latest.get(self._keys[0]) != self._offsets[0]:
            self._keys.popleft()
            self._offsets.popleft()
        for key, offset in zip(self._keys, self._offsets, strict=True):
            if self._latest.get(key) == offset and key not in written:
                return offset
        return min((offset for offset in written.values() if offset is not None), default=end)

    def _oldest_returned(self, written: Mapping[Hashable, int | None]) -> int | None:
        """Return the lowest offset of what was read back, and not written again or ended since."""
        returned, kept = self._returned, []
        while returned and (self._latest.get(returned[0][1]) != returned[0][0] or returned[0][1] in written):
            each = heapq.heappop(returned)
            if each[1] in written:
                kept.append(each)  # its transaction is not committed yet
        oldest = returned[0][0] if returned else None
        for each in kept:
            heapq.heappush(returned, each)
        return oldest

    def unparked(self, live: Sequence[tuple[Hashable, int]], parked_from: int | None, known: int) -> None:
        """Take these as live: they were read back.

        Of those that are parked up to the offset `known`, none lies before `parked_from` now (None: there is none).
        """
        for key, offset in live:
            if key not in self._latest:
                self._latest[key] = offset
                heapq.heappush(self._returned, (offset, key))
        self._parked_from = parked_from
        if self._parked_since is not None:
            self._parked_since = None if self._parked_last <= known else max(self._parked_since, known + 1)

    def apply(self, written: Mapping[Hashable, int | None], end: int, parked: Collection[Hashable] = ()) -> None:
        """The transaction is committed. `parked`: keys of actions that are parked."""
        for key, offset in sorted(written.items(), key=lambda item: -1 if item[1] is None else item[1]):
            if offset is None:
                self._latest.pop(key, None)
            elif key in parked:
                self._parked_since = offset if self._parked_since is None else min(self._parked_since, offset)
                self._parked_last = max(self._parked_last, offset)
            else:
                self._latest[key] = offset
                self._keys.append(key)
                self._offsets.append(offset)
        self._end = max(self._end, end)

    def pinned(self) -> list[Hashable]:
        """Return the oldest live records' keys where they hold the mark far behind: write them again.

        Parked ones hold it, too. They cannot be written again, and it gets no further than to them.
        """
        parked = (each for each in (self._parked_from, self._parked_since) if each is not None)
        reach = min(parked, default=self._end)
        if not self._latest or reach - self.after({}, self._end) <= max(self._pinning.span, 8 * len(self._latest)):
            return []
        oldest: list[Hashable] = []
        returned = ((key, offset) for offset, key in heapq.nsmallest(self._pinning.rewrites, self._returned))
        others = islice(zip(self._keys, self._offsets, strict=True), 10 * self._pinning.rewrites)
        for key, offset in heapq.merge(returned, others, key=lambda each: each[1]):
            if self._latest.get(key) == offset:
                oldest.append(key)
                if len(oldest) == self._pinning.rewrites:
                    break
        return oldest
