"""What a configuration may say of an order's sequence, and what it is told where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.rules import RouteRule
from consumer.events.sequences import may_lose_a_parcel, wrong_steps, wrong_superseding


def routes(**superseded_by: Sequence[str]) -> dict[str, RouteRule]:
    names = {*superseded_by, "cancelled"}
    return {name: RouteRule(action="ConfirmOrder", superseded_by=tuple(superseded_by.get(name, ()))) for name in names}


@pytest.mark.parametrize(
    ("superseded_by", "wrong"),
    [
        ({"a": ["cancelled"]}, []),
        ({"a": ["b", "cancelled"], "b": ["cancelled"]}, []),
        ({"a": ["canceled"]}, [("a", "name 1 is no route's; did you mean cancelled?")]),
        ({"a": ["cancelled", "zzz"]}, [("a", "name 2 is no route's")]),
        ({"a": ["a"]}, [("a", "a route cannot supersede itself: `repeats` withholds what comes twice")]),
        ({"a": ["cancelled", "cancelled"]}, [("a", "names the route cancelled twice")]),
        ({"a": ["b"], "b": ["a"]}, [("a", "supersede each other in a circle: a, b, a")]),
        ({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}, [("a", "supersede each other in a circle: a, b, c, a")]),
    ],
)
def test_a_wrong_superseded_by_is_told(superseded_by: dict[str, list[str]], wrong: list[tuple[str, str]]) -> None:
    assert list(wrong_superseding(routes(**superseded_by))) == wrong


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([], None),
        (["ConfirmOrder", "ConfirmDelivery"], None),
        (["ConfirmOrder", "Own"], None),  # the route `custom` names its action by an expression
        (["ConfirmOrder"], "must name at least two actions: one alone is in no sequence"),
        (["Own", "ConfirmOrder", "Own"], "name 3 was named before: each action is one step"),
        (["ConfirmOrdr", "Own"], "no route sends the action of name 1; did you mean ConfirmOrder?"),
    ],
)
def test_wrong_steps_are_told(steps: list[str], wrong: str | None) -> None:
    assert wrong_steps(steps, BUILT_IN_ROUTES) == wrong


def test_an_action_that_no_route_sends_is_no_step() -> None:
    without = {name: rule for name, rule in BUILT_IN_ROUTES.items() if rule.action_name is None}
    assert wrong_steps(["ConfirmOrder", "Own"], without) == "no route sends the action of name 2"
    mine = {**without, "mine": RouteRule(action="Own")}
    assert wrong_steps(["ConfirmOrder", "Own"], mine) is None


def test_steps_in_which_a_second_parcel_comes_too_late_are_noticed() -> None:
    assert may_lose_a_parcel(["ConfirmOrder", "ConfirmShipment", "ConfirmDelivery"])
    assert not may_lose_a_parcel(["ConfirmOrder", "ConfirmDelivery"])
