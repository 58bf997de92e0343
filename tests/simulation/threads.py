"""The source's and the journal's threads in the world, step by step.

They hold no rule: each takes what production's edge takes (source.py, journal.py) and gives it to the same Membership
and Transactions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from threading import Event
from types import MappingProxyType
from typing import cast

from confluent_kafka import Consumer

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, Partition
from consumer.kafka import clients as properties_of
from consumer.kafka.clients import Properties
from consumer.kafka.journal import MAX_WRITES
from consumer.kafka.membership import Membership
from consumer.kafka.source import BATCHES_AHEAD, Listener
from consumer.kafka.topics import RelayTopics
from consumer.kafka.transactions import Adoption, Transactions, Write
from consumer.kafka.transactions import Listener as JournalListener
from tests.simulation.kafka_clients import SimulatedClients, SimulatedConsumer
from tests.simulation.process import TOPICS, Process


class SimulatedSource:
    """consumer/kafka/source.py without its thread."""

    def __init__(
        self,
        properties: Properties,
        topics: Iterable[str],
        listener: Listener,
        *,
        clock: Clock,
        hand_over_s: float,
        beat: Callable[[], None],
    ) -> None:
        self._process = Process.all[str(properties["client.id"])]
        self._process.source = self
        self._listener = listener
        self.membership = Membership(topics, listener, clock=clock, hand_over_s=hand_over_s, wait=self._wait, beat=beat)
        self._requests: deque[Callable[[Consumer], None]] = deque()
        self._room = BATCHES_AHEAD
        self.started = False
        self._stopping = False
        self.left = False
        self._consumer = SimulatedConsumer(self._process, properties_of.member(properties))
        self.lag: Mapping[Partition, int] = MappingProxyType({})

    @property
    def alive(self) -> bool:
        return True  # a thread that dies takes its process with it: the world crashes whole processes

    @property
    def ownership(self) -> Ownership:
        return self.membership.ownership

    @property
    def joined(self) -> bool:
        return self.membership.joined

    def _wait(self, event: Event, seconds: float) -> bool:
        return self._process.wait(10 * seconds, event.is_set)  # in larger steps: nothing else looks

    def start(self) -> None:
        self.started = True
        self.membership.join(cast("Consumer", self._consumer))

    def counted(self, partitions: int) -> None:
        """librdkafka's statistics came."""
        self._listener.partitions_counted({TOPICS.source: partitions})

    def begin(self, assignment: Assignment, next_offset: int) -> None:
        def begin(consumer: Consumer) -> None:
            if not self.membership.begin(consumer, assignment, next_offset):
                self.begin(assignment, next_offset)

        self._requests.append(begin)

    def hold(self, paused: bool) -> None:
        self._process.scheduler.reach("the source was held" if paused else "the source went on")
        self._requests.append(lambda consumer: self.membership.hold(consumer, paused))

    def rejoin(self) -> None:
        self._requests.append(self.membership.rejoin)

    def batch_done(self) -> None:
        self._room += 1

    def stop(self) -> None:
        self._stopping = True

    def join(self, timeout_s: float) -> bool:
        return self._process.wait(timeout_s, lambda: self.left)

    @property
    def news(self) -> str | None:
        return "leave" if self._stopping else self._consumer.news

    def runnable(self) -> bool:
        if self.left or not self.started:
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


class _Noted:
    """A listener that notes the rarer facts before it passes them on."""

    def __init__(self, listener: JournalListener, process: Process) -> None:
        self._reach = process.scheduler.reach
        self._process = process
        self._listener = listener

    def committed(self, writes: list[Write], ownership_confirmed_at: float, seconds: float) -> None:
        self._listener.committed(writes, ownership_confirmed_at, seconds)

    def dropped(self, writes: list[Write]) -> None:
        self._reach("the journal dropped what was no longer owned")
        self._listener.dropped(writes)

    def pinned(self, assignment: Assignment, keys: list[Hashable]) -> None:
        self._reach("an old record pinned the mark")
        self._listener.pinned(assignment, keys)

    def recreated(self, assignment: Assignment) -> None:
        self._reach("a transaction met a delay topic that was made anew")
        self._listener.recreated(assignment)

    def too_large(self, write: Write, replacement: Write) -> None:
        self._reach("a record was too large")
        self._listener.too_large(write, replacement)

    def aborted(self, why: str) -> None:
        self._reach("a commit's outcome was unknown" if "unknown" in why else "a transaction was aborted")
        self._listener.aborted(why)

    def fenced(self, why: str) -> None:
        self._reach("a producer was fenced")
        if self._process.scheduler.twins:
            self._reach("a producer was fenced by another one of the same transactional.id")
        self._listener.fenced(why)


class SimulatedJournal:
    """consumer/kafka/journal.py without its thread."""

    def __init__(
        self,
        *,
        properties: Properties,
        transactional_id: str,
        topics: Mapping[str, RelayTopics],
        ownership: Callable[[], Ownership],
        clock: Clock,
        listener: JournalListener,
        replace_too_large: Callable[[Write], Write],
    ) -> None:
        self._process = Process.all[str(properties["client.id"])]
        self._process.journal = self
        self._queue: deque[Write | Adoption] = deque()
        self._clock = clock
        self.transactions = Transactions(
            SimulatedClients(self._process, transactional_id),
            topics=topics,
            ownership=ownership,
            clock=clock,
            pause=self._pause,
            listener=_Noted(listener, self._process),
            replace_too_large=replace_too_large,
        )
        self.failed: BaseException | None = None
        self._started = False
        self._begun = False

    def _pause(self, seconds: float) -> None:
        self._process.wait(seconds)

    def start(self) -> None:
        self._started = True

    def submit(self, items: Iterable[Write | Adoption]) -> None:
        self._queue.extend(items)

    @property
    def backlog(self) -> int:
        return len(self._queue)

    def stuck_for(self) -> float:
        return 0.0

    def stop(self, timeout_s: float) -> bool:
        self.transactions.end_at = self._clock() + timeout_s
        done = self._process.wait(timeout_s, lambda: not self._queue and "journal" not in self._process.busy)
        if done:
            self.transactions.end()
        return done

    def runnable(self) -> bool:
        return (bool(self._queue) or not self._begun) and self._started and self.failed is None

    def step(self) -> None:
        try:
            if not self._begun:
                self._begun = True
                self.transactions.begin()
                return
            most = MAX_WRITES if self._process.scheduler.chance(0.8) else 1
            items = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self.transactions.settle(items)
        except Exception as reason:  # noqa: BLE001 - the thread's edge, as in journal.py
            self.failed = reason
