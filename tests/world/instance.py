"""One relay process in the world: the real Relay, with stand-ins for its three threads and its clients.

The stand-ins hold no rule: each takes what production's edge takes (source.py, journal.py, restore.py, engage.py) and
gives it to the same Membership, Transactions and Restorer. A call into a client is where other things may happen
meanwhile (`Instance.meanwhile`), where a process dies (`CrashedError`) or stands still.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from threading import Event
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer import kafka as properties_of
from consumer.clock import Clock
from consumer.journal import MOST_WRITES
from consumer.kafka import Properties
from consumer.membership import Membership
from consumer.ownership import Assignment, Ownership, Partition
from consumer.relay import Relay
from consumer.source import BATCHES_AHEAD, Listener
from consumer.topics import RelayTopics, Watermarks
from consumer.transactions import Adoption, Transactions, Write
from consumer.transactions import Listener as JournalListener
from tests.world.kafka import Headers, Member, Record, error, metadata
from tests.world.loop import VirtualLoop

if TYPE_CHECKING:
    from tests.world.world import World

TOPICS = RelayTopics("orders", "orders.delay", "orders.letters")
HANGS_S = 60.0  # after that a process is killed: its threads wait for each other
LARGEST_RECORD = 20_000  # bytes that the delay topic takes


class CrashedError(BaseException):
    """The process is dead: nothing of it runs any more."""


class Instance:
    """A process. `busy` names its threads that are in the midst of a call."""

    all: ClassVar[dict[str, Instance]] = {}

    def __init__(self, world: World, name: str, incarnation: int) -> None:
        self.world = world
        self.name = name
        self.id = f"{name}.{incarnation}"
        self.alive = True
        self.frozen = False
        self.cut = False
        self.ended = False
        self.busy: set[str] = set()
        self.loop = VirtualLoop(_Thawed(self), world.broken)
        self.source: WorldSource
        self.journal: WorldJournal
        self.relay: Relay
        self._stopped: asyncio.Event
        self._deadlines: list[float] = []
        self.thawing: list[Callable[[], None]] = []

    def start(self, relay: Callable[[Instance], Relay]) -> None:
        Instance.all[self.id] = self
        self.relay = relay(self)
        self._stopped = asyncio.Event()
        self.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.relay.run(self._stopped)
        except Exception as reason:  # noqa: BLE001 - the process's exit
            self.world.instance_failed(self, reason)
        self.ended = True
        self.world.ended(self)

    def terminate(self) -> None:
        self.loop.call_soon(self._stopped.set)

    @property
    def responsive(self) -> bool:
        return self.alive and not self.ended and not self.frozen and not self.cut

    def meanwhile(self, where: str) -> None:
        """Other things happen while this process is here."""
        self.world.meanwhile(self, where)
        self.stand_still()

    def stand_still(self) -> None:
        while self.alive and self.frozen:
            self.world.step()
        if not self.alive:
            raise CrashedError

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass for a thread of this process."""
        deadline = self.world.now + seconds
        self.world.at(deadline, lambda: None)
        self._deadlines.append(deadline)
        try:
            while not until():
                if self.world.now >= deadline:
                    return False
                # Calls are nested here: who waits for a thread that itself waits further out would wait for ever.
                if self.world.now > self._deadlines[0] + HANGS_S:
                    self.world.hung(self)
                self.world.step()
                self.stand_still()
            return True
        finally:
            self._deadlines.remove(deadline)


class _Thawed:
    """The world's time for a process: what comes due while it is frozen is run when it is thawed."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    @property
    def now(self) -> float:
        return self._instance.world.now

    def at(self, when: float, call: Callable[[], None]) -> None:
        instance = self._instance

        def due() -> None:
            if not instance.alive:
                return
            if instance.frozen:
                instance.thawing.append(call)
            else:
                call()

        instance.world.at(when, due)


class WorldMessage:
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
    return cast("Message", WorldMessage(at, offset, record, code))


# -- the source -------------------------------------------------------------------------------------------------------


class _Fetching:
    """What the client knows of an assigned partition. `sought`: somebody said where it begins."""

    __slots__ = ("paused", "position", "sought")

    def __init__(self, position: int) -> None:
        self.position = position
        self.paused = False
        self.sought = False


class WorldConsumer:
    """librdkafka's consumer, cooperative."""

    def __init__(self, instance: Instance, config: Mapping[str, object]) -> None:
        self._instance = instance
        self._world = instance.world
        self._kafka = instance.world.kafka
        self._reset = config["auto.offset.reset"]
        self._fetching: dict[Partition, _Fetching] = {}
        self._member: Member | None = None
        self._known_generation = -1
        self._callbacks: dict[str, Callable[[Consumer, list[TopicPartition]], None]] = {}

    def subscribe(self, topics: list[str], **callbacks: Callable[[Consumer, list[TopicPartition]], None]) -> None:
        self._callbacks = callbacks
        self._join()

    def _join(self) -> None:
        instance = self._instance
        self._world.members += 1
        self._member = Member(
            b"%s/%d" % (instance.id.encode(), self._world.members), lambda: instance.responsive, self._world.now
        )
        self._kafka.join(self._member)

    def unsubscribe(self) -> None:
        self._fetching.clear()
        if self._member is not None:
            self._kafka.leave(self._member)

    def close(self) -> None:
        self.unsubscribe()
        self._member = None

    @property
    def _kicked(self) -> bool:
        return self._member is not None and self._member.id not in self._kafka.members

    def has_news(self) -> bool:
        if self._instance.cut or self._member is None:
            return False
        return (
            self._kicked
            or bool(self._member.news)
            or self._member.generation != self._known_generation
            or any(self._fetchable(at, fetching) for at, fetching in self._fetching.items())
        )

    def _fetchable(self, at: Partition, fetching: _Fetching) -> bool:
        log = self._kafka.logs[at]
        return not fetching.paused and (fetching.position < log.end or fetching.position < log.start)

    @property
    def news(self) -> str | None:
        """What a poll will call back with."""
        if self._kicked:
            return "lost"
        return self._member.news[0][0] if self._member is not None and self._member.news else None

    def poll(self, timeout: float) -> Message | None:
        member = self._member
        if self._instance.cut or member is None:
            return None
        if self._kicked:
            noticed, member.generation = member.generation == -1, -1
            if not noticed and self._fetching:
                self._world.reach("a generation was negative while partitions were owned")
            if noticed or self._world.chance(0.5):  # the generation is gone before the application is told
                self._lost(member)
            return None
        if member.news:
            kind, partitions = member.news[0]
            self._world.say(f"{self._instance.id} {kind} {[n for _, n in partitions]} generation {member.generation}")
            self._callbacks[f"on_{kind}"](cast("Consumer", self), [TopicPartition(*at) for at in partitions])
            if kind == "revoke" and self._instance.relay._hand_overs:
                self._world.reach("a hand-over overran its time")
            member.news.pop(0)  # only now does it take part in the next generation
            return None
        records = self._take(1)
        return records[0] if records else None

    def _lost(self, member: Member) -> None:
        self._world.reach("a member was given up for dead, and came back")
        self._world.say(f"{self._instance.id} finds that it lost its membership")
        lost = sorted(self._fetching)
        if lost:
            self._callbacks["on_lost"](cast("Consumer", self), [TopicPartition(*at) for at in lost])
        self._join()

    def consume(self, most: int, timeout: float) -> list[Message]:
        return self._take(self._world.draw.randrange(4))

    def _take(self, most: int) -> list[Message]:
        taken: list[Message] = []
        for at, fetching in self._fetching.items():
            log = self._kafka.logs[at]
            if fetching.paused or len(taken) >= most:
                continue
            if not fetching.sought:
                self._world.violate(f"{at} is read before anybody said from where")
            if fetching.position < log.start or fetching.position > log.end:
                self._world.reach("an offset is out of range while it consumes")
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
        return taken

    def consumer_group_metadata(self) -> bytes:
        member = self._member
        if member is None:
            return metadata(-1, b"")
        self._known_generation = member.generation
        return metadata(member.generation, member.id)

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            at = (each.topic, each.partition)
            self._fetching[at] = _Fetching(self._kafka.logs[at].start)

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
                self._world.violate(f"{each.topic}[{each.partition}] is resumed, though it was not paused")
            fetching.paused = False

    def seek(self, partition: TopicPartition) -> None:
        if self._world.chance(0.05):
            self._world.reach("a seek came too early for the client")
            raise error(KafkaError._STATE)
        fetching = self._fetching[partition.topic, partition.partition]
        fetching.position = partition.offset
        fetching.sought = True


class WorldSource:
    """consumer/source.py without its thread."""

    def __init__(
        self,
        properties: Properties,
        topics: Iterable[str],
        listener: Listener,
        *,
        clock: Clock,
        beat: Callable[[], None],
    ) -> None:
        self._instance = Instance.all[str(properties["client.id"])]
        self._instance.source = self
        self._listener = listener
        self.membership = Membership(topics, listener, clock=clock, wait=self._wait, beat=beat)
        self._requests: deque[Callable[[Consumer], None]] = deque()
        self._room = BATCHES_AHEAD
        self._started = False
        self._stopping = False
        self.left = False
        self._consumer = WorldConsumer(self._instance, properties_of.member(properties))
        self.lag: Mapping[Partition, int] = MappingProxyType({})

    @property
    def ownership(self) -> Ownership:
        return self.membership.ownership

    @property
    def joined(self) -> bool:
        return self.membership.joined

    def _wait(self, event: Event, seconds: float) -> bool:
        return self._instance.wait(10 * seconds, event.is_set)  # in larger steps: nothing else looks

    def start(self) -> None:
        self._started = True
        self.membership.join(cast("Consumer", self._consumer))

    def begin(self, assignment: Assignment, next_offset: int) -> None:
        def begin(consumer: Consumer) -> None:
            if not self.membership.begin(consumer, assignment, next_offset):
                self.begin(assignment, next_offset)

        self._requests.append(begin)

    def hold(self, held: bool) -> None:
        self._instance.world.reach("the source was held" if held else "the source went on")
        self._requests.append(lambda consumer: self.membership.hold(consumer, held))

    def rejoin(self) -> None:
        self._requests.append(self.membership.rejoin)

    def batch_done(self) -> None:
        self._room += 1

    def stop(self) -> None:
        self._stopping = True

    def join(self, timeout_s: float) -> bool:
        return self._instance.wait(timeout_s, lambda: self.left)

    @property
    def news(self) -> str | None:
        return "leave" if self._stopping else self._consumer.news

    def runnable(self) -> bool:
        if not self._started or self.left:
            return False
        return bool(self._requests) or self._stopping or (self._room > 0 and self._consumer.has_news())

    def step(self) -> None:
        consumer = cast("Consumer", self._consumer)
        try:
            for _ in range(len(self._requests)):
                self._requests.popleft()(consumer)
            if self._stopping:
                self.membership.leave(consumer)
                self.left = True
            elif self._room > 0:
                batch = self.membership.poll(consumer)
                if batch:
                    self._room -= 1
                    self._listener.consumed(batch)
        except Exception as reason:  # noqa: BLE001 - the thread's edge, as in source.py
            self._listener.failed(reason)
            self.left = True


# -- the journal ------------------------------------------------------------------------------------------------------


class WorldProducer:
    """librdkafka's transactional producer, without KIP-890's client side."""

    def __init__(self, instance: Instance, transactional_id: str, *, one_by_one: bool) -> None:
        self._instance = instance
        self._world = instance.world
        self._kafka = instance.world.kafka
        self._id = transactional_id
        self._one_by_one = one_by_one
        self._epoch = 0
        self._serial = 0
        self._buffer: list[tuple[Partition, tuple[bytes | None, bytes | None, Headers], Callable[..., None]]] = []

    def _fate(self, call: str) -> str:
        """Decide what becomes of a request, after whatever happens meanwhile."""
        self._instance.meanwhile(call)
        if self._instance.cut:
            return "lost"
        return self._world.fate(call)

    def _time_out(self, timeout: float) -> KafkaException:
        self._instance.wait(self._world.draw.choice((0.0, 1.0, timeout)))
        return error(KafkaError._TIMED_OUT)

    def init_transactions(self, timeout: float) -> None:
        match self._fate("init"):
            case "lost":
                raise self._time_out(timeout)
            case "answer lost" | "late":
                self._kafka.init(self._id)
                raise self._time_out(timeout)
        self._epoch = self._kafka.init(self._id)

    def begin_transaction(self) -> None:
        self._world.serials += 1
        self._serial = self._world.serials

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        *,
        on_delivery: Callable[..., None],
        timestamp: int,
        headers: Headers | None,
    ) -> None:
        self._buffer.append(((topic, partition), (key, value, list(headers or [])), on_delivery))

    def flush(self, timeout: float) -> int:
        fate = self._fate("flush")
        batch, self._buffer = self._buffer, []
        refused = any(len(record[1] or b"") > LARGEST_RECORD and "delay" in at[0] for at, record, _ in batch)
        failed: set[Partition] = set()
        for index, (at, record, delivered) in enumerate(batch):
            too_large = len(record[1] or b"") > LARGEST_RECORD and "delay" in at[0]
            if too_large or (refused and not self._one_by_one):
                delivered(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), message(at, None))
                continue
            # Within a partition none is written after one that was not: an idempotent producer's sequence has no gaps.
            if at in failed or (fate == "lost" and self._world.chance(0.5)):
                self._world.reach("records of a transaction that were written in part")
                delivered(KafkaError(KafkaError._MSG_TIMED_OUT), message(at, None))
                failed.add(at)
                continue
            if index:
                self._instance.meanwhile("between two records")
            offset = self._kafka.produce(self._id, self._epoch, self._serial, at, record)
            if fate == "answer lost":
                self._world.reach("a record's offset stayed unknown")
            delivered(None, message(at, None if fate == "answer lost" else offset))
        return 0

    def send_offsets_to_transaction(
        self, positions: list[TopicPartition], group_metadata: bytes, timeout: float
    ) -> None:
        if self._buffer:
            self._world.reach("offsets overtook records")
        offsets = {(each.topic, each.partition): (each.offset, each.metadata) for each in positions}
        fate = self._fate("offsets")
        if fate == "lost":
            raise self._time_out(timeout)
        try:
            self._kafka.send_offsets(self._id, self._epoch, self._serial, offsets, group_metadata)
        except KafkaException as refusal:
            self._world.reach(f"offsets were refused: {refusal.args[0].name()}")
            raise
        if fate in ("answer lost", "late"):
            raise self._time_out(timeout)

    def commit_transaction(self, timeout: float) -> None:
        if self._buffer:
            self.flush(timeout)
        self._finish(timeout, commit=True)

    def abort_transaction(self, timeout: float) -> None:
        """Not used by production: for the mutation that goes on with a producer after an abort."""
        self._buffer.clear()
        self._finish(timeout, commit=False)

    def _finish(self, timeout: float, *, commit: bool) -> None:
        kafka, transactional_id, epoch, serial = self._kafka, self._id, self._epoch, self._serial
        if not epoch:
            raise error(KafkaError._STATE)
        name = "commit" if commit else "abort"

        def arrive() -> None:
            self._world.reach(f"a delayed {name} arrived")
            try:
                kafka.end(transactional_id, epoch, serial, commit=commit)
            except KafkaException:
                self._world.reach(f"a delayed {name} was fenced")

        match self._fate(name):
            case "lost":
                raise self._time_out(timeout)
            case "late":
                self._world.delay(arrive)
                raise self._time_out(timeout)
            case "answer lost":
                kafka.end(transactional_id, epoch, serial, commit=commit)
                raise self._time_out(timeout)
            case "echo":
                self._world.delay(arrive)
        kafka.end(transactional_id, epoch, serial, commit=commit)
        self._instance.meanwhile("after " + name)

    def purge(self) -> None:
        self._buffer.clear()

    def poll(self, timeout: float) -> int:
        return 0


class WorldClients:
    """transactions.Clients."""

    def __init__(self, instance: Instance, transactional_id: str) -> None:
        self._instance = instance
        self._id = transactional_id

    def producer(self, *, one_by_one: bool) -> Producer:
        return cast("Producer", WorldProducer(self._instance, self._id, one_by_one=one_by_one))

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        asked = [(each.topic, each.partition) for each in partitions]
        known = settled_offsets(self._instance, asked, timeout_s)
        answer = []
        for at in asked:
            offset, name = known.get(at, (-1001, None))
            answer.append(TopicPartition(*at, offset, metadata=name) if name else TopicPartition(*at, offset))
        return answer


def settled_offsets(
    instance: Instance, asked: list[Partition], timeout_s: float
) -> dict[Partition, tuple[int, str | None]]:
    kafka = instance.world.kafka
    instance.meanwhile("committed")
    if kafka.undecided(asked):
        instance.world.reach("offsets were undecided when asked for")
    if not instance.wait(timeout_s, lambda: not instance.cut and not kafka.undecided(asked)):
        raise error(KafkaError._TIMED_OUT)
    return {at: kafka.committed[at] for at in asked if at in kafka.committed}


class _Noted:
    """A listener that notes the rarer facts before it passes them on."""

    def __init__(self, listener: JournalListener, reach: Callable[[str], None]) -> None:
        self._reach = reach
        self._listener = listener

    def committed(self, writes: list[Write], proven_at: float, seconds: float) -> None:
        self._listener.committed(writes, proven_at, seconds)

    def dropped(self, writes: list[Write]) -> None:
        self._reach("the journal dropped what was no longer owned")
        self._listener.dropped(writes)

    def pinned(self, assignment: Assignment, keys: list[Hashable]) -> None:
        self._reach("an old record pinned the mark")
        self._listener.pinned(assignment, keys)

    def too_large(self, write: Write, replacement: Write) -> None:
        self._reach("a record was too large")
        self._listener.too_large(write, replacement)

    def aborted(self, why: str) -> None:
        self._reach("a commit's outcome was unknown" if "unknown" in why else "a transaction was aborted")
        self._listener.aborted(why)

    def fenced(self, why: str) -> None:
        self._reach("a producer was fenced")
        self._listener.fenced(why)


class WorldJournal:
    """consumer/journal.py without its thread."""

    def __init__(
        self,
        *,
        properties: Properties,
        transactional_id: str,
        topics: Mapping[str, RelayTopics],
        ownership: Callable[[], Ownership],
        clock: Clock,
        listener: JournalListener,
        set_aside_too_large: Callable[[Write], Write],
    ) -> None:
        self._instance = Instance.all[str(properties["client.id"])]
        self._instance.journal = self
        self._queue: deque[Write | Adoption] = deque()
        self._clock = clock
        self.transactions = Transactions(
            WorldClients(self._instance, transactional_id),
            topics=topics,
            ownership=ownership,
            clock=clock,
            pause=self._pause,
            listener=_Noted(listener, self._instance.world.reach),
            set_aside_too_large=set_aside_too_large,
        )
        self.failed: BaseException | None = None

    def _pause(self, seconds: float) -> None:
        self._instance.wait(seconds)

    def start(self) -> None:
        pass

    def hand_in(self, items: Iterable[Write | Adoption]) -> None:
        self._queue.extend(items)

    @property
    def backlog(self) -> int:
        return len(self._queue)

    def stuck_for(self) -> float:
        return 0.0

    def stop(self, timeout_s: float) -> bool:
        self.transactions.end_at = self._clock() + timeout_s
        done = self._instance.wait(timeout_s, lambda: not self._queue and "journal" not in self._instance.busy)
        if done:
            self.transactions.end()
        return done

    def runnable(self) -> bool:
        return bool(self._queue) and self.failed is None

    def step(self) -> None:
        most = MOST_WRITES if self._instance.world.chance(0.7) else 1
        items = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        try:
            self.transactions.settle(items)
        except Exception as reason:  # noqa: BLE001 - the thread's edge, as in journal.py
            self.failed = reason


# -- the restore ------------------------------------------------------------------------------------------------------


class WorldReader:
    """restore.Reader."""

    def __init__(self, properties: Properties) -> None:
        self._instance = Instance.all[str(properties["client.id"])]
        self._kafka = self._instance.world.kafka
        self._positions: dict[Partition, int] = {}
        self._told_end: dict[Partition, int] = {}

    def committed(self, partitions: list[Partition]) -> dict[Partition, int]:
        found = settled_offsets(self._instance, partitions, 10.0)
        for at in partitions:
            if at not in found and self._kafka.logs[at].end > 1:
                self._instance.world.reach(f"a restore knew no offset of {at[0]}")
        return {at: offset for at, (offset, _) in found.items()}

    def watermarks(self, partitions: list[Partition]) -> dict[Partition, Watermarks]:
        self._instance.meanwhile("watermarks")
        if self._instance.cut:
            self._instance.wait(10.0)
            raise error(KafkaError._TIMED_OUT)
        return {at: (self._kafka.logs[at].start, self._kafka.logs[at].end) for at in partitions}

    def is_known(self, topics: RelayTopics) -> bool:
        return any(log.end for (topic, _), log in self._kafka.logs.items() if topic == topics.delay)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        self._positions = dict(offsets)
        self._told_end.clear()

    def read(self) -> list[Message]:
        self._instance.meanwhile("reading")
        found: list[Message] = []
        if not self._instance.cut:
            for at, position in self._positions.items():
                log = self._kafka.logs[at]
                records, self._positions[at] = log.read(position, 1 + self._instance.world.draw.randrange(8))
                found += [message(at, record.offset, record) for record in records]
                end = self._positions[at]
                if end >= log.stable_end and self._told_end.get(at) != end:
                    self._told_end[at] = end
                    if end < log.end:
                        self._instance.world.reach("a restore met an open transaction")
                    found.append(message(at, end, code=KafkaError._PARTITION_EOF))
        if not found:
            self._instance.wait(1.0)
        return found

    def stop(self) -> None:
        self._positions = {}
