"""Progress: which owned partitions stand still, since when, and for which reason. Pure; the clock is a parameter.

A partition stands still when it has a lag and, for `patience_s`, nothing of it was read and none of its pending actions
has ended. That may be meant: no more can be parked, or a producer's transaction is open. Such reasons are
known, and shown. Without one, something is broken that no error tells of.

Rules:
 1. A partition without lag does not stand still. One whose lag nobody knows (it is not read yet, or the brokers do not
    answer) may have some, so it is treated as if it had.
 2. Each assignment counts from its own beginning: what a former owner left does not count against the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from consumer.core.ownership import Assignment

STALL_S = 300.0  # a restore (120 s) was tried twice by then

StallReason = Literal[
    "restoring",  # its delay partition is being read
    "set_apart",  # it cannot be served, and the relay said so
    "foreign_transaction",  # the next records belong to a transaction that its producer has not ended
    "suspended",  # no more can be parked, and Engage refuses the key of a connection
    "paused",  # the source is paused: no more can be parked
    "journal",  # the source is paused, because what was read waits for a transaction
    "registry",  # the Schema Registry cannot be asked for the schema of its next event
    "unknown_schema",  # the Schema Registry has no such schema (yet)
    "unknown",
]
# Nobody meant these, and the relay does not get over them by itself.
FAULTS: frozenset[StallReason] = frozenset({"journal", "unknown"})
AT_ONCE: frozenset[StallReason] = frozenset({"registry", "unknown_schema"})
"""Nothing is read for as long as they hold: no patience is needed to see it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a partition was read, and what is left. `held`: it belongs to a transaction that has not ended."""

    next_offset: int
    lag: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A partition at one moment. `reading`: None where nobody knows. `reason`: what would explain a stall."""

    reading: Reading | None
    pending: int | None
    reason: StallReason


@dataclass(frozen=True, slots=True)
class Stall:
    """Why a partition stands still, and since when (seconds since 1970)."""

    reason: StallReason
    since: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What one look found: the partitions that stand still now and did not (or for another reason), and that moved."""

    begun: Mapping[Assignment, Stall]
    ended: Mapping[Assignment, Stall]


@dataclass(slots=True)
class _Last:
    """What a partition looked like when it moved last, and when that was."""

    position: tuple[int | None, int | None]
    at: float


class ProgressWatch:
    """Looks at the partitions again and again."""

    def __init__(self, patience_s: float = STALL_S) -> None:
        self._patience_s = patience_s
        self._last: dict[Assignment, _Last] = {}
        self.stalled: Mapping[Assignment, Stall] = {}

    def look(self, seen: Mapping[Assignment, Seen], now: float) -> Changes:
        """Take in all owned partitions as they are at `now` (seconds since 1970)."""
        self._last = {each: self._moved(each, at, now) for each, at in seen.items()}
        before = self.stalled
        self.stalled = {
            each: Stall(at.reason, self._last[each].at)
            for each, at in seen.items()
            if now - self._last[each].at >= self._patience_s or at.reason in AT_ONCE
        }
        was = {each: stall.reason for each, stall in before.items()}
        return Changes(
            begun={each: stall for each, stall in self.stalled.items() if was.get(each) != stall.reason},
            ended={each: stall for each, stall in before.items() if each in seen and each not in self.stalled},
        )

    def _moved(self, assignment: Assignment, seen: Seen, now: float) -> _Last:
        reading, last = seen.reading, self._last.get(assignment)
        position = (None if reading is None else reading.next_offset, seen.pending)
        done = reading is not None and reading.lag == 0
        return last if last is not None and last.position == position and not done else _Last(position, now)


def by_reason(stalls: Mapping[Assignment, Stall]) -> dict[StallReason, list[str]]:
    """Name the partitions of each reason, in their order."""
    named: dict[StallReason, list[str]] = {}
    for (topic, partition, _), stall in sorted(stalls.items()):
        named.setdefault(stall.reason, []).append(f"{topic}[{partition}]")
    return named
