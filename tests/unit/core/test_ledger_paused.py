"""What a pause holds is neither polled nor sent, loses no time by it, and continues after it (rule 11)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from consumer.core.effects import Close, GiveUp, LiveAction, NewAction, Save
from consumer.core.ledger.answers import MIN_TRIES
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import (
    Accepted,
    DocumentTaken,
    InDoubt,
    NoContact,
    NotFound,
    NotReady,
    Ready,
    Unavailable,
    Withdrawn,
)
from consumer.core.pacing import PollSchedule
from consumer.core.parking import Memory
from consumer.core.pauses import UNKNOWN_PAUSES, Pause, Pauses
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName
from tests.unit.core.test_ledger import DAY, HOUR, OURS, Driver, action, restored, tagged, told, with_document

ALL = Pause(id="p1", begun=0.0, reason="a test")
DISCARD = replace(ALL, discard=True)


class PausedDriver(Driver):
    """A driver whose actions somebody may pause."""

    def pause(self, *pauses: Pause) -> list[str]:
        return self._apply(self.ledger.pause(Pauses(pauses), self.now))

    def resume(self) -> list[str]:
        return self.pause(*(replace(each, ended=self.now) for each in self.ledger.pauses.known))


def named(what: NewAction, *, route: str = "shipped", name: str = "ConfirmShipment") -> NewAction:
    return replace(what, route=route, action=name)


WAITING = {"to be polled": action(), "to be sent": tagged(), "with a document first": with_document()}


@pytest.mark.parametrize("what", WAITING.values(), ids=WAITING)
def test_nothing_is_asked_while_it_is_on_hold_and_everything_after_that(what: NewAction) -> None:
    unpaused, driver = PausedDriver(), PausedDriver()
    driver.pause(ALL)
    for each in (unpaused, driver):
        each.event(0, what)
    assert driver.after(HOUR) == driver.after(HOUR) == []
    assert driver.states == {"paused": 1}
    assert driver.resume() == []
    asked = driver.after(0)
    assert asked == unpaused.after(HOUR) != []


@pytest.mark.parametrize("what", WAITING.values(), ids=WAITING)
def test_what_is_due_already_is_held_too(what: NewAction) -> None:
    driver = PausedDriver()
    driver.event(0, what)
    driver.now += HOUR
    driver.wake()
    driver.pause(ALL)
    assert driver.after(HOUR) == []
    driver.resume()
    assert len(driver.after(0)) == 1


def test_an_intent_that_is_saved_and_not_sent_is_withdrawn() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    driver.save_intents()
    assert driver.states == {"ready": 1}
    assert driver.pause(ALL) == ["save 0"], "a crash would leave it in doubt"
    assert driver.after(HOUR) == []
    driver.resume()
    assert driver.after(0) == ["send 0"]


def test_an_intent_whose_commit_comes_after_the_pause_is_withdrawn() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    (intent,) = driver.ledger.save_intents("default", 10)
    assert isinstance(intent, Save)
    assert driver.pause(ALL) == []
    withdrawn = driver.ledger.intent_saved(intent.action_id, intent.sends, driver.now)
    assert [told(each) for each in withdrawn] == ["save 0"]
    assert driver.after(HOUR) == []


def test_a_request_that_was_taken_and_has_not_left_is_withdrawn() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    assert driver.after(0) == ["send 0"]
    request = driver.asked.pop(0)
    assert not driver.ledger.is_paused(request.action_id)
    driver.pause(ALL)
    assert driver.ledger.is_paused(request.action_id)
    driver._apply(driver.ledger.action_answered(request.action_id, Withdrawn(), driver.now))
    assert driver.after(HOUR) == []
    assert driver.states == {"paused": 1}


def test_what_is_sent_already_goes_its_way() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    driver.after(0)
    driver.pause(ALL)
    assert driver.answer(0, Accepted()) == ["close 0"]


def test_a_tag_that_comes_while_it_is_on_hold_is_kept() -> None:
    driver = PausedDriver()
    driver.event(0, action())
    driver.after(1)
    driver.pause(ALL)
    assert driver.answer(0, Ready("tag")) == []
    assert driver.after(HOUR) == []
    driver.resume()
    assert driver.after(0) == ["send 0"]


def test_the_job_of_an_action_that_engage_has_is_polled_all_the_same() -> None:
    driver = PausedDriver()
    driver.event(0, replace(with_document(), with_document=True))
    assert driver.after(0) == ["send 0"]
    driver.answer(0, DocumentTaken("job"))
    driver.pause(ALL)
    driver.asks_next_after()
    assert driver.answer(0, Ready("tag")) == ["close 0"]


def test_others_are_served_meanwhile() -> None:
    driver = PausedDriver()
    driver.pause(replace(ALL, route="shipped"))
    driver.event(0, named(tagged("A")))
    driver.event(1, named(tagged("B"), route="ordered", name="ConfirmOrder"))
    assert driver.after(0) == ["send 1"]


def test_the_orders_next_action_waits_behind_the_one_that_is_on_hold() -> None:
    driver = PausedDriver()
    driver.pause(replace(ALL, route="shipped"))
    driver.event(0, named(tagged("A")))
    driver.event(1, named(tagged("A"), route="delivered", name="ConfirmDelivery"))
    assert driver.after(HOUR) == []
    driver.resume()
    assert driver.after(0) == ["send 0"]
    driver.answer(0, Accepted())
    assert driver.after(0) == ["send 1"]


def test_nothing_leaves_before_it_is_known_which_pauses_there_are() -> None:
    driver = PausedDriver()
    driver.ledger = Ledger(Policy(PollSchedule(initial_s=1.0)), lambda: 0.5, pauses=UNKNOWN_PAUSES)
    driver._apply(driver.ledger.assign(OURS, [restored(0, tagged("A")), restored(1, action("B"))], driver.now))
    driver.event(2, tagged("C"))
    assert driver.after(60) == []
    driver.pause()
    assert sorted(driver.after(0)) == ["poll 1", "send 0", "send 2"]


def test_it_ends_by_itself() -> None:
    driver = PausedDriver()
    driver.pause(replace(ALL, until=HOUR))
    driver.event(0, tagged())
    assert driver.after(HOUR - 1) == []
    assert driver.asks_next_after() == 1


# -- time on hold ------------------------------------------------------------------------------------------------


def after_a_pause_of(seconds: float, what: NewAction, *records: LiveAction) -> PausedDriver:
    driver = PausedDriver(OURS, *records)
    driver.pause(ALL)
    if not records:
        driver.event(0, what)
    driver.after(seconds)
    driver.resume()
    return driver


@pytest.mark.parametrize("restart", [False, True])
def test_the_deadline_does_not_count_it_also_after_a_restart(restart: bool) -> None:
    before = after_a_pause_of(3 * DAY, action())
    driver = before
    if restart:
        driver = PausedDriver(OURS, restored(0, action(), first_seen=0.0), now=before.now)
        driver.pause(*before.ledger.pauses.known)
    assert driver.answer(0, *[NotReady()] * 2 * MIN_TRIES) == []
    driver.now += DAY
    assert driver.answer(0, NotReady()) == [f"dead letter 0: {Reason.DEADLINE}"]


def test_the_grace_of_a_job_that_engage_does_not_know_does_not_count_it() -> None:
    driver = PausedDriver()
    driver.event(0, action())
    driver.answer(0, NotFound())
    driver.pause(ALL)
    driver.after(HOUR)
    driver.resume()
    assert driver.answer(0, *[NotFound()] * MIN_TRIES) == []
    driver.now += 600
    assert driver.answer(0, NotFound()) == [], "its order is asked"
    assert driver.answer(0, NotFound()) == [f"dead letter 0: {Reason.NOT_FOUND}"]


def test_the_grace_for_a_contact_does_not_count_it() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    driver.answer(0, NoContact())
    driver.pause(replace(ALL, begun=driver.now))
    driver.after(HOUR)
    driver.resume()
    assert driver.answer(0, NoContact()) == ["save 0"]
    driver.now += 600
    assert driver.answer(0, NoContact()) == [f"dead letter 0: {Reason.NO_CONTACT}"]


def test_an_outage_that_began_before_it_counts_as_before() -> None:
    driver = PausedDriver()
    driver.event(0, action())
    driver.answer(0, Unavailable("503", answered=True))
    driver.pause(ALL)
    driver.after(HOUR)
    driver.resume()
    assert driver.after(0) == ["poll 0"]


def test_what_is_learnt_of_processing_times_does_not_count_it() -> None:
    ledger = Ledger(Policy(PollSchedule(learns=True)), lambda: 0.5)
    driver = PausedDriver()
    driver.ledger = ledger
    driver._apply(ledger.assign(OURS, [], driver.now))
    before = ledger.poll_figures("default")
    driver.pause(ALL)
    driver.event(0, action())
    driver.after(HOUR)
    driver.resume()
    driver.answer(0, Ready("tag"))
    assert ledger.poll_figures("default") == before


# -- discarded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", WAITING.values(), ids=WAITING)
@pytest.mark.parametrize("first", ["the event", "the pause"])
def test_what_is_discarded_ends_as_withheld(what: NewAction, first: str) -> None:
    driver = PausedDriver()
    if first == "the event":
        driver.event(0, what)
    driver.pause(DISCARD)
    if first == "the pause":
        driver.event(0, what)
    assert driver.after(HOUR) == driver.after(0) == []
    close = driver.last(Close)
    assert (close.outcome, close.reason) == (OutcomeName.WITHHELD, "pause p1: a test")
    assert driver.ledger.open == 0
    driver.resume()
    assert driver.after(DAY) == []


def test_all_actions_of_an_order_are_discarded_one_after_the_other() -> None:
    driver = PausedDriver()
    for offset in range(5):
        driver.event(offset, tagged("A"))
    driver.pause(DISCARD)
    for _ in range(10):
        driver.wake()
    assert driver.ledger.open == 0


def test_the_discarding_begins_at_the_next_wake() -> None:
    driver = PausedDriver()
    driver.pause(DISCARD)
    driver.event(0, tagged())
    wake_at = driver.ledger.next_wake()
    assert wake_at is not None
    assert wake_at <= driver.now


def test_what_is_in_doubt_is_no_withheld_action() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    driver.answer(0, InDoubt("no answer"))
    driver.pause(DISCARD)
    for _ in range(3):
        driver.after(HOUR)
    give_up = driver.last(GiveUp)
    assert give_up.reason is Reason.OUTCOME_UNKNOWN
    assert "p1" in give_up.detail
    assert not any(isinstance(each, Close) for each in driver.effects)


def test_who_holds_after_all_what_was_to_be_discarded_keeps_it() -> None:
    driver = PausedDriver()
    driver.event(0, tagged())
    driver.ledger.pause(Pauses([DISCARD]), driver.now)
    driver.ledger.pause(Pauses([DISCARD, replace(ALL, id="p2")]), driver.now)
    assert driver.after(HOUR) == []
    assert driver.states == {"paused": 1}


# -- partitions ---------------------------------------------------------------------------------------------------


def test_a_partition_that_goes_takes_its_actions_along() -> None:
    driver = PausedDriver()
    driver.pause(ALL)
    for offset in range(20):
        driver.event(offset, tagged(f"{offset}"))
    assert driver.ledger.stop(OURS) == []
    assert driver.ledger.in_flight(OURS) == 0
    assert driver.ledger.drop(OURS) == 20
    driver.resume()
    assert driver.after(HOUR) == []


def test_memory_is_counted_while_they_wait() -> None:
    ledger = Ledger(Policy(PollSchedule(initial_s=1.0)), lambda: 0.5, Memory(2), Pauses([ALL]))
    ledger.assign(OURS, [], 0.0)
    saves: Iterable[Save | None] = [ledger.accept(OURS, place, tagged(f"{place}"), 0.0) for place in range(5)]
    assert [each is not None and each.parked_for for each in saves] == [None, None, *["default"] * 3]
