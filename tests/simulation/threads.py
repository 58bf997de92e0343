"""The source's and the journal's threads in the simulation, step by step.

They hold no rule: each takes what production's edge takes (source.py, journal.py) and gives it to the same Membership
and Transactions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from threading import Event
from types import MappingProxyType
from typing import cast

from confluent_kafka import Consumer

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, Partition
from consumer.core.progress import Reading
from consumer.errors import IdentityError
from consumer.kafka import clients
from consumer.kafka.clients import Properties
from consumer.kafka.facts import Consumed, Failed, PartitionsCounted, Report
from consumer.kafka.identity.identity import check_ids
from consumer.kafka.journal.low_water_mark import Pinning
from consumer.kafka.journal.transactions import Transactions
from consumer.kafka.journal.waiting_writes import MAX_WRITES
from consumer.kafka.journal.writes import Item, goes_on
from consumer.kafka.source.membership import Membership
from consumer.kafka.source.source import BATCHES_AHEAD
from consumer.relay.outbox import replace_too_large
from tests.simulation.kafka_clients import SimulatedClients, SimulatedConsumer
from tests.simulation.process import TOPICS, Process

_NAMES = count()


class SimulatedSource:
    """consumer/kafka/source/source.py without its thread."""

    def __init__(self, process: Process, properties: Properties, report: Report) -> None:
        self._process = process
        self._report = report
        self.membership = Membership(
            [TOPICS.source],
            report,
            clock=process.clock,
            wait=self._wait,
            beat=lambda: None,
            confirm=self._confirm,
            incarnations={TOPICS.source: process.identity.incarnation},
        )
        self._requests: deque[Callable[[Consumer], None]] = deque()
        self._room = BATCHES_AHEAD
        self.started = False
        self._stopping = False
        self.left = False
        self._consumer = SimulatedConsumer(process, clients.member(properties))
        self.readings: Mapping[Partition, Reading] = MappingProxyType({})

    @property
    def alive(self) -> bool:
        return True  # a thread that dies takes its process with it: the scheduler crashes whole processes

    @property
    def ownership(self) -> Ownership:
        return self.membership.ownership

    def owns(self, assignment: Assignment) -> bool:
        return self.membership.ownership.covers(assignment)

    joining = None

    @property
    def joined(self) -> bool:
        return self.membership.joined

    def _wait(self, event: Event, seconds: float) -> bool:
        return self._process.wait(10 * seconds, event.is_set)  # in larger steps: nothing else looks

    def _confirm(self) -> None:
        """Be SourceWatch.confirm."""
        check_ids({TOPICS.source: self._process.identity}, {TOPICS.source: self._process.scheduler.kafka.topic_id})

    def look(self) -> None:
        """Be SourceWatch.look."""
        try:
            self._confirm()
        except IdentityError as error:
            self._report(Failed(error))
            self.left = True

    def start(self) -> None:
        self.started = True
        self.membership.join(cast("Consumer", self._consumer))

    def counted(self, partitions: int) -> None:
        """librdkafka's statistics came."""
        self._report(PartitionsCounted({TOPICS.source: partitions}))

    def begin(self, assignment: Assignment, next_offset: int) -> None:
        def begin(consumer: Consumer) -> None:
            if not self.membership.begin(consumer, assignment, next_offset):
                self.begin(assignment, next_offset)

        self._requests.append(begin)

    def pause(self) -> None:
        self._process.scheduler.reach("the source was paused")
        self._requests.append(self.membership.pause)

    def resume(self) -> None:
        self._process.scheduler.reach("the source was resumed")
        self._requests.append(self.membership.resume)

    def hold(self, assignment: Assignment) -> None:
        self._requests.append(lambda consumer: self.membership.hold(consumer, assignment))

    def release(self, assignment: Assignment) -> None:
        self._requests.append(lambda consumer: self.membership.release(consumer, assignment))

    def readopt(self, assignment: Assignment) -> None:
        self._requests.append(lambda consumer: self.membership.readopt(consumer, assignment))

    def rejoin(self) -> None:
        self._requests.append(self.membership.rejoin)

    def batch_done(self) -> None:
        self._room += 1

    def stop(self) -> None:
        self._stopping = True

    def join(self, timeout_s: float) -> bool:
        return self._process.wait(timeout_s, lambda: self.left)

    def refuse(self) -> None:
        """The group does not take this member any more."""
        self._consumer.refuse()

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
                if self.membership.joined and not self._consumer.was_let_in:
                    self._process.scheduler.violate(f"{self._process.id} is ready before the group let it in")
                if batch:
                    self._room -= 1
                    self._report(Consumed(batch))
        except Exception as reason:  # noqa: BLE001 - the thread's edge, as in source.py
            self._report(Failed(reason))
            self.left = True


class SimulatedJournal:
    """consumer/kafka/journal/journal.py without its thread."""

    def __init__(self, process: Process, transactional_id: str, pinning: Pinning, report: Report) -> None:
        self._process = process
        self._queue: deque[Item] = deque()
        self._clock: Clock = process.clock
        self.transactions = Transactions(
            SimulatedClients(process, transactional_id),
            topics={TOPICS.source: process.topics},
            identities={TOPICS.source: process.identity},
            ownership=lambda: process.source.ownership,
            clock=process.clock,
            pause=self._pause,
            report=report,
            replace_too_large=partial(replace_too_large, clock=process.clock, tracing=None),
            control=process.control,
            pinning=pinning,
            new_name=lambda: f"transaction {next(_NAMES)}",
        )
        self.failed: BaseException | None = None
        self._started = False
        self._begun = False

    def _pause(self, seconds: float) -> None:
        self._process.wait(seconds)

    def start(self) -> None:
        self._started = True

    def submit(self, items: Iterable[Item]) -> None:
        self._queue.extend(items)

    @property
    def backlog(self) -> int:
        return len(self._queue)

    @property
    def backlog_bytes(self) -> int:
        return 0

    def stuck_for(self) -> float:
        return 0.0

    def stop(self, timeout_s: float) -> bool:
        self.transactions.end_by(self._clock() + timeout_s)
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
            while self._queue and goes_on(items):
                items.append(self._queue.popleft())
            self.transactions.settle(items)
        except Exception as reason:  # noqa: BLE001 - the thread's edge, as in journal.py
            self.failed = reason
