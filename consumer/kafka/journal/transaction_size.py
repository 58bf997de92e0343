"""How many bytes a transaction may hold, so that it fits into its time. Pure.

A transaction must be written within `transaction.timeout.ms`, or the broker aborts it. A quota or a thin uplink may
let through a fraction of what fits otherwise. So the size follows what was seen, as a window does in TCP:

 1. What did not fit is tried again with at most half of it, and half of what was written in that time.
 2. A transaction that took longer than half of its time is a warning: the next ones are smaller.
 3. A full transaction that was quick lets the next ones be larger by a fixed step.
"""

from __future__ import annotations

MAX_BYTES = 16 * 1024 * 1024
MIN_BYTES = 16 * 1024  # some tens of ordinary records: 2 kB/s are enough for those; a larger record goes alone
STEP_BYTES = 256 * 1024  # from the least to the most in 64 full transactions
SLOW = 0.5  # of its time
QUICK = 0.25


class TransactionSize:
    """The limit at present, in bytes."""

    def __init__(self, timeout_s: float, most: int = MAX_BYTES) -> None:
        """`timeout_s`: how long a transaction may take at most."""
        self._timeout_s = timeout_s
        self._most = most
        self.limit = most

    def committed(self, size: int, seconds: float) -> None:
        """Learn from a transaction of `size` bytes that was committed."""
        if seconds > SLOW * self._timeout_s:
            self._shrink(size // 2)
        elif seconds < QUICK * self._timeout_s and size >= self.limit // 2:
            self.limit = min(self._most, self.limit + STEP_BYTES)

    def overran(self, size: int, written: int) -> None:
        """Learn from one of `size` bytes that did not fit into its time; `written` were taken by the broker."""
        self._shrink(min(size // 2, written // 2) if written else size // 4)

    def _shrink(self, size: int) -> None:
        self.limit = max(MIN_BYTES, min(self.limit, size))
