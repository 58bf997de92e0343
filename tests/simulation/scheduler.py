"""A schedule: what happens, in which order, and what must hold after each step.

What may happen, drawn from the seed: any thread of any process takes its next step, or stands in the midst of a call
while others do; events come; time passes; requests to Kafka are lost, answered in vain, or arrive late; Engage gives
every answer there is; and what faults.py holds.

What must hold is oracle.py's.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from consumer.core.clock import Clock
from consumer.core.ownership import Partition
from consumer.errors import ConsumerFailedError, IdentityError, OffsetOutOfRangeError
from consumer.kafka.control.records import PARTITION
from consumer.kafka.facts import (
    Committed,
    DeadLetterRefused,
    DelayTopicRecreated,
    Dropped,
    Fact,
    Fenced,
    Pinned,
    RecordTooLarge,
    TransactionAborted,
)
from consumer.kafka.identity import adoption
from consumer.kafka.identity.adoption import AdoptFrom
from consumer.kafka.identity.identity import verified
from consumer.kafka.journal.writes import DeadLetter
from consumer.kafka.records.positions import position_value, read_position
from schemas.pending_action import POSITION_KEY, Position, SourceIdentity
from tests.simulation import faults
from tests.simulation.control import ControlTopic
from tests.simulation.event_loop import Handle, leave
from tests.simulation.kafka_model import Kafka, Log
from tests.simulation.neighbour import Neighbour
from tests.simulation.oracle import HEARD_WITHIN_S, Oracle
from tests.simulation.process import CONTROL, SOURCE, TOPICS, CrashedError, Process
from tests.simulation.profile import Profile
from tests.simulation.requests import Requests
from tests.simulation.sequences import sequences_of
from tests.simulation.wiring import relay_of
from tests.simulation.workload import (
    AGAIN_IN_S,
    FACTS,
    NATURES_AGAIN,
    Event,
    again,
    drawn,
    superseding,
    with_document,
    with_fact,
    with_items,
)

START = 1_700_000_000.0  # offsets of clocks are whole seconds, so that sums with these are exact
MAX_STEPS = 20_000
MAX_STEPS_UNHEALED = 4_000
MAX_NESTED = 10
LATER_S = (0.2, 1.0, 3.0, 10.0, 30.0, 70.0)
MAX_EVENTS = 12  # of a schedule whose events are written again
ALL = 100  # callbacks that are ready, those included that they make ready
HEALED_WITHIN_S = 2_400.0

T = TypeVar("T")


class ViolationError(BaseException):
    """Something that must hold did not. Holds the seed."""


class Scheduler:
    """One schedule."""

    def __init__(
        self, seed: int, *, profile: Profile | None = None, trace: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.random = self.draw.random
        self.profile = profile or Profile.drawn(self.draw)
        self.trace = trace
        self.now = START
        self.reached: Counter[str] = Counter()
        self.steps = 0
        self.depth = 0
        self.members = 0
        self.serials = 0
        self.healing = False
        self.healed_at = START
        self.grown_at = -math.inf
        self.growing = False  # the source has more partitions than somebody knows
        self.source_recreated = False  # and nobody has adopted it yet
        self.stays_lost = False  # a partition, though everything is healed
        self.twins = self.profile.twins
        self.fail_points: dict[str, tuple[str, str]] = {}
        self.refused: set[DeadLetter] = set()
        self._violation: str | None = None
        self._timers: list[tuple[float, int, Callable[[], object] | None, Process | None, Handle | None]] = []
        self._timer_count = 0
        self._delayed: list[Callable[[], None]] = []
        self._incarnations = 0
        self._faults_left = self.profile.faults
        self.strikes_left = self.profile.strikes
        self._pauses_left = self.profile.pauses
        self._requests_left = self.profile.requests
        self._closures_left = self.profile.closures
        topics = (TOPICS.source, *TOPICS.own)
        self.numbers = list(range(self.profile.partitions))  # the source's partitions
        self._clock: Clock = lambda: self.now
        self.kafka = Kafka(self._clock, TOPICS.source, self.profile.partitions, topics, self.profile.session_s)
        self.kafka.logs[CONTROL, PARTITION] = Log(CONTROL, PARTITION)
        self.control = ControlTopic(self)
        self.requests = Requests(self)
        self.sequences = sequences_of(supersedes=self.profile.supersedes, steps=self.profile.steps)
        self.oracle = Oracle(self)
        self.kafka.on_offsets = self.oracle.offsets_sent
        self.kafka.on_committed = self.oracle.committed
        for number in self.numbers:
            self.oracle.add_partition(number)
            self.delay_log(number).append(POSITION_KEY, position_value(SOURCE, number, 0), self.now)
        draw_event: Callable[[random.Random, int, float], Event] = with_document if self.profile.documents else drawn
        if self.profile.supersedes or self.profile.steps:
            draw_event = partial(drawn, orders="AAAC", kinds=(*["action"] * 7, "huge"))
            if self.profile.documents:
                draw_event = with_document
        if self.profile.parking:
            draw_event = partial(drawn, orders="AABC", kinds=("action", "action", "action", "action", "huge"))
        if self.profile.repeats:
            draw_event = partial(drawn, orders="AAAC", kinds=("action",))
        if self.profile.neighbour:
            draw_event = partial(drawn, natures=("missing", "stale", *["ordinary"] * 4))
        self._to_come = 0  # events that are written again later
        self.events = [draw_event(self.draw, n, START) for n in range(self.profile.events)]
        if self.profile.repeats:
            self.events = [with_fact(event, self.pick(range(FACTS))) for event in self.events]
        if self.profile.items:
            self.events = []
            for _ in range(self.profile.events):
                leader = with_items(self.draw, len(self.events), START)
                self.events += [leader, *leader.followers]
        self.unpublished = deque(event for event in self.events if event.leads)
        self.names = [f"relay-{index}" for index in range(self.profile.processes)]
        skew = int(self.profile.skew_s)
        self.wall_offset = {name: self.pick((-skew, 0, skew)) for name in self.names}
        self.processes: dict[str, Process | None] = dict.fromkeys(self.names)
        self._running: list[Process] = []  # and not frozen
        self._dead: list[Process] = []
        self.neighbour = None if self.profile.neighbour is None else Neighbour(self, self.profile.neighbour)
        self._groups = [self.kafka, *([] if self.neighbour is None else [self.neighbour.kafka])]

    # -- what others ask ----------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        return self.random() < share

    def pick(self, of: Sequence[T]) -> T:
        return of[int(self.random() * len(of))]

    def delay_log(self, number: int) -> Log:
        return self.kafka.logs[TOPICS.delay, number]

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

    def at(self, when: float, call: Callable[[], object] | None = None) -> None:
        """Let this happen then; nothing: only let somebody look then."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, call, None, None))

    def wake(self, when: float, process: Process, handle: Handle) -> None:
        """Let a process's loop run this then; where it is frozen, when it continues."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, None, process, handle))

    def delay(self, call: Callable[[], None]) -> None:
        """Let a request arrive later."""
        self._delayed.append(call)

    @property
    def has_delayed(self) -> bool:
        """Whether a request is to arrive later."""
        return bool(self._delayed)

    def fate(self, call: str) -> str:
        """What becomes of a request to Kafka."""
        if self.healing or self.random() >= self.profile.unreliable:
            return "ok"
        fates = _FATES.get(call, ("lost", "answer lost"))
        fate = self.pick(fates if self.profile.delays else fates[:2])
        self.reach(f"{call}: {fate}")
        return fate

    def client_error(self, errors: tuple[str, ...]) -> str:
        if not errors or self.healing or self.random() >= self.profile.client_error:
            return "ok"
        return self.pick(errors)

    def process_failed(self, process: Process, error: Exception) -> None:
        self.say(f"{process.id} ends: {type(error).__name__}: {error}")
        match error:
            case OffsetOutOfRangeError():
                self.reach("a process ended for an offset that is out of range")
                heard_of_all = self.now > self.grown_at + HEARD_WITHIN_S  # it takes a hand-over to end
                if heard_of_all and any(
                    self.oracle.position(n) >= self.kafka.logs[TOPICS.source, n].start
                    for n in self.numbers
                    if f"[{n}]" not in str(error)  # it is the one that cannot: another owner may have settled it since
                ):
                    self.violate(f"{process.id} ends for one partition, though others can be served")
            case ConsumerFailedError():
                self.reach("a process ended because the group refused it")
                self.oracle.refused()
            case IdentityError() if self.source_recreated:
                self.reach("a process ended because its source was recreated")
            case _:
                self.broken(error)

    def set_apart(self, process: Process, line: str, **fields: object) -> None:
        """Be the operator, who is told of a partition whose records were deleted unread, and stops all to decide."""
        if "are gone" in line:
            self.oracle.repeats.parked_are_gone(int(str(fields["partition"])), self.now)
            self.oracle.sequences.parked_are_gone(int(str(fields["partition"])), self.now)
        elif fields.get("reason") == "overrun":
            self.reach("a partition was set apart, as records were deleted unread")
            self.at(self.now + self.pick((5.0, 100.0)), self._stop_all)
        elif fields.get("reason") == "unreadable":
            self.reach("a partition was set apart, as its delay partition cannot be read")
        elif fields.get("reason") == "unwritable":
            self.reach("a partition was set apart, as the broker takes nothing of it")

    def _stop_all(self) -> None:
        for process in list(self.processes.values()):
            if process is not None:
                self.crash(process, back_after_s=5.0)

    def ended(self, process: Process) -> None:
        """A process is over; whoever watches it starts it again."""
        self.say(f"{process.id} is over")
        self.crash(process, back_after_s=self.pick((1.0, 60.0)))

    def note(self, fact: Fact) -> None:
        """Note the rarer facts of a journal."""
        match fact:
            case Committed(parked=parked) if parked:
                self.reach("an action was parked")
                if any(offset is None for offset in parked.values()):
                    self.reach("a parked record's offset stayed unknown")
            case Dropped():
                self.reach("the journal dropped what was no longer owned")
            case Pinned():
                self.reach("an old record pinned the mark")
            case DelayTopicRecreated():
                self.reach("a transaction met a delay topic that was recreated")
            case RecordTooLarge():
                self.reach("a record was too large")
            case DeadLetterRefused(write):
                self.reach("a dead letter was refused again" if write in self.refused else "a dead letter was refused")
                self.refused.add(write)
            case TransactionAborted(why):
                self.reach("a commit's outcome was unknown" if "unknown" in why else "a transaction was aborted")
            case Fenced():
                self.reach("a producer was fenced")
                if self.twins:
                    self.reach("a producer was fenced by another one of the same transactional.id")

    def _decide(self, number: int) -> None:
        """Be the operator, who was told that records were deleted unread."""
        at = (TOPICS.source, number)
        log = self.kafka.logs[at]
        position = self.oracle.position(number)
        at_work = any(i is not None and i.source.membership.ownership.owned.get(at) for i in self.processes.values())
        if position < log.start and not at_work and not self.kafka.undecided([at]):
            for event in self.oracle.between(number, position, log.start):
                event.deleted = True
            self.kafka.committed[at] = (log.start, None)
            self.oracle.positions[number] = log.start

    # -- a step -------------------------------------------------------------------------------------------------

    def step(self, *, waits: bool = True) -> bool:
        """Let one thing happen. Where nothing can, time passes, unless nobody `waits`; tells whether something did."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ViolationError(f"seed {self.seed}: no end in sight after {MAX_STEPS} steps")
        if self.neighbour is not None and self.neighbour.moves():
            return True
        if self._pauses_left and self.random() < 0.05:
            self._pauses_left -= 1
            faults.pause(self)
        elif self._requests_left and self.random() < 0.03:
            self._requests_left -= self.requests.ask()
        elif self._closures_left and self.random() < 0.02:
            self._closures_left -= 1
            faults.close_control(self)
        elif self._faults_left and self.random() < 0.03:
            self._faults_left -= 1
            faults.strike(self)
        elif not (
            ((self.unpublished or self.kafka.restless or self._delayed) and self._happens_beside())
            or self._runs_a_thread()
            or self._happens_last()
        ):
            if not waits:
                return False
            self._let_time_pass()
        if self._violation is not None:
            raise ViolationError(f"seed {self.seed}: {self._violation}")
        return True

    def _happens_beside(self) -> bool:
        """Events come, partitions change hands and requests arrive while threads could run."""
        drawn = self.random()
        if drawn < 0.1:
            if self.unpublished:
                self.publish()
                return True
        elif drawn < 0.35:
            if self.kafka.restless and self.kafka.can_rebalance():
                self.rebalance()
                return True
        elif self._delayed and (drawn < 0.4 or self.healing):
            self._arrive()
            return True
        return False

    def _happens_last(self) -> bool:
        """No thread can run."""
        if self.unpublished:
            self.publish()
        elif self.healing and self._delayed:
            self._arrive()
        elif self.kafka.restless and self.kafka.can_rebalance():
            self.rebalance()
        else:
            return False
        return True

    def _runs_a_thread(self) -> bool:
        """Let a thread that can run take its next step: the first one from a place that is drawn."""
        running = self._running
        places = 4 * len(running)
        first = int(self.random() * places)
        for place in range(first, first + places):
            process = running[place % places >> 2]
            kind = place & 3
            if kind == 0:
                if process.loop.ready:
                    # Seldom one callback alone; mostly all that it comes to.
                    process.loop.run_ready(1 if self.random() < 0.1 else ALL)
                    return True
            elif kind == 1:
                if process.journal.runnable() and "journal" not in process.busy:
                    self._enter(process, "journal", process.journal.step)
                    return True
            elif kind == 2:
                if process.source.runnable() and "source" not in process.busy:
                    # A hand-over waits for the journal: seldom begin one that can only overrun.
                    overruns = "journal" in process.busy and process.source.news in ("revoke", "leave")
                    if not overruns or self.random() < (0.5 if self.healing else 0.02):
                        self._enter(process, "source", process.source.step)
                        return True
            elif process.loop.jobs and (thread := process.loop.next_job(process.busy)) is not None:
                self._enter(process, thread, partial(process.loop.run_job, thread))
                return True
        return False

    def _enter(self, process: Process, thread: str, act: Callable[[], None]) -> None:
        if not self.healing and self.random() < 0.05:
            self._be_slow()
            return
        self.depth += 1
        process.busy.add(thread)
        try:
            act()
        except CrashedError:
            pass
        finally:
            self.depth -= 1
            process.busy.discard(thread)

    def meanwhile(self, process: Process, where: str) -> None:
        """Something else happens while this process is in the midst of a call."""
        if self._delayed and self.random() < (0.5 if where == "commit" else 0.1):
            self._arrive()
        struck = bool(self.fail_points) and self.fail_points.get(process.name, ("", ""))[1] == where
        if struck:
            faults.strike_there(self, process)
        if self.depth >= MAX_NESTED or not (struck or self.random() < self.profile.nesting):
            return
        for _ in range(1 + int(11 * self.random())):
            if not self.step(waits=False):
                break
        if not process.alive:
            self.reach(f"crash: {where}")
        elif process.frozen:
            self.reach(f"freeze: {where}")

    def _let_time_pass(self) -> None:
        timers = self._timers
        while timers:
            _, _, _, process, handle = timers[0]
            if handle is None or (not handle.gone and process is not None and process.alive):
                break
            heapq.heappop(timers)
        time_out = min((at for each in self._groups if (at := each.next_time_out()) is not None), default=None)
        if time_out is not None and (not timers or time_out < timers[0][0]):
            self.now = max(self.now, time_out)
            for each in self._groups:
                each.end_overrun()
        elif timers:
            when, _, call, process, handle = heapq.heappop(timers)
            self.now = max(self.now, when)
            if process is not None and handle is not None:
                if process.frozen:
                    process.thawing.append(handle)
                else:
                    process.loop.wake(handle)
                    if self.random() < 0.9:  # a thread of another's, or of its own, seldom comes in between
                        process.loop.run_ready(ALL)
            elif call is not None:
                call()
        else:
            self.violate("nothing can happen any more")
        for each in self._groups:
            each.heartbeats()

    def _be_slow(self) -> None:
        """Time passes though there is something to do."""
        self.at(self.now + self.pick((0.001, 0.01, 0.1, 1.0, 4.0)))
        self._let_time_pass()

    def publish(self) -> None:
        event = self.unpublished.popleft()
        if self._comes_later(event):
            self._to_come += 1
            self.at(self.now + self.pick(LATER_S), partial(self._come, event))
        else:
            self._publish(event)

    def _comes_later(self, event: Event) -> bool:
        """Whether an order's earlier actions are under way when this one comes."""
        return (self.profile.supersedes or self.profile.steps) and event is not self.events[0] and self.chance(0.5)

    def _come(self, event: Event) -> None:
        self._to_come -= 1
        self._publish(event)

    def expect(self, seconds: float, call: Callable[[], object]) -> None:
        """Let this happen then; nothing is over before."""
        self._to_come += 1

        def come() -> None:
            self._to_come -= 1
            call()

        self.at(self.now + seconds, come)

    def supersede(self, event: Event) -> None:
        """Let a document come that supersedes this one, which Engage is still at work on."""
        if self.profile.supersedes and not event.travels and len(self.events) < MAX_EVENTS and self.chance(0.5):
            later = superseding(event, len(self.events), self.now)
            if self.profile.repeats:
                later = with_fact(later, FACTS + later.number)  # no other's
            self.events.append(later)
            self._to_come += 1
            self.at(self.now + self.pick((0.1, 1.0)), partial(self._come, later))

    def crash_after_commit(self, event: Event) -> None:
        """Let the process that owns an event's partition crash as soon as its transaction is committed."""
        at = (TOPICS.source, event.partition)
        for process in self._running:
            if self.oracle.is_owner(process, at) and not self.healing and self.chance(0.3):
                self.fail_points[process.name] = ("crash", "after commit")

    def _publish(self, event: Event) -> None:
        self.put(event, ord(event.order) % len(self.numbers))
        self._write_again_later(event)

    def _write_again_later(self, event: Event) -> None:
        """Be a producer that writes most events twice, and some more often."""
        if self.profile.repeats and event.fact is not None and len(self.events) < MAX_EVENTS and self.chance(0.8):
            self._to_come += 1
            self.at(self.now + self.pick(AGAIN_IN_S), partial(self._write_again, event))

    def _write_again(self, event: Event) -> None:
        self._to_come -= 1
        twin = again(event, len(self.events), self.now, nature=self.pick(NATURES_AGAIN), redriven=False)
        self.events.append(twin)
        self.put(twin, event.partition)
        self._write_again_later(twin)

    def put(self, event: Event, partition: int) -> None:
        log = self.kafka.logs[TOPICS.source, partition]
        incarnation = self.oracle.incarnation + self.source_recreated
        record = log.append(b"key", event.value, self.now + event.ahead_s, event.headers)
        for group in self._groups:
            group.version += 1
        for each in (event, *event.followers):
            each.lie(partition, incarnation, record.offset)
            self.oracle.published(each)
            self.oracle.repeats.published(each)
            item = "" if each.item is None else f", item {each.item}"
            self.say(f"event {each.number}: {each.kind} of {each.order} at {each.partition}:{each.offset}{item}")

    def rebalance(self, *, shuffled: bool = False) -> None:
        """Begin a generation, if the group can."""
        if not self.kafka.can_rebalance():
            return
        order = None
        if shuffled or (not self.healing and self.random() < 0.2):
            order = list(self.kafka.partitions)
            self.draw.shuffle(order)
        self.kafka.rebalance(order)
        if self.trace is not None:
            self.say(f"generation {self.kafka.generation} of {[m.id.decode() for m in self.kafka.members.values()]}")

    def _arrive(self) -> None:
        arrive = self._delayed.pop(int(self.random() * len(self._delayed)))
        # Where it would make a record of a delay topic visible that nobody knows to be new, two accidents met at once.
        if not self.kafka.is_recreated(TOPICS.delay):
            arrive()

    # -- processes ----------------------------------------------------------------------------------------------

    def start_again(self, name: str) -> None:
        """Start a process where none runs; it refuses where the topics do not fit (topics.check, identity.verified)."""
        if self.processes[name] is not None:
            return
        if self.kafka.count(TOPICS.delay) < len(self.numbers):
            self.reach("a process refused to start: the delay topic has too few partitions")
            self.at(self.now + 10.0, partial(self.start_again, name))
            return
        try:
            identity = verified(TOPICS, self.recorded_positions, self.source) or self.source
        except IdentityError:
            self.reach("a process refused to start: its source was recreated")
            self.at(self.now + 10.0, partial(self.start_again, name))
            return
        for number in self.numbers:
            self._decide(number)
        self._incarnations += 1
        process = Process(self, name, self._incarnations, identity)
        self.processes[name] = process
        self.run_beside(process)
        process.start(relay_of(self, process))

    def run_beside(self, process: Process) -> None:
        """Let a process take part."""
        self._running.append(process)
        self.say(f"{process.id} starts")

    def hung(self, process: Process) -> None:
        self.reach("a process was killed because it hung")
        self.crash(process, back_after_s=1.0)

    def crash(self, process: Process, *, back_after_s: float | None = None) -> None:
        """End a process; after so long whoever watches it starts it again, by default nobody does."""
        self.say(f"{process.id} crashes")
        process.alive = False
        process.kafka.listen(process)
        for thread in process.busy:
            self.reach(f"crash in the midst of: {thread}")
        self.at(self.now + self.kafka.session_s)
        start: Callable[[], None] = partial(self.start_again, process.name)
        if self.neighbour is not None and process.is_neighbour:
            self.neighbour.ended()
            start = self.neighbour.start
        else:
            self.processes[process.name] = None
        if process in self._running:
            self._running.remove(process)
        self._dead.append(process)
        if back_after_s is not None:
            self.at(self.now + back_after_s, start)

    def freeze(self, process: Process, seconds: float) -> None:
        self.say(f"{process.id} freezes for {seconds} s")
        process.frozen = True
        self.kafka.listen(process)
        self._running.remove(process)
        self.at(self.now + seconds, partial(self.thaw, process))
        self.at(self.now + self.kafka.session_s)

    def thaw(self, process: Process) -> None:
        if not process.frozen or not process.alive:
            return
        self.say(f"{process.id} continues")
        process.frozen = False
        self._running.append(process)
        self.kafka.listen(process)
        for handle in process.thawing:
            process.loop.wake(handle)
        process.thawing.clear()

    def reconnect(self, process: Process) -> None:
        process.cut = False
        self.kafka.listen(process)

    # -- partitions that come while it runs ---------------------------------------------------------------------

    def add_source_partition(self) -> int:
        number = self.kafka.grow(TOPICS.source).partition
        self.oracle.add_partition(number)
        self.numbers.append(number)
        self.grown_at = self.now
        return number

    def let_the_group_hear(self) -> None:
        unheard = [(TOPICS.source, n) for n in self.numbers if (TOPICS.source, n) not in self.kafka.partitions]
        if unheard:
            self.kafka.partitions += unheard
            self.kafka.restless = True

    def grow_relay_topics(self) -> None:
        """Be the operator, and run `topics create`."""
        while self.kafka.count(TOPICS.delay) < len(self.numbers):
            for topic in TOPICS.own:
                self.kafka.grow(topic)
        self.growing = False

    @property
    def source(self) -> SourceIdentity:
        """Return the source as it is now."""
        return SOURCE.model_copy(update={"topic_id": self.kafka.topic_id})

    @property
    def recorded_positions(self) -> dict[int, Position]:
        """Return the position records of the delay topic."""
        found = {}
        for number in self.numbers:
            log = self.kafka.logs.get((TOPICS.delay, number))
            record = None if log is None else log.latest.get(POSITION_KEY)
            position = None if record is None else read_position(record.value or b"")
            if isinstance(position, Position):
                found[number] = position
        return found

    def adopt_source(self) -> None:
        """Be the operator, who stops all processes, and lets the recreated source take its former topic's place."""
        for process in list(self.processes.values()):
            if process is not None:
                self.crash(process, back_after_s=5.0)
        kafka, source = self.kafka, [(TOPICS.source, number) for number in self.numbers]
        is_open = any(log.open for log in kafka.logs.values())
        if kafka.members or is_open or kafka.undecided(source) or self._delayed:
            self.at(self.now + 5.0, self.adopt_source)
            return
        recorded = self.recorded_positions
        start: AdoptFrom = "earliest" if self.chance(0.8) else "latest"
        marks = {number: (kafka.logs[at].start, kafka.logs[at].end) for number, at in enumerate(source)}
        next_offsets = adoption._next_offsets(recorded, marks, TOPICS.source, start)
        latest = adoption._latest(recorded)
        assert latest is not None
        identity = adoption._adopted(latest, self.source, start, kafka.count(TOPICS.delay), len(self.numbers))
        self.say(f"the recreated source is adopted, from {next_offsets}")
        self.oracle.adopted(next_offsets)
        for number, offset in next_offsets.items():
            self.delay_log(number).append(POSITION_KEY, position_value(identity, number, offset), self.now)
            kafka.committed[TOPICS.source, number] = (offset, adoption.ADOPTED)
        self.source_recreated = False
        self.reach("a recreated source was adopted")

    def take_dead_letters(self) -> None:
        """Be the operator, and put the dead-letter topic right."""
        self.kafka.refusal = None

    def open_control(self) -> None:
        """Be the operator, and give the right back."""
        self.kafka.closed.discard(CONTROL)

    def find_partitions(self) -> None:
        """Bring partitions back that were lost; in the end one may stay so until the others are done."""
        if self.stays_lost:
            return
        may_stay = any(topic == TOPICS.delay for topic, _ in self.kafka.lost)
        self.stays_lost = self.healing and may_stay and len(self.numbers) > 1 and self.chance(0.7)
        if self.stays_lost:
            self.reach("a partition stays lost")
            self.at(self.now + HEALED_WITHIN_S, self._find_last)
        else:
            self.kafka.lost.clear()

    def _find_last(self) -> None:
        # Where a call never returns, as the lost partition's owner tries again, one around it cannot return either.
        beside = None if self.neighbour is None else self.neighbour.process
        stand = [each for each in (*self.processes.values(), beside) if each is not None and each.busy]
        if len(stand) <= 1 and not self.quiet():
            self.violate("a partition is lost, and not all has ended in the others")
        self.stays_lost = False
        self.kafka.lost.clear()

    # -- the whole schedule -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play it, heal everything, play on until all has ended. Raises ViolationError."""
        try:
            self._play()
        finally:
            beside = [] if self.neighbour is None else [self.neighbour.process]
            for process in [*self.processes.values(), *beside, *self._dead]:
                if process is not None:
                    process.alive = False
                    process.loop.discard()
            leave()

    def _play(self) -> None:
        for index, name in enumerate(self.names):
            if index == 0 or self.chance(0.7):
                self.start_again(name)
            else:
                self.at(self.now + self.pick((1.0, 30.0)), partial(self.start_again, name))
        until = self.now + (600.0 if self.profile.documents else self.pick((5.0, 60.0, 600.0)))
        self.at(until)
        while self.now < until and self.steps < MAX_STEPS_UNHEALED:
            if not (self._faults_left or self._requests_left) and self.steps & 1 and self.quiet():
                break
            self.step()
        self.heal()
        until = self.now + HEALED_WITHIN_S * (2 if self.stays_lost else 1)
        looks = 0
        while looks & 1 or not self.quiet():
            looks += 1
            self.step()
            if self.now > until:
                raise ViolationError(f"seed {self.seed}: healed, and yet not all has ended")
        self.oracle.close()
        if self.neighbour is not None:
            self.neighbour.close()
        if self._violation is not None:
            raise ViolationError(f"seed {self.seed}: {self._violation}")

    def heal(self) -> None:
        self.say("everything is healed")
        self.healing = True
        self.healed_at = self.now
        self._faults_left = self._pauses_left = self._requests_left = self._closures_left = 0
        self.fail_points.clear()
        self.take_dead_letters()
        self.open_control()
        self.control.resume_all()
        if len(self.numbers) > 1 and self.chance(0.3):
            faults.lose(self)
        self.find_partitions()
        if self.growing:
            self.let_the_group_hear()
            self.grow_relay_topics()
        if self.twins:
            self.twins = False
            twin = self.processes.get("relay-1")
            if twin is not None:
                self.crash(twin)
        if self.neighbour is not None:
            self.neighbour.heal()
        for name, process in self.processes.items():
            if process is None:
                if self.chance(0.5) or not any(i is not None for i in self.processes.values()):
                    self.start_again(name)
            else:
                self.reconnect(process)
                self.thaw(process)

    def quiet(self) -> bool:
        """All has ended: no event waits, nothing is pending, no process believes otherwise."""
        if self.unpublished or self._delayed or self._to_come or self.source_recreated:
            return False
        for number in self.found:
            if self.oracle.positions[number] < self.kafka.logs[TOPICS.source, number].end:
                return False
            log = self.kafka.logs.get((TOPICS.delay, number))
            if log is None or log.live:
                return False
        if self.neighbour is not None and not self.neighbour.quiet():
            return False
        if any(each.partition in self.found for each in self.requests.open.values()):
            return False
        return all(i is None or _idle(i, self.kafka.lost) for i in self.processes.values())

    def is_idle(self, process: Process) -> bool:
        """Whether a process has nothing to do."""
        return _idle(process, self.kafka.lost)

    @property
    def found(self) -> list[int]:
        """The partitions that are not lost."""
        return [number for number in self.numbers if (TOPICS.delay, number) not in self.kafka.lost]


def _idle(process: Process, lost: Collection[Partition]) -> bool:
    relay, journal = process.relay, process.journal
    found = [each for each in relay._partitions.ours if (TOPICS.delay, each.partition) not in lost]
    if lost and not found:
        return True  # what it holds of lost ones it keeps trying
    # Whether a partition takes nothing shows where others' transactions commit: it may be the last one at work.
    is_open = any(map(relay._ledger.open_of, found)) if lost else relay._ledger.open
    if is_open or relay._refused.count or not relay._outbox.empty:
        return False
    if journal.backlog or "journal" in process.busy:
        return False
    return relay._partitions.ours == set(process.source.ownership.assignments)


_FATES = {
    "commit": ("lost", "answer lost", "late", "echo"),
    "abort": ("lost", "answer lost", "late", "echo"),
    "offsets": ("lost", "answer lost", "echo"),
}
