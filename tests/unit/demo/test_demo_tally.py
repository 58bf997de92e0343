"""The demo's tally: what adds up, and every way in which it can fail to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.demo.story import ACTIONS, Event, Kind
from consumer.demo.tally import RESENT_AFTER_S, Acceptance, DeadLettered, Requests, Tally, of_account, of_metrics
from schemas.dead_letter import Reason
from schemas.order_event import OrderEventType


def event(number: int, order: str = "A", type_: OrderEventType | None = "order.confirmed") -> Event:
    return Event(number=number, at_s=0.0, order_id=order, kind="action", type=type_)


def odd(number: int, kind: Kind) -> Event:
    return Event(number=number, at_s=0.0, order_id="A", kind=kind)


def accepted(of: Event, at: float = 100.0, *, ready_at: float = 99.0) -> Acceptance:
    assert of.action is not None
    return Acceptance(of.number, of.order_id, of.action, ready_at, at)


def judged(
    events: list[Event],
    acceptances: list[Acceptance],
    dead_lettered: tuple[DeadLettered, ...] = (),
    *,
    answers_lost: int = 0,
    written_at: float = 0.0,
) -> Tally:
    return of_account(
        events,
        dict.fromkeys(range(len(events)), written_at),
        acceptances,
        dead_lettered,
        requests=Requests(4, 10),
        answers_lost=answers_lost,
    )


CONFIRMED, SHIPPED = event(0), event(1, type_="order.shipped")


def test_every_event_that_came_to_one_end_adds_up() -> None:
    events = [CONFIRMED, SHIPPED, odd(2, "unusable"), odd(3, "unrouted"), odd(4, "tombstone"), event(5, "B")]
    tally = judged(
        events,
        [accepted(CONFIRMED), accepted(SHIPPED)],
        (DeadLettered(2, Reason.UNDECODABLE), DeadLettered(5, Reason.REJECTED)),
    )
    assert tally.adds_up
    assert tally.accepted == {"ConfirmOrder": 1, "ConfirmShipment": 1}
    assert tally.dead_letters == {Reason.UNDECODABLE: 1, Reason.REJECTED: 1}
    assert (tally.unrouted, tally.tombstones) == (1, 1)


def test_actions_in_documents_and_after_late_contacts_are_counted_by_themselves() -> None:
    events = [CONFIRMED, SHIPPED, event(2, "B")]
    tally = judged(
        events,
        [
            replace(accepted(CONFIRMED, ready_at=1.0), with_document=True),
            replace(accepted(SHIPPED), after_no_contact=True),
            replace(accepted(events[2]), after_no_contact=True),
        ],
    )
    assert tally.adds_up
    assert (tally.with_document, tally.after_no_contact) == (1, 2)
    assert tally.ready_to_accepted_s == (1.0, 1.0)
    assert ("  of these in the order's document", "1") in tally.lines()
    assert ("  of these once a late contact came", "2") in tally.lines()


def test_an_action_that_nobody_accepted_or_dead_lettered_is_lost() -> None:
    tally = judged([CONFIRMED, SHIPPED], [accepted(CONFIRMED)])
    assert tally.lost == 1
    assert not tally.adds_up


def test_an_unusable_event_without_a_dead_letter_is_lost() -> None:
    tally = judged([odd(0, "unusable")], [])
    assert tally.lost == 1
    assert not tally.adds_up


def test_an_action_that_was_accepted_twice_at_once_is_doubled_even_if_answers_were_lost() -> None:
    tally = judged([CONFIRMED], [accepted(CONFIRMED, 100), accepted(CONFIRMED, 100.5)], answers_lost=5)
    assert tally.doubled == 1
    assert not tally.adds_up


def test_an_action_that_was_accepted_twice_though_no_answer_was_lost_is_doubled() -> None:
    tally = judged([CONFIRMED], [accepted(CONFIRMED, 100), accepted(CONFIRMED, 100 + RESENT_AFTER_S)])
    assert tally.doubled == 1
    assert not tally.adds_up


def test_an_action_that_was_sent_again_after_a_lost_answer_is_not_doubled() -> None:
    tally = judged([CONFIRMED], [accepted(CONFIRMED, 100), accepted(CONFIRMED, 100 + RESENT_AFTER_S)], answers_lost=1)
    assert (tally.resent, tally.doubled, tally.actions) == (1, 0, 1)
    assert tally.adds_up


def test_more_resends_than_lost_answers_are_doubled() -> None:
    shipped_elsewhere = event(1, "B", "order.shipped")
    twice = [accepted(each, at) for at in (100, 111) for each in (CONFIRMED, shipped_elsewhere)]
    tally = judged([CONFIRMED, shipped_elsewhere], twice, answers_lost=1)
    assert (tally.resent, tally.doubled) == (1, 1)
    assert not tally.adds_up


def test_a_shipment_that_overtook_its_confirmation_is_out_of_order() -> None:
    tally = judged([CONFIRMED, SHIPPED], [accepted(SHIPPED), accepted(CONFIRMED)])
    assert tally.out_of_order == 1
    assert not tally.adds_up


def test_a_resend_behind_the_order_s_next_action_is_out_of_order() -> None:
    tally = judged(
        [CONFIRMED, SHIPPED],
        [accepted(CONFIRMED, 100), accepted(SHIPPED, 105), accepted(CONFIRMED, 111)],
        answers_lost=1,
    )
    assert tally.out_of_order == 1
    assert not tally.adds_up


def test_orders_among_each_other_have_no_order() -> None:
    other = event(1, "B")
    assert judged([CONFIRMED, other], [accepted(other), accepted(CONFIRMED)]).adds_up


def test_an_event_that_was_accepted_and_dead_lettered_ended_twice() -> None:
    tally = judged([CONFIRMED], [accepted(CONFIRMED)], (DeadLettered(0, Reason.STALE_TAG),))
    assert tally.ended_twice == 1
    assert not tally.adds_up


def test_an_event_with_two_dead_letters_ended_twice() -> None:
    tally = judged([CONFIRMED], [], (DeadLettered(0, Reason.REJECTED), DeadLettered(0, Reason.REJECTED)))
    assert tally.ended_twice == 1
    assert not tally.adds_up


@pytest.mark.parametrize(
    "foreign",
    [
        accepted(replace(CONFIRMED, number=77)),
        accepted(replace(CONFIRMED, order_id="Z")),
        replace(accepted(CONFIRMED), event=None),
        replace(accepted(CONFIRMED), action="Custom"),
    ],
    ids=["unknown event", "another order", "no event", "another action"],
)
def test_what_nobody_asked_for_is_never_counted_as_accepted(foreign: Acceptance) -> None:
    tally = judged([CONFIRMED], [accepted(CONFIRMED), foreign])
    assert (tally.unasked, tally.actions) == (1, 1)
    assert not tally.adds_up


def test_a_dead_letter_of_an_event_that_was_never_written_is_unasked() -> None:
    tally = judged([CONFIRMED], [accepted(CONFIRMED)], (DeadLettered(None, Reason.REJECTED),))
    assert not tally.adds_up


def test_an_event_for_nobody_that_was_dead_lettered_is_not_counted_as_ignored() -> None:
    tally = judged([odd(0, "tombstone")], [], (DeadLettered(0, Reason.UNDECODABLE),))
    assert (tally.tombstones, tally.dead_letters) == (0, {Reason.UNDECODABLE: 1})


def test_the_wait_counts_from_the_tag_or_from_the_event_whichever_came_later() -> None:
    early_tag = judged([CONFIRMED], [accepted(CONFIRMED, 100, ready_at=10)], written_at=99.5)
    late_tag = judged([CONFIRMED], [accepted(CONFIRMED, 100, ready_at=98)], written_at=10)
    assert early_tag.ready_to_accepted_s == (0.5, 0.5)
    assert late_tag.ready_to_accepted_s == (2, 2)


def test_percentiles_are_of_the_first_acceptances() -> None:
    events = [event(number, f"order-{number}") for number in range(100)]
    acceptances = [accepted(each, 100 + each.number, ready_at=100) for each in events]
    acceptances.append(accepted(events[0], 1000))
    assert judged(events, acceptances, answers_lost=1).ready_to_accepted_s == (49, 94)


def test_without_an_account_lost_actions_still_show_and_the_unseen_is_not_called_zero() -> None:
    events = [CONFIRMED, SHIPPED, odd(2, "unrouted")]
    tally = of_metrics(events, {"ConfirmOrder": 1}, [], Requests(1, 2))
    assert tally.lost == 1
    assert not tally.adds_up
    assert tally.doubled is None
    assert ("doubled without doubt", "not seen: Engage shows no account") in tally.lines()


def test_without_an_account_more_acceptances_than_events_do_not_add_up() -> None:
    assert of_metrics([CONFIRMED], {"ConfirmOrder": 1}, [], Requests(1, 2)).adds_up
    assert not of_metrics([CONFIRMED], {"ConfirmOrder": 2}, [], Requests(1, 2)).adds_up


def test_a_tally_of_nothing_can_be_printed() -> None:
    tally = judged([], [])
    assert tally.adds_up
    assert ("polls per accepted action", "-") in tally.lines()


def test_the_lines_name_every_action_that_was_accepted() -> None:
    events = [event(number, type_=type_) for number, type_ in enumerate(ACTIONS)]
    lines = dict(judged(events, [accepted(each) for each in events]).lines())
    assert {f"  {action}" for action in ACTIONS.values()} <= lines.keys()
