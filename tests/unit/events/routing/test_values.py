"""What an expression gives: what decides must be right, and what decides nothing is left out."""

from __future__ import annotations

import pytest

from tests.unit.events.routing.cases import PARCEL_SENT, Event, parcel, wrong_parcel


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
        (
            {"number": ["1"]},
            {},
            "order_id: expression `number` gave a list, not a text; `| [0]` behind it takes the first item",
        ),
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
