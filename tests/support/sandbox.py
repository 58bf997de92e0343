"""A place of a test's own on a broker: topics, a group, and how to look at them from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from consumer.core.clock import steady_clock
from consumer.core.ownership import Assignment, Ownership
from consumer.kafka import clients
from consumer.kafka.facts import Committed, Dropped, Fact, TransactionAborted
from consumer.kafka.identity.identity import present_identities
from consumer.kafka.journal.journal import Journal
from consumer.kafka.journal.low_water_mark import PINNING, Pinning
from consumer.kafka.journal.writes import DeadLetter, Put, Write
from consumer.kafka.records.dead_letters import DeadLetterRecord, without_value
from consumer.kafka.records.positions import position_value
from consumer.kafka.restore.reader import KafkaReader
from consumer.kafka.restore.restore import AT_A_TIME, Restorer
from consumer.kafka.restore.restored import Restored, Unservable
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.topics import RelayTopics, create
from schemas.dead_letter import Reason
from schemas.pending_action import POSITION_KEY, SourceIdentity
from tests.support.waiting import PATIENCE_S, until

F = TypeVar("F", bound=Fact)
TopicFactory = Callable[..., str]
SandboxFactory = Callable[..., "Sandbox"]


class Member:
    """A real member of the group; whoever waits for something polls it."""

    def __init__(self, properties: clients.Properties, topic: str) -> None:
        self.group = str(properties["group.id"])
        self.consumer = Consumer(clients.member(properties), logger=clients.LOGGER)
        self.consumer.subscribe([topic])

    def poll(self) -> list[int]:
        """Take part in the group; returns the partitions that are assigned to it."""
        self.consumer.poll(0.02)
        return sorted(tp.partition for tp in self.consumer.assignment())

    def metadata(self) -> bytes:
        """Return its group metadata, as it is now."""
        metadata = self.consumer.consumer_group_metadata()
        assert isinstance(metadata, bytes)
        return metadata

    def close(self) -> None:
        """Leave the group."""
        self.consumer.close()


class Heard:
    """Who hears of the journal's facts, and remembers them. `on_aborted` is called on the journal's thread."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.on_aborted: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    def report(self, fact: Fact) -> None:
        """Take a fact, on the journal's thread."""
        if isinstance(fact, TransactionAborted):
            self.on_aborted()
        with self._changed:
            self.facts.append(fact)
            self._changed.notify_all()

    def of(self, kind: type[F]) -> list[F]:
        """What was reported of this kind so far."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def wait_for(self, kind: type[F], count: int = 1) -> F:
        """Wait for the fact that is the `count`th of its kind."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.of(kind)) >= count, PATIENCE_S)
        assert arrived, f"{kind.__name__} was never reported, but {self.facts}"
        return self.of(kind)[count - 1]

    def wait_until_settled(self, *writes: Write) -> None:
        """Wait until each of these was committed or dropped."""

        def settled() -> bool:
            said = [write for fact in self.facts if isinstance(fact, Committed | Dropped) for write in fact.writes]
            return all(write in said for write in writes)

        with self._changed:
            assert self._changed.wait_for(settled, PATIENCE_S), f"never settled, but {self.facts}"


def too_large(write: Put | DeadLetter) -> DeadLetter:
    """Replace a write by a dead letter, or that by one without its value, as the relay does."""
    if isinstance(write, DeadLetter):
        return replace(write, record=without_value(write.record)) if write.record.value else write
    return DeadLetter(
        assignment=write.assignment,
        record=DeadLetterRecord(b"k", b"too large", []),
        reason=Reason.TOO_LARGE,
        offset=None,
        key=write.key,
        next_offset=write.next_offset,
    )


@dataclass
class Sandbox:
    """A source topic with what belongs to it, a group, and how to look at them from outside."""

    properties: dict[str, str | int | float | bool]
    topics: RelayTopics
    admin: AdminClient
    partitions: int = 1
    said: list[str] = field(default_factory=list)
    _closing: ExitStack = field(default_factory=ExitStack)
    _restorer: Restorer | None = None
    _wanted: Callable[[Assignment], bool] = lambda _: True

    @cached_property
    def identity(self) -> SourceIdentity:
        """The source, as the first who asks finds it."""
        source = self.topics.source
        return present_identities(self.admin, str(self.properties["group.id"]), [source])[source]

    def position(self, next_offset: int, partition: int = 0) -> tuple[bytes, bytes]:
        """Return a position record of this source."""
        return POSITION_KEY, position_value(self.identity, partition, next_offset)

    @property
    def relay_topics(self) -> dict[str, RelayTopics]:
        return {self.topics.source: self.topics}

    def assignment(self, partition: int = 0, epoch: int = 1) -> Assignment:
        return Assignment(self.topics.source, partition, epoch)

    def owned(self, metadata: bytes, *assignments: Assignment) -> Ownership:
        return Ownership(metadata, {(a.topic, a.partition): a.epoch for a in assignments})

    def member(self, **properties: str | int) -> Member:
        """Return a member of the group, left to the test to poll."""
        quick: dict[str, str | int | float | bool] = {"heartbeat.interval.ms": 100, "session.timeout.ms": 6000}
        if properties.get("group.protocol") == "consumer":
            quick = {}
        member = Member({**self.properties, **quick, **properties}, self.topics.source)
        self._closing.callback(member.close)
        return member

    def journal(
        self, ownership: Callable[[], Ownership], pinning: Pinning = PINNING, **properties: str | int
    ) -> tuple[Journal, Heard]:
        """Return a journal at work and what it says; it ends with the test."""
        heard = Heard()
        journal = Journal(
            properties={**self.properties, **properties},
            transactional_id=self.transactional_id,
            topics=self.relay_topics,
            identities={self.topics.source: self.identity},
            ownership=ownership,
            clock=steady_clock(),
            report=heard.report,
            replace_too_large=too_large,
            pinning=pinning,
        )
        journal.start()
        self._closing.callback(self._end, journal)
        return journal, heard

    def _end(self, journal: Journal) -> None:
        journal.stop(5)
        if journal.failed is not None:
            raise journal.failed

    @property
    def transactional_id(self) -> str:
        return f"{self.topics.source}-relay"

    def producer(self, transactional_id: str, **properties: str | int) -> Producer:
        """Return a transactional producer of somebody else's."""
        producer = Producer(
            clients.producer({**self.properties, **properties}, transactional_id), logger=clients.LOGGER
        )
        producer.init_transactions(PATIENCE_S)
        return producer

    def restore(
        self,
        *assignments: Assignment,
        wanted: Callable[[Assignment], bool] = lambda _: True,
        room: int | None = None,
        at_a_time: int = AT_A_TIME,
    ) -> list[Restored]:
        """Restore as the relay does; what it says for the operator is in `said`. `at_a_time`: of the first call."""
        self._wanted = wanted
        if self._restorer is None:
            reader = KafkaReader(self.properties)
            self._closing.callback(reader.close)
            self._restorer = Restorer(
                reader,
                topics=self.relay_topics,
                identities={self.topics.source: self.identity},
                say=self.said.append,
                wanted=self._is_wanted,
                clock=steady_clock(),
                at_a_time=at_a_time,
            )
        restored: list[Restored] = []
        for each in self._restorer.restore(assignments or [self.assignment()], room=room):
            if isinstance(each, Unservable):
                raise each.error
            restored.append(each)
        return restored

    def _is_wanted(self, assignment: Assignment) -> bool:
        return self._wanted(assignment)

    def fill(self, topic: str, count: int, partition: int = 0) -> None:
        """Put records on a topic, outside of any transaction."""
        self.write(topic, [(b"%d" % n, b"event") for n in range(count)], partition)

    def write(self, topic: str, records: Sequence[tuple[bytes, bytes | None]], partition: int = 0) -> None:
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, record: Message) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer({**clients.base(self.properties), "linger.ms": 0}, logger=clients.LOGGER)
        for key, value in records:
            producer.produce(topic, value, key, partition, on_delivery=delivered)
        assert producer.flush(PATIENCE_S) == 0
        assert failed == []

    def read(self, topic: str, partition: int = 0, *, isolation: str = "read_committed") -> list[Message]:
        """Return what a consumer sees of a partition, from its first record to its end."""
        until(lambda: led(self.admin, [(topic, partition)]), "the broker answers")
        _, end = watermarks(self.admin, [(topic, partition)])[topic, partition]
        reader = Consumer({**clients.reader(self.properties), "isolation.level": isolation}, logger=clients.LOGGER)
        records: list[Message] = []
        try:
            reader.assign([TopicPartition(topic, partition, 0)])
            deadline = time.monotonic() + PATIENCE_S
            while end and reader.position([TopicPartition(topic, partition)])[0].offset < end:
                assert time.monotonic() < deadline, f"{topic} cannot be read to {end}"
                records += [record for record in reader.consume(1000, 0.02) if record.error() is None]
        finally:
            reader.close()
        return records

    def pairs(self, topic: str, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
        """Return keys and values of a partition, as a consumer sees them."""
        return [(record.key(), record.value()) for record in self.read(topic, partition)]

    def offset(self, topic: str, partition: int = 0) -> int | None:
        """Return what the group has committed."""
        asked = ConsumerGroupTopicPartitions(str(self.properties["group.id"]), [TopicPartition(topic, partition)])

        def settled() -> TopicPartition | None:
            # The admin client, as a new consumer takes half a second to find its coordinator.
            (future,) = self.admin.list_consumer_group_offsets([asked], require_stable=True).values()
            (answered,) = future.result(PATIENCE_S).topic_partitions
            return answered if answered.error is None else None

        answer = until(settled, "the group's offset is settled")
        return answer.offset if answer is not None and answer.offset >= 0 else None

    def commit(self, *offsets: tuple[str, int, int], by: str = "a relay") -> None:
        """Commit offsets under the group: topic, partition, offset. `by`: a relay names itself, a tool nobody."""
        wanted = [TopicPartition(*each, metadata=by) if by else TopicPartition(*each) for each in offsets]
        asked = ConsumerGroupTopicPartitions(str(self.properties["group.id"]), wanted)

        def committed() -> bool:
            (future,) = self.admin.alter_consumer_group_offsets([asked]).values()
            return all(each.error is None for each in future.result(PATIENCE_S).topic_partitions)

        until(committed, "the group's coordinator takes the offsets")  # a new broker's is still loading

    def close(self) -> None:
        self._closing.close()


def control_topic(group: object) -> str:
    """Return the control topic's name, as the configuration has it by default."""
    return f"{group}.engage.control"


def relay_topics(admin: AdminClient, source: str, group: str | None = None) -> RelayTopics:
    """Make the topics beside a source; returns when all answer (the broker takes a moment to know a new one).

    `group`: its control topic, too.
    """
    topics = RelayTopics(source, f"{source}.engage.delay", f"{source}.engage.dead-letters", f"{source}.engage.outcomes")
    until(lambda: partition_counts(admin, [source]), "the source answers")
    control = None if group is None else control_topic(group)
    create(admin, [topics], control=control)
    names = [source, *topics.own, *([] if control is None else [control])]
    until(lambda: len(partition_counts(admin, names)) == len(names), "the topics answer")
    return topics


def led(admin: AdminClient, partitions: Sequence[tuple[str, int]]) -> bool:
    try:
        return bool(watermarks(admin, partitions))
    except KafkaException:
        return False


def recreate(sandbox: Sandbox, records: int = 0, partitions: int | None = None) -> None:
    """Delete the source and make it again; it holds so many records then."""
    topic = sandbox.topics.source
    sandbox.admin.delete_topics([topic])[topic].result(PATIENCE_S)
    count = partitions or sandbox.partitions

    def made() -> bool:
        try:
            sandbox.admin.create_topics([NewTopic(topic, count, 1)])[topic].result(PATIENCE_S)
        except KafkaException:
            return False
        return True

    until(made, "the source is recreated")
    until(lambda: led(sandbox.admin, [(topic, n) for n in range(count)]), "it has leaders")
    if records:
        sandbox.fill(topic, records)
