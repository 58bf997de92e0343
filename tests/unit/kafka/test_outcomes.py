"""The outcomes topic's records: what they tell of an action, and what they never tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.core.effects import ActionId, GiveUp, Times
from consumer.core.ownership import Assignment
from consumer.core.places import place_of
from consumer.events.routing.results import Routed
from consumer.kafka.outcomes.outcomes import Ended, EndedAction, EndedEvent, OutcomeRecord, read_outcome, record_of
from consumer.kafka.records import (
    SourceEvent,
    Unreadable,
    dead_letter_of_action,
    dead_letter_of_event,
    new_action,
)
from schemas.dead_letter import REDRIVE_OF, DeadLetterHeaders, Reason
from schemas.outcome import Outcome, OutcomeName, Place
from schemas.pending_action import FromJob

CUSTOMER = "kim.exempel@example.com"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def event(*headers: tuple[str, bytes | None]) -> SourceEvent:
    return SourceEvent(
        topic="orders",
        partition=3,
        offset=17,
        timestamp_ms=1_000,
        key=b"A-1",
        value=CUSTOMER.encode(),
        headers=headers,
    )


def payload(of: SourceEvent, *, item: int | None = None, event_time_ms: int = 2_000) -> bytes:
    routed = Routed(
        route="shipped",
        connection="acme",
        order_id="A-1",
        action="ConfirmShipment",
        language="sv",
        data={"email": CUSTOMER},
        tag_source=FromJob(job_id="job-7"),
        on_unknown="resend",
        event_time_ms=event_time_ms,
        trace_context={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
        item=item,
    )
    return new_action(routed, of).payload


def accepted(of: bytes) -> EndedAction:
    return EndedAction(
        outcome=OutcomeName.ACCEPTED,
        payload=of,
        ended=5.5,
        times=Times(2.5, 4.0, 5.25),
        attempts=2,
        sends=1,
    )


def given_up(reason: Reason) -> EndedAction:
    return EndedAction(
        outcome=OutcomeName.DEAD_LETTER, payload=payload(event()), ended=9.0, times=Times(2.5), reason=reason
    )


def told(ended: Ended) -> Outcome:
    outcome = read_outcome(record_of(ended).value)
    assert isinstance(outcome, Outcome)
    return outcome


def test_an_accepted_action_tells_where_when_and_how_often() -> None:
    assert told(accepted(payload(event(), item=2))) == Outcome(
        outcome=OutcomeName.ACCEPTED,
        connection="acme",
        order_id="A-1",
        route="shipped",
        action="ConfirmShipment",
        place=Place(topic="orders", partition=3, offset=17, item=2),
        event_ms=2_000,
        first_seen_ms=2_500,
        tag_ready_ms=4_000,
        sent_ms=5_250,
        answered_ms=5_500,
        ended_ms=5_500,
        attempts=2,
        sends=1,
        trace_id=TRACE,
    )


def test_an_outcome_and_a_dead_letter_say_which_of_the_sources_topics_the_offset_is_one_of() -> None:
    """A source that was recreated has other events at the same offsets."""
    read = replace(event(), incarnation=2)
    unusable = EndedEvent(event=read, reason=Reason.UNDECODABLE, ended=1.0)
    assert {told(accepted(payload(read))).place.incarnation, told(unusable).place.incarnation} == {2}
    given_up = GiveUp(
        action_id=ActionId(Assignment("orders", 3, 1), place_of(2, 17)),
        route="shipped",
        payload=payload(read),
        reason=Reason.REJECTED,
        detail="",
        errors=None,
        attempts=1,
        sends=1,
        times=Times(2.5),
    )
    for dead_letter in (dead_letter_of_action(given_up, 1.0), dead_letter_of_event(read, Reason.UNDECODABLE, "", 1.0)):
        headers = [(name, each) for name, each in dead_letter.headers if isinstance(each, bytes)]
        assert DeadLetterHeaders.from_kafka(headers).source_incarnation == 2


def test_an_outcome_is_keyed_by_connection_and_order() -> None:
    assert record_of(accepted(payload(event()))).key == b"acme:A-1"


def test_an_outcome_holds_nothing_of_the_event_but_its_order() -> None:
    record = record_of(accepted(payload(event(("customer", CUSTOMER.encode())))))
    assert CUSTOMER.encode() not in record.value


def test_what_nobody_knows_is_left_out() -> None:
    value = record_of(given_up(Reason.DEADLINE)).value
    assert [name for name in (b"null", b"tag_ready_ms", b"sent_ms", b"item", b"fact") if name in value] == []
    assert told(accepted(payload(event(), event_time_ms=0))).event_ms is None


@pytest.mark.parametrize(("reason", "answered"), [(Reason.REJECTED, 9_000), (Reason.DEADLINE, None)])
def test_a_dead_letter_was_answered_only_where_an_answer_ended_it(reason: Reason, answered: int | None) -> None:
    outcome = told(given_up(reason))
    assert (outcome.outcome, outcome.reason, outcome.answered_ms) == ("dead_letter", reason, answered)


def test_a_redriven_action_says_which_dead_letter_asked_for_it() -> None:
    redriven = event((REDRIVE_OF, b"orders.engage.dead-letters/3/8"))
    assert told(accepted(payload(redriven))).asked_by == "redrive of orders.engage.dead-letters/3/8"
    assert told(accepted(payload(event()))).asked_by == "event"


def test_an_event_that_cannot_be_used_has_an_outcome_and_a_key_where_it_names_an_order() -> None:
    unusable = EndedEvent(event=event(), reason=Reason.INVALID_EVENT, ended=3.0, route="shipped")
    named = EndedEvent(event=event(), reason=Reason.INVALID_EVENT, ended=3.0, connection="acme", order_id="A-1")
    assert (record_of(unusable).key, record_of(named).key) == (None, b"acme:A-1")
    assert told(unusable) == Outcome(
        outcome=OutcomeName.DEAD_LETTER,
        reason="invalid_event",
        route="shipped",
        place=Place(topic="orders", partition=3, offset=17),
        first_seen_ms=3_000,
        ended_ms=3_000,
    )


def test_a_record_that_is_no_outcome_is_told_by_its_field() -> None:
    assert read_outcome(b'{"version":1}') == Unreadable("outcome: Field required")
    assert isinstance(read_outcome(b"\xff"), Unreadable)


def test_a_record_is_small() -> None:
    record: OutcomeRecord = record_of(accepted(payload(event())))
    assert len(record.value) < 600
