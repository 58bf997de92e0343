"""A membership: what this member of the group owns, and which records it may report.

It runs on the one thread that owns the consumer (source.py). Its clock, its waits and its consumer are parameters, so
that the simulation (tests/simulation) drives the same rules.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. The group metadata is read again after every poll: a generation can change without a callback. One that the
    group has not given (below 1) is never published: the broker does not check negative ones.
 2. A new assignment stays paused until its delay partition is restored (`begin`). Records that the client returns
    before that, or from before the next offset, are dropped. Only partitions that this process paused are resumed.
 3. On revoke, a partition is given away when its requests in flight have settled, after `hand_over_s` at the latest.
    On lost, it is given away at once.
 4. An offset that the broker no longer holds is reported with an error that names it, and nothing more of its
    partition is. The offset is never reset in silence.
 5. A fatal error ends the process, in whatever way the client reports it (`is_fatal`).
 6. A source that was recreated is read on at the same offset by the client, without a word. So records are reported
    only after somebody looked, since they came, whether the topic is still the same (`confirm`).
 7. At a partition's end the next offset is the end, whatever lies between it and the last record: a transaction's
    marker, aborted records, a gap. None of them is lag.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, Partition, generation
from consumer.errors import ConsumerFailedError, OffsetOutOfRangeError
from consumer.kafka import clients
from consumer.kafka.facts import Assigned, ClientError, Failed, Lost, Overrun, Read, Report, Revoked
from consumer.kafka.limits import beyond_limits
from consumer.kafka.records.source_events import SourceEvent

POLL_S = 0.1  # how long a request of another thread waits at the most
MAX_RECORDS = 500  # per batch: some 20 ms of decoding and routing on the event loop
MAX_BATCH_BYTES = 8 * 1024 * 1024  # of events as large as the batch's first one
MIN_HAND_OVER_S = 20.0  # one call of the journal (15 s) and the call before it; longer where a request may be longer
# Before it is let in, a member's generation is -1, and with `group.protocol=consumer` 0.
FIRST_GENERATION = 1

_RESET = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET})


class Membership:
    """The rules of the module, for one consumer. `ownership` and `joined` may be read by any thread."""

    def __init__(
        self,
        topics: Iterable[str],
        report: Report,
        *,
        clock: Clock,
        hand_over_s: float = MIN_HAND_OVER_S,
        wait: Callable[[threading.Event, float], bool],
        beat: Callable[[], None],
        confirm: Callable[[], None],
        incarnations: Mapping[str, int],
        drained: Collection[str] = (),
    ) -> None:
        """Own nothing yet.

        `hand_over_s` must be longer than any request, so that its outcome is known and saved. `wait` waits for an
        event for a number of seconds. `beat` is called whenever the thread is seen alive. `confirm` looks whether the
        sources are still the same topics; where one is not, it raises IdentityError. `incarnations`: of each topic
        (core/places.py). `drained`: the topics from which nothing is read. Their partitions stay paused.
        """
        self._topics = list(topics)
        self._report = report
        self._clock = clock
        self._hand_over_s = hand_over_s
        self._wait = wait
        self._beat = beat
        self._confirm = confirm
        self._incarnations = incarnations
        self._drained = drained
        self._epoch = 0
        self._owned: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}  # the partitions that began, and their next offsets
        self._paused = False
        self._held: set[Partition] = set()
        self._handed_over = False
        self._metadata: bytes | None = None
        self.ownership = Ownership()
        self.joined = False
        self.refused_by: str | None = None  # what the group's coordinator said last, before it let this one in

    @property
    def paused(self) -> bool:
        """Whether everything is paused for back-pressure."""
        return self._paused

    @property
    def positions(self) -> Iterable[tuple[Partition, int]]:
        """The partitions that began, and their next offsets."""
        return self._next.items()

    def join(self, consumer: Consumer) -> None:
        """Join the group."""
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, consumer: Consumer) -> list[Read]:
        """Take part in the group, and return the records that may be reported."""
        # Wait for the first record, then take only what is there already: a lone event is not kept waiting.
        first = consumer.poll(POLL_S)
        records = [first, *consumer.consume(_more(first), 0)] if first is not None else []
        self._publish(consumer)
        self._beat()
        if any(map(self._is_news, records)):
            self._confirm()
        return self._batch(records)

    def begin(self, consumer: Consumer, assignment: Assignment, next_offset: int) -> bool:
        """Consume a restored partition from `next_offset` on. False: it is too early, call again."""
        at = (assignment.topic, assignment.partition)
        if self._owned.get(at) != assignment.epoch or assignment.topic in self._drained:
            return True
        try:
            consumer.seek(TopicPartition(*at, next_offset))
        except KafkaException as error:
            if clients.error_of(error).code() != KafkaError._STATE:
                raise
            return False  # the client has not started this partition yet
        self._next[at] = next_offset
        if not self._paused:
            consumer.resume([TopicPartition(*at)])
        return True

    def hold(self, consumer: Consumer, assignment: Assignment) -> None:
        """Read nothing more of one partition."""
        at = (assignment.topic, assignment.partition)
        if self._owned.get(at) == assignment.epoch and at in self._next:
            self._held.add(at)
            if not self._paused:
                consumer.pause([TopicPartition(*at)])

    def release(self, consumer: Consumer, assignment: Assignment) -> None:
        """Continue after `hold`."""
        at = (assignment.topic, assignment.partition)
        if self._owned.get(at) == assignment.epoch and at in self._held:
            self._held.discard(at)
            if not self._paused:
                consumer.resume([TopicPartition(*at)])

    def readopt(self, consumer: Consumer, assignment: Assignment) -> None:
        """Begin a partition anew, as if it had just been assigned. What its former assignment left is nobody's."""
        at = (assignment.topic, assignment.partition)
        if self._owned.get(at) != assignment.epoch:
            return
        self._forget([at])
        consumer.pause([TopicPartition(*at)])
        self._epoch += 1
        self._owned[at] = self._epoch
        self._publish(consumer)
        self._report(Assigned([Assignment(*at, self._epoch)]))

    def pause(self, consumer: Consumer) -> None:
        """Pause everything for back-pressure."""
        self._paused = True
        if begun := self._begun():
            consumer.pause(begun)

    def resume(self, consumer: Consumer) -> None:
        """Continue after `pause`."""
        self._paused = False
        if begun := self._begun():
            consumer.resume(begun)

    def rejoin(self, consumer: Consumer) -> None:
        """Give up every partition at once and join the group again."""
        self._give_up(list(self._owned))
        consumer.unsubscribe()
        self.join(consumer)

    def step_out(self, consumer: Consumer) -> None:
        """Hand everything over, and join the group again."""
        self._hand_over(list(self._owned), consumer)
        consumer.unsubscribe()
        self.join(consumer)

    def leave(self, consumer: Consumer) -> None:
        """Hand everything over, then leave the group."""
        self._hand_over(list(self._owned), consumer)
        self._handed_over = True
        try:
            consumer.close()
        except (KafkaException, RuntimeError, SystemError) as error:
            # The client calls back while it closes, and a call on a closing consumer fails. All was handed over before.
            self._report(ClientError(f"leaving the group: {type(error).__name__}"))

    def _begun(self) -> list[TopicPartition]:
        """Return the partitions that back-pressure pauses: those that began and are not held."""
        return [TopicPartition(*at) for at in self._next if at not in self._held]

    def _forget(self, partitions: Iterable[Partition]) -> None:
        for at in partitions:
            self._next.pop(at, None)
            self._held.discard(at)

    def _is_news(self, record: Message) -> bool:
        """Whether it is anything but the end of a partition that was read to its end before."""
        error = record.error()
        if error is None or error.code() != KafkaError._PARTITION_EOF:
            return True
        return (record.offset() or 0) > self._next.get((record.topic() or "", record.partition() or 0), math.inf)

    def _batch(self, records: Iterable[Message]) -> list[Read]:
        by_partition: dict[Partition, list[SourceEvent]] = {}
        for record in records:
            error = record.error()
            at = (record.topic() or "", record.partition() or 0)
            offset = record.offset() or 0
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._on_record_error(record, error)
            elif error is not None:
                if offset > self._next.get(at, offset):
                    self._next[at] = offset
                    by_partition.setdefault(at, [])
            elif offset >= self._next.get(at, offset + 1):
                self._next[at] = offset + 1
                by_partition.setdefault(at, []).append(event_of(record, at, offset, self._incarnations[at[0]]))
        return [Read(Assignment(*at, self._owned[at]), events, self._next[at]) for at, events in by_partition.items()]

    def _publish(self, consumer: Consumer) -> None:
        metadata = consumer.consumer_group_metadata()
        if metadata != self._metadata and generation(metadata) >= FIRST_GENERATION:
            self._metadata = metadata
            self.joined = True
            self.refused_by = None
        elif self.ownership.owned == self._owned:
            return
        self.ownership = Ownership(self._metadata, MappingProxyType(dict(self._owned)))

    # -- called by the client within a poll ---------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Where it really begins, the restore says: until then nothing may be fetched from wherever the client thinks.
        paused = [TopicPartition(each.topic, each.partition, OFFSET_BEGINNING) for each in partitions]
        consumer.incremental_assign(paused)
        consumer.pause(paused)
        assigned = []
        for each in partitions:
            self._epoch += 1
            self._owned[each.topic, each.partition] = self._epoch
            self._forget([(each.topic, each.partition)])
            assigned.append(Assignment(each.topic, each.partition, self._epoch))
        self._publish(consumer)
        if assigned:
            self._report(Assigned(assigned))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._handed_over:
            self._publish(consumer)
            self._hand_over([(each.topic, each.partition) for each in partitions], consumer)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up([(each.topic, each.partition) for each in partitions])
        self._publish(consumer)
        consumer.incremental_unassign(partitions)

    def _hand_over(self, partitions: list[Partition], consumer: Consumer) -> None:
        revoked = [Assignment(*at, self._owned[at]) for at in partitions if at in self._owned]
        if not revoked:
            return
        self._forget(partitions)
        settled = threading.Event()
        self._report(Revoked(revoked, settled))
        until = self._clock() + self._hand_over_s
        while not self._wait(settled, POLL_S) and self._clock() < until:
            self._beat()
            self._publish(consumer)
        for at in partitions:
            self._owned.pop(at, None)
        self.ownership = Ownership(self._metadata, MappingProxyType(dict(self._owned)))

    def _give_up(self, partitions: list[Partition]) -> None:
        lost = [Assignment(*at, self._owned.pop(at)) for at in partitions if at in self._owned]
        self._forget(partitions)
        self.ownership = Ownership(self._metadata, MappingProxyType(dict(self._owned)))
        if lost:
            self._report(Lost(lost))

    def _on_record_error(self, record: Message, error: KafkaError) -> None:
        at = f"{record.topic()}[{record.partition()}]"
        if error.code() in _RESET:
            owned = (record.topic() or "", record.partition() or 0)
            if owned in self._owned:
                overrun = OffsetOutOfRangeError(f"{at}: {error.str()}")
                self._report(Overrun(Assignment(*owned, self._owned[owned]), overrun))
        elif is_fatal(error):
            self._report(Failed(ConsumerFailedError(error.str())))
        elif (beyond := beyond_limits(error)) is not None:
            self._report(Failed(beyond))
        else:
            if not record.topic():
                self.refused_by = error.str()
            self._report(ClientError(f"{at}: {error.str()}" if record.topic() else error.str()))


def is_fatal(error: KafkaError) -> bool:
    """Tell whether the client is of no use any more.

    A consumer's fatal error comes as a message whose code says so, while its flag does not (confluent-kafka 2.16).
    """
    return error.fatal() or error.code() == KafkaError._FATAL


def event_of(record: Message, at: Partition, offset: int, incarnation: int = 0) -> SourceEvent:
    """Return a consumed record as what the relay knows it by. `incarnation`: of its topic (core/places.py)."""
    kind, milliseconds = record.timestamp()
    return SourceEvent(
        topic=at[0],
        partition=at[1],
        offset=offset,
        timestamp_ms=milliseconds if kind and milliseconds >= 0 else None,  # -1: its producer set none
        key=clients.raw(record.key()),
        value=clients.raw(record.value()),
        headers=clients.headers_of(record),
        incarnation=incarnation,
    )


def _more(first: Message) -> int:
    """Return how many records a batch has beside its first one."""
    return max(1, min(MAX_RECORDS - 1, MAX_BATCH_BYTES // max(1, len(first.value() or b""))))
