"""Paused: which actions a pause keeps from leaving, and for how long each was kept (rule 11, pauses.py)."""

from __future__ import annotations

import math
from collections import deque

from consumer.core.ledger.entries import Entry, State
from consumer.core.pauses import Pause, Pauses, Scope


class Paused:
    """The pauses that are known, and the actions on hold."""

    def __init__(self, pauses: Pauses) -> None:
        """Begin with the pauses that are known already."""
        self.pauses = pauses
        self.resume_at = math.inf  # when the next pause ends by itself
        self._held: deque[Entry] = deque()  # PAUSED; others are skipped
        self._discarded: deque[Entry] = deque()  # PAUSED, to be ended; others are skipped
        self._pause_of: dict[Scope, Pause | None] = {}  # what is known of each scope until the next change
        self._now = 0.0  # when that was found out
        self._may_hold = pauses.may_hold(0.0)

    def pause_of(self, entry: Entry) -> Pause | None:
        """Return what holds an action. The poll of a job that has the action already goes its way."""
        if not self._may_hold or entry.is_taken:
            return None
        scope = entry.scope
        if scope not in self._pause_of:
            self._pause_of[scope] = self.pauses.holding(scope, self._now)
        return self._pause_of[scope]

    def put(self, entry: Entry) -> None:
        """Note an action that is PAUSED now."""
        pause = self.pause_of(entry)
        (self._discarded if pause is not None and pause.discard else self._held).append(entry)

    def change(self, pauses: Pauses, now: float) -> list[Entry]:
        """Take which pauses there are. Returns what was on hold: all of that is looked at again."""
        self.pauses, self.resume_at = pauses, pauses.next_end(now)
        self._pause_of, self._now = {}, now
        self._may_hold = pauses.may_hold(now)
        held = [*self._held, *self._discarded]
        self._held.clear()
        self._discarded.clear()
        return held

    @property
    def discarded(self) -> int:
        """How many are to be ended."""
        return len(self._discarded)

    def next_discarded(self) -> Entry:
        """Take the next that is to be ended. It may have gone, or be held instead."""
        return self._discarded.popleft()

    def elapsed_s(self, entry: Entry, since: float, now: float) -> float:
        """Return the seconds since then, without those on hold."""
        return now - since - self.held_s(entry, since, now)

    def held_s(self, entry: Entry, since: float, now: float) -> float:
        """Return for how many seconds of that time an action was on hold."""
        return self.pauses.held_s(entry.scope, since, now)

    def forget_gone(self) -> None:
        """Drop what has ended meanwhile."""
        self._held = deque(entry for entry in self._held if entry.state is not State.GONE)
        self._discarded = deque(entry for entry in self._discarded if entry.state is not State.GONE)
