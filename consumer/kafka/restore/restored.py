"""What a restore found of a partition: its state in Kafka, or why nobody can serve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consumer.core.effects import LiveAction
from consumer.core.ownership import Assignment
from consumer.core.parking import ParkedRecords
from consumer.core.places import incarnation_at, place_of
from consumer.errors import IdentityError, OffsetOutOfRangeError
from consumer.kafka import refused
from consumer.kafka.journal.writes import DeadLetter
from consumer.kafka.records.pending import live_action
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.restore.delay_partitions import Reading
from schemas.pending_action import SourceIdentity


@dataclass(frozen=True, slots=True)
class Unservable:
    """The source does not hold this partition's next offset: a person must decide. The others can be served."""

    assignment: Assignment
    error: OffsetOutOfRangeError


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A live record that this version cannot read."""

    key: bytes
    value: bytes
    why: Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A partition was restored: this is its state in Kafka.

    The source continues at `next_offset`. `live`: key and offset of each live record of the delay partition that is not
    `parked`; it ends at `end`. What they hold is in `actions`, `refused` (dead letters) and `unreadable`, except for
    what is to be removed: `again` (the source will bring their events again) and `duplicates` (second records of an
    event). `position_known`: the delay partition says where the source continues, too. `seconds`: how long it was read.
    `outcomes_topic_id`: None where nobody knows. `outcomes_lost`: why that topic does not say what was sent (rule 7).
    """

    assignment: Assignment
    next_offset: int
    live: list[tuple[bytes, int]]
    end: int
    actions: list[LiveAction]
    refused: list[DeadLetter]
    unreadable: list[UnreadableRecord]
    parked: Mapping[str, ParkedRecords] = field(default_factory=dict)
    again: Sequence[bytes] = ()
    duplicates: Sequence[bytes] = ()
    position_known: bool
    records_read: int
    seconds: float
    outcomes_topic_id: str | None = None
    outcomes_lost: str | None = None


def restored_of(
    assignment: Assignment,
    identity: SourceIdentity,
    reading: Reading,
    *,
    next_offset: int,
    source_end: int,
    seconds: float,
) -> Restored:
    """Read the live records. Raises IdentityError where one is another relay's (rule 6).

    This empties `reading.live`: two copies of 100,000 records would be 100 MB more.
    """
    next_place, end_place = place_of(identity.incarnation, next_offset), place_of(identity.incarnation, source_end)
    kept = reading.live.finish(next_place, end_place)
    live = [*kept.again, *kept.duplicates]
    actions: list[LiveAction] = []
    dead_letters: list[DeadLetter] = []
    unreadable: list[UnreadableRecord] = []
    sources = {(topic, assignment.partition) for topic in (identity.topic, *identity.former_topics)}
    held = kept.held + kept.unreadable
    kept.held.clear()
    while held:
        key, value, offset = held.pop()
        live.append((key, offset))
        if (dead_letter := refused.read(assignment, key, value)) is not None:
            dead_letters.append(dead_letter)
            continue
        read = live_action(key, value)
        if isinstance(read, Unreadable):
            unreadable.append(UnreadableRecord(key, value, read))
            continue
        is_current = incarnation_at(read.offset) == identity.incarnation
        if incarnation_at(read.offset) > identity.incarnation or (is_current and read.source not in sources):
            topic, partition = read.source or ("", -1)
            raise IdentityError(
                f"the delay partition of {assignment.topic}[{assignment.partition}] holds a pending action of "
                f"{topic}[{partition}], incarnation {incarnation_at(read.offset)}: it is another relay's",
                assignment.topic,
            )
        actions.append(read)
    return Restored(
        assignment=assignment,
        next_offset=next_offset,
        live=live,
        end=reading.end,
        actions=actions,
        refused=dead_letters,
        unreadable=unreadable,
        parked=kept.parked,
        again=[key for key, _ in kept.again],
        duplicates=[key for key, _ in kept.duplicates],
        position_known=reading.position is not None,
        records_read=reading.count,
        seconds=seconds,
    )
