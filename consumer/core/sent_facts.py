"""When each fact was sent, in few bytes. Pure; times are seconds since 1970.

At Engage's recommended rate limit a day has two million of them. As entries of a dict they would take 180 bytes each,
which is more than all else; here they take 47 to 76 (`python -m benchmarks.facts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from struct import Struct

from consumer.core.digest_table import DIGEST_BYTES, DigestTable

MOST_AT_ONCE = 1000  # that are forgotten: some milliseconds, also after a quiet day
_SENT = Struct(f">{DIGEST_BYTES}sd")


class SentFacts:
    """Facts with the time at which each was sent last. What is older than the window is forgotten."""

    __slots__ = ("_in_order", "_table", "_window_s")

    def __init__(self, window_s: float, sent: Iterable[tuple[bytes, float]] = ()) -> None:
        """Begin with those that were sent, in whatever order."""
        self._window_s = window_s
        self._table = DigestTable("d")
        self._in_order = bytearray()  # each sending, the oldest first; only a fact's last one counts
        in_order = sorted(sent, key=itemgetter(1))
        self._table.reserve(len(in_order))
        for fact, at in in_order:
            self._add(fact, at)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[tuple[bytes, float]]:
        """Yield each fact with when it was sent, the oldest first."""
        for fact, at in _SENT.iter_unpack(self._in_order):
            if self._table.get(fact) == at:
                yield fact, at

    def sent_at(self, fact: bytes) -> float | None:
        """Return when a fact was sent; None: never, as far as is known."""
        return self._table.get(fact)

    def sent(self, fact: bytes, now: float) -> None:
        """Note that a fact is sent now, and forget what is older than the window."""
        self._add(fact, now)
        self._forget_old(now)

    def _forget_old(self, now: float) -> None:
        forgotten = 0
        for fact, at in islice(_SENT.iter_unpack(self._in_order), MOST_AT_ONCE):
            if now - at < self._window_s:
                break
            if self._table.get(fact) == at:
                del self._table[fact]
            forgotten += _SENT.size
        del self._in_order[:forgotten]

    def _add(self, fact: bytes, at: float) -> None:
        self._table[fact] = at
        self._in_order += _SENT.pack(fact, at)
