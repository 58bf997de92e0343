"""EDGE. Restoring an assignment: read what its delay partition holds, and find where the source continues.

Rules:
 1. Ask for `committed()` first, then for the end of the delay partition, then read the records. With
    `isolation.level=read_committed`, `committed()` waits for a dead instance's transaction that has already sent its
    offsets.
 2. The end is the high watermark as the broker knows it (read-uncommitted). A read_committed consumer's own
    watermarks and its partition-EOF stop at the last stable offset. With those, a dead instance's open transaction
    would end the restore too early, and the records after it would be lost.
 3. The latest value per key wins. A missing or impossible low-water mark means "from the beginning", never "latest".
 4. The source continues at the committed offset. Without one, it continues at the position record. A new partition
    of a known topic has neither and starts at its beginning. Where nothing is known at all, the operator decides
    (`run --from`), never the relay.
    A position record that is later than an offset committed by a relay counts: a delayed request of the same producer
    may have replaced a later offset by an older one. An offset that a tool has set counts as it is.
 5. An offset that the source does not hold (any more, or yet) is an error with a name, never a silent reset.
 6. Offsets and records are used only if the position record names the very source that is there now (identity.py). It
    may lie before the low-water mark: then it is looked for.
 7. It also names the outcomes topic, which says what was sent. Where that is another one by now, nobody knows that:
    it is told, and no more (core/repeats.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.clock import Clock
from consumer.core.effects import LiveAction
from consumer.core.ownership import Assignment, Partition
from consumer.core.parking import ParkedRecords
from consumer.core.places import incarnation_at, place_of
from consumer.core.sequences import NO_SEQUENCES, Sequences
from consumer.errors import IdentityError, OffsetOutOfRangeError, StartUnknownError
from consumer.kafka import clients, refused
from consumer.kafka.identity.identity import check_ids, recorded_positions, topic_ids, unreadable_position, verified
from consumer.kafka.journal.writes import DeadLetter
from consumer.kafka.parking.live_records import LiveRecords, Room
from consumer.kafka.records.pending import live_action
from consumer.kafka.records.positions import read_position
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.topics.topics import CALL_TIMEOUT_S, RelayTopics, Watermarks, committed_offsets, watermarks
from schemas.pending_action import POSITION_KEY, Position, SourceIdentity

SAY_AFTER_S = 5.0  # of waiting, the log says what the restore waits for
# Of no progress. A dead instance's transaction ends after its transaction.timeout.ms, which is 10 s unless set
# otherwise, and the broker looks every 10 s.
GIVE_UP_S = 25.0
# While others wait for their restore: one that cannot be read must not hold them up for longer.
GIVE_UP_SOON_S = 5.0
ASK_RETRY_S = 0.5
POLL_S = 0.2
POSITION_BEHIND = 64  # records before the low-water mark that are read first to find the position record
AT_ONCE = 1000
AT_A_TIME = 100_000  # records of several partitions: they are read in a few seconds


class RestoreError(Exception):
    """The restore failed for now. Trying again may help: with more than one partition, with each alone."""


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


@dataclass(slots=True, kw_only=True)
class _Reading:
    """How far one delay partition was read."""

    start: int
    end: int
    live: LiveRecords
    position: Position | None = None
    unreadable_position: Unreadable | None = None
    next: int = 0
    count: int = 0

    def take(self, record: Message) -> None:
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


class Reader(Protocol):
    """What a restore asks of Kafka. All but `start` and `read` raise KafkaException where Kafka does not answer."""

    def committed(self, partitions: list[Partition], by_relays: list[Partition]) -> dict[Partition, int]:
        """Return the group's settled offsets, absent ones left out, and of `by_relays` those that no relay committed.

        Before it raises, it waits, so the caller may call again at once.
        """

    def watermarks(self, partitions: list[Partition]) -> dict[Partition, Watermarks]:
        """Return each partition's first offset and its high watermark, open transactions included."""

    def is_known(self, topics: RelayTopics) -> bool:
        """Tell whether this group has started the topic before (initial_offsets.py)."""

    def topic_ids(self, topics: list[str]) -> dict[str, str]:
        """Return the ids of these topics, without those that are not known."""

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Begin to read these partitions' settled records from there."""

    def read(self) -> list[Message]:
        """Return what came within POLL_S, partition-EOF and errors included."""

    def stop(self) -> None:
        """Read no more of them."""


class Restorer:
    """Reads delay partitions. Use it from one thread."""

    def __init__(
        self,
        reader: Reader,
        *,
        topics: Mapping[str, RelayTopics],
        identities: Mapping[str, SourceIdentity],
        say: Callable[[str], None],
        wanted: Callable[[Assignment], bool],
        clock: Clock,
        sequences: Sequences = NO_SEQUENCES,
        at_a_time: int = AT_A_TIME,
    ) -> None:
        """`topics` and `identities` by source topic. `say` takes a line for the operator.

        `wanted` tells whether an assignment is still ours. `sequences`: of what is parked, which supersedes others.
        `at_a_time`: see `restore`.
        """
        self._sequences = sequences
        self._reader = reader
        self._topics = topics
        self._identities = identities
        self._say = say
        self._wanted = wanted
        self._clock = clock
        self._at_a_time = at_a_time
        self._patience_s = GIVE_UP_S

    def restore(
        self, assignments: Iterable[Assignment], patience_s: float | None = None, room: int | None = None
    ) -> list[Restored | Unservable]:
        """Restore what is still wanted of these; give up after `patience_s` (GIVE_UP_S) without progress.

        Where they hold more than `at_a_time` records, only some are restored, those with the fewest first: whoever
        serves them need not wait for all. Ask again for the others. What is more than `room` bytes is parked
        (core/parking.py): those that are restored get their part of it.

        Raises RestoreError, IdentityError or StartUnknownError.
        """
        started = self._clock()
        wanted = [a for a in assignments if self._wanted(a)]
        self._patience_s = GIVE_UP_S if patience_s is None else patience_s
        if not wanted:
            return []
        committed = self._committed(wanted)  # rule 1: first this,
        source = {a: (a.topic, a.partition) for a in wanted}
        delay = {a: (self._topics[a.topic].delay, a.partition) for a in wanted}
        try:
            marks = self._reader.watermarks([*source.values(), *delay.values()])  # then the end,
            ids = self._check_ids({a.topic for a in wanted})  # of the topics that have these ends,
        except KafkaException as error:
            raise RestoreError(clients.error_of(error).str()) from None
        held = {a: self._held(delay[a], marks[delay[a]], committed, source[a]) for a in wanted}
        all_held = sum(map(len, held.values()))
        wanted = _first(held, self._at_a_time)
        share = 1.0 if not all_held else sum(len(held[a]) for a in wanted) / all_held
        kept = Room(None if room is None else int(share * room))
        readings = {
            a: _Reading(start=held[a].start, end=held[a].stop, live=LiveRecords(kept, self._sequences)) for a in wanted
        }
        self._read({delay[a]: a for a in wanted}, readings)  # then the records.
        self._read_positions({a: delay[a] for a in wanted}, readings, {a: marks[delay[a]][0] for a in wanted})
        recorded = {a: self._position(a, readings[a]) for a in wanted if self._wanted(a)}
        later = {source[a]: p for a, p in recorded.items() if p is not None and p > committed.get(source[a], p)}
        unrecorded = {source[a]: delay[a] for a, position in recorded.items() if position is None}
        by_relays = self._committed_by_relays(wanted, [*later, *(at for at in unrecorded if at in committed)])
        committed |= {at: position for at, position in later.items() if at in by_relays}
        for at, (name, number) in unrecorded.items():
            if at in by_relays:  # each of its transactions has a position record (transactions.py)
                self._say(
                    f"{name}[{number}] has no position, and a relay served {at[0]}[{at[1]}] to offset {by_relays[at]}: "
                    "the topic was deleted or is another one, and what was pending is gone"
                )
        found: list[Restored | Unservable] = []
        for a, position in recorded.items():
            if not self._wanted(a):
                continue
            try:
                next_offset = self._next_offset(a, committed.get(source[a]), position, marks[source[a]])
            except OffsetOutOfRangeError as error:
                found.append(Unservable(a, error))
                continue
            restored = _restored(
                a,
                self._identities[a.topic],
                readings[a],
                next_offset=next_offset,
                source_end=marks[source[a]][1],
                seconds=self._clock() - started,
            )
            found.append(self._with_outcomes(restored, readings[a].position, ids))
        return found

    def _held(
        self, delay: Partition, marks: Watermarks, committed: Mapping[Partition, int], source: Partition
    ) -> range:
        """Return the offsets of a delay partition that are to be read (rule 3)."""
        low, high = marks
        mark = committed.get(delay)
        if mark is not None and not low <= mark <= high:
            self._say(
                f"{delay[0]}[{delay[1]}] holds {low} to {high}, its low-water mark is {mark}: the topic was "
                "deleted or cut, and what was pending there is gone"
            )
            mark = None
        if source not in committed:
            mark = None  # then the position record decides, and it may lie before the mark
        return range(low if mark is None else mark, high)

    def _committed(self, wanted: list[Assignment]) -> dict[Partition, int]:
        source = [(a.topic, a.partition) for a in wanted]
        marks = [(self._topics[a.topic].delay, a.partition) for a in wanted]
        return self._ask_for_offsets(wanted, source, marks)

    def _committed_by_relays(self, wanted: list[Assignment], source: list[Partition]) -> dict[Partition, int]:
        return self._ask_for_offsets(wanted, [], source) if source else {}

    def _ask_for_offsets(
        self, wanted: list[Assignment], partitions: list[Partition], by_relays: list[Partition]
    ) -> dict[Partition, int]:
        give_up_at = self._clock() + self._patience_s
        said = ""
        while True:
            try:
                return self._reader.committed(partitions, by_relays)
            except KafkaException as error:
                why = f"waiting for the group's offsets: {clients.error_of(error).str()}"
            if why != said:
                self._say(why)
                said = why
            if not any(self._wanted(a) for a in wanted):
                raise RestoreError("no longer owned")
            if self._clock() > give_up_at:
                raise RestoreError(f"gave up after {self._patience_s:g} s: {why}")

    def _read(self, assignments: dict[tuple[str, int], Assignment], readings: dict[Assignment, _Reading]) -> None:
        """Read each of these delay partitions to its end, or until it is no longer wanted."""
        open_ = {tp: readings[a] for tp, a in assignments.items() if readings[a].start < readings[a].end}
        if not open_:
            return
        self._reader.start({tp: reading.start for tp, reading in open_.items()})
        give_up_at = self._clock() + self._patience_s
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
                    give_up_at, client_error = now + self._patience_s, ""
                if now > say_at:
                    self._say(_waits_for(open_, client_error))
                    say_at = now + SAY_AFTER_S
                if not any(self._wanted(assignments[tp]) for tp in open_):
                    return
                if now > give_up_at:
                    raise RestoreError(f"gave up after {self._patience_s:g} s: {_waits_for(open_, client_error)}")
        finally:
            self._reader.stop()

    def _take(self, record: Message, open_: dict[tuple[str, int], _Reading]) -> str | None:
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

    def _check_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the ids of the sources and their outcomes topics.

        Raises IdentityError where a source is another topic by now. Raises KafkaException.
        """
        known = [topic for topic in topics if self._identities[topic].topic_id is not None]
        if not known:
            return {}
        outcomes = [name for topic in known if (name := self._topics[topic].outcomes) is not None]
        ids = self._reader.topic_ids([*known, *outcomes])
        check_ids(self._identities, ids)
        return ids

    def _with_outcomes(self, restored: Restored, position: Position | None, ids: Mapping[str, str]) -> Restored:
        """Say which outcomes topic there is, and whether it is the one that the partition had (rule 7)."""
        name = self._topics[restored.assignment.topic].outcomes or ""
        recorded, present = None if position is None else position.outcomes_topic_id, ids.get(name)
        if recorded is None or present is None or recorded == present:
            return replace(restored, outcomes_topic_id=present or recorded)
        why = f"{name}[{restored.assignment.partition}] was deleted and created again"
        return replace(restored, outcomes_topic_id=present, outcomes_lost=why)

    def _read_positions(
        self,
        delay: Mapping[Assignment, Partition],
        readings: Mapping[Assignment, _Reading],
        first: Mapping[Assignment, int],
    ) -> None:
        """Read the position records that lie before the low-water mark (rule 6)."""
        back = POSITION_BEHIND
        while missing := [
            a
            for a, reading in readings.items()
            if reading.position is None
            and reading.unreadable_position is None
            and reading.start > first[a]
            and self._wanted(a)
        ]:
            for a in missing:
                readings[a].start = max(first[a], readings[a].start - back)
                readings[a].next = 0
            self._read({delay[a]: a for a in missing}, {a: readings[a] for a in missing})
            back *= 8

    def _position(self, a: Assignment, reading: _Reading) -> int | None:
        """Return what the position record says. Raises IdentityError where it is another source's (rule 6)."""
        topics, identity = self._topics[a.topic], self._identities[a.topic]
        if reading.unreadable_position is not None:
            raise unreadable_position(topics.delay, a.partition, reading.unreadable_position)
        position = reading.position
        if position is None:
            return None
        verified(topics, {a.partition: position}, identity)
        if position.source.incarnation != identity.incarnation:
            raise IdentityError(f"{topics.delay}[{a.partition}] was adopted while this relay ran", a.topic)
        return position.next_offset

    def _next_offset(self, a: Assignment, committed: int | None, recorded: int | None, marks: Watermarks) -> int:
        low, high = marks
        known = committed if committed is not None else recorded
        if known is None:
            if high > low and not self._is_known(a.topic):
                raise StartUnknownError(
                    f"{a.topic}[{a.partition}]: no committed offset and no position record, and the partition holds "
                    f"{high - low} records"
                )
            return low
        if not low <= known <= high and not self._topics[a.topic].drained:
            raise OffsetOutOfRangeError(
                f"{a.topic}[{a.partition}]: the next offset is {known}, the source holds {low} to {high}: "
                + (
                    f"{low - known} records were deleted unread"
                    if known < low
                    else "the topic was recreated or has lost its end"
                )
            )
        return known

    def _is_known(self, topic: str) -> bool:
        try:
            return self._reader.is_known(self._topics[topic])
        except KafkaException as error:
            raise RestoreError(clients.error_of(error).str()) from None


def _first(held: Mapping[Assignment, range], at_a_time: int) -> list[Assignment]:
    """Return those that are read first: the ones with the fewest records, and no more than that, but one at least."""
    first: set[Assignment] = set()
    records = 0
    for assignment in sorted(held, key=lambda each: len(held[each])):
        records += len(held[assignment])
        if first and records > at_a_time:
            break
        first.add(assignment)
    return [each for each in held if each in first]


def _restored(
    assignment: Assignment,
    identity: SourceIdentity,
    reading: _Reading,
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


class KafkaReader:
    """A real Reader: a consumer of its own, without a membership, and an admin client."""

    def __init__(self, properties: clients.Properties) -> None:
        self._consumer = Consumer(clients.reader(properties), logger=clients.LOGGER)
        self._admin = AdminClient(clients.base(properties), logger=clients.LOGGER)

    def committed(self, partitions: list[Partition], by_relays: list[Partition]) -> dict[Partition, int]:
        """See Reader."""
        try:
            return committed_offsets(self._consumer, partitions, by_relays)
        except KafkaException:
            time.sleep(ASK_RETRY_S)
            raise

    def watermarks(self, partitions: list[Partition]) -> dict[Partition, Watermarks]:
        """See Reader."""
        return watermarks(self._admin, partitions)

    def is_known(self, topics: RelayTopics) -> bool:
        """See Reader."""
        return bool(recorded_positions(self._consumer, self._admin, topics.delay).positions)

    def topic_ids(self, topics: list[str]) -> dict[str, str]:
        """See Reader."""
        return topic_ids(self._admin, topics)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """See Reader."""
        for topic in {topic for topic, _ in offsets}:
            with suppress(KafkaException):  # without it the reader looks for unknown leaders a second later
                self._consumer.list_topics(topic, CALL_TIMEOUT_S)
        self._consumer.assign([TopicPartition(*tp, offset) for tp, offset in offsets.items()])

    def read(self) -> list[Message]:
        """See Reader."""
        first = self._consumer.poll(POLL_S)
        return [] if first is None else [first, *self._consumer.consume(AT_ONCE, 0)]

    def stop(self) -> None:
        """See Reader."""
        self._consumer.unassign()

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _waits_for(open_: dict[tuple[str, int], _Reading], client_error: str) -> str:
    (topic, partition), reading = next(iter(open_.items()))
    return f"restoring {topic}[{partition}]: read to {max(reading.next, reading.start)} of {reading.end}; " + (
        client_error or "a former owner left a transaction open there, or the broker does not answer"
    )
