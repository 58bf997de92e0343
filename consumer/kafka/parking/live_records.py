"""The live records of delay partitions while they are restored, in bounded memory.

Of each record a row is kept (rows.py). Its value is kept as long as there is room. When there is none, the connection
with the most gives its latest values up: their actions are parked (core/parking.py), and only their facts
(core/repeats.py) are kept, and the marks of those that supersede others (core/sequences.py).

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
from typing import NamedTuple

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.parking import ParkedRecords, cost_of
from consumer.core.sequences import NO_SEQUENCES, Sequences, mark_of_action
from consumer.kafka.parking.rows import Name, Rows
from consumer.kafka.records.pending import live_action
from consumer.kafka.records.unreadable import Unreadable

# What this version writes begins so (records.pending_value). Another record is read as a whole.
_HEAD = re.compile(
    rb'\{"version":2,"state":"(pending|sending)","first_seen_ms":(\d+),[^{}\\]*"payload":'
    rb'\{"route":"[^"\\]*","connection":"([^"\\]*)",'
)
_SOURCE, _FACT = b',"source":{"topic":', b'"fact"'
_FACT_BEFORE = re.compile(rb',"fact":"([0-9a-f]{24})"(?:,"shadow":true)?\Z')
_FACT_LENGTH = len(b',"fact":"","shadow":true') + 2 * DIGEST_BYTES


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
            size = self.records.forget_value(key)
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


class _Value(NamedTuple):
    """A value that is kept."""

    value: bytes
    offset: int
    place: int
    connection: _Connection
    is_intent: bool


class LiveRecords:
    """The live records of one delay partition."""

    def __init__(self, room: Room, sequences: Sequences = NO_SEQUENCES) -> None:
        """Keep values as far as there is room."""
        self._room = room
        self._sequences = sequences
        self._superseding = {route.encode() for route in sequences.superseding}
        self._marks: dict[bytes, bytes] = {}  # by key
        self._rows = Rows()
        self._values: dict[bytes, _Value] = {}
        self._connections: dict[bytes, _Connection] = {}
        self._unreadable: dict[bytes, tuple[bytes, int]] = {}

    def put(self, key: bytes, value: bytes, offset: int) -> None:
        """Take a record: it is the latest of its key (rule 1)."""
        name = self._rows.name(key)
        read = None if name is None else _read(key, value)
        if name is None or read is None:
            self.remove(key)
            self._unreadable[key] = (value, offset)
            return
        self.forget_value(key)
        self._unreadable.pop(key, None)
        connection_name, is_intent, first_seen, fact = read
        connection = self._connections.get(connection_name)
        if connection is None:
            connection = self._connections[connection_name] = _Connection(len(self._connections), self)
        connection.oldest = min(connection.oldest, first_seen)
        self._rows.add(name, offset, len(value), connection.number, is_intent=is_intent, fact=fact)
        self._mark(name, key, value)
        place = self._rows.place(name)
        if is_intent or place < connection.parked_from:
            size = cost_of(value)
            self._values[key] = _Value(value, offset, place, connection, is_intent)
            connection.kept_bytes += size
            if not is_intent:
                heapq.heappush(connection.latest, (-place, key))
            self._room.taken(connection, size)

    def remove(self, key: bytes) -> None:
        """Take a tombstone."""
        self.forget_value(key)
        self._unreadable.pop(key, None)
        self._marks.pop(key, None)
        name = self._rows.name(key)
        if name is not None:
            self._rows.end(name)

    def _mark(self, name: Name, key: bytes, value: bytes) -> None:
        """Note the mark of an action that supersedes others. Only then its value is read as a whole."""
        if not self._superseding or self._rows.route(name) not in self._superseding or key in self._marks:
            return
        read = live_action(key, value)
        if not isinstance(read, Unreadable) and self._sequences.supersedes(read.action):
            self._marks[key] = mark_of_action(read.action)

    def forget_value(self, key: bytes) -> int | None:
        """Keep a record's value no longer. Returns its bytes; None where it was not kept."""
        kept = self._values.pop(key, None)
        if kept is None:
            return None
        size = cost_of(kept.value)
        kept.connection.kept_bytes -= size
        self._room.taken(kept.connection, -size)
        return size

    def finish(self, next_place: int, end_place: int) -> Kept:
        """Return what is held and what is parked, and keep nothing any more.

        The source will bring the events from `next_place` to before `end_place`. Their intents are held.
        """
        kept = Kept([], [(key, value, at) for key, (value, at) in self._unreadable.items()], [], [], {})
        for key, (value, offset, place, connection, is_intent) in self._values.items():
            if is_intent if next_place <= place < end_place else place < connection.parked_from:
                kept.held.append((key, value, offset))
        self._values.clear()
        parked: list[list[int]] = [[] for _ in self._connections]
        parked_from = [each.parked_from for each in self._connections.values()]
        rows = self._rows
        for place, live in rows.live():
            if next_place <= place < end_place:
                kept.again += [(rows.key(row), rows.offsets[row]) for row in live if not rows.is_intent(row)]
                continue
            seen: set[int] = set()
            for row in live:
                number = rows.connection(row)
                if number in seen:
                    kept.duplicates.append((rows.key(row), rows.offsets[row]))
                elif place >= parked_from[number]:
                    seen.add(number)
                    parked[number].append(row)
        for (name, connection), those in zip(self._connections.items(), parked, strict=True):
            if those:
                kept.parked[name.decode()] = ParkedRecords(
                    offsets=array("q", [rows.offsets[row] for row in those]),
                    bytes=sum(rows.sizes[row] for row in those),
                    oldest=connection.oldest,
                    facts=rows.facts(those),
                    marks=bytearray(b"".join(self._marks.get(rows.key(row), b"") for row in those if self._marks)),
                )
        self._rows = Rows()
        self._marks.clear()
        self._unreadable.clear()
        self._connections.clear()
        return kept


class _Read(NamedTuple):
    """What a restore needs of a value. `first_seen`: when its event was."""

    connection: bytes
    is_intent: bool
    first_seen: float
    fact: bytes | None


def _read(key: bytes, value: bytes) -> _Read | None:
    """Return what is needed of a value; None: it cannot be read.

    What the relay writes has its fact last before the source, which comes last. A quote inside a JSON string is always
    escaped, so an event that imitates that is not taken for it. Another record is read as a whole.
    """
    head = _HEAD.match(value)
    source = value.rfind(_SOURCE)
    if head is not None and source >= 0:
        before = _FACT_BEFORE.search(value, max(0, source - _FACT_LENGTH), source)
        if before is not None or _FACT not in value:
            fact = None if before is None else bytes.fromhex(before[1].decode())
            return _Read(head[3], head[1] == b"sending", int(head[2]) / 1000, fact)
    read = live_action(key, value)
    if isinstance(read, Unreadable):
        return None
    fact = None if read.action.fact is None else read.action.fact[:DIGEST_BYTES].ljust(DIGEST_BYTES, b"\0")
    return _Read(read.action.connection.encode(), read.sending, read.first_seen, fact)
