"""EDGE. Reading the records that requests are about: an event of the source, or a dead letter.

Rules:
 1. What is read is settled, up to where the partition ended when it was asked for: a transaction that is open there is
    waited for. So a dead letter whose mark is not found was not redriven.
 2. Marks lie behind their dead letters. They are read on from where the last reading ended, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message

from consumer.core.clock import Clock
from consumer.core.ownership import Partition
from consumer.core.requests import DeadLetterId
from consumer.kafka import clients
from consumer.kafka.dead_letters.redrive import dead_letter_in, event_to_redrive, mark_in
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.restore.reader import GIVE_UP_SOON_S, Reader, RestoreError
from consumer.kafka.source.membership import event_of
from consumer.kafka.topics.topics import RelayTopics

# One record is read at a time, and then the next: the broker's connection is first free again when it has answered the
# request that finds nothing more. So the next read would wait that long, and nobody asks in between.
READS = {"fetch.wait.max.ms": 5}


@dataclass(slots=True)
class _Marks:
    """The dead letters of a partition that were redriven, as far as it was read: from `start` to `next`."""

    start: int
    next: int
    redriven: set[int] = field(default_factory=set)


class AskedFor:
    """Reads the records. Use it from one thread."""

    def __init__(self, reader: Callable[[], Reader], *, topics: Mapping[str, RelayTopics], clock: Clock) -> None:
        """`reader` builds the client when something is read for the first time. `topics` by source topic."""
        self._build = reader
        self._reader: Reader | None = None
        self._sources: Collection[tuple[str, str]] = {(each.dead_letters, each.source) for each in topics.values()}
        self._clock = clock
        self._marks: dict[Partition, _Marks] = {}

    def event(self, topic: str, partition: int, offset: int, incarnation: int) -> SourceEvent | None:
        """Return an event of a source; None: it is not there. Raises RestoreError where trying again may help."""
        at = (topic, partition)
        low, end = self._ends(at)
        if not low <= offset < end:
            return None
        record = next(self._between(at, offset, offset + 1), None)
        return None if record is None else event_of(record, at, offset, incarnation)

    def dead_letter(self, which: DeadLetterId) -> SourceEvent | str:
        """Return a dead letter's event as it is redriven; a text says why it cannot be. Raises RestoreError."""
        at = (which.topic, which.partition)
        low, end = self._ends(at)
        marks = self._marks.get(at)
        if marks is None or which.offset < marks.start or end < marks.next:
            marks = self._marks[at] = _Marks(which.offset, which.offset)
        for record in self._between(at, max(low, marks.next), end):
            if (mark := mark_in(record)) is not None:
                marks.redriven.add(mark)
        marks.next = end
        there = self._between(at, which.offset, which.offset + 1) if low <= which.offset < end else iter(())
        found = next((dead_letter_in(record, marks.redriven) for record in there), None)
        if found is None:
            return "there is no such dead letter any more"
        if found.redriven:
            return "it was redriven before, or marked as dealt with"
        return event_to_redrive(found, self._sources)

    def _ends(self, at: Partition) -> tuple[int, int]:
        if self._reader is None:
            self._reader = self._build()
        try:
            return self._reader.watermarks([at])[at]
        except KafkaException as error:
            raise RestoreError(clients.error_of(error).str()) from None

    def _between(self, at: Partition, start: int, end: int) -> Iterator[Message]:
        """Yield the records with offsets in [start, end)."""
        reader = self._reader
        if reader is None or start >= end:
            return
        reached, give_up_at, why = start, self._clock() + GIVE_UP_SOON_S, "the broker does not answer"
        reader.start({at: start})
        try:
            while reached < end:
                before = reached
                for record in reader.read():
                    error = record.error()
                    if error is None:
                        reached = max(reached, (record.offset() or 0) + 1)
                        if (record.offset() or 0) < end:
                            yield record
                    elif error.code() == KafkaError._PARTITION_EOF:
                        reached = max(reached, record.offset() or 0)
                    elif error.fatal():
                        raise RestoreError(error.str())
                    else:
                        why = error.str()
                now = self._clock()
                if reached > before or reader.throttled_s():
                    give_up_at = now + reader.throttled_s() + GIVE_UP_SOON_S
                elif now > give_up_at:
                    raise RestoreError(f"gave up after {GIVE_UP_SOON_S:g} s of reading {at[0]}[{at[1]}]: {why}")
        finally:
            reader.stop()
