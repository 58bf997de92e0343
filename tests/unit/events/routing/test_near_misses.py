"""An event that no route takes is told from one that a route nearly takes."""

from __future__ import annotations

import pytest

from consumer.events.routing.near_misses import notes_on_event
from consumer.events.routing.rules import RouteRule
from tests.unit.events.routing.cases import RECORD, Record


@pytest.mark.parametrize(
    ("when", "event", "own"),
    [
        (
            "headers.kind == 'x'",
            {"headers": {"kind": "x"}},
            "headers.kind finds nothing; the event's own field is event.headers.kind",
        ),
        (
            "event.name == 'x'",
            {"event": {"name": "x"}},
            "event.name finds nothing; the event's own field is event.event.name",
        ),
        ("event.name == 'x'", {"event": {"name": "x"}, "name": "y"}, None),
        ("headers.kind == 'x'", {"headers": {}}, None),
        ("headers.id == 'x'", {"headers": {"id": "7"}}, None),
        ("key == 'x'", {"key": "x"}, None),
        ("headers.kind == 'x'", ["headers"], None),
    ],
)
def test_a_field_that_only_the_event_has_is_noted_where_the_record_is_read(
    when: str, event: object, own: str | None
) -> None:
    record = Record(headers=(("id", b"1"),))
    notes = list(notes_on_event(RouteRule(action="ConfirmOrder", when=when), event, record))
    assert notes == ([] if own is None else [f"when: {own}"])


def test_a_key_that_only_the_event_has_is_noted() -> None:
    rule = RouteRule(action="ConfirmOrder", order_id="key")
    assert list(notes_on_event(rule, {"key": "A-1"}, RECORD)) == []
    (note,) = notes_on_event(rule, {"key": "A-1"}, Record(key=None))
    assert note == "order_id: key finds nothing; the event's own field is event.key"


@pytest.mark.parametrize(
    ("when", "event", "path"),
    [
        ("status == 'shipped'", {"status": "Shipped"}, "status"),
        ("order.status == 'shipped'", {"order": {"status": " shipped"}}, "order.status"),
        ("contains(['shipped', 'sent'], status)", {"status": "SENT"}, "status"),
        ("status == `20`", {"status": "20"}, "status"),
        ("status == '20'", {"status": 20}, "status"),
        ("status == 'shipped'", {"status": '"shipped"'}, "status"),
        ("isReturn == `true`", {"isReturn": "true"}, "isReturn"),
        ("isReturn == `true`", {"isReturn": 1}, "isReturn"),
        ("isReturn == `false`", {"isReturn": "N"}, "isReturn"),
        ("isReturn == `1`", {"isReturn": True}, None),
        ("status == 'shipped'", {"status": "shipped"}, None),
        ("status == 'shipped' || status == 'Shipped'", {"status": "gone"}, None),
        ("status == 'shipped'", {"status": ["Shipped"]}, None),
        ("lines[?status == 'shipped']", {"status": "Shipped"}, None),
    ],
)
def test_a_value_that_is_nearly_what_a_condition_asks_for_is_noted(when: str, event: object, path: str | None) -> None:
    """Nothing else tells why such an event is ignored."""
    notes = list(notes_on_event(RouteRule(action="ConfirmOrder", when=when), event, RECORD))
    assert notes == (
        []
        if path is None
        else [f"when: {path} differs from what it is compared with by case, type, blanks or quotes only"]
    )


@pytest.mark.parametrize(
    ("when", "event", "note"),
    [
        ("orderStatus == 'x'", {"OrderStatus": "x"}, "when: orderStatus is not there, but OrderStatus is"),
        (
            "order.status == 'x'",
            {"Order": {"Status": "x"}},
            "when: order.status is not there, but Order.Status is",
        ),
        ("order_status == 'x'", {"order-status": "x"}, 'when: order_status is not there, but "order-status" is'),
        (
            "type == 'order' && body.cancelled",
            {"type": "order", "body": {"cancelled": {}}},
            "when: body.cancelled is there, and empty: that is not true, but `body.cancelled != null` is",
        ),
        ("cancelled", {"cancelled": []}, None),
        ("cancelled", {"cancelled": None}, None),
        ("status == 'x'", {"STATUS": None}, None),
        ("status == 'x'", {"state": "x"}, None),
    ],
)
def test_a_field_that_an_event_has_in_another_spelling_is_noted(when: str, event: object, note: str | None) -> None:
    notes = list(notes_on_event(RouteRule(action="ConfirmOrder", when=when), event, RECORD))
    assert notes == ([] if note is None else [note])


@pytest.mark.parametrize(
    ("event", "note"),
    [
        ({"after": '{"status": "sent"}'}, "when: after.status is not there, but json(after).status is"),
        ({"after": '{"Status": "new"}'}, "when: after.status is not there, but json(after).Status is"),
        ({"after": [{"status": "sent"}]}, "when: after.status is not there, but after[0].status is"),
        ({"After": '[{"status": "sent"}]'}, "when: after.status is not there, but json(After)[0].status is"),
        (
            {"after": {"status": {"code": "sent"}}},
            "when: after.status is an object, and equal to no text; after.status.code is what it has",
        ),
        ({"after": {"status": {"code": "new"}}}, None),
        ({"after": '{"state": "sent"}'}, None),
        ({"after": "{cut"}, None),
        ({"after": []}, None),
        ({"after": ["sent"]}, None),
        ({"after": None}, None),
    ],
)
def test_an_object_that_an_event_has_in_another_shape_is_noted(event: object, note: str | None) -> None:
    """MongoDB's changes and outboxes have JSON in a text: to JMESPath a field of it is not there."""
    rule = RouteRule(action="ConfirmOrder", when="after.status == 'sent'")
    assert list(notes_on_event(rule, event, RECORD)) == ([] if note is None else [note])


@pytest.mark.parametrize(
    ("rule", "event", "note"),
    [
        ({"order_id": "OrderId"}, {"orderId": "A"}, "order_id: OrderId is not there, but orderId is"),
        (
            {"order_id": "payload.id"},
            {"payload": '{"id": "A"}'},
            "order_id: payload.id is not there, but json(payload).id is",
        ),
        (
            {"order_id": "id", "language": "order.locale"},
            {"id": "A", "order": [{"locale": "sv"}]},
            "language: order.locale is not there, but order[0].locale is",
        ),
        (
            {"when": "kind == 'x' && !cancelledAt", "order_id": "id"},
            {"id": "A", "kind": "x", "cancelled_at": "now"},
            "when: cancelledAt is not there, but cancelled_at is",
        ),
        (
            {"each": "parcels", "order_id": "item.orderId"},
            {"parcels": [{"OrderID": "A"}]},
            "order_id: item.orderId is not there, but item.OrderID is",
        ),
        ({"order_id": "OrderId || orderId"}, {"orderId": "A"}, None),
        ({"order_id": "json(payload).id"}, {"payload": '{"id": "A"}'}, None),
        ({"order_id": "event.Key"}, {"key": "A"}, None),
        ({"order_id": "id", "language": "locale"}, {"id": "A"}, None),
    ],
)
def test_what_a_route_reads_and_its_event_has_in_another_spelling_or_shape_is_noted(
    rule: dict[str, str], event: object, note: str | None
) -> None:
    """The action would leave without it, or as a dead letter that says no more than that there is nothing."""
    notes = list(notes_on_event(RouteRule.model_validate({"action": "Custom", **rule}), event, RECORD, is_taken=True))
    assert notes == ([] if note is None else [note])


@pytest.mark.parametrize(
    ("order_id", "note"),
    [
        ('headers."X-Order"', 'headers."X-Order" is not there, but headers."x-order" is'),
        ("key.orderId", "key.orderId is not there, but json(key).orderId is"),
        ("headers.other", None),
        ("key", None),
    ],
)
def test_what_a_route_reads_of_the_record_and_it_has_in_another_spelling_or_shape_is_noted(
    order_id: str, note: str | None
) -> None:
    """HTTP's headers have no case, and those that take them to Kafka write them as they like."""
    record = Record(headers=(("x-order", b"A-1"),), key=b'{"orderId": "A-1"}')
    rule = RouteRule(action="ConfirmOrder", order_id=order_id)
    notes = list(notes_on_event(rule, {"id": 1}, record, is_taken=True))
    assert notes == ([] if note is None else [f"order_id: {note}"])


@pytest.mark.parametrize(
    ("event", "is_noted"),
    [
        ({"op": "u", "before": None, "after": {"status": "sent"}}, True),
        ({"op": "u", "after": {"status": "sent"}}, True),
        ({"op": "u", "before": {"status": None}, "after": {"status": "sent"}}, False),
        ({"op": "u", "before": {"status": "new"}, "after": {"status": "sent"}}, False),
        ({"op": "c", "before": None, "after": {"status": "sent"}}, False),
    ],
)
@pytest.mark.parametrize(
    "when", ["after.status == 'sent' && before.status != 'sent'", "after.status && !before.status"]
)
def test_an_event_without_what_was_before_is_noted_where_a_change_is_asked_for(
    when: str, event: object, is_noted: bool
) -> None:
    """PostgreSQL's rows have no `before` by default: each later change of an order that was sent would be a mail."""
    notes = list(notes_on_event(RouteRule(action="ConfirmShipment", when=when), event, RECORD, is_taken=True))
    said = "when: before is not there: nothing tells a change of status from any later one of the order"
    assert notes == ([said] if is_noted else [])


@pytest.mark.parametrize(
    ("event", "is_noted"),
    [
        ({"state": "sent"}, True),
        ({"state": "sent", "lastState": None}, False),
        ({"state": "sent", "lastState": "packed"}, False),
    ],
)
def test_an_event_without_its_former_state_is_noted(event: object, is_noted: bool) -> None:
    """Null may be what the first state follows; a name that is not there at all is misspelt, or left out."""
    said = "when: {0}lastState is not there: nothing tells a change of {0}state from any later one of the order"
    for within, whole in (("", event), ("order.", {"order": event})):
        when = f"{within}state == 'sent' && {within}lastState != 'sent'"
        rule = RouteRule(action="ConfirmShipment", when=when)
        notes = list(notes_on_event(rule, whole, RECORD, is_taken=True))
        assert notes == ([said.format(within)] if is_noted else [])


@pytest.mark.parametrize("each", ["parcels[]", "event.parcels", "to_array(parcels)[]"])
def test_an_item_that_nearly_is_what_a_condition_asks_for_is_noted(each: str) -> None:
    rule = RouteRule(action="ConfirmShipment", each=each, when="type == 'order' && item.state == 'sent'")
    event = {"type": "order", "parcels": [{"state": "new"}, {"state": "SENT"}, {"state": "Sent"}]}
    (note,) = notes_on_event(rule, event, RECORD)
    assert note == "when: item.state differs from what it is compared with by case, type, blanks or quotes only"
    assert list(notes_on_event(rule, {"type": "order", "parcels": "SENT"}, RECORD)) == []


@pytest.mark.parametrize(
    ("event", "instead"),
    [
        ({"Parcels": [{"state": "sent"}]}, "Parcels"),
        ({"parcels": []}, None),
        ({"PARCELS": None}, None),
    ],
)
def test_a_list_that_an_event_has_in_another_spelling_is_noted(event: object, instead: str | None) -> None:
    """Without its list a route is asked for no item, and says nothing of one."""
    rule = RouteRule(action="ConfirmShipment", each="parcels[]", when="item.state == 'sent'")
    notes = list(notes_on_event(rule, event, RECORD))
    assert notes == ([] if instead is None else [f"each: parcels is not there, but {instead} is"])


NO_IS_TRUE = "is a number or text that means no, and is true to JMESPath: compare it with a value"


@pytest.mark.parametrize(
    ("when", "event", "note"),
    [
        ("type == 'sent' && !isTest", {"type": "sent", "isTest": "false"}, f"when: isTest {NO_IS_TRUE}"),
        (
            "type == 'sent' && after.shipped",
            {"type": "sent", "after": {"shipped": 0}},
            f"when: after.shipped {NO_IS_TRUE}",
        ),
        ("shipped || sent", {"shipped": "no", "sent": True}, f"when: shipped {NO_IS_TRUE}"),
        ("shipped && !isTest", {"shipped": True, "isTest": False}, None),
        ("shipped", {"shipped": "2026-11-03"}, None),
    ],
)
@pytest.mark.parametrize("is_taken", [False, True])
def test_what_means_no_and_is_true_is_noted(when: str, event: object, note: str | None, is_taken: bool) -> None:
    """A column of 0 and 1 is true for both: each of its rows would be mailed."""
    rule = RouteRule(action="ConfirmShipment", when=when)
    assert list(notes_on_event(rule, event, RECORD, is_taken=is_taken)) == ([] if note is None else [note])


@pytest.mark.parametrize(
    ("when", "event", "path"),
    [
        ("status != 'cancelled'", {"status": "Cancelled"}, "status"),
        ("item.isReturn != `true`", {"item": {"isReturn": "true"}}, "item.isReturn"),
        ("item.isReturn != `true`", {"item": {"isReturn": 1}}, "item.isReturn"),
        ("status != 'cancelled'", {"status": "shipped"}, None),
        ("status == 'sent' || status == 'Sent'", {"status": "Sent"}, None),
    ],
)
def test_what_nearly_keeps_an_event_from_the_route_that_takes_it_is_noted(
    when: str, event: object, path: str | None
) -> None:
    rule = RouteRule(action="ConfirmShipment", when=when)
    notes = list(notes_on_event(rule, event, RECORD, is_taken=True))
    assert notes == (
        []
        if path is None
        else [f"when: {path} differs from what it is compared with by case, type, blanks or quotes only"]
    )
