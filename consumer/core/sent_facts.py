"""When each fact was sent, in few bytes. Pure; times are whole seconds since 1970.

At Engage's recommended rate limit a day has two million of them. As entries of a dict they would take 180 bytes each,
which is more than all else; here they take 40 to 62 (`python -m benchmarks.facts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from struct import Struct

from consumer.core.digest_table import DIGEST_BYTES, DigestTable

MOST_AT_ONCE = 1000  # that are forgotten: some milliseconds, also after a quiet day
_SENT = Struct(f">{DIGEST_BYTES}sI")


class SentFacts:
    """Facts with the time at which each was sent last. What is older than the window is forgotten."""

    __slots__ = ("_in_order", "_table", "_window_s")

    def __init__(self, window_s: float, sent: Iterable[tuple[bytes, float]] = ()) -> None:
        """Begin with those that were sent, in whatever order."""
        self._window_s = window_s
        self._table = DigestTable("I")
        self._in_order = bytearray()  # each sending, the oldest first; only a fact's last one counts
        in_order = sorted(sent, key=itemgetter(1))
        self._table.reserve(len(in_order))
        for fact, at in in_order:
            self._add(fact, at)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[tuple[bytes, float]]:
        """Yield each fact with when it was sent, the oldest first."""
        for fact, second in _SENT.iter_unpack(self._in_order):
            if self.sent_at(fact) == second:
                yield fact, second

    def sent_at(self, fact: bytes) -> int | None:
        """Return when a fact was sent; None: never, as far as is known."""
        number = self._table[fact]
        return number - 1 if number else None

    def sent(self, fact: bytes, now: float) -> None:
        """Note that a fact is sent now, and forget what is older than the window."""
        self._add(fact, now)
        self._forget_old(now)

    def _forget_old(self, now: float) -> None:
        forgotten = 0
        for each, second in islice(_SENT.iter_unpack(self._in_order), MOST_AT_ONCE):
            if now - second < self._window_s:
                break
            if self.sent_at(each) == second:
                del self._table[each]
            forgotten += _SENT.size
        del self._in_order[:forgotten]

    def _add(self, fact: bytes, at: float) -> None:
        second = math.ceil(at)  # later rather than sooner: within the window it is never taken for a new one
        self._table[fact] = second + 1  # 0: it is not there
        self._in_order += _SENT.pack(fact, second)
