"""Expressions read the event, and its record's names beside it."""

from __future__ import annotations

import pytest

from consumer.events.routing.results import Unrouted
from consumer.events.routing.rules import RouteRule
from tests.unit.events.routing.cases import RECORD, RECORD_MS, Event, Record, routed, router

FROM_HEADERS = Record(headers=(("kind", b"parcel"), ("kind", b"parcel.sent"), ("raw", b"\xff"), ("none", None)))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("headers.kind", "parcel.sent"),
        ("headers.raw", None),
        ("headers.none", None),
        ("key", "A-1001"),
        ("meta", {"topic": "orders", "partition": 3, "offset": 17, "timestamp": RECORD_MS, "record_name": None}),
        ("event.key", "its own"),
        ("event.number", 1001),
        ("{all: event, kind: headers.kind}", {"all": {"number": 1001, "key": "its own"}, "kind": "parcel.sent"}),
        ("[@, key]", [{"number": 1001, "key": "its own"}, "A-1001"]),
        ("@", {"number": 1001, "key": "its own"}),
    ],
)
def test_expressions_read_the_record_beside_the_event(expression: str, value: object) -> None:
    event: Event = {"number": 1001, "key": "its own"}
    rule = RouteRule(action="Custom", order_id="number", data=expression)
    assert routed(event, FROM_HEADERS, mine=rule).data == value


def test_a_route_may_be_chosen_by_headers_and_the_order_by_the_key() -> None:
    rule = RouteRule(when="headers.kind == 'parcel.sent'", action="ConfirmShipment", order_id="key")
    assert routed({}, FROM_HEADERS, mine=rule).order_id == "A-1001"
    assert router(mine=rule).route({}, RECORD) == Unrouted()


def test_a_comparison_of_two_absent_fields_takes_no_event() -> None:
    rule = RouteRule(when="a.status == b.wanted", action="ConfirmShipment")
    assert router(mine=rule).route({"orderId": "A-2", "kind": "basket-updated"}, RECORD) == Unrouted()
