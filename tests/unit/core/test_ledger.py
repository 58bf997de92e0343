"""The ledger's rules and design's table of outcomes, row by row.

In these tests an action is called by its event's offset. What is asked of Engage reads `poll 0`, `send 0`; what goes
to the journal reads `save 0`, `intent 0`, `close 0`, `set given_up 0: reason`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

import pytest

from consumer.core.effects import (
    ActionId,
    Close,
    Effect,
    GiveUp,
    NewAction,
    Poll,
    Request,
    RestoredAction,
    Save,
    Send,
)
from consumer.core.ledger import LEARNT_TAGS, MAX_STALE, MIN_TRIES, SUSPENDED_WAIT_S, Ledger, Policy
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
    PollOutcome,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Undated,
    Withdrawn,
)
from consumer.core.ownership import Assignment
from consumer.core.pacing import PollSchedule

OURS = Assignment("orders", 0, epoch=1)
AGAIN = Assignment("orders", 0, epoch=2)
HOUR, DAY = 3600.0, 24 * 3600.0
DOWN = Unavailable("refused")
FOREVER = 10_000_000.0
Outcome = PollOutcome | DocumentOutcome | ActionOutcome
E = TypeVar("E", Save, Close, GiveUp)


def action(
    order: str = "A", *, tag: str | None = None, job: str | None = "job", resend: bool = True, document: bool = False
) -> NewAction:
    return NewAction("shipped", "default", order, b"{}", resend, tag, job, document)


def tagged(order: str = "A", *, resend: bool = True) -> NewAction:
    return action(order, tag="tag", job=None, resend=resend)


def restored(
    offset: int, what: NewAction, *, sending: bool = False, first_seen: float = 0.0, due: float = 0.0, sends: int = 0
) -> RestoredAction:
    return RestoredAction(offset, what, sending, first_seen, due, attempts=0, sends=sends or int(sending))


def told(effect: Effect) -> str:
    match effect:
        case Save():
            return f"{'intent' if effect.sending else 'save'} {effect.action_id.offset}"
        case Close():
            return f"close {effect.action_id.offset}"
        case GiveUp():
            return f"set aside {effect.action_id.offset}: {effect.reason}"


class World:
    """A ledger, its time, a journal that commits at once, and an Engage that is asked whatever is due."""

    def __init__(self, assignment: Assignment = OURS, *records: RestoredAction, now: float = 0.0) -> None:
        schedule = PollSchedule(initial_s=1.0, growth=2.0)
        self.ledger = Ledger(Policy(schedule, deadline_s=DAY, not_found_grace_s=600.0), jitter=lambda: 0.5)
        self.assignment = assignment
        self.now = now
        self.effects: list[Effect] = []
        self.asked: dict[int, Request] = {}
        self._apply(self.ledger.assign(assignment, records, now))

    def event(self, offset: int, what: NewAction) -> list[str]:
        return self._apply(self.ledger.accept(self.assignment, offset, what, self.now))

    def after(self, seconds: float) -> list[str]:
        """Let time pass; returns all that is asked of Engage then."""
        self.now += seconds
        self.ledger.wake(self.now)
        self.save_intents()
        asked = []
        while (request := self.ledger.take("default")) is not None:
            self.asked[request.action_id.offset] = request
            asked.append(f"{'poll' if isinstance(request, Poll) else 'send'} {request.action_id.offset}")
        return asked

    def asks_next_after(self) -> float:
        """Let time pass until something is asked; returns how long that took."""
        wake_at = self.ledger.next_wake()
        assert wake_at is not None
        waited = wake_at - self.now
        assert self.after(waited)
        return round(waited, 3)

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
                sent = cast("ActionOutcome", outcome)
                done = self._apply(self.ledger.action_answered(request.action_id, sent, self.now))
        return done

    def last(self, kind: type[E]) -> E:
        return next(effect for effect in reversed(self.effects) if isinstance(effect, kind))

    @property
    def states(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.counts().items() if count}

    def _apply(self, effects: list[Effect]) -> list[str]:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Save) and effect.sending:
                self._apply(self.ledger.intent_saved(effect.action_id, effect.sends, ownership_confirmed_at=self.now))
        return [told(effect) for effect in effects]


# -- from an event to Engage's 202 -----------------------------------------------------------------------------------


def test_an_event_is_saved_polled_intended_sent_and_closed() -> None:
    world = World()
    assert world.event(0, action()) == ["save 0"]
    assert world.after(0.9) == []
    assert world.after(0.1) == ["poll 0"]
    assert world.answer(0, Ready("tag")) == []
    assert world.after(0) == ["send 0"]
    assert told(world.effects[-1]) == "intent 0"
    assert world.answer(0, Accepted()) == ["close 0"]
    assert world.ledger.open == 0
    assert world.states == {}
    assert world.ledger.next_wake() is None


def test_a_tag_in_the_event_is_sent_at_once() -> None:
    world = World()
    world.event(0, tagged())
    assert world.after(0) == ["send 0"]


def test_what_is_asked_and_sent_says_all_that_the_edge_needs() -> None:
    world = World(now=100.0)
    world.event(0, action(job="j1"))
    world.after(1)
    poll = world.asked[0]
    assert poll == Poll(ActionId(OURS, 0), "A", b"{}", "j1", ask_order=False, due=101.0)
    world.answer(0, Ready("t1"))
    world.after(0.5)
    send = world.asked[0]
    assert send == Send(ActionId(OURS, 0), "A", b"{}", "t1", ownership_confirmed_at=101.5, tagged_at=101.0)


def test_an_event_that_is_held_already_or_of_a_partition_that_is_gone_is_nothing_new() -> None:
    world = World(OURS, restored(0, action()))
    assert world.event(0, action()) == []
    assert world.ledger.open == 1
    assert world.ledger.accept(AGAIN, 1, action(), 0.0) == []


# -- sequence within an order ----------------------------------------------------------------------------------------


def test_a_shipment_never_overtakes_a_pending_confirmation() -> None:
    world = World()
    world.event(0, action())
    world.event(1, tagged())
    assert world.after(60) == ["poll 0"]
    world.answer(0, Ready("tag"))
    assert world.after(0) == ["send 0"]
    world.answer(0, DOWN)
    assert world.after(5) == []
    world.answer(0, Accepted())
    assert world.after(0) == ["send 1"]


def test_orders_never_wait_for_each_other() -> None:
    world = World()
    world.event(0, action("A"))
    world.event(1, tagged("B"))
    world.event(2, replace(tagged("A"), connection="other"))
    assert world.after(0) == ["send 1"]
    assert [told(effect) for effect in world.ledger.save_intents("other", 1)] == ["intent 2"]


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_an_action_that_is_set_aside_leaves_the_others_in_their_order(gone: int) -> None:
    world = World()
    for offset in range(4):
        world.event(offset, tagged())
    world.ledger.record_too_large(ActionId(OURS, gone), world.now)
    world.event(4, tagged())
    sent = []
    while world.ledger.open:
        (request,) = world.after(0)
        sent.append(int(request[-1]))
        world.answer(sent[-1], Accepted())
    assert sent == [offset for offset in range(5) if offset != gone]
    assert world.ledger.in_flight(OURS) == 0


def test_a_dead_letter_frees_its_successor() -> None:
    world = World()
    world.event(0, tagged())
    world.event(1, tagged())
    world.after(0)
    assert world.answer(0, Rejected(422, "no contact")) == ["set aside 0: rejected"]
    assert world.after(0) == ["send 1"]


def test_actions_come_before_polls_and_the_oldest_first() -> None:
    world = World()
    for offset, order in enumerate("ABCD"):
        world.event(offset, action(order, job=f"j{order}"))
    world.event(4, tagged("E"))
    world.event(5, tagged("F"))
    assert world.after(1) == ["send 4", "send 5", "poll 0", "poll 1", "poll 2", "poll 3"]


# -- tags that are known already -------------------------------------------------------------------------------------


def test_the_orders_next_action_reuses_the_tag_of_the_same_job() -> None:
    world = World()
    world.event(0, action(job="j1"))
    world.event(1, action(job="j1"))
    world.event(2, action(job="j2"))
    world.after(1)
    world.answer(0, Ready("t1"))
    assert world.after(0) == ["send 0"]
    world.answer(0, Accepted())
    assert world.after(0) == ["send 1"]
    world.answer(1, Accepted())
    assert world.after(0) == ["poll 2"]


def test_a_learnt_tag_counts_on_its_own_connection_only() -> None:
    world = World()
    world.event(0, action("A"))
    world.after(1)
    world.answer(0, Ready("tag"))
    world.ledger.accept(OURS, 1, replace(action("B"), connection="other"), world.now)
    assert world.ledger.save_intents("other", 1) == []


def test_the_tag_that_replaced_a_stale_one_is_learnt_for_the_job() -> None:
    world = World()
    world.event(0, action())
    world.event(1, action())
    world.answer(0, Ready("old"), StaleTag(), Ready("new"), Accepted())
    assert world.after(0) == ["send 1"]
    assert isinstance(world.asked[1], Send)
    assert world.asked[1].version_tag == "new"


def test_only_the_latest_tags_are_remembered() -> None:
    world = World()
    for offset in range(LEARNT_TAGS + 1):
        world.event(offset, action(f"order {offset}", job=f"job {offset}"))
    while any(what.startswith("poll") for what in world.after(1)):
        for offset, request in list(world.asked.items()):
            if isinstance(request, Poll):
                world.answer(offset, Ready("tag"))
    world.event(20_000, action("P", job="job 0"))
    world.event(20_001, action("Q", job="job 1"))
    assert world.after(0)[-1] == "send 20001"


# -- intents, just in time -------------------------------------------------------------------------------------------


def test_only_as_many_intents_stand_ahead_as_the_caller_allows() -> None:
    world = World()
    for offset, order in enumerate("ABCDE"):
        world.event(offset, tagged(order))
    ledger = world.ledger
    assert [told(e) for e in ledger.save_intents("default", 2)] == ["intent 0", "intent 1"]
    assert ledger.save_intents("default", 2) == []
    ledger.intent_saved(ActionId(OURS, 0), 1, 0.0)
    assert ledger.save_intents("default", 2) == []
    assert ledger.take("default") is not None
    assert [told(e) for e in ledger.save_intents("default", 2)] == ["intent 2"]


def test_nothing_is_sent_before_its_intent_is_saved() -> None:
    world = World()
    world.event(0, tagged())
    world.ledger.save_intents("default", 1)
    assert world.ledger.take("default") is None
    world.ledger.intent_saved(ActionId(OURS, 0), 1, 0.0)
    assert isinstance(world.ledger.take("default"), Send)


def test_the_commit_of_another_record_in_doubt_is_no_intent() -> None:
    world = World(OURS, restored(0, tagged(), sending=True, sends=3))
    world.ledger.wake(DAY)
    world.ledger.save_intents("default", 1)
    world.ledger.intent_saved(ActionId(OURS, 0), 3, 0.0)
    assert world.ledger.take("default") is None
    world.ledger.intent_saved(ActionId(OURS, 0), 4, 0.0)
    assert isinstance(world.ledger.take("default"), Send)


def test_an_action_that_was_withdrawn_at_the_last_moment_is_out_of_doubt_and_has_its_turn_again() -> None:
    world = World()
    world.event(0, tagged("A"))
    world.after(0)
    world.event(1, tagged("B"))
    assert world.answer(0, Withdrawn()) == ["save 0"]
    assert world.last(Save).sends == 0
    assert world.ledger.in_doubt == 0
    assert world.after(0) == ["send 0", "send 1"]
    assert world.last(Save).sends == 1


def test_an_action_that_is_withdrawn_while_in_doubt_stays_in_doubt() -> None:
    world = World()
    world.event(0, tagged())
    assert world.answer(0, InDoubt("reset"), Withdrawn()) == ["intent 0"]
    assert world.ledger.in_doubt == 1


# -- the table of outcomes: polls ------------------------------------------------------------------------------------


def asking(job: str | None = "job") -> World:
    world = World()
    world.event(0, action(job=job))
    world.after(1)
    return world


def test_poll_not_ready_is_asked_again_after_growing_waits() -> None:
    world = asking()
    waits = []
    for _ in range(8):
        assert world.answer(0, NotReady()) == []
        waits.append(world.asks_next_after())
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 50.0, 50.0, 50.0]


def test_poll_job_failed_is_a_dead_letter_with_engages_errors() -> None:
    world = asking()
    assert world.answer(0, JobFailed("job status is failed", "[1]")) == ["set aside 0: job_failed"]
    assert world.last(GiveUp) == GiveUp(
        ActionId(OURS, 0), "shipped", b"{}", world.last(GiveUp).reason, "job status is failed", "[1]", 1, 0
    )


def test_poll_rejected_is_a_dead_letter_with_engages_errors() -> None:
    world = asking()
    assert world.answer(0, Rejected(400, "Engage answered 400", "[2]")) == ["set aside 0: poll_rejected"]
    assert world.last(GiveUp).errors == "[2]"


def test_poll_refused_key_dead_letters_nothing_however_long_it_lasts() -> None:
    world = asking()
    for _ in range(50):
        assert world.answer(0, Unauthorized(401)) == []
        assert world.asks_next_after() == SUSPENDED_WAIT_S
        world.now += HOUR
    assert world.now > DAY


def test_poll_404_is_asked_for_a_grace_time_then_a_dead_letter() -> None:
    world = asking()
    first = world.now
    while not (done := world.answer(0, NotFound())):
        world.asks_next_after()
    assert done == ["set aside 0: not_found"]
    assert 600 <= world.now - first < 660


def test_poll_404_after_a_long_wait_in_the_lane_still_gets_the_grace_time() -> None:
    world = World()
    world.event(0, tagged())
    world.event(1, action())
    world.after(0)
    world.now += HOUR
    world.answer(0, Accepted())
    world.answer(1, NotFound(), NotFound(), NotFound(), NotFound())
    assert world.ledger.open == 1


def test_poll_404_after_not_ready_starts_the_grace_time_anew() -> None:
    world = asking()
    world.answer(0, *[NotFound()] * 12, NotReady(), *[NotFound()] * 8)
    assert world.now > 800
    assert world.ledger.open == 1


def test_poll_throttled_waits_as_told_or_longer_each_time() -> None:
    world = asking()
    world.answer(0, Throttled(7.0))
    assert world.asks_next_after() == 7.0
    world.answer(0, Throttled())
    assert world.asks_next_after() == 30.0


def test_poll_failures_in_a_row_wait_as_engage_asks_for() -> None:
    world = asking()
    waits = []
    for _ in range(5):
        world.answer(0, DOWN)
        waits.append(world.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0, 300.0]


def test_poll_one_failure_after_many_answers_is_the_first_failure() -> None:
    world = asking()
    world.answer(0, *[NotReady()] * 20, DOWN)
    assert world.asks_next_after() == 10.0


def test_poll_503_with_retry_after_waits_as_told() -> None:
    world = asking()
    world.answer(0, Unavailable("503", 120.0))
    assert world.asks_next_after() == 120.0


# -- deadline --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("never", "reason"), [(NotReady(), "deadline"), (NotFound(), "not_found")])
def test_a_poll_that_never_gets_ready_ends(never: PollOutcome, reason: str) -> None:
    world = asking()
    done: list[str] = []
    while not done:
        done = world.answer(0, never)
    assert done == [f"set aside 0: {reason}"]
    assert world.now < DAY + 120


def test_an_outage_of_days_dead_letters_nothing_and_fair_polls_follow_it() -> None:
    world = asking()
    while world.now < 3 * DAY:
        assert world.answer(0, DOWN) == []
    assert world.answer(0, *[NotReady()] * (MIN_TRIES - 1)) == []
    assert world.answer(0, NotReady()) == ["set aside 0: deadline"]


def test_a_ready_tag_is_sent_however_late_it_comes() -> None:
    world = World(OURS, restored(0, action()), now=30 * DAY)
    world.answer(0, Ready("tag"))
    assert world.after(0) == ["send 0"]


def test_a_relay_that_was_down_for_days_gives_each_action_fair_tries() -> None:
    world = World(OURS, restored(0, tagged()), now=30 * DAY)
    assert world.answer(0, *[InDoubt("500")] * (MIN_TRIES - 1)) == []
    assert world.answer(0, InDoubt("500")) == ["set aside 0: outcome_unknown"]


def test_a_poll_says_when_it_was_due_however_late_it_is_taken() -> None:
    world = World()
    world.event(0, action())
    world.after(7.5)
    assert isinstance(poll := world.asked[0], Poll)
    assert poll.due == 1.0


def test_a_restored_poll_is_due_at_the_restore_at_the_earliest() -> None:
    world = World(OURS, restored(0, action(), due=100.0), now=HOUR)
    world.after(0.25)
    assert isinstance(poll := world.asked[0], Poll)
    assert poll.due == HOUR


# -- the table of outcomes: the order document ------------------------------------------------------------------------


def test_a_posted_document_names_the_job_that_is_polled_from_then_on() -> None:
    world = asking(job=None)
    assert world.answer(0, DocumentTaken("j9")) == ["save 0"]
    assert world.last(Save).job_id == "j9"
    assert world.asks_next_after() == 1.0
    assert world.asked[0] == Poll(ActionId(OURS, 0), "A", b"{}", "j9", ask_order=False, due=world.now)


def test_a_posted_document_without_a_job_is_asked_for_at_its_order() -> None:
    world = asking(job=None)
    world.answer(0, DocumentTaken(None))
    world.after(1)
    assert world.asked[0] == Poll(ActionId(OURS, 0), "A", b"{}", None, ask_order=True, due=world.now)


@pytest.mark.parametrize(
    ("outcome", "done"),
    [
        (JobFailed("job status is failed"), ["set aside 0: job_failed"]),
        (Rejected(400, "Engage answered 400"), ["set aside 0: poll_rejected"]),
        (Unauthorized(401), []),
        (Throttled(), []),
        (DOWN, []),
    ],
)
def test_a_document_that_is_refused_or_fails_ends_as_a_poll_does(outcome: DocumentOutcome, done: list[str]) -> None:
    assert asking(job=None).answer(0, outcome) == done


def test_a_document_posted_for_an_action_in_doubt_leaves_it_in_doubt() -> None:
    world = World(OURS, restored(0, action(job=None), sending=True))
    assert world.answer(0, DocumentTaken("j9")) == ["intent 0"]


# -- the table of outcomes: actions -----------------------------------------------------------------------------------


def sending(*, resend: bool = True) -> World:
    world = World()
    world.event(0, tagged(resend=resend))
    world.after(0)
    return world


def test_action_rejected_is_a_dead_letter_with_engages_errors() -> None:
    world = sending()
    assert world.answer(0, Rejected(400, "Engage answered 400", "[3]")) == ["set aside 0: rejected"]
    dead_letter = world.last(GiveUp)
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
    world = sending()
    assert world.answer(0, outcome) == ["save 0"]
    assert world.ledger.in_doubt == 0
    assert world.last(Save).due == wait_s
    assert world.asks_next_after() == wait_s
    assert world.answer(0, Accepted()) == ["close 0"]


def test_action_not_processed_waits_longer_each_time() -> None:
    world = sending()
    waits = []
    for _ in range(5):
        world.answer(0, DOWN)
        waits.append(world.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0, 300.0]


def test_action_in_doubt_is_sent_again_after_growing_waits_and_its_intent_stands() -> None:
    world = sending()
    waits = []
    for _ in range(4):
        assert world.answer(0, InDoubt("no answer")) == []
        assert world.ledger.in_doubt == 1
        waits.append(world.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0]
    assert world.answer(0, Accepted()) == ["close 0"]
    assert world.ledger.in_doubt == 0


def test_action_in_doubt_is_set_aside_where_the_route_says_so() -> None:
    world = sending(resend=False)
    assert world.answer(0, InDoubt("reset by peer")) == ["set aside 0: outcome_unknown"]
    assert world.last(GiveUp).detail == "reset by peer"
    assert world.ledger.in_doubt == 0


def test_action_in_doubt_is_not_sent_for_ever() -> None:
    world = sending()
    done: list[str] = []
    while not done:
        done = world.answer(0, InDoubt("500"))
    assert done == ["set aside 0: outcome_unknown"]
    assert DAY < world.now < DAY + 600


def test_each_send_of_an_action_in_doubt_may_double_it_so_they_are_few() -> None:
    world = sending()
    sends = 1
    while not world.answer(0, InDoubt("502")):
        sends += 1
    assert sends < 15  # in a day; at a steady 300 s it would be 290


def test_a_poll_that_is_answered_with_nothing_of_use_ends_at_the_deadline() -> None:
    useless = Unavailable("Engage answered 500", answered=True)
    world = asking()
    done: list[str] = []
    while not done:
        done = world.answer(0, useless)
    assert done == ["set aside 0: deadline"]
    assert DAY < world.now < DAY + 1000


def test_a_poll_that_reaches_nobody_is_never_given_up() -> None:
    world = asking()
    for _ in range(50):
        assert world.answer(0, DOWN) == []
        world.now += HOUR
    assert world.now > 2 * DAY


def test_large_actions_are_counted_by_their_bytes() -> None:
    world = World()
    large = replace(action(), payload=b"x" * 5000)
    world.event(0, large)
    world.event(1, replace(large, order_id="B"))
    assert world.ledger.open_bytes == 10_000
    world.answer(0, Ready("tag"), Accepted())
    assert world.ledger.open_bytes == 5000
    world.ledger.drop(OURS)
    assert world.ledger.open_bytes == 0


def test_when_the_delay_topic_was_made_anew_all_is_written_again() -> None:
    world = World()
    for offset, order in enumerate("AB"):
        world.event(offset, action(order))
    world.answer(0, Ready("tag"))
    world.after(0)
    assert sorted(map(told, world.ledger.rewrite(OURS))) == ["intent 0", "save 1"]


def test_action_with_a_stale_tag_asks_the_order_at_once() -> None:
    world = World()
    world.event(0, action())
    assert world.answer(0, Ready("old"), StaleTag()) == ["save 0"]
    assert world.last(Save).version_tag is None
    assert world.after(0) == ["poll 0"]
    assert world.asked[0] == Poll(ActionId(OURS, 0), "A", b"{}", "job", ask_order=True, due=world.now)
    world.answer(0, Ready("new"))
    world.after(0)
    assert isinstance(world.asked[0], Send)
    assert world.asked[0].version_tag == "new"


def test_a_stale_tag_is_an_answer_and_lengthens_no_wait() -> None:
    world = World()
    world.event(0, tagged())
    world.answer(0, StaleTag(), Ready("new"), InDoubt("reset by peer"))
    assert world.asks_next_after() == 10.0


def test_action_whose_tags_are_all_stale_is_a_dead_letter() -> None:
    world = World()
    world.event(0, tagged())
    stale: list[Outcome] = [StaleTag(), Ready("another")]
    assert world.answer(0, *stale * MAX_STALE) == []
    assert world.answer(0, StaleTag()) == ["set aside 0: stale_tag"]


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
    world = sending()
    world.answer(0, InDoubt("no answer"))
    assert world.answer(0, *then) == done
    assert world.ledger.in_doubt == 1


@pytest.mark.parametrize(
    "then",
    [
        [Rejected(422, "no contact")],
        [StaleTag(), JobFailed("gone")],
        [StaleTag(), Ready("t")] * MAX_STALE + [StaleTag()],
    ],
)
def test_a_dead_letter_says_that_an_earlier_send_may_have_been_processed(then: list[Outcome]) -> None:
    world = sending()
    world.answer(0, InDoubt("no answer"), *then)
    assert world.last(GiveUp).detail.endswith("; an earlier send may have been processed")
    assert world.ledger.in_doubt == 0


def test_action_whose_record_the_broker_refuses_is_forgotten_and_frees_its_successor() -> None:
    world = World()
    world.event(0, action())
    world.event(1, tagged())
    world.ledger.record_too_large(ActionId(OURS, 0), world.now)
    assert world.after(10) == ["send 1"]
    assert world.ledger.open == 1


# -- what ends an action, and what does not ---------------------------------------------------------------------------


def test_an_order_without_a_contact_is_tried_again_until_its_grace_is_over() -> None:
    world = sending()
    waits: list[float] = []
    while (done := world.answer(0, NoContact('["no contact"]'))) != ["set aside 0: no_contact"]:
        assert done == ["save 0"]
        waits.append(world.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 120.0, 120.0, 120.0, 120.0, 20.0]  # 600 s in all: the last try is right then
    assert world.last(GiveUp).errors == '["no contact"]'


def test_a_contact_that_comes_within_its_grace_is_in_time() -> None:
    world = sending()
    for _ in range(8):
        world.answer(0, NoContact())
    assert world.answer(0, Accepted()) == ["close 0"]


def test_an_order_without_a_contact_is_sent_again_where_the_event_carries_it() -> None:
    world = World()
    world.event(0, action(job=None, document=True))
    world.answer(0, DocumentTaken("j-1"), Ready("t-1"), NoContact())
    assert world.last(Save).job_id is world.last(Save).version_tag is None
    assert world.asks_next_after() == 10.0
    document = world.asked[0]
    assert isinstance(document, Poll)
    assert (document.job_id, document.ask_order) == (None, False)
    world.answer(0, DocumentTaken("j-2"), Ready("t-2"))
    assert world.after(0) == ["send 0"]
    assert world.answer(0, Accepted()) == ["close 0"]


def test_without_a_grace_the_first_422_is_the_last() -> None:
    world = World()
    world.ledger = Ledger(Policy(contact_grace_s=0), jitter=lambda: 0.5)
    world.ledger.assign(OURS, [], 0.0)
    world.event(0, tagged())
    assert world.answer(0, NoContact()) == ["set aside 0: no_contact"]


def test_an_order_whose_change_is_not_dated_is_set_aside_at_once() -> None:
    world = asking(job=None)
    assert world.answer(0, Undated()) == ["set aside 0: undated_order"]


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
    begin: Callable[[], World], outcome: Forbidden | Throttled | Unavailable, reason: str
) -> None:
    world = begin()
    waits: list[float] = []
    while not (done := world.answer(0, outcome)) or done == ["save 0"]:
        waits.append(world.asks_next_after())
    assert done == [f"set aside 0: {reason}"]
    assert waits[:5] == [10.0, 30.0, 60.0, 300.0, 300.0]
    assert DAY < world.now < DAY + 301


def test_one_whose_turn_it_is_not_keeps_its_place_and_others_are_taken() -> None:
    world = World()
    for offset, order in enumerate("ABC"):
        world.event(offset, tagged(order))
    world.event(3, action("D"))
    world.now += 1
    world.ledger.wake(world.now)
    world.save_intents()
    first = ActionId(OURS, 0)
    taken = []
    while (request := world.ledger.take("default", other_than=first)) is not None:
        taken.append(request.action_id.offset)
    assert taken == [1, 2, 3]
    assert world.ledger.has_request("default")
    assert world.after(0) == ["send 0"]


@pytest.mark.parametrize("begin", [sending, asking], ids=["action", "poll"])
@pytest.mark.parametrize("outcome", [DOWN, Unavailable("Engage answered 503"), Throttled(), Unauthorized(401)])
def test_time_ends_nothing_while_engage_as_a_whole_serves_nobody(
    begin: Callable[[], World], outcome: Unavailable | Throttled | Unauthorized
) -> None:
    world = begin()
    while world.now < 2 * DAY:
        assert world.answer(0, outcome) in ([], ["save 0"])
        world.now += HOUR


@pytest.mark.parametrize("begin", [sending, asking], ids=["action", "poll"])
@pytest.mark.parametrize("outcome", [DOWN, Unavailable("Engage answered 503"), Throttled()])
def test_what_fails_while_engage_serves_others_ends_at_the_deadline(
    begin: Callable[[], World], outcome: Unavailable | Throttled
) -> None:
    world = begin()
    world.now += DAY
    done = world.answer(0, outcome)
    for other in (1, 2):
        assert done in ([], ["save 0"])
        world.now += 1
        world.event(other, tagged(f"other-{other}"))
        world.answer(other, Accepted())
        done = world.answer(0, outcome)
    assert done == ["set aside 0: deadline"]


def test_others_that_engage_served_before_its_last_failure_do_not_count() -> None:
    world = sending()
    world.event(1, tagged("B"))
    world.answer(1, Accepted())
    world.now += DAY
    for _ in range(5):
        assert world.answer(0, DOWN) == ["save 0"]


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
    world = sending()
    assert world.answer(0, InDoubt("500"), *ending) == ["set aside 0: outcome_unknown"]
    assert world.last(GiveUp).detail.startswith(was)
    assert world.last(GiveUp).detail.endswith("; an earlier send may have been processed")


def test_the_next_action_of_an_order_waits_while_engage_may_be_at_work_on_one_set_aside_in_doubt() -> None:
    world = sending(resend=False)
    world.event(1, tagged())
    world.event(2, tagged("B"))
    assert world.answer(0, InDoubt("time ran out")) == ["set aside 0: outcome_unknown"]
    assert world.after(0) == ["send 2"], "other orders wait for nothing"
    assert world.asks_next_after() == 30.0
    assert "1" in str(list(world.asked))


def test_an_action_that_comes_later_waits_no_less() -> None:
    world = sending(resend=False)
    world.answer(0, InDoubt("time ran out"))
    assert world.after(20) == []
    world.event(1, tagged())
    world.event(2, action(job="job"))
    assert world.after(9) == []
    assert world.after(1) == ["send 1"]


def test_after_a_while_nothing_of_one_set_aside_in_doubt_is_remembered() -> None:
    world = sending(resend=False)
    world.answer(0, InDoubt("time ran out"))
    world.after(31)
    world.event(1, tagged())
    assert world.after(0) == ["send 1"]


def test_engage_may_say_how_long_an_action_in_doubt_waits() -> None:
    world = sending()
    assert world.answer(0, InDoubt("Engage answered 503", 90.0)) == []
    assert world.asks_next_after() == 90.0


# -- hand-over -------------------------------------------------------------------------------------------------------


def test_a_partition_that_stops_starts_nothing_more() -> None:
    world = World()
    world.event(0, action("A"))
    world.event(1, tagged("B"))
    assert world.ledger.stop(OURS) == []
    assert world.after(HOUR) == []


def test_a_partition_that_stops_takes_intents_back_that_were_not_sent() -> None:
    world = World()
    world.event(0, tagged("A"))
    world.event(1, tagged("B"))
    for effect in world.ledger.save_intents("default", 2):
        assert isinstance(effect, Save)
    world.ledger.intent_saved(ActionId(OURS, 0), 1, 0.0)
    assert [told(effect) for effect in world.ledger.stop(OURS)] == ["save 0"]
    assert world.ledger.in_flight(OURS) == 1
    assert [told(effect) for effect in world.ledger.intent_saved(ActionId(OURS, 1), 1, 0.0)] == ["save 1"]
    assert world.ledger.in_flight(OURS) == 0
    assert world.after(0) == []


def test_a_hand_over_waits_for_the_actions_in_flight_and_keeps_what_they_come_to() -> None:
    world = World()
    for offset, order in enumerate("AABBC"):
        world.event(offset, tagged(order))
    assert world.after(0) == ["send 0", "send 2", "send 4"]
    world.ledger.stop(OURS)
    assert world.ledger.in_flight(OURS) == 3
    assert world.answer(0, Accepted()) == ["close 0"]
    assert world.answer(2, DOWN) == ["save 2"]
    assert world.answer(4, InDoubt("reset")) == []
    assert world.ledger.in_flight(OURS) == 0
    assert world.states == {"queued": 2, "holding": 2}
    assert world.after(HOUR) == []


def test_a_hand_over_waits_for_no_poll_but_keeps_a_tag_that_comes_in_time() -> None:
    world = asking()
    world.ledger.stop(OURS)
    assert world.ledger.in_flight(OURS) == 0
    assert world.answer(0, Ready("tag")) == ["save 0"]
    assert world.last(Save).version_tag == "tag"


def test_a_dropped_partition_is_forgotten_at_once() -> None:
    world = World()
    for offset, order in enumerate("AABCD"):
        world.event(offset, tagged(order) if order != "D" else action(order))
    world.after(0)
    world.answer(0, InDoubt("reset"))
    assert world.ledger.drop(OURS) == 5
    assert world.ledger.drop(OURS) == 0
    assert (world.ledger.open, world.ledger.in_doubt, world.states) == (0, 0, {})
    assert world.ledger.next_wake() is None
    assert world.after(HOUR) == []


def test_an_answer_from_before_a_partition_went_away_never_touches_what_came_back() -> None:
    world = asking()
    poll = world.asked[0]
    world.ledger.drop(OURS)
    world.ledger.assign(AGAIN, [restored(0, action())], world.now)
    world.after(60)
    assert world.ledger.poll_answered(poll.action_id, JobFailed("stale"), world.now) == []
    assert world.ledger.intent_saved(poll.action_id, 1, world.now) == []
    assert world.ledger.action_answered(poll.action_id, Accepted(), world.now) == []
    world.ledger.record_too_large(poll.action_id, world.now)
    assert world.states == {"polling": 1}


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    world = sending()
    action_id = world.asked[0].action_id
    assert world.ledger.poll_answered(action_id, Ready("tag"), 0.0) == []
    assert world.ledger.intent_saved(action_id, 1, 0.0) == []
    world.answer(0, DOWN)
    assert world.ledger.action_answered(action_id, Accepted(), 0.0) == []
    assert world.states == {"holding": 1}


def test_partitions_that_come_and_go_leave_nothing_behind_while_a_connection_is_suspended() -> None:
    ledger = World().ledger
    for epoch in range(2, 50):
        passing = Assignment("orders", 1, epoch)
        ledger.assign(passing, [restored(n, action(str(n), tag="t" if n % 2 else None)) for n in range(20)], 0.0)
        ledger.wake(HOUR)
        ledger.drop(passing)
    queue = ledger._queues["default"]
    assert len(queue.polls) + len(queue.tagged) + len(queue.sends) + len(ledger._heap) <= 20


# -- restore ---------------------------------------------------------------------------------------------------------


def test_lanes_are_rebuilt_in_the_order_of_their_events() -> None:
    world = World(OURS, restored(2, tagged()), restored(0, tagged()), restored(1, tagged()))
    sent = []
    while world.ledger.open:
        sent += world.after(0)
        world.answer(int(sent[-1][-1]), Accepted())
    assert sent == ["send 0", "send 1", "send 2"]


def test_a_restored_intent_is_in_doubt_and_sent_again_after_a_wait_never_at_once() -> None:
    world = World(OURS, restored(0, tagged(), sending=True, sends=2))
    assert world.effects == []
    assert world.ledger.in_doubt == 1
    assert world.after(0) == []
    assert world.asks_next_after() == 30.0
    assert world.last(Save).sends == 3


def test_a_restored_intent_without_a_tag_waits_as_long_before_it_asks() -> None:
    world = World(OURS, restored(0, action(), sending=True))
    assert world.asks_next_after() == 10.0
    assert world.answer(0, Ready("tag")) == []
    assert world.after(0) == ["send 0"]


def test_a_restored_intent_is_set_aside_where_the_route_says_so() -> None:
    world = World(
        OURS,
        restored(0, tagged()),
        restored(1, tagged(resend=False), sending=True),
        restored(2, tagged()),
        restored(3, tagged("B", resend=False), sending=True),
        restored(4, tagged("B")),
    )
    assert [told(e) for e in world.effects] == ["set aside 1: outcome_unknown", "set aside 3: outcome_unknown"]
    assert world.ledger.in_doubt == 0
    assert world.after(0) == ["send 0"]
    world.answer(0, Accepted())
    assert world.after(29) == [], "Engage may still be at work on 1 and 3"
    assert world.after(1) == ["send 2", "send 4"]


def test_an_intent_behind_another_action_of_its_lane_waits_from_its_own_turn_on() -> None:
    world = World(OURS, restored(0, tagged()), restored(1, tagged(), sending=True))
    assert world.ledger.in_doubt == 1
    world.after(HOUR)
    world.answer(0, Accepted())
    assert world.after(0) == []
    assert world.asks_next_after() == 10.0


def test_two_records_of_one_event_are_one_action_and_the_one_in_doubt_stays() -> None:
    first, second = action(), replace(tagged(), route="renamed")
    world = World(OURS, restored(0, first), restored(0, second, sending=True))
    assert world.effects == [Close(ActionId(OURS, 0), "shipped")]
    assert (world.ledger.open, world.ledger.in_doubt) == (1, 1)


def test_a_record_from_a_clock_that_was_ahead_waits_no_longer_than_a_poll_may() -> None:
    world = World(OURS, restored(0, action(), first_seen=FOREVER, due=FOREVER), now=100.0)
    assert world.asks_next_after() == 60.0
    assert world.answer(0, DocumentTaken("j")) == ["save 0"]
    assert world.last(Save).first_seen == 100.0


def test_what_was_saved_comes_back_as_it_was() -> None:
    world = World()
    world.event(0, action())
    world.answer(0, NotReady(), NotReady(), Ready("old"), DOWN)
    saved = world.last(Save)
    assert (saved.attempts, saved.sends, saved.version_tag, saved.job_id) == (3, 1, "old", "job")
    again = restored(0, action(tag="old"), sends=saved.sends, due=saved.due)
    assert World(AGAIN, again, now=saved.due).after(0) == ["send 0"]


# -- records that are written again ------------------------------------------------------------------------------------


def test_an_old_record_is_written_again_as_it_stands() -> None:
    world = World()
    world.event(0, action())
    world.event(1, action())
    assert [told(world.ledger.refresh(ActionId(OURS, offset))[0]) for offset in (0, 1)] == ["save 0", "save 1"]
    world.after(1)
    assert told(world.ledger.refresh(ActionId(OURS, 0))[0]) == "save 0"
    world.answer(0, Ready("tag"))
    assert told(world.ledger.refresh(ActionId(OURS, 0))[0]) == "save 0"
    assert world.ledger.refresh(ActionId(OURS, 7)) == []


def test_an_intent_on_its_way_is_young_and_not_written_again() -> None:
    world = World()
    world.event(0, tagged())
    action_id = ActionId(OURS, 0)
    world.ledger.save_intents("default", 1)
    assert world.ledger.refresh(action_id) == []
    world.ledger.intent_saved(action_id, 1, 0.0)
    assert world.ledger.refresh(action_id) == []
    world.ledger.take("default")
    assert world.ledger.refresh(action_id) == []


def test_an_old_record_in_doubt_is_written_again_as_the_intent_that_it_is() -> None:
    world = sending()
    world.answer(0, InDoubt("reset"))
    assert told(world.ledger.refresh(ActionId(OURS, 0))[0]) == "intent 0"


# -- figures ----------------------------------------------------------------------------------------------------------


def test_what_nobody_takes_is_overdue_after_the_tolerance() -> None:
    world = World()
    world.event(0, action("A"))
    world.event(1, tagged("B"))
    ledger = world.ledger
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
    world = World()
    world.event(0, tagged("A"))
    world.event(1, tagged("B"))
    world.ledger.record_too_large(ActionId(OURS, 0), 0.0)
    world.ledger.save_intents("default", 1)
    world.ledger.accept(OURS, 2, tagged("C"), 99.5)
    assert world.ledger.overdue(100.0) == 0


def test_open_actions_are_counted_by_state() -> None:
    world = World()
    for offset, order in enumerate("AABC"):
        world.event(offset, action(order) if order != "C" else tagged(order))
    assert world.ledger.open == 4
    assert world.states == {"queued": 1, "waiting": 2, "tagged": 1}


def test_a_wake_takes_a_limited_number_at_a_time() -> None:
    world = World()
    for offset in range(5):
        world.event(offset, action(str(offset)))
    world.ledger.wake(1.0, most=2)
    assert world.states == {"waiting": 3, "due": 2}
    assert world.ledger.next_wake() == 1.0
