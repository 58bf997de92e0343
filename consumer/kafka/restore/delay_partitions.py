"""Reading delay partitions to their ends, and what is found there: live records, and the position record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Partition
from consumer.kafka.parking.live_records import LiveRecords
from consumer.kafka.records.positions import read_position
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.restore.reader import Reader, RestoreError
from schemas.pending_action import POSITION_KEY, Position

SAY_AFTER_S = 5.0  # of waiting, the log says what the restore waits for


@dataclass(slots=True, kw_only=True)
class Reading:
    """How far one delay partition was read."""

    start: int
    end: int
    live: LiveRecords
    position: Position | None = None
    unreadable_position: Unreadable | None = None
    next: int = 0
    count: int = 0

    def take(self, record: Message) -> None:
        """Take a record in."""
        key, value, offset = record.key(), record.value(), record.offset() or 0
        self.count += 1
        if offset >= self.next:
            self.next = offset + 1
        if key is None:
            return
        if key == POSITION_KEY:
            self._take_position(value)
        elif value is None:
            self.live.remove(key)
        else:
            self.live.put(key, value, offset)

    def _take_position(self, value: bytes | None) -> None:
        position = None if value is None else read_position(value)
        self.unreadable_position = position if isinstance(position, Unreadable) else None
        self.position = position if isinstance(position, Position) else None


class DelayPartitions:
    """Reads delay partitions. Use it from one thread."""

    def __init__(
        self, reader: Reader, *, say: Callable[[str], None], wanted: Callable[[Assignment], bool], clock: Clock
    ) -> None:
        """See Restorer."""
        self._reader = reader
        self._say = say
        self._wanted = wanted
        self._clock = clock

    def read(
        self, assignments: Mapping[Partition, Assignment], readings: Mapping[Assignment, Reading], patience_s: float
    ) -> None:
        """Read each of these delay partitions to its end, or until it is no longer wanted.

        Raises RestoreError after `patience_s` without progress, in which no quota made it wait.
        """
        open_ = {tp: readings[a] for tp, a in assignments.items() if readings[a].start < readings[a].end}
        if not open_:
            return
        self._reader.start({tp: reading.start for tp, reading in open_.items()})
        give_up_at = self._clock() + patience_s
        say_at = self._clock() + SAY_AFTER_S
        client_error = ""
        try:
            while True:
                records = self._reader.read()
                for record in records:
                    client_error = self._take(record, open_) or client_error
                if not open_:
                    return
                now = self._clock()
                if any(record.error() is None for record in records):
                    give_up_at, client_error = now + patience_s, ""
                if throttled_s := self._reader.throttled_s():
                    give_up_at = max(give_up_at, now + throttled_s + patience_s)
                    client_error = f"a quota of the broker is used up (bytes or requests): {throttled_s:.0f} s more"
                if now > say_at:
                    self._say(_waits_for(open_, client_error))
                    say_at = now + SAY_AFTER_S
                if not any(self._wanted(assignments[tp]) for tp in open_):
                    return
                if now > give_up_at:
                    raise RestoreError(f"gave up after {patience_s:g} s: {_waits_for(open_, client_error)}")
        finally:
            self._reader.stop()

    def _take(self, record: Message, open_: dict[tuple[str, int], Reading]) -> str | None:
        """Take a record or an error of the consumer. Returns what is wrong, if anything is."""
        tp = (record.topic() or "", record.partition() or 0)
        error = record.error()
        reading = open_.get(tp)
        if error is not None:
            if error.fatal():
                raise RestoreError(error.str())
            if error.code() != KafkaError._PARTITION_EOF:
                return error.str()
            if reading is not None:
                reading.next = max(reading.next, record.offset() or 0)
        elif reading is not None:
            reading.take(record)
        if reading is not None and reading.next >= reading.end:
            del open_[tp]
        return None


def _waits_for(open_: dict[tuple[str, int], Reading], client_error: str) -> str:
    (topic, partition), reading = next(iter(open_.items()))
    return f"restoring {topic}[{partition}]: read to {max(reading.next, reading.start)} of {reading.end}; " + (
        client_error or "a former owner left a transaction open there, or the broker does not answer"
    )
