"""What is kept of each record of a delay partition while it is restored: 40 bytes, in columns. Objects would take 200.

Rules:
 1. Rows are only added: the latest of a key wins, and a tombstone is a row, too. Which rows are live is found out at
    the end, and whenever they are twice as many as were live before.
 2. A key that is not written as ours are has no row.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.places import MAX_ITEMS, MAX_OFFSET, place_of
from consumer.kafka.records.keys import action_key

_KEY = re.compile(rb"(0|[1-9]\d{0,18}):(0|[1-9]\d{0,18})(?:\.([1-9]\d{0,3}))?:(.*)", re.DOTALL)
_NO_FACT = bytes(DIGEST_BYTES)
_LIVE, _INTENT, _HAS_FACT, _FLAGS = 1, 2, 4, 3  # the last is how many bits they take, below the connection's number
_MIN_SETTLED = 100_000  # rows: before, it is not worth it to find out which are live


class Name(NamedTuple):
    """What a key names: the offset of its event, and by a number what else it has. There are few of these."""

    event: int
    kind: int


class _Kind(NamedTuple):
    first_place: int  # of an event at offset 0
    route: bytes


class Rows:
    """The rows of one delay partition, in the order of its records."""

    def __init__(self) -> None:
        """Begin without any."""
        self._kinds: list[_Kind] = []
        self._kind_numbers: dict[tuple[bytes | None, ...], int] = {}
        self._settle_at = _MIN_SETTLED
        self._clear()

    def _clear(self) -> None:
        self._events = array("Q")
        self._kind_of = array("I")
        self._owners = array("I")  # the connection's number, and flags; 0 for a tombstone
        self._facts = bytearray()
        self.offsets = array("Q")  # in the delay partition
        self.sizes = array("I")

    def name(self, key: bytes) -> Name | None:
        """Return what a key names; None where it is not written as records.action_key writes it."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        incarnation, offset, item, route = match.groups()
        event = int(offset)
        if event >= MAX_OFFSET or (item is not None and int(item) >= MAX_ITEMS):
            return None
        number = self._kind_numbers.get((incarnation, item, route))
        if number is None:
            number = self._kind_numbers[incarnation, item, route] = len(self._kinds)
            self._kinds.append(_Kind(place_of(int(incarnation), 0, int(item or 0)), route))
        return Name(event, number)

    def place(self, name: Name) -> int:
        """Return the place of what a key names (core/places.py)."""
        return self._kinds[name.kind].first_place + name.event * MAX_ITEMS

    def route(self, name: Name) -> bytes:
        """Return the route of what a key names."""
        return self._kinds[name.kind].route

    def add(self, name: Name, offset: int, size: int, connection: int, *, is_intent: bool, fact: bytes | None) -> None:
        """Add a record: its offset in the delay partition, its bytes, its connection's number and its fact."""
        flags = _LIVE | (_INTENT if is_intent else 0) | (0 if fact is None else _HAS_FACT)
        self._append(name, offset, size, connection << _FLAGS | flags, fact or _NO_FACT)

    def end(self, name: Name) -> None:
        """Add a tombstone."""
        self._append(name, 0, 0, 0, _NO_FACT)

    def _append(self, name: Name, offset: int, size: int, owner: int, fact: bytes | bytearray) -> None:
        self._events.append(name.event)
        self._kind_of.append(name.kind)
        self._owners.append(owner)
        self._facts += fact
        self.offsets.append(offset)
        self.sizes.append(size)
        if len(self._events) >= self._settle_at:
            self._settle()

    def _settle(self) -> None:
        live = [row for _, rows in self.live() for row in rows]
        former = (self._events, self._kind_of, self.offsets, self.sizes, self._owners, self._facts)
        events, kind_of, offsets, sizes, owners, facts = former
        self._clear()
        self._settle_at = max(_MIN_SETTLED, 2 * len(live))
        for row in live:
            fact = facts[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
            self._append(Name(events[row], kind_of[row]), offsets[row], sizes[row], owners[row], fact)

    def live(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the numbers of the live rows of each place, in the order of the places: intents first, then by key."""
        first = [kind.first_place for kind in self._kinds]
        places = [first[kind] + event * MAX_ITEMS for event, kind in zip(self._events, self._kind_of, strict=True)]
        owners, kind_of = self._owners, self._kind_of
        for place, rows in groupby(sorted(range(len(places)), key=places.__getitem__), places.__getitem__):
            latest = {kind_of[row]: row for row in rows}  # the sort is stable: the last one wins
            live = [row for row in latest.values() if owners[row]]
            if len(live) > 1:
                live.sort(key=lambda row: (not self.is_intent(row), self.key(row)))
            if live:
                yield place, live

    def key(self, row: int) -> bytes:
        """Return a row's key."""
        kind = self._kind_of[row]
        return action_key(self.place(Name(self._events[row], kind)), "") + self._kinds[kind].route

    def connection(self, row: int) -> int:
        """Return the number of a row's connection."""
        return self._owners[row] >> _FLAGS

    def is_intent(self, row: int) -> bool:
        """Tell whether a row's record is an intent."""
        return bool(self._owners[row] & _INTENT)

    def facts(self, rows: Iterable[int]) -> bytearray:
        """Return the facts of those of these rows that have one, DIGEST_BYTES each, one behind the other."""
        found = bytearray()
        for row in rows:
            if self._owners[row] & _HAS_FACT:
                found += self._facts[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
        return found
