"""What makes two actions of an order one fact, and what tells them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from consumer.commands.routing.route import judged
from consumer.config.settings import Settings
from consumer.events.facts import digest_of
from consumer.events.routing.notes import notes_on
from consumer.events.routing.results import Routed
from consumer.events.routing.rules import RouteRule
from consumer.kafka.records.source_events import SourceEvent

Event = Mapping[str, object]
SHIPPED: Event = {"type": "order.shipped", "orderId": "A-1", "data": {"note": "left at the door"}}


def facts(event: Event, **sections: object) -> list[str | None]:
    engage = {"connections": {"default": {"base_url": "https://localhost", "api_key": "none"}}}
    settings = Settings.model_validate({"kafka": {"bootstrap.servers": "localhost:9092"}, "engage": engage, **sections})
    value = json.dumps(event).encode()
    record = SourceEvent(topic="orders", partition=0, offset=7, timestamp_ms=None, key=None, value=value)
    (found,) = judged([record], settings)
    assert all(isinstance(each, Routed) for each in found.actions)
    return [each.fact for each in found.actions]


def fact(event: Event, **sections: object) -> str | None:
    (found,) = facts(event, **sections)
    return found


def route(**keys: object) -> dict[str, dict[str, object]]:
    return {"mine": {"when": "type == 'parcel'", "action": "ConfirmShipment", "order_id": "order", **keys}}


def test_the_same_news_written_again_is_one_fact() -> None:
    again = {**SHIPPED, "occurredAt": "2026-11-18T11:00:00Z", "data": {"note": "address corrected"}}
    assert fact(SHIPPED) == fact(again) == "ConfirmShipment A-1"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"packageIds": [7]}, {"packageIds": [7, 8]}),
        ({"tracking_numbers": ["J1", "J2"]}, {"tracking_numbers": ["J3"]}),
        ({"tracking": {"number": "J1", "carrier": "DHL"}}, {"tracking": {"number": "J2", "carrier": "DHL"}}),
        ({"parcels": [{"id": 1}]}, {"parcels": [{"id": 2}]}),
    ],
)
def test_parcels_that_are_named_in_a_list_or_an_object_are_facts_of_their_own(first: Event, second: Event) -> None:
    assert fact({**SHIPPED, "data": first}) != fact({**SHIPPED, "data": second})


REFUND: Event = {"type": "order.custom", "orderId": "A-1", "action": "RefundIssued"}


def test_an_action_of_the_merchants_own_says_what_its_data_says() -> None:
    """A second refund of a day was a repeat of the first one, and the customer never heard of it."""
    first, second = ({**REFUND, "data": {"refund": number, "lines": [{"a": 1, "b": 2}]}} for number in (1, 2))
    assert fact(first) != fact(second)
    assert fact(first) == fact({**first, "occurredAt": "2026-11-18T11:00:00Z"})
    assert fact(first) == fact({**first, "data": {"lines": [{"b": 2, "a": 1}], "refund": 1}})
    assert fact(REFUND) == fact({**REFUND, "data": None}) == "RefundIssued A-1"
    assert fact({**REFUND, "action": None, "data": {"refund": 1}}) == 'Custom A-1 {"refund":1}'


def test_an_item_tells_actions_of_the_merchants_own_apart_whatever_their_data() -> None:
    routes = route(action="Returned", each="returns", data="{state: item.state}", repeats="1d")
    first, later = ({"type": "parcel", "order": "A", "returns": [{"id": 7, "state": at}]} for at in ("new", "paid"))
    assert fact(first, routes=routes) == fact(later, routes=routes) == "Returned A 7"


def test_a_parcel_with_an_id_is_the_same_fact_whatever_else_is_said_of_it() -> None:
    first, later = ({**SHIPPED, "data": {"parcel": {"id": 1, "state": state}}} for state in ("sent", "on its way"))
    assert fact(first) == fact(later) == "ConfirmShipment A-1 1"


@pytest.mark.parametrize("field", ["trackingNumber", "tracking_number", "parcelId", "shipment", "fulfillment-id"])
def test_two_parcels_of_an_order_are_two_facts(field: str) -> None:
    first, second = ({**SHIPPED, "data": {field: parcel, "note": "x"}} for parcel in ("P-1", "P-2"))
    assert fact(first) == 'ConfirmShipment A-1 "P-1"'
    assert fact(first) != fact(second)


def test_the_items_of_an_event_are_facts_of_their_own() -> None:
    routes = route(each="parcels[]", when="item", data="item.text")
    first = facts({"order": "A", "parcels": [{"id": 1}, {"id": 2}, "plain"]}, routes=routes)
    later = facts({"order": "A", "parcels": [{"id": 2, "state": "sent"}, {"id": 1}]}, routes=routes)
    assert first == ["ConfirmShipment A 1", "ConfirmShipment A 2", 'ConfirmShipment A "plain"']
    assert later == ["ConfirmShipment A 2", "ConfirmShipment A 1"]


@pytest.mark.parametrize("never_set", ["", " ", 0, "0", "00000000-0000-0000-0000-000000000000", None, {}])
def test_an_id_that_was_never_set_makes_no_two_parcels_one(never_set: object) -> None:
    first, second = facts(
        {"type": "parcel", "order": "A", "parcels": [{"id": never_set, "code": code} for code in ("J1", "J2")]},
        routes=route(each="parcels[]", when="item"),
    )
    assert first != second


@pytest.mark.parametrize("spelling", ["id", "Id", "ID", "_id", "@id"])
def test_an_items_id_is_found_in_any_spelling(spelling: str) -> None:
    routes = route(each="parcels[]", when="item")
    first, later = (
        fact({"order": "A", "parcels": [{spelling: "P-1", "updatedAt": at}]}, routes=routes) for at in (1, 2)
    )
    assert first == later == 'ConfirmShipment A "P-1"'


def test_an_item_without_an_id_is_the_same_fact_whatever_the_sequence_of_its_fields() -> None:
    routes = route(each="parcels[]", when="item")
    one, other = ({"order": "A", "parcels": [each]} for each in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert fact(one, routes=routes) == fact(other, routes=routes)


@pytest.mark.parametrize("name", ["number", "trackingNumber", "parcel_id"])
def test_a_parcel_with_a_number_is_the_same_fact_whatever_else_is_said_of_it(name: str) -> None:
    first, later = ({**SHIPPED, "data": {"tracking": {name: "J1", "state": state}}} for state in ("sent", "on its way"))
    assert fact(first) == fact(later) == 'ConfirmShipment A-1 "J1"'


@pytest.mark.parametrize("nothing", [None, "", " "])
def test_items_of_which_the_routes_fact_says_nothing_are_facts_of_their_own(nothing: object) -> None:
    parcels = [{"id": "P-1", "tracking": nothing}, {"id": "P-2", "tracking": nothing}, {"id": "P-3", "tracking": "J3"}]
    found = facts({"order": "A", "parcels": parcels}, routes=route(each="parcels[]", when="item", fact="item.tracking"))
    assert found == ['ConfirmShipment A "P-1"', 'ConfirmShipment A "P-2"', 'ConfirmShipment A "J3"']


def test_a_parcel_with_a_number_is_the_same_fact_in_each_state_of_its_order() -> None:
    """A whole order that is written again with each change has the same parcels, each with another time."""
    routes = route(each="parcels[]", when="item", data="{trackingNumber: item.tracking}")
    first, later = (
        facts({"order": "A", "parcels": [{"tracking": number, "at": at} for number in ("J1", "J2")]}, routes=routes)
        for at in (1, 2)
    )
    assert first == later == ['ConfirmShipment A "J1"', 'ConfirmShipment A "J2"']


@pytest.mark.parametrize("data", ["{delivery: item.how}", "{trackingNumber: item.none}", "{trackingNumber: item.zero}"])
def test_an_item_is_told_apart_by_all_of_it_where_nothing_names_its_parcel(data: str) -> None:
    parcels = [{"how": "home", "zero": 0, "line": line} for line in (1, 2)]
    first, second = facts({"order": "A", "parcels": parcels}, routes=route(each="parcels[]", when="item", data=data))
    assert first != second


@pytest.mark.parametrize("action", ["ConfirmOrder", "ConfirmCompletion"])
def test_an_order_in_a_list_of_orders_is_confirmed_once_whatever_else_changes_in_it(action: str) -> None:
    """A list of whole orders, each night: a corrected address would confirm the order again."""
    routes = route(each="event.orders", when="item", action=action, order_id="item.number")
    first, later = (
        facts({"orders": [{"number": "A", "at": at}, {"number": "B", "id": at}]}, routes=routes) for at in (1, 2)
    )
    assert first == later == [f"{action} A", f"{action} B"]


def test_an_order_may_be_cancelled_in_parts() -> None:
    routes = route(each="lines", when="item", action="ConfirmCancellation")
    first, second = facts({"order": "A", "lines": [{"sku": 1}, {"sku": 2}]}, routes=routes)
    assert first != second


def test_an_object_as_a_fact_is_the_same_whatever_the_sequence_of_its_fields() -> None:
    one, other = ({"type": "parcel", "order": "A", "parcel": each} for each in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert fact(one, routes=route(fact="parcel")) == fact(other, routes=route(fact="parcel"))


def test_a_route_names_its_fact_but_never_makes_two_orders_one() -> None:
    routes = route(fact="parcel")
    parcel = {"type": "parcel", "order": "A", "parcel": {"n": 1}}
    assert fact(parcel, routes=routes) == 'ConfirmShipment A {"n":1}'
    assert fact({**parcel, "order": "B"}, routes=routes) != fact(parcel, routes=routes)
    assert fact({"type": "parcel", "order": "A"}, routes=routes) == "ConfirmShipment A"


def test_where_repeats_are_off_nothing_is_a_fact() -> None:
    assert fact(SHIPPED, repeats="off") is None
    assert fact(SHIPPED, repeats=False) is None
    assert fact({"type": "parcel", "order": "A"}, routes=route(repeats="off")) is None


def test_a_digest_tells_connections_apart_and_shows_nothing() -> None:
    assert digest_of("se", "ConfirmShipment A-1") != digest_of("no", "ConfirmShipment A-1")
    assert len(digest_of("se", "ConfirmShipment A-1")) == 24


@pytest.mark.parametrize(
    ("keys", "noted"),
    [
        ({}, True),
        ({"data": "{note: note}"}, True),
        ({"data": "{trackingNumber: tracking}"}, False),
        ({"fact": "parcel"}, False),
        ({"each": "parcels[]"}, False),
        ({"repeats": "off"}, False),
    ],
)
def test_a_route_that_may_take_a_second_parcel_for_a_repeat_is_noted(keys: dict[str, str], noted: bool) -> None:
    rule = RouteRule.model_validate({"action": "ConfirmShipment", **keys})
    assert any(note.startswith("fact: ") for note in notes_on(rule)) is noted
    assert not any(note.startswith("fact: ") for note in notes_on(RouteRule(action="ConfirmOrder")))
