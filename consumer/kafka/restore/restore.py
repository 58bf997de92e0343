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
    So does one of another consumer that is in the group by error. Nobody can tell the two apart: it is said which
    events that skips or brings again.
 5. An offset that the source does not hold (any more, or yet) is an error with a name, never a silent reset.
 6. Offsets and records are used only if the position record names the very source that is there now (identity.py). It
    may lie before the low-water mark: then it is looked for.
 7. It also names the outcomes topic, which says what was sent. Where that is another one by now, nobody knows that:
    it is told, and no more (core/repeats.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from confluent_kafka import KafkaException

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Partition
from consumer.core.sequences import NO_SEQUENCES, Sequences
from consumer.errors import IdentityError, OffsetOutOfRangeError, StartUnknownError
from consumer.kafka import clients
from consumer.kafka.identity.identity import check_ids, unreadable_position, verified
from consumer.kafka.parking.live_records import LiveRecords, Room
from consumer.kafka.restore.delay_partitions import DelayPartitions, Reading
from consumer.kafka.restore.reader import GIVE_UP_S, Reader, RestoreError
from consumer.kafka.restore.restored import Restored, Unservable, restored_of
from consumer.kafka.topics.offsets import Watermarks
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import Position, SourceIdentity

POSITION_BEHIND = 64  # records before the low-water mark that are read first to find the position record
AT_A_TIME = 100_000  # records of several partitions: they are read in a few seconds


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
        self._delay_partitions = DelayPartitions(reader, say=say, wanted=wanted, clock=clock)
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
            a: Reading(start=held[a].start, end=held[a].stop, live=LiveRecords(kept, self._sequences)) for a in wanted
        }
        self._delay_partitions.read({delay[a]: a for a in wanted}, readings, self._patience_s)  # then the records.
        self._read_positions({a: delay[a] for a in wanted}, readings, {a: marks[delay[a]][0] for a in wanted})
        recorded = {a: self._position(a, readings[a]) for a in wanted if self._wanted(a)}
        differ = {source[a]: p for a, p in recorded.items() if p is not None and p != committed.get(source[a], p)}
        unrecorded = {source[a]: delay[a] for a, position in recorded.items() if position is None}
        by_relays = self._committed_by_relays(wanted, [*differ, *(at for at in unrecorded if at in committed)])
        committed |= {at: p for at, p in differ.items() if at in by_relays and p > committed[at]}
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
            if source[a] in differ and source[a] not in by_relays:
                self._say_moved(a, differ[source[a]], next_offset)
            restored = restored_of(
                a,
                self._identities[a.topic],
                readings[a],
                next_offset=next_offset,
                source_end=marks[source[a]][1],
                seconds=self._clock() - started,
            )
            found.append(self._with_outcomes(restored, readings[a].position, ids))
        return found

    def _say_moved(self, a: Assignment, recorded: int, next_offset: int) -> None:
        """Say which events an offset that no relay committed skips, or brings again (rule 4)."""
        if self._topics[a.topic].drained:
            return  # nothing of it is read
        first, last = sorted((recorded, next_offset))
        self._say(
            f"{a.topic}[{a.partition}]: a tool, or another consumer in this group, moved the group's offset from "
            f"{recorded} to {next_offset}: "
            + ("no relay reads" if next_offset > recorded else "the relay reads again")
            + f" the events {first} to {last - 1} (docs/operations.md, moving the position)"
        )

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
        readings: Mapping[Assignment, Reading],
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
            self._delay_partitions.read(
                {delay[a]: a for a in missing}, {a: readings[a] for a in missing}, self._patience_s
            )
            back *= 8

    def _position(self, a: Assignment, reading: Reading) -> int | None:
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
