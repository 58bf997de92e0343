"""What is submitted to the journal."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from consumer.core.ownership import Assignment
from consumer.kafka.records import DeadLetterRecord


@dataclass(slots=True, eq=False)
class Write:
    """One thing to make safe. What belongs to one partition is written in the order in which it was submitted.

    `key` and `value` are the delay topic's record (value None: a tombstone), `next_offset` moves the partition's
    position. `ticket` comes back when it is committed. One with nothing but a ticket is a mark in the queue: it comes
    back when all before it is safe.
    """

    assignment: Assignment
    key: bytes | None = None
    value: bytes | None = None
    dead_letter: DeadLetterRecord | None = None
    next_offset: int | None = None
    ticket: object = None


@dataclass(slots=True)
class Adoption:
    """A partition came: what its delay topic holds and where its source goes on."""

    assignment: Assignment
    live: Iterable[tuple[Hashable, int]]
    end: int
    next_offset: int
