"""Orders that never get ready, or never get a contact, keep no other one waiting: the ledger's rule 14."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.core.effects import THE_CHANGE, THE_ORDER, ActionId, Document, Poll
from consumer.core.ledger.entries import REQUESTS_BEFORE_SPARE
from consumer.core.ledger.ledger import SPARE_SHARE, Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import DocumentTaken, NoContact, NotReady, Ready, Unavailable
from consumer.core.pacing import PollSchedule
from consumer.core.pauses import NO_PAUSES, Pause, Pauses
from consumer.core.places import place_of
from consumer.core.poll_plan import LONGEST_S
from tests.unit.core.test_ledger import DAY, HOUR, OURS, Driver, action, restored, tagged, with_document
from tests.unit.core.test_ledger_with_document import in_its_document

NOON = 12 * HOUR


def stuck(*offsets: int, now: float = NOON) -> Driver:
    """Orders that were read an hour ago, and are due."""
    seen = now - HOUR
    return Driver(OURS, *(restored(n, action(f"old-{n}"), first_seen=seen, due=seen) for n in offsets), now=now)


def fresh(driver: Driver, *offsets: int) -> None:
    """Orders whose first poll is due."""
    for n in offsets:
        driver.event(n, replace(action(f"new-{n}"), event_time=driver.now - 60.0))
    driver.now += 1.0
    driver.wake()


def test_orders_that_wait_for_long_leave_requests_to_the_others() -> None:
    driver = stuck(0, 1, 2)
    fresh(driver, 10, 11)
    assert driver.after(0) == ["poll 10", "poll 11", "poll 0", "poll 1", "poll 2"]


def test_they_have_their_share_of_the_polls_however_many_others_there_are() -> None:
    driver = stuck(*range(10))
    fresh(driver, *range(100, 180))
    taken = driver.after(0)
    old = [n for n, each in enumerate(taken) if int(each.removeprefix("poll ")) < 100]
    assert old == [(n + 1) * (REQUESTS_BEFORE_SPARE + 1) - 1 for n in range(10)]
    assert len(old) / len(taken[: old[-1] + 1]) == SPARE_SHARE


def test_nobody_else_wants_a_request_so_they_are_polled_at_once() -> None:
    assert stuck(0, 1).after(0) == ["poll 0", "poll 1"]


def test_whoever_found_nothing_for_long_is_polled_behind_the_others() -> None:
    driver = Driver()
    driver.event(0, action("old"))
    while driver.now < HOUR:
        driver.answer(0, NotReady())
        driver.asks_next_after()
    driver.answer(0, NotReady())
    driver.now += 60.0
    driver.wake()
    fresh(driver, 1)
    assert driver.after(0) == ["poll 1", "poll 0"]


def test_an_order_that_was_polled_for_short_is_not() -> None:
    driver = Driver()
    driver.event(0, action("first"))
    driver.answer(0, NotReady())
    driver.now += 60.0
    driver.wake()
    fresh(driver, 1)
    assert driver.after(0) == ["poll 0", "poll 1"]


def test_after_an_outage_whoever_waited_longer_is_polled_first() -> None:
    driver = stuck(0)
    driver.answer(0, *[Unavailable("refused")] * 5)
    driver.now += HOUR
    driver.wake()
    fresh(driver, 1)
    assert driver.after(0) == ["poll 0", "poll 1"]


def test_what_a_person_asks_for_now_is_polled_before_others() -> None:
    driver = stuck(0)
    driver.answer(0, NotReady())
    driver.ledger.retry_now(ActionId(OURS, place_of(0, 0)), driver.now)
    fresh(driver, 1)
    assert driver.after(0) == ["poll 0", "poll 1"]


def test_what_was_parked_was_never_polled_for_so_it_waits_for_no_others() -> None:
    driver = Driver(now=NOON)
    driver.ledger.take_back(OURS, [restored(0, action("parked"), first_seen=NOON - HOUR, due=NOON - HOUR)], NOON)
    driver.wake()
    fresh(driver, 1)
    assert driver.after(0) == ["poll 0", "poll 1"]


def test_a_change_that_waited_for_long_is_made_in_its_turn() -> None:
    old = replace(action("old", job=None), target=THE_CHANGE)
    driver = Driver(OURS, restored(0, old, first_seen=NOON - HOUR, due=NOON - HOUR), now=NOON)
    fresh(driver, 1)
    assert driver.after(0) == ["poll 0", "poll 1"]


def test_the_job_of_an_action_that_engage_has_is_polled_with_what_is_left() -> None:
    driver = Driver()
    driver.event(0, in_its_document())
    driver.answer(0, DocumentTaken("job-0"))
    driver.now += HOUR
    driver.wake()
    fresh(driver, 1)
    assert driver.after(0) == ["poll 1", "poll 0"]


def test_unless_the_orders_next_action_waits_for_it() -> None:
    driver = Driver()
    driver.event(0, in_its_document())
    driver.answer(0, DocumentTaken("job-0"))
    driver.event(1, action("A"))
    driver.now += HOUR
    driver.wake()
    fresh(driver, 2)
    assert driver.after(0) == ["poll 0", "poll 2"]


def test_what_waits_for_requests_that_others_leave_is_not_overdue() -> None:
    driver = stuck(0, 1, 2)
    assert driver.ledger.overdue(NOON + 60.0) == 0
    fresh(driver, 3)
    assert driver.ledger.overdue(driver.now + 60.0) == 1


def test_it_can_be_paused_and_resumed() -> None:
    driver = stuck(0)
    driver.ledger.pause(Pauses([Pause(id="p", begun=NOON, reason="a test")]), NOON)
    assert driver.after(0) == []
    driver.ledger.pause(NO_PAUSES, NOON)
    fresh(driver, 1)
    assert driver.after(0) == ["poll 1", "poll 0"]


def test_a_partition_that_goes_takes_them_along() -> None:
    driver = stuck(0, 1)
    driver.ledger.drop(OURS)
    assert driver.after(0) == []
    assert not driver.ledger.has_request("default")


def without_contact(driver: Driver, *offsets: int, times: int) -> None:
    for offset in offsets:
        driver.event(offset, replace(tagged(f"guest-{offset}"), event_time=driver.now))
    for _ in range(times):
        for offset in offsets:
            driver.answer(offset, NoContact(None))
    driver.now += 120.0
    driver.wake()


def test_an_order_that_has_had_no_contact_for_long_is_sent_behind_all_others() -> None:
    driver = Driver()
    without_contact(driver, 0, times=3)
    fresh(driver, 1)
    driver.event(2, tagged("other"))
    assert driver.after(0) == ["send 2", "poll 1"]
    assert driver.after(0) == ["send 0"]


def test_one_that_has_had_none_for_seconds_is_sent_in_its_turn() -> None:
    driver = Driver()
    without_contact(driver, 0, times=2)
    fresh(driver, 1)
    assert driver.after(0) == ["send 0", "poll 1"]


def test_one_such_order_is_sent_after_seven_polls() -> None:
    driver = Driver()
    without_contact(driver, 0, 1, times=3)
    fresh(driver, *range(100, 130))
    taken: list[str] = []
    while driver.ledger.has_request("default") or driver.ledger.wants_intents("default"):
        driver.save_intents()
        request = driver.ledger.take("default")
        assert request is not None
        taken.append("poll" if isinstance(request, Poll) else "send")
    sent = [n for n, each in enumerate(taken) if each == "send"]
    assert sent == [REQUESTS_BEFORE_SPARE, 2 * REQUESTS_BEFORE_SPARE + 1]


def test_so_are_the_document_that_is_put_again_for_it_and_the_polls_behind() -> None:
    driver = Driver()
    driver.event(0, with_document("guest"))
    for n in range(3):
        driver.answer(0, DocumentTaken(f"job-{n}"), Ready("tag"), NoContact(None))
    driver.now += 120.0
    driver.wake()
    fresh(driver, 1, 2)
    assert driver.after(0) == ["poll 1", "poll 2"]
    assert driver.after(0) == ["poll 0"]
    assert isinstance(driver.asked[0], Poll)
    assert isinstance(driver.asked[0].target, Document)
    driver.answer(0, DocumentTaken("job-4"))
    driver.now += 10.0
    driver.wake()
    fresh(driver, 3)
    assert driver.after(0) == ["poll 3", "poll 0"]


def test_it_is_paused_and_ends_as_others_are_and_is_not_overdue() -> None:
    driver = Driver()
    without_contact(driver, 0, times=3)
    fresh(driver, 1)
    assert driver.ledger.overdue(driver.now + 60.0) == 1
    driver.ledger.pause(Pauses([Pause(id="p", begun=0.0, reason="a test")]), driver.now)
    assert driver.states == {"paused": 2}
    driver.ledger.pause(NO_PAUSES, driver.now)
    driver.ledger.drop(OURS)
    assert driver.after(0) == []


@pytest.mark.parametrize("count", [0, 10_000])
def test_they_make_the_others_polls_no_rarer_than_their_share_takes(count: int) -> None:
    ledger = Ledger(Policy(PollSchedule(learns=True)), lambda: 0.5)
    ledger.assign(OURS, [restored(n, action(str(n)), first_seen=-DAY) for n in range(count)], 0.0)
    ledger.wake(LONGEST_S, most=count)
    for _ in range(50):
        for _ in range(min(count, 25)):
            ledger.take("default")
        ledger.plan_polls("default", min(count, 25) + 60, 100.0)
    figures = ledger.poll_figures("default")
    assert figures is not None
    assert figures.price > 2.0  # as at the start: 60 of the 87 that are theirs were used


def test_the_order_is_asked_for_them_as_for_others() -> None:
    driver = Driver(OURS, restored(0, action("old", job=None), first_seen=NOON - HOUR), now=NOON)
    driver.after(0)
    assert driver.asked[0].target == THE_ORDER  # type: ignore[union-attr]
