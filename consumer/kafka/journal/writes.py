"""What is submitted to the journal: one frozen type for each thing that it makes safe.

Writes of one partition are written in the order in which they were submitted. Each write comes back, as the same
object, in the fact `Committed` or `Dropped` (facts.py). There are two exceptions. After the broker refused an action's
record as too large, the action's other writes in the queue are left out, and only their position is written. A dead
letter that its topic refuses comes back as another one, in the fact `DeadLetterRefused`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from consumer.core.effects import ActionId
from consumer.core.ownership import Assignment
from consumer.core.requests import DeadLetterId
from consumer.kafka.outcomes.outcomes import Ended
from consumer.kafka.records.dead_letters import DeadLetterRecord
from schemas.dead_letter import Reason


@dataclass(frozen=True, slots=True)
class Intent:
    """Says which of the action's intents a record is. `doubt`: an earlier send may have been processed.

    `before_document`: it is the record of a document or a change that is sent next, which is no intent.
    """

    action_id: ActionId
    sends: int
    doubt: bool = False
    before_document: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """Write an action's record to the delay topic, in place of the one of the same key.

    `next_offset` moves the partition's position with it. `intent`: the record is that intent. `keeps`: the record is
    this dead letter, which its topic refused (refused.py). `with_next`: the write that follows goes into the same
    transaction, for an event of several actions. `parked_for`: the connection for which its action is parked
    (core/parking.py). `requested`: a person asked for the action, which begins with this record.
    """

    assignment: Assignment
    key: bytes
    value: bytes
    next_offset: int | None = None
    intent: Intent | None = None
    keeps: DeadLetter | None = None
    with_next: bool = False
    outcome: Ended | None = None
    parked_for: str | None = None
    requested: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Tombstone:
    """Remove an action's record from the delay topic.

    `outcome`: of the action that ends with it. It is written in the same transaction.
    """

    assignment: Assignment
    key: bytes
    outcome: Ended | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DeadLetter:
    """Write a dead letter, and remove the record of `key` in the same transaction.

    `offset`: of the event in the source, None where nobody knows it. `next_offset`, `with_next`: see Put. `is_kept`:
    its topic refused it before, and the delay topic keeps it under `key`. `outcome`: see Tombstone. `requested`: it
    stands for a record that a person asked for, which is too large.
    """

    assignment: Assignment
    record: DeadLetterRecord
    reason: Reason
    offset: int | None
    key: bytes | None = None
    next_offset: int | None = None
    with_next: bool = False
    outcome: Ended | None = None
    is_kept: bool = False
    requested: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """Move a partition's position: everything before it is dealt with.

    `outcomes`: of the actions of the event right before it that end without having been pending.
    """

    assignment: Assignment
    next_offset: int
    outcomes: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Barrier:
    """Writes nothing. It comes back when everything that was submitted before it is safe."""

    assignment: Assignment


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PutAnswer:
    """Answer a person's request: replace its record in the control topic.

    `redriven`: the dead letter that counts as redriven from then on. `with_next`: what carries the request out
    follows, and goes into the same transaction.
    """

    assignment: Assignment
    request_id: str
    key: bytes
    value: bytes
    redriven: DeadLetterId | None = None
    with_next: bool = False


Keyed = Put | Tombstone | DeadLetter
Write = Put | Tombstone | DeadLetter | Position | Barrier | PutAnswer


@dataclass(frozen=True, slots=True, eq=False)
class Begin:
    """Accept this partition's writes from here on. Its delay partition ends at `end` and holds `live`.

    `live`: key and offset of each that is not parked. No parked one lies before `parked_from` (None: there is none).
    The source continues at `next_offset`. `outcomes_topic_id`: what its positions say of the outcomes topic.
    """

    assignment: Assignment
    live: Iterable[tuple[Hashable, int]]
    end: int
    next_offset: int
    parked_from: int | None = None
    outcomes_topic_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Unparked:
    """These records were read back: from here on they are live as all others are.

    Of the parked ones up to the offset `known`, none lies before `parked_from` now (None: there is none).
    `incarnation`: of the delay topic whose offsets these are.
    """

    assignment: Assignment
    live: Sequence[tuple[Hashable, int]]
    parked_from: int | None
    known: int
    incarnation: int = 0


Item = Write | Begin | Unparked


def size_of(write: Item) -> int:
    """Return how many bytes it is, as far as that matters for a transaction's size."""
    match write:
        case Put(value=value):
            return len(value)
        case DeadLetter(record=record):
            return len(record.value or b"")
        case PutAnswer(value=value):
            return len(value)
        case _:
            return 0


def goes_on(items: Sequence[Item]) -> bool:
    """Tell whether the write after these belongs to their transaction."""
    return bool(items) and isinstance(last := items[-1], Put | DeadLetter | PutAnswer) and last.with_next
