"""A number for each of many digests, in few bytes. Pure.

As entries of a dict they would take 150 bytes each; here they take 19 to 53 (`python -m benchmarks.facts`).

It is a hash table in three arrays: a digest's own first bytes say where it belongs, and it lies there or behind.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import Any, Literal

DIGEST_BYTES = 12  # of which so many are compared: a digest of the events has no more
_FIRST_BYTES = 8
_PACKED = Struct(">QI")
_SMALLEST = 64  # slots


class DigestTable:
    """Numbers by digest."""

    __slots__ = ("_count", "_firsts", "_numbers", "_rests", "_typecode")

    def __init__(self, typecode: Literal["H", "d"]) -> None:
        """Begin with none. `typecode`: the numbers are from 0 to 2**16 - 1 (H), or any (d), see `array`."""
        self._typecode: Literal["H", "d"] = typecode
        self._count = 0
        self._empty(_SMALLEST)

    def __len__(self) -> int:
        return self._count

    def get(self, digest: bytes) -> float | None:
        """Return a digest's number; None where it is not there."""
        slot = self._slot_of(*_halves(digest))
        return self._numbers[slot] if self._firsts[slot] else None

    def __setitem__(self, digest: bytes, number: float) -> None:
        first, rest = _halves(digest)
        slot = self._slot_of(first, rest)
        if self._firsts[slot] == 0:
            self._count += 1
            if 4 * self._count > 3 * len(self._firsts):
                self._resize(2 * len(self._firsts))
                slot = self._slot_of(first, rest)
        self._firsts[slot], self._rests[slot], self._numbers[slot] = first, rest, number

    def __delitem__(self, digest: bytes) -> None:
        """Take one out, if it is there."""
        slot = self._slot_of(*_halves(digest))
        if self._firsts[slot] == 0:
            return
        self._close_gap(slot)
        self._count -= 1
        if len(self._firsts) > _SMALLEST and 8 * self._count < len(self._firsts):
            self._resize(len(self._firsts) // 2)

    def count(self, packed: bytes | bytearray) -> None:
        """Add 1 to the number of each of these: DIGEST_BYTES each, one behind the other."""
        most = self._count + len(packed) // DIGEST_BYTES
        self.reserve(most)
        firsts, rests, numbers = self._firsts, self._rests, self._numbers
        last = len(firsts) - 1
        for first, rest in _PACKED.iter_unpack(packed):  # a restore adds a million: a call for each would be too slow
            slot = (first or 1) & last
            while (there := firsts[slot]) and (there != (first or 1) or rests[slot] != rest):
                slot = (slot + 1) & last
            if not there:
                firsts[slot], rests[slot] = first or 1, rest
                self._count += 1
            numbers[slot] += 1

    def reserve(self, most: int) -> None:
        """Make room for so many at once."""
        if 4 * most > 3 * len(self._firsts):
            self._resize(1 << (4 * most // 3).bit_length())

    def _slot_of(self, first: int, rest: int) -> int:
        """Return where it lies; where it does not, the empty slot behind."""
        firsts, rests = self._firsts, self._rests
        last = len(firsts) - 1
        slot = first & last
        while (there := firsts[slot]) and (there != first or rests[slot] != rest):
            slot = (slot + 1) & last
        return slot

    def _close_gap(self, gap: int) -> None:
        """Empty a slot, and move there what lies behind only because it was taken."""
        firsts, rests, numbers = self._firsts, self._rests, self._numbers
        last = len(firsts) - 1
        slot = (gap + 1) & last
        while first := firsts[slot]:
            if (slot - first) & last >= (slot - gap) & last:
                firsts[gap], rests[gap], numbers[gap] = first, rests[slot], numbers[slot]
                gap = slot
            slot = (slot + 1) & last
        firsts[gap] = numbers[gap] = 0

    def _resize(self, slots: int) -> None:
        former = zip(self._firsts, self._rests, self._numbers, strict=True)
        self._empty(slots)
        firsts, rests, numbers = self._firsts, self._rests, self._numbers
        last = slots - 1
        for first, rest, number in former:
            if first:
                slot = first & last
                while firsts[slot]:
                    slot = (slot + 1) & last
                firsts[slot], rests[slot], numbers[slot] = first, rest, number

    def _empty(self, slots: int) -> None:
        """Begin with so many empty slots: a power of two."""
        self._firsts = array("Q", bytes(8 * slots))
        self._rests = array("I", bytes(4 * slots))
        self._numbers: array[Any] = array(self._typecode, [0]) * slots


def _halves(digest: bytes) -> tuple[int, int]:
    """Return a digest as what the arrays hold. The first is never 0: that is an empty slot."""
    if len(digest) < DIGEST_BYTES:
        digest = digest.ljust(DIGEST_BYTES, b"\0")
    return int.from_bytes(digest[:_FIRST_BYTES]) or 1, int.from_bytes(digest[_FIRST_BYTES:DIGEST_BYTES])
