"""What a later action of an order withdraws, and which step comes too late (rule 12, sequences.py)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from consumer.core.effects import THE_DOCUMENT, UNKNOWN, Close, Effect, LiveAction, NewAction, Save
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import Accepted, InDoubt, Ready, Rejected, Throttled, Unavailable
from consumer.core.pacing import PollSchedule
from consumer.core.parking import Memory
from consumer.core.pauses import Pause, Pauses
from consumer.core.places import place_of
from consumer.core.sequences import SentStep, Sequences
from schemas.outcome import OutcomeName
from tests.unit.core.test_ledger import AGAIN, DAY, OURS, Driver, action, restored, tagged, told, with_document

CANCELLED = Sequences({"confirmed": ["cancelled"], "shipped": ["delivered", "cancelled"]})
STEPS = Sequences({}, ["ConfirmOrder", "ConfirmShipment", "ConfirmDelivery"], DAY)


def of_route(what: NewAction, route: str) -> NewAction:
    return replace(what, route=route)


CONFIRMED, CANCEL = of_route(action(), "confirmed"), of_route(tagged(), "cancelled")
CONFIRM_NOW = of_route(tagged(), "confirmed")


class SequenceDriver(Driver):
    """A driver that calls `supersede` as the outbox does."""

    def __init__(
        self,
        sequences: Sequences,
        *records: LiveAction,
        processing_s: float = 0.0,
        shadow: bool = False,
        sent: Iterable[SentStep] | None = (),
        memory: Memory | None = None,
    ) -> None:
        """`sent`: which steps were sent before; None: that is not known yet."""
        super().__init__()
        policy = Policy(PollSchedule(initial_s=1.0), deadline_s=DAY, processing_s=processing_s, shadow=shadow)
        self.ledger = Ledger(policy, jitter=lambda: 0.5, memory=memory, sequences=sequences)
        self._apply(self.ledger.assign(OURS, records, self.now))
        if sent is not None:
            self.ledger.steps_sent(OURS, sent)
        self.wake()

    def event(self, offset: int, what: NewAction) -> list[str]:
        save = self.ledger.accept(OURS, place_of(0, offset), what, self.now)
        effects: list[Effect] = [] if save is None else [save]
        done = self._apply([*effects, *self.ledger.supersede(OURS, what, self.now)])
        return done + self.wake()

    def save_intents(self) -> None:
        self._apply(self.ledger.save_intents("default", ahead=1_000_000, now=self.now))

    def ends(self) -> list[tuple[str, str]]:
        """What ended, and how."""
        return [(told(each), str(each.outcome)) for each in self.effects if isinstance(each, Close)]


def superseded(*offsets: int) -> list[tuple[str, str]]:
    return [(f"close {offset}", "superseded") for offset in offsets]


# -- superseded_by ------------------------------------------------------------------------------------------------


def test_a_confirmation_that_waits_is_withdrawn_by_the_cancellation() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRMED)
    assert driver.event(1, CANCEL) == ["save 1", "close 0"]
    assert driver.ends() == superseded(0)
    assert driver.last(Close).reason == "by route cancelled, offset 1"
    assert driver.after(0) == ["send 1"]
    assert driver.answer(1, Accepted()) == ["close 1"]
    assert driver.states == {}


def test_it_is_withdrawn_in_whatever_state_it_waits() -> None:
    for asked in range(3):
        driver = SequenceDriver(CANCELLED)
        driver.event(0, CONFIRMED)
        if asked:
            assert driver.after(1) == ["poll 0"]
        if asked > 1:
            driver.answer(0, Ready("tag"))
        assert driver.event(1, CANCEL) == ["save 1", "close 0"]
        if asked == 1:
            assert driver.answer(0, Ready("tag")) == []
        assert driver.after(0) == ["send 1"]


def test_an_intent_that_is_saved_ahead_is_not_used() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRM_NOW)
    driver.save_intents()
    assert driver.states == {"ready": 1}
    assert driver.event(1, CANCEL) == ["save 1", "close 0"]
    assert driver.last(Close).sends == 0
    assert driver.after(0) == ["send 1"]


def test_an_intent_that_is_under_way_is_withdrawn_when_it_is_saved() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRM_NOW)
    (intent,) = driver.ledger.save_intents("default", 10, driver.now)
    assert isinstance(intent, Save)
    assert driver.event(1, CANCEL) == ["save 1"]
    driver._apply(driver.ledger.intent_saved(intent.action_id, intent.sends, driver.now))
    assert driver.after(0) == ["send 1"]
    assert driver.ends() == superseded(0)


def test_what_is_sent_goes_its_way() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRM_NOW)
    assert driver.after(0) == ["send 0"]
    assert driver.event(1, CANCEL) == ["save 1"]
    assert driver.answer(0, Accepted()) == ["close 0"]
    assert driver.ends() == [("close 0", "accepted")]


def test_what_was_sent_and_surely_not_processed_is_not_sent_again() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRM_NOW)
    driver.after(0)
    driver.event(1, CANCEL)
    driver.answer(0, Throttled(5.0))
    assert driver.after(5) == ["send 1"]
    assert driver.ends() == superseded(0)


def test_what_is_in_doubt_is_sent_again() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRM_NOW)
    driver.after(0)
    driver.answer(0, InDoubt("no answer"))
    assert driver.event(1, CANCEL) == ["save 1"]
    assert driver.after(100) == ["send 0"]


def test_only_earlier_actions_of_the_same_order_on_the_same_connection_are_withdrawn() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, of_route(action("B"), "confirmed"))
    driver.event(1, replace(CONFIRMED, connection="other"))
    driver.event(2, CANCEL)
    driver.event(3, CONFIRMED)
    assert driver.ends() == []


def test_what_waits_behind_another_action_ends_when_it_would_be_next() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, tagged())
    assert driver.after(0) == ["send 0"]
    driver.event(1, CONFIRMED)
    driver.event(2, CONFIRMED)
    driver.event(3, CANCEL)
    assert driver.ends() == []
    assert driver.answer(0, Accepted()) == ["close 0", "close 1", "close 2"]
    assert driver.after(0) == ["send 3"]


def test_all_that_it_supersedes_at_the_beginning_of_its_lane_ends_at_once() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRMED)
    driver.event(1, of_route(action(), "shipped"))
    assert driver.event(2, CANCEL) == ["save 2", "close 0", "close 1"]


def test_what_supersedes_may_be_superseded_itself() -> None:
    driver = SequenceDriver(Sequences({"confirmed": ["shipped"], "shipped": ["delivered"]}))
    driver.event(0, tagged())
    driver.after(0)
    driver.event(1, CONFIRMED)
    driver.event(2, of_route(action(), "shipped"))
    driver.event(3, of_route(tagged(), "delivered"))
    assert driver.answer(0, Accepted()) == ["close 0", "close 1", "close 2"]


def test_where_the_later_one_cannot_be_kept_the_earlier_one_is_sent_after_all() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, tagged())
    driver.after(0)
    driver.event(1, CONFIRM_NOW)
    driver.event(2, CANCEL)
    driver.ledger.record_too_large(driver.ledger.rewrite(OURS)[2].action_id, driver.now)
    driver.answer(0, Accepted())
    assert driver.after(0) == ["send 1"]


def test_where_the_latest_cannot_be_kept_one_before_it_supersedes() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, tagged())
    driver.after(0)
    for offset, what in enumerate((CONFIRM_NOW, CANCEL, CANCEL), start=1):
        driver.event(offset, what)
    driver.ledger.record_too_large(driver.ledger.rewrite(OURS)[3].action_id, driver.now)
    driver.answer(0, Accepted())
    assert driver.after(0) == ["send 2"]
    assert ("close 1", "superseded") in driver.ends()


def test_what_a_person_had_sent_again_neither_supersedes_nor_is_superseded() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, CONFIRMED)
    driver.event(1, replace(CANCEL, first_offset=UNKNOWN))
    driver.event(2, replace(of_route(action("B"), "confirmed"), first_offset=UNKNOWN))
    driver.event(3, of_route(tagged("B"), "cancelled"))
    assert driver.ends() == []


def test_what_a_shadow_run_read_withdraws_nothing_of_other_runs() -> None:
    driver = SequenceDriver(CANCELLED, restored(0, CONFIRMED), restored(1, CANCEL), shadow=True)
    driver.event(2, replace(CANCEL, shadow=True))
    driver.event(3, replace(of_route(action("B"), "confirmed"), shadow=True))
    driver.event(4, replace(of_route(tagged("B"), "cancelled"), shadow=True))
    assert driver.after(DAY) == []
    assert driver.ends() == [*superseded(3), ("close 4", "shadow")]


def test_what_is_on_hold_is_withdrawn() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.ledger.pause(Pauses((Pause(id="p", begun=0.0, reason="a test"),)), driver.now)
    driver.event(0, CONFIRMED)
    driver.after(1)
    assert driver.states == {"paused": 1}
    assert driver.event(1, CANCEL) == ["save 1", "close 0"]


def test_a_restart_withdraws_what_the_later_one_supersedes() -> None:
    records = [restored(1, CANCEL), restored(0, CONFIRMED, due=500.0)]
    driver = SequenceDriver(CANCELLED, *records)
    assert driver.ends() == superseded(0)
    assert driver.after(0) == ["send 1"]


def test_a_restart_leaves_what_may_have_been_sent() -> None:
    driver = SequenceDriver(CANCELLED, restored(0, CONFIRM_NOW, sending=True), restored(1, CANCEL))
    assert driver.ends() == []
    assert driver.after(100) == ["send 0"]


def test_a_document_that_may_be_under_way_is_over_before_the_next_one_leaves() -> None:
    document = of_route(with_document(), "confirmed")
    later = of_route(replace(with_document(), with_document=True), "cancelled")
    driver = SequenceDriver(CANCELLED, processing_s=30.0)
    driver.event(0, document)
    assert driver.after(1) == ["poll 0"]
    driver.answer(0, Unavailable("a gateway", may_be_processed=True))
    assert driver.event(1, later) == ["save 1"]
    assert driver.after(29) == []
    assert driver.after(1) == ["send 1"]
    assert driver.ends() == superseded(0)


def test_a_document_that_may_be_under_way_is_over_before_the_next_one_leaves_after_a_restart_too() -> None:
    document = replace(restored(0, of_route(with_document(), "confirmed")), document_sent=True)
    later = of_route(replace(with_document(), with_document=True), "cancelled")
    driver = SequenceDriver(CANCELLED, document, restored(1, later), processing_s=30.0)
    assert driver.after(29) == []
    assert driver.after(1) == ["send 1"]
    assert driver.ends() == superseded(0)


def test_a_document_that_is_the_next_to_leave_does_not() -> None:
    driver = SequenceDriver(CANCELLED)
    driver.event(0, replace(of_route(with_document(), "confirmed"), target=THE_DOCUMENT))
    driver.now += 1
    driver.wake()
    assert driver.states == {"due": 1}
    assert driver.event(1, CANCEL) == ["save 1", "close 0"]


# -- parked ---------------------------------------------------------------------------------------------------------


def parked(*, first: NewAction = CONFIRMED) -> SequenceDriver:
    """Return a driver whose memory is full with another order's action, and that has parked some of order A."""
    driver = SequenceDriver(CANCELLED, memory=Memory(1))
    driver.event(0, action("X"))
    driver.event(1, first)
    return driver


def read_back(driver: SequenceDriver, *records: LiveAction) -> None:
    driver._apply(driver.ledger.take_back(OURS, records, driver.now))
    driver.wake()


def test_what_is_read_back_is_withdrawn_though_what_supersedes_it_is_still_parked() -> None:
    driver = parked()
    assert driver.event(2, CANCEL) == ["save 2"]
    assert driver.ledger.parking.marks == 1
    read_back(driver, restored(1, CONFIRMED))
    assert driver.ends() == superseded(1)
    assert driver.last(Close).reason == "by route cancelled"
    read_back(driver, restored(2, CANCEL), restored(3, CONFIRMED))
    assert driver.ledger.parking.marks == 0
    assert driver.ends() == superseded(1)  # it is read back: what came later is not superseded


def test_what_is_parked_withdraws_what_is_held() -> None:
    driver = parked(first=action("Y"))
    assert driver.event(2, of_route(action("X"), "cancelled")) == ["save 2", "close 0"]
    assert driver.ledger.parking.count == 2
    assert driver.last(Close).reason == "by route cancelled"


def test_what_could_not_be_parked_supersedes_nothing() -> None:
    driver = parked()
    driver.event(2, CANCEL)
    driver.ledger.parked_too_large(OURS, CANCEL, place_of(0, 2))
    driver.ledger.parked_too_large(OURS, CANCEL, place_of(0, 2))
    assert driver.ledger.parking.marks == 0
    read_back(driver, restored(1, CONFIRMED))
    assert driver.ends() == []


def test_what_is_dropped_with_its_partition_has_no_marks() -> None:
    driver = parked()
    driver.event(2, CANCEL)
    driver.ledger.drop(OURS)
    assert driver.ledger.parking.marks == 0


def test_where_parked_actions_are_gone_they_supersede_nothing() -> None:
    driver = parked()
    driver.event(2, CANCEL)
    driver.ledger.parking.forget_marks(OURS)
    assert driver.ledger.parking.marks == 0
    read_back(driver, restored(1, CONFIRMED))
    assert driver.ends() == []


# -- steps ----------------------------------------------------------------------------------------------------------


def step(name: str, order: str = "A") -> NewAction:
    return replace(tagged(order), action=name)


CONFIRM, SHIP, DELIVER = step("ConfirmOrder"), step("ConfirmShipment"), step("ConfirmDelivery")


def sent(driver: SequenceDriver, offset: int, what: NewAction) -> None:
    driver.event(offset, what)
    assert driver.after(0) == [f"send {offset}"]
    driver.answer(offset, Accepted())


def test_a_step_backwards_is_told_when_its_event_comes() -> None:
    driver = SequenceDriver(STEPS)
    sent(driver, 0, DELIVER)
    assert driver.ledger.later_step(OURS, CONFIRM, driver.now) == "ConfirmDelivery"
    assert driver.ledger.later_step(OURS, DELIVER, driver.now) is None
    assert driver.ledger.later_step(OURS, step("ConfirmOrder", "B"), driver.now) is None
    assert driver.ledger.later_step(OURS, replace(CONFIRM, connection="other"), driver.now) is None
    assert driver.ledger.later_step(OURS, replace(CONFIRM, first_offset=UNKNOWN), driver.now) is None
    assert driver.ledger.later_step(AGAIN, CONFIRM, driver.now) is None
    assert driver.ledger.later_step(OURS, CONFIRM, driver.now + DAY) is None


def test_a_step_that_waits_behind_a_later_one_ends_when_that_was_sent() -> None:
    driver = SequenceDriver(STEPS)
    driver.event(0, DELIVER)
    driver.event(1, CONFIRM)
    driver.event(2, SHIP)
    driver.event(3, step("Custom"))
    assert driver.after(0) == ["send 0"]
    assert driver.answer(0, Accepted()) == ["close 0", "close 1", "close 2"]
    assert driver.ends()[1:] == [("close 1", "out_of_sequence"), ("close 2", "out_of_sequence")]
    assert driver.last(Close).reason == "ConfirmDelivery was sent before"
    assert driver.after(0) == ["send 3"]


def test_a_later_step_that_nobody_was_told_of_stops_nothing() -> None:
    driver = SequenceDriver(STEPS)
    driver.event(0, DELIVER)
    driver.event(1, CONFIRM)
    driver.after(0)
    driver.answer(0, Rejected(400, "bad", None))
    assert driver.after(0) == ["send 1"]


def test_a_later_step_that_ended_in_doubt_counts_as_sent() -> None:
    driver = SequenceDriver(STEPS)
    driver.event(0, replace(DELIVER, resend=False))
    driver.event(1, CONFIRM)
    driver.after(0)
    assert driver.answer(0, InDoubt("no answer")) == ["dead letter 0: outcome_unknown", "close 1"]


def test_steps_forwards_and_the_same_step_again_are_sent() -> None:
    driver = SequenceDriver(STEPS)
    for offset, what in enumerate((CONFIRM, SHIP, SHIP, DELIVER, DELIVER)):
        sent(driver, offset, what)
    assert {outcome for _, outcome in driver.ends()} == {OutcomeName.ACCEPTED}


def test_the_furthest_step_counts_though_an_earlier_one_was_sent_after_it() -> None:
    driver = SequenceDriver(STEPS)
    sent(driver, 0, DELIVER)
    sent(driver, 1, replace(CONFIRM, first_offset=UNKNOWN))
    assert driver.ledger.later_step(OURS, SHIP, driver.now) == "ConfirmDelivery"


def test_what_may_have_been_sent_is_in_sequence() -> None:
    delivered = SentStep("default", "A", "ConfirmDelivery", 0.0)
    driver = SequenceDriver(STEPS, restored(1, CONFIRM, sending=True), sent=[delivered])
    assert driver.after(100) == ["send 1"]


def test_after_a_restart_a_step_waits_until_it_is_known_what_was_sent() -> None:
    driver = SequenceDriver(STEPS, restored(1, CONFIRM), restored(2, step("ConfirmDelivery", "B")), sent=None)
    assert driver.after(0) == ["send 2"]  # the last step cannot be too early
    assert driver.after(5) == []
    driver.ledger.steps_sent(OURS, [SentStep("default", "A", "ConfirmDelivery", 0.0)])
    assert driver.after(1) == []
    assert driver.ends() == [("close 1", "out_of_sequence")]


def test_a_step_that_waited_until_it_was_known_what_was_sent_is_sent() -> None:
    driver = SequenceDriver(STEPS, restored(1, CONFIRM), restored(2, replace(SHIP, order_id="B")), sent=None)
    assert driver.after(5) == []
    driver.ledger.steps_sent(OURS, [SentStep("default", "A", "ConfirmOrder", 0.0)])
    assert driver.after(1) == ["send 1", "send 2"]


def test_what_was_sent_meanwhile_is_not_forgotten_when_it_is_known_what_was_sent_before() -> None:
    driver = SequenceDriver(STEPS, restored(1, DELIVER), sent=None)
    assert driver.after(0) == ["send 1"]
    driver.answer(1, Accepted())
    driver.ledger.steps_sent(OURS, [SentStep("default", "A", "ConfirmShipment", 0.0)])
    assert driver.ledger.later_step(OURS, SHIP, driver.now) == "ConfirmDelivery"


@pytest.mark.parametrize("days", [1, 2])
def test_an_order_is_forgotten_after_the_window(days: int) -> None:
    driver = SequenceDriver(STEPS)
    for offset in range(50):
        sent(driver, offset, step("ConfirmDelivery", f"order {offset}"))
    driver.now += days * DAY
    sent(driver, 50, step("ConfirmDelivery", "the last"))
    assert len(driver.ledger._book.partitions[OURS].steps) == 1
