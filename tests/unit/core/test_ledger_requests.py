"""What a person may ask of one action: its next step now, its end, another sending. Nothing that may double a mail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.core.effects import ActionId, Close, NewAction
from consumer.core.outcomes import Accepted, InDoubt, NotReady, Ready, Rejected, Unavailable
from consumer.core.pauses import Pause, Pauses
from consumer.core.places import place_of
from consumer.core.requests import Answer, NotYet
from schemas.outcome import OutcomeName
from tests.unit.core.test_ledger import OURS, Driver, action, tagged, with_document

WHY = "request 1: the order was a test"


class AskedDriver(Driver):
    """A driver whose actions somebody asks something of."""

    def retry(self, offset: int) -> Answer | NotYet:
        return self.ledger.retry_now(ActionId(OURS, place_of(0, offset)), self.now)

    def drop(self, offset: int) -> tuple[Answer | NotYet, list[str]]:
        answer, effects = self.ledger.drop_action(ActionId(OURS, place_of(0, offset)), WHY, self.now)
        return answer, self._apply(effects)

    def has_room_for(self, offset: int, what: NewAction) -> bool:
        return self.ledger.has_room_for(OURS, place_of(0, offset), what, self.now)


def refusal(answer: Answer | NotYet) -> str:
    assert isinstance(answer, Answer)
    assert not answer.is_done
    return answer.detail


def wait(answer: Answer | NotYet) -> str:
    assert isinstance(answer, NotYet)
    return answer.why


def test_a_poll_that_waits_is_asked_now() -> None:
    driver = AskedDriver()
    driver.event(0, action())
    driver.answer(0, NotReady(), NotReady(), NotReady())
    assert driver.after(0) == []
    assert driver.retry(0) == Answer(True, "its versionTag is polled for now")
    assert driver.after(0) == ["poll 0"]


@pytest.mark.parametrize("offset", [1, 2])
def test_what_waits_for_its_order_or_is_not_pending_is_not_hastened(offset: int) -> None:
    driver = AskedDriver()
    driver.event(0, action())
    driver.event(1, action())
    expected = {1: "it waits for the order's earlier action", 2: "it is not pending: it has ended, or it never was"}
    assert refusal(driver.retry(offset)) == expected[offset]


def test_what_engage_may_be_at_work_on_is_not_repeated_because_somebody_asks() -> None:
    driver = AskedDriver(processing_s=30.0)
    driver.event(0, tagged())
    driver.answer(0, InDoubt("no answer"))
    assert "Engage may be at work on it" in refusal(driver.retry(0))
    assert driver.after(0) == []


def test_a_document_that_waits_is_not_repeated_because_somebody_asks() -> None:
    driver = AskedDriver(processing_s=30.0)
    driver.event(0, with_document())
    driver.answer(0, Unavailable("no answer"))
    assert "Engage may be at work on it" in refusal(driver.retry(0))


def test_what_a_pause_holds_stays_on_hold() -> None:
    driver = AskedDriver()
    driver.ledger.pause(Pauses([Pause(id="p1", begun=0.0, reason="a test")]), driver.now)
    driver.event(0, tagged())
    driver.after(0)
    assert refusal(driver.retry(0)).startswith("a pause holds it")
    assert driver.after(0) == []


@pytest.mark.parametrize("what", [action(), tagged(), with_document()], ids=["to be polled", "to be sent", "document"])
def test_a_dropped_action_ends_unsent_and_its_orders_next_one_goes_on(what: NewAction) -> None:
    driver = AskedDriver()
    driver.event(0, what)
    driver.event(1, tagged())
    answer, done = driver.drop(0)
    assert answer == Answer(True, "it was dropped, and nothing is sent")
    assert done == ["close 0"]
    ended = driver.last(Close)
    assert (ended.outcome, ended.reason, ended.sends) == (OutcomeName.DROPPED, WHY, 0)
    assert driver.after(0) == ["send 1"]


def test_what_is_under_way_is_not_dropped_before_its_answer() -> None:
    driver = AskedDriver()
    driver.event(0, tagged())
    driver.after(0)
    assert wait(driver.drop(0)[0]) == "it is under way"
    assert driver.answer(0, Accepted()) == ["close 0"]
    assert refusal(driver.drop(0)[0]).startswith("it is not pending")


def test_an_action_is_not_dropped_while_engage_may_be_at_work_on_its_document() -> None:
    """It would keep no record, so the partition's next owner would not wait: the document would replace a newer one."""
    driver = AskedDriver(processing_s=30.0)
    driver.event(0, with_document())
    driver.answer(0, Unavailable("answered 502", may_be_processed=True))
    assert wait(driver.drop(0)[0]) == "Engage may be at work on its document"
    assert driver.after(29) == []
    assert wait(driver.drop(0)[0]) == "Engage may be at work on its document"
    assert driver.after(2) == []  # it is not sent again: somebody looks several times a second
    assert driver.drop(0) == (Answer(True, "it was dropped, and nothing is sent"), ["close 0"])


def test_a_document_is_sent_again_where_nobody_asks_any_more_to_drop_its_action() -> None:
    driver = AskedDriver(processing_s=30.0)
    driver.event(0, with_document())
    driver.answer(0, Unavailable("answered 502", may_be_processed=True))
    driver.drop(0)
    assert driver.after(34) == []
    driver.answer(0, Unavailable("answered 502", may_be_processed=True))
    assert wait(driver.drop(0)[0]) == "Engage may be at work on its document"  # it failed again


def test_an_action_is_dropped_at_once_whose_document_never_left() -> None:
    driver = AskedDriver(processing_s=30.0)
    driver.event(0, with_document())
    driver.answer(0, Unavailable("refused", may_be_processed=True))
    driver.after(30)
    driver.answer(0, Unavailable("refused", 300.0))
    assert driver.drop(0) == (Answer(True, "it was dropped, and nothing is sent"), ["close 0"])


def test_what_engage_may_have_ends_in_doubt_and_not_as_dropped() -> None:
    driver = AskedDriver(processing_s=30.0)
    driver.event(0, tagged())
    driver.answer(0, InDoubt("no answer"))
    answer, effects = driver.drop(0)
    assert isinstance(answer, NotYet)
    assert (answer.ends, effects) == (True, [])
    assert driver.after(29) == []
    driver.after(1)
    assert driver.ledger.open == 0
    assert driver.states == {}


def test_an_answer_to_a_poll_of_before_is_none_to_the_action_that_is_sent_again_in_its_place() -> None:
    driver = AskedDriver()
    driver.event(0, action())
    driver.after(1)  # it is polled for,
    assert driver.drop(0)[1] == ["close 0"]  # and dropped meanwhile
    assert not driver.has_room_for(0, action())
    assert driver.answer(0, Ready("a tag of before")) == []
    assert driver.has_room_for(0, action())


def test_an_action_that_is_asked_for_begins_where_its_event_was_and_only_as_a_record() -> None:
    driver = AskedDriver()
    driver.event(0, tagged())
    driver.answer(0, Rejected(400, "refused"))
    again = replace(action(job=None), first_offset=0)
    save = driver.ledger.record_of(OURS, place_of(0, 0), again, driver.now)
    assert save.action_id == ActionId(OURS, place_of(0, 0))
    assert not save.sending
    assert driver.ledger.open == 0
