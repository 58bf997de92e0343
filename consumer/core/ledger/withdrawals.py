"""Withdrawals: what is not sent any more, because of another action of its order (rule 12, sequences.py)."""

from __future__ import annotations

from typing import NamedTuple

from consumer.core.effects import NewAction
from consumer.core.ledger.entries import Entry
from consumer.core.ownership import Assignment
from consumer.core.parking import Parking
from consumer.core.places import offset_at
from consumer.core.sequences import SentStep, SentSteps, Sequences, mark_of, mark_of_action
from schemas.outcome import OutcomeName


class Withdrawal(NamedTuple):
    """How an action ends that is not sent any more, and why, in words."""

    outcome: OutcomeName
    reason: str


class Withdrawals:
    """What an order's other actions mean for one that waits."""

    def __init__(self, sequences: Sequences, parking: Parking, *, shadow: bool) -> None:
        """`sequences`: the rules. `parking` has marks of what is parked and supersedes others. `shadow`: rule 9."""
        self._sequences = sequences
        self._parking = parking
        self._shadow = shadow

    # -- what is known --------------------------------------------------------------------------------------------

    def no_steps(self) -> SentSteps:
        """Return what is known of the steps of a partition that was just assigned."""
        return SentSteps(self._sequences, known=not self._sequences.steps)

    def supersedes(self, action: NewAction) -> bool:
        """Whether an action may supersede others."""
        return self._sequences.supersedes(action)

    def added(self, entry: Entry, action: NewAction) -> None:
        """Note an action that is the last of its lane."""
        if self._sequences.supersedes(action):
            order = (entry.queue.connection, entry.order_id, entry.shadow)
            entry.partition.superseding.setdefault(order, {})[entry.route] = entry.offset

    def mark(self, action: NewAction) -> bytes | None:
        """Return the mark of an action that is parked; None: it supersedes nothing."""
        return mark_of_action(action) if self._sequences.supersedes(action) else None

    def unmark(self, assignment: Assignment, action: NewAction) -> None:
        """Note that an action is parked no more."""
        if self._sequences.supersedes(action):
            self._parking.unmark(assignment, mark_of_action(action))

    def removed(self, entry: Entry) -> None:
        """Let an earlier action of its order and route, if there is one, stand where one lay that was removed."""
        if entry.route in self._sequences.superseding:
            self._supersedes_no_more(entry)

    def _supersedes_no_more(self, entry: Entry) -> None:
        order = (entry.queue.connection, entry.order_id, entry.shadow)
        latest = entry.partition.superseding.get(order, {})
        if latest.get(entry.route) != entry.offset:
            return
        del latest[entry.route]
        last = entry.partition.lanes[entry.queue.connection].get(entry.order_id)
        each = last
        while last is not None and each is not None:  # ends at once, unless the action was not the head: rare
            each = each.next
            if each.first_offset is None:
                if each.offset > entry.offset:
                    break
                if each.route == entry.route and each.shadow == entry.shadow:
                    latest[each.route] = each.offset
            if each is last:
                break
        if not latest:
            del entry.partition.superseding[order]

    def note_step(self, entry: Entry, now: float) -> None:
        """Note that an action was sent, perhaps in doubt, and ends."""
        if entry.action in self._sequences.steps:
            entry.partition.steps.sent(SentStep(entry.queue.connection, entry.order_id, entry.action, now))

    # -- what follows ---------------------------------------------------------------------------------------------

    def of(self, entry: Entry, now: float) -> Withdrawal | None:
        """Return why an action that is next is not to be sent; None: it is."""
        return self.superseded_by(entry) or self.behind_later_step(entry, now)

    def superseded_by(self, entry: Entry) -> Withdrawal | None:
        """Return what supersedes an action; None: nothing does, or it goes its way all the same."""
        by = self._sequences.superseded_by.get(entry.route)
        if by is None or not self._may_be_withdrawn(entry):
            return None
        partition, connection = entry.partition, entry.queue.connection
        for route, place in partition.superseding.get((connection, entry.order_id, entry.shadow), {}).items():
            if route in by and place > entry.offset:
                return Withdrawal(OutcomeName.SUPERSEDED, f"by route {route}, offset {offset_at(place)}")
        if self._parking.marks:
            for route in by:
                mark = mark_of(connection, entry.order_id, route, shadow=entry.shadow)
                if self._parking.is_marked(partition.assignment, mark):
                    return Withdrawal(OutcomeName.SUPERSEDED, f"by route {route}")
        return None

    def behind_later_step(self, entry: Entry, now: float) -> Withdrawal | None:
        """Return the later step of its order that was sent before it; None: none was, or it is sent all the same."""
        if not self._sequences.has_later(entry.action) or not self._may_be_withdrawn(entry):
            return None
        later = entry.partition.steps.later(entry.queue.connection, entry.order_id, entry.action, now)
        return None if later is None else Withdrawal(OutcomeName.OUT_OF_SEQUENCE, f"{later} was sent before")

    def must_wait_for_steps(self, entry: Entry) -> bool:
        """Whether it is not known yet which steps were sent before, and that could matter."""
        if entry.partition.steps.known or not self._sequences.has_later(entry.action):
            return False
        return self._may_be_withdrawn(entry)

    def _may_be_withdrawn(self, entry: Entry) -> bool:
        """Whether an action was surely not sent, and nobody asked for it, and it is not another run's (rule 9)."""
        others = self._shadow and not entry.shadow
        return not (entry.doubt or entry.is_taken or entry.first_offset is not None or others)
