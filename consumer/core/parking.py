"""Parking: what a connection has pending beyond its share of the memory stays in the delay topic. Pure.

Rules:
 1. Each connection may hold its guarantee, and beyond it as much as is free. So the more of them need memory, the less
    each takes, and some is always free for the next one.
 2. While a connection has something parked of a partition, all its new actions of that partition are parked. They are
    read back in the order of their events. So what is parked is never earlier than what is held: within an order
    nothing overtakes.
 3. Of each parked action its record's offset in the delay topic is kept, and its fact (repeats.py): PARKED_BYTES at
    most. The mark of one that supersedes others (sequences.py) counts as another action. They count as memory, too.
    When that is used up, parking cannot go on, and the source is paused.
 4. A record can be read back once its transaction is committed. Until all are, and all were read back, rule 2 holds.
 5. An action past its deadline is read back even where there is no room, a few at a time: only what is held can end.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.open_facts import OpenFacts
from consumer.core.ownership import Assignment

# `limits.pending` counts actions of up to so many bytes. What the ledger and the journal keep of each beside its packed
# payload is ENTRY_BYTES. An ordinary payload has 300 bytes, packed; larger ones count for more than one action.
BYTES_OF_PENDING = 2048
ENTRY_BYTES = 1024
PARKED_BYTES = 8 + 32  # an offset, and a fact where the table of them was just enlarged
GUARANTEED = 1 / 3  # of the memory is divided equally among the connections; the rest goes to who needs it
BLOCK = 1024  # offsets for which one lowest is known
MAX_READ = 500  # actions that are read back at a time, of all connections of a partition,
MAX_READ_BYTES = 16 * 1024 * 1024  # with records of so many bytes: for a moment each is there several times over
OVERDUE_AT_ONCE = 8  # actions past their deadline that a connection holds beyond its share


def cost_of(payload: bytes) -> int:
    """Return how many bytes an action takes that is held.

    A large payload takes a quarter more than it has: what lies between them in memory (benchmarks/memory.py).
    """
    return max(BYTES_OF_PENDING, ENTRY_BYTES + len(payload) * 5 // 4)


@dataclass(frozen=True, slots=True)
class Memory:
    """What an instance may hold: `actions` of BYTES_OF_PENDING, for so many connections.

    `parked`: how many it may park; None: so many that what is kept of them takes half as much as may be held (rule 3).
    """

    actions: int
    connections: int = 1
    parked: int | None = None

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.actions * BYTES_OF_PENDING

    def share(self, held: int) -> int:
        """Return how much a connection may hold while all of them together hold `held` (rule 1)."""
        if self.connections <= 1:
            return self.bytes
        guaranteed = self.bytes * GUARANTEED
        return int(max(guaranteed / self.connections, self.bytes - guaranteed - held))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRecords:
    """What a restore leaves in the delay topic of one connection: offsets in the order of the events.

    `bytes` of the records and `oldest` (when the first event was seen, in seconds since 1970) are estimates.
    `facts`: of those that have one (repeats.py), DIGEST_BYTES each, one behind the other. `marks`: of those that
    supersede others (sequences.py), in the same way.
    """

    offsets: array[int]
    bytes: int
    oldest: float
    facts: bytearray = field(default_factory=bytearray)
    marks: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class ToRead:
    """What is to be read back of a partition: the offsets of its connections' oldest parked records.

    `restored` and `incarnation`: of which restore, and of which delay topic. What was read of a former one counts for
    nothing.
    """

    assignment: Assignment
    offsets: Mapping[str, list[int]]
    restored: int
    incarnation: int


class ParkedRange:
    """What one connection has parked of one partition."""

    __slots__ = ("_blocks", "_lowest", "_submitted", "_taken", "bytes", "count", "last_place", "oldest")

    def __init__(self, oldest: float) -> None:
        """`oldest`: when the first event was seen."""
        self._blocks: deque[array[int]] = deque()  # offsets, in the order of the events
        self._lowest: deque[int] = deque()  # of each block
        self._taken = 0  # of the first block
        self.count = 0
        self.bytes = 0
        # The places of those that cannot be read back yet: with offset and bytes, where they are committed.
        self._submitted: OrderedDict[int, tuple[int, int] | None] = OrderedDict()
        self.last_place = -1  # of the last event that was parked, not restored
        self.oldest = oldest

    @property
    def is_empty(self) -> bool:
        """Whether nothing is parked any more (rule 4)."""
        return not self.count and not self._submitted

    @property
    def mean_bytes(self) -> int:
        """Return how many bytes a record has on average; there is one at least."""
        return max(1, self.bytes // self.count)

    @property
    def all(self) -> int:
        """How many actions are parked, those included that cannot be read back yet."""
        return self.count + len(self._submitted)

    def submit(self, place: int) -> None:
        """Note that a record is submitted to the journal."""
        self._submitted[place] = None
        self.last_place = place

    def save(self, place: int, offset: int, size: int) -> None:
        """Note where a record lies. It waits for the earlier ones: they are read back in the order of the events."""
        if place in self._submitted:
            self._submitted[place] = (offset, size)
            self._append_saved()

    def refuse(self, place: int) -> bool:
        """Note that a record will not be written. Tells whether it was waited for."""
        if place not in self._submitted:
            return False
        del self._submitted[place]
        self._append_saved()
        return True

    def _append_saved(self) -> None:
        while self._submitted and (saved := next(iter(self._submitted.values()))) is not None:
            self._submitted.popitem(last=False)
            self.append([saved[0]])
            self.bytes += saved[1]

    def append(self, offsets: Iterable[int]) -> None:
        """Add what was committed, in the order of the events."""
        for offset in offsets:
            if not self._blocks or len(self._blocks[-1]) >= BLOCK:
                self._blocks.append(array("q"))
                self._lowest.append(offset)
            self._blocks[-1].append(offset)
            self._lowest[-1] = min(self._lowest[-1], offset)
            self.count += 1

    def first(self, most: int) -> list[int]:
        """Return the offsets of the oldest."""
        found: list[int] = []
        start = self._taken
        for block in self._blocks:
            found += block[start : start + most - len(found)]
            start = 0
            if len(found) >= most:
                break
        return found

    def drop(self, count: int) -> None:
        """Take the oldest out: they were read back."""
        self.count -= count
        self._taken += count
        while self._blocks and self._taken >= len(self._blocks[0]):
            self._taken -= len(self._blocks.popleft())
            self._lowest.popleft()
        if not self.count:
            self.bytes = 0

    def forget_offsets(self) -> int:
        """Forget what is committed. Returns how many they were."""
        saved = [place for place, at in self._submitted.items() if at is not None]
        for place in saved:
            del self._submitted[place]
        count = self.count
        self.drop(count)
        return count + len(saved)

    @property
    def lowest(self) -> int | None:
        """No committed record lies before this offset; None where there is none."""
        saved = (each[0] for each in self._submitted.values() if each is not None)
        return min(chain(self._lowest, saved), default=None)


@dataclass(slots=True)
class _OfPartition:
    restored: int
    ranges: dict[str, ParkedRange] = field(default_factory=dict)
    incarnation: int = 0
    last_offset: int = -1  # the highest that is known of a committed record
    marks: OpenFacts | None = None


class Parking:
    """Who holds how much, and what is parked."""

    def __init__(self, memory: Memory | None) -> None:
        """None: no limit."""
        self._memory = memory
        self._held: dict[str, int] = {}
        self._partitions: dict[Assignment, _OfPartition] = {}
        self._restored = 0
        self.held = 0
        """Bytes that all connections hold together."""
        self.count = 0
        """Parked actions."""
        self.marks = 0
        """Those of them that supersede others."""

    # -- what is held -------------------------------------------------------------------------------------------

    def hold(self, connection: str, change: int) -> None:
        """Note that a connection holds so many bytes more, or less."""
        self.held += change
        self._held[connection] = self._held.get(connection, 0) + change

    def has_room(self, connection: str, cost: int) -> bool:
        """Whether a connection may hold so much more. One action it may always hold."""
        held = self._held.get(connection, 0)
        return self._memory is None or not held or held + cost <= self._memory.share(self.held)

    def is_full(self, was_full: bool) -> bool:
        """Whether parking cannot go on (rule 3). It can again once there is room for a tenth."""
        if self._memory is None:
            return False
        most = self._memory.bytes / 2 / PARKED_BYTES if self._memory.parked is None else self._memory.parked
        return self.count + self.marks >= (0.9 if was_full else 1.0) * most

    @property
    def room_for_restore(self) -> int | None:
        """How many bytes a restore may hold: half of what is free, so that new events find room. None: no limit."""
        if self._memory is None or self._memory.connections <= 1:
            return None if self._memory is None else max(BYTES_OF_PENDING, self._memory.bytes - self.held)
        return max(BYTES_OF_PENDING, (self._memory.bytes - self.held) // 2)

    # -- what is parked -----------------------------------------------------------------------------------------

    def begin(self, assignment: Assignment, parked: Mapping[str, ParkedRecords]) -> None:
        """Add a restored partition."""
        self._restored += 1
        of = self._partitions[assignment] = _OfPartition(self._restored)
        for connection, records in parked.items():
            parked_range = of.ranges[connection] = ParkedRange(records.oldest)
            parked_range.append(records.offsets)
            parked_range.bytes = records.bytes
            of.last_offset = max(of.last_offset, *records.offsets)
            self.count += parked_range.count
            if records.marks:
                of.marks = OpenFacts() if of.marks is None else of.marks
                of.marks.extend(records.marks)
                self.marks += len(records.marks) // DIGEST_BYTES

    def end(self, assignment: Assignment) -> None:
        """Forget a partition."""
        of = self._partitions.pop(assignment, None)
        if of is not None:
            self.count -= sum(each.all for each in of.ranges.values())
            self._forget_marks(of)

    def knows(self, assignment: Assignment, connection: str, place: int) -> bool:
        """Whether this place was parked already."""
        parked = self._range(assignment, connection)
        return parked is not None and place <= parked.last_place

    def must_park(self, assignment: Assignment, connection: str, cost: int) -> bool:
        """Whether a new action is parked (rules 1 and 2)."""
        return self._range(assignment, connection) is not None or not self.has_room(connection, cost)

    def park(self, assignment: Assignment, connection: str, place: int, now: float, mark: bytes | None = None) -> None:
        """Note that an action's record is submitted, and it is not held. `mark`: of one that supersedes others."""
        of = self._partitions[assignment]
        if mark is not None:
            of.marks = OpenFacts() if of.marks is None else of.marks
            of.marks.add(mark)
            self.marks += 1
        ranges = of.ranges
        parked = ranges.get(connection)
        if parked is None:
            parked = ranges[connection] = ParkedRange(now)
        parked.submit(place)
        self.count += 1

    def is_marked(self, assignment: Assignment, mark: bytes) -> bool:
        """Whether an action with this mark is parked."""
        of = self._partitions.get(assignment)
        return of is not None and of.marks is not None and mark in of.marks

    def unmark(self, assignment: Assignment, mark: bytes) -> None:
        """Note that an action with this mark is parked no more."""
        of = self._partitions.get(assignment)
        if of is not None and of.marks is not None and mark in of.marks:
            of.marks.discard(mark)
            self.marks -= 1

    def forget_marks(self, assignment: Assignment) -> None:
        """Note that parked actions will never be read back: nobody knows which of them had marks."""
        of = self._partitions.get(assignment)
        if of is not None:
            self._forget_marks(of)

    def _forget_marks(self, of: _OfPartition) -> None:
        if of.marks is not None:
            self.marks -= len(of.marks)
            of.marks = None

    def saved(self, assignment: Assignment, connection: str, place: int, offset: int, size: int) -> None:
        """Note where the record of an action that is parked lies, and how many bytes it has."""
        parked = self._range(assignment, connection)
        if parked is not None:
            parked.save(place, offset, size)
            of = self._partitions[assignment]
            of.last_offset = max(of.last_offset, offset)

    def refused(self, assignment: Assignment, connection: str, place: int) -> bool:
        """Note that an action's record was not written: it became a dead letter. Tells whether it was parked."""
        parked = self._range(assignment, connection)
        if parked is None or not parked.refuse(place):
            return False
        self.count -= 1
        self._forget_empty(assignment, connection)
        return True

    def recreated(self, assignment: Assignment, incarnation: int) -> int:
        """Forget what lay in a delay topic that was deleted. Returns how many actions are gone with it."""
        of = self._partitions.get(assignment)
        if of is None:
            return 0
        of.incarnation = incarnation
        of.last_offset = -1
        gone = 0
        for connection, parked in list(of.ranges.items()):
            gone += parked.forget_offsets()
            self._forget_empty(assignment, connection)
        self.count -= gone
        return gone

    def to_read(self, now: float, deadline_s: float, wanted: Callable[[Assignment, str], bool | None]) -> ToRead | None:
        """Return what can be read back: of the partition whose oldest has waited longest.

        `wanted` tells of a connection of a partition whether it is to be read: True as far as there is room, None
        without regard to room.
        """
        for assignment, of in sorted(
            self._partitions.items(), key=lambda each: min((r.oldest for r in each[1].ranges.values()), default=now)
        ):
            offsets: dict[str, list[int]] = {}
            left, bytes_left = MAX_READ, MAX_READ_BYTES
            for connection, parked in of.ranges.items():
                is_wanted = wanted(assignment, connection)
                if not parked.count or is_wanted is False or not left:
                    continue
                most = left if is_wanted is None else self._room_for(connection, parked, now - deadline_s)
                most = min(most, left, max(bytes_left // parked.mean_bytes, 0 if offsets else 1))
                if most:
                    offsets[connection] = parked.first(most)
                    left -= most
                    bytes_left = max(0, bytes_left - most * parked.mean_bytes)
            if offsets:
                return ToRead(assignment, offsets, of.restored, of.incarnation)
        return None

    def _room_for(self, connection: str, parked: ParkedRange, overdue_before: float) -> int:
        """Return how many of a connection's parked actions are to be read back: none for a few."""
        if self._memory is None:
            return MAX_READ
        held = self._held.get(connection, 0)
        share = self._memory.share(self.held)
        each = max(BYTES_OF_PENDING, parked.mean_bytes)
        room = (share - held) // each
        if not held or room >= min(MAX_READ, parked.count) or held * 2 <= share:
            return max(room, 0 if held else 1)
        if parked.oldest < overdue_before:
            return max(0, room + OVERDUE_AT_ONCE)
        return 0

    def is_current(self, read: ToRead) -> bool:
        """Whether what was read is still parked there."""
        of = self._partitions.get(read.assignment)
        return of is not None and (of.restored, of.incarnation) == (read.restored, read.incarnation)

    def read(self, read: ToRead, size: Mapping[str, int], first_seen: Mapping[str, float]) -> None:
        """Take out what was read back: `size` of the records, and when the last event of each connection was seen."""
        for connection, offsets in read.offsets.items():
            parked = self._partitions[read.assignment].ranges[connection]
            parked.drop(len(offsets))
            self.count -= len(offsets)
            parked.bytes = max(0, parked.bytes - size.get(connection, 0))
            parked.oldest = max(parked.oldest, first_seen.get(connection, parked.oldest))
            self._forget_empty(read.assignment, connection)

    def lowest(self, assignment: Assignment) -> tuple[int | None, int]:
        """Return what the low-water mark must know: the lowest offset of a parked record, None where there is none.

        And up to which offset that is known.
        """
        of = self._partitions[assignment]
        lowest = [each for parked in of.ranges.values() if (each := parked.lowest) is not None]
        return min(lowest, default=None), of.last_offset

    # -- figures ------------------------------------------------------------------------------------------------

    def count_of(self, assignment: Assignment) -> int:
        """Return how many actions of a partition are parked."""
        of = self._partitions.get(assignment)
        return 0 if of is None else sum(each.all for each in of.ranges.values())

    def by_connection(self) -> dict[str, tuple[int, int]]:
        """Return parked actions and their records' bytes, by connection."""
        found: dict[str, tuple[int, int]] = {}
        for of in self._partitions.values():
            for connection, parked in of.ranges.items():
                count, size = found.get(connection, (0, 0))
                found[connection] = (count + parked.all, size + parked.bytes)
        return found

    def oldest(self) -> list[tuple[float, int]]:
        """Return of each range since when its oldest has been pending, and how many it has."""
        return [(parked.oldest, parked.all) for of in self._partitions.values() for parked in of.ranges.values()]

    # -- inside -------------------------------------------------------------------------------------------------

    def _range(self, assignment: Assignment, connection: str) -> ParkedRange | None:
        of = self._partitions.get(assignment)
        return None if of is None else of.ranges.get(connection)

    def _forget_empty(self, assignment: Assignment, connection: str) -> None:
        ranges = self._partitions[assignment].ranges
        if ranges[connection].is_empty:
            del ranges[connection]
