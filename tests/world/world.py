"""A schedule: what happens, in which order, and what must hold after each step.

What may happen, drawn from the seed: any thread of any process takes its next step, or stands in the midst of a call
while others do; events come; time passes; processes crash, freeze, are cut off from Kafka, stop by the rules, come
back; partitions change hands; requests are lost, answered in vain, or arrive late; offsets expire, records are
compacted or deleted; Engage gives every answer there is.

What must hold is account.py's.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import cast

from prometheus_client import CollectorRegistry

import consumer.relay
from consumer import low_water_mark
from consumer.admin import Heartbeats
from consumer.engage import EngageClient
from consumer.ledger import Policy
from consumer.metrics import Metrics
from consumer.pacing import Pace, PollSchedule
from consumer.records import position_value
from consumer.relay import Connection, Relay
from consumer.restore import OffsetOutOfRangeError
from schemas.pending_action import POSITION_KEY
from tests.world.account import BUDGET, Account
from tests.world.clients import WorldReader
from tests.world.engage import WorldEngage
from tests.world.events import ROUTER, drawn
from tests.world.instance import TOPICS, CrashedError, Instance
from tests.world.kafka import Kafka
from tests.world.threads import WorldJournal, WorldSource

START = 1_700_000_000.0
DEADLINE_S = 600.0
MOST_STEPS = 60_000
MOST_NESTED = 10
HEALED_WITHIN_S = 6 * 3600.0

FAULTS = (
    "crash", "crash", "crash there", "crash there", "freeze", "freeze there", "freeze there", "long freeze", "cut",
    "stop", "start", "reshuffle", "forget marks", "forget offsets", "compact", "delete records",
)  # fmt: skip
FAIL_POINTS = (
    "init", "flush", "between two records", "offsets", "commit", "after commit", "committed", "watermarks", "reading",
)  # fmt: skip
METRICS = Metrics(CollectorRegistry())
POLICY = Policy(PollSchedule(initial_s=1.0), deadline_s=DEADLINE_S, not_found_grace_s=60.0)


class ViolationError(BaseException):
    """Something that must hold did not. Holds the seed."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How large and how wild a schedule is."""

    instances: int
    partitions: int
    events: int
    faults: int
    trouble: float  # the share of Engage's answers that are no success
    unreliable: float  # the share of requests to Kafka that go wrong
    nesting: float
    most_pending: int
    session_s: float

    @classmethod
    def drawn(cls, draw: random.Random) -> Profile:
        size = draw.random()
        if size < 0.2:
            return cls.storm(draw)
        small = size < 0.7
        return cls(
            instances=1 if small else draw.randint(1, 3),
            partitions=1 if small else draw.randint(1, 3),
            events=draw.randint(1, 4) if small else draw.randint(2, 10),
            faults=draw.choice((0, 1, 1, 2)) if small else draw.randint(0, 8),
            trouble=draw.choice((0.0, 0.1, 0.4)),
            unreliable=draw.choice((0.0, 0.0, 0.05, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            most_pending=draw.choice((2, 4, 1000)),
            session_s=draw.choice((45.0, 6.0, 3.0)),
        )

    @classmethod
    def short(cls, draw: random.Random) -> Profile:
        """Much is found in little: see how many of these a second holds."""
        return cls(
            instances=1,
            partitions=1,
            events=draw.randint(1, 2),
            faults=draw.randint(0, 1),
            trouble=draw.choice((0.0, 0.2)),
            unreliable=draw.choice((0.0, 0.1)),
            nesting=draw.choice((0.0, 0.3)),
            most_pending=draw.choice((1, 1000)),
            session_s=draw.choice((45.0, 3.0)),
        )

    @classmethod
    def storm(cls, draw: random.Random) -> Profile:
        """Partitions change hands faster than transactions time out."""
        return cls(
            instances=3,
            partitions=draw.randint(1, 2),
            events=draw.randint(2, 5),
            faults=draw.randint(4, 10),
            trouble=0.1,
            unreliable=draw.choice((0.0, 0.05)),
            nesting=draw.choice((0.2, 0.5)),
            most_pending=1000,
            session_s=draw.choice((3.0, 6.0)),
        )


class World:
    """One schedule."""

    def __init__(
        self, seed: int, *, profile: Profile | None = None, trace: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.profile = profile or Profile.drawn(self.draw)
        self.trace = trace
        self.now = START
        self.reached: Counter[str] = Counter()
        self.steps = 0
        self.depth = 0
        self.members = 0
        self.serials = 0
        self.healing = False
        self._violation: str | None = None
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._delayed: list[Callable[[], None]] = []
        self._incarnations = 0
        self._faults_left = self.profile.faults
        self._fail_points: dict[str, tuple[str, str]] = {}
        topics = (TOPICS.source, TOPICS.delay, TOPICS.dead_letters)
        self.kafka = Kafka(lambda: self.now, TOPICS.source, self.profile.partitions, topics, self.profile.session_s)
        self.account = Account(self, self.profile.partitions)
        self.kafka.on_offsets = self.account.offsets_sent
        self.kafka.on_committed = self.account.committed
        for number in range(self.profile.partitions):
            self.kafka.logs[TOPICS.delay, number].append(POSITION_KEY, position_value(0), self.now)
        self.events = [drawn(self.draw, n, self.profile.partitions, START) for n in range(self.profile.events)]
        self.unpublished = deque(self.events)
        self.instances: dict[str, Instance | None] = {}
        self._dead: list[Instance] = []

    # -- what others ask ----------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        return self.draw.random() < share

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.steps:6} {self.now - START:10.3f} {'  ' * self.depth}{text}")

    def reach(self, state: str) -> None:
        self.reached[state] += 1
        if self.trace is not None:
            self.say(f"reached: {state}")

    def violate(self, what: str) -> None:
        self.say(f"VIOLATION: {what}")
        if self._violation is None:
            self._violation = what

    def broken(self, error: BaseException) -> None:
        self.violate(f"{type(error).__name__}: {error}")

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, call))

    def delay(self, call: Callable[[], None]) -> None:
        """Let a request arrive later."""
        self._delayed.append(call)

    def fate(self, call: str) -> str:
        """What becomes of a request to Kafka."""
        if self.healing or not self.chance(self.profile.unreliable):
            return "ok"
        fates = ("lost", "answer lost", "late", "echo") if call in ("commit", "abort") else ("lost", "answer lost")
        fate = self.draw.choice(fates)
        self.reach(f"{call}: {fate}")
        return fate

    def trouble(self, troubles: tuple[str, ...]) -> str:
        if self.healing or not self.chance(self.profile.trouble):
            return "ok"
        return self.draw.choice(troubles)

    def instance_failed(self, instance: Instance, error: Exception) -> None:
        self.say(f"{instance.id} ends: {type(error).__name__}: {error}")
        if not isinstance(error, OffsetOutOfRangeError):
            self.broken(error)
            return
        self.reach("a process ended for an offset that is out of range")

    def ended(self, instance: Instance) -> None:
        """A process is over; whoever watches it starts it again."""
        self.say(f"{instance.id} is over")
        self.crash(instance)
        self.at(self.now + self.draw.choice((1.0, 60.0)), lambda: self._start_again(instance.name))

    def _decide(self, number: int) -> None:
        """Be the operator, who was told that records were deleted unread."""
        at = (TOPICS.source, number)
        log = self.kafka.logs[at]
        position = self.account.position(number)
        at_work = any(i is not None and i.source.membership.ownership.owned.get(at) for i in self.instances.values())
        if position < log.start and not at_work and not self.kafka.undecided([at]):
            for event in self.account.by_offset[number][position : log.start]:
                event.deleted = True
            self.kafka.committed[at] = (log.start, None)
            self.account.positions[number] = log.start

    # -- a step -------------------------------------------------------------------------------------------------

    def step(self, *, waits: bool = True) -> bool:
        """Let one thing happen. Where nothing can, time passes, unless nobody `waits`; tells whether something did."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise ViolationError(f"seed {self.seed}: no end in sight after {MOST_STEPS} steps")
        draw = self.draw
        choices: list[tuple[Callable[..., None], Instance | None]] = []
        busy_loop = False
        for instance in self.instances.values():
            if instance is None or instance.frozen:
                continue
            if instance.loop.ready:
                busy_loop = True
                choices.append((self._step_loop, instance))
            if "journal" not in instance.busy and instance.journal.runnable():
                choices.append((self._step_journal, instance))
            if "source" not in instance.busy and instance.source.runnable():
                # A hand-over waits for the journal: seldom begin one that can only overrun.
                waits = "journal" in instance.busy and instance.source.news in ("revoke", "leave")
                if not waits or draw.random() < 0.02:
                    choices.append((self._step_source, instance))
            if instance.loop.jobs and any(kind not in instance.busy for kind, _ in instance.loop.jobs):
                choices.append((self._step_job, instance))
        if self.unpublished and (not choices or draw.random() < 0.3):
            choices.append((self.publish, None))
        if self.kafka.restless and self.kafka.can_rebalance():
            choices.append((self._rebalance, None))
        if self._faults_left and draw.random() < 0.03:
            self._faults_left -= 1
            choices = [(self._fault, None)]
        if self._delayed and (self.healing or draw.random() < 0.1):
            choices.append((self._arrive, None))
        if not choices:
            if not waits:
                return False
            self._let_time_pass()
        elif not busy_loop and not self.healing and draw.random() < 0.05:
            self._be_slow()
        else:
            act, instance = choices[draw.randrange(len(choices))] if len(choices) > 1 else choices[0]
            if instance is None:
                act()
            else:
                self.depth += 1
                try:
                    act(instance)
                except CrashedError:
                    pass
                finally:
                    self.depth -= 1
        if self._violation is not None:
            raise ViolationError(f"seed {self.seed}: {self._violation}")
        return True

    def _step_loop(self, instance: Instance) -> None:
        instance.loop.run_ready(1000 if self.draw.random() < 0.8 else 1)

    def _step_journal(self, instance: Instance) -> None:
        self._in(instance, "journal", instance.journal.step)

    def _step_source(self, instance: Instance) -> None:
        self._in(instance, "source", instance.source.step)

    def _step_job(self, instance: Instance) -> None:
        kind, job = next(each for each in instance.loop.jobs if each[0] not in instance.busy)
        instance.loop.jobs.remove((kind, job))
        self._in(instance, kind, job)

    @staticmethod
    def _in(instance: Instance, thread: str, act: Callable[[], None]) -> None:
        instance.busy.add(thread)
        try:
            act()
        finally:
            instance.busy.discard(thread)

    def meanwhile(self, instance: Instance, where: str) -> None:
        """Something else happens while this process is in the midst of a call."""
        if self._fail_points.get(instance.name, ("", ""))[1] == where:
            fault, _ = self._fail_points.pop(instance.name)
            self.reach(f"{fault} there: {where}")
            if fault == "crash":
                self.crash(instance)
                self.at(self.now + self.draw.choice((0.1, 5.0, 60.0)), lambda: self._start_again(instance.name))
            else:
                self.freeze(instance, self.draw.choice((0.5, 5.0, 12.0, 100.0)))
        if self.depth >= MOST_NESTED or not self.chance(self.profile.nesting):
            return
        for _ in range(self.draw.randrange(1, 12)):
            if not self.step(waits=False):
                break
        if not instance.alive:
            self.reach(f"crash: {where}")
        elif instance.frozen:
            self.reach(f"freeze: {where}")

    def _let_time_pass(self) -> None:
        time_out = self.kafka.next_time_out()
        if time_out is not None and (not self._timers or time_out < self._timers[0][0]):
            self.now = max(self.now, time_out)
        elif self._timers:
            when, _, call = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            call()
        else:
            self.violate("nothing can happen any more")
        self.kafka.heartbeats()
        if time_out is not None and time_out <= self.now:
            self.kafka.end_overrun()

    def _be_slow(self) -> None:
        """Time passes though there is something to do."""
        self.at(self.now + self.draw.choice((0.001, 0.01, 0.1, 1.0, 4.0)), lambda: None)
        self._let_time_pass()

    def publish(self) -> None:
        event = self.unpublished.popleft()
        log = self.kafka.logs[TOPICS.source, event.partition]
        event.offset = log.append(b"key", event.value, self.now).offset
        self.account.by_offset[event.partition].append(event)
        self.say(f"event {event.number}: {event.kind} of {event.order} at {event.partition}:{event.offset}")

    def _rebalance(self) -> None:
        order = None
        if self.chance(0.2) and not self.healing:
            order = list(self.kafka.partitions)
            self.draw.shuffle(order)
        self.kafka.rebalance(order)
        self.say(f"generation {self.kafka.generation} of {[m.id.decode() for m in self.kafka.members.values()]}")

    def _arrive(self) -> None:
        self._delayed.pop(self.draw.randrange(len(self._delayed)))()

    # -- processes and faults -----------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        self._incarnations += 1
        instance = Instance(self, name, self._incarnations)
        self.instances[name] = instance
        self.say(f"{instance.id} starts")
        instance.start(self._relay)

    def _relay(self, instance: Instance) -> Relay:
        client = cast("EngageClient", WorldEngage(instance))
        connection = Connection("default", client, Pace(BUDGET), lambda: "key", slots=10, ahead=3)
        return Relay(
            properties={"client.id": instance.id, "session.timeout.ms": int(1000 * self.profile.session_s)},
            topics={TOPICS.source: TOPICS},
            partition_counts={TOPICS.source: self.profile.partitions},
            transactional_id=instance.name,
            connections=[connection],
            router=ROUTER,
            policy=POLICY,
            most_pending=self.profile.most_pending,
            clock=lambda: self.now,
            jitter=self.draw.random,
            metrics=METRICS,
            heartbeats=cast("Heartbeats", SILENT),
        )

    def _fault(self) -> None:
        fault = self.draw.choice(FAULTS)
        name = self.draw.choice(list(self.instances))
        instance = self.instances[name]
        running = instance is not None
        match fault:
            case "crash" if running and instance is not None:
                self.crash(instance)
                if self.chance(0.7):
                    self.at(self.now + self.draw.choice((0.1, 5.0, 60.0)), lambda: self._start_again(name))
            case "freeze" | "long freeze" if running and instance is not None and not instance.frozen:
                self.freeze(instance, self.draw.choice((0.5, 6.0, 20.0)) if fault == "freeze" else 100.0)
            case "crash there" | "freeze there":
                self._fail_points[name] = (fault.split()[0], self.draw.choice(FAIL_POINTS))
            case "cut" if running and instance is not None:
                instance.cut = True
                self.say(f"{instance.id} is cut off from Kafka")
                self.at(self.now + self.draw.choice((5.0, 100.0)), lambda: self._mend(instance))
                self.at(self.now + self.kafka.session_s, lambda: None)
            case "stop" if running and instance is not None and not instance.frozen:
                self.say(f"{instance.id} is asked to stop")
                instance.terminate()
            case "start":
                self._start_again(name)
            case "reshuffle":
                self.kafka.restless = True
            case "forget marks":
                self._forget(TOPICS.delay)
            case "forget offsets" if not self.kafka.members:
                self._forget(TOPICS.source)
            case "compact":
                for number in range(self.profile.partitions):
                    if self.kafka.logs[TOPICS.delay, number].compact(self.now):
                        self.reach("compacted")
            case "delete records" if self.chance(0.3):
                log = self.kafka.logs[TOPICS.source, self.draw.randrange(self.profile.partitions)]
                if log.end > log.start:
                    log.delete_before(self.draw.randint(log.start + 1, log.end))
                    self.say(f"retention: {log.topic}[{log.partition}] starts at {log.start}")
                    if log.start > self.account.position(log.partition):
                        self.reach("records were deleted unread")
            case _:
                return
        self.reached[f"fault: {fault}"] += 1

    def _forget(self, topic: str) -> None:
        for at in [at for at in self.kafka.committed if at[0] == topic and not self.kafka.undecided([at])]:
            del self.kafka.committed[at]

    def hung(self, instance: Instance) -> None:
        self.reach("a process was killed because it hung")
        self.crash(instance)
        self.at(self.now + 1.0, lambda: self._start_again(instance.name))

    def crash(self, instance: Instance) -> None:
        self.say(f"{instance.id} crashes")
        instance.alive = False
        for thread in instance.busy:
            self.reach(f"crash in the midst of: {thread}")
        self.at(self.now + self.kafka.session_s, lambda: None)
        self.instances[instance.name] = None
        self._dead.append(instance)
        Instance.all.pop(instance.id, None)

    def freeze(self, instance: Instance, seconds: float) -> None:
        self.say(f"{instance.id} freezes for {seconds} s")
        instance.frozen = True
        self.at(self.now + seconds, lambda: self.thaw(instance))
        self.at(self.now + self.kafka.session_s, lambda: None)

    def thaw(self, instance: Instance) -> None:
        if not instance.frozen or not instance.alive:
            return
        self.say(f"{instance.id} goes on")
        instance.frozen = False
        self.account.excused_until = self.now + 60.0
        for call in instance.thawing:
            call()
        instance.thawing.clear()

    def _mend(self, instance: Instance) -> None:
        instance.cut = False
        self.account.excused_until = self.now + 60.0

    def _start_again(self, name: str) -> None:
        if self.instances[name] is None:
            for number in range(self.profile.partitions):
                self._decide(number)
            self.start(name)

    # -- the whole schedule -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play it, heal everything, play on until all has ended. Raises ViolationError."""
        with stand_ins():
            try:
                for index in range(self.profile.instances):
                    name = f"relay-{index}"
                    self.instances[name] = None
                    if index == 0 or self.chance(0.7):
                        self.start(name)
                    else:
                        self.at(self.now + self.draw.choice((1.0, 30.0)), partial(self._start_again, name))
                until = self.now + self.draw.choice((5.0, 60.0, 600.0))
                self.at(until, lambda: None)
                while self.now < until and not (self._faults_left == 0 and self.steps % 8 == 0 and self.quiet()):
                    self.step()
                self.heal()
                until = self.now + HEALED_WITHIN_S
                while self.steps % 8 or not self.quiet():
                    self.step()
                    if self.now > until:
                        raise ViolationError(f"seed {self.seed}: healed, and yet not all has ended")
            finally:
                for instance in [*self.instances.values(), *self._dead]:
                    if instance is not None:
                        instance.alive = False
                        instance.loop.discard()
                Instance.all.clear()

    def heal(self) -> None:
        self.say("everything is healed")
        self.healing = True
        self._faults_left = 0
        self._fail_points.clear()
        for name, instance in list(self.instances.items()):
            if instance is None:
                if self.chance(0.5) or not any(i is not None for i in self.instances.values()):
                    self._start_again(name)
            else:
                instance.cut = False
                self.thaw(instance)

    def quiet(self) -> bool:
        """All has ended: no event waits, nothing is pending, no process believes otherwise."""
        if self.unpublished or self._delayed:
            return False
        for number in range(self.profile.partitions):
            if self.account.positions[number] < self.kafka.logs[TOPICS.source, number].end:
                return False
            if any(record.key != POSITION_KEY for record in self.kafka.logs[TOPICS.delay, number].live):
                return False
        return all(i is None or _idle(i) for i in self.instances.values())


def _idle(instance: Instance) -> bool:
    relay = instance.relay
    return relay._ledger.open == 0 and relay._ours == set(instance.source.ownership.assignments)


class _Silent:
    def beat(self, _: str) -> None: ...
    def ended(self, _: str) -> None: ...
    def info(self, *_: object, **__: object) -> None: ...

    warning = error = info


SILENT = _Silent()


@contextmanager
def stand_ins() -> Iterator[None]:
    """Give the relay the world's threads and clients, and constants that fit a small world."""
    module = vars(consumer.relay)
    placed: Mapping[str, object] = {
        "Source": WorldSource,
        "Journal": WorldJournal,
        "KafkaReader": WorldReader,
        "ThreadPoolExecutor": lambda *_, **__: SimpleNamespace(shutdown=lambda **_: None),
        "TICK_S": 200.0,
        "MOST_BACKLOG": 20,
        "_LOG": SILENT,
    }
    before = {name: module[name] for name in placed}
    span = low_water_mark.PINNED_SPAN
    module.update(placed)
    low_water_mark.PINNED_SPAN = 12
    try:
        yield
    finally:
        module.update(before)
        low_water_mark.PINNED_SPAN = span
