"""An event becomes one action, or a reason that names the key and repeats no contents."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import to_json

from consumer.events.routing import (
    BUILT_IN_ROUTES,
    Misrouted,
    Routed,
    Router,
    RouteRule,
    RouteTrace,
    Several,
    Unrouted,
    compile_routes,
    notes_on,
)
from consumer.events.times import milliseconds
from schemas.dead_letter import ITEM, REDRIVE_OF, Reason
from schemas.pending_action import FromChange, FromDocument, FromEvent, FromJob, FromOrder, RoutedAction, WithDocument

Event = dict[str, object]

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OCCURRED_MS = 1_762_162_200_000
RECORD_MS = 1_762_162_999_000


@dataclass(frozen=True)
class Record:
    topic: str = "orders"
    partition: int = 3
    offset: int = 17
    key: bytes | None = b"A-1001"
    timestamp_ms: int | None = RECORD_MS
    headers: tuple[tuple[str, bytes | None], ...] = ()


RECORD = Record()
SHIPPED: Event = {
    "version": 1,
    "type": "order.shipped",
    "orderId": "A-1001",
    "occurredAt": "2025-11-03T09:30:00Z",
    "language": "sv-SE",
    "engage": {"jobId": "job-7"},
    "data": {"trackingNumber": "JJSE00001"},
}
PARCEL_SENT: Event = {"kind": "parcel.sent", "number": 1001, "shop": "se"}
PARCEL_ROUTE = RouteRule(when="kind == 'parcel.sent'", action="ConfirmShipment", order_id="number")


NOT_KEPT = ("dropped", "ages", "allowed", "stopped", "fact", "repeats_s")  # they decide before anything is pending


def router(**rules: RouteRule) -> Router:
    """The user's rules, then the built-in ones that they don't name."""
    built_in = {name: rule for name, rule in BUILT_IN_ROUTES.items() if name not in rules}
    return Router(compile_routes({**rules, **built_in}), {"default", "se"})


def routed(event: Event, record: Record = RECORD, **rules: RouteRule) -> Routed:
    result = router(**rules).route(event, record)
    assert isinstance(result, Routed), result
    return result


def misrouted(event: Event, **rules: RouteRule) -> Misrouted:
    result = router(**rules).route(event, RECORD)
    assert isinstance(result, Misrouted), result
    return result


def parcel(event: Event = PARCEL_SENT, **keys: object) -> Routed:
    return routed(event, parcel=RouteRule.model_validate({**PARCEL_ROUTE.model_dump(), **keys}))


def wrong_parcel(event: Event = PARCEL_SENT, **keys: object) -> str:
    wrong = misrouted(event, parcel=RouteRule.model_validate({**PARCEL_ROUTE.model_dump(), **keys}))
    assert (wrong.reason, wrong.route) == (Reason.INVALID_EVENT, "parcel")
    return wrong.detail


# The canonical event


def test_a_canonical_event_becomes_its_action() -> None:
    assert routed(SHIPPED, Record(headers=(("traceparent", TRACEPARENT),))) == Routed(
        route="shipped",
        connection="default",
        order_id="A-1001",
        action="ConfirmShipment",
        language="sv-SE",
        data={"trackingNumber": "JJSE00001"},
        tag_source=FromJob(job_id="job-7"),
        on_unknown="resend",
        event_time_ms=OCCURRED_MS,
        trace_context={"traceparent": TRACEPARENT.decode()},
    )


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("confirmed", "ConfirmOrder"),
        ("shipped", "ConfirmShipment"),
        ("delivered", "ConfirmDelivery"),
        ("cancelled", "ConfirmCancellation"),
        ("completed", "ConfirmCompletion"),
        ("custom", "Custom"),
    ],
)
def test_each_canonical_type_has_its_action_and_needs_no_more_than_an_order_id(name: str, action: str) -> None:
    result = routed({"type": f"order.{name}", "orderId": "1"})
    assert (result.route, result.action, result.tag_source) == (name, action, FromOrder())
    assert (result.language, result.data, result.event_time_ms) == (None, None, RECORD_MS)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"version": 2}, "version: Input should be 1"),
        ({"version": "1"}, "version: Input should be 1"),
        ({"orderId": 1001}, "orderId: Input should be a valid string"),
        ({"orderId": None}, "orderId: Input should be a valid string"),
        ({"orderId": ".."}, "order_id: expression `orderId` gave an id that would be more than one path segment"),
        (
            {"engage": {"jobId": "a/../b"}},
            "job_id: expression `engage.jobId` gave an id that would be more than one path segment",
        ),
        ({"engage": {"jobId": ""}}, "engage.jobId: String should have at least 1 character"),
        ({"engage": "job-7"}, "engage: Input should be a valid dictionary or instance of EngageReference"),
        (
            {"engage": {"newerThan": "2026-11-03T09:30:00"}},
            "newer_than: expression `engage.newerThan` gave a text that is a time without a zone:"
            " name its zone with `time_zone` in the route",
        ),
        (
            {"language": 1, "engage": {"versionTag": 1}, "order": [], "data": 2},
            "engage.versionTag: Input should be a valid string; order: Input should be a valid dictionary",
        ),
    ],
)
def test_a_canonical_event_that_breaks_the_contract_is_dead_lettered_by_field(changes: Event, detail: str) -> None:
    assert misrouted({**SHIPPED, **changes}) == Misrouted(Reason.INVALID_EVENT, detail, "shipped")


@pytest.mark.parametrize("event_type", ["order.returned", "", None, 7, ["order.shipped"], {"order.shipped": 1}])
def test_an_event_of_another_type_is_unrouted(event_type: object) -> None:
    assert router().route({**SHIPPED, "type": event_type, "version": 2}, RECORD) == Unrouted()


def test_unknown_fields_are_the_senders_business() -> None:
    assert routed({**SHIPPED, "colour": "red", "engage": {"jobId": "job-7", "x": 1}}) == routed(SHIPPED)


def test_a_connection_that_is_not_configured_is_named() -> None:
    event = {**SHIPPED, "engage": {"connection": "n\n" + "o" * 500}}
    assert misrouted(event) == Misrouted(
        Reason.UNKNOWN_CONNECTION, f'connection: "n\\n{"o" * 57}\\u2026" is not configured', "shipped"
    )


# The user's routes


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


def test_a_built_in_rule_that_is_given_as_it_stands_keeps_the_contract() -> None:
    assert misrouted({**SHIPPED, "version": 2}, **BUILT_IN_ROUTES).detail == "version: Input should be 1"


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


@pytest.mark.parametrize(
    ("keys", "tag_source"),
    [
        ({"version_tag": "tag", "job_id": "job", "order": "document"}, FromEvent(version_tag="v1")),
        ({"version_tag": "absent", "job_id": "job", "order": "document"}, FromJob(job_id="77")),
        ({"job_id": "absent", "order": "document"}, FromDocument(document={"orderId": "1001"})),
        ({"order": "absent"}, FromOrder()),
        ({"newer_than": "absent"}, FromOrder()),
    ],
)
def test_the_tag_comes_from_the_first_source_that_gives_something(keys: Event, tag_source: object) -> None:
    event = {**PARCEL_SENT, "tag": "v1", "job": 77, "document": {"orderId": "1001"}}
    assert parcel(event, **keys).tag_source == tag_source


@pytest.mark.parametrize(
    ("keys", "change"),
    [
        ({"change_delivery": "delivery"}, FromChange(change="change-delivery", body={"method": "Box"})),
        ({"change_status": "{status: state}"}, FromChange(change="change-status", body={"status": "Shipped"})),
        ({"change_delivery": "delivery", "version_tag": "tag", "job_id": "job"}, None),
        ({"change_delivery": "absent", "change_status": "{status: state}", "order": "absent"}, None),
    ],
)
def test_a_change_comes_first_and_brings_the_tag(keys: Event, change: FromChange | None) -> None:
    event = {**PARCEL_SENT, "delivery": {"method": "Box"}, "state": "Shipped", "tag": "v1", "job": 77}
    source = parcel(event, **keys).tag_source
    assert isinstance(source, FromChange)
    assert change in (None, source)


def test_an_event_without_the_change_has_none() -> None:
    assert parcel(change_delivery="delivery", job_id="number").tag_source == FromJob(job_id="1001")


@pytest.mark.parametrize(
    ("keys", "detail"),
    [
        ({"change_delivery": "text"}, "change_delivery: expression `text` gave a text, not an object"),
        ({"change_status": "list"}, "change_status: expression `list` gave a list, not an object"),
        ({"change_status": "number"}, "change_status: expression `number` gave a number, not an object"),
        (
            {"change_delivery": "object", "change_status": "object"},
            "change_status: expression `object` gave a second change, after change_delivery",
        ),
        (
            {"change_status": "object", "order": "object"},
            "order: expression `object` gave a document, besides change_status",
        ),
    ],
)
def test_a_change_that_cannot_be_made_is_an_invalid_event(keys: Event, detail: str) -> None:
    assert wrong_parcel({**PARCEL_SENT, "text": "x", "list": [], "object": {"a": 1}}, **keys) == detail


# Actions that travel in the document

IN_ITS_DOCUMENT: Event = {"send": "with_document", "order": "document"}
ORDER_ACTIONS: list[Event] = [{"orderAction": {"action": "ConfirmOrder"}}, {"OrderAction": {}}, {"ORDERACTION": "x"}]


def test_an_action_may_travel_in_its_document() -> None:
    event = {**PARCEL_SENT, "document": {"orderId": "1001", "orderAction": None}}
    assert parcel(event, **IN_ITS_DOCUMENT).tag_source == WithDocument(document=event["document"])


def test_without_a_document_it_cannot_travel() -> None:
    assert wrong_parcel(PARCEL_SENT, **IN_ITS_DOCUMENT) == (
        "order: expression `document` gave nothing, and the action travels in it"
    )


@pytest.mark.parametrize("send", ["by_itself", "with_document"])
@pytest.mark.parametrize("brought", ORDER_ACTIONS)
def test_a_document_that_brings_an_action_of_its_own_is_an_invalid_event(brought: Event, send: str) -> None:
    """Engage would carry it out, and the route's, too: two e-mails."""
    detail = wrong_parcel({**PARCEL_SENT, "document": {"orderId": "1001", **brought}}, order="document", send=send)
    assert detail == "order: expression `document` gave an orderAction, and the route sends an action, too"


def test_a_canonical_event_whose_document_brings_an_action_is_an_invalid_event() -> None:
    wrong = misrouted({"type": "order.shipped", "orderId": "1", "order": {"orderAction": {"action": "Custom"}}})
    assert wrong.reason == Reason.INVALID_EVENT


@pytest.mark.parametrize("send", ["by_itself", "with_document"])
@pytest.mark.parametrize("document", [{"orderId": "B-9"}, {"OrderId": 1002}, {"orderId": " 1001"}, {"orderId": ""}])
def test_a_document_of_another_order_is_an_invalid_event(document: Event, send: str) -> None:
    """Engage would change that order, and with the action in it mail that order's customer."""
    detail = wrong_parcel({**PARCEL_SENT, "document": document}, order="document", send=send)
    assert detail == "order: expression `document` gave the document of another order than `order_id`"


@pytest.mark.parametrize("named", [{}, {"orderId": None}, {"orderId": 1001}, {"orderId": "1001"}, {"orderId": [1]}])
def test_a_document_that_names_its_order_in_another_way_or_not_at_all_is_engages_to_judge(named: Event) -> None:
    document = {"status": "Shipped", **named}
    assert parcel({**PARCEL_SENT, "document": document}, order="document").tag_source == FromDocument(document=document)


def test_a_document_that_is_not_sent_may_hold_what_it_likes() -> None:
    event = {**PARCEL_SENT, "document": {"orderAction": {}}}
    assert parcel(event, order="document", job_id="number").tag_source == FromJob(job_id="1001")


@pytest.mark.parametrize(
    "keys",
    [
        {"send": "with_document"},
        {**IN_ITS_DOCUMENT, "job_id": "job"},
        {**IN_ITS_DOCUMENT, "version_tag": "tag"},
        {**IN_ITS_DOCUMENT, "newer_than": "at"},
        {**IN_ITS_DOCUMENT, "change_status": "status"},
        {"send": "later"},
    ],
)
def test_a_route_that_sends_with_the_document_needs_one_and_nothing_else(keys: Event) -> None:
    with pytest.raises(ValidationError):
        RouteRule.model_validate({**PARCEL_ROUTE.model_dump(), **keys})


@pytest.mark.parametrize(
    "order",
    [
        "{orderId: id, orderAction: {action: 'ConfirmOrder'}}",
        "document || {OrderAction: x}",
        "merge(document, {orderAction: x})",
        "document | {orderAction: @}",
        "document && {orderAction: x}",
        """`{"orderAction": {}}`""",
    ],
)
def test_an_order_action_that_a_route_writes_itself_is_noted(order: str) -> None:
    (note,) = notes_on(RouteRule(action="ConfirmOrder", order=order))
    assert note.startswith("order: the document has an orderAction of its own")


@pytest.mark.parametrize(
    ("when", "noted"),
    [
        ("type == order.shipped", True),
        ("status.from != status.to", False),
        ("type == event.kind", False),
        ("headers.kind == order.kind", False),
        ("type == 'order.shipped'", False),
    ],
)
def test_a_path_that_may_be_a_text_without_its_quotes_is_noted(when: str, noted: bool) -> None:
    notes = list(notes_on(RouteRule(action="ConfirmOrder", when=when)))
    about = "when: it compares type with the field order.shipped; a text stands in single quotes, 'order.shipped'"
    assert notes == [about] * noted


@pytest.mark.parametrize("order", ["document", "{orderId: id}", "{lines: lines[].{orderAction: x}}", None])
def test_a_document_whose_fields_are_unknown_or_others_is_not_noted(order: str | None) -> None:
    assert list(notes_on(RouteRule(action="ConfirmOrder", order=order))) == []


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


@pytest.mark.parametrize("moment", ["2025-11-03T09:30:00Z", "2025-11-03T10:30:00.0009+01:00", OCCURRED_MS])
def test_a_time_is_read_alike_whatever_it_is_for(moment: object) -> None:
    event = {**PARCEL_SENT, "at": moment}
    assert parcel(event, event_time="at").event_time_ms == OCCURRED_MS
    tag_source = parcel(event, newer_than="at").tag_source
    assert isinstance(tag_source, FromOrder)
    assert tag_source.newer_than is not None
    assert milliseconds(tag_source.newer_than) == OCCURRED_MS


def test_a_time_without_a_zone_has_the_routes() -> None:
    event = {**PARCEL_SENT, "at": "2025-11-03T10:30:00"}
    assert parcel(event, event_time="at", time_zone="Europe/Stockholm").event_time_ms == OCCURRED_MS
    tag_source = parcel(event, newer_than="at", time_zone="Europe/Stockholm").tag_source
    assert tag_source == FromOrder(newer_than=datetime(2025, 11, 3, 9, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    "moment",
    [
        *("soon", "", "2025-11-03T09:30:00", "0001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"),
        *(True, 20760, 46329.4, 1e30, [1], {"a": 1}),
    ],
)
@pytest.mark.parametrize("event_time", [None, "occurredAt"])
def test_a_time_that_only_measures_stops_no_mail(moment: object, event_time: str | None) -> None:
    result = parcel({**PARCEL_SENT, "occurredAt": moment}, event_time=event_time)
    assert result.event_time_ms == RECORD_MS
    assert [each.key for each in result.dropped] == ["event_time"]


def test_an_event_without_a_time_has_its_records_and_nothing_is_counted() -> None:
    result = parcel({**PARCEL_SENT, "at": None}, event_time="at")
    assert (result.event_time_ms, result.dropped) == (RECORD_MS, ())


@pytest.mark.parametrize(
    ("keys", "event", "dropped"),
    [
        ({"language": "x"}, {"x": 46}, "language: expression `x` gave a number, not a text"),
        ({"language": "x"}, {"x": "n" * 101}, "language: expression `x` gave more than 100 characters"),
        (
            {"language": "length(number)"},
            {},
            "language: expression `length(number)` failed: length() was given a number",
        ),
        (
            {"data": "length(number)"},
            {},
            "data: expression `length(number)` failed: length() was given a number",
        ),
        ({"data": "&number"}, {}, "data: expression `&number` gave something that is not JSON"),
    ],
)
def test_a_field_that_decides_nothing_is_left_out_where_it_is_unusable(keys: Event, event: Event, dropped: str) -> None:
    result = parcel({**PARCEL_SENT, **event}, **keys)
    assert (result.language, result.data) == (None, None)
    assert list(map(str, result.dropped)) == [dropped]


def test_an_empty_language_is_none() -> None:
    result = parcel({**PARCEL_SENT, "x": ""}, language="x")
    assert (result.language, result.dropped) == (None, ())


@pytest.mark.parametrize("changes", [{"language": 7}, {"data": ["x"]}, {"data": "x"}, {"occurredAt": "yesterday"}])
def test_a_canonical_event_is_mailed_without_what_decides_nothing(changes: Event) -> None:
    result = routed({**SHIPPED, **changes})
    (dropped,) = result.dropped
    assert dropped.key == {"language": "language", "data": "data", "occurredAt": "event_time"}[next(iter(changes))]


def test_without_any_time_the_event_time_is_zero() -> None:
    assert routed({"type": "order.shipped", "orderId": "1"}, Record(timestamp_ms=None)).event_time_ms == 0


@pytest.mark.parametrize(
    ("changes", "keys", "detail"),
    [
        ({"number": None}, {}, "order_id: expression `number` gave nothing"),
        ({"number": True}, {}, "order_id: expression `number` gave a boolean, not a text"),
        (
            {"number": 1.0},
            {},
            "order_id: expression `number` gave a number with a fraction or exponent: it may have lost digits",
        ),
        ({"number": ["1"]}, {}, "order_id: expression `number` gave a list, not a text"),
        ({"number": ""}, {}, "order_id: expression `number` gave an empty text"),
        ({"number": " "}, {}, "order_id: expression `number` gave an id that is blank"),
        (
            {"number": "a\r\nb"},
            {},
            "order_id: expression `number` gave an id that has a control character or line break",
        ),
        ({"number": "x" * 10_000}, {}, "order_id: expression `number` gave more than 1024 characters"),
        ({"x": "../.."}, {"job_id": "x"}, "job_id: expression `x` gave an id that would be more than one path segment"),
        ({"x": {}}, {"version_tag": "x"}, "version_tag: expression `x` gave an object, not a text"),
        ({"x": ""}, {"version_tag": "x"}, "version_tag: expression `x` gave an empty text"),
        ({"x": "doc"}, {"order": "x"}, "order: expression `x` gave a text, not an object"),
        ({"x": "soon"}, {"newer_than": "x"}, "newer_than: expression `x` gave a text that is not a time"),
        ({"x": 20760}, {"newer_than": "x"}, "newer_than: expression `x` gave a time before 2000 or after 2100"),
        (
            {"x": "2026-11-03T10:30:08"},
            {"newer_than": "x"},
            "newer_than: expression `x` gave a text that is a time without a zone:"
            " name its zone with `time_zone` in the route",
        ),
        ({"x": 46}, {"action_name": "x"}, "action_name: expression `x` gave a number, not a text"),
        ({"x": ""}, {"action_name": "x"}, "action_name: expression `x` gave an empty text"),
        ({"x": "n" * 201}, {"action_name": "x"}, "action_name: expression `x` gave more than 200 characters"),
        ({}, {"connection": "x"}, "connection: expression `x` gave nothing"),
    ],
)
def test_what_an_expression_gives_wrongly_is_named_by_key(changes: Event, keys: Event, detail: str) -> None:
    assert wrong_parcel({**PARCEL_SENT, **changes}, **keys) == detail


def test_an_error_in_a_rule_is_reported_at_its_key_with_its_place() -> None:
    with pytest.raises(ValidationError) as raised:
        RouteRule.model_validate({"when": "type = 'x'", "action": "", "data": "lenght(a)", "order_ids": "a"})
    assert {error["loc"]: error["msg"].partition(" at ")[0] for error in raised.value.errors()} == {
        ("when",): "Value error, Unknown token '='",
        ("action",): "String should have",
        ("data",): "Value error, there is no function lenght() (column 1): `lenght(a)`",
        ("order_ids",): "Extra inputs are not permitted",
    }


# Several actions from one event

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


@pytest.mark.parametrize("parcels", [{}, {"state": "returned"}, {"a": {"state": "returned"}}, "sent", None])
def test_an_object_that_the_route_does_not_take_is_ignored(parcels: object) -> None:
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


# The record beside the event

FROM_HEADERS = Record(headers=(("kind", b"parcel"), ("kind", b"parcel.sent"), ("raw", b"\xff"), ("none", None)))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("headers.kind", "parcel.sent"),
        ("headers.raw", None),
        ("headers.none", None),
        ("key", "A-1001"),
        ("meta", {"topic": "orders", "partition": 3, "offset": 17, "timestamp": RECORD_MS}),
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


# Trace context


@pytest.mark.parametrize(
    ("headers", "context"),
    [
        (
            [("traceparent", TRACEPARENT), ("tracestate", b"a=1,b=2")],
            {"traceparent": TRACEPARENT.decode(), "tracestate": "a=1,b=2"},
        ),
        ([("traceparent", TRACEPARENT), ("tracestate", b"\xff=1")], {"traceparent": TRACEPARENT.decode()}),
        ([("traceparent", TRACEPARENT), ("tracestate", b"a=" + b"1" * 511)], {"traceparent": TRACEPARENT.decode()}),
        ([("tracestate", b"a=1")], None),
        ([("traceparent", None)], None),
        ([("traceparent", b"")], None),
        ([("traceparent", TRACEPARENT + b"\n")], None),
        ([("traceparent", TRACEPARENT.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32))], None),
        ([("traceparent", b"ff" + TRACEPARENT[2:])], None),
    ],
)
def test_only_a_well_formed_trace_context_is_carried_along(
    headers: list[tuple[str, bytes | None]], context: dict[str, str] | None
) -> None:
    assert routed(SHIPPED, Record(headers=tuple(headers))).trace_context == context


# Explanations


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


# Whatever comes

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


def test_a_repr_holds_nothing_of_the_event() -> None:
    assert repr(routed(SHIPPED)) == (
        "Routed(route='shipped', connection='default', action='ConfirmShipment', on_unknown='resend', "
        "event_time_ms=1762162200000, item=None)"
    )
