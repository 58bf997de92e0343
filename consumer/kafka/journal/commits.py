"""One transaction: what it writes before what, and whether it was committed.

For each partition that it touches, a transaction contains the records, dead letters and outcomes, the partition's
`position` record, its source offset and its low-water mark. The last two are committed as offsets of the group.

This keeps the second half of rule 1 of transactions.py, and rules 2, 3 and 6. What an abort leads to is not known here:
it is raised as meanings.py names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from confluent_kafka import Message, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, generation
from consumer.kafka.control.records import PARTITION as CONTROL_PARTITION
from consumer.kafka.facts import (
    Committed,
    DeadLetterAt,
    DeadLetterRefused,
    DelayTopicRecreated,
    Pinned,
    Report,
    TransactionAborted,
)
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.meanings import AbortedError, RefusedError, UnknownOutcomeError
from consumer.kafka.journal.partitions import Partitions
from consumer.kafka.journal.producers import Producers, Record
from consumer.kafka.journal.transaction_size import TransactionSize
from consumer.kafka.journal.writes import DeadLetter, Keyed, Position, Put, Write, size_of
from consumer.kafka.outcomes.outcomes import Ended, record_of
from consumer.kafka.records.dead_letters import redriven_mark
from consumer.kafka.records.positions import position_value
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, SourceIdentity

RETRY_S = (0.05, 0.2, 1.0, 5.0)  # between attempts after an abort


class Commits:
    """Writes a transaction, and reports what is safe then."""

    def __init__(
        self,
        producers: Producers,
        partitions: Partitions,
        size: TransactionSize,
        *,
        topics: Mapping[str, RelayTopics],
        identities: Mapping[str, SourceIdentity],
        ownership: Callable[[], Ownership],
        clock: Clock,
        pause: Callable[[float], None],
        report: Report,
        control: str | None,
        new_name: Callable[[], str],
    ) -> None:
        """See Transactions."""
        self._producers = producers
        self._partitions = partitions
        self._size = size
        self._topics = topics
        self._identities = identities
        self._ownership = ownership
        self._clock = clock
        self._pause = pause
        self._report = report
        self._control = control
        self._new_name = new_name
        self._ownership_confirmed_at = -math.inf

    def commit(self, writes: list[Write], ownership: Ownership, *, alone: bool = False) -> None:
        """Write these in one transaction. Raises AbortedError or what else meanings.py has for it.

        `alone`: nothing of other partitions, though it be late (rule 9).
        """
        started = self._clock()
        transaction = self._new_name()
        batches = self._batches(writes)
        try:
            self._write(batches, ownership, transaction, alone)
        except UnknownOutcomeError as error:
            if not self._was_committed(batches, transaction, error):
                raise
        parked: dict[Put, int | None] = {}
        for batch in batches:
            state = self._partitions.states[batch.assignment]
            of_batch = {write: batch.offset_of(write) for write in batch.parked}
            parked |= of_batch
            state.mark.apply(batch.written, batch.end, {write.key for write in of_batch})
            state.next_offset, state.end, state.recreated = batch.next_offset, batch.end, False
            state.silent, state.outdone, state.refusals, state.committed_at = 0, 0, 0, self._clock()
            if batch.dead_letters:
                state.letters_silent, state.takes_no_letters = 0, False
        seconds = self._clock() - started
        self._size.committed(sum(map(size_of, writes)), seconds)
        self._report(
            Committed(
                writes,
                self._ownership_confirmed_at,
                seconds,
                dead_letters={write: at for batch in batches for write, at in batch.dead_letters_at.items()},
                parked=parked,
                recreated={
                    batch.assignment: self._partitions.states[batch.assignment].incarnation
                    for batch in batches
                    if batch.recreated
                },
            )
        )
        for write in writes:
            if isinstance(write, Put) and write.requested and write.keeps is not None:
                self._report(DeadLetterRefused(write.keeps, "its topic refuses it"))
        for batch in batches:
            if batch.recreated:
                self._report(DelayTopicRecreated(batch.assignment))
            keys = self._partitions.states[batch.assignment].mark.pinned()
            if keys:
                self._report(Pinned(batch.assignment, keys))

    def _batches(self, writes: list[Write]) -> list[Batch]:
        batches: dict[Assignment, Batch] = {}
        for write in writes:
            batch = batches.get(write.assignment)
            if batch is None:
                state = self._partitions.states[write.assignment]
                batch = batches[write.assignment] = Batch(
                    assignment=write.assignment,
                    next_offset=state.next_offset,
                    start=state.end,
                    end=state.end,
                    recreated=state.recreated,
                )
            batch.add(write)
        return list(batches.values())

    def _write(self, batches: list[Batch], ownership: Ownership, transaction: str, alone: bool) -> None:
        if ownership.group_metadata is None or generation(ownership.group_metadata) < 0:
            raise AbortedError("not a member of the group yet")  # the broker would not check it: no fencing
        self._producers.begin_transaction()
        if sum(self._produce_first(batch) for batch in batches):
            self._producers.flush()
        for batch in batches:
            self._produce(batch)
        count = len(batches)
        try:
            self._producers.flush(late=lambda: None if alone else self._ask_others(batches, ownership))
            self._send_offsets(batches, ownership.group_metadata, transaction)
        except RefusedError as error:
            if len(batches) > count:  # perhaps those of a topic that was only asked
                raise AbortedError(str(error)) from None
            raise
        self._producers.commit()

    def _ask_others(self, batches: list[Batch], ownership: Ownership) -> None:
        """Write the positions of all other partitions as well: where one is lost, perhaps others are (rule 9).

        Not those of suspects: they are asked when the others are safe.
        """
        written = {batch.assignment for batch in batches}
        states = self._partitions.states
        others = [each for each in states if each not in written and not states[each].silent and ownership.covers(each)]
        for batch in self._batches([Position(each, states[each].next_offset) for each in others]):
            batches.append(batch)
            self._produce(batch)

    def _send_offsets(self, batches: list[Batch], group_metadata: bytes, transaction: str) -> None:
        offsets = []
        for batch in batches:
            topic, partition, _ = batch.assignment
            state = self._partitions.states[batch.assignment]
            if batch.recreated:
                state.mark = self._partitions.new_mark()
            mark = state.mark.after(batch.written, batch.end)
            offsets.append(TopicPartition(topic, partition, batch.next_offset, metadata=transaction))
            offsets.append(TopicPartition(self._topics[topic].delay, partition, mark, metadata=transaction))
        self._ownership_confirmed_at = self._clock()
        self._producers.send_offsets(offsets, group_metadata)

    def _produce_first(self, batch: Batch) -> int:
        """Produce the batch's dead letters, and outcomes that stand alone (rule 2); returns how many there are."""
        topic, partition, _ = batch.assignment
        to = self._topics[topic].dead_letters
        count = self._produce_outcomes(batch, batch.outcomes_alone) + len(batch.dead_letters)
        for write in batch.dead_letters:
            lies = partial(self._dead_letter_lies, batch, write, to)
            self._producers.produce(to, partition, write.record, delivered=lies, write=write)
        return count

    def _produce_outcomes(self, batch: Batch, ended: Sequence[Ended]) -> int:
        """Produce outcomes, where they are written; returns how many."""
        topic, partition, _ = batch.assignment
        outcomes = self._topics[topic].outcomes
        if outcomes is None:
            return 0
        for each in ended:
            self._producers.produce(outcomes, partition, record_of(each))
        return len(ended)

    def _dead_letter_lies(self, batch: Batch, write: DeadLetter, topic: str, record: Message) -> None:
        batch.dead_letters_at[write] = DeadLetterAt(topic, record.offset())

    def _produce(self, batch: Batch) -> None:
        topic, partition, _ = batch.assignment
        delay_topic = self._topics[topic].delay
        self._produce_outcomes(batch, batch.outcomes)
        for key, write in batch.latest.items():
            record = Record(key, write.value if isinstance(write, Put) else None)
            delivered = partial(self._delivered, batch, write)
            too_large = write if isinstance(write, Put) else None  # a tombstone is not
            self._producers.produce(delay_topic, partition, record, delivered=delivered, write=too_large)
        outcomes_topic_id = self._partitions.states[batch.assignment].outcomes_topic_id
        value = position_value(self._identities[topic], partition, batch.next_offset, outcomes_topic_id)
        position = Record(POSITION_KEY, value)
        self._producers.produce(delay_topic, partition, position, delivered=partial(self._delivered, batch, None))
        self._produce_answers(batch)

    def _produce_answers(self, batch: Batch) -> None:
        """Answer requests, and mark the dead letters that were redriven, behind the records that this speaks of."""
        for answer in batch.answers:
            assert self._control is not None  # noqa: S101 - they were read there
            if (of := answer.redriven) is not None:
                self._producers.produce(of.topic, of.partition, redriven_mark(of.offset))
            self._producers.produce(self._control, CONTROL_PARTITION, Record(answer.key, answer.value))

    def _delivered(self, batch: Batch, write: Keyed | None, record: Message) -> None:
        offset = record.offset()
        if offset is None:  # an earlier try wrote it, and its answer was lost: it lies after the batch's start
            offset = batch.start
            if write is not None:
                batch.unknown.add(write.key)
        elif offset < batch.start:  # rule 6
            state = self._partitions.states[batch.assignment]
            state.recreated = batch.recreated = True  # an abort does not undo it
            state.incarnation += 1
            state.end = batch.start = batch.end = 0
            batch.written.clear()  # these records were in the deleted topic
        batch.end = max(batch.end, offset + 1)
        if write is not None:
            batch.written[write.key] = offset if isinstance(write, Put) else None

    def _was_committed(self, batches: list[Batch], transaction: str, error: Exception) -> bool:
        """Fence the transaction, which ends it, then look whether it was committed (rule 3)."""
        why, tries = str(error), 0
        while True:
            self._producers.discard()
            self._report(TransactionAborted(f"outcome of a commit unknown: {why}"))
            try:
                self._producers.build(suspect=tries > 0)
                return transaction in self._committed_transactions(batches)
            except AbortedError as again:
                why, tries = str(again), tries + 1
            ownership = self._ownership()
            late = self._clock() > self._producers.end_at
            if late or not any(ownership.covers(batch.assignment) for batch in batches):
                return False  # nothing of it is written again then
            self._pause(RETRY_S[-1])

    def _committed_transactions(self, batches: list[Batch]) -> set[str | None]:
        """Return which transactions committed these partitions' offsets last.

        All partitions are asked for, because some of them may have a new owner since. So are the low-water marks,
        because the group forgets the offsets of a topic that was deleted.
        """
        partitions = [batch.assignment[:2] for batch in batches]
        asked = [TopicPartition(*each) for each in partitions]
        asked += [TopicPartition(self._topics[topic].delay, number) for topic, number in partitions]
        return {each.metadata for each in self._producers.committed(asked)}
