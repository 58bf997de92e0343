"""A second relay, of another group, on the source of the one that the oracle judges.

It has topics of its own, or its file names the same ones by mistake. It runs the same code, against an Engage of its
own that refuses nothing.

What must hold (mutations of the production code that break it: neighbour_mutants.py):
 1. Where the delay topic belongs to another group, it does not start: it writes nothing there and sends nothing.
 2. With topics of its own it acts upon each event for itself, and ends it. What it does the other one never notices:
    the oracle judges that one as if it were alone.
 3. Each ignores what the other one's dead letters redrove, and takes what its own ones did.
 4. It sends an action again only in doubt: its end is not committed, and its partition was given up since (by a crash,
    a rebalance, a broker that takes nothing of it).
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast

from consumer.core.effects import Document
from consumer.core.outcomes import (
    Accepted,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    NotReady,
    PollOutcome,
    Ready,
    Unavailable,
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.engage.client import Permit, at_once
from consumer.engage.http import MaySend
from consumer.errors import IdentityError
from consumer.kafka.control.records import PARTITION
from consumer.kafka.identity.identity import verified
from consumer.kafka.records.positions import position_value
from consumer.kafka.topics.topics import RelayTopics
from schemas.engage import ActionRequest, Change
from schemas.pending_action import POSITION_KEY
from tests.simulation.kafka_model import Kafka, Log, Transaction
from tests.simulation.outcomes import is_mark, source_place
from tests.simulation.process import SOURCE, TOPICS, Process
from tests.simulation.wiring import relay_of
from tests.simulation.workload import REDRIVEN_ELSEWHERE, redriven_elsewhere

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler

Kind = Literal["own topics", "same topics"]
NAME = "neighbour"
IDENTITY = SOURCE.model_copy(update={"group": "staging"})
OWN_TOPICS = RelayTopics("orders", "staging.delay", f"{TOPICS.dead_letters}-staging", "staging.outcomes")
STARTS = 4  # of one that is refused: whoever watches it starts it again
AGAIN_IN_S = (1.0, 10.0, 60.0)


class Neighbour:
    """The other relay, its group, and what it did."""

    def __init__(self, scheduler: Scheduler, kind: Kind) -> None:
        self._scheduler = scheduler
        self._is_guest = kind == "same topics"
        self.topics = TOPICS if self._is_guest else OWN_TOPICS
        self.kafka: Kafka = scheduler.kafka.beside()
        self.kafka.on_committed = self._committed
        self.process: Process | None = None
        self._accepted: Counter[int] = Counter()
        self._accepted_in: set[tuple[int, str, int | None]] = set()  # event, process, and the partition's epoch in it
        self._ended: set[tuple[int, bytes | None]] = set()  # delay partition and key of a tombstone
        self._dead_letters: Counter[tuple[int, int]] = Counter()
        self._starts = 0
        self.kafka.logs[f"{IDENTITY.group}.engage.control", PARTITION] = Log("control", PARTITION)
        if not self._is_guest:
            for number in scheduler.numbers:
                for topic in self.topics.own:
                    self.kafka.logs[topic, number] = Log(topic, number)
                position = position_value(IDENTITY, number, 0)
                self.kafka.logs[self.topics.delay, number].append(POSITION_KEY, position, scheduler.now)
            for _ in range(scheduler.pick((0, 1, 2))):
                scheduler.expect(scheduler.pick(AGAIN_IN_S), self._redrive)
            for _ in range(scheduler.pick((0, 0, 1, 2))):
                scheduler.at(scheduler.now + scheduler.pick(AGAIN_IN_S), self._crash)
        scheduler.at(scheduler.now + scheduler.pick((0.0, *AGAIN_IN_S)), self.start)

    # -- the process --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, where it does not run and has a right to (initial_offsets.settle_start)."""
        if self.process is not None:
            return
        self._starts += 1
        identity = IDENTITY
        if self._is_guest:
            present = IDENTITY.model_copy(update={"topic_id": self._scheduler.kafka.topic_id})
            try:
                named = verified(TOPICS, self._scheduler.recorded_positions, present)
            except IdentityError:
                self._scheduler.reach("a second group on the delay topic was refused")
                named = None
            if named is None:  # refused, or the delay topic was recreated: two accidents at once
                if self._starts < STARTS:
                    self._scheduler.at(self._scheduler.now + self._scheduler.pick(AGAIN_IN_S), self.start)
                return
            identity = named
        process = Process(self._scheduler, NAME, self._starts, identity, kafka=self.kafka, topics=self.topics)
        self.process = process
        self._scheduler.run_beside(process)
        process.start(relay_of(self._scheduler, process, NeighbourEngage))

    def _crash(self) -> None:
        if self.process is not None:
            self._scheduler.reach("a second group's relay crashed")
            self._scheduler.crash(self.process, back_after_s=self._scheduler.pick(AGAIN_IN_S))

    def ended(self) -> None:
        """Its process is over."""
        self.process = None

    def moves(self) -> bool:
        """Let its group begin a generation, if it can."""
        if not self.kafka.can_rebalance():
            return False
        self.kafka.rebalance()
        return True

    # -- what it does -------------------------------------------------------------------------------------------

    def accepts(self, number: int) -> None:
        """Its Engage takes an action."""
        event = self._scheduler.events[number]
        self._scheduler.say(f"the neighbour's Engage accepts event {number}")
        assert self.process is not None
        epoch = self.process.source.ownership.owned.get((TOPICS.source, event.partition))
        ownership = number, self.process.id, epoch
        is_in_doubt = ownership not in self._accepted_in and (event.partition, event.key) not in self._ended
        self._accepted[number] += 1
        self._accepted_in.add(ownership)
        if self._is_guest:
            self._scheduler.violate(f"a relay of another group on the delay topic sends event {number}")
        elif event.first is not None:
            self._scheduler.violate(f"event {number} is sent by a relay whose dead letter it does not redrive")
        elif self._accepted[number] > 1 and not is_in_doubt:
            self._scheduler.violate(f"event {number} is sent again by a second group that is not in doubt")

    def _committed(self, transaction: Transaction, torn: bool) -> None:
        """Look at a transaction of its own."""
        for log, record in transaction.records:
            if log.topic not in self.topics.own or self._is_guest:
                self._scheduler.violate(f"a relay of another group writes to {log.topic}[{log.partition}]")
            elif log.topic == self.topics.dead_letters and not is_mark(record):
                self._dead_letters[log.partition, source_place(record.headers)] += 1
                self._scheduler.expect(self._scheduler.pick(AGAIN_IN_S), self._redrive)
            elif log.topic == self.topics.delay and record.value is None and not torn:
                self._ended.add((log.partition, record.key))

    def _redrive(self) -> None:
        """Be its operator, and redrive one of its dead letters, or what might be one."""
        scheduler = self._scheduler
        fitting = [each for each in scheduler.events if each.kind == "action" and each.offset >= 0 and not each.first]
        if not fitting or scheduler.healing:
            return
        event = redriven_elsewhere(scheduler.pick(fitting), len(scheduler.events), self.topics.dead_letters)
        scheduler.events.append(event)
        scheduler.put(event, scheduler.events[-1].partition)
        scheduler.reach("a dead letter of a second group was redriven")

    # -- the end ------------------------------------------------------------------------------------------------

    def quiet(self) -> bool:
        """Whether it has nothing to do any more."""
        if self._is_guest:
            return True
        if self.process is None or not self._scheduler.is_idle(self.process):
            return False
        for number in self._scheduler.numbers:
            position = self.kafka.committed.get((TOPICS.source, number), (0, None))[0]
            at_end = position == self.kafka.logs[TOPICS.source, number].end
            if not at_end or self.kafka.logs[self.topics.delay, number].live:
                return False
        return True

    def heal(self) -> None:
        """Let it run."""
        if not self._is_guest:
            self.start()

    def close(self) -> None:
        """All has ended: each event ended as it must (rules 2 and 3)."""
        if self._is_guest:
            return
        for number in self._scheduler.numbers:
            for event in self._scheduler.oracle.events[number]:
                ends = self._accepted[event.number], self._dead_letters[number, event.place]
                is_known = event.first is None and event.kind not in ("unrouted", "tombstone")
                if any(ends) != is_known:
                    wrong = f"{ends[0]} times accepted by a second group, and {ends[1]} dead letters of it"
                    self._scheduler.violate(f"event {event.number} ({event.kind}): {wrong}")
                if event.first is not None:
                    self._scheduler.reach("a second group ignored what another one's dead letter redrove")
                if event.kind == REDRIVEN_ELSEWHERE:
                    self._scheduler.reach("a second group's own redrive was sent by it alone")


class NeighbourEngage:
    """Its Engage: nothing is refused, some is answered late."""

    def __init__(self, process: Process, _: str) -> None:
        self._process = process
        self._scheduler = process.scheduler

    async def _asked(self) -> None:
        if self._scheduler.chance(0.5):
            loop = self._process.loop
            future = loop.create_future()
            loop.call_later(self._scheduler.pick((0.01, 0.1, 1.0)), future.set_result, None)
            await future

    def _accepts(self, number: object) -> None:
        neighbour = self._scheduler.neighbour
        assert neighbour is not None
        neighbour.accepts(int(cast("int", number)))

    async def poll_job(self, job_id: str, permit: Permit, *, order_id: str) -> PollOutcome:
        return await self._poll()

    async def poll_order(
        self, order_id: str, newer_than: datetime | None = None, permit: Permit = at_once
    ) -> PollOutcome:
        return await self._poll()

    async def _poll(self) -> PollOutcome:
        await self._asked()
        match self._scheduler.pick(("ready", "ready", "not yet", "gone")):
            case "not yet":
                return NotReady()
            case "gone":
                return Unavailable("503")
        return Ready("tag")

    async def send_document(
        self, order_id: str, document: dict[str, object], permit: Permit, may_send: MaySend, how: Document
    ) -> DocumentOutcome:
        return await self._taken(may_send)

    async def send_change(
        self, order_id: str, change: Change, body: dict[str, object], may_send: MaySend
    ) -> DocumentOutcome:
        return await self._taken(may_send)

    async def _taken(self, may_send: MaySend) -> Withdrawn | DocumentTaken:
        await self._asked()
        return DocumentTaken(None) if may_send() else Withdrawn()

    async def send_with_document(
        self, order_id: str, document: dict[str, object], permit: Permit, may_send: MaySend, how: Document
    ) -> WithDocumentOutcome:
        taken = await self._taken(may_send)
        if isinstance(taken, DocumentTaken):
            self._accepts(document["n"])
        return taken

    async def send_action(self, order_id: str, request: ActionRequest, may_send: MaySend) -> ActionOutcome:
        await self._asked()
        if not may_send():
            return Withdrawn()
        self._accepts(request.data)
        return Accepted()

    async def aclose(self) -> None:
        """Nothing to close."""
