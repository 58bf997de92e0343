"""Pauses: what they cover, when they end, and how long something was on hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from consumer.core.pauses import NO_PAUSES, NOT_READ, UNKNOWN_PAUSES, Pause, Pauses, Scope

SHIPPED = Scope("acme", "shipped", "ConfirmShipment")
ORDERED = Scope("acme", "ordered", "ConfirmOrder")


def pause(
    name: str = "p",
    *,
    begun: float = 0.0,
    until: float | None = None,
    ended: float | None = None,
    discard: bool = False,
    scope: Mapping[str, str] | None = None,
) -> Pause:
    named = scope or {}
    return Pause(
        id=name,
        begun=begun,
        reason="a test",
        until=until,
        ended=ended,
        connection=named.get("connection"),
        route=named.get("route"),
        action=named.get("action"),
        discard=discard,
    )


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ({}, {SHIPPED, ORDERED}),
        ({"connection": "acme"}, {SHIPPED, ORDERED}),
        ({"connection": "other"}, set()),
        ({"route": "shipped"}, {SHIPPED}),
        ({"action": "ConfirmOrder"}, {ORDERED}),
        ({"connection": "acme", "action": "ConfirmShipment"}, {SHIPPED}),
        ({"connection": "other", "action": "ConfirmShipment"}, set()),
    ],
)
def test_it_covers_what_all_that_it_names_have_in_common(scope: dict[str, str], covered: set[Scope]) -> None:
    pauses = Pauses([pause(scope=scope)])
    assert {each for each in (SHIPPED, ORDERED) if pauses.holding(each, 1.0)} == covered


def test_it_ends_by_itself_or_by_a_person_whatever_is_first() -> None:
    assert pause().end == math.inf
    assert pause(until=9.0).end == pause(ended=9.0).end == pause(until=9.0, ended=20.0).end == 9.0
    pauses = Pauses([pause(until=9.0)])
    assert (pauses.next_end(1.0), pauses.next_end(9.0)) == (9.0, math.inf)
    assert pauses.holding(SHIPPED, 8.9) is not None
    assert pauses.holding(SHIPPED, 9.0) is None


def test_one_that_a_person_ended_holds_nothing_though_our_clock_is_behind_theirs() -> None:
    ended = Pauses([pause(begun=3600.0, ended=3660.0)])
    assert ended.holding(SHIPPED, 1.0) is None
    assert (ended.may_hold(1.0), ended.next_end(1.0)) == (False, math.inf)


def test_it_holds_at_once_though_whoever_began_it_has_a_clock_that_is_ahead() -> None:
    assert Pauses([pause(begun=3600.0)]).holding(SHIPPED, 1.0) is not None


@pytest.mark.parametrize("order", [("held", "discarded"), ("discarded", "held")])
def test_what_one_holds_and_another_discards_is_held(order: tuple[str, str]) -> None:
    made = {"held": pause("held", begun=5.0), "discarded": pause("discarded", discard=True)}
    found = Pauses([made[name] for name in order]).holding(SHIPPED, 9.0)
    assert found is not None
    assert found.id == "held"


def test_everything_is_held_as_long_as_nobody_knows() -> None:
    assert UNKNOWN_PAUSES.holding(SHIPPED, 1.0) is NOT_READ
    assert UNKNOWN_PAUSES.may_hold(1.0)
    assert NO_PAUSES.holding(SHIPPED, 1.0) is None
    assert not NO_PAUSES.may_hold(1.0)


def test_overlapping_pauses_count_once_and_others_not_at_all() -> None:
    pauses = Pauses(
        [
            pause("a", begun=10.0, ended=20.0),
            pause("b", begun=15.0, ended=30.0),
            pause("c", begun=12.0, ended=14.0),
            pause("d", begun=0.0, ended=100.0, scope={"route": "ordered"}),
            pause("e", begun=90.0),
        ]
    )
    assert pauses.held_s(SHIPPED, since=0.0, now=50.0) == 20.0
    assert pauses.held_s(SHIPPED, since=18.0, now=25.0) == 7.0
    assert pauses.held_s(SHIPPED, since=0.0, now=95.0) == 25.0
    assert pauses.held_s(ORDERED, since=0.0, now=50.0) == 50.0
