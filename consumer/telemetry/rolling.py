"""What happened in the last minutes, for the status page: counts in slices of a few seconds each.

PURE: facts and times are arguments.

Rules:
 1. Its size does not depend on how much happens. Durations are counted in steps that grow by GROWTH, so a quantile is
    accurate to 2.5 %.
 2. Facts and `tick` come from one thread. What `tick` returns never changes, so any thread may read it.
 3. It holds counts, durations and names from the configuration, but no contents of events.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

SLICE_S = 10.0
SLICES = 60  # ten minutes
GROWTH = 1.05
MIN_S = 0.001  # what is shorter counts as this
_LOG_GROWTH = math.log(GROWTH)

Durations = Mapping[int, int]
"""How many durations fell into which step: step n is around MIN_S * GROWTH ** n seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What happened in `seconds` from `start` on (seconds since 1970); `pending` and `overdue` at its end."""

    start: float
    seconds: float = 0.0
    events: int = 0
    dead_letters: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)  # by connection
    accepted: Mapping[str, int] = field(default_factory=dict)
    event_to_accepted: Durations = field(default_factory=dict)
    ready_to_accepted: Durations = field(default_factory=dict)
    pending: int = 0
    overdue: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """The last minutes, the oldest slice first; the last one still grows. `started`: the first tick's time."""

    started: float | None = None
    slices: tuple[Slice, ...] = ()
    dead_letters: Mapping[str, int] = field(default_factory=dict)  # by reason, since the start

    def per_second(self, count: Callable[[Slice], int]) -> float:
        """Return the rate of what `count` finds in a slice, over the last one to two slices."""
        last = self.slices[-2:]
        seconds = sum(each.seconds for each in last)
        return sum(map(count, last)) / seconds if seconds > 0 else 0.0


def quantile(of: Iterable[Durations], share: float) -> float | None:
    """Return the duration in seconds below which `share` (0 to 1) of all lie; None where there are none."""
    counts = _together(of)
    wanted = share * sum(counts.values())
    reached = 0
    for step in sorted(counts):
        reached += counts[step]
        if reached >= wanted:
            return float(MIN_S * GROWTH**step)
    return None


def _together(of: Iterable[Durations]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for each in of:
        _add(counts, each)
    return counts


def _add(counts: dict[int, int], more: Durations) -> None:
    for step, count in more.items():
        counts[step] = counts.get(step, 0) + count


def _step(seconds: float) -> int:
    return round(math.log(max(seconds, MIN_S) / MIN_S) / _LOG_GROWTH)


class History:
    """The last minutes, from facts."""

    def __init__(self) -> None:
        self._done: deque[Slice] = deque(maxlen=SLICES)
        self._started: float | None = None
        self._start = 0.0
        self._reasons: dict[str, int] = {}
        self._begin(0.0)

    def _begin(self, start: float) -> None:
        self._start = start
        self._events = 0
        self._dead_letters = 0
        self._requests: dict[str, int] = {}
        self._accepted: dict[str, int] = {}
        self._event_to_accepted: dict[int, int] = {}
        self._ready_to_accepted: dict[int, int] = {}

    # -- facts --------------------------------------------------------------------------------------------------

    def consumed(self, events: int) -> None:
        """So many events were read."""
        self._events += events

    def requested(self, connection: str) -> None:
        """A request was made."""
        self._requests[connection] = self._requests.get(connection, 0) + 1

    def accepted(self, connection: str) -> None:
        """An action was accepted."""
        self._accepted[connection] = self._accepted.get(connection, 0) + 1

    def took(self, event_to_accepted_s: float | None, ready_to_accepted_s: float | None) -> None:
        """An accepted action took so long; None: nobody knows when its event happened, or it waited for no tag."""
        if event_to_accepted_s is not None:
            step = _step(event_to_accepted_s)
            self._event_to_accepted[step] = self._event_to_accepted.get(step, 0) + 1
        if ready_to_accepted_s is not None:
            step = _step(ready_to_accepted_s)
            self._ready_to_accepted[step] = self._ready_to_accepted.get(step, 0) + 1

    def dead_lettered(self, reason: str) -> None:
        """An event became a dead letter."""
        self._dead_letters += 1
        self._reasons[reason] = self._reasons.get(reason, 0) + 1

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, now: float, pending: int, overdue: int) -> Flow:
        """Return the last minutes as they stand at `now` (seconds since 1970). Once a second is meant."""
        if self._started is None or now < self._start:  # the first tick, or another clock
            self._started = now
            self._done.clear()
            self._start = now
        current = Slice(
            start=self._start,
            seconds=now - self._start,
            events=self._events,
            dead_letters=self._dead_letters,
            requests=self._requests.copy(),
            accepted=self._accepted.copy(),
            event_to_accepted=self._event_to_accepted.copy(),
            ready_to_accepted=self._ready_to_accepted.copy(),
            pending=pending,
            overdue=overdue,
        )
        flow = Flow(self._started, (*self._done, current), self._reasons.copy())
        if current.seconds >= SLICE_S:
            self._done.append(current)
            self._begin(now)
        return flow
