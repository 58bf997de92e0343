"""The ledger under any sequence of events, answers, rebalances and crashes, beside a model of Kafka and Engage.

The model's journal commits any prefix of what was submitted; a crash or a lost partition loses what follows.
Whether Engage processed what was in flight then is anybody's guess.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.effects import (
    THE_CHANGE,
    THE_DOCUMENT,
    THE_ORDER,
    ActionId,
    Change,
    Close,
    Document,
    Effect,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Poll,
    PollTarget,
    Request,
    Save,
    Send,
)
from consumer.core.ledger.entries import Entry, State
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import (
    Accepted,
    DocumentOutcome,
    DocumentTaken,
    InDoubt,
    JobFailed,
    NoContact,
    NotFound,
    NotReady,
    OrderExists,
    OrderKept,
    PollOutcome,
    Ready,
    Rejected,
    SendOutcome,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.core.ownership import Assignment
from consumer.core.pacing import PollSchedule

PARTITIONS = (0, 1)
CONNECTION = "default"
LONGEST_RETRY_AFTER_S = 500.0
# Waits that were under way, then for each of at most 60 actions that a lane may hold: a poll and a send. Generous.
HEALED_WITHIN_S = 60 * (LONGEST_RETRY_AFTER_S + 2 * 360.0)

POLL_ANSWERS: tuple[PollOutcome, ...] = (
    Ready("tag"),
    Ready("newer"),
    Ready("newest"),
    NotReady(),
    NotFound(),
    JobFailed("failed"),
    Rejected(400, "refused"),
    Unauthorized(401),
    Throttled(),
    Throttled(LONGEST_RETRY_AFTER_S),
    Unavailable("503"),
)
DOCUMENT_ANSWERS: tuple[DocumentOutcome, ...] = (
    DocumentTaken("job 2"),
    DocumentTaken(None),
    OrderExists(),
    NotFound(),
    JobFailed("failed"),
    Rejected(400, "refused"),
    Unauthorized(401),
    Throttled(LONGEST_RETRY_AFTER_S),
    Unavailable("503"),
    Withdrawn(),
)
ACTION_ANSWERS: tuple[SendOutcome, ...] = (
    Accepted(),
    StaleTag(),
    Rejected(400, "refused"),
    NoContact(),
    Unauthorized(401),
    Throttled(LONGEST_RETRY_AFTER_S),
    Unavailable("refused"),
    InDoubt("no answer"),
    InDoubt("cut off"),
    Withdrawn(),
)

WITH_DOCUMENT_ANSWERS: tuple[WithDocumentOutcome, ...] = (
    DocumentTaken("job 2"),
    DocumentTaken(None),
    OrderExists(),
    OrderKept(),
    JobFailed("failed"),
    Rejected(400, "refused"),
    Throttled(LONGEST_RETRY_AFTER_S),
    InDoubt("no answer"),
    Withdrawn(),
)

# The arrows of the ledger's diagram; any state may also end in GONE.
ARROWS = {
    State.QUEUED: {State.WAITING, State.TAGGED, State.HOLDING},
    State.WAITING: {State.DUE},
    State.DUE: {State.POLLING, State.SAVING},
    State.POLLING: {State.WAITING, State.TAGGED, State.HOLDING},  # to HOLDING: given up in doubt
    State.TAGGED: {State.SAVING},
    State.SAVING: {State.READY},
    State.READY: {State.SENDING, State.TAGGED, State.DUE},
    State.SENDING: {State.HOLDING, State.TAGGED, State.WAITING, State.DUE},
    State.HOLDING: {State.TAGGED},
}

T = TypeVar("T")


class WatchedLedger(Ledger):
    """A ledger that takes no step beside its diagram and whose every call can be replayed."""

    def __init__(self) -> None:
        schedule = PollSchedule(initial_s=1.0)
        super().__init__(Policy(schedule, deadline_s=3600.0, not_found_grace_s=30.0), random.Random(7).random)
        self.calls: list[tuple[Callable[[Ledger], object], object]] = []
        move = self._book.move

        def watched(entry: Entry, state: State) -> None:
            assert state is State.GONE or state in ARROWS[entry.state], (entry.state, state)
            move(entry, state)

        self._book.move = watched  # type: ignore[method-assign]

    def do(self, call: Callable[[Ledger], T]) -> T:
        result = call(self)
        self.calls.append((call, result))
        return result

    def replay(self) -> None:
        again = WatchedLedger()
        for call, result in self.calls:
            assert call(again) == result


@dataclass
class Partition:
    """What Kafka holds of one partition, and what became of its events."""

    events: list[NewAction] = field(default_factory=list)
    position: int = 0
    live: dict[int, Save] = field(default_factory=dict)
    dead_lettered: set[int] = field(default_factory=set)
    processed: list[int] = field(default_factory=list)
    assignment: Assignment | None = None
    stopping: bool = False


class Relays(RuleBasedStateMachine):
    """One relay after the other, with everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.epoch = 0
        self.partitions = {number: Partition() for number in PARTITIONS}
        self.ledgers = [WatchedLedger()]
        self.queue: list[tuple[Effect, int | None]] = []  # to be committed, with the position that it settles
        self.in_flight: list[Request] = []
        self.draw = random.Random(3)

    @property
    def ledger(self) -> WatchedLedger:
        return self.ledgers[-1]

    @initialize()
    def begin(self) -> None:
        for number in PARTITIONS:
            self.assign(number)

    # -- what may happen ----------------------------------------------------------------------------------------

    @rule(
        number=st.sampled_from(PARTITIONS),
        order=st.sampled_from("AB"),
        tag=st.sampled_from([None, None, "tag"]),
        asked=st.sampled_from([THE_ORDER, Job("job 1"), Job("job 1"), THE_DOCUMENT, THE_CHANGE]),
        resend=st.booleans(),
        with_document=st.booleans(),
    )
    def event(
        self, number: int, order: str, tag: str | None, asked: PollTarget, resend: bool, with_document: bool
    ) -> None:
        partition = self.partitions[number]
        partition.events.append(
            NewAction(
                route="shipped",
                connection=CONNECTION,
                order_id=order,
                payload=b"{}",
                resend=resend,
                version_tag=None if asked == THE_DOCUMENT else tag,
                target=asked,
                document=THE_DOCUMENT if asked == THE_DOCUMENT else None,
                with_document=with_document and asked == THE_DOCUMENT,
            )
        )
        if partition.assignment is not None and not partition.stopping:
            self.read(partition.assignment, len(partition.events) - 1)

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 15.0, 400.0, 4000.0]), most=st.sampled_from([1, 1000]))
    def time_passes(self, seconds: float, most: int) -> None:
        now = self.now = self.now + seconds
        self.submit(self.ledger.do(lambda ledger: ledger.wake(now, most)))

    @rule(seconds=st.sampled_from([0.0, 2.0, 400.0]))
    def a_tick(self, seconds: float) -> None:
        self.time_passes(seconds, 1000)
        self.save_intents(4)
        self.commit(1.0)
        self.take(5)

    @rule(ahead=st.integers(0, 4))
    def save_intents(self, ahead: int) -> None:
        counts = self.ledger.counts()
        before = counts["saving"] + counts["ready"]
        effects = self.ledger.do(lambda ledger: ledger.save_intents(CONNECTION, ahead))
        assert len(effects) <= max(0, ahead - before)
        self.submit(effects)

    @rule(share=st.floats(0, 1))
    def commit(self, share: float) -> None:
        count = round(len(self.queue) * share)
        committed, self.queue = self.queue[:count], self.queue[count:]
        for effect, position in committed:
            self.apply(effect, position)
        for effect, _ in committed:
            if isinstance(effect, Save) and (effect.sending or effect.before_document):
                self.intent_saved(effect)

    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        for _ in range(most):
            request = self.ledger.do(lambda ledger: ledger.take(CONNECTION))
            if request is None:
                return
            self.in_flight.append(request)
            if isinstance(request, Send):
                number, offset = request.action_id.assignment.partition, request.action_id.offset
                assert self.partitions[number].live[offset].sending, "sent without a saved intent"

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 100), outcome=st.integers(0, 100), processed=st.booleans())
    def answer(self, which: int, outcome: int, processed: bool) -> None:
        request = self.in_flight.pop(which % len(self.in_flight))
        if isinstance(request, Poll):
            answers = DOCUMENT_ANSWERS if isinstance(request.target, Document | Change) else POLL_ANSWERS
            self.poll_answered(request, answers[outcome % len(answers)])
            return
        sent_answers = ACTION_ANSWERS if request.version_tag is not None else WITH_DOCUMENT_ANSWERS
        sent = sent_answers[outcome % len(sent_answers)]
        if sent in (Accepted(), DocumentTaken(None)) or (isinstance(sent, InDoubt) and processed):
            self.process(request)
        self.action_answered(request, sent)

    @rule(number=st.sampled_from(PARTITIONS), which=st.integers(0, 100))
    def written_again(self, number: int, which: int) -> None:
        partition = self.partitions[number]
        if partition.assignment is not None and partition.live:
            action_id = ActionId(partition.assignment, sorted(partition.live)[which % len(partition.live)])
            self.submit(self.ledger.do(lambda ledger: ledger.refresh(action_id)))

    @rule(number=st.sampled_from(PARTITIONS))
    def stop(self, number: int) -> None:
        partition = self.partitions[number]
        assignment = partition.assignment
        if assignment is not None:
            partition.stopping = True
            self.submit(self.ledger.do(lambda ledger: ledger.stop(assignment)))

    @rule(number=st.sampled_from(PARTITIONS), back=st.booleans())
    def hand_over_or_lose(self, number: int, back: bool) -> None:
        self.lose(number)
        if back:
            self.assign(number)

    @rule(number=st.sampled_from(PARTITIONS))
    def come_back(self, number: int) -> None:
        if self.partitions[number].assignment is None:
            self.assign(number)

    @rule()
    def crash(self) -> None:
        for number in PARTITIONS:
            self.lose(number, forget=False)
        self.ledgers.append(WatchedLedger())
        for number in PARTITIONS:
            self.assign(number)

    # -- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def counts_add_up(self) -> None:
        ledger = self.ledger
        counts = ledger.counts()
        assert sum(counts.values()) == ledger.open
        assert 0 <= ledger.in_doubt <= ledger.open
        assert min(counts.values()) >= 0
        held = [p.assignment for p in self.partitions.values() if p.assignment is not None]
        assert sum(ledger.in_flight(assignment) for assignment in held) == counts["saving"] + counts["sending"]
        for partition in self.partitions.values():
            if partition.assignment is None:
                assert set(partition.live) | partition.dead_lettered | set(partition.processed) == set(
                    range(partition.position)
                )

    @invariant()
    def what_engage_may_have_processed_is_a_saved_intent(self) -> None:
        """Or a document with an action in it, whose job is known."""
        for partition in self.partitions.values():
            for offset in partition.processed:
                save = partition.live.get(offset)
                assert save is None or save.sending or (partition.events[offset].with_document and save.job_id)

    @invariant()
    def every_event_is_open_or_ended(self) -> None:
        """What the held partitions' records say, once all that was submitted is committed, is what the ledger holds."""
        open_ = 0
        for partition in self.partitions.values():
            if partition.assignment is not None:
                live = dict.fromkeys(partition.live)
                for effect, position in self.queue:
                    if effect.action_id.assignment == partition.assignment:
                        if position is not None or isinstance(effect, Save):
                            live[effect.action_id.offset] = None
                        else:
                            live.pop(effect.action_id.offset, None)
                open_ += len(live)
        assert self.ledger.open == open_

    def teardown(self) -> None:
        """Whatever state they are in: if every call is answered well, every action ends accepted, in bounded time."""
        for number in PARTITIONS:
            if self.partitions[number].stopping or self.partitions[number].assignment is None:
                self.lose(number)
                self.assign(number)
        self.commit(1.0)
        given_up = {number: self.given_up(number) for number in PARTITIONS}
        deadline = self.now + HEALED_WITHIN_S
        while self.ledger.open:
            self.time_passes(0.0, 1000)
            self.save_intents(4)
            self.commit(1.0)
            self.take(5)
            for request in self.in_flight:
                if isinstance(request, Poll) and isinstance(request.target, Document | Change):
                    self.poll_answered(request, DocumentTaken("job 3"))
                elif isinstance(request, Poll):
                    self.poll_answered(request, Ready("tag"))
                elif request.version_tag is None:
                    self.action_answered(request, DocumentTaken("job 3"))
                else:
                    self.process(request)
                    self.action_answered(request, Accepted())
            if self.ledger.open and not self.in_flight and not self.queue:
                wake_at = self.ledger.next_wake()
                assert wake_at is not None, f"stuck: {self.ledger.counts()}"
                self.now = max(self.now, wake_at)
            self.in_flight = []
            assert self.now <= deadline
        self.commit(1.0)
        for number, partition in self.partitions.items():
            assert not partition.live
            assert partition.dead_lettered == given_up[number]
            assert partition.position == len(partition.events)
            assert partition.dead_lettered | set(partition.processed) == set(range(len(partition.events)))
        for ledger in self.ledgers:
            ledger.replay()

    def given_up(self, number: int) -> set[int]:
        """Return what is a dead letter, or will be one as soon as Engage can no longer be at work on it."""
        assignment = self.partitions[number].assignment
        assert assignment is not None
        entries = self.ledger._book.partitions[assignment].entries.values()
        return self.partitions[number].dead_lettered | {each.offset for each in entries if each.ending is not None}

    # -- the model ----------------------------------------------------------------------------------------------

    def assign(self, number: int) -> None:
        partition = self.partitions[number]
        self.epoch += 1
        assignment = partition.assignment = Assignment("orders", number, self.epoch)
        partition.stopping = False
        restored = [
            LiveAction(
                offset=offset,
                action=replace(
                    partition.events[offset],
                    version_tag=save.version_tag or partition.events[offset].version_tag,
                    target=Job(save.job_id) if save.job_id else partition.events[offset].target,
                ),
                sending=save.sending,
                first_seen=save.first_seen,
                due=save.due,
                attempts=save.attempts,
                sends=save.sends,
                contact_due=save.contact_due,
            )
            for offset, save in partition.live.items()
        ]
        self.draw.shuffle(restored)
        now = self.now
        self.submit(self.ledger.do(lambda ledger: ledger.assign(assignment, restored, now)))
        for offset in range(partition.position, len(partition.events)):
            self.read(assignment, offset)

    def read(self, assignment: Assignment, offset: int) -> None:
        action, now = self.partitions[assignment.partition].events[offset], self.now
        save = self.ledger.do(lambda ledger: ledger.accept(assignment, offset, action, now))
        assert save is not None
        self.queue.append((save, offset + 1))

    def lose(self, number: int, *, forget: bool = True) -> None:
        """A hand-over where nothing is under way, a loss otherwise: then Engage may have processed what was."""
        partition = self.partitions[number]
        assignment = partition.assignment
        if assignment is None:
            return
        for request in self.in_flight:
            if request.action_id.assignment == assignment and isinstance(request, Send) and self.draw.random() < 0.5:
                self.process(request)
        partition.assignment = None
        self.queue = [each for each in self.queue if each[0].action_id.assignment != assignment]
        if forget:
            self.ledger.do(lambda ledger: ledger.drop(assignment))
        else:
            self.in_flight = [each for each in self.in_flight if each.action_id.assignment != assignment]

    def process(self, send: Request) -> None:
        """Engage does it: in the lane's order, and a second time only where the route accepts that."""
        partition = self.partitions[send.action_id.assignment.partition]
        if send.action_id.assignment != partition.assignment:
            return  # that was decided when the partition was lost
        offset = send.action_id.offset
        action = partition.events[offset]
        lane = [each for each in partition.processed if partition.events[each].order_id == action.order_id]
        assert not lane or lane[-1] <= offset, "overtaken"
        assert offset not in lane or action.resend, "doubled against the route's policy"
        partition.processed.append(offset)

    def poll_answered(self, poll: Poll, outcome: PollOutcome | DocumentOutcome) -> None:
        now = self.now
        effects = self.ledger.do(lambda ledger: ledger.poll_answered(poll.action_id, outcome, now))
        if any(isinstance(effect, Close) for effect in effects):
            assert isinstance(poll.target, Job), "ended by another answer than its job's"
            # Asked again after a crash, the job says once more what Engage did once.
            if poll.action_id.offset not in self.partitions[poll.action_id.assignment.partition].processed:
                self.process(poll)
        self.submit(effects)

    def action_answered(self, send: Send, outcome: SendOutcome) -> None:
        now = self.now
        self.submit(self.ledger.do(lambda ledger: ledger.action_answered(send.action_id, outcome, now)))

    def intent_saved(self, save: Save) -> None:
        now = self.now
        before_document = save.before_document
        self.submit(
            self.ledger.do(
                lambda ledger: ledger.intent_saved(save.action_id, save.sends, now, before_document=before_document)
            )
        )

    def submit(self, effects: list[Effect]) -> None:
        self.queue += [(effect, None) for effect in effects]

    def apply(self, effect: Effect, position: int | None) -> None:
        partition, offset = self.partitions[effect.action_id.assignment.partition], effect.action_id.offset
        if position is not None:
            partition.position = position
        match effect:
            case Save():
                partition.live[offset] = effect
            case Close():
                assert offset in partition.processed, "closed, but never processed"
                del partition.live[offset]
            case GiveUp():
                del partition.live[offset]
                partition.dead_lettered.add(offset)


Relays.TestCase.settings = settings(
    max_examples=5 * settings().max_examples,  # 500; a tenth of it in `make check`
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRelays = Relays.TestCase
