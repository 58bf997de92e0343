"""Changes that come before an action, and actions that travel in the order's document: the ledger's rules 7 and 8."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.core.effects import (
    THE_CHANGE,
    THE_DOCUMENT,
    THE_ORDER,
    THE_REDRIVEN_DOCUMENT,
    Document,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Poll,
    Save,
    Send,
)
from consumer.core.outcomes import (
    Accepted,
    DocumentTaken,
    Forbidden,
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
    StaleTag,
    Throttled,
    Unavailable,
    Withdrawn,
)
from tests.unit.core.test_ledger import AGAIN, DAY, OURS, Driver, action, restored, tagged


def after_a_change() -> NewAction:
    return replace(action(job=None), target=THE_CHANGE)


def in_its_document(*, resend: bool = True, document: Document = THE_DOCUMENT) -> NewAction:
    return replace(action(job=None, resend=resend), target=document, document=document, with_document=True)


def asked(driver: Driver) -> Poll | Send:
    return driver.asked[0]


# Changes


def test_a_change_is_made_first_and_its_job_brings_the_tag() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    assert driver.after(1) == ["poll 0"]
    assert isinstance(poll := asked(driver), Poll)
    assert (poll.target, poll.ownership_confirmed_at) == (THE_CHANGE, driver.now)
    assert driver.answer(0, DocumentTaken("j9")) == ["save 0"]
    assert driver.last(Save).job_id == "j9"
    assert driver.answer(0, Ready("new"), Accepted()) == ["close 0"]


def test_a_change_leaves_only_after_its_record_is_committed_again() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.now += 1
    driver.ledger.wake(driver.now)
    assert driver.ledger.take("default") is None
    (save,) = driver.ledger.save_intents("default", ahead=1)
    assert isinstance(save, Save)
    assert (save.before_document, save.sending) == (True, False)


def test_a_hand_over_waits_for_a_change_under_way() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.after(1)
    driver.ledger.stop(OURS)
    assert driver.ledger.in_flight(OURS) == 1
    assert driver.answer(0, DocumentTaken("j9")) == ["save 0"]
    assert driver.ledger.in_flight(OURS) == 0


def test_a_withdrawn_change_is_sent_again() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.answer(0, Withdrawn())
    assert driver.after(0) == ["poll 0"]
    assert driver.last(Save).before_document


def test_a_change_of_an_order_that_is_not_there_yet_waits_for_it_within_its_grace() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.answer(0, NotFound(), NotFound(), NotFound(), NotFound(), DocumentTaken("j9"))
    assert driver.answer(0, Ready("new"), Accepted()) == ["close 0"]


def test_a_change_of_an_order_that_never_comes_is_a_dead_letter() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    while (done := driver.answer(0, NotFound())) == []:
        assert driver.now < DAY
    assert done == ["dead letter 0: not_found"]


def test_a_change_that_failed_is_made_again() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.answer(0, Unavailable("500"))
    driver.asks_next_after()
    assert isinstance(poll := asked(driver), Poll)
    assert poll.target == THE_CHANGE


def test_a_change_that_is_refused_is_a_dead_letter() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    assert driver.answer(0, Rejected(400, "Engage answered 400", "[1]")) == ["dead letter 0: poll_rejected"]
    assert driver.last(GiveUp).errors == "[1]"


def test_an_action_without_a_contact_is_sent_again_without_another_change() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.answer(0, DocumentTaken("j9"), Ready("new"), NoContact())
    driver.asks_next_after()
    assert isinstance(asked(driver), Send)


def test_after_a_stale_tag_the_order_is_asked_and_not_changed_again() -> None:
    driver = Driver()
    driver.event(0, after_a_change())
    driver.answer(0, DocumentTaken("j9"), Ready("old"), StaleTag())
    driver.after(0)
    assert isinstance(poll := asked(driver), Poll)
    assert poll.target == THE_ORDER


# Actions that travel in the document


def sent_with_document(*, resend: bool = True, document: Document = THE_DOCUMENT) -> Driver:
    driver = Driver()
    driver.event(0, in_its_document(resend=resend, document=document))
    assert driver.after(0) == ["send 0"]
    return driver


def taken() -> Driver:
    driver = sent_with_document()
    assert driver.answer(0, DocumentTaken("j9")) == ["save 0"]
    return driver


def as_record(save: Save, what: NewAction) -> LiveAction:
    live = restored(0, what, sending=save.sending, first_seen=save.first_seen, due=save.due, sends=save.sends)
    target = what.target if save.job_id is None else Job(save.job_id)
    return replace(live, action=replace(what, target=target, version_tag=save.version_tag))


def test_it_leaves_at_once_under_an_intent_and_needs_no_tag() -> None:
    driver = sent_with_document()
    assert driver.last(Save).sending
    assert isinstance(send := asked(driver), Send)
    assert (send.version_tag, send.document) == (None, THE_DOCUMENT)


def test_it_is_done_when_its_job_is_and_nothing_more_is_sent() -> None:
    driver = taken()
    assert (driver.last(Save).sending, driver.last(Save).job_id) == (False, "j9")
    assert driver.ledger.in_doubt == 0
    driver.asks_next_after()
    assert isinstance(poll := asked(driver), Poll)
    assert poll.target == Job("j9")
    assert driver.answer(0, Ready("tag")) == ["close 0"]
    assert driver.ledger.open == 0


def test_it_is_done_at_once_where_engage_names_no_job() -> None:
    assert sent_with_document().answer(0, DocumentTaken(None)) == ["close 0"]


def test_its_job_is_polled_only_once_in_a_while() -> None:
    driver = taken()
    waits = [driver.asks_next_after()]
    for _ in range(4):
        driver.answer(0, NotReady())
        waits.append(driver.asks_next_after())
    assert waits == [10.0, 30.0, 60.0, 300.0, 300.0]


def test_its_job_is_polled_as_usual_where_the_orders_next_action_waits() -> None:
    driver = sent_with_document()
    driver.event(1, tagged())
    driver.answer(0, DocumentTaken("j9"))
    assert driver.asks_next_after() <= 2.0
    driver.answer(0, NotReady())
    assert driver.asks_next_after() <= 3.0
    assert driver.answer(0, Ready("tag")) == ["close 0"]
    assert driver.after(0) == ["send 1"]


def test_its_job_is_polled_soon_when_the_orders_next_action_comes() -> None:
    driver = taken()
    driver.now += 2
    driver.event(1, tagged())
    assert driver.asks_next_after() == 1.0
    assert driver.answer(0, NotReady()) == []
    driver.event(2, tagged())  # a further one changes nothing
    assert driver.asks_next_after() == 2.0
    assert driver.answer(0, Ready("tag")) == ["close 0"]
    assert driver.after(0) == ["send 1"]
    assert driver.answer(1, Accepted()) == ["close 1"]
    assert driver.after(0) == ["send 2"]
    assert driver.answer(2, Accepted()) == ["close 2"]
    assert driver.after(DAY) == []


def test_after_a_restart_its_job_is_polled_soon_where_the_orders_next_action_waits() -> None:
    record = replace(as_record(taken().last(Save), in_its_document()), due=50.0)
    driver = Driver(AGAIN, record, restored(1, tagged()))
    assert driver.asks_next_after() == 1.0


def test_what_was_dropped_is_not_polled() -> None:
    driver = taken()
    driver.event(1, tagged())
    driver.ledger.drop(OURS)
    assert driver.after(DAY) == []


def test_the_orders_next_action_waits_until_the_job_is_done() -> None:
    driver = taken()
    driver.event(1, tagged())
    assert driver.after(0) == []


@pytest.mark.parametrize("resend", [True, False])
def test_a_job_that_failed_is_known_not_to_have_carried_it_out(resend: bool) -> None:
    driver = sent_with_document(resend=resend)
    driver.answer(0, DocumentTaken("j9"))
    assert driver.answer(0, JobFailed("job status is failed", "[1]")) == ["dead letter 0: job_failed"]
    assert driver.last(GiveUp).errors == "[1]"


@pytest.mark.parametrize("outcome", [NotReady(), NotFound(), Unavailable("500", answered=True), Forbidden()])
def test_any_other_end_than_its_jobs_leaves_it_in_doubt(outcome: PollOutcome) -> None:
    driver = taken()
    while (done := driver.answer(0, outcome)) == []:
        assert driver.now < 2 * DAY
    assert done == ["dead letter 0: outcome_unknown"]
    assert "it may have been processed" in driver.last(GiveUp).detail


def test_a_job_that_may_not_be_asked_for_leaves_it_in_doubt() -> None:
    assert taken().answer(0, Rejected(400, "Engage answered 400")) == ["dead letter 0: outcome_unknown"]


def test_in_doubt_it_is_sent_again_as_any_action_and_stays_in_doubt_until_it_ends() -> None:
    driver = sent_with_document()
    assert driver.answer(0, InDoubt("no answer")) == []
    assert driver.ledger.in_doubt == 1
    assert driver.asks_next_after() == 10.0
    assert isinstance(send := asked(driver), Send)
    assert send.version_tag is None
    driver.answer(0, DocumentTaken("j9"))
    assert driver.ledger.in_doubt == 1
    assert driver.answer(0, JobFailed("failed")) == ["dead letter 0: outcome_unknown"]


def test_in_doubt_it_is_a_dead_letter_where_its_route_says_so() -> None:
    assert sent_with_document(resend=False).answer(0, InDoubt("no answer")) == ["dead letter 0: outcome_unknown"]


def test_what_was_certainly_not_processed_is_sent_again_without_doubt() -> None:
    driver = sent_with_document(resend=False)
    driver.answer(0, Throttled(7.0))
    assert driver.asks_next_after() == 7.0
    assert driver.ledger.in_doubt == 0
    assert driver.answer(0, DocumentTaken(None)) == ["close 0"]


def test_an_order_that_was_found_to_exist_is_replaced_without_another_post() -> None:
    driver = sent_with_document()
    driver.answer(0, OrderExists())
    assert driver.after(0) == ["send 0"]
    assert isinstance(send := asked(driver), Send)
    assert send.document == Document(exists=True)
    driver.answer(0, Unavailable("404", answered=True))
    driver.asks_next_after()
    assert isinstance(send := asked(driver), Send)
    assert send.document == THE_DOCUMENT


def test_where_a_redriven_document_replaces_no_order_the_action_goes_by_itself() -> None:
    driver = sent_with_document(document=THE_REDRIVEN_DOCUMENT)
    driver.answer(0, OrderKept())
    driver.after(0)
    assert isinstance(poll := asked(driver), Poll)
    assert poll.target == THE_ORDER
    driver.answer(0, Ready("tag"))
    driver.after(0)
    assert isinstance(send := asked(driver), Send)
    assert send.version_tag == "tag"
    assert driver.answer(0, Accepted()) == ["close 0"]


def test_without_a_contact_the_document_is_sent_again_within_the_grace() -> None:
    driver = sent_with_document()
    driver.answer(0, NoContact())
    assert driver.asks_next_after() == 10.0
    assert isinstance(send := asked(driver), Send)
    assert send.version_tag is None


def test_a_hand_over_takes_it_back_that_was_not_sent_yet() -> None:
    driver = Driver()
    driver.event(0, in_its_document())
    driver.save_intents()
    (save,) = driver.ledger.stop(OURS)
    assert isinstance(save, Save)
    assert not save.sending


# Over a restart


def test_after_a_restart_a_taken_one_is_polled_and_not_sent_again() -> None:
    driver = Driver(AGAIN, as_record(taken().last(Save), in_its_document()))
    driver.asks_next_after()
    assert isinstance(poll := asked(driver), Poll)
    assert poll.target == Job("j9")
    assert driver.answer(0, Ready("tag")) == ["close 0"]


def test_a_tag_that_another_action_learnt_of_its_job_is_no_reason_to_send_it_again() -> None:
    driver = taken()
    driver.event(1, action("B", job="j9"))
    driver.answer(1, Ready("tag"), Accepted())
    save = next(each for each in driver.effects if isinstance(each, Save) and each.job_id == "j9")
    driver.ledger.drop(OURS)
    driver.asked.clear()
    driver.ledger.assign(AGAIN, [as_record(save, in_its_document())], driver.now)
    driver.asks_next_after()
    assert isinstance(asked(driver), Poll)


def test_after_a_restart_an_intent_without_an_answer_is_in_doubt() -> None:
    again = Driver(AGAIN, as_record(sent_with_document().last(Save), in_its_document()))
    assert again.ledger.in_doubt == 1
    assert again.asks_next_after() == 10.0
    assert isinstance(asked(again), Send)
    unwanted = Driver(AGAIN, as_record(sent_with_document(resend=False).last(Save), in_its_document(resend=False)))
    assert unwanted.ledger.open == 0
    assert unwanted.last(GiveUp).reason == "outcome_unknown"


def test_a_grace_for_the_contact_does_not_begin_again_with_a_restart() -> None:
    driver = Driver()
    driver.event(0, tagged())
    driver.answer(0, NoContact())
    save = driver.last(Save)
    assert save.contact_due == 600.0
    again = Driver(AGAIN, replace(as_record(save, tagged()), contact_due=save.contact_due), now=590.0)
    assert again.answer(0, NoContact()) == ["save 0"]
    assert again.answer(0, NoContact()) == ["dead letter 0: no_contact"]
    assert again.now == 600.0


def test_a_grace_that_another_hosts_clock_began_ends_by_ours() -> None:
    ahead = replace(restored(0, tagged()), contact_due=1e6)
    again = Driver(AGAIN, ahead, now=100.0)
    while again.answer(0, NoContact()) != ["dead letter 0: no_contact"]:
        assert again.now < 700.0
    assert again.now == 700.0
