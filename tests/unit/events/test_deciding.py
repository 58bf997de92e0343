"""From a record to the decision: whose event it is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from consumer.events.deciding import Ignored, decide, redriven_elsewhere
from consumer.events.formats.formats import Formats, Named, TopicFormat
from consumer.events.routing.results import Misrouted, Routed, Several
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from schemas.dead_letter import REDRIVE_OF
from tests.support.registry import framed
from tests.unit.events.routing.cases import Record


@pytest.mark.parametrize(
    ("header", "ignored"),
    [
        (b"orders.engage.dead-letters/0/17", False),
        (b"orders.staging.dead-letters/0/17", True),
        (b"\xff/0/17", True),
        (b"orders.staging.dead-letters", False),  # whoever wrote it, it was no redrive
        (b"https://example.com/0/17", False),
        (b"", False),
        (None, False),
    ],
)
def test_what_another_relay_redrove_is_not_mailed_by_this_one(header: bytes | None, ignored: bool) -> None:
    headers = [("x", b"1"), (REDRIVE_OF, header)]
    assert redriven_elsewhere(headers, {"orders.engage.dead-letters"}) is ignored
    assert redriven_elsewhere([], {"orders.engage.dead-letters"}) is False


@dataclass(frozen=True)
class Valued(Record):
    value: bytes | None = None


class Sorts:
    """Schemas 1, 2 and 3 are of records of several sorts, whose fields are the same."""

    def reader(self, schema: str) -> Sorts:
        self._read = schema
        return self

    def __call__(self, value: bytes, *, as_change: bool) -> Named:
        name = {"1": "com.shop.Placed", "2": "com.shop.Sent", "3": None}[self._read]
        return Named({"orderId": "A-1001", "parcels": [{"id": 1}, {"id": 2}]}, name)


def test_events_of_several_sorts_in_one_topic_are_told_apart_by_their_schemas_names() -> None:
    rules = {
        "placed": RouteRule(when="meta.record_name == 'com.shop.Placed'", action="ConfirmOrder", order_id="orderId"),
        "sent": RouteRule(
            when="meta.record_name == 'com.shop.Sent'",
            each="parcels",
            action="ConfirmShipment",
            order_id="orderId",
            data="{sort: meta.record_name, parcel: item.id}",
        ),
    }
    router = Router(compile_routes(rules), {"default"})
    formats = Formats({"orders": TopicFormat(format="confluent")}, Sorts())
    placed, sent, other = (
        decide(Valued(value=framed(schema, b"x")), router, (), now=0.0, formats=formats) for schema in (1, 2, 3)
    )
    assert isinstance(placed, Routed)
    assert placed.action == "ConfirmOrder"
    assert isinstance(sent, Several)
    assert [each.data for each in sent.actions] == [{"sort": "com.shop.Sent", "parcel": number} for number in (1, 2)]
    assert other == Ignored("unrouted")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (b'"eyJvcmRlcklkIjoiQS0xIn0="', "; a route reads it by `json(base64(event))`"),
        (b'"{\\"orderId\\":\\"A-1\\"}"', "; a route reads it by `json(event)`"),
        (b'[{"orderId":"A-1"}]', "; a route with `each: event[]` takes its items"),
        (b'"A-1"', ""),
    ],
)
def test_an_event_inside_something_else_is_told_with_the_way_to_it(value: bytes, hint: str) -> None:
    decision = decide(Valued(value=value), Router([], ["default"]), (), now=0)
    assert isinstance(decision, Misrouted)
    assert decision.detail.endswith(f"not an object{hint}")
