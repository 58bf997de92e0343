"""Requests of people about single actions: carried out by whoever owns the action's partition, once (core/requests.py).

Rules:
 1. A request is answered in the transaction that carries it out. What the journal drops, the next owner does.
 2. An owner acts on what the control topic said after the partition was restored: by then it has what the former owner
    had answered. What it has answered itself it does not do again before it has heard of that, too.
 3. An action that is sent again is held once its record is committed, as one that was read back is. Nothing is to be
    undone where it is not.
 4. Events come first. One request is read at a time, and an action is sent again only while few of its connection that
    were asked for are on their way (turns.py), nothing of its partition is parked, and its connection is not behind.
 5. Where the answers cannot be written, nothing is carried out, and that is said. Where the topic has such an answer
    all the same (an earlier transaction's commit request arrived late, and committed it), what it says is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from consumer.core.clock import Clock
from consumer.core.effects import ActionId, LiveAction, NewAction
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.repeats import Repeats
from consumer.core.requests import Answer, NotYet, Request, done, refused
from consumer.events.deciding import Ignored, decide
from consumer.events.formats.formats import JSON, Awaiting, Formats
from consumer.events.routing.results import Misrouted, Routed
from consumer.events.routing.router import Router
from consumer.kafka.control.records import request_key, request_value
from consumer.kafka.facts import AnswersRefused
from consumer.kafka.journal.writes import Barrier, Put, PutAnswer
from consumer.kafka.records.pending import Asked, live_action, new_action
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.registry.schemas import RegistryError, UnknownSchemaError
from consumer.kafka.restore.reader import RestoreError
from consumer.relay.edges import AskedFor, Control
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox, put_of
from consumer.relay.partitions import Partitions
from consumer.relay.refused import RefusedDeadLetters
from consumer.relay.schemas import Schemas
from consumer.relay.tasks import Tasks
from consumer.relay.turns import Turns

LOOK_INTERVAL_S = 0.1  # while nothing happens to them: looking at a thousand takes a millisecond
RETRY_S = 2.0  # of what has no room, or waits for something
RETRY_FAILED_S = 5.0  # of what could not be read
RETRY_REFUSED_S = (10.0, 30.0, 60.0, 300.0)  # of all, where no answer can be written

_New = tuple[int, NewAction]
"""An action that begins, and its place."""


class Requests:
    """The open requests, and those of them that are being carried out."""

    def __init__(
        self,
        *,
        control: Control,
        records: AskedFor,
        incarnations: Mapping[str, int],
        router: Router,
        formats: Formats = JSON,
        schemas: Schemas | None,
        dead_letter_topics: Collection[str],
        ledger: Ledger,
        repeats: Repeats | None,
        outbox: Outbox,
        refused_dead_letters: RefusedDeadLetters,
        partitions: Partitions,
        clock: Clock,
        tasks: Tasks,
        tick_soon: Callable[[], None],
        log: ThrottledLog,
    ) -> None:
        """Know of none yet. `incarnations`: of the source topics."""
        self._control = control
        self._records = records
        self._incarnations = incarnations
        self._router = router
        self._formats = formats
        self._schemas = schemas
        self._dead_letter_topics = dead_letter_topics
        self._ledger = ledger
        self._repeats = repeats
        self._outbox = outbox
        self._refused_dead_letters = refused_dead_letters
        self._partitions = partitions
        self._clock = clock
        self._tasks = tasks
        self._tick_soon = tick_soon
        self._log = log
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="requests")
        self._open: Mapping[str, Request] = {}
        self._heard = 0
        self._asked: dict[Assignment, int] = {}  # rule 2
        self._under_way: dict[str, PutAnswer | None] = {}
        self._answered: set[str] = set()  # and not heard of yet
        self._ending: set[str] = set()  # to drop what may have been processed, which ends by itself
        self._puts: dict[str, list[Put]] = {}  # what goes with an answer that is not known to be written
        self._turns = Turns(holds=lambda each: ledger.holds(*each), is_behind=ledger.is_behind)
        self._look_at = 0.0
        self._refused_until = 0.0
        self._refusals = 0  # in a row
        self.refused_by: str | None = None  # why the control topic takes no answers, since it last refused one
        self._is_reading = False
        self._barriers: dict[Barrier, asyncio.Future[None]] = {}

    def close(self) -> None:
        """End its thread as soon as it can."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    # -- what is heard ------------------------------------------------------------------------------------------

    def heard(self, requests: Mapping[str, Request], asked: int) -> None:
        """Take which requests are open."""
        self._open, self._heard = requests, asked
        self._look_at = 0.0
        self._answered &= requests.keys()
        self._ending &= requests.keys()
        self._turns.heard(requests.keys())
        self._catch_up()
        self._tick_soon()

    def _catch_up(self) -> None:
        """Save again what an answer says that the topic has, and the journal could not write (rule 5)."""
        for request_id in [each for each in self._puts if each not in self._open and each not in self._under_way]:
            puts = self._puts.pop(request_id)
            if request_id not in self._answered and self._ledger.serves(puts[0].assignment):
                for put in puts:
                    self._outbox.add(put)

    @property
    def open(self) -> int:
        """How many are open, for all instances."""
        return len(self._open)

    # -- what is done -------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Carry out what can be (rule 4)."""
        if not self._open or self._is_reading or now < max(self._look_at, self._refused_until):
            return
        if self._outbox.journal_is_full:
            return
        self._look_at = now + LOOK_INTERVAL_S
        ours = {each[:2]: each for each in self._partitions.ours if self._ledger.serves(each)}
        self._asked = {each: number for each, number in self._asked.items() if each in ours.values()}
        for request in self._turns.in_turn(self._open, now):
            assignment = ours.get((request.topic, request.partition))
            if assignment is None or request.id in self._under_way or request.id in self._answered:
                continue
            if not self._is_current(assignment):
                continue
            if request.what == "send_again":
                is_present = request.incarnation == self._incarnations.get(request.topic, 0)
                is_read = request.dead_letter is not None or self._outbox.has_read(assignment, request.offset)
                is_unread = is_present and not is_read
                is_parked = self._ledger.parking.count_of(assignment) > 0
                if is_unread or is_parked or not self._turns.may_have_room(request.id, now):
                    self._wait(request, RETRY_S, now)
                    continue
                self._is_reading = True
                self._under_way[request.id] = None
                self._tasks.start(self._send_again(request, assignment))
                return
            self._act(request, assignment, now)

    def _is_current(self, assignment: Assignment) -> bool:
        """Whether we know what was answered before the partition was ours (rule 2)."""
        if assignment not in self._asked:
            self._asked[assignment] = self._control.ask()
        return self._heard >= self._asked[assignment]

    def _act(self, request: Request, assignment: Assignment, now: float) -> None:
        """Let an action's next step be due now, or end it."""
        action_id = ActionId(assignment, request.place)
        if request.what == "retry_now":
            self._settle(request, assignment, self._ledger.retry_now(action_id, now), now)
            return
        why = f"request {request.id}: {request.reason}"
        answer, effects = self._ledger.drop_action(action_id, why, now)
        if isinstance(answer, NotYet):
            (self._ending.add if answer.ends else self._ending.discard)(request.id)
        elif request.id in self._ending and not answer.is_done:  # it is not pending any more
            answer = done("it ended as a dead letter: Engage may have had it")
        self._settle(request, assignment, answer, now, with_next=bool(effects))
        self._outbox.apply(effects, now)

    async def _send_again(self, request: Request, assignment: Assignment) -> None:
        found: list[_New] | Answer | NotYet
        try:
            found = await self._actions_of(request)
            if not isinstance(found, Answer) and isinstance(found := self._if_free(request, assignment, found), list):
                await self._all_before_is_safe(assignment)
                # Meanwhile another request may have redriven the same dead letter, or had the same action sent.
                event = None if request.dead_letter is None else await self._event_of(request)
                found = event if isinstance(event, Answer) else self._if_free(request, assignment, found)
        except (RestoreError, RegistryError, UnknownSchemaError) as error:
            self._log.throttled("a request cannot be carried out yet", id=request.id, why=str(error))
            self._wait(request, RETRY_FAILED_S, self._clock())
        else:
            if self._ledger.serves(assignment):
                self._begin(request, assignment, found)
        if self._under_way.get(request.id) is None:
            self._under_way.pop(request.id, None)
        self._is_reading = False
        self._look_at = 0.0
        self._tick_soon()

    async def _actions_of(self, request: Request) -> list[_New] | Answer:
        """Make the actions again, or say why not. Raises RestoreError, RegistryError, UnknownSchemaError."""
        event = await self._event_of(request)
        if isinstance(event, Answer):
            return event
        decision = await self._decide(request, event)
        if isinstance(decision, Answer):
            return decision
        again = request.dead_letter is None
        by = f"{request.asked_by} {request.id}" if again else f"redrive of {request.dead_letter}"
        asked, shadow = Asked(by, request.reason, again=again), self._router.shadow is not None
        return [
            (replace(request, item=each.item).place, new_action(each, event, shadow=shadow, asked=asked))
            for each in decision
        ]

    def _if_free(self, request: Request, assignment: Assignment, actions: list[_New]) -> list[_New] | Answer | NotYet:
        """Return the actions if all of them may begin."""
        now = self._clock()
        has_room = self._turns.has_room(request.id, [new for _, new in actions], now)
        for place, new in actions:
            if self._ledger.holds(assignment, place):
                return refused("it is still pending: `engage-relay pending retry-now` hastens it")
            if self._refused_dead_letters.keeps(assignment, place):
                return refused("its dead letter is not written yet: the dead-letter topic refuses it")
            if self._is_under_way(assignment, place):
                return NotYet("another request for it is being carried out")
            if not has_room or not self._ledger.has_room_for(assignment, place, new, now):
                return NotYet("its connection has no room beside what came with events")
        return actions

    async def _all_before_is_safe(self, assignment: Assignment) -> None:
        """Wait for the journal: what ended an action that is not held any more is written then, or kept."""
        barrier = Barrier(assignment)
        self._barriers[barrier] = asyncio.get_running_loop().create_future()
        self._outbox.add(barrier)
        self._tick_soon()
        await self._barriers[barrier]

    async def _event_of(self, request: Request) -> SourceEvent | Answer:
        loop = asyncio.get_running_loop()
        if request.dead_letter is not None:
            found = await loop.run_in_executor(self._reading, self._records.dead_letter, request.dead_letter)
            if isinstance(found, str):
                return refused(found)
            at = (found.topic, found.partition, found.offset, found.incarnation)
            named = (request.topic, request.partition, request.offset, request.incarnation)
            return found if at == named else refused("it is the dead letter of another event than the request names")
        if request.incarnation != self._incarnations.get(request.topic, 0):
            return refused("its event was in a former topic of this name, which was deleted")
        at_ = (request.topic, request.partition, request.offset, request.incarnation)
        event = await loop.run_in_executor(self._reading, self._records.event, *at_)
        return refused("its event is not in the source any more") if event is None else event

    async def _decide(self, request: Request, event: SourceEvent) -> list[Routed] | Answer:
        """Decide as `run` does. Raises RegistryError, UnknownSchemaError."""
        while isinstance(
            decision := decide(
                event,
                self._router,
                self._dead_letter_topics,
                now=self._clock(),
                formats=self._formats,
                asked=True,
            ),
            Awaiting,
        ):
            assert self._schemas is not None  # noqa: S101 - without a registry nothing is ever awaited
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._reading, self._schemas.fetch, decision.schema, decision.sample)
        if isinstance(decision, Ignored):
            return refused(f"nothing becomes of its event by the present routes ({decision.why})")
        if isinstance(decision, Misrouted):
            return refused(f"its event cannot be used: {decision.detail}")
        actions = [decision] if isinstance(decision, Routed) else list(decision.actions)
        if request.dead_letter is None or request.item is not None:
            actions = [each for each in actions if each.item == request.item]
        if not actions:
            return refused("the present routes make no such action of its event")
        return next((why for each in actions if (why := _obstacle(request, each)) is not None), actions)

    def _begin(self, request: Request, assignment: Assignment, found: list[_New] | Answer | NotYet) -> None:
        """Submit the records of the actions with the answer, or the answer alone."""
        now = self._clock()
        if not isinstance(found, list):
            self._settle(request, assignment, found, now)
            return
        answer = done("it is saved, and its versionTag is polled for next")
        self._settle(request, assignment, answer, now, with_next=True)
        records = (put_of(self._ledger.record_of(assignment, place, new, now)) for place, new in found)
        puts = [replace(each, requested=True, with_next=True) for each in records]
        puts[-1] = replace(puts[-1], with_next=False)
        for place, new in found:
            self._turns.begin(ActionId(assignment, place), new.connection, now)
        self._puts[request.id] = puts
        for put in puts:
            self._outbox.add(put)
        self._log.info("sent again, as a person asked", id=request.id, by=request.asked_by, why=request.reason)

    def _is_under_way(self, assignment: Assignment, place: int) -> bool:
        """Whether another request for the same action is being committed."""
        return any(
            answer is not None and (other := self._open.get(each)) is not None and other.what == "send_again"
            and (answer.assignment, other.place) == (assignment, place)
            for each, answer in self._under_way.items()
        )  # fmt: skip

    def _settle(
        self, request: Request, assignment: Assignment, answer: Answer | NotYet, now: float, *, with_next: bool = False
    ) -> None:
        """Submit an answer. `with_next`: it goes with what is submitted next."""
        if isinstance(answer, NotYet):
            self._wait(request, RETRY_S, now)
            return
        self._turns.answered(request.id)
        redriven = request.dead_letter if answer.is_done else None
        write = PutAnswer(
            assignment=assignment,
            request_id=request.id,
            key=request_key(request),
            value=request_value(request, answer, now),
            redriven=redriven,
            with_next=with_next,
        )
        self._under_way[request.id] = write
        self._outbox.add(write)
        if not answer.is_done:
            self._log.warning("a request was refused", id=request.id, by=request.asked_by, why=answer.detail)

    def _wait(self, request: Request, seconds: float, now: float) -> None:
        self._turns.wait(request.id, now + seconds)
        asyncio.get_running_loop().call_later(seconds, self._tick_soon)

    # -- what the journal reports -------------------------------------------------------------------------------

    def reached(self, barrier: Barrier) -> None:
        """Take in that all before this barrier is safe, or nobody's any more."""
        waiting = self._barriers.pop(barrier, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def committed(self, answer: PutAnswer) -> None:
        """Note that an answer is written."""
        self._under_way.pop(answer.request_id, None)
        self._puts.pop(answer.request_id, None)
        self._refusals, self._look_at, self.refused_by = 0, 0.0, None
        self._answered.add(answer.request_id)
        self._tick_soon()

    def dropped(self, answer: PutAnswer) -> None:
        """Note that an answer was not written: the partition is another instance's."""
        self._under_way.pop(answer.request_id, None)
        self._puts.pop(answer.request_id, None)

    def refused(self, fact: AnswersRefused) -> None:
        """Note that answers cannot be written (rule 5)."""
        for each in fact.answers:
            self._under_way.pop(each.request_id, None)
        self._catch_up()
        wait_s = RETRY_REFUSED_S[min(self._refusals, len(RETRY_REFUSED_S) - 1)]
        self._refusals += 1
        self.refused_by = fact.why
        self._refused_until = self._clock() + wait_s
        asyncio.get_running_loop().call_later(wait_s, self._tick_soon)
        self._log.error("requests cannot be carried out: their answers are refused", why=fact.why)

    def saved(self, put: Put, now: float) -> None:
        """Hold an action that was asked for: its record is committed (rule 3)."""
        live = live_action(put.key, put.value)
        assert isinstance(live, LiveAction)  # noqa: S101 - we wrote it ourselves a moment ago
        if not self._ledger.serves(put.assignment):
            return  # its next owner finds it
        self._turns.saved(ActionId(put.assignment, live.offset))
        if self._repeats is not None and live.action.fact is not None:
            self._repeats.opened(put.assignment, live.action.fact)
        self._outbox.apply(self._ledger.take_back(put.assignment, [live], now), now)


def _obstacle(request: Request, action: Routed) -> Answer | None:
    """Say why an action is not sent again, if so."""
    if request.route not in (None, action.route):
        return refused(f"the present routes give its event to {action.route}, not to {request.route}")
    return None if action.stopped is None else refused(f"{action.stopped.by}: {action.stopped.detail}")
