"""The book: which actions are open, in which lane and state, how many, and how old.

Every entry comes in, moves and goes through here, so the figures add up. What follows from a move is the agenda's.
"""

from __future__ import annotations

from consumer.core.effects import ActionId, NewAction
from consumer.core.ledger.entries import AHEAD, IN_FLIGHT, Entry, OwnedPartition, Queue, State
from consumer.core.ownership import Assignment
from consumer.core.parking import Parking, cost_of

AGE_SLOT_S = 10  # how exactly `first_seen` is told: a day of deadline is 8640 slots at the most


class Book:
    """All open actions that are held, by partition."""

    def __init__(self, parking: Parking) -> None:
        """`parking` hears how much is held."""
        self.partitions: dict[Assignment, OwnedPartition] = {}
        self.open = 0
        self.in_doubt = 0
        self.states = [0] * len(State)
        self.first_seen: dict[int, int] = {}  # by slots of AGE_SLOT_S: how many are open
        self.moved: dict[str, None] = {}  # the connections of what moved since the loop looked
        self._parking = parking

    def find(self, action_id: ActionId) -> Entry | None:
        """Return an open action (rule 4)."""
        partition = self.partitions.get(action_id.assignment)
        return partition.entries.get(action_id.offset) if partition else None

    def served(self, assignment: Assignment) -> OwnedPartition | None:
        """Return a partition that is restored, and not in a hand-over."""
        partition = self.partitions.get(assignment)
        return None if partition is None or partition.stopping else partition

    def add(self, partition: OwnedPartition, queue: Queue, offset: int, action: NewAction, first_seen: float) -> Entry:
        """Add an action as the last of its lane."""
        entry = Entry(partition, queue, offset, action, first_seen)
        partition.entries[offset] = entry
        self.open += 1
        self._parking.hold(queue.connection, cost_of(entry.payload))
        self.states[State.QUEUED] += 1
        self._count_age(entry, 1)
        lane = partition.lanes.setdefault(queue.connection, {})
        last = lane.get(entry.order_id)
        if last is not None:
            entry.next, last.next = last.next, entry
        lane[entry.order_id] = entry
        return entry

    def move(self, entry: Entry, state: State) -> None:
        """Move an entry to another state."""
        self.states[entry.state] -= 1
        self.states[state] += 1
        entry.partition.in_flight += (state in IN_FLIGHT) - (entry.state in IN_FLIGHT)
        entry.queue.ahead += (state in AHEAD) - (entry.state in AHEAD)
        self.moved[entry.queue.connection] = None
        if state is State.GONE:
            self._parking.hold(entry.queue.connection, -cost_of(entry.payload))
            self._count_age(entry, -1)
        entry.state = state

    def doubt(self, entry: Entry, doubt: bool) -> None:
        """Note whether Engage may have processed it already (rule 5)."""
        self.in_doubt += doubt - entry.doubt
        entry.doubt = doubt

    def remove(self, entry: Entry) -> Entry | None:
        """Take an ended action out of its lane. Returns its successor, where it was the head: that is the head now."""
        partition = entry.partition
        if entry.state is State.POLLING:
            partition.unanswered.add(entry.offset)
        self.doubt(entry, False)
        self.move(entry, State.GONE)
        self.open -= 1
        del partition.entries[entry.offset]
        lane = partition.lanes[entry.queue.connection]
        last = before = lane[entry.order_id]
        while before.next is not entry:  # ends at once, unless the action is not the head: rare
            before = before.next
        successor = entry.next if before is last and before is not entry else None
        if before is entry:
            del lane[entry.order_id]
        else:
            before.next = entry.next
            if last is entry:
                lane[entry.order_id] = before
        del entry.next  # it would keep others alive, and itself
        return successor

    def drop(self, assignment: Assignment) -> int:
        """Forget a partition at once; returns how many actions it held."""
        partition = self.partitions.pop(assignment)
        dropped = len(partition.entries)
        for entry in partition.entries.values():
            self.doubt(entry, False)
            self.move(entry, State.GONE)
            del entry.next
        partition.entries.clear()
        partition.lanes.clear()
        self.open -= dropped
        return dropped

    def _count_age(self, entry: Entry, change: int) -> None:
        slot = int(entry.first_seen // AGE_SLOT_S)
        count = self.first_seen.get(slot, 0) + change
        if count:
            self.first_seen[slot] = count
        else:
            del self.first_seen[slot]
