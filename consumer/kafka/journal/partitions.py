"""The partitions that the journal writes for: where each of them stands, and whether its writes still count.

A partition is known here from its `Begin` on, until it is given up or taken away. What only memory knows of it goes
with it. This keeps the first half of rule 1 of transactions.py: a write that nothing covers is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from consumer.core.ownership import Assignment, Ownership, Partition
from consumer.kafka.facts import Dropped, GivenUp, Report
from consumer.kafka.journal.low_water_mark import LowWaterMark, Pinning
from consumer.kafka.journal.writes import Begin, Unparked, Write


@dataclass(slots=True)
class PartitionState:
    """What the journal knows of one partition. Its delay partition ends at `end`, its position is `next_offset`."""

    mark: LowWaterMark
    next_offset: int
    end: int
    outcomes_topic_id: str | None = None
    recreated: bool = False  # the delay topic, since the last transaction that was committed
    incarnation: int = 0  # how often it was recreated
    silent: int = 0  # how often the broker took nothing of it, since then: it is a suspect then
    outdone: int = 0  # how often of these it took records of others long before the end
    letters_silent: int = 0  # how often it took none of its dead letters
    takes_no_letters: bool = False  # so often that the delay topic keeps them; until it takes one
    refusals: int = 0  # how often it was refused while others were served, since then
    committed_at: float = -math.inf
    too_large: set[bytes | None] = field(default_factory=set)  # keys that were dead-lettered for their record's size


class Partitions:
    """The ones that have begun."""

    def __init__(self, ownership: Callable[[], Ownership], report: Report, pinning: Pinning) -> None:
        """`ownership` returns the latest snapshot."""
        self.states: dict[Assignment, PartitionState] = {}
        self.given_up: frozenset[Assignment] = frozenset()
        self._refused: set[Partition] = set()  # those that were given up alone, until they begin again
        self._ownership = ownership
        self._report = report
        self._pinning = pinning

    def begin(self, begin: Begin) -> None:
        """Accept its writes from here on."""
        if begin.assignment in self.given_up:
            return
        ownership = self._ownership()
        for gone in [a for a in self.states if not ownership.covers(a)]:
            del self.states[gone]
        mark = LowWaterMark(begin.live, begin.end, self._pinning, begin.parked_from)
        state = PartitionState(mark, begin.next_offset, begin.end, begin.outcomes_topic_id)
        at = (begin.assignment.topic, begin.assignment.partition)
        if at in self._refused:  # perhaps it is still refused: it is asked before the others wait for it
            self._refused.discard(at)
            state.silent = state.outdone = 1
        self.states[begin.assignment] = state

    def unpark(self, unparked: Unparked) -> None:
        """Count these records as live."""
        state = self.states.get(unparked.assignment)
        if state is not None and state.incarnation == unparked.incarnation:  # else the records are written again
            state.mark.unparked(unparked.live, unparked.parked_from, unparked.known)

    def new_mark(self) -> LowWaterMark:
        """Return the mark of a delay topic that has just been recreated."""
        return LowWaterMark(pinning=self._pinning)

    def covered(self, writes: Sequence[Write], ownership: Ownership) -> list[Write]:
        """Return the writes that are still ours, and report the others as dropped."""
        kept: list[Write] = []
        gone: list[Write] = []
        for write in writes:
            ours = write.assignment in self.states and ownership.covers(write.assignment)
            (kept if ours else gone).append(write)
        if gone:
            self._report(Dropped(gone))
        return kept

    def take_no_letters(self, assignments: Collection[Assignment]) -> None:
        """Note that these take none of their dead letters, until they take one."""
        for assignment in assignments:
            self.states[assignment].takes_no_letters = True

    def give_up(self, assignment: Assignment, why: str) -> None:
        """Give one partition up. It is restored, and begins again."""
        del self.states[assignment]
        self._refused.add((assignment.topic, assignment.partition))
        self._report(GivenUp(assignment, why))

    def give_all_up(self, ownership: Ownership) -> None:
        """Give every partition up, also those that are assigned and have not begun."""
        self.states.clear()
        self.given_up = frozenset(ownership.assignments)

    def others_wait(self, troubled: Collection[Assignment], ownership: Ownership) -> bool:
        """Tell whether a partition waits to begin, besides these and those that were given up alone."""
        waiting = {a for a in ownership.assignments if (a.topic, a.partition) not in self._refused}
        return not waiting <= {*self.states, *troubled}
