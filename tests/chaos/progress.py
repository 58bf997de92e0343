"""Slow is not stuck, and back is not back at full speed: what the times of acceptances say. PURE."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence
from math import inf
from statistics import median

FULL = 0.8  # of the usual speed: what counts as full again


def usual_speed(accepted_at: Sequence[float], before: float) -> float:
    """Return the median of what was accepted in each whole second until `before` (seconds, as in `accepted_at`).

    Seconds in which nothing was are earlier faults' standstills, and nobody's speed.
    """
    if not accepted_at or accepted_at[0] >= before:
        return 0.0
    seconds = int(before - accepted_at[0])
    if seconds == 0:
        return bisect_left(accepted_at, before) / (before - accepted_at[0])
    edges = [before - n for n in range(seconds + 1)]
    counts = [bisect_left(accepted_at, end) - bisect_left(accepted_at, end - 1) for end in edges[:-1]]
    return median([count for count in counts if count] or [0.0])


def recovery_s(
    accepted_at: Sequence[float], fault_began: float, fault_ended: float, until: float = inf
) -> float | None:
    """Return the seconds from a fault's end to full speed again: to the beginning of the first second with that speed.

    None where it did not come to that before `until`, or before everything was done. `accepted_at` is sorted.
    """
    wanted = max(1.0, FULL * usual_speed(accepted_at, fault_began))
    for index in range(bisect_right(accepted_at, fault_ended), bisect_left(accepted_at, until)):
        if bisect_left(accepted_at, accepted_at[index] + 1) - index >= wanted:
            return accepted_at[index] - fault_ended
    return None


class Probe:
    """Tells slow from stuck: stuck is who comes no further for `stuck_s`, whatever is asked of Engage meanwhile."""

    def __init__(self, stuck_s: float) -> None:
        self._stuck_s = stuck_s
        self._progress: Hashable = None
        self._busy: Hashable = None
        self._came_further = 0.0
        self._was_busy = 0.0
        self.longest_wait_s = 0.0

    def see(self, progress: Hashable, busy: Hashable, now: float) -> str | None:
        """Take in what is done, and what was tried. Returns what is wrong, None while it comes further."""
        if progress != self._progress or not self._came_further:
            self._progress, self._came_further = progress, now
        if busy != self._busy or not self._was_busy:
            self._busy, self._was_busy = busy, now
        waited = now - self._came_further
        self.longest_wait_s = max(self.longest_wait_s, waited)
        if waited < self._stuck_s:
            return None
        idle = now - self._was_busy
        how = "nothing is even tried" if idle >= self._stuck_s else "it still tries"
        return f"stuck: came no further for {waited:.0f} s, {how}"
