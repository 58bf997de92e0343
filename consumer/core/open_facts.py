"""Which facts have an action that has not ended, in few bytes. Pure.

A connection that hangs may have a million parked actions, and each keeps its fact open (repeats.py). As entries of a
dict they would take 150 bytes each; here they take 16 to 32 (`python -m benchmarks.facts`).

It is a hash table in two arrays: a fact is a digest, so its own first bytes say where it belongs, and it lies there or
behind. A fact with two actions lies there twice.
"""

from __future__ import annotations

from array import array
from struct import Struct

FACT_BYTES = 12  # of which so many are compared: a digest of the events has no more
_FIRST_BYTES = 8
_PACKED = Struct(">QI")
_SMALLEST = 64  # slots


class OpenFacts:
    """A multiset of digests."""

    __slots__ = ("_count", "_firsts", "_rests")

    def __init__(self) -> None:
        """Begin with none."""
        self._count = 0
        self._reserve(_SMALLEST)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, fact: bytes) -> bool:
        slot = self._slot_of(*_halves(fact))
        return self._firsts[slot] != 0

    def extend(self, packed: bytes | bytearray) -> None:
        """Add many at once: FACT_BYTES of each, one behind the other."""
        count = self._count + len(packed) // FACT_BYTES
        if 4 * count > 3 * len(self._firsts):
            self._resize(1 << (4 * count // 3).bit_length())
        firsts, rests = self._firsts, self._rests
        last = len(firsts) - 1
        for first, rest in _PACKED.iter_unpack(packed):  # a restore adds a million: a call for each would be too slow
            slot = (first or 1) & last
            while firsts[slot]:
                slot = (slot + 1) & last
            firsts[slot], rests[slot] = first or 1, rest
        self._count = count

    def add(self, fact: bytes) -> None:
        """Add one, also where it is there already."""
        if 4 * (self._count + 1) > 3 * len(self._firsts):
            self._resize(2 * len(self._firsts))
        self._put(*_halves(fact))
        self._count += 1

    def discard(self, fact: bytes) -> None:
        """Take one out, if it is there."""
        slot = self._slot_of(*_halves(fact))
        if self._firsts[slot] == 0:
            return
        self._close_gap(slot)
        self._count -= 1
        if len(self._firsts) > _SMALLEST and 8 * self._count < len(self._firsts):
            self._resize(len(self._firsts) // 2)

    def _slot_of(self, first: int, rest: int) -> int:
        """Return where it lies; where it does not, the empty slot behind."""
        firsts, rests = self._firsts, self._rests
        last = len(firsts) - 1
        slot = first & last
        while (there := firsts[slot]) and (there != first or rests[slot] != rest):
            slot = (slot + 1) & last
        return slot

    def _put(self, first: int, rest: int) -> None:
        last = len(self._firsts) - 1
        slot = first & last
        while self._firsts[slot]:
            slot = (slot + 1) & last
        self._firsts[slot], self._rests[slot] = first, rest

    def _close_gap(self, gap: int) -> None:
        """Empty a slot, and move there what lies behind only because it was taken."""
        firsts, rests = self._firsts, self._rests
        last = len(firsts) - 1
        slot = (gap + 1) & last
        while first := firsts[slot]:
            if (slot - first) & last >= (slot - gap) & last:
                firsts[gap], rests[gap] = first, rests[slot]
                gap = slot
            slot = (slot + 1) & last
        firsts[gap] = 0

    def _resize(self, slots: int) -> None:
        firsts, rests = self._firsts, self._rests
        self._reserve(slots)
        for first, rest in zip(firsts, rests, strict=True):
            if first:
                self._put(first, rest)

    def _reserve(self, slots: int) -> None:
        """Begin with so many empty slots: a power of two."""
        self._firsts = array("Q", bytes(8 * slots))
        self._rests = array("I", bytes(4 * slots))


def _halves(fact: bytes) -> tuple[int, int]:
    """Return a fact as what the arrays hold. The first is never 0: that is an empty slot."""
    return int.from_bytes(fact[:_FIRST_BYTES]) or 1, int.from_bytes(fact[_FIRST_BYTES:FACT_BYTES])
