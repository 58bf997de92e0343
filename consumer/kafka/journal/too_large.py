"""Records that the broker refuses as too large: a dead letter is written in their place.

The action's other writes may still be in the queue, in this transaction or in a later one. They would dead-letter it
again, or bring it back, so of those only the position counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from consumer.kafka.facts import RecordTooLarge, Report, TransactionAborted
from consumer.kafka.journal.commits import RETRY_S
from consumer.kafka.journal.kept_dead_letters import KeptDeadLetters
from consumer.kafka.journal.partitions import Partitions
from consumer.kafka.journal.writes import Barrier, DeadLetter, Keyed, Position, Put, PutAnswer, Tombstone, Write
from consumer.kafka.refused import smaller

ReplaceTooLarge = Callable[[Put | DeadLetter], DeadLetter]
"""Returns what is written in place of a record that the broker refuses, or the same record if it cannot shrink."""


class TooLarge:
    """Puts something smaller in the place of what is too large. Which actions that was, the partitions' states know."""

    def __init__(
        self,
        partitions: Partitions,
        kept: KeptDeadLetters,
        *,
        replace_too_large: ReplaceTooLarge,
        pause: Callable[[float], None],
        report: Report,
    ) -> None:
        """`pause` waits between two attempts."""
        self._partitions = partitions
        self._kept = kept
        self._replace_too_large = replace_too_large
        self._pause = pause
        self._report = report

    def with_smaller(self, writes: list[Write], write: Put | DeadLetter) -> list[Write]:
        """Return the writes with what is written in place of a record that the broker refuses as too large."""
        keeps = isinstance(write, Put) and write.keeps is not None
        replacement = smaller(write) if isinstance(write, Put) and keeps else self._replace_too_large(write)
        if replacement is None:
            self._report(TransactionAborted("the delay topic refuses even a dead letter without its value"))
            self._pause(RETRY_S[-1])
            return writes
        if replacement is write and isinstance(write, DeadLetter):
            return self._kept.kept(writes, [write], "its topic refuses even a dead letter without its value")
        if isinstance(write, Put) and isinstance(replacement, DeadLetter):
            return self._dead_lettered(writes, write, replacement)
        return [replacement if each is write else each for each in writes]

    def without_action(self, writes: Sequence[Write], refused: Put) -> list[Write]:
        """Return the writes without those of an action that is dead-lettered, of which only the positions count."""
        left = (self.without_refused(write) if _is_of(write, refused) else write for write in writes)
        return [write for write in left if write is not None]

    def without_refused(self, write: Write) -> Write | None:
        """Return the write without an action that was dead-lettered because its record is too large.

        Its earlier writes may still be in the queue. They would dead-letter it again, so only their position counts.
        """
        partition = self._partitions.states.get(write.assignment)
        if partition is None or isinstance(write, Position | Barrier | PutAnswer):
            return write
        if isinstance(write, Put) and write.requested:
            partition.too_large.discard(write.key)  # it begins again
        if write.key not in partition.too_large:
            return write
        if (isinstance(write, Put) and write.keeps) or (isinstance(write, DeadLetter) and write.is_kept):
            return write
        if isinstance(write, Tombstone) or write.next_offset is None:
            return None
        return Position(write.assignment, write.next_offset)

    def _dead_lettered(self, writes: Sequence[Write], refused: Put, dead_letter: DeadLetter) -> list[Write]:
        """Return the writes with the dead letter in place of the first of the refused action's.

        There, no position moves past it, wherever the transaction is cut. Of the action's others only positions count.
        """
        first = next(write for write in writes if _is_of(write, refused))
        position, with_next = (first.next_offset, first.with_next) if isinstance(first, Put) else (None, False)
        requested = isinstance(first, Put) and first.requested
        dead_letter = replace(dead_letter, next_offset=position, with_next=with_next, requested=requested)
        self._partitions.states[refused.assignment].too_large.add(refused.key)
        self._report(RecordTooLarge(refused, dead_letter))
        at = writes.index(first)
        return [*writes[:at], dead_letter, *self.without_action(writes[at + 1 :], refused)]


def _is_of(write: Write, refused: Put) -> bool:
    """Whether it is a write of the refused action."""
    return isinstance(write, Keyed) and (write.assignment, write.key) == (refused.assignment, refused.key)
