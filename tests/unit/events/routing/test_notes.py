"""What is probably an error in a route is said, and nothing else is."""

from __future__ import annotations

import pytest

from consumer.events.routing.notes import notes_on, notes_on_event
from consumer.events.routing.rules import RouteRule
from tests.unit.events.routing.cases import RECORD, Record


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
    assert notes == ([] if path is None else [f"when: {path} is the same but for its case, its type, blanks or quotes"])


def test_an_events_own_headers_are_no_near_miss_of_the_records() -> None:
    assert list(notes_on(RouteRule(action="ConfirmOrder", when="event.headers.kind == 'x'"))) == []
    (note,) = notes_on(RouteRule(action="ConfirmOrder", when="header.kind == 'x'"))
    assert note == "when: header is a field of the event; of its record there is `headers`"
