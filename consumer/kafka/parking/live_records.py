"""The live records of delay partitions while they are restored, in bounded memory.

Of each live record its key and its place in the delay topic are kept. Its value is kept as long as there is room. When
there is none, the connection with the most gives its latest values up: their actions are parked (core/parking.py), and
only their facts (core/repeats.py) are kept.

Rules:
 1. The latest record per key wins.
 2. Of a connection, what is held is earlier than what is parked. So a value goes that is later than one that went.
 3. An intent is never given up here. The source may bring its event again, and then it must be known.
"""

from __future__ import annotations

import heapq
import math
import re
from array import array
from dataclasses import dataclass, field

from consumer.core.open_facts import FACT_BYTES
from consumer.core.parking import ENTRY_BYTES, ParkedRecords
from consumer.kafka.records import Unreadable, live_action, place_of_key

# What this version writes begins so (records.pending_value). Another record is read as a whole.
_HEAD = re.compile(
    rb'\{"version":2,"state":"(pending|sending)","first_seen_ms":(\d+),[^{}\\]*"payload":'
    rb'\{"route":"[^"\\]*","connection":"([^"\\]*)",'
)
_SOURCE, _FACT = b',"source":{"topic":', b'"fact"'
_FACT_BEFORE = re.compile(rb',"fact":"([0-9a-f]{24})"(?:,"shadow":true)?\Z')
_OFFSETS, _SIZES, _NUMBERS = 63, 24, 20  # bits
_NUMBER = (1 << _NUMBERS) - 1
_BELOW_FACT = 1 + _NUMBERS + _SIZES + _OFFSETS


class Room:
    """What may be kept of all partitions together: `limit` bytes, None for no limit."""

    def __init__(self, limit: int | None) -> None:
        """Keep nothing yet."""
        self._left = math.inf if limit is None else limit
        self._largest: list[tuple[int, int, _Connection]] = []  # a heap: the bytes that each had when it grew last
        self._count = 0

    def taken(self, connection: _Connection, size: int) -> None:
        """Note that a connection's values have so many bytes more."""
        self._left -= size
        if size > 0 and connection.kept_bytes >= 2 * connection.ranked:
            self._rank(connection)
        while self._left < 0 and self._largest:
            ranked, _, largest = heapq.heappop(self._largest)
            if (-ranked != largest.kept_bytes and largest.kept_bytes) or largest.give_up_latest() is not None:
                self._rank(largest)
            else:
                largest.ranked = 0

    def _rank(self, connection: _Connection) -> None:
        self._count += 1
        connection.ranked = connection.kept_bytes
        heapq.heappush(self._largest, (-connection.kept_bytes, self._count, connection))


@dataclass(slots=True, eq=False)
class _Connection:
    """What is kept of one connection's records in one partition."""

    number: int
    records: LiveRecords
    latest: list[tuple[int, bytes]] = field(default_factory=list)  # a heap of what may be given up
    kept_bytes: int = 0
    ranked: int = 0
    parked_from: float = math.inf  # the place of the earliest value that was given up
    oldest: float = math.inf

    def give_up_latest(self) -> int | None:
        """Give up the value of its latest event that has one. Returns its bytes; None where none may go."""
        while self.latest:
            place, key = heapq.heappop(self.latest)
            size = self.records.give_up_value(key, self)
            if size is not None:
                self.parked_from = min(self.parked_from, -place)
                return size
        return None


@dataclass(slots=True)
class Kept:
    """What is left of a partition's live records. `held` and `unreadable`: key, value and offset of each.

    `again`: key and offset of those whose events the source will bring again. `duplicates`: of second records of one
    event, which end.
    """

    held: list[tuple[bytes, bytes, int]]
    unreadable: list[tuple[bytes, bytes, int]]
    again: list[tuple[bytes, int]]
    duplicates: list[tuple[bytes, int]]
    parked: dict[str, ParkedRecords]


class LiveRecords:
    """The live records of one delay partition."""

    def __init__(self, room: Room) -> None:
        """Keep values as far as there is room."""
        self._room = room
        # Key -> fact, offset, size, connection and whether it is an intent, in one number: a tuple would take twice as
        # much. The fact is there once the value is not: 0 for none, else one more than its bytes as a number.
        self._records: dict[bytes, int] = {}
        self._values: dict[bytes, bytes] = {}
        self._connections: dict[bytes, _Connection] = {}
        self._names: list[bytes] = []
        self._unreadable: dict[bytes, tuple[bytes, int]] = {}

    def put(self, key: bytes, value: bytes, offset: int) -> None:
        """Take a record: it is the latest of its key (rule 1)."""
        self.remove(key)
        place = place_of_key(key)
        read = None if place is None else _read(key, value)
        if place is None or read is None:
            self._unreadable[key] = (value, offset)
            return
        name, is_intent, first_seen = read
        connection = self._connections.get(name)
        if connection is None:
            connection = self._connections[name] = _Connection(len(self._names), self)
            self._names.append(name)
        size = min(len(value), (1 << _SIZES) - 1)
        self._records[key] = ((offset << _SIZES | size) << _NUMBERS | connection.number) << 1 | is_intent
        connection.oldest = min(connection.oldest, first_seen)
        if is_intent or place < connection.parked_from:
            self._values[key] = value
            connection.kept_bytes += ENTRY_BYTES + size
            if not is_intent:
                heapq.heappush(connection.latest, (-place, key))
            self._room.taken(connection, ENTRY_BYTES + size)
        else:
            self._records[key] |= _fact_of(key, value)

    def remove(self, key: bytes) -> None:
        """Take a tombstone."""
        record = self._records.get(key)
        if record is not None:
            connection = self._connections[self._names[record >> 1 & _NUMBER]]
            self.forget_value(key, connection)
            del self._records[key]
        self._unreadable.pop(key, None)

    def give_up_value(self, key: bytes, connection: _Connection) -> int | None:
        """Keep only the fact of a record's value. Returns its bytes; None where it was not kept."""
        value = self._values.get(key)
        if value is not None:
            self._records[key] |= _fact_of(key, value)
        return self.forget_value(key, connection)

    def forget_value(self, key: bytes, connection: _Connection) -> int | None:
        """Keep a record's value no longer. Returns its bytes; None where it was not kept."""
        value = self._values.pop(key, None)
        if value is None:
            return None
        size = ENTRY_BYTES + min(len(value), (1 << _SIZES) - 1)
        connection.kept_bytes -= size
        self._room.taken(connection, -size)
        return size

    def finish(self, next_place: int, end_place: int) -> Kept:
        """Return what is held and what is parked, and keep nothing any more.

        The source will bring the events from `next_place` to before `end_place`. Their intents are held.
        """
        again: list[tuple[bytes, int]] = []
        places: list[list[tuple[int, bool, bytes]]] = [[] for _ in self._names]
        parked_from = [self._connections[name].parked_from for name in self._names]
        for key, record in self._records.items():
            place = place_of_key(key)
            assert place is not None  # noqa: S101 - `put` takes no other
            is_intent = bool(record & 1)
            number = record >> 1 & _NUMBER
            if next_place <= place < end_place and not is_intent:
                again.append((key, _offset(record)))
            elif place < parked_from[number] or next_place <= place < end_place:
                continue
            else:
                places[number].append((place, not is_intent, key))
        for key, _ in again:
            self._values.pop(key, None)
        kept = Kept([], [(key, value, at) for key, (value, at) in self._unreadable.items()], again, [], {})
        for name, those in zip(self._names, places, strict=True):
            if those:
                kept.parked[name.decode()] = self._parked(those, self._connections[name].oldest, kept)
        while self._values:
            key, value = self._values.popitem()
            kept.held.append((key, value, _offset(self._records[key])))
        self._records.clear()
        self._unreadable.clear()
        self._connections.clear()
        return kept

    def _parked(self, records: list[tuple[int, bool, bytes]], oldest: float, kept: Kept) -> ParkedRecords:
        records.sort()
        offsets, size, facts, last = array("q"), 0, bytearray(), -1
        for place, _, key in records:
            record = self._records[key]
            value = self._values.pop(key, None)
            if place == last:
                kept.duplicates.append((key, _offset(record)))
                continue
            last = place
            size += record >> 1 + _NUMBERS & (1 << _SIZES) - 1
            offsets.append(_offset(record))
            fact = (record if value is None else _fact_of(key, value)) >> _BELOW_FACT
            if fact:
                facts += (fact - 1).to_bytes(FACT_BYTES)
        return ParkedRecords(offsets=offsets, bytes=size, oldest=oldest, facts=facts)


def _offset(record: int) -> int:
    return record >> 1 + _NUMBERS + _SIZES & (1 << _OFFSETS) - 1


def _fact_of(key: bytes, value: bytes) -> int:
    """Return a record's fact as the highest bits of what is kept of it; 0 where it has none.

    What the relay writes has it last before the source, which comes last. A quote inside a JSON string is always
    escaped, so an event that imitates that is not taken for it. Another record is read as a whole.
    """
    if _FACT not in value:
        return 0
    source = value.rfind(_SOURCE)
    before = _FACT_BEFORE.search(value, max(0, source - 64), source) if source >= 0 and _HEAD.match(value) else None
    if before is not None:
        fact: bytes | None = bytes.fromhex(before[1].decode())
    else:
        read = live_action(key, value)
        fact = None if isinstance(read, Unreadable) else read.action.fact
    return 0 if fact is None else int.from_bytes(fact[:FACT_BYTES].ljust(FACT_BYTES, b"\0")) + 1 << _BELOW_FACT


def _read(key: bytes, value: bytes) -> tuple[bytes, bool, float] | None:
    """Return its connection, whether it is an intent, and when its event was seen. None: it cannot be read."""
    head = _HEAD.match(value)
    if head is not None:
        return head[3], head[1] == b"sending", int(head[2]) / 1000
    read = live_action(key, value)
    if isinstance(read, Unreadable):
        return None
    return read.action.connection.encode(), read.sending, read.first_seen
