"""Kafka's clients, as confluent-kafka's behave: the member, the producer, the restore's reader.

What becomes of a request is the scheduler's decision: answered, lost, answered in vain, late, or repeated later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.core.ownership import Assignment, Partition
from consumer.kafka.outcomes.sent_facts import FactsLostError, SentBefore
from consumer.kafka.source.membership import MIN_HAND_OVER_S
from consumer.kafka.topics.offsets import Watermarks
from consumer.kafka.topics.scan import STALLED_S
from consumer.kafka.topics.topics import RelayTopics
from tests.simulation.kafka_model import TRANSACTION_TIMEOUT_S, Headers, Member, Record, error, metadata
from tests.simulation.process import Process
from tests.simulation.workload import WINDOW_S

LARGEST_RECORD = 2_000  # bytes that the delay topic takes
LOOK_S = 3.5  # a flush returns so often while a partition has no leader


class SimulatedMessage:
    """What the clients hand out."""

    __slots__ = ("_at", "_error", "_offset", "_record")

    def __init__(
        self, at: Partition, offset: int | None, record: Record | None = None, code: int | None = None
    ) -> None:
        self._at = at
        self._offset = offset
        self._record = record
        self._error = None if code is None else KafkaError(code)

    def topic(self) -> str:
        return self._at[0]

    def partition(self) -> int:
        return self._at[1]

    def offset(self) -> int | None:
        return self._offset

    def key(self) -> bytes | None:
        return self._record.key if self._record else None

    def value(self) -> bytes | None:
        return self._record.value if self._record else None

    def headers(self) -> Headers:
        return self._record.headers if self._record else []

    def timestamp(self) -> tuple[int, int]:
        return 1, int(self._record.at * 1000) if self._record else 0

    def error(self) -> KafkaError | None:
        return self._error


def message(at: Partition, offset: int | None, record: Record | None = None, code: int | None = None) -> Message:
    return cast("Message", SimulatedMessage(at, offset, record, code))


# -- the member


class _Fetching:
    """What the client knows of an assigned partition. `sought`: somebody said where it begins."""

    __slots__ = ("end", "paused", "position", "sought")

    def __init__(self, position: int) -> None:
        self.position = position
        self.end = -1  # that the application was told of
        self.paused = False
        self.sought = False


class SimulatedConsumer:
    """librdkafka's consumer, cooperative."""

    def __init__(self, process: Process, config: Mapping[str, object]) -> None:
        self._process = process
        self._scheduler = process.scheduler
        self._kafka = process.kafka
        self._reset = config["auto.offset.reset"]
        self._tells_ends = config["enable.partition.eof"]
        self._fetching: dict[Partition, _Fetching] = {}
        self._member: Member | None = None
        self._known_generation = -1
        self._looked = -1  # the version of the broker's state that held no news
        # With group.protocol=consumer, a member that was never let in shows the generation 0, else -1.
        self._first = 0 if self._scheduler.chance(0.5) else -1
        self.was_let_in = False
        self._refused = False
        self._fatal_told = False
        self._callbacks: dict[str, Callable[[Consumer, list[TopicPartition]], None]] = {}

    def subscribe(self, topics: list[str], **callbacks: Callable[[Consumer, list[TopicPartition]], None]) -> None:
        self._callbacks = callbacks
        self._join()

    def _join(self) -> None:
        process = self._process
        self._scheduler.members += 1
        self._looked = -1
        self._member = Member(b"%s/%d" % (process.id.encode(), self._scheduler.members), process)
        self._kafka.join(self._member)

    def unsubscribe(self) -> None:
        self._fetching.clear()
        self._looked = -1
        if self._member is not None:
            self._kafka.leave(self._member)

    def close(self) -> None:
        self.unsubscribe()
        self._member = None

    def refuse(self) -> None:
        """Be of no use any more. A message says so once, and nothing after it.

        The group waits for its heartbeats for as long as for those of a process that fell silent.
        """
        self._refused = True
        self._looked = -1
        if self._member is not None:
            self._kafka.fall_silent(self._member)

    @property
    def _kicked(self) -> bool:
        return self._member is not None and self._member.id not in self._kafka.members

    def has_news(self) -> bool:
        member = self._member
        if self._refused:
            return not self._fatal_told
        if self._looked == self._kafka.version or self._process.cut or member is None:
            return False
        if member.news or member.generation != self._known_generation or member.id not in self._kafka.members:
            return True
        for at, fetching in self._fetching.items():
            if not fetching.paused:
                log = self._kafka.logs[at]
                if fetching.position < log.end or fetching.position < log.start:
                    return True
        self._looked = self._kafka.version
        return False

    @property
    def news(self) -> str | None:
        """What a poll will call back with."""
        if self._kicked:
            return "lost"
        return self._member.news[0][0] if self._member is not None and self._member.news else None

    def poll(self, timeout: float) -> Message | None:
        member = self._member
        self._looked = -1
        if self._refused:
            told, self._fatal_told = self._fatal_told, True
            return None if told else message(("", 0), None, code=KafkaError._FATAL)
        if self._process.cut or member is None:
            return None
        if self._kicked:
            noticed, member.generation = member.generation == -1, -1
            if not noticed and self._fetching:
                self._scheduler.reach("a generation was negative while partitions were owned")
            if noticed or self._scheduler.chance(0.5):  # the generation is gone before the application is told
                self._lost(member)
            return None
        if member.news:
            kind, partitions = member.news[0]
            self._scheduler.say(
                f"{self._process.id} {kind} {[n for _, n in partitions]} generation {member.generation}"
            )
            owned, overruns_at = self._process.source.ownership.owned, self._scheduler.now + MIN_HAND_OVER_S
            self._callbacks[f"on_{kind}"](cast("Consumer", self), [TopicPartition(*at) for at in partitions])
            overran = self._process.relay._partitions.hand_overs or self._scheduler.now >= overruns_at
            if kind == "revoke" and overran:
                self._scheduler.reach("a hand-over overran its time")
            elif kind == "revoke":
                given = {Assignment(*at, owned[at]) for at in partitions if at in owned}
                if not self._process.is_neighbour:
                    self._scheduler.oracle.handed_over(self._process, given)
            member.news.pop(0)  # only now does it take part in the next generation
            return None
        records = self._take(1)
        return records[0] if records else None

    def _lost(self, member: Member) -> None:
        self._scheduler.reach("a member was given up for dead, and came back")
        self._scheduler.say(f"{self._process.id} finds that it lost its membership")
        lost = sorted(self._fetching)
        if lost:
            self._callbacks["on_lost"](cast("Consumer", self), [TopicPartition(*at) for at in lost])
        self._join()

    def consume(self, most: int, timeout: float) -> list[Message]:
        return self._take(int(4 * self._scheduler.random()))

    def _take(self, most: int) -> list[Message]:
        taken: list[Message] = []
        self._looked = -1
        if self._refused:
            return taken
        for at, fetching in self._fetching.items():
            log = self._kafka.logs[at]
            if fetching.paused or len(taken) >= most:
                continue
            if not fetching.sought:
                self._scheduler.violate(f"{at} is read before anybody said from where")
            if fetching.position < log.start or fetching.position > log.end:
                self._scheduler.reach("an offset is out of range while it consumes")
                if self._reset == "error":
                    taken.append(message(at, fetching.position, code=KafkaError._AUTO_OFFSET_RESET))
                    fetching.paused = True
                else:
                    fetching.position = log.start if self._reset == "earliest" else log.end
                continue
            records, _ = log.read(fetching.position, most - len(taken))
            for record in records:
                fetching.position = record.offset + 1
                taken.append(message(at, record.offset, record))
            if self._tells_ends and len(taken) < most and fetching.end < fetching.position == log.end:
                fetching.end = fetching.position
                taken.append(message(at, fetching.position, code=KafkaError._PARTITION_EOF))
        return taken

    def consumer_group_metadata(self) -> bytes:
        member = self._member
        if member is None:
            return metadata(-1, b"")
        if member.generation != self._known_generation:
            self._known_generation = member.generation
            self._looked = -1
        self.was_let_in |= member.generation > 0
        return metadata(member.generation if self.was_let_in else self._first, member.id)

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            at = (each.topic, each.partition)
            self._fetching[at] = _Fetching(self._kafka.logs[at].start)
        self._looked = -1

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        gone = [(each.topic, each.partition) for each in partitions]
        for at in gone:
            self._fetching.pop(at, None)
        if self._member is not None and not self._kicked:
            self._kafka.gave_up(self._member, gone)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            self._fetching[each.topic, each.partition].paused = True

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            fetching = self._fetching[each.topic, each.partition]
            if not fetching.paused:
                self._scheduler.violate(f"{each.topic}[{each.partition}] is resumed, though it was not paused")
            fetching.paused = False
        self._looked = -1

    def seek(self, partition: TopicPartition) -> None:
        if self._scheduler.chance(0.05):
            self._scheduler.reach("a seek came too early for the client")
            raise error(KafkaError._STATE)
        fetching = self._fetching[partition.topic, partition.partition]
        fetching.position = partition.offset
        fetching.sought = True
        self._looked = -1


# -- the producer


_Produced = tuple[Partition, tuple[bytes | None, bytes | None, Headers], Callable[..., None]]


class SimulatedProducer:
    """librdkafka's transactional producer, without KIP-890's client side."""

    def __init__(self, process: Process, transactional_id: str, *, one_by_one: bool) -> None:
        self._process = process
        self._scheduler = process.scheduler
        self._kafka = process.kafka
        self._id = transactional_id
        self._one_by_one = one_by_one
        self._epoch = 0
        self._serial = 0
        self._buffer: list[_Produced] = []
        self._unled: list[_Produced] = []  # for partitions without a leader
        self._gives_up_at = 0.0  # on these

    def _fate(self, call: str) -> str:
        """Decide what becomes of a request, after whatever happens meanwhile."""
        self._process.meanwhile(call)
        if self._process.cut:
            return "lost"
        return self._scheduler.fate(call)

    def _time_out(self, timeout: float) -> KafkaException:
        self._process.wait(self._scheduler.pick((0.0, 1.0, timeout)))
        return error(KafkaError._TIMED_OUT)

    def init_transactions(self, timeout: float) -> None:
        match self._fate("init"):
            case "lost":
                raise self._time_out(timeout)
            case "answer lost" | "late":
                with suppress(KafkaException):
                    self._kafka.init(self._id)
                raise self._time_out(timeout)
        try:
            self._epoch = self._kafka.init(self._id)
        except KafkaException:  # librdkafka asks again and again
            self._scheduler.reach("a transactional.id could not be used")
            raise self._time_out(timeout) from None

    def begin_transaction(self) -> None:
        self._scheduler.serials += 1
        self._serial = self._scheduler.serials

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        *,
        on_delivery: Callable[..., None],
        headers: Headers | None,
    ) -> None:
        self._buffer.append(((topic, partition), (key, value, list(headers or [])), on_delivery))

    def flush(self, timeout: float) -> int:
        fate = self._fate("flush")
        batch = [each for each in self._unled if each[0] not in self._kafka.lost] + self._buffer
        unled = [each for each in self._unled if each[0] in self._kafka.lost]
        self._buffer = []
        refused = any(len(record[1] or b"") > LARGEST_RECORD and "delay" in at[0] for at, record, _ in batch)
        failed: set[Partition] = set()
        refusals = self._refusals(batch)
        lost = {at for at, _, _ in batch} & self._kafka.lost
        if lost:
            what = "outcomes partition" if any("outcomes" in topic for topic, _ in lost) else "partition"
            self._scheduler.reach(f"a lost {what} took nothing")
            self._kafka.add(self._id, self._epoch, self._serial, lost)
        for index, (at, record, delivered) in enumerate(batch):
            too_large = len(record[1] or b"") > LARGEST_RECORD and "delay" in at[0]
            if too_large or (refused and not self._one_by_one):
                delivered(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), message(at, None))
                continue
            if at in lost:
                continue
            if index in refusals:
                delivered(KafkaError(refusals[index]), message(at, None))
                continue
            # Within a partition none is written after one that was not: an idempotent producer's sequence has no gaps.
            if at in failed or (fate == "lost" and self._scheduler.chance(0.5)):
                self._scheduler.reach("records of a transaction that were written in part")
                delivered(KafkaError(KafkaError._MSG_TIMED_OUT), message(at, None))
                failed.add(at)
                continue
            if index:
                self._process.meanwhile("between two records")
            offset: int | None = self._kafka.produce(self._id, self._epoch, self._serial, at, record)
            # Of a recreated topic, the first offsets are always known: two such accidents at once would need
            # an old topic as short as these to do harm.
            if fate == "answer lost" and not self._kafka.logs[at].recreated:
                self._scheduler.reach("a record's offset stayed unknown")
                offset = None
            delivered(None, message(at, offset))
        if not self._unled:
            self._gives_up_at = self._scheduler.now + TRANSACTION_TIMEOUT_S
        self._unled = unled + [each for each in batch if each[0] in lost]
        if self._unled:
            self._process.wait(min(LOOK_S, self._gives_up_at - self._scheduler.now))
            if self._scheduler.now < self._gives_up_at:
                return len(self._unled)
        for at, _, delivered in self._unled:
            delivered(KafkaError(KafkaError._MSG_TIMED_OUT), message(at, None))
        self._unled = []
        return 0

    def _refusals(self, batch: Sequence[_Produced]) -> dict[int, int]:
        """Return what topics that refuse some of the batch's records say of them, by their index."""
        closed = [index for index, (at, _, _) in enumerate(batch) if at[0] in self._kafka.closed]
        found: dict[int, int] = dict.fromkeys(closed, KafkaError.TOPIC_AUTHORIZATION_FAILED)
        if closed:
            self._scheduler.reach("answers were refused")
        for each in {at for at, _, _ in batch if at[0] == self._process.topics.dead_letters}:
            of_partition = [index for index, (at, _, _) in enumerate(batch) if at == each]
            for indices in [[index] for index in of_partition] if self._one_by_one else [of_partition]:
                refused = self._kafka.refused([batch[index][1][1] for index in indices])
                found.update((index, code) for index, code in zip(indices, refused, strict=True) if code is not None)
        return found

    def send_offsets_to_transaction(
        self, positions: list[TopicPartition], group_metadata: bytes, timeout: float
    ) -> None:
        if self._buffer:
            self._scheduler.reach("offsets overtook records")
        offsets = {(each.topic, each.partition): (each.offset, each.metadata) for each in positions}
        kafka, transactional_id, epoch = self._kafka, self._id, self._epoch

        def arrive() -> None:
            try:
                kafka.late_offsets(transactional_id, epoch, offsets, group_metadata)
            except KafkaException as refusal:
                self._scheduler.reach(f"delayed offsets were refused: {refusal.args[0].name()}")
            else:
                self._scheduler.reach("delayed offsets were taken by another transaction")
                if not self._scheduler.healing and self._scheduler.chance(
                    0.3
                ):  # only who starts then reads what is left
                    self._scheduler.fail_points[self._process.name] = ("crash", "after commit")

        fate = self._fate("offsets")
        if fate == "lost":
            raise self._time_out(timeout)
        if fate == "echo":  # the client asked twice, and the first request took its time
            self._scheduler.delay(arrive)
        try:
            self._kafka.send_offsets(self._id, self._epoch, self._serial, offsets, group_metadata)
        except KafkaException as refusal:
            self._scheduler.reach(f"offsets were refused: {refusal.args[0].name()}")
            raise
        if fate in ("answer lost", "late"):
            raise self._time_out(timeout)

    def commit_transaction(self, timeout: float) -> None:
        if self._buffer:
            self.flush(timeout)
        self._finish(timeout, commit=True)

    def abort_transaction(self, timeout: float) -> None:
        """Give the open transaction up."""
        self._buffer.clear()
        self._finish(timeout, commit=False)

    def _finish(self, timeout: float, *, commit: bool) -> None:
        kafka, transactional_id, epoch, serial = self._kafka, self._id, self._epoch, self._serial
        if not epoch:
            raise error(KafkaError._STATE)
        name = "commit" if commit else "abort"

        def arrive() -> None:
            self._scheduler.reach(f"a delayed {name} arrived")
            try:
                kafka.end(transactional_id, epoch, serial, commit=commit)
            except KafkaException:
                self._scheduler.reach(f"a delayed {name} was fenced")

        match self._fate(name):
            case "lost":
                raise self._time_out(timeout)
            case "late":
                self._scheduler.delay(arrive)
                raise self._time_out(timeout)
            case "answer lost":
                kafka.end(transactional_id, epoch, serial, commit=commit)
                raise self._time_out(timeout)
            case "echo":
                self._scheduler.delay(arrive)
        kafka.end(transactional_id, epoch, serial, commit=commit)
        self._process.meanwhile("after " + name)

    def purge(self) -> None:
        self._buffer.clear()
        self._unled.clear()

    def poll(self, timeout: float) -> int:
        return 0


class SimulatedClients:
    """producers.Clients."""

    def __init__(self, process: Process, transactional_id: str) -> None:
        self._process = process
        self._id = transactional_id

    def producer(self, *, one_by_one: bool, successor: int) -> Producer:
        name = f"{self._id}-{successor}" if successor else self._id
        return cast("Producer", SimulatedProducer(self._process, name, one_by_one=one_by_one))

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        asked = [(each.topic, each.partition) for each in partitions]
        known = settled_offsets(self._process, asked, timeout_s)
        answer = []
        for at in asked:
            offset, name = known.get(at, (-1001, None))
            answer.append(TopicPartition(*at, offset, metadata=name) if name else TopicPartition(*at, offset))
        return answer


def settled_offsets(
    process: Process, asked: list[Partition], timeout_s: float
) -> dict[Partition, tuple[int, str | None]]:
    kafka = process.kafka
    process.meanwhile("committed")
    if kafka.undecided(asked):
        process.scheduler.reach("offsets were undecided when asked for")
    elif not process.cut:
        return {at: kafka.committed[at] for at in asked if at in kafka.committed}
    if not process.wait(timeout_s, lambda: not process.cut and not kafka.undecided(asked)):
        raise error(KafkaError._TIMED_OUT)
    return {at: kafka.committed[at] for at in asked if at in kafka.committed}


# -- the reader


class SimulatedReader:
    """restore/reader.Reader."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._kafka = process.kafka
        self._positions: dict[Partition, int] = {}
        self._told_end: dict[Partition, int] = {}

    def committed(self, partitions: list[Partition], marks: list[Partition]) -> dict[Partition, int]:
        found = settled_offsets(self._process, [*partitions, *marks], 10.0)
        for at in (*partitions, *marks):
            if at not in found and at in self._kafka.logs and self._kafka.logs[at].end > 1:
                self._process.scheduler.reach(f"a restore knew no offset of {at[0]}")
        return {at: offset for at, (offset, name) in found.items() if name or at not in marks}

    def watermarks(self, partitions: list[Partition]) -> dict[Partition, Watermarks]:
        self._process.meanwhile("watermarks")
        if self._process.cut:
            self._process.wait(10.0)
            raise error(KafkaError._TIMED_OUT)
        logs = self._kafka.logs
        if any(at not in logs for at in partitions):
            self._process.scheduler.reach("a restore found no delay partition yet")
            raise error(KafkaError.UNKNOWN_TOPIC_OR_PART)
        if not self._kafka.lost.isdisjoint(partitions):
            raise error(KafkaError.LEADER_NOT_AVAILABLE)
        return {at: (logs[at].start, logs[at].end) for at in partitions}

    def is_known(self, topics: RelayTopics) -> bool:
        return self._kafka.logs[topics.delay, 0].end > 0 or any(at[0] == topics.source for at in self._kafka.committed)

    def topic_ids(self, topics: list[str]) -> dict[str, str]:
        return dict.fromkeys(topics, self._kafka.topic_id)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        self._positions = dict(offsets)
        self._told_end.clear()

    def read(self) -> list[Message]:
        self._process.meanwhile("reading")
        found: list[Message] = []
        if not self._process.cut:
            for at, position in self._positions.items():
                if at in self._kafka.lost:
                    continue
                log = self._kafka.logs[at]
                records, self._positions[at] = log.read(position, 1 + int(8 * self._process.scheduler.random()))
                for record in records:
                    found.append(message(at, record.offset, record))
                    if not self._process.is_neighbour:
                        self._process.scheduler.oracle.restored(self._process, record)
                end = self._positions[at]
                if end >= log.stable_end and self._told_end.get(at) != end:
                    self._told_end[at] = end
                    if end < log.end:
                        self._process.scheduler.reach("a restore met an open transaction")
                    found.append(message(at, end, code=KafkaError._PARTITION_EOF))
        if not found:
            self._process.wait(1.0)
        return found

    def stop(self) -> None:
        self._positions = {}

    def throttled_s(self) -> float:
        return 0.0


def read_facts(process: Process, assignment: Assignment) -> SentBefore:
    """Be sent_facts.read_facts: read what a partition's outcomes say of the window, up to its end as it is now."""
    kafka, at = process.kafka, (process.topics.outcomes or "", assignment.partition)
    process.meanwhile("facts")
    if process.scheduler.profile.steps and process.scheduler.chance(0.3):
        process.wait(process.scheduler.pick((1.0, 5.0)), lambda: False)  # there is much to read
    log = kafka.logs[at]
    end, since = log.end, process.clock() - WINDOW_S

    def is_readable() -> bool:
        return not process.cut and at not in kafka.lost and log.stable_end >= end

    is_refused = not process.scheduler.healing and process.scheduler.chance(0.05)  # the right to Read is missing
    if is_refused or not process.wait(STALLED_S, is_readable):
        process.scheduler.reach("a restore knew nothing of what was sent before")
        process.scheduler.oracle.repeats.are_lost(assignment.partition, process.scheduler.now)
        process.scheduler.oracle.sequences.are_lost(assignment.partition, process.scheduler.now)
        raise FactsLostError("nothing came")
    records, _ = log.read(log.start, log.end)
    found = SentBefore()
    for record in records:
        if record.offset < end and record.at >= since:
            found.take(record.value, process.scheduler.sequences.steps)
    return found
