"""An event becomes one action, several, or a reason that names the key and repeats no contents."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.results import Misrouted, Routed, RouteTrace, Several, Unrouted
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from schemas.dead_letter import ITEM, REDRIVE_OF, Reason
from schemas.pending_action import RoutedAction
from tests.unit.events.routing.cases import (
    OCCURRED_MS,
    PARCEL_ROUTE,
    PARCEL_SENT,
    RECORD,
    RECORD_MS,
    SHIPPED,
    Event,
    Record,
    misrouted,
    routed,
    router,
    wrong_parcel,
)

NOT_KEPT = ("dropped", "ages", "allowed", "stopped", "fact", "repeats_s")  # they decide before anything is pending


def test_the_first_route_of_the_file_wins() -> None:
    everything = RouteRule(action="Custom", order_id="number")
    assert routed(PARCEL_SENT, parcel=PARCEL_ROUTE, others=everything).route == "parcel"
    assert routed(PARCEL_SENT, others=everything, parcel=PARCEL_ROUTE).route == "others"


def test_the_users_routes_come_before_the_built_in_ones() -> None:
    mine = RouteRule(when="orderId == 'A-1001'", action="Custom")
    assert routed(SHIPPED, mine=mine).route == "mine"
    assert routed({**SHIPPED, "orderId": "A-1002"}, mine=mine).route == "shipped"


def test_a_route_with_a_built_in_name_replaces_it_and_its_contract() -> None:
    foreign: Event = {
        "type": "order.shipped",
        "version": "7.1",
        "orderId": 1001,
        "data": "JJSE00001",
        "occurredAt": "n/a",
    }
    result = routed(foreign, shipped=RouteRule(when="type == 'order.shipped'", action="ConfirmShipment", data="data"))
    assert (result.order_id, result.data, result.event_time_ms) == ("1001", "JJSE00001", RECORD_MS)


def test_only_the_routes_that_are_given_are_tried() -> None:
    rules = {name: rule for name, rule in BUILT_IN_ROUTES.items() if name != "shipped"}
    assert Router(compile_routes(rules), {"default"}).route(SHIPPED, RECORD) == Unrouted()


@pytest.mark.parametrize(
    ("when", "takes"),
    [
        ("`0`", True),
        ("shop", True),
        ("`false`", False),
        ("absent", False),
        ("''", False),
        ("`[]`", False),
        ("`{}`", False),
    ],
)
def test_when_follows_jmespaths_truth(when: str, takes: bool) -> None:
    result = router(mine=RouteRule(when=when, action="Custom", order_id="number")).route(PARCEL_SENT, RECORD)
    assert isinstance(result, Routed if takes else Unrouted)


def test_a_when_that_fails_dead_letters_the_event_instead_of_passing_it() -> None:
    assert wrong_parcel(when="starts_with(number, '1')") == (
        "when: expression `starts_with(number, '1')` failed: starts_with() was given a number"
    )


FULFILLED: Event = {
    "id": 1001,
    "parcels": [
        {"number": "P-1", "state": "sent"},
        {"number": "P-2", "state": "returned"},
        {"number": "P-3", "state": "sent"},
    ],
}
EACH_SENT = RouteRule(
    each="parcels", when="item.state == 'sent'", action="ConfirmShipment", order_id="id", data="{parcel: item.number}"
)
EACH_RETURNED = RouteRule(each="parcels", when="item.state == 'returned'", action="Custom", order_id="id")


def several(event: object, record: Record = RECORD, /, **rules: RouteRule) -> list[tuple[int | None, str, object]]:
    result = router(**rules).route(event, record)
    assert isinstance(result, Several), result
    return [(each.item, each.action, each.data) for each in result.actions]


def test_each_item_that_the_route_takes_is_an_action() -> None:
    assert several(FULFILLED, sent=EACH_SENT) == [
        (0, "ConfirmShipment", {"parcel": "P-1"}),
        (2, "ConfirmShipment", {"parcel": "P-3"}),
    ]


@pytest.mark.parametrize("rules", [{"a": EACH_SENT, "b": EACH_RETURNED}, {"b": EACH_RETURNED, "a": EACH_SENT}])
def test_a_later_route_with_the_same_list_takes_the_items_that_are_left_in_their_order(
    rules: dict[str, RouteRule],
) -> None:
    found = several(FULFILLED, **rules)
    assert [(item, action) for item, action, _ in found] == [
        (0, "ConfirmShipment"),
        (1, "Custom"),
        (2, "ConfirmShipment"),
    ]


def test_an_item_has_one_action_at_most() -> None:
    assert [item for item, _, _ in several(FULFILLED, a=EACH_SENT, b=EACH_SENT)] == [0, 2]


def test_a_route_of_another_list_or_of_none_is_not_asked_after_the_first() -> None:
    everything = RouteRule(action="Custom", order_id="id")
    lines = RouteRule(each="lines", action="Custom", order_id="id")
    event = {**FULFILLED, "lines": [1]}
    assert several(event, sent=EACH_SENT, lines=lines, everything=everything) == several(event, sent=EACH_SENT)


@pytest.mark.parametrize("parcels", [None, [], [{"state": "returned"}]])
def test_without_an_item_that_it_takes_a_route_does_not_take_the_event(parcels: object) -> None:
    assert router(sent=EACH_SENT).route({"id": 1001, "parcels": parcels}, RECORD) == Unrouted()


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"id": 1, "parcels": {"state": "sent"}}, "each: expression `parcels` gave an object, not a list"),
        ({"id": 1, "parcels": [1] * 1001}, "each: expression `parcels` gave more than 1000 items"),
        ({"parcels": [{"state": "sent"}]}, "item 0: order_id: expression `id` gave nothing"),
    ],
)
def test_an_item_that_cannot_be_used_makes_the_whole_event_a_dead_letter(event: Event, detail: str) -> None:
    assert misrouted(event, sent=EACH_SENT) == Misrouted(Reason.INVALID_EVENT, detail, "sent")


SENT_ITEMS = EACH_SENT.model_copy(update={"each": "parcels[]"})


@pytest.mark.parametrize(
    ("each", "event"),
    [
        ("parcels[]", {"id": 1, "parcels": {"state": "sent"}}),
        ("parcels[*]", {"id": 1, "parcels": {"state": "sent"}}),
        ("parcels[?number]", {"id": 1, "parcels": {"state": "sent", "number": 1}}),
        ("parcels[] | [:5]", {"id": 1, "parcels": {"state": "sent"}}),
        ("shipment.parcels[]", {"id": 1, "shipment": {"parcels": {"0": {"state": "back"}, "2": {"state": "sent"}}}}),
        ("shipments[].parcels[]", {"id": 1, "shipments": {"state": "sent", "parcels": [1]}}),
        ("event[]", {"id": 1, "state": "sent"}),
    ],
)
def test_an_object_in_the_place_of_the_list_is_not_ignored(each: str, event: Event) -> None:
    """XML's converters write one item so, and PHP a list with a gap: JMESPath takes both for no list at all."""
    wrong = misrouted(event, sent=EACH_SENT.model_copy(update={"each": each}))
    assert wrong == Misrouted(
        Reason.INVALID_EVENT, f"each: expression `{each}` found an object where its list must be", "sent"
    )


@pytest.mark.parametrize(
    ("parcels", "found"),
    [
        ('[{"state": "sent"}]', "a text with JSON, which json() reads,"),
        (' {"state": "sent"}', "a text with JSON, which json() reads,"),
        ('{"0": {"state": "sent"}}', "a text with JSON, which json() reads,"),
    ],
)
def test_json_in_a_text_in_the_place_of_the_list_is_not_ignored(parcels: str, found: str) -> None:
    wrong = misrouted({"id": 1, "parcels": parcels}, sent=SENT_ITEMS)
    assert wrong.detail == f"each: expression `parcels[]` found {found} where its list must be"
    read = SENT_ITEMS.model_copy(update={"each": "to_array(json(parcels))[]"})
    assert parcels.startswith('{"0"') or len(several({"id": 1, "parcels": parcels}, sent=read)) == 1


@pytest.mark.parametrize(("parcels", "found"), [("1Z", "a text"), (17, "a number")])
def test_one_item_by_itself_in_the_place_of_the_list_is_not_ignored(parcels: object, found: str) -> None:
    rule = RouteRule(
        each="parcels[]", when="state == 'sent'", action="ConfirmShipment", order_id="id", data="{n: item}"
    )
    wrong = misrouted({"id": 1, "state": "sent", "parcels": parcels}, sent=rule)
    assert wrong.detail == f"each: expression `parcels[]` found {found} where its list must be"
    for other in ({"id": 1, "state": "new", "parcels": parcels}, {"id": 1, "state": "sent", "parcels": None}):
        assert router(sent=rule).route(other, RECORD) == Unrouted()


@pytest.mark.parametrize(
    "parcels",
    [{}, {"state": "returned"}, {"a": {"state": "returned"}}, "sent", None, "", 0, False, True, "[1", '[{"state": 1}]'],
)
def test_what_the_route_does_not_take_in_the_place_of_its_list_is_ignored(parcels: object) -> None:
    assert router(sent=SENT_ITEMS).route({"id": 1, "parcels": parcels}, RECORD) == Unrouted()


def test_an_object_that_a_later_route_takes_is_its() -> None:
    event = {"id": 1, "state": "sent"}
    alone = RouteRule(when="state == 'sent'", action="ConfirmShipment", order_id="id")
    found = router(items=EACH_SENT.model_copy(update={"each": "event[]"}), alone=alone).route(event, RECORD)
    assert isinstance(found, Routed)
    assert found.route == "alone"


def test_a_list_inside_a_list_may_be_an_object() -> None:
    """JMESPath takes it as an item."""
    rule = EACH_SENT.model_copy(update={"each": "shipments[].parcels[]"})
    event = {"id": 1, "shipments": [{"parcels": {"state": "sent", "number": "P-1"}}]}
    assert several(event, sent=rule) == [(0, "ConfirmShipment", {"parcel": "P-1"})]


def test_a_list_is_an_event_and_its_items_are_actions() -> None:
    rule = RouteRule(
        each="event[]", when="item.type == 'order.shipped'", action="ConfirmShipment", order_id="item.orderId"
    )
    result = router(rule=rule).route([SHIPPED, {**SHIPPED, "orderId": "A-2"}], RECORD)
    assert isinstance(result, Several)
    assert [each.order_id for each in result.actions] == ["A-1001", "A-2"]


def test_a_redriven_event_is_the_action_that_became_the_dead_letter_alone() -> None:
    headers = ((REDRIVE_OF, b"orders.engage.dead-letters/0/5"), (ITEM, b"2"))
    assert [item for item, _, _ in several(FULFILLED, Record(headers=headers), sent=EACH_SENT)] == [2]
    assert [item for item, _, _ in several(FULFILLED, Record(headers=headers[1:]), sent=EACH_SENT)] == [0, 2]


def test_without_each_an_item_is_a_field_of_the_event() -> None:
    assert routed({"item": 17}, mine=RouteRule(action="Custom", order_id="item")).order_id == "17"


def test_a_trace_says_of_each_route_what_it_did() -> None:
    trace: list[RouteTrace] = []
    router(web=RouteRule(when="channel == 'web'", action="Custom")).route(SHIPPED, RECORD, trace)
    assert trace == [
        RouteTrace("web", False, "when: expression `channel == 'web'` is not true"),
        RouteTrace("confirmed", False, "when: expression `type == 'order.confirmed'` is not true"),
        RouteTrace("shipped", True, "when: expression `type == 'order.shipped'` is true"),
        RouteTrace("delivered", False, "not asked: `shipped` comes first"),
        RouteTrace("cancelled", False, "not asked: `shipped` comes first"),
        RouteTrace("completed", False, "not asked: `shipped` comes first"),
        RouteTrace("custom", False, "not asked: `shipped` comes first"),
    ]


def test_a_trace_names_the_key_that_failed() -> None:
    trace: list[RouteTrace] = []
    router(mine=RouteRule(action="Custom")).route({}, RECORD, trace)
    assert trace[0] == RouteTrace("mine", True, "order_id: expression `orderId` gave nothing")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=2)
IDS = st.text("Aa01 -/.", min_size=1, max_size=6)
TIMES = st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()) | st.integers(0, OCCURRED_MS)


def canonical(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[Event]:
    return st.fixed_dictionaries({"type": fields.pop("type"), "orderId": fields.pop("orderId")}, optional=fields)


SOUND = canonical(
    type=st.sampled_from(["order.shipped", "order.custom"]),
    orderId=IDS,
    occurredAt=TIMES,
    language=st.just("sv-SE"),
    order=OBJECTS,
    data=OBJECTS,
    engage=st.fixed_dictionaries(
        {}, optional={"versionTag": IDS, "jobId": IDS, "connection": st.just("se"), "newerThan": TIMES}
    ),
)
EVENTS = (
    SOUND
    | OBJECTS
    | st.builds(lambda sound, key, value: {**sound, key: value}, SOUND, st.sampled_from(list(SHIPPED)), JSON)
)
ROUTERS = st.sampled_from(
    [
        router(),
        router(mine=RouteRule(action="Custom", data="@")),
        router(
            mine=RouteRule(
                action="Custom",
                when="orderId > `5` || length(data) > `0` || engage",
                order_id="not_null(orderId, engage.jobId, to_string(@))",
                version_tag="engage.versionTag",
                job_id="engage.jobId",
                order="order || {a: values(engage)}",
                newer_than="engage.newerThan",
                event_time="occurredAt",
                language="data.*[] | [0]",
                data="[to_number(language), sort(keys(data)), &type]",
            )
        ),
    ]
)


@given(ROUTERS, EVENTS)
def test_no_event_crashes_it_and_what_is_routed_can_be_pending(any_router: Router, event: Event) -> None:
    result = any_router.route(event, RECORD)
    if isinstance(result, Misrouted):
        assert result.detail.isprintable()
    if isinstance(result, Routed):
        parts = {part.name: getattr(result, part.name) for part in fields(result) if part.name not in NOT_KEPT}
        source = {"topic": "orders", "partition": 0, "offset": 17}
        action = RoutedAction.model_validate_json(to_json({**parts, "source": source}))
        assert replace(result, **{name: getattr(action, name) for name in parts}) == result


@given(ROUTERS, EVENTS)
def test_a_trace_changes_nothing(any_router: Router, event: Event) -> None:
    assert any_router.route(event, RECORD, []) == any_router.route(event, RECORD)
