"""The oracle's view of facts: within the window one is accepted once, and nothing is dropped that is no repeat.

Excused is what nobody can know: what was sent before, where a restore could not read the outcomes; and what was parked,
once parked actions were found to be gone with the delay topic.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

from schemas.dead_letter import Reason
from schemas.outcome import Outcome, OutcomeName
from tests.simulation.workload import WINDOW_S, Event

SLACK_S = 0.002  # records hold milliseconds


class RepeatsOracle:
    """What became of the events of each fact of a partition."""

    def __init__(self, is_gone: Callable[[Event], bool], reach: Callable[[str], None]) -> None:
        """`is_gone`: whether a pending action went away with the delay topic, and nobody holds it."""
        self._is_gone = is_gone
        self._reach = reach
        self._events: defaultdict[tuple[int, tuple[str, str, int]], list[Event]] = defaultdict(list)
        self._lost_at: dict[int, float] = {}  # by partition, when a restore last knew nothing of what was sent before
        self._gone_at: dict[int, float] = {}  # and when parked actions were last found to be gone

    def published(self, event: Event) -> None:
        """Note an event."""
        if event.fact is not None:
            self._events[event.partition, event.fact].append(event)

    def are_lost(self, partition: int, now: float) -> None:
        """Note that a restore does not know what was sent before."""
        self._lost_at[partition] = now

    def parked_are_gone(self, partition: int, now: float) -> None:
        """Note that a process found parked actions to be gone."""
        self._gone_at[partition] = now

    def accepted(self, event: Event) -> str | None:
        """Say what is wrong when Engage accepts an event's action."""
        for first in self._others(event):
            for one, two in ((first, event), (event, first)):
                if one.place < two.place and one.accepted and two.accepted and not self._may_both(one, two):
                    return f"event {two.number} is accepted, a repeat of event {one.number} within the window"
        return None

    def ended(self, event: Event, outcome: Outcome) -> str | None:
        """Take an event's outcome. Say what is wrong with it."""
        if outcome.outcome is not OutcomeName.REPEAT:
            event.ended_at = outcome.ended_ms / 1000
            dead = outcome.outcome is OutcomeName.DEAD_LETTER and outcome.reason != Reason.OUTCOME_UNKNOWN
            event.frees_fact = dead or outcome.outcome in (OutcomeName.WITHHELD, OutcomeName.OUT_OF_SEQUENCE)
            return None
        event.is_repeat = True
        if event.first is not None:
            return f"event {event.number} was redriven, and dropped as a repeat"
        seen = outcome.first_seen_ms / 1000
        if not any(self._excludes(other, seen) for other in self._others(event)):
            return f"event {event.number} was dropped as a repeat, and is none"
        return None

    def _others(self, event: Event) -> list[Event]:
        return [] if event.fact is None else [e for e in self._events[event.partition, event.fact] if e is not event]

    def _may_both(self, one: Event, two: Event) -> bool:
        """Whether the second one is no repeat of the first, as far as anybody could know."""
        ended = math.inf if one.ended_at is None else one.ended_at
        seen = two.first_seen
        if two.first is not None:
            self._reach("a redriven event was sent beside its repeats")
            return True
        if seen - ended >= WINDOW_S - SLACK_S:
            self._reach("a fact was accepted again after the window")
            return True
        if one.ever_bereft or two.torn:
            return True
        lost_at, gone_at = (at.get(one.partition, -math.inf) for at in (self._lost_at, self._gone_at))
        return ended <= lost_at <= seen + SLACK_S or (ended >= gone_at and one.first_seen <= gone_at <= seen + SLACK_S)

    def _excludes(self, other: Event, seen: float) -> bool:
        """Whether another event of the fact makes one a repeat that was read at `seen`."""
        if other.is_repeat or other.deleted:
            return False
        if other.ended_at is None:
            noticed = self._gone_at.get(other.partition, -math.inf) >= other.bereft_at
            return not (self._is_gone(other) and noticed and seen > self._gone_at[other.partition] + SLACK_S)
        if other.frees_fact:
            return other.ended_at >= seen - SLACK_S
        return seen - other.ended_at < WINDOW_S + SLACK_S
