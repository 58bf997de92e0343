"""Records out of what tools print: the record that the relay would read, or the reason why it cannot be known."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.commands.routing.exports import Defaults, Unreadable, records_in
from consumer.kafka.records.dead_letters import dead_letter_of_event
from consumer.kafka.records.source_events import SourceEvent
from schemas.dead_letter import Reason

VALUE = '{"type":"order.shipped","orderId":"A-1"}'
EVENT = {"type": "order.shipped", "orderId": "A-1"}
DEFAULTS = Defaults("orders")


def read(text: str | bytes) -> list[SourceEvent | Unreadable]:
    raw = text.encode() if isinstance(text, str) else text
    return list(records_in(raw.splitlines(keepends=True), DEFAULTS))


def one(text: str | bytes) -> SourceEvent:
    (record,) = read(text)
    assert isinstance(record, SourceEvent), record
    return record


def values(text: bytes) -> list[bytes | None]:
    return [record.value for record in read(text) if isinstance(record, SourceEvent)]


KCAT = {
    "topic": "sales",
    "partition": 3,
    "offset": 17,
    "tstype": "create",
    "ts": 1762162200000,
    "broker": 1,
    "headers": ["trace", "x", "empty", None],
    "key": "A-1",
    "payload": VALUE,
}


def test_kcat_prints_records_and_their_values_are_unwrapped() -> None:
    assert one(json.dumps(KCAT)) == SourceEvent(
        topic="sales",
        partition=3,
        offset=17,
        timestamp_ms=1762162200000,
        key=b"A-1",
        value=VALUE.encode(),
        headers=[("trace", b"x"), ("empty", None)],
    )


@pytest.mark.parametrize(
    "record",
    [
        {"Partition": 3, "Offset": 17, "Key": "A-1", "Value": VALUE, "Timestamp": "2026-11-03T09:30:00Z"},  # kafkactl
        {
            "partition": 3,
            "offset": 17,
            "key": "A-1",
            "headers": {},
            "content": VALUE,
            "valueSerde": "String",
        },  # Kafka UI
        {"partition": 3, "offset": 17, "key": "A-1", "headers": [], "value": EVENT},  # Conduktor
    ],
)
def test_other_tools_records_are_unwrapped_too(record: dict[str, object]) -> None:
    found = one(json.dumps(record))
    assert (found.partition, found.offset, found.key) == (3, 17, b"A-1")
    assert json.loads(found.value or b"") == EVENT


_BASE64 = base64.b64encode(VALUE.encode()).decode()


@pytest.mark.parametrize(
    ("exported", "why"),
    [
        ([{"partition": 3, "offset": 17, "value": VALUE}], "a list of exported records"),
        ({"topic": "sales", "partition": 3, "offset": 17, "key": "QQ==", "value": _BASE64}, "in base64"),  # REST Proxy
        ({"eventSource": "aws:kafka", "records": {"sales-3": [{"offset": 17, "value": _BASE64}]}}, "AWS Lambda"),
    ],
)
def test_an_export_that_cannot_be_unwrapped_is_no_event(exported: object, why: str) -> None:
    (found,) = read(json.dumps(exported))
    assert isinstance(found, Unreadable)
    assert why in found.why


def test_a_tombstone_is_exported_as_null() -> None:
    assert one(json.dumps({**KCAT, "payload": None, "key": None})) == SourceEvent(
        topic="sales",
        partition=3,
        offset=17,
        timestamp_ms=1762162200000,
        key=None,
        value=None,
        headers=[("trace", b"x"), ("empty", None)],
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_rpk_prints_records_over_many_lines(indent: int | None) -> None:
    printed = {
        "topic": "sales",
        "key": "A-1",
        "value": VALUE,
        "headers": [{"key": "trace", "value": "x"}],
        "timestamp": 1762162200000,
        "partition": 3,
        "offset": 17,
    }
    first, second = read("\n".join([json.dumps(printed, indent=indent)] * 2))
    assert isinstance(first, SourceEvent)
    assert (first.value, first.key, first.headers) == (VALUE.encode(), b"A-1", [("trace", b"x")])
    assert second == first


def test_a_value_that_the_tool_decoded_keeps_its_numbers() -> None:
    assert one('{"partition":0,"offset":1,"value":{"total": 199.00}}').value == b'{"total":199.00}'


@pytest.mark.parametrize(
    "event", [{"topic": "orders/create", "body": {}}, {"partition": 1, "offset": 2, "payload": "x", "orderId": "A-1"}]
)
def test_an_event_that_looks_a_bit_like_an_export_is_an_event(event: dict[str, object]) -> None:
    assert one(json.dumps(event)).value == json.dumps(event).encode()


@pytest.mark.parametrize(
    ("line", "key", "timestamp_ms", "headers", "place"),
    [
        (f"A-1\t{VALUE}", b"A-1", None, (), (0, 0)),
        (f"null\t{VALUE}", None, None, (), (0, 0)),
        (f"CreateTime:1762162200000\t{VALUE}", None, 1762162200000, (), (0, 0)),
        (f"CreateTime:1762162200000\tA-1\t{VALUE}", b"A-1", 1762162200000, (), (0, 0)),
        (f"LogAppendTime:1762162200000\tPartition:3\tOffset:17\tA-1\t{VALUE}", b"A-1", 1762162200000, (), (3, 17)),
        (
            f"CreateTime:1762162200000\tPartition:3\tOffset:17\ttrace:x,empty:null\tA-1\t{VALUE}",
            b"A-1",
            1762162200000,
            [("trace", b"x"), ("empty", None)],
            (3, 17),
        ),
        (f"NO_TIMESTAMP\tNO_HEADERS\tA-1\t{VALUE}", b"A-1", None, [], (0, 0)),
        (f"Partition:3\t{VALUE}", None, None, (), (3, 0)),
    ],
)
def test_console_consumer_separates_fields_by_tabs(
    line: str, key: bytes | None, timestamp_ms: int | None, headers: object, place: tuple[int, int]
) -> None:
    record = one(line + "\n")
    assert (record.value, record.key, record.timestamp_ms) == (VALUE.encode(), key, timestamp_ms)
    assert (record.headers, (record.partition, record.offset)) == (headers, place)


def test_console_consumer_prints_a_tombstone_as_null() -> None:
    assert one("A-1\tnull\n").value is None


@pytest.mark.parametrize("line", ["A-1\tSHIPPED\t12", "A-1\tSHIPPED\ttrue", "A-1\tSHIPPED\tnull"])
def test_columns_that_are_separated_by_tabs_are_one_value(line: str) -> None:
    assert (one(line + "\n").value, one(line + "\n").key) == (line.encode(), None)


def test_tabs_inside_json_do_not_make_an_export_of_it() -> None:
    assert one('{\t"orderId":\t"A-1"}').value == b'{\t"orderId":\t"A-1"}'
    assert one('A-1\t{\t"orderId":\t"A-1"}').value == b'{\t"orderId":\t"A-1"}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"A-1:{VALUE}", "stand before the JSON value"),
        (f"A-1|{VALUE}", "stand before the JSON value"),
        ("% Reached end of topic orders [0] at offset 3: exiting", "what the tool itself says"),
        ("Processed a total of 3 messages", "what the tool itself says"),
        (f"% Reached end {VALUE}", "stand before the JSON value"),
        (json.dumps({**KCAT, "payload": "\ufffd"}, ensure_ascii=False), "not UTF-8"),
        (json.dumps({**KCAT, "headers": ["odd"]}), "not a record's"),
        (json.dumps({"source_topic": "a", "source_offset": 1, "reason": "rejected", "redriven": False}), "no value"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    (record,) = read(text)
    assert isinstance(record, Unreadable)
    assert why in record.why


def test_a_dead_letter_is_the_record_that_became_one() -> None:
    event = SourceEvent(
        topic="orders",
        partition=2,
        offset=17,
        timestamp_ms=1762162200000,
        key=b"A-1",
        value=VALUE.encode(),
        headers=[("trace", b"x")],
    )
    dead_letter = dead_letter_of_event(event, Reason.INVALID_EVENT, "why", 5.0, "shipped")
    headers = [
        text
        for name, value in dead_letter.headers
        for text in (name, value.decode() if isinstance(value, bytes) else value)
    ]
    exported = {**KCAT, "topic": "orders.engage.dead-letters", "headers": headers, "key": "A-1", "payload": VALUE}
    assert one(json.dumps(exported)) == event


OBJECTS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=9), min_size=1, max_size=3)


@given(st.lists(OBJECTS, min_size=1), st.sampled_from([None, 0, 2]), st.booleans())
def test_events_are_found_in_lines_and_documents_alike(
    events: list[dict[str, object]], indent: int | None, ascii_only: bool
) -> None:
    lines = b"".join(json.dumps(event, ensure_ascii=ascii_only).encode() + b"\r\n" for event in events)
    documents = "\n".join(json.dumps(event, indent=indent, ensure_ascii=ascii_only) for event in events).encode()
    for text in (lines, documents):
        assert [json.loads(value or b"") for value in values(text)] == events


@given(st.binary(), st.none() | st.binary(max_size=9).map(lambda raw: base64.b64encode(raw).decode()))
def test_no_text_crashes_it(text: bytes, key: str | None) -> None:
    for line in (text, b"CreateTime:1\t" + text, json.dumps({**KCAT, "key": key}).encode() + b"\n" + text):
        assert all(isinstance(record, SourceEvent | Unreadable) for record in read(line))


def test_an_events_own_text_reaches_the_decoder_so_that_what_it_would_refuse_is_seen() -> None:
    assert values(b'{"a":1,"a":2}\n{"a": 1.0}') == [b'{"a":1,"a":2}', b'{"a": 1.0}']


@pytest.mark.parametrize("line", [b'{"a":1}\n', b'CreateTime:1\tA-1\t{"a":1}\n'])
def test_events_are_judged_while_more_of_them_come(line: bytes) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield line

    first = next(records_in(endless(), DEFAULTS))
    assert isinstance(first, SourceEvent)
    assert first.value == b'{"a":1}'
