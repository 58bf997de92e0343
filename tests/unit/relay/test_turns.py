"""Which open request is looked at next, and for which there is room."""

from __future__ import annotations

from dataclasses import replace

from consumer.core.effects import ActionId, NewAction
from consumer.core.requests import Request
from consumer.relay.turns import COUNTED_S, MAX_PENDING, Turns
from tests.unit.core.test_ledger import OURS, action

NOW = 1000.0


class Shop:
    """Requests for the orders of two connections, and what becomes of their actions."""

    def __init__(self) -> None:
        self.pending: set[ActionId] = set()
        self.behind: set[str] = set()
        self.turns = Turns(holds=lambda each: each in self.pending, is_behind=lambda each, now: each in self.behind)

    def has_room(self, request_id: str, order: str, connection: str = "a", now: float = NOW) -> bool:
        return self.turns.has_room(request_id, [of(order, connection)], now)

    def begin(self, place: int, connection: str = "a", now: float = NOW) -> None:
        """Have an action saved that stays pending."""
        action_id = ActionId(OURS, place)
        self.turns.begin(action_id, connection, now)
        self.pending.add(action_id)
        self.turns.saved(action_id)


def of(order: str, connection: str = "a") -> NewAction:
    return replace(action(order), connection=connection)


def asked(*ids: str) -> dict[str, Request]:
    return {
        each: Request(
            id=each, what="send_again", topic="orders", partition=0, offset=0, reason="-", asked_by="-", asked=NOW
        )
        for each in ids
    }


def test_who_has_waited_longest_is_looked_at_next() -> None:
    turns, requests = Shop().turns, asked("1", "2", "3")
    turns.wait("1", NOW + 2)
    turns.wait("2", NOW + 1)
    assert [each.id for each in turns.in_turn(requests, NOW)] == ["3"]
    assert [each.id for each in turns.in_turn(requests, NOW + 2)] == ["3", "2", "1"]


def test_a_connection_whose_actions_do_not_end_keeps_no_other_connection_waiting() -> None:
    shop = Shop()
    for place in range(MAX_PENDING):
        shop.begin(place)
    assert not shop.has_room("1", "A")
    assert shop.has_room("2", "B", connection="b")


def test_orders_that_are_never_ready_keep_the_requests_behind_them_for_a_moment_only() -> None:
    shop = Shop()
    for place in range(MAX_PENDING):
        shop.begin(place)
    assert not shop.has_room("1", "A", now=NOW + COUNTED_S - 1)
    assert shop.has_room("1", "A", now=NOW + COUNTED_S)


def test_what_has_ended_makes_room_at_once_and_what_is_being_saved_does_not() -> None:
    shop = Shop()
    for place in range(MAX_PENDING):
        shop.begin(place)
    shop.pending.pop()
    assert shop.has_room("1", "A")
    shop.turns.begin(ActionId(OURS, MAX_PENDING), "a", NOW)
    assert not shop.has_room("2", "B")


def test_a_later_request_of_an_order_does_not_overtake_one_that_has_no_room() -> None:
    shop = Shop()
    shop.behind = {"a"}
    assert not shop.has_room("1", "A")
    shop.behind = set()
    assert not shop.has_room("2", "A")
    assert shop.has_room("3", "B")
    assert shop.has_room("1", "A")
    shop.turns.answered("1")
    assert shop.has_room("2", "A")


def test_a_request_that_somebody_else_answered_is_waited_for_no_longer() -> None:
    shop = Shop()
    shop.behind = {"a"}
    assert not shop.has_room("1", "A")
    shop.behind = set()
    shop.turns.heard({"2"})
    assert shop.has_room("2", "A")


def test_what_had_no_room_is_not_read_again_before_there_may_be_some() -> None:
    shop = Shop()
    assert shop.turns.may_have_room("1", NOW), "nobody knows yet what it is about"
    shop.behind = {"a"}
    assert not shop.has_room("1", "A")
    assert not shop.turns.may_have_room("1", NOW)
    shop.behind = set()
    assert shop.turns.may_have_room("1", NOW)
