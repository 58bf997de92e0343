"""One relay process in the simulation: the real Relay on models of its threads (threads.py) and its clients.

A call into a client is where other things may happen meanwhile (`meanwhile`), where a process dies (`CrashedError`) or
stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment
from consumer.kafka.topics.topics import RelayTopics
from consumer.relay.loop import Relay
from schemas.pending_action import SourceIdentity
from tests.simulation.event_loop import Handle, VirtualLoop
from tests.simulation.kafka_model import Kafka

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler
    from tests.simulation.threads import SimulatedJournal, SimulatedSource

TOPICS = RelayTopics("orders", "orders.delay", "orders.dead-letters", "orders.outcomes")
SOURCE = SourceIdentity(group="relay", cluster_id="cluster", topic=TOPICS.source, topic_id="topic-0")
CONTROL = "relay.engage.control"
HANGS_S = 60.0  # after that a process is killed: its threads wait for each other


class CrashedError(BaseException):
    """The process is dead: nothing of it runs any more."""


class Process:
    """A process. `busy` names its threads that are in the midst of a call."""

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        incarnation: int,
        identity: SourceIdentity = SOURCE,
        *,
        kafka: Kafka | None = None,
        topics: RelayTopics = TOPICS,
    ) -> None:
        """`identity`: of the source, as the process finds it at its start. `kafka`: as its group knows it."""
        self.scheduler = scheduler
        self.identity = identity
        self.kafka = kafka or scheduler.kafka
        self.topics = topics
        self.name = name
        self.id = f"{name}.{incarnation}"
        self.alive = True
        self.frozen = False
        self.cut = False
        self.ended = False
        self.busy: set[str] = set()
        self.loop = VirtualLoop(lambda: scheduler.now, self._call_at, scheduler.broken)
        self.clock: Clock
        self.source: SimulatedSource
        self.journal: SimulatedJournal
        self.relay: Relay
        self.thawing: list[Handle] = []  # what came due while it was frozen
        self._stopped: asyncio.Event
        self._deadlines: list[float] = []

    def start(self, relay: Relay) -> None:
        self.relay = relay
        self._stopped = asyncio.Event()
        self.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.relay.run(self._stopped)
        except Exception as reason:  # noqa: BLE001 - the process's exit
            self.scheduler.process_failed(self, reason)
        self.ended = True
        self.scheduler.ended(self)

    def _call_at(self, when: float, handle: Handle) -> None:
        self.scheduler.wake(when, self, handle)

    def terminate(self) -> None:
        self.loop.call_soon(self._stopped.set)

    @property
    def is_neighbour(self) -> bool:
        """Whether it is of another group than the one that the oracle judges (neighbour.py)."""
        return self.kafka is not self.scheduler.kafka

    @property
    def control(self) -> str:
        """Return its group's control topic."""
        return f"{self.identity.group}.engage.control"

    @property
    def responsive(self) -> bool:
        return self.alive and not self.frozen and not self.cut and not self.ended

    def holds(self, assignment: Assignment) -> bool:
        """Whether it knows no better than that the partition, and what is pending there, is its own."""
        given_up = self.journal.transactions._partitions.given_up
        return self.source.ownership.covers(assignment) and assignment not in given_up

    def meanwhile(self, where: str) -> None:
        """Other things happen while this process is here."""
        self.scheduler.meanwhile(self, where)
        if self.frozen or not self.alive:
            self.stand_still()

    def stand_still(self) -> None:
        while self.alive and self.frozen:
            self.scheduler.step()
        if not self.alive:
            raise CrashedError

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass for a thread of this process."""
        deadline = self.scheduler.now + seconds
        self.scheduler.at(deadline)
        self._deadlines.append(deadline)
        try:
            while not until():
                if self.scheduler.now >= deadline:
                    return False
                # Calls are nested here: who waits for a thread that itself waits further out would wait for ever.
                if self.scheduler.now > self._deadlines[0] + HANGS_S:
                    self.scheduler.hung(self)
                self.scheduler.step()
                if self.frozen or not self.alive:
                    self.stand_still()
            return True
        finally:
            self._deadlines.remove(deadline)
