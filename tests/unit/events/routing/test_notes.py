"""What is probably an error in a route is said, and nothing else is."""

from __future__ import annotations

import pytest

from consumer.events.routing.notes import note_on_language, notes_on
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


@pytest.mark.parametrize(
    ("language", "is_noted"),
    [
        *((tag, False) for tag in ("sv-SE", "sv", "SV-SE", "zh-Hans-CN", "es-419", "en-US-u-ca-gregory", "sl-rozaj")),
        *((text, True) for text in ("sv_SE", " sv-SE", "sv-SE\n", "Swedish", "*", "null", "sv-SE,sv;q=0.9", "1053")),
        (None, False),
    ],
)
def test_a_language_that_is_not_written_as_one_is_noted(language: str | None, is_noted: bool) -> None:
    """Java, PHP and GraphQL write sv_SE. Nobody says which mail Engage sends for it."""
    assert (note_on_language(language) is not None) is is_noted
