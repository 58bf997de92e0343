"""Which facts have an action that has not ended, in few bytes. Pure.

A connection that hangs may have a million parked actions, and each keeps its fact open (repeats.py).
"""

from __future__ import annotations

from consumer.core.digest_table import DIGEST_BYTES, DigestTable

MAX_TIMES = (1 << 16) - 1  # of the same fact


class OpenFacts:
    """A multiset of digests."""

    __slots__ = ("_count", "_table")

    def __init__(self) -> None:
        """Begin with none."""
        self._count = 0
        self._table = DigestTable("H")

    def __len__(self) -> int:
        return self._count

    def __contains__(self, fact: bytes) -> bool:
        return self._table.get(fact) is not None

    def extend(self, packed: bytes | bytearray) -> None:
        """Add many at once: DIGEST_BYTES of each, one behind the other."""
        self._table.count(packed)
        self._count += len(packed) // DIGEST_BYTES

    def add(self, fact: bytes) -> None:
        """Add one, also where it is there already."""
        self._table[fact] = min((self._table.get(fact) or 0) + 1, MAX_TIMES)
        self._count += 1

    def discard(self, fact: bytes) -> None:
        """Take one out, if it is there."""
        times = self._table.get(fact)
        if times is None:
            return
        if times == 1:
            del self._table[fact]
        else:
            self._table[fact] = times - 1
        self._count -= 1
