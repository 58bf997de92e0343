"""EDGE. Reading parked records back, by their offsets in the delay topic.

Parked records lie mostly one behind the other, so few stretches of the topic are read. A record that is not there any
more was replaced, by a person or a tool: its action is none of ours then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Partition
from consumer.kafka import clients
from consumer.kafka.restore.reader import GIVE_UP_SOON_S, Reader, RestoreError
from consumer.kafka.topics.topics import RelayTopics

GAP = 1000  # records that are rather read than skipped


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A record of a parked action."""

    key: bytes
    value: bytes
    offset: int


class ReadBack:
    """Reads parked records. Use it from one thread."""

    def __init__(
        self,
        reader: Callable[[], Reader],
        *,
        topics: Mapping[str, RelayTopics],
        wanted: Callable[[Assignment], bool],
        clock: Clock,
    ) -> None:
        """`reader` builds the client when something is read back for the first time. `topics` by source topic."""
        self._build = reader
        self._reader: Reader | None = None
        self._topics = topics
        self._wanted = wanted
        self._clock = clock

    def read(self, assignment: Assignment, offsets: Sequence[int]) -> list[ParkedRecord]:
        """Return the records at these offsets. Raises RestoreError where trying again may help."""
        if self._reader is None:
            self._reader = self._build()
        at = (self._topics[assignment.topic].delay, assignment.partition)
        try:
            low, high = self._reader.watermarks([at])[at]
        except KafkaException as error:
            raise RestoreError(clients.error_of(error).str()) from None
        asked = {offset for offset in offsets if low <= offset < high}  # the topic may have been recreated
        found: list[ParkedRecord] = []
        for first, last in _stretches(sorted(asked)):
            found += self._stretch(self._reader, assignment, at, range(first, last + 1), asked)
        return found

    def _stretch(
        self, reader: Reader, assignment: Assignment, at: Partition, stretch: range, asked: set[int]
    ) -> list[ParkedRecord]:
        found: list[ParkedRecord] = []
        give_up_at = self._clock() + GIVE_UP_SOON_S
        why = "the broker does not answer"
        reader.start({at: stretch.start})
        try:
            while True:
                for record in reader.read():
                    offset = record.offset() or 0
                    error = record.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        if error.fatal():
                            raise RestoreError(error.str())
                        why = error.str()
                        continue
                    key, value = record.key(), record.value()
                    if error is None and offset in asked and key is not None and value is not None:
                        found.append(ParkedRecord(key, value, offset))
                    if offset >= stretch.stop - (error is None):  # an end lies behind the last record
                        return found
                if not self._wanted(assignment):
                    raise RestoreError("no longer owned")
                now = self._clock()
                if throttled_s := reader.throttled_s():
                    give_up_at = max(give_up_at, now + throttled_s + GIVE_UP_SOON_S)
                if now > give_up_at:
                    raise RestoreError(f"gave up after {GIVE_UP_SOON_S:g} s of reading {at[0]}[{at[1]}]: {why}")
        finally:
            reader.stop()


def _stretches(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return first and last of each stretch without a gap that is worth skipping."""
    if not offsets:
        return
    first = last = offsets[0]
    for offset in offsets[1:]:
        if offset - last > GAP:
            yield first, last
            first = offset
        last = offset
    yield first, last
