"""EDGE. The source: the one thread that owns the Kafka consumer. Batches go in, ownership snapshots come out.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. Every call on the consumer comes from this thread. Everybody else leaves a request and reads `ownership`.
 2. The group metadata is read anew after every poll: a generation can change without a callback. A negative one is
    never published, because the broker does not check those.
 3. A new assignment stays paused until its delay partition is restored (`begin`); what the client hands out before
    that, or out of turn, is dropped. Only partitions that this process paused are resumed.
 4. On revoke nothing is given away before what is in flight is settled, for at most HAND_OVER_S; on lost, at once.
 5. While everything is paused for back-pressure the polls go on (max.poll.interval.ms).
 6. A fatal error, and an offset that the broker no longer holds, end the process with their name; never a silent reset.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer import kafka
from consumer.ownership import Assignment, Ownership, Partition, generation
from consumer.records import SourceEvent
from consumer.restore import OffsetOutOfRangeError

POLL_S = 0.1  # how long a request of another thread waits at the most
MOST_RECORDS = 500  # per batch: some 20 ms of decoding and routing on the event loop
BATCHES_AHEAD = 2  # one that the event loop works on and one that waits
# A request in flight ends after twice its time-out (10 s unless set otherwise): then its outcome is known and saved.
HAND_OVER_S = 20.0
LAG_EVERY_S = 1.0

_RESET = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET})

Batch = list[tuple[Assignment, list[SourceEvent]]]


class Listener(Protocol):
    """Who hears of the source's facts. Called on the source's thread: hand over and return."""

    def assigned(self, assignments: list[Assignment]) -> None:
        """These are ours now; restore them, then `begin` each."""

    def revoked(self, assignments: list[Assignment], settled: threading.Event) -> None:
        """Start nothing more for these, finish what is in flight, then set `settled`."""

    def lost(self, assignments: list[Assignment]) -> None:
        """These are somebody else's already."""

    def consumed(self, batch: Batch) -> None:
        """Records in the order of their offsets. Call `batch_done` for each batch."""

    def statistics(self, statistics: Mapping[str, object]) -> None:
        """Figures of librdkafka's own (its STATISTICS.md), some seconds apart."""

    def partitions_counted(self, counts: Mapping[str, int]) -> None:
        """So many partitions does each source topic have."""

    def trouble(self, why: str) -> None:
        """Something is wrong that the client mends by itself, or that its operator must."""

    def failed(self, error: Exception) -> None:
        """The end: this source will not go on."""


class Source:
    """The consumer and its thread. Methods may be called from any thread and never block, save `join`."""

    def __init__(
        self, properties: kafka.Properties, topics: Iterable[str], listener: Listener, beat: Callable[[], None]
    ) -> None:
        """`beat` is called whenever the thread shows life."""
        self._properties = properties
        self._topics = list(topics)
        self._listener = listener
        self._beat = beat
        self._requests: deque[Callable[[Consumer], None]] = deque()
        self._room = threading.Semaphore(BATCHES_AHEAD)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._epoch = 0
        self._owned: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}  # the partitions that began, and their next offsets
        self._held = False
        self._handed_over = False
        self._metadata: bytes | None = None
        self._lag_at = 0.0
        self.ownership = Ownership()
        self.lag: Mapping[Partition, int] = MappingProxyType({})
        self.joined = False

    # -- from any thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which joins the group."""
        self._thread.start()

    def begin(self, assignment: Assignment, next_offset: int) -> None:
        """Consume a restored partition from `next_offset` on."""
        self._requests.append(lambda consumer: self._begin(consumer, assignment, next_offset))

    def hold(self, held: bool) -> None:
        """Pause everything for back-pressure, or go on."""
        self._requests.append(lambda consumer: self._hold(consumer, held))

    def rejoin(self) -> None:
        """Give up every partition at once and join the group anew."""
        self._requests.append(self._rejoin)

    def batch_done(self) -> None:
        """A batch was taken in: there is room for another one."""
        self._room.release()

    def stop(self) -> None:
        """Hand everything over, leave the group, end."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; tells whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- on the source's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            consumer = Consumer(
                {**kafka.member(self._properties), "stats_cb": self._on_statistics, "error_cb": self._on_error},
                logger=kafka.LOGGER,
            )
            consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stopping.is_set():
                self._poll(consumer)
            self._hand_over(list(self._owned), consumer)
            self._handed_over = True
            consumer.close()
        except Exception as error:  # noqa: BLE001 - the thread's edge: it ends the process, loudly
            self._listener.failed(error)

    def _poll(self, consumer: Consumer) -> None:
        # Room comes first, then the requests: who makes room may have asked to hold just before.
        has_room = self._room.acquire(timeout=POLL_S)
        for _ in range(len(self._requests)):
            self._requests.popleft()(consumer)
        if not has_room:
            return
        # The first record is waited for, the others are taken as they lie: a lone event is not kept waiting.
        first = consumer.poll(POLL_S)
        records = [first, *consumer.consume(MOST_RECORDS - 1, 0)] if first is not None else []
        self._publish(consumer)
        self._beat()
        if time.monotonic() - self._lag_at >= LAG_EVERY_S:
            self._measure_lag(consumer)
        batch = self._batch(records)
        if batch:
            self._listener.consumed(batch)
        else:
            self._room.release()

    def _batch(self, records: Iterable[Message]) -> Batch:
        by_partition: dict[Partition, list[SourceEvent]] = {}
        for record in records:
            error = record.error()
            if error is not None:
                self._on_record_error(record, error)
                continue
            at = (record.topic() or "", record.partition() or 0)
            offset = record.offset() or 0
            if offset >= self._next.get(at, offset + 1):
                self._next[at] = offset + 1
                by_partition.setdefault(at, []).append(_event(record, at, offset))
        return [(Assignment(*at, self._owned[at]), events) for at, events in by_partition.items()]

    def _begin(self, consumer: Consumer, assignment: Assignment, next_offset: int) -> None:
        at = (assignment.topic, assignment.partition)
        if self._owned.get(at) != assignment.epoch:
            return
        try:
            consumer.seek(TopicPartition(*at, next_offset))
        except KafkaException as error:
            if kafka.error_of(error).code() != KafkaError._STATE:
                raise
            # The client has not started this partition yet.
            self._requests.append(lambda consumer: self._begin(consumer, assignment, next_offset))
            return
        self._next[at] = next_offset
        if not self._held:
            consumer.resume([TopicPartition(*at)])

    def _hold(self, consumer: Consumer, held: bool) -> None:
        self._held = held
        partitions = [TopicPartition(*at) for at in self._next]
        if partitions:
            (consumer.pause if held else consumer.resume)(partitions)

    def _rejoin(self, consumer: Consumer) -> None:
        self._give_up(list(self._owned))
        consumer.unsubscribe()
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _publish(self, consumer: Consumer) -> None:
        metadata = consumer.consumer_group_metadata()
        if metadata != self._metadata and generation(metadata) >= 0:
            self._metadata = metadata
            self.joined = True
        elif self.ownership.owned == self._owned:
            return
        self.ownership = Ownership(self._metadata, MappingProxyType(dict(self._owned)))

    def _measure_lag(self, consumer: Consumer) -> None:
        self._lag_at = time.monotonic()
        lag: dict[Partition, int] = {}
        for at, next_offset in self._next.items():
            marks = consumer.get_watermark_offsets(TopicPartition(*at), cached=True)
            if marks is not None and marks[1] >= 0:
                lag[at] = max(0, marks[1] - next_offset)
        self.lag = MappingProxyType(lag)

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
            self._next.pop((each.topic, each.partition), None)
            assigned.append(Assignment(each.topic, each.partition, self._epoch))
        self.joined = True
        self._publish(consumer)
        if assigned:
            self._listener.assigned(assigned)

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
        for at in partitions:
            self._next.pop(at, None)
        settled = threading.Event()
        self._listener.revoked(revoked, settled)
        until = time.monotonic() + HAND_OVER_S
        while not settled.wait(POLL_S) and time.monotonic() < until:
            self._beat()
            self._publish(consumer)
        for at in partitions:
            self._owned.pop(at, None)
        self.ownership = Ownership(self._metadata, MappingProxyType(dict(self._owned)))

    def _give_up(self, partitions: list[Partition]) -> None:
        lost = [Assignment(*at, self._owned.pop(at)) for at in partitions if at in self._owned]
        for at in partitions:
            self._next.pop(at, None)
        self.ownership = Ownership(self._metadata, MappingProxyType(dict(self._owned)))
        if lost:
            self._listener.lost(lost)

    def _on_statistics(self, statistics: str) -> None:
        figures = json.loads(statistics)
        self._listener.statistics(figures)
        known = figures.get("topics", {})
        # -1 is librdkafka's own partition of a topic that it knows too little of.
        counts = {topic: len(known[topic]["partitions"].keys() - {"-1"}) for topic in self._topics if topic in known}
        self._listener.partitions_counted({topic: count for topic, count in counts.items() if count})

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._listener.failed(KafkaException(error))
        else:
            self._listener.trouble(error.str())

    def _on_record_error(self, record: Message, error: KafkaError) -> None:
        at = f"{record.topic()}[{record.partition()}]"
        if error.code() in _RESET:
            self._listener.failed(OffsetOutOfRangeError(f"{at}: {error.str()}"))
        elif error.fatal():
            self._listener.failed(KafkaException(error))
        else:
            self._listener.trouble(f"{at}: {error.str()}" if record.topic() else error.str())


def _event(record: Message, at: Partition, offset: int) -> SourceEvent:
    kind, milliseconds = record.timestamp()
    return SourceEvent(
        topic=at[0],
        partition=at[1],
        offset=offset,
        timestamp_ms=milliseconds if kind else None,
        key=_raw(record.key()),
        value=_raw(record.value()),
        headers=_headers(record),
    )


def _headers(record: Message) -> list[tuple[str, bytes | None]]:
    try:
        headers = record.headers() or []
    except UnicodeDecodeError:
        # confluent-kafka cannot show a header whose name is not UTF-8, nor any beside it. The event itself is whole.
        return []
    return [(name, _raw(value)) for name, value in (headers.items() if isinstance(headers, dict) else headers)]


def _raw(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
