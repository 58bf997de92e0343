"""Pauses: which actions a person has put on hold, and for how long each was. Pure.

Rules:
 1. A pause covers the actions of a connection, a route, an action's name, or what all that it names have in common.
    One that names nothing covers everything.
 2. It holds from when it is known until it is known to be ended, or until its own end has passed. When a person began
    or ended it decides nothing about that: their clock is not ours. An hour may lie between them.
 3. Where one pause holds an action and another one discards it, it is held: what is discarded does not come back.
 4. Time on hold is not the action's: no deadline and no grace counts it. So ended pauses stay known for a while. What
    counts them needs no memory of its own, and is the same after a restart.
 5. As long as nobody knows which pauses there are, everything is held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Scope(NamedTuple):
    """What an action is, as far as pauses tell actions apart."""

    connection: str
    route: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause. Times are seconds since 1970. `until`: when it ends by itself; `ended`: when a person ended it.

    `discard`: what it covers ends as `withheld`, instead of being held. `reason`: a person's own words.
    """

    id: str
    begun: float
    reason: str
    connection: str | None = None
    route: str | None = None
    action: str | None = None
    until: float | None = None
    ended: float | None = None
    discard: bool = False

    @property
    def end(self) -> float:
        """When it ends, as far as that is known."""
        ends = [each for each in (self.until, self.ended) if each is not None]
        return min(ends, default=math.inf)

    def is_on(self, now: float) -> bool:
        """Whether it holds (rule 2)."""
        return self.ended is None and (self.until is None or now < self.until)

    @property
    def what(self) -> str:
        """What it covers, in words."""
        named = (("connection", self.connection), ("route", self.route), ("action", self.action))
        return ", ".join(f"{what} {name}" for what, name in named if name is not None) or "everything"

    def covers(self, scope: Scope) -> bool:
        """Whether it is about such actions (rule 1)."""
        mine = (self.connection, self.route, self.action)
        return all(name in (None, theirs) for name, theirs in zip(mine, scope, strict=True))


NOT_READ = Pause(id="", begun=math.inf, reason="the control topic is not read yet")


class Pauses:
    """All pauses that are known, ended ones included."""

    __slots__ = ("_all", "_is_known")

    def __init__(self, pauses: Iterable[Pause] | None = ()) -> None:
        """`pauses`: None while nobody knows (rule 5)."""
        self._is_known = pauses is not None
        self._all = tuple(sorted(pauses or (), key=lambda each: (each.begun, each.id)))

    @property
    def known(self) -> tuple[Pause, ...]:
        """All, ended ones included."""
        return self._all

    def on(self, now: float) -> tuple[Pause, ...]:
        """Return those that are on, the earliest first."""
        return tuple(each for each in self._all if each.is_on(now))

    def may_hold(self, now: float) -> bool:
        """Whether anything is held at all."""
        return not self._is_known or bool(self.on(now))

    def next_end(self, now: float) -> float:
        """When the next one ends by itself."""
        return min((each.end for each in self.on(now)), default=math.inf)

    def holding(self, scope: Scope, now: float) -> Pause | None:
        """Return the pause that holds such an action, or discards it (rule 3); None: it may leave."""
        if not self._is_known:
            return NOT_READ
        found = [each for each in self._all if each.is_on(now) and each.covers(scope)]
        return min(found, key=lambda each: each.discard, default=None)

    def held_s(self, scope: Scope, since: float, now: float) -> float:
        """Return for how many seconds of that time such an action was on hold (rule 4)."""
        held_s, counted_to = 0.0, since
        for each in self._all:
            if each.covers(scope):
                begun, end = max(each.begun, counted_to), min(each.end, now)
                if end > begun:
                    held_s, counted_to = held_s + end - begun, end
        return held_s


NO_PAUSES, UNKNOWN_PAUSES = Pauses(), Pauses(None)
