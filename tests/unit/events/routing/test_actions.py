"""The action that a route makes of an event."""

from __future__ import annotations

import pytest

from consumer.events.routing.results import Misrouted
from schemas.dead_letter import Reason
from tests.unit.events.routing.cases import (
    OCCURRED_MS,
    PARCEL_SENT,
    SHIPPED,
    Event,
    misrouted,
    parcel,
    routed,
    wrong_parcel,
)


def test_a_connection_that_is_not_configured_is_named() -> None:
    event = {**SHIPPED, "engage": {"connection": "n\n" + "o" * 500}}
    assert misrouted(event) == Misrouted(
        Reason.UNKNOWN_CONNECTION, f'connection: "n\\n{"o" * 57}\\u2026" is not configured', "shipped"
    )


def test_a_users_route_reads_any_shape() -> None:
    event: Event = {
        "kind": "parcel.sent",
        "number": 1001,
        "shop": "se",
        "parcel": {"tracking": "X", "at": 1_762_162_200},
    }
    result = parcel(
        event, connection="shop", data="{tracking: parcel.tracking}", event_time="parcel.at", language="shop"
    )
    assert (result.route, result.connection, result.language) == ("parcel", "se", "se")
    assert (result.order_id, result.data, result.event_time_ms) == ("1001", {"tracking": "X"}, OCCURRED_MS)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("", "gave an empty text"),
        (" \t", "gave an empty text"),
        ("x" * 201, "gave more than 200 characters"),
        (7, "gave a number, not a text"),
    ],
)
def test_an_action_name_that_is_none_is_an_invalid_event(name: object, detail: str) -> None:
    assert wrong_parcel({**PARCEL_SENT, "mail": name}, action_name="mail") == f"action_name: expression `mail` {detail}"


def test_an_empty_language_is_none() -> None:
    result = parcel({**PARCEL_SENT, "x": ""}, language="x")
    assert (result.language, result.dropped) == (None, ())


def test_a_repr_holds_nothing_of_the_event() -> None:
    assert repr(routed(SHIPPED)) == (
        "Routed(route='shipped', connection='default', action='ConfirmShipment', on_unknown='resend', "
        "event_time_ms=1762162200000, item=None)"
    )
