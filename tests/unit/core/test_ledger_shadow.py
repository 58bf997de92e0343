"""A shadow run's actions never leave, in no run; and it leaves the actions of other runs alone (rule 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.core.effects import Close, LiveAction, NewAction, Save
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import Ready
from consumer.core.pacing import PollSchedule
from schemas.outcome import OutcomeName
from tests.unit.core.test_ledger import OURS, Driver, action, restored, tagged, told, with_document


def shadowed(what: NewAction) -> NewAction:
    return replace(what, shadow=True)


class ShadowDriver(Driver):
    """A driver of a shadow run."""

    def __init__(self, *records: LiveAction) -> None:
        super().__init__()
        self.ledger = Ledger(Policy(PollSchedule(initial_s=1.0), shadow=True), jitter=lambda: 0.5)
        self._apply(self.ledger.assign(OURS, records, self.now))


def test_it_is_polled_and_ends_where_it_would_be_sent() -> None:
    driver = ShadowDriver()
    assert driver.event(0, shadowed(action())) == ["save 0"]
    assert driver.after(1) == ["poll 0"]
    driver.answer(0, Ready("tag"))
    assert driver.after(0) == []
    assert driver.last(Close).outcome is OutcomeName.SHADOW
    assert driver.ledger.open == 0


@pytest.mark.parametrize("what", [tagged(), with_document(), replace(with_document(), with_document=True)])
def test_whatever_would_be_sent_first_is_not(what: NewAction) -> None:
    driver = ShadowDriver()
    driver.event(0, shadowed(what))
    driver.event(1, shadowed(tagged()))
    assert driver.after(1) == driver.after(1) == []
    assert [told(each) for each in driver.effects if not isinstance(each, Save)] == ["close 0", "close 1"]
    assert not any(isinstance(each, Save) and (each.sending or each.before_document) for each in driver.effects)


def test_a_later_run_does_not_send_it_either() -> None:
    driver = Driver(OURS, restored(0, shadowed(action())), restored(1, tagged()))
    assert driver.after(60) == ["poll 0"]
    driver.answer(0, Ready("tag"))
    assert driver.after(0) == ["send 1"]
    assert told(driver.effects[-2]) == "close 0"


def test_what_was_pending_before_stays_pending_for_the_next_run_that_sends() -> None:
    driver = ShadowDriver(restored(0, tagged("A")), restored(1, tagged("B"), sending=True), restored(2, action("C")))
    assert driver.after(100 * 86_400) == []
    assert driver.ledger.open == 3
    assert driver.event(3, shadowed(tagged("D"))) == ["save 3"]
    assert driver.after(0) == []
    assert driver.ledger.open == 3
