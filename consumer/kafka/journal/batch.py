"""A batch: the writes of one partition in one transaction, and where its records came to lie."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from consumer.core.ownership import Assignment
from consumer.kafka.facts import DeadLetterAt
from consumer.kafka.journal.writes import Barrier, DeadLetter, Keyed, Position, Put, PutAnswer, Tombstone, Write
from consumer.kafka.outcomes.outcomes import Ended


@dataclass(slots=True, kw_only=True)
class Batch:
    """The writes of one partition in one transaction, and their offsets in the delay topic.

    `latest` is by key: group commit writes only the latest state of an action. `outcomes_alone`: of actions that were
    never pending. `recreated`: the delay topic was recreated since the last transaction.
    """

    assignment: Assignment
    next_offset: int
    start: int
    end: int
    recreated: bool
    latest: dict[bytes, Keyed] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outcomes: list[Ended] = field(default_factory=list)
    outcomes_alone: list[Ended] = field(default_factory=list)
    answers: list[PutAnswer] = field(default_factory=list)
    written: dict[Hashable, int | None] = field(default_factory=dict)
    dead_letters_at: dict[DeadLetter, DeadLetterAt] = field(default_factory=dict)
    unknown: set[bytes | None] = field(default_factory=set)  # keys whose record lies somewhere after `start`

    @property
    def parked(self) -> list[Put]:
        """Its records of actions that are parked."""
        return [write for write in self.latest.values() if isinstance(write, Put) and write.parked_for is not None]

    def offset_of(self, write: Put) -> int | None:
        """Return where its record lies; None where nobody knows."""
        return None if write.key in self.unknown else self.written.get(write.key)

    def add(self, write: Write) -> None:
        """Add the write that comes next."""
        match write:
            case Put(key=key, next_offset=next_offset, outcome=outcome):
                self.latest[key] = write
                self._note(outcome)
            case Tombstone(key=key, outcome=outcome):
                self.latest[key] = write
                next_offset = None
                self._note(outcome)
            case DeadLetter(key=key_, next_offset=next_offset, outcome=outcome):
                self.dead_letters.append(write)
                self._note(outcome)
                if key_ is not None:
                    self.latest[key_] = write
            case Position(next_offset=next_offset, outcomes=outcomes):
                self.outcomes_alone += outcomes
            case PutAnswer():
                self.answers.append(write)
                next_offset = None
            case Barrier():
                next_offset = None
        if next_offset is not None:
            self.next_offset = next_offset

    def _note(self, outcome: Ended | None) -> None:
        if outcome is not None:
            self.outcomes.append(outcome)
