"""What the Kafka edges report: facts as data.

The source, the journal and the control topic's reader run on threads of their own. They know nothing of
who reads their facts. Each is given a `Report`, gives it one frozen fact after the other, and continues.
Only a hand-over waits for an answer: for `Revoked.settled`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from consumer.core.ownership import Assignment
from consumer.core.pauses import Pauses
from consumer.core.requests import Request
from consumer.errors import OffsetOutOfRangeError
from consumer.kafka.journal.writes import DeadLetter, Put, PutAnswer, Write
from consumer.kafka.records.source_events import SourceEvent

# -- of the source ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours now. Restore each, then begin it."""

    assignments: Sequence[Assignment]


@dataclass(frozen=True, slots=True)
class Revoked:
    """These partitions are to be given away. Start nothing more, finish what is in flight, then set `settled`."""

    assignments: Sequence[Assignment]
    settled: threading.Event


@dataclass(frozen=True, slots=True)
class Lost:
    """These partitions belong to another instance already."""

    assignments: Sequence[Assignment]


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a partition: its events, in the order of their offsets, and where it continues.

    `next_offset` may lie beyond the last event: a transaction's marker, aborted records and gaps are no events.
    """

    assignment: Assignment
    events: Sequence[SourceEvent]
    next_offset: int


@dataclass(frozen=True, slots=True)
class Consumed:
    """What was read in one go. The source waits for `batch_done` after each batch."""

    batch: Sequence[Read]


@dataclass(frozen=True, slots=True)
class PartitionsCounted:
    """How many partitions each source topic has."""

    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of librdkafka's own (its STATISTICS.md), some seconds apart."""

    figures: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ClientError:
    """An error that the client recovers from by itself, or that the operator must fix."""

    why: str


@dataclass(frozen=True, slots=True)
class Overrun:
    """The source does not hold the next offset of a partition that is consumed. Nothing more of it comes."""

    assignment: Assignment
    error: OffsetOutOfRangeError


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: whoever reports this does not continue."""

    error: BaseException


# -- of the journal ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadLetterAt:
    """Where a dead letter lies. `offset` is None where the broker's answer was lost."""

    topic: str
    offset: int | None


@dataclass(frozen=True, slots=True)
class Committed:
    """These writes are safe now; it took `seconds`.

    `ownership_confirmed_at`: after that moment the broker took their offsets from a member of the group.
    `dead_letters`: where each of them lies. `parked`: where each record of a parked action lies, None where nobody
    knows. `recreated`: partitions whose delay topic was recreated before, and how often it was.
    """

    writes: Sequence[Write]
    ownership_confirmed_at: float
    seconds: float
    dead_letters: Mapping[DeadLetter, DeadLetterAt] = field(default_factory=dict)
    parked: Mapping[Put, int | None] = field(default_factory=dict)
    recreated: Mapping[Assignment, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """These writes were dropped: their partition is no longer owned."""

    writes: Sequence[Write]


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The broker refuses this partition's records or offsets, and takes those of another topic. Restore it again."""

    assignment: Assignment
    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker refuses records or offsets of these again and again. No other one waits, so they are tried on."""

    assignments: Sequence[Assignment]
    why: str


@dataclass(frozen=True, slots=True)
class Pinned:
    """The old live records of these keys hold the low-water mark back. Write them again."""

    assignment: Assignment
    keys: Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class DelayTopicRecreated:
    """The partition's delay topic was deleted and recreated. Write again all that is pending."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class RecordTooLarge:
    """The broker refuses this record's size; `replacement` (a dead letter) is written in its place."""

    write: Put
    replacement: DeadLetter


@dataclass(frozen=True, slots=True)
class DeadLetterRefused:
    """Its topic refuses this dead letter, which the delay topic keeps. Submit it again later."""

    write: DeadLetter
    why: str


@dataclass(frozen=True, slots=True)
class AnswersRefused:
    """The control topic does not take these answers, or the dead-letter topic their marks.

    What they would have been written with is not written, save where it ends an action.
    """

    answers: Sequence[PutAnswer]
    why: str


@dataclass(frozen=True, slots=True)
class OutcomesRefused:
    """The outcomes topic does not take outcomes of actions that were never pending. They are not written."""

    why: str


@dataclass(frozen=True, slots=True)
class TransactionAborted:
    """A transaction was aborted. It is tried again."""

    why: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """Another producer has our transactional.id. Give up every partition and rejoin."""

    why: str


# -- of the control topic's reader ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ControlRead:
    """All that the control topic says now. `unreadable`: how many of its records this version cannot read.

    `requests`: those that are open, by id. `asked`: which question (Control.ask) had been asked when the topic ended
    where it was read to now.
    """

    pauses: Pauses
    unreadable: int = 0
    requests: Mapping[str, Request] = field(default_factory=dict)
    asked: int = 0


@dataclass(frozen=True, slots=True)
class ControlNotRead:
    """The control topic cannot be read now. What was read before holds on."""

    why: str


SourceFact = Assigned | Revoked | Lost | Consumed | PartitionsCounted | Statistics | ClientError | Overrun | Failed
JournalFact = (
    Committed
    | Dropped
    | GivenUp
    | Refused
    | Pinned
    | DelayTopicRecreated
    | RecordTooLarge
    | DeadLetterRefused
    | AnswersRefused
    | OutcomesRefused
    | TransactionAborted
    | Fenced
)
ControlFact = ControlRead | ControlNotRead
Fact = SourceFact | JournalFact | ControlFact
Report = Callable[[Fact], None]
"""Takes a fact from any thread and returns at once."""
