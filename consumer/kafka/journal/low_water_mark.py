"""The low-water mark: from where a restart must read a delay partition. Pure.

It is the delay-topic offset of the partition's oldest live record. Live records are kept in the order of their
offsets. A record that was written again or ended is skipped when it comes to the front, so every step is O(1)
amortised.

Rule: the mark is never above a live record. Nothing is applied before its transaction is committed (`after` returns
the mark for a transaction that is about to commit, `apply` takes the transaction over).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
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

    def __init__(self, live: Iterable[tuple[Hashable, int]] = (), end: int = 0, pinning: Pinning = PINNING) -> None:
        """`live`: key and delay offset of each live record; `end`: where the partition ended when they were read."""
        ordered = sorted(live, key=lambda item: item[1])
        self._latest: dict[Hashable, int] = dict(ordered)
        self._keys = deque(key for key, _ in ordered)
        self._offsets = deque(offset for _, offset in ordered)
        self._end = end
        self._pinning = pinning

    def after(self, written: Mapping[Hashable, int | None], end: int) -> int:
        """Return the mark for a transaction that wrote these records (None: a tombstone) and ends before `end`."""
        while self._keys and self._latest.get(self._keys[0]) != self._offsets[0]:
            self._keys.popleft()
            self._offsets.popleft()
        for key, offset in zip(self._keys, self._offsets, strict=True):
            if self._latest.get(key) == offset and key not in written:
                return offset
        return min((offset for offset in written.values() if offset is not None), default=end)

    def apply(self, written: Mapping[Hashable, int | None], end: int) -> None:
        """The transaction is committed."""
        for key, offset in sorted(written.items(), key=lambda item: -1 if item[1] is None else item[1]):
            if offset is None:
                self._latest.pop(key, None)
            else:
                self._latest[key] = offset
                self._keys.append(key)
                self._offsets.append(offset)
        self._end = max(self._end, end)

    def pinned(self) -> list[Hashable]:
        """Return the oldest live records' keys where they hold the mark far behind: write them again."""
        if not self._latest or self._end - self.after({}, self._end) <= max(self._pinning.span, 8 * len(self._latest)):
            return []
        oldest: list[Hashable] = []
        for key, offset in islice(zip(self._keys, self._offsets, strict=True), 10 * self._pinning.rewrites):
            if self._latest.get(key) == offset:
                oldest.append(key)
                if len(oldest) == self._pinning.rewrites:
                    break
        return oldest
