"""Any bytes: an event that means the same to everybody, or a reason that names the place and no contents."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import from_json

from consumer.events.decoding import MAX_NESTING, Undecodable, decode
from consumer.events.numbers import written
from schemas.pending_action import FromDocument

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text() | st.text(st.sampled_from(':[]{}",0\\'))
SCALARS = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=10)


def nested(levels: int) -> bytes:
    """Objects and lists, alternating, with brackets in texts, `levels` deep."""
    pairs = [('{"]}": ', "}") if level % 2 == 0 else ('["]", ', ', "["]') for level in range(levels)]
    return (
        "".join(opening for opening, _ in pairs) + "1" + "".join(closing for _, closing in reversed(pairs))
    ).encode()


@given(st.dictionaries(TEXT, JSON), st.booleans(), st.sampled_from([None, 2]))
def test_every_json_object_that_readers_agree_about_is_an_event(
    event: dict[str, object], ascii_only: bool, indent: int | None
) -> None:
    assert decode(json.dumps(event, ensure_ascii=ascii_only, indent=indent).encode()) == event


@given(st.binary() | st.text(st.sampled_from('{}[]":,\\ud8003a19eE+-.0Infity')).map(str.encode))
@example(b"")
@example(b"[" * 1_000_000)
@example(b'{"a":' * 1_000_000)
@example(b"9" * 100_000)
def test_no_bytes_crash_it(value: bytes) -> None:
    event = decode(value)
    if isinstance(event, Undecodable):
        assert event.detail.isprintable()
    else:
        assert from_json(written(event), allow_inf_nan=False) == event


@given(st.text(st.sampled_from("0123456789.eE+-"), max_size=30), st.sampled_from(["", " ", "\\u00e5"]))
@example("199.00", "")
@example("1E3", "")
@example("18446744073709551615", "")
@example("-0.0", "")
@example("-0", "")
def test_every_number_leaves_as_it_came(number: str, beside: str) -> None:
    value = f'{{"a":{number},"b":[{{"c":{number}}}],"d":"{beside}"}}'.encode()
    event = decode(value)
    if not isinstance(event, Undecodable):
        text = written(event)
        assert text == value.replace(b"\\u00e5", "å".encode())


@pytest.mark.parametrize("value", [b"null", b"[{}]", b'"text"', b"17", b"true"])
def test_json_of_any_kind_is_decoded_for_the_routes_to_judge(value: bytes) -> None:
    assert decode(value) == json.loads(value)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"", "not JSON: EOF while parsing a value at line 1 column 0"),
        (b"not json", "not JSON: expected ident at line 1 column 2"),
        (b'{"a": 1} x', "not JSON: trailing characters at line 1 column 10"),
        (b'{"a": "\xe5"}', "not UTF-8 at byte 7"),
        (b'\xef\xbb\xbf{"a": "\xe5"}', "not UTF-8 at byte 10"),
        ('{"a": 1}'.encode("utf-16"), "not JSON: looks like UTF-16"),
        ('{"a": 1}'.encode("utf-16-be"), "not JSON: looks like UTF-16"),
        ('[{"a": 1}]'.encode("utf-16-le"), "not JSON: looks like UTF-16"),
        ('{\n"a": 1}'.encode("utf-32"), "not JSON: looks like UTF-32"),
        (b"\xac\xed\x00\x05t\x00\x03A-1", "not JSON: looks like a serialised Java object"),
        (
            b"\x03\x00" + bytes(16) + b"\x06A-1",
            "not JSON: looks like the frame of AWS Glue's Schema Registry, which is not supported",
        ),
        (gzip.compress(b"{}", mtime=0), "not JSON: looks like gzip"),
        (base64.b64encode(gzip.compress(b"{}", mtime=0)), "not JSON: looks like gzip in base64"),
        (
            base64.b64encode(b'{"type":"order.shipped"}'),
            "not JSON: looks like JSON in base64: in the format `plain` a route reads it by `json(base64(event))`",
        ),
        (zlib.compress(b"{}"), "not JSON: looks like zlib"),
        (b'\xef\xbb\xbf\r\n<?xml version="1.0"?><order/>', "not JSON: looks like XML"),
        (b"<order><id>A-1</id></order>", "not JSON: looks like XML"),
        (b"{'type': 'order.shipped'}", "not JSON: looks like a dictionary of Python's, written as a text"),
        (b"{type=order.shipped, orderId=A-1}", "not JSON: looks like a map of Java's, written as a text"),
        (
            b"Struct{type=order.shipped}",
            "not JSON: looks like Kafka Connect's Struct, written as a text by its StringConverter",
        ),
        (
            b'\x00\x00\x00\x01\x7b{"a":1}',
            "not JSON: looks like the frame of a Schema Registry (byte 0, schema id 379) around JSON",
        ),
        (
            b"\x00\x00\x00\x00\x01\x02A-1",
            "not JSON: looks like the frame of a Schema Registry (byte 0, schema id 1) around a value",
        ),
        (b'{"a": NaN}', "not JSON: expected value at line 1 column 7"),
        (b'{"a": -Infinity}', "not JSON: invalid number at line 1 column 8"),
        (
            b'{"a": "\x00"}',
            "not JSON: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 8",
        ),
        (b'{"a": "\\ud800 "}', "not JSON: unexpected end of hex escape at line 1 column 14"),
        (b'{"a": "\\udc00"}', "not JSON: lone leading surrogate in hex escape at line 1 column 13"),
        (b'{"data": {"amount": 1e400}}', "data.amount: a number beyond the range of a double"),
        (b'{"data": [0, {"amount": -1e400}]}', "data[1].amount: a number beyond the range of a double"),
        (b'{"a": ' + b"9" * 4000 + b"}", "a: a number beyond the range of a double"),
        (b'{"a":' + b"9" * 310 + b"}", "a: a number beyond the range of a double"),
        (b"1e400", "the value: a number beyond the range of a double"),
        (b'{"data": {"a": 1, "b": 2, "a": 1}}', "data.a: the key appears twice in its object"),
        (b'{"a": {"x": 1}, "\\u0061": 2}', "a: the key appears twice in its object"),
        (b'{"a": "::\\u003a", "b": 1, "b": 2}', "b: the key appears twice in its object"),
        (b'{"mr x@example.com\\n": 1e999}', '"mr x@example.com\\n": a number beyond the range of a double'),
    ],
)
def test_what_is_no_event_is_refused_by_place(value: bytes, detail: str) -> None:
    assert decode(value) == Undecodable(detail)


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "\\u0000"}', {"a": "\0"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a": 9223372036854775807, "b": -9223372036854775808}', {"a": 2**63 - 1, "b": -(2**63)}),
        (b'{"sscc": "00373999999999999999"}', {"sscc": "00373999999999999999"}),
        (b'{"brand": "Infinity"}', {"brand": "Infinity"}),
        (b'{"a": [{"k": 1}, {"k": 1}]}', {"a": [{"k": 1}, {"k": 1}]}),
        (b" {}\n", {}),
    ],
)
def test_what_only_looks_odd_is_an_event(value: bytes, event: dict[str, object]) -> None:
    assert decode(value) == event


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, MAX_NESTING * 2, 199, 201, 100_000])
def test_nesting_past_the_limit_is_refused(levels: int) -> None:
    assert isinstance(decode(nested(MAX_NESTING)), dict)
    assert decode(nested(levels)) == Undecodable("nested deeper than 64 levels")


def test_many_brackets_are_not_deep() -> None:
    order = {"items": [{"sku": [str(index)], "note": "]}["} for index in range(500)]}
    assert decode(json.dumps(order).encode()) == order


def test_the_place_of_an_error_is_short_however_long_the_keys() -> None:
    refused = decode(json.dumps({"k" * 10_000: {"x y" * 1000: 0}}).encode().replace(b": 0", b": 1e999"))
    assert isinstance(refused, Undecodable)
    assert len(refused.detail) < 300


def test_the_deepest_event_can_be_read_again_from_a_pending_record() -> None:
    document = decode(nested(MAX_NESTING))
    assert isinstance(document, dict)
    record = FromDocument(document=document).model_dump_json()
    assert FromDocument.model_validate_json(record).document == document
