"""The ledger's rules and design's table of outcomes, row by row.

In these tests an action is called by its event's offset. What is asked of Engage reads `poll 0`, `send 0`; what goes
to the journal reads `save 0`, `intent 0`, `close 0`, `set given_up 0: reason`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar, cast

import pytest

from consumer.core.effects import (
    THE_CHANGE,
    THE_DOCUMENT,
    THE_ORDER,
    UNKNOWN,
    ActionId,
    Close,
    Document,
    Effect,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Order,
    Poll,
    PollTarget,
    Request,
    Save,
    Send,
    Times,
)
from consumer.core.ledger.agenda import LEARNT_TAGS
from consumer.core.ledger.answers import MAX_STALE, MIN_TRIES, SUSPENDED_WAIT_S
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import (
    Accepted,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    Forbidden,
    InDoubt,
    JobFailed,
    NoContact,
    NotFound,
    NotReady,
    OrderExists,
    OrderKept,
    Outcome,
    PollOutcome,
    Ready,
    Rejected,
    SendOutcome,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Undated,
    Withdrawn,
)
from consumer.core.ownership import Assignment
from consumer.core.pacing import PollSchedule
from consumer.core.parking import ENTRY_BYTES
from consumer.core.pauses import Pause, Pauses
from consumer.core.places import offset_at, place_of
from schemas.dead_letter import Reason

OURS = Assignment("orders", 0, epoch=1)
AGAIN = Assignment("orders", 0, epoch=2)
HOUR, DAY = 3600.0, 24 * 3600.0
DOWN = Unavailable("refused")
FOREVER = 10_000_000.0
E = TypeVar("E", Save, Close, GiveUp)


def action(order: str = "A", *, tag: str | None = None, job: str | None = "job", resend: bool = True) -> NewAction:
    return NewAction(
        route="shipped",
        connection="default",
        order_id=order,
        payload=b"{}",
        resend=resend,
        version_tag=tag,
        target=THE_ORDER if job is None else Job(job),
    )


def with_document(order: str = "A") -> NewAction:
    return replace(action(order, job=None), target=THE_DOCUMENT, document=THE_DOCUMENT)


def redriven(*, first_offset: int, change: bool = False) -> NewAction:
    if change:
        return replace(action("A", job=None), target=THE_CHANGE, first_offset=first_offset)
    document = Document(replaces=False)
    return replace(with_document(), target=document, document=document, first_offset=first_offset)


def tagged(order: str = "A", *, resend: bool = True) -> NewAction:
    return action(order, tag="tag", job=None, resend=resend)


def restored(
    offset: int, what: NewAction, *, sending: bool = False, first_seen: float = 0.0, due: float = 0.0, sends: int = 0
) -> LiveAction:
    return LiveAction(
        offset=place_of(0, offset),
        action=what,
        sending=sending,
        first_seen=first_seen,
        due=due,
        attempts=0,
        sends=sends or int(sending),
    )


def told(effect: Effect) -> str:
    match effect:
        case Save():
            return f"{'intent' if effect.sending else 'save'} {offset_at(effect.action_id.offset)}"
        case Close():
            return f"close {offset_at(effect.action_id.offset)}"
        case GiveUp():
            return f"dead letter {offset_at(effect.action_id.offset)}: {effect.reason}"


class Driver:
    """A ledger, its time, a journal that commits at once, and an Engage that is asked whatever is due.

    Engage is never at work on what it did not answer, unless `processing_s` says so.
    """

    def __init__(
        self, assignment: Assignment = OURS, *records: LiveAction, now: float = 0.0, processing_s: float = 0.0
    ) -> None:
        schedule = PollSchedule(initial_s=1.0, growth=2.0)
        policy = Policy(schedule, deadline_s=DAY, not_found_grace_s=600.0, processing_s=processing_s)
        self.ledger = Ledger(policy, jitter=lambda: 0.5)
        self.assignment = assignment
        self.now = now
        self.effects: list[Effect] = []
        self.asked: dict[int, Request] = {}
        self._apply(self.ledger.assign(assignment, records, now))
        self.wake()

    def event(self, offset: int, what: NewAction) -> list[str]:
        save = self.ledger.accept(self.assignment, place_of(0, offset), what, self.now)
        return self._apply([] if save is None else [save])

    def after(self, seconds: float) -> list[str]:
        """Let time pass; returns all that is asked of Engage then."""
        self.now += seconds
        self.wake()
        self.save_intents()
        asked = []
        while (request := self.ledger.take("default")) is not None:
            self.asked[offset_at(request.action_id.offset)] = request
            asked.append(f"{'poll' if isinstance(request, Poll) else 'send'} {offset_at(request.action_id.offset)}")
        return asked

    def asks_next_after(self) -> float:
        """Let time pass until something is asked; returns how long that took."""
        wake_at = self.ledger.next_wake()
        assert wake_at is not None
        waited = wake_at - self.now
        assert self.after(waited)
        return round(waited, 3)

    def wake(self) -> list[str]:
        return self._apply(self.ledger.wake(self.now))

    def save_intents(self) -> None:
        self._apply(self.ledger.save_intents("default", ahead=1_000_000))

    def answer(self, offset: int, *outcomes: Outcome) -> list[str]:
        """Engage answers; where several times, whenever it is asked again. Returns what the last one led to."""
        done: list[str] = []
        for outcome in outcomes:
            while offset not in self.asked:
                _ = self.after(0) or self.asks_next_after()
            request = self.asked.pop(offset)
            if isinstance(request, Poll):
                polled = cast("PollOutcome | DocumentOutcome", outcome)
                done = self._apply(self.ledger.poll_answered(request.action_id, polled, self.now))
            else:
                sent = cast("SendOutcome", outcome)
                done = self._apply(self.ledger.action_answered(request.action_id, sent, self.now))
            done += self.wake()
        return done

    def last(self, kind: type[E]) -> E:
        return next(effect for effect in reversed(self.effects) if isinstance(effect, kind))

    @property
    def states(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.counts().items() if count}

    def _apply(self, effects: list[Effect]) -> list[str]:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Save) and (effect.sending or effect.before_document):
                saved = self.ledger.intent_saved(
                    effect.action_id,
                    effect.sends,
                    ownership_confirmed_at=self.now,
                    before_document=effect.before_document,
                )
                self._apply(saved)
        return [told(effect) for effect in effects]


# -- from an event to Engage's 202 -----------------------------------------------------------------------------------


def test_an_event_is_saved_polled_intended_sent_and_closed() -> None:
    driver = Driver()
    assert driver.event(0, action()) == ["save 0"]
    assert driver.after(0.9) == []
    assert driver.after(0.1) == ["poll 0"]
    assert driver.answer(0, Ready("tag")) == []
    assert driver.after(0) == ["send 0"]
    assert told(driver.effects[-1]) == "intent 0"
    assert driver.answer(0, Accepted()) == ["close 0"]
    assert driver.ledger.open == 0
    assert driver.states == {}
    assert driver.ledger.next_wake() is None


def test_a_tag_in_the_event_is_sent_at_once() -> None:
    driver = Driver()
    driver.event(0, tagged())
    assert driver.after(0) == ["send 0"]


def test_what_is_asked_and_sent_says_all_that_the_edge_needs() -> None:
    driver = Driver(now=100.0)
    driver.event(0, action(job="j1"))
    driver.after(1)
    poll = driver.asked[0]
    assert poll == Poll(
        action_id=ActionId(OURS, place_of(0, 0)), order_id="A", payload=b"{}", target=Job("j1"), due=101.0
    )
    driver.answer(0, Ready("t1"))
    driver.after(0.5)
    send = driver.asked[0]
    assert send == Send(
        action_id=ActionId(OURS, place_of(0, 0)),
        order_id="A",
        payload=b"{}",
        version_tag="t1",
        ownership_confirmed_at=101.5,
        tagged_at=101.0,
    )


def test_an_event_that_is_held_already_or_of_a_partition_that_is_gone_is_nothing_new() -> None:
    driver = Driver(OURS, restored(0, action()))
    assert driver.event(0, action()) == []
    assert driver.ledger.open == 1
    assert driver.ledger.accept(AGAIN, 1, action(), 0.0) is None


# -- sequence within an order ----------------------------------------------------------------------------------------


def test_a_shipment_never_overtakes_a_pending_confirmation() -> None:
    driver = Driver()
    driver.event(0, action())
    driver.event(1, tagged())
    assert driver.after(60) == ["poll 0"]
    driver.answer(0, Ready("tag"))
    assert driver.after(0) == ["send 0"]
    driver.answer(0, DOWN)
    assert driver.after(5) == []
    driver.answer(0, Accepted())
    assert driver.after(0) == ["send 1"]


def test_orders_never_wait_for_each_other() -> None:
    driver = Driver()
    driver.event(0, action("A"))
    driver.event(1, tagged("B"))
    driver.event(2, replace(tagged("A"), connection="other"))
    assert driver.after(0) == ["send 1"]
    assert [told(effect) for effect in driver.ledger.save_intents("other", 1)] == ["intent 2"]


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_an_action_that_is_dead_lettered_leaves_the_others_in_their_order(gone: int) -> None:
    driver = Driver()
    for offset in range(4):
        driver.event(offset, tagged())
    driver.ledger.record_too_large(ActionId(OURS, place_of(0, gone)), driver.now)
    driver.event(4, tagged())
    sent = []
    while driver.ledger.open:
        (request,) = driver.after(0)
        sent.append(int(request[-1]))
        driver.answer(sent[-1], Accepted())
    assert sent == [offset for offset in range(5) if offset != gone]
    assert driver.ledger.in_flight(OURS) == 0


def test_a_dead_letter_frees_its_successor() -> None:
    driver = Driver()
    driver.event(0, tagged())
    driver.event(1, tagged())
    driver.after(0)
    assert driver.answer(0, Rejected(422, "no contact")) == ["dead letter 0: rejected"]
    assert driver.after(0) == ["send 1"]


def test_actions_come_before_polls_and_the_oldest_first() -> None:
    driver = Driver()
    for offset, order in enumerate("ABCD"):
        driver.event(offset, action(order, job=f"j{order}"))
    driver.event(4, tagged("E"))
    driver.event(5, tagged("F"))
    assert driver.after(1) == ["send 4", "send 5", "poll 0", "poll 1", "poll 2", "poll 3"]


# -- tags that are known already -------------------------------------------------------------------------------------


def test_the_orders_next_action_reuses_the_tag_of_the_same_job() -> None:
    driver = Driver()
    driver.event(0, action(job="j1"))
    driver.event(1, action(job="j1"))
    driver.event(2, action(job="j2"))
    driver.after(1)
    driver.answer(0, Ready("t1"))
    assert driver.after(0) == ["send 0"]
    driver.answer(0, Accepted())
    assert driver.after(0) == ["send 1"]
    driver.answer(1, Accepted())
    assert driver.after(0) == ["poll 2"]


def test_the_orders_next_action_reuses_the_orders_tag_if_it_waited_when_that_was_polled() -> None:
    driver = Driver()
    for offset in (0, 1, 2):
        driver.event(offset, action(job=None))
    driver.answer(0, Ready("t1"))
    driver.event(3, action(job=None))
    assert driver.after(1) == ["send 0"]
    driver.answer(0, Accepted())
    assert driver.after(1) == ["send 1"]
    driver.answer(1, Accepted())
    assert driver.after(1) == ["send 2"]
    driver.answer(2, Accepted())
    assert driver.after(1) == ["poll 3"]  # its event may be what changed the order since


def test_a_document_behind_the_one_that_must_not_be_asked_now_is_saved_before_it_leaves_as_any() -> None:
    """Taken as a poll, it would never leave, and its order wait for ever."""
    driver = Driver()
    driver.event(0, action("A"))
    driver.event(1, with_document("B"))
    driver.now += 1
    driver.ledger.wake(driver.now)
    avoided = ActionId(OURS, 0)
    assert driver.ledger.take("default", avoided) is None
    driver.save_intents()
    request = driver.ledger.take("default", avoided)
    assert isinstance(request, Poll)
    assert request.ownership_confirmed_at == driver.now


@pytest.mark.parametrize("target", [Order(newer_than=datetime(2026, 11, 28, tzinfo=UTC)), Job("job"), THE_DOCUMENT])
def test_a_tag_of_the_order_is_no_answer_to_an_action_that_asks_for_more(target: PollTarget) -> None:
    driver = Driver()
    driver.event(0, action(job=None))
    driver.event(1, replace(action(job=None), target=target))
    driver.answer(0, Ready("t1"), Accepted())
    assert driver.after(1) == ["poll 1"]


def test_a_learnt_tag_counts_on_its_own_connection_only() -> None:
    driver = Driver()
    driver.event(0, action("A"))
    driver.after(1)
    driver.answer(0, Ready("tag"))
    driver.ledger.accept(OURS, 1, replace(action("B"), connection="other"), driver.now)
    assert driver.ledger.save_intents("other", 1) == []


def test_the_tag_that_replaced_a_stale_one_is_learnt_for_the_job() -> None:
    driver = Driver()
    driver.event(0, action())
    driver.event(1, action())
    driver.answer(0, Ready("old"), StaleTag(), Ready("new"), Accepted())
    assert driver.after(0) == ["send 1"]
    assert isinstance(driver.asked[1], Send)
    assert driver.asked[1].version_tag == "new"


@pytest.mark.slow
def test_only_the_latest_tags_are_remembered() -> None:
    driver = Driver()
    for offset in range(LEARNT_TAGS + 1):
        driver.event(offset, action(f"order {offset}", job=f"job {offset}"))
    while any(what.startswith("poll") for what in driver.after(1)):
        for offset, request in list(driver.asked.items()):
            if isinstance(request, Poll):
                driver.answer(offset, Ready("tag"))
    driver.event(20_000, action("P", job="job 0"))
    driver.event(20_001, action("Q", job="job 1"))
    assert driver.after(0)[-1] == "send 20001"


# -- intents, just in time -------------------------------------------------------------------------------------------


def test_only_as_many_intents_stand_ahead_as_the_caller_allows() -> None:
    driver = Driver()
    for offset, order in enumerate("ABCDE"):
        driver.event(offset, tagged(order))
    ledger = driver.ledger
    assert [told(e) for e in ledger.save_intents("default", 2)] == ["intent 0", "intent 1"]
    assert ledger.save_intents("default", 2) == []
    ledger.intent_saved(ActionId(OURS, place_of(0, 0)), 1, 0.0)
    assert ledger.save_intents("default", 2) == []
    assert ledger.take("default") is not None
    assert [told(e) for e in ledger.save_intents("default", 2)] == ["intent 2"]


def test_nothing_is_sent_before_its_intent_is_saved() -> None:
    driver = Driver()
    driver.event(0, tagged())
    driver.ledger.save_intents("default", 1)
    assert driver.ledger.take("default") is None
    driver.ledger.intent_saved(ActionId(OURS, place_of(0, 0)), 1, 0.0)
    assert isinstance(driver.ledger.take("default"), Send)


def test_the_commit_of_another_record_in_doubt_is_no_intent() -> None:
    driver = Driver(OURS, restored(0, tagged(), sending=True, sends=3))
    driver.ledger.wake(DAY)
    driver.ledger.save_intents("default", 1)
    driver.ledger.intent_saved(ActionId(OURS, place_of(0, 0)), 3, 0.0)
    assert driver.ledger.take("default") is None
    driver.ledger.intent_saved(ActionId(OURS, place_of(0, 0)), 4, 0.0)
    assert isinstance(driver.ledger.take("default"), Send)


def test_an_action_that_was_withdrawn_at_the_last_moment_is_out_of_doubt_and_is_next_again() -> None:
    driver = Driver()
    driver.event(0, tagged("A"))
    driver.after(0)
    driver.event(1, tagged("B"))
    assert driver.answer(0, Withdrawn()) == ["save 0"]
    assert driver.last(Save).sends == 0
    assert driver.ledger.in_doubt == 0
    assert driver.after(0) == ["send 0", "send 1"]
    assert driver.last(Save).sends == 1


def test_an_action_that_is_withdrawn_while_in_doubt_stays_in_doubt() -> None:
    driver = Driver()
    driver.event(0, tagged())
    assert driver.answer(0, InDoubt("reset"), Withdrawn()) == ["intent 0"]
    assert driver.ledger.in_doubt == 1


# -- the table of outcomes: polls ------------------------------------------------------------------------------------


def asking(job: str | None = "job") -> Driver:
    driver = Driver()
    driver.event(0, action(job=job))
    driver.after(1)
    return driver


def test_poll_not_ready_is_asked_again_after_growing_waits() -> None:
    driver = asking()
    waits = []
    for _ in range(8):
        assert driver.answer(0, NotReady()) == []
        waits.append(driver.asks_next_after())
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 50.0, 50.0, 50.0]


def test_poll_job_failed_is_a_dead_letter_with_engages_errors() -> None:
    driver = asking()
    assert driver.answer(0, JobFailed("job status is failed", "[1]")) == ["dead letter 0: job_failed"]
    assert driver.last(GiveUp) == GiveUp(
        action_id=ActionId(OURS, place_of(0, 0)),
        route="shipped",
        payload=b"{}",
        reason=Reason.JOB_FAILED,
        detail="job status is failed",
        errors="[1]",
        attempts=1,
        sends=0,
        times=Times(0.0),
    )


def test_poll_rejected_is_a_dead_letter_with_engages_errors() -> None:
    driver = asking()
    assert driver.answer(0, Rejected(400, "Engage answered 400", "[2]")) == ["dead letter 0: poll_rejected"]
    assert driver.last(GiveUp).errors == "[2]"


def test_poll_refused_key_dead_letters_nothing_however_long_it_lasts() -> None:
    driver = asking()
    for _ in range(50):
        assert driver.answer(0, Unauthorized(401)) == []
        assert driver.asks_next_after() == SUSPENDED_WAIT_S
        driver.now += HOUR
    assert driver.now > DAY


def test_poll_404_is_asked_for_a_grace_time_then_a_dead_letter() -> None:
    driver = asking()
    first = driver.now
    while not (done := driver.answer(0, NotFound())):
        _ = driver.after(0) or driver.asks_next_after()
    assert done == ["dead letter 0: not_found"]
    assert 600 <= driver.now - first < 660


def until_its_order_is_asked(driver: Driver) -> Poll:
    """Engage does not know the job of the first action, until it is asked for something else."""
    while isinstance(request := driver.asked[0], Poll) and request.target != THE_ORDER:
        assert driver.answer(0, NotFound()) == []
        _ = driver.after(0) or driver.asks_next_after()
    assert isinstance(request, Poll)
    return request


def test_a_job_that_engage_has_forgotten_leads_to_its_order_after_the_grace_time() -> None:
    driver = asking()
    driver.event(1, action())
    first = driver.now
    until_its_order_is_asked(driver)
    assert 600 <= driver.now - first < 660
    driver.answer(0, Ready("tag"), Accepted())
    assert driver.after(0) == ["send 1"], "the order's next action of this job need not wait as long"


def test_an_order_that_is_there_and_has_no_tag_yet_is_polled_on_in_its_jobs_place() -> None:
    driver = asking()
    request = until_its_order_is_asked(driver)
    for _ in range(10):
        assert driver.answer(0, NotReady()) == []
        driver.asks_next_after()
        assert driver.asked[0] == replace(request, due=driver.now)


def test_a_document_that_is_sent_again_has_a_new_job_though_the_former_one_was_forgotten() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.after(0)
    driver.answer(0, DocumentTaken("j-1"))
    driver.asks_next_after()
    until_its_order_is_asked(driver)
    driver.answer(0, Ready("t-1"), NoContact())
    driver.answer(0, DocumentTaken("j-2"))
    driver.asks_next_after()
    assert isinstance(driver.asked[0], Poll)
    assert driver.asked[0].target == Job("j-2")


def test_poll_404_after_a_long_wait_in_the_lane_still_gets_the_grace_time() -> None:
    driver = Driver()
    driver.event(0, tagged())
    driver.event(1, action())
    driver.after(0)
    driver.now += HOUR
    driver.answer(0, Accepted())
    driver.answer(1, NotFound(), NotFound(), NotFound(), NotFound())
    assert driver.ledger.open == 1


def test_poll_404_after_not_ready_starts_the_grace_time_again() -> None:
    driver = asking()
    driver.answer(0, *[NotFound()] * 12, NotReady(), *[NotFound()] * 8)
    assert driver.now > 800
    assert driver.ledger.open == 1


def test_poll_throttled_waits_as_told_or_longer_each_time() -> None:
    driver = asking()
    driver.answer(0, Throttled(7.0))
    assert driver.asks_next_after() == 7.0
    driver.answer(0, Throttled())
    assert driver.asks_next_after() == 30.0


@pytest.mark.parametrize("again", [Throttled(1.0), Throttled(1.0, answered=True), Unavailable("503", 1.0)])
def test_poll_told_to_come_back_soon_again_and_again_waits_longer_all_the_same(
    again: Throttled | Unavailable,
) -> None:
    driver = asking()
    waits = []
    for _ in range(6):
        driver.answer(0, again)
        waits.append(driver.asks_next_after())
    assert waits == [1.0, 1.0, 10.0, 30.0, 60.0, 300.0]


def test_poll_failures_in_a_row_wait_as_engage_asks_for() -> None:
    driver = asking()
    waits = []
    for _ in range(5):
        driver.answer(0, DOWN)
        waits.append(driver.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0, 300.0]


def test_poll_one_failure_after_many_answers_is_the_first_failure() -> None:
    driver = asking()
    driver.answer(0, *[NotReady()] * 20, DOWN)
    assert driver.asks_next_after() == 10.0


def test_poll_503_with_retry_after_waits_as_told() -> None:
    driver = asking()
    driver.answer(0, Unavailable("503", 120.0))
    assert driver.asks_next_after() == 120.0


# -- deadline --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("never", "reason"), [(NotReady(), "deadline"), (NotFound(), "not_found")])
def test_a_poll_that_never_gets_ready_ends(never: PollOutcome, reason: str) -> None:
    driver = asking()
    done: list[str] = []
    while not done:
        done = driver.answer(0, never)
    assert done == [f"dead letter 0: {reason}"]
    assert driver.now < DAY + 120


@pytest.mark.parametrize(
    ("never", "why"),
    [
        (NotReady(), "not processed"),
        (NotReady("archived"), "not processed, its job says archived"),
        (NotReady(why="its lastChangedAt is before newer_than"), "its lastChangedAt is before newer_than"),
    ],
)
def test_the_deadlines_dead_letter_says_what_engage_said_last(never: PollOutcome, why: str) -> None:
    driver = asking()
    while not driver.answer(0, never):
        pass
    assert driver.last(GiveUp).detail == f"not delivered within {DAY:g} s: {why}"


def test_an_outage_of_days_dead_letters_nothing_and_fair_polls_follow_it() -> None:
    driver = asking()
    while driver.now < 3 * DAY:
        assert driver.answer(0, DOWN) == []
    assert driver.answer(0, *[NotReady()] * (MIN_TRIES - 1)) == []
    assert driver.answer(0, NotReady()) == ["dead letter 0: deadline"]


def test_a_ready_tag_is_sent_however_late_it_comes() -> None:
    driver = Driver(OURS, restored(0, action()), now=30 * DAY)
    driver.answer(0, Ready("tag"))
    assert driver.after(0) == ["send 0"]


def test_a_relay_that_was_down_for_days_gives_each_action_fair_tries() -> None:
    driver = Driver(OURS, restored(0, tagged()), now=30 * DAY)
    assert driver.answer(0, *[InDoubt("500")] * (MIN_TRIES - 1)) == []
    assert driver.answer(0, InDoubt("500")) == ["dead letter 0: outcome_unknown"]


def test_a_poll_says_when_it_was_due_however_late_it_is_taken() -> None:
    driver = Driver()
    driver.event(0, action())
    driver.after(7.5)
    assert isinstance(poll := driver.asked[0], Poll)
    assert poll.due == 1.0


def test_a_restored_poll_is_due_at_the_restore_at_the_earliest() -> None:
    driver = Driver(OURS, restored(0, action(), due=100.0), now=HOUR)
    driver.after(0.25)
    assert isinstance(poll := driver.asked[0], Poll)
    assert poll.due == HOUR


# -- the table of outcomes: the order document ------------------------------------------------------------------------


def test_a_posted_document_names_the_job_that_is_polled_from_then_on() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.after(1)
    assert driver.asked[0] == Poll(
        action_id=ActionId(OURS, place_of(0, 0)),
        order_id="A",
        payload=b"{}",
        target=THE_DOCUMENT,
        due=driver.now,
        ownership_confirmed_at=driver.now,
    )
    assert driver.answer(0, DocumentTaken("j9")) == ["save 0"]
    assert driver.last(Save).job_id == "j9"
    assert driver.asks_next_after() == 1.0
    assert driver.asked[0] == Poll(
        action_id=ActionId(OURS, place_of(0, 0)), order_id="A", payload=b"{}", target=Job("j9"), due=driver.now
    )


def test_a_document_leaves_only_after_its_record_is_committed_again() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.now += 1
    driver.ledger.wake(driver.now)
    assert driver.ledger.take("default") is None
    (save,) = driver.ledger.save_intents("default", ahead=1)
    assert isinstance(save, Save)
    assert (save.before_document, save.sending, save.sends) == (True, False, 0)
    assert driver.ledger.take("default") is None
    # The commit of an older record, of an action in doubt, has the same count of sends.
    assert driver.ledger.intent_saved(save.action_id, save.sends, ownership_confirmed_at=0.4) == []
    assert driver.ledger.take("default") is None
    saved = driver.ledger.intent_saved(save.action_id, save.sends, ownership_confirmed_at=0.5, before_document=True)
    assert saved == []
    request = driver.ledger.take("default")
    assert isinstance(request, Poll)
    assert (request.target, request.ownership_confirmed_at) == (THE_DOCUMENT, 0.5)


def test_a_hand_over_waits_for_a_document_under_way() -> None:
    driver = Driver()
    driver.event(0, with_document())
    assert driver.after(1) == ["poll 0"]
    driver.ledger.stop(OURS)
    assert driver.ledger.in_flight(OURS) == 1
    assert driver.answer(0, DocumentTaken("j9")) == ["save 0"]
    assert driver.ledger.in_flight(OURS) == 0
    assert driver.after(HOUR) == []


def test_a_hand_over_takes_a_document_back_that_was_not_sent_yet() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.now += 1
    driver.ledger.wake(driver.now)
    driver.save_intents()
    (save,) = driver.ledger.stop(OURS)
    assert isinstance(save, Save)
    assert not save.before_document  # the next owner need not wait for it
    assert driver.after(0) == []
    assert driver.ledger.in_flight(OURS) == 0


def test_a_withdrawn_document_is_saved_and_sent_again() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.after(1)
    assert driver.answer(0, Withdrawn()) == ["save 0"]
    assert driver.after(0) == ["poll 0"]
    assert driver.last(Save).before_document
    assert (driver.last(Save).sends, driver.last(Save).attempts) == (0, 0)


def test_an_order_that_was_found_to_exist_is_replaced_without_another_post() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.answer(0, OrderExists(), Withdrawn())
    driver.after(0)
    assert isinstance(poll := driver.asked[0], Poll)
    assert poll.target == Document(exists=True)
    driver.answer(0, DOWN)
    driver.asks_next_after()
    assert isinstance(poll := driver.asked[0], Poll)
    assert poll.target == THE_DOCUMENT


def sent_as(driver: Driver, offset: int) -> PollTarget:
    """Return how the document leaves, or what is polled in its place."""
    while offset not in driver.asked:
        _ = driver.after(0) or driver.asks_next_after()
    request = driver.asked[offset]
    assert isinstance(request, Poll)
    return request.target


def end(driver: Driver, offset: int) -> None:
    driver.answer(offset, DocumentTaken("j"), Ready("t"), Accepted())


def test_a_redriven_document_that_is_older_than_a_taken_one_is_not_sent_and_its_action_goes_by_itself() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.answer(0, Rejected(400, "refused"))
    driver.event(1, with_document())
    end(driver, 1)
    driver.event(2, redriven(first_offset=0))
    assert sent_as(driver, 2) == THE_ORDER
    assert driver.answer(2, Ready("t"), Accepted()) == ["close 2"]


def test_a_redriven_document_that_is_the_newest_replaces_the_order() -> None:
    driver = Driver()
    driver.event(0, with_document())
    end(driver, 0)
    driver.event(1, with_document())
    driver.answer(1, Rejected(400, "refused"))
    driver.event(2, redriven(first_offset=1))
    assert sent_as(driver, 2) == THE_DOCUMENT


def test_a_redriven_document_replaces_no_order_whose_newest_document_is_unknown() -> None:
    driver = Driver()
    driver.event(2, redriven(first_offset=1))
    assert sent_as(driver, 2) == Document(replaces=False)
    assert driver.answer(2, OrderKept()) == ["save 2"]
    assert sent_as(driver, 2) == THE_ORDER


def test_a_redriven_document_that_does_not_say_what_it_repeats_is_the_oldest() -> None:
    driver = Driver()
    driver.event(0, with_document())
    end(driver, 0)
    driver.event(1, redriven(first_offset=UNKNOWN))
    assert sent_as(driver, 1) == THE_ORDER


@pytest.mark.parametrize("first_offset", [3, 7])
def test_an_offset_that_no_earlier_event_can_have_had_says_nothing(first_offset: int) -> None:
    driver = Driver()
    driver.event(0, with_document())
    end(driver, 0)
    driver.event(2, redriven(first_offset=first_offset))
    assert sent_as(driver, 2) == THE_ORDER


def test_a_newer_document_counts_although_its_answer_never_came() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.answer(0, Rejected(400, "refused"))
    driver.event(1, with_document())
    driver.answer(1, DOWN, Rejected(400, "refused"))
    driver.event(2, redriven(first_offset=0))
    assert sent_as(driver, 2) == Document(replaces=False)


def test_a_redriven_change_is_made_only_where_it_is_known_to_be_the_newest() -> None:
    driver = Driver()
    driver.event(5, redriven(first_offset=0, change=True))
    assert sent_as(driver, 5) == THE_ORDER  # unknown
    driver.answer(5, Ready("t"), Accepted())
    driver.event(6, with_document())
    end(driver, 6)
    driver.event(8, redriven(first_offset=7, change=True))
    assert sent_as(driver, 8) == THE_CHANGE
    end(driver, 8)
    driver.event(9, redriven(first_offset=6, change=True))
    assert sent_as(driver, 9) == THE_ORDER


def test_an_action_that_travels_in_an_older_document_is_sent_without_it() -> None:
    driver = Driver()
    driver.event(1, with_document())
    end(driver, 1)
    driver.event(2, replace(redriven(first_offset=0), with_document=True))
    assert sent_as(driver, 2) == THE_ORDER
    assert driver.answer(2, Ready("t"), Accepted()) == ["close 2"]


def test_a_document_that_carries_its_action_counts_as_any() -> None:
    driver = Driver()
    driver.event(1, replace(with_document(), with_document=True))
    assert driver.after(0) == ["send 1"]
    driver.answer(1, DocumentTaken("j"), Ready("t"))
    driver.event(2, redriven(first_offset=0))
    assert sent_as(driver, 2) == THE_ORDER


def test_of_redriven_documents_each_replaces_the_one_before_it() -> None:
    driver = Driver()
    driver.event(7, redriven(first_offset=3))
    end(driver, 7)
    driver.event(8, redriven(first_offset=5))
    assert sent_as(driver, 8) == THE_DOCUMENT
    end(driver, 8)
    driver.event(9, redriven(first_offset=4))
    assert sent_as(driver, 9) == THE_ORDER


def test_an_order_that_was_kept_says_nothing_about_its_newest_document() -> None:
    driver = Driver()
    driver.event(7, redriven(first_offset=3))
    driver.answer(7, OrderKept(), Ready("t"), Accepted())
    driver.event(8, redriven(first_offset=5))
    assert sent_as(driver, 8) == Document(replaces=False)


def test_what_an_earlier_assignment_sent_is_unknown_as_another_owner_may_have_sent_more() -> None:
    driver = Driver()
    driver.event(0, with_document())
    end(driver, 0)
    driver.ledger.drop(OURS)
    driver.assignment = OURS._replace(epoch=OURS.epoch + 1)
    driver.ledger.assign(driver.assignment, [], driver.now)
    driver.event(2, redriven(first_offset=1))
    assert sent_as(driver, 2) == Document(replaces=False)


def test_an_order_without_a_contact_gets_no_older_document_again() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.answer(0, DocumentTaken("j"), Ready("t"), Rejected(400, "refused"))
    driver.event(1, with_document())
    end(driver, 1)
    driver.event(2, redriven(first_offset=0))
    driver.answer(2, Ready("t"), NoContact())
    assert sent_as(driver, 2) == THE_ORDER


AT_WORK = Unavailable("time-out", may_be_processed=True)


def test_a_document_that_may_still_be_applied_is_sent_again_only_when_that_cannot_be_any_more() -> None:
    """Otherwise the second one could be taken, and the order's next document, before the first one is applied."""
    driver = Driver(processing_s=30.0)
    driver.event(0, with_document())
    driver.answer(0, AT_WORK)
    assert driver.asks_next_after() == 30.0
    driver.answer(0, Unavailable("busy", 90.0, may_be_processed=True))
    assert driver.asks_next_after() == 90.0
    driver.answer(0, DOWN)
    assert driver.asks_next_after() == 60.0  # the third backoff in a row: it never left


def test_the_deadline_of_a_document_that_may_still_be_applied_holds_the_orders_next_action_back() -> None:
    driver = Driver(processing_s=30.0)
    driver.event(0, with_document())
    driver.event(1, with_document())
    driver.answer(0, AT_WORK, AT_WORK)
    driver.now += DAY
    assert driver.answer(0, replace(AT_WORK, answered=True)) == []
    assert driver.after(29) == []
    assert driver.after(1) == ["poll 1"]
    assert driver.last(GiveUp).reason is Reason.DEADLINE


def test_the_deadline_of_a_document_that_may_still_be_applied_keeps_its_record_for_the_next_owner() -> None:
    """Who takes the partition over knows only records. Without one, it would let the order's next document leave."""
    driver = Driver(processing_s=30.0)
    driver.event(0, with_document())
    driver.answer(0, AT_WORK, AT_WORK)
    driver.now += DAY
    driver.answer(0, replace(AT_WORK, answered=True))
    assert not [effect for effect in driver.effects if isinstance(effect, GiveUp | Close)]
    (kept,) = driver.ledger.refresh(ActionId(OURS, place_of(0, 0)))
    assert isinstance(kept, Save)
    assert kept.document_sent
    assert driver.ledger.in_doubt == 0
    driver.ledger.stop(OURS)
    assert driver.after(30) == []
    assert not [effect for effect in driver.effects if isinstance(effect, GiveUp | Close)]


def test_what_a_person_had_sent_again_comes_first_after_a_restart_if_engage_may_be_at_work_on_it() -> None:
    """It lies behind its order's others otherwise, and those would leave while its own document is still under way."""
    asked_for = replace(with_document(), asked=True)
    under_way = replace(restored(0, asked_for, first_seen=5.0), document_sent=True)
    driver = Driver(OURS, under_way, restored(1, with_document()), now=10.0, processing_s=30.0)
    assert driver.asks_next_after() == 30.0
    assert list(driver.asked) == [0]
    in_doubt = restored(0, replace(tagged(), asked=True), first_seen=5.0, sending=True)
    driver = Driver(OURS, in_doubt, restored(1, tagged()), now=10.0)
    driver.asks_next_after()
    assert list(driver.asked) == [0]


@pytest.mark.parametrize("what", [with_document(), tagged()], ids=["document", "action"])
def test_what_is_under_way_holds_the_orders_next_action_back_where_no_record_of_it_can_be_kept(what: NewAction) -> None:
    """The delay topic was made again, with a lower limit for its records."""
    driver = Driver(processing_s=30.0)
    driver.event(0, what)
    driver.event(1, with_document())
    driver.after(1)
    assert list(driver.asked) == [0]
    in_doubt = driver.ledger.record_too_large(ActionId(OURS, place_of(0, 0)), driver.now)[1]
    assert in_doubt is (what == tagged())
    assert driver.asks_next_after() == 30.0
    assert 1 in driver.asked


def test_a_document_that_may_still_be_applied_holds_the_next_one_back_where_no_record_can_be_kept() -> None:
    driver = Driver(processing_s=30.0)
    driver.event(0, with_document())
    driver.event(1, with_document())
    driver.answer(0, AT_WORK)
    driver.ledger.record_too_large(ActionId(OURS, place_of(0, 0)), driver.now)
    assert driver.asks_next_after() == 30.0
    assert 1 in driver.asked


def test_a_pause_discards_no_action_whose_document_may_still_be_applied() -> None:
    driver = Driver(processing_s=30.0)
    driver.event(0, with_document())
    driver.event(1, with_document())
    driver.answer(0, AT_WORK)
    pause = Pause(id="p1", begun=0.0, reason="a test", discard=True)
    driver.ledger.pause(Pauses([pause]), driver.now)
    driver.now += 29
    assert driver.wake() == []
    driver.now += 1
    assert driver.wake() + driver.wake() == ["close 0"]


def test_the_document_of_an_owner_that_died_is_sent_again_when_its_request_cannot_be_under_way_any_more() -> None:
    """A static member's successor does not wait for the session's end."""
    under_way = replace(restored(0, with_document()), document_sent=True)
    driver = Driver(OURS, under_way, restored(1, with_document()), processing_s=30.0)
    assert driver.asks_next_after() == 30.0
    assert list(driver.asked) == [0]


def test_a_record_says_that_its_document_may_be_under_way_until_it_is_known_not_to_be() -> None:
    driver = Driver()
    driver.event(0, with_document())
    assert not driver.last(Save).document_sent
    driver.after(1)
    assert driver.last(Save).document_sent
    driver.answer(0, AT_WORK)
    (refreshed,) = driver.ledger.refresh(ActionId(OURS, place_of(0, 0)))
    assert isinstance(refreshed, Save)
    assert refreshed.document_sent
    driver.answer(0, DocumentTaken("j"))
    assert not driver.last(Save).document_sent


def test_an_action_in_doubt_that_travels_in_a_document_waits_as_a_document_does() -> None:
    driver = Driver(processing_s=30.0)
    driver.event(0, replace(with_document(), with_document=True))
    driver.after(0)
    driver.answer(0, InDoubt("time-out"))
    assert driver.asks_next_after() == 30.0
    again = Driver(OURS, restored(0, replace(with_document(), with_document=True), sending=True), processing_s=30.0)
    assert again.asks_next_after() == 30.0


def test_documents_and_polls_leave_in_the_order_in_which_they_are_due() -> None:
    driver = Driver()
    driver.event(0, action("A", job="a"))
    driver.event(1, with_document("B"))
    driver.event(2, action("C", job="c"))
    driver.now += 1
    driver.ledger.wake(driver.now)
    assert driver.ledger.save_intents("default", ahead=1) == []
    assert driver.after(0) == ["poll 0"]
    assert driver.after(0) == ["poll 1", "poll 2"]


def test_a_posted_document_without_a_job_is_asked_for_at_its_order() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.answer(0, DocumentTaken(None))
    driver.after(1)
    assert driver.asked[0] == Poll(
        action_id=ActionId(OURS, place_of(0, 0)), order_id="A", payload=b"{}", target=THE_ORDER, due=driver.now
    )


@pytest.mark.parametrize(
    ("outcome", "done"),
    [
        (JobFailed("job status is failed"), ["dead letter 0: job_failed"]),
        (Rejected(400, "Engage answered 400"), ["dead letter 0: poll_rejected"]),
        (Unauthorized(401), []),
        (Throttled(), []),
        (DOWN, []),
    ],
)
def test_a_document_that_is_refused_or_fails_ends_as_a_poll_does(outcome: DocumentOutcome, done: list[str]) -> None:
    assert asking(job=None).answer(0, outcome) == done


def test_a_document_posted_for_an_action_in_doubt_leaves_it_in_doubt() -> None:
    driver = Driver(OURS, restored(0, action(job=None), sending=True))
    assert driver.answer(0, DocumentTaken("j9")) == ["intent 0"]


# -- the table of outcomes: actions -----------------------------------------------------------------------------------


def sending(*, resend: bool = True, processing_s: float = 0.0) -> Driver:
    driver = Driver(processing_s=processing_s)
    driver.event(0, tagged(resend=resend))
    driver.after(0)
    return driver


def test_action_rejected_is_a_dead_letter_with_engages_errors() -> None:
    driver = sending()
    assert driver.answer(0, Rejected(400, "Engage answered 400", "[3]")) == ["dead letter 0: rejected"]
    dead_letter = driver.last(GiveUp)
    assert (dead_letter.errors, dead_letter.sends, dead_letter.attempts) == ("[3]", 1, 0)


@pytest.mark.parametrize(
    ("outcome", "wait_s"),
    [
        (Throttled(7.0), 7.0),
        (Throttled(), 10.0),
        (DOWN, 10.0),
        (Unavailable("503", 90.0), 90.0),
        (Unauthorized(401), SUSPENDED_WAIT_S),
    ],
)
def test_action_surely_not_processed_is_out_of_doubt_and_sent_again_later(
    outcome: ActionOutcome, wait_s: float
) -> None:
    driver = sending()
    assert driver.answer(0, outcome) == ["save 0"]
    assert driver.ledger.in_doubt == 0
    assert driver.last(Save).due == wait_s
    assert driver.asks_next_after() == wait_s
    assert driver.answer(0, Accepted()) == ["close 0"]


def test_action_not_processed_waits_longer_each_time() -> None:
    driver = sending()
    waits = []
    for _ in range(5):
        driver.answer(0, DOWN)
        waits.append(driver.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0, 300.0]


def test_action_in_doubt_is_sent_again_after_growing_waits_and_its_intent_stands() -> None:
    driver = sending()
    waits = []
    for _ in range(4):
        assert driver.answer(0, InDoubt("no answer")) == []
        assert driver.ledger.in_doubt == 1
        waits.append(driver.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0]
    assert driver.answer(0, Accepted()) == ["close 0"]
    assert driver.ledger.in_doubt == 0


def test_action_in_doubt_is_dead_lettered_where_the_route_says_so() -> None:
    driver = sending(resend=False)
    assert driver.answer(0, InDoubt("reset by peer")) == ["dead letter 0: outcome_unknown"]
    assert driver.last(GiveUp).detail == "reset by peer"
    assert driver.ledger.in_doubt == 0


def test_action_in_doubt_is_not_sent_for_ever() -> None:
    driver = sending()
    done: list[str] = []
    while not done:
        done = driver.answer(0, InDoubt("500"))
    assert done == ["dead letter 0: outcome_unknown"]
    assert DAY < driver.now < DAY + 600


def test_each_send_of_an_action_in_doubt_may_double_it_so_they_are_few() -> None:
    driver = sending()
    sends = 1
    while not driver.answer(0, InDoubt("502")):
        sends += 1
    assert sends < 15  # in a day; at a steady 300 s it would be 290


def test_a_poll_that_is_answered_with_nothing_of_use_ends_at_the_deadline() -> None:
    useless = Unavailable("Engage answered 500", answered=True)
    driver = asking()
    done: list[str] = []
    while not done:
        done = driver.answer(0, useless)
    assert done == ["dead letter 0: deadline"]
    assert DAY < driver.now < DAY + 1000


def test_a_poll_that_reaches_nobody_is_never_given_up() -> None:
    driver = asking()
    for _ in range(50):
        assert driver.answer(0, DOWN) == []
        driver.now += HOUR
    assert driver.now > 2 * DAY


def test_large_actions_are_counted_by_their_bytes() -> None:
    driver = Driver()
    large = replace(action(), payload=b"x" * 5000)
    driver.event(0, large)
    driver.event(1, replace(large, order_id="B"))
    assert driver.ledger.parking.held == 2 * (6250 + ENTRY_BYTES)  # a quarter more than the payload has
    driver.answer(0, Ready("tag"), Accepted())
    assert driver.ledger.parking.held == 6250 + ENTRY_BYTES
    driver.ledger.drop(OURS)
    assert driver.ledger.parking.held == 0


def test_when_the_delay_topic_was_recreated_all_is_written_again() -> None:
    driver = Driver()
    for offset, order in enumerate("AB"):
        driver.event(offset, action(order))
    driver.answer(0, Ready("tag"))
    driver.after(0)
    assert sorted(map(told, driver.ledger.rewrite(OURS))) == ["intent 0", "save 1"]


def test_action_with_a_stale_tag_asks_the_order_at_once() -> None:
    driver = Driver()
    driver.event(0, action())
    assert driver.answer(0, Ready("old"), StaleTag()) == ["save 0"]
    assert driver.last(Save).version_tag is None
    assert driver.after(0) == ["poll 0"]
    assert driver.asked[0] == Poll(
        action_id=ActionId(OURS, place_of(0, 0)), order_id="A", payload=b"{}", target=THE_ORDER, due=driver.now
    )
    driver.answer(0, Ready("new"))
    driver.after(0)
    assert isinstance(driver.asked[0], Send)
    assert driver.asked[0].version_tag == "new"


def test_a_stale_tag_is_an_answer_and_lengthens_no_wait() -> None:
    driver = Driver()
    driver.event(0, tagged())
    driver.answer(0, StaleTag(), Ready("new"), InDoubt("reset by peer"))
    assert driver.asks_next_after() == 10.0


def test_an_order_is_asked_for_a_newer_tag_at_once_then_after_growing_waits() -> None:
    """A copy of Engage's data that lags behind gives the same tag for some time: a wave of orders would be given up."""
    driver = Driver()
    driver.event(0, tagged())
    waits = []
    for _ in range(MAX_STALE):
        driver.answer(0, StaleTag())
        waits.append(0.0 if driver.after(0) else driver.asks_next_after())
        driver.answer(0, Ready("another"))
    assert waits == [0.0, 2.0, 10.0, 30.0, 60.0]


def test_action_whose_tags_are_all_stale_is_a_dead_letter() -> None:
    driver = Driver()
    driver.event(0, tagged())
    stale: list[Outcome] = [StaleTag(), Ready("another")]
    assert driver.answer(0, *stale * MAX_STALE) == []
    assert driver.answer(0, StaleTag()) == ["dead letter 0: stale_tag"]


@pytest.mark.parametrize(
    ("then", "done"),
    [
        ([DOWN], []),
        ([Throttled()], []),
        ([StaleTag()], ["intent 0"]),
        ([StaleTag(), NotReady(), Ready("new")], []),
    ],
)
def test_no_later_answer_ends_the_doubt_about_an_earlier_send(then: list[Outcome], done: list[str]) -> None:
    driver = sending()
    driver.answer(0, InDoubt("no answer"))
    assert driver.answer(0, *then) == done
    assert driver.ledger.in_doubt == 1


@pytest.mark.parametrize(
    "then",
    [
        [Rejected(422, "no contact")],
        [StaleTag(), JobFailed("gone")],
        [StaleTag(), Ready("t")] * MAX_STALE + [StaleTag()],
    ],
)
def test_a_dead_letter_says_that_an_earlier_send_may_have_been_processed(then: list[Outcome]) -> None:
    driver = sending()
    driver.answer(0, InDoubt("no answer"), *then)
    assert driver.last(GiveUp).detail.endswith("; an earlier send may have been processed")
    assert driver.ledger.in_doubt == 0


def test_action_whose_record_the_broker_refuses_is_forgotten_and_frees_its_successor() -> None:
    driver = Driver()
    driver.event(0, action())
    driver.event(1, tagged())
    driver.ledger.record_too_large(ActionId(OURS, place_of(0, 0)), driver.now)
    assert driver.after(10) == ["send 1"]
    assert driver.ledger.open == 1


# -- what ends an action, and what does not ---------------------------------------------------------------------------


def test_an_order_without_a_contact_is_tried_again_until_its_grace_is_over() -> None:
    driver = sending()
    waits: list[float] = []
    while (done := driver.answer(0, NoContact('["no contact"]'))) != ["dead letter 0: no_contact"]:
        assert done == ["save 0"]
        waits.append(driver.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 120.0, 120.0, 120.0, 120.0, 20.0]  # 600 s in all: the last try is right then
    assert driver.last(GiveUp).errors == '["no contact"]'


def test_a_contact_that_comes_within_its_grace_is_in_time() -> None:
    driver = sending()
    for _ in range(8):
        driver.answer(0, NoContact())
    assert driver.answer(0, Accepted()) == ["close 0"]


def test_an_order_without_a_contact_is_sent_again_where_the_event_carries_it() -> None:
    driver = Driver()
    driver.event(0, with_document())
    driver.answer(0, DocumentTaken("j-1"), Ready("t-1"), NoContact())
    assert driver.last(Save).job_id is driver.last(Save).version_tag is None
    assert driver.asks_next_after() == 10.0
    document = driver.asked[0]
    assert isinstance(document, Poll)
    assert document.target == THE_DOCUMENT
    driver.answer(0, DocumentTaken("j-2"), Ready("t-2"))
    assert driver.after(0) == ["send 0"]
    assert driver.answer(0, Accepted()) == ["close 0"]


def test_without_a_grace_the_first_422_is_the_last() -> None:
    driver = Driver()
    driver.ledger = Ledger(Policy(contact_grace_s=0), jitter=lambda: 0.5)
    driver.ledger.assign(OURS, [], 0.0)
    driver.event(0, tagged())
    assert driver.answer(0, NoContact()) == ["dead letter 0: no_contact"]


def test_an_order_whose_change_is_not_dated_is_dead_lettered_at_once() -> None:
    driver = asking(job=None)
    assert driver.answer(0, Undated()) == ["dead letter 0: undated_order"]


@pytest.mark.parametrize("begin", [sending, asking], ids=["action", "poll"])
@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Forbidden(), "forbidden"),
        (Throttled(answered=True), "deadline"),
        (Unavailable("Engage answered 308", answered=True), "deadline"),
    ],
)
def test_what_fails_by_itself_waits_longer_each_time_and_ends_at_the_deadline(
    begin: Callable[[], Driver], outcome: Forbidden | Throttled | Unavailable, reason: str
) -> None:
    driver = begin()
    waits: list[float] = []
    while not (done := driver.answer(0, outcome)) or done == ["save 0"]:
        waits.append(driver.asks_next_after())
    assert done == [f"dead letter 0: {reason}"]
    assert waits[:5] == [10.0, 30.0, 60.0, 300.0, 300.0]
    assert DAY < driver.now < DAY + 301


def test_one_that_is_not_next_keeps_its_place_and_others_are_taken() -> None:
    driver = Driver()
    for offset, order in enumerate("ABC"):
        driver.event(offset, tagged(order))
    driver.event(3, action("D"))
    driver.now += 1
    driver.ledger.wake(driver.now)
    driver.save_intents()
    first = ActionId(OURS, place_of(0, 0))
    taken = []
    while (request := driver.ledger.take("default", other_than=first)) is not None:
        taken.append(offset_at(request.action_id.offset))
    assert taken == [1, 2, 3]
    assert driver.ledger.has_request("default")
    assert driver.after(0) == ["send 0"]


@pytest.mark.parametrize("begin", [sending, asking], ids=["action", "poll"])
@pytest.mark.parametrize("outcome", [DOWN, Unavailable("Engage answered 503"), Throttled(), Unauthorized(401)])
def test_time_ends_nothing_while_engage_as_a_whole_serves_nobody(
    begin: Callable[[], Driver], outcome: Unavailable | Throttled | Unauthorized
) -> None:
    driver = begin()
    while driver.now < 2 * DAY:
        assert driver.answer(0, outcome) in ([], ["save 0"])
        driver.now += HOUR


@pytest.mark.parametrize("begin", [sending, asking], ids=["action", "poll"])
@pytest.mark.parametrize("outcome", [DOWN, Unavailable("Engage answered 503"), Throttled()])
def test_what_fails_while_engage_serves_others_ends_at_the_deadline(
    begin: Callable[[], Driver], outcome: Unavailable | Throttled
) -> None:
    driver = begin()
    driver.now += DAY
    done = driver.answer(0, outcome)
    for other in (1, 2):
        assert done in ([], ["save 0"])
        driver.now += 1
        driver.event(other, tagged(f"other-{other}"))
        driver.answer(other, Accepted())
        done = driver.answer(0, outcome)
    assert done == ["dead letter 0: deadline"]


def test_others_that_engage_served_before_its_last_failure_do_not_count() -> None:
    driver = sending()
    driver.event(1, tagged("B"))
    driver.answer(1, Accepted())
    driver.now += DAY
    for _ in range(5):
        assert driver.answer(0, DOWN) == ["save 0"]


@pytest.mark.parametrize(
    ("ending", "was"),
    [
        ([Rejected(400, "Engage answered 400")], "rejected: Engage answered 400"),
        ([StaleTag(), JobFailed("job status is failed")], "job_failed: job status is failed"),
        ([StaleTag(), Undated()], "undated_order: the order has no readable"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_what_was_in_doubt_is_called_so_whatever_ends_it(ending: list[Outcome], was: str) -> None:
    driver = sending()
    assert driver.answer(0, InDoubt("500"), *ending) == ["dead letter 0: outcome_unknown"]
    assert driver.last(GiveUp).detail.startswith(was)
    assert driver.last(GiveUp).detail.endswith("; an earlier send may have been processed")


def test_the_next_action_of_an_order_waits_while_engage_may_be_at_work_on_one_dead_lettered_in_doubt() -> None:
    driver = sending(resend=False, processing_s=30.0)
    driver.event(1, tagged())
    driver.event(2, tagged("B"))
    assert driver.answer(0, InDoubt("time ran out")) == []
    assert driver.after(0) == ["send 2"], "other orders wait for nothing"
    assert driver.ledger.in_doubt == 1
    assert driver.asks_next_after() == 30.0
    assert driver.last(GiveUp).reason is Reason.OUTCOME_UNKNOWN
    assert 1 in driver.asked


def test_a_restart_does_not_free_the_next_action_of_an_order_any_earlier() -> None:
    """The record of the one in doubt stays as it is until the wait is over."""
    driver = sending(resend=False, processing_s=30.0)
    intent = driver.last(Save)
    assert driver.answer(0, InDoubt("time ran out")) == []
    assert driver.last(Save) == intent
    record = restored(0, tagged(resend=False), sending=intent.sending)
    again = Driver(AGAIN, record, now=driver.now + 5, processing_s=30.0)
    again.event(1, tagged())
    assert again.asks_next_after() == 30.0
    assert again.last(GiveUp).reason is Reason.OUTCOME_UNKNOWN
    assert 1 in again.asked


def test_a_hand_over_waits_for_no_action_that_ends_in_doubt() -> None:
    driver = sending(resend=False, processing_s=30.0)
    driver.answer(0, InDoubt("time ran out"))
    assert driver.ledger.in_flight(OURS) == 0
    assert driver.ledger.stop(OURS) == []
    assert driver.after(DAY) == []


def test_an_action_that_comes_later_waits_no_less() -> None:
    driver = sending(resend=False, processing_s=30.0)
    driver.answer(0, InDoubt("time ran out"))
    assert driver.after(20) == []
    driver.event(1, tagged())
    driver.event(2, action(job="job"))
    assert driver.after(9) == []
    assert driver.after(1) == ["send 1"]


def test_after_a_while_nothing_of_one_dead_lettered_in_doubt_is_remembered() -> None:
    driver = sending(resend=False, processing_s=30.0)
    driver.answer(0, InDoubt("time ran out"))
    driver.after(31)
    driver.event(1, tagged())
    assert driver.after(0) == ["send 1"]


def test_engage_may_say_how_long_an_action_in_doubt_waits() -> None:
    driver = sending()
    assert driver.answer(0, InDoubt("Engage answered 503", 90.0)) == []
    assert driver.asks_next_after() == 90.0


# -- hand-over -------------------------------------------------------------------------------------------------------


def test_a_partition_that_stops_starts_nothing_more() -> None:
    driver = Driver()
    driver.event(0, action("A"))
    driver.event(1, tagged("B"))
    assert driver.ledger.stop(OURS) == []
    assert driver.after(HOUR) == []


def test_a_partition_that_stops_takes_intents_back_that_were_not_sent() -> None:
    driver = Driver()
    driver.event(0, tagged("A"))
    driver.event(1, tagged("B"))
    for effect in driver.ledger.save_intents("default", 2):
        assert isinstance(effect, Save)
    driver.ledger.intent_saved(ActionId(OURS, place_of(0, 0)), 1, 0.0)
    assert [told(effect) for effect in driver.ledger.stop(OURS)] == ["save 0"]
    assert driver.ledger.in_flight(OURS) == 1
    assert [told(effect) for effect in driver.ledger.intent_saved(ActionId(OURS, place_of(0, 1)), 1, 0.0)] == ["save 1"]
    assert driver.ledger.in_flight(OURS) == 0
    assert driver.after(0) == []


def test_a_hand_over_waits_for_the_actions_in_flight_and_keeps_what_they_come_to() -> None:
    driver = Driver()
    for offset, order in enumerate("AABBC"):
        driver.event(offset, tagged(order))
    assert driver.after(0) == ["send 0", "send 2", "send 4"]
    driver.ledger.stop(OURS)
    assert driver.ledger.in_flight(OURS) == 3
    assert driver.answer(0, Accepted()) == ["close 0"]
    assert driver.answer(2, DOWN) == ["save 2"]
    assert driver.answer(4, InDoubt("reset")) == []
    assert driver.ledger.in_flight(OURS) == 0
    assert driver.states == {"queued": 2, "holding": 2}
    assert driver.after(HOUR) == []


def test_a_hand_over_waits_for_no_poll_but_keeps_a_tag_that_comes_in_time() -> None:
    driver = asking()
    driver.ledger.stop(OURS)
    assert driver.ledger.in_flight(OURS) == 0
    assert driver.answer(0, Ready("tag")) == ["save 0"]
    assert driver.last(Save).version_tag == "tag"


def test_a_dropped_partition_is_forgotten_at_once() -> None:
    driver = Driver()
    for offset, order in enumerate("AABCD"):
        driver.event(offset, tagged(order) if order != "D" else action(order))
    driver.after(0)
    driver.answer(0, InDoubt("reset"))
    assert driver.ledger.drop(OURS) == 5
    assert driver.ledger.drop(OURS) == 0
    assert (driver.ledger.open, driver.ledger.in_doubt, driver.states) == (0, 0, {})
    assert driver.ledger.next_wake() is None
    assert driver.after(HOUR) == []


def test_an_answer_from_before_a_partition_went_away_never_touches_what_came_back() -> None:
    driver = asking()
    poll = driver.asked[0]
    driver.ledger.drop(OURS)
    driver.ledger.assign(AGAIN, [restored(0, action())], driver.now)
    driver.after(60)
    assert driver.ledger.poll_answered(poll.action_id, JobFailed("stale"), driver.now) == []
    assert driver.ledger.intent_saved(poll.action_id, 1, driver.now) == []
    assert driver.ledger.action_answered(poll.action_id, Accepted(), driver.now) == []
    driver.ledger.record_too_large(poll.action_id, driver.now)
    assert driver.states == {"polling": 1}


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    driver = sending()
    action_id = driver.asked[0].action_id
    assert driver.ledger.poll_answered(action_id, Ready("tag"), 0.0) == []
    assert driver.ledger.intent_saved(action_id, 1, 0.0) == []
    driver.answer(0, DOWN)
    assert driver.ledger.action_answered(action_id, Accepted(), 0.0) == []
    assert driver.states == {"holding": 1}


def test_partitions_that_come_and_go_leave_nothing_behind_while_a_connection_is_suspended() -> None:
    ledger = Driver().ledger
    for epoch in range(2, 50):
        passing = Assignment("orders", 1, epoch)
        ledger.assign(passing, [restored(n, action(str(n), tag="t" if n % 2 else None)) for n in range(20)], 0.0)
        ledger.wake(HOUR)
        ledger.drop(passing)
    agenda = ledger._agenda
    queue = agenda.queue("default")
    assert len(queue.polls) + len(queue.tagged) + len(queue.sends) + len(agenda._heap) <= 20


# -- restore ---------------------------------------------------------------------------------------------------------


def test_lanes_are_rebuilt_in_the_order_of_their_events() -> None:
    driver = Driver(OURS, restored(2, tagged()), restored(0, tagged()), restored(1, tagged()))
    sent = []
    while driver.ledger.open:
        sent += driver.after(0)
        driver.answer(int(sent[-1][-1]), Accepted())
    assert sent == ["send 0", "send 1", "send 2"]


def test_a_restored_intent_is_in_doubt_and_sent_again_after_a_wait_never_at_once() -> None:
    driver = Driver(OURS, restored(0, tagged(), sending=True, sends=2))
    assert driver.effects == []
    assert driver.ledger.in_doubt == 1
    assert driver.after(0) == []
    assert driver.asks_next_after() == 30.0
    assert driver.last(Save).sends == 3


def test_a_restored_intent_without_a_tag_waits_as_long_before_it_asks() -> None:
    driver = Driver(OURS, restored(0, action(), sending=True))
    assert driver.asks_next_after() == 10.0
    assert driver.answer(0, Ready("tag")) == []
    assert driver.after(0) == ["send 0"]


def test_a_restored_intent_is_dead_lettered_where_the_route_says_so() -> None:
    driver = Driver(
        OURS,
        restored(0, tagged()),
        restored(1, tagged(resend=False), sending=True),
        restored(2, tagged()),
        restored(3, tagged("B", resend=False), sending=True),
        restored(4, tagged("B")),
        processing_s=30.0,
    )
    assert driver.after(0) == ["send 0"]
    driver.answer(0, Accepted())
    assert driver.after(29) == [], "Engage may still be at work on 1 and 3"
    assert set(driver.after(1)) == {"send 2", "send 4"}
    assert {offset_at(each.action_id.offset) for each in driver.effects if isinstance(each, GiveUp)} == {1, 3}
    assert driver.ledger.in_doubt == 0


def test_an_intent_behind_another_action_of_its_lane_waits_from_the_moment_it_is_first() -> None:
    driver = Driver(OURS, restored(0, tagged()), restored(1, tagged(), sending=True))
    assert driver.ledger.in_doubt == 1
    driver.after(HOUR)
    driver.answer(0, Accepted())
    assert driver.after(0) == []
    assert driver.asks_next_after() == 10.0


def test_two_records_of_one_event_are_one_action_and_the_one_in_doubt_stays() -> None:
    first, second = action(), replace(tagged(), route="renamed")
    driver = Driver(OURS, restored(0, first), restored(0, second, sending=True))
    assert driver.effects == [Close(ActionId(OURS, place_of(0, 0)), "shipped")]
    assert (driver.ledger.open, driver.ledger.in_doubt) == (1, 1)


def test_a_record_from_a_clock_that_was_ahead_waits_no_longer_than_a_poll_may() -> None:
    driver = Driver(OURS, restored(0, action(), first_seen=FOREVER, due=FOREVER), now=100.0)
    assert driver.asks_next_after() == 60.0
    assert driver.answer(0, DocumentTaken("j")) == ["save 0"]
    assert driver.last(Save).first_seen == 100.0


def test_what_was_saved_comes_back_as_it_was() -> None:
    driver = Driver()
    driver.event(0, action())
    driver.answer(0, NotReady(), NotReady(), Ready("old"), DOWN)
    saved = driver.last(Save)
    assert (saved.attempts, saved.sends, saved.version_tag, saved.job_id) == (3, 1, "old", "job")
    again = restored(0, action(tag="old"), sends=saved.sends, due=saved.due)
    assert Driver(AGAIN, again, now=saved.due).after(0) == ["send 0"]


# -- records that are written again ------------------------------------------------------------------------------------


def test_an_old_record_is_written_again_as_it_stands() -> None:
    driver = Driver()
    driver.event(0, action())
    driver.event(1, action())
    assert [told(driver.ledger.refresh(ActionId(OURS, place_of(0, offset)))[0]) for offset in (0, 1)] == [
        "save 0",
        "save 1",
    ]
    driver.after(1)
    assert told(driver.ledger.refresh(ActionId(OURS, place_of(0, 0)))[0]) == "save 0"
    driver.answer(0, Ready("tag"))
    assert told(driver.ledger.refresh(ActionId(OURS, place_of(0, 0)))[0]) == "save 0"
    assert driver.ledger.refresh(ActionId(OURS, place_of(0, 7))) == []


def test_an_intent_on_its_way_is_young_and_not_written_again() -> None:
    driver = Driver()
    driver.event(0, tagged())
    action_id = ActionId(OURS, place_of(0, 0))
    driver.ledger.save_intents("default", 1)
    assert driver.ledger.refresh(action_id) == []
    driver.ledger.intent_saved(action_id, 1, 0.0)
    assert driver.ledger.refresh(action_id) == []
    driver.ledger.take("default")
    assert driver.ledger.refresh(action_id) == []


def test_an_old_record_in_doubt_is_written_again_as_the_intent_that_it_is() -> None:
    driver = sending()
    driver.answer(0, InDoubt("reset"))
    assert told(driver.ledger.refresh(ActionId(OURS, place_of(0, 0)))[0]) == "intent 0"


# -- figures ----------------------------------------------------------------------------------------------------------


def test_what_nobody_takes_is_overdue_after_the_tolerance() -> None:
    driver = Driver()
    driver.event(0, action("A"))
    driver.event(1, tagged("B"))
    ledger = driver.ledger
    assert ledger.overdue(1.0) == 0
    assert ledger.overdue(1.1) == 1
    ledger.wake(1.1)
    assert ledger.overdue(1.1) == 2
    ledger.save_intents("default", 1)
    assert ledger.overdue(2.0) == 0
    assert ledger.overdue(2.2) == 1
    ledger.take("default")
    assert ledger.overdue(DAY) == 0


def test_what_went_away_is_not_overdue() -> None:
    driver = Driver()
    driver.event(0, tagged("A"))
    driver.event(1, tagged("B"))
    driver.ledger.record_too_large(ActionId(OURS, place_of(0, 0)), 0.0)
    driver.ledger.save_intents("default", 1)
    driver.ledger.accept(OURS, 2, tagged("C"), 99.5)
    assert driver.ledger.overdue(100.0) == 0


def test_open_actions_are_counted_by_state() -> None:
    driver = Driver()
    for offset, order in enumerate("AABC"):
        driver.event(offset, action(order) if order != "C" else tagged(order))
    assert driver.ledger.open == 4
    assert driver.states == {"queued": 1, "waiting": 2, "tagged": 1}


def test_a_wake_takes_a_limited_number_at_a_time() -> None:
    driver = Driver()
    for offset in range(5):
        driver.event(offset, action(str(offset)))
    driver.ledger.wake(1.0, most=2)
    assert driver.states == {"waiting": 3, "due": 2}
    assert driver.ledger.next_wake() == 1.0


# -- when polls are learnt -------------------------------------------------------------------------------------------


def learning(now: float = 0.0) -> Driver:
    driver = Driver(now=now)
    driver.ledger = Ledger(Policy(PollSchedule(learns=True)), jitter=lambda: 0.5)
    driver.ledger.assign(driver.assignment, (), now)
    return driver


@pytest.mark.slow
def test_a_connection_learns_when_its_tags_come() -> None:
    driver = learning()
    for offset in range(300):
        came_at = driver.now
        driver.event(offset, replace(tagged(str(offset)), version_tag=None, target=Job(f"job-{offset}")))
        while offset not in driver.asked:
            driver.asks_next_after()
        while driver.now < came_at + 5.0:
            driver.answer(offset, NotReady())
            while offset not in driver.asked:
                driver.asks_next_after()
        driver.answer(offset, Ready("tag"), Accepted())
        driver.ledger.plan_polls("default", 1, 1.2)
    driver.event(300, action("new", job="new"))
    assert driver.asks_next_after() == pytest.approx(5.0, rel=0.08)


def test_another_connection_learns_by_itself() -> None:
    ledger = learning().ledger
    ledger.plan_polls("default", 100, 1.0)
    learnt, other = ledger.poll_figures("default"), ledger.poll_figures("other")
    assert learnt is not None
    assert other is not None
    assert learnt.price < other.price
    assert Driver().ledger.poll_figures("default") is None


def test_time_counts_from_the_event_so_one_that_waited_long_in_the_source_is_polled_at_once() -> None:
    driver = learning(now=1000.0)
    driver.event(0, replace(action(), event_time=400.0))
    assert driver.after(0) == ["poll 0"]


def test_an_event_whose_time_is_old_and_wrong_is_polled_as_if_it_came_just_now() -> None:
    """A time of day that is midnight, or an old event that was published again, would wait a minute for each poll."""
    driver = learning(now=100_000.0)
    driver.event(0, replace(action(), event_time=10_000.0))
    driver.after(0)
    driver.answer(0, NotReady())
    assert driver.asks_next_after() < 5.0


def test_the_tag_of_an_order_whose_job_was_forgotten_says_nothing_about_processing_times() -> None:
    driver = learning()
    driver.event(0, action())
    driver.asks_next_after()
    until_its_order_is_asked(driver)
    driver.answer(0, Ready("tag"), Accepted())
    driver.ledger.plan_polls("default", 1, 1.2)
    figures = driver.ledger.poll_figures("default")
    assert figures is not None
    assert figures.seen_lateness_s is None


def test_an_event_from_the_future_counts_from_when_it_was_read() -> None:
    driver = learning(now=1000.0)
    driver.event(0, replace(action(), event_time=900_000.0))
    assert driver.asks_next_after() < 5.0
