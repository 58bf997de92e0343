"""What is probably an error in a route is said, and nothing else is."""

from __future__ import annotations

import pytest

from consumer.events.routing.notes import notes_on
from consumer.events.routing.rules import RouteRule


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


def test_an_events_own_headers_are_no_near_miss_of_the_records() -> None:
    assert list(notes_on(RouteRule(action="ConfirmOrder", when="event.headers.kind == 'x'"))) == []
    (note,) = notes_on(RouteRule(action="ConfirmOrder", when="header.kind == 'x'"))
    assert note == "when: header is a field of the event; of its record there is `headers`"
