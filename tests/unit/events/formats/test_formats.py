"""What a topic's values look like before they are events, and what is said of a value that does not look so."""

from __future__ import annotations

import base64
import codecs
import gzip
import json
from typing import Any

import pytest
from pydantic import ValidationError

from consumer.events.decoding import Undecodable
from consumer.events.formats.formats import Awaiting, Formats, TopicFormat
from consumer.events.formats.text import MAX_GZIP_PARTS, MAX_UNPACKED_BYTES
from consumer.events.numbers import written

HERE = "orders"
CE = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.shipped"}
BATCH = b"application/cloudevents-batch+json"
CE_HEADERS: list[tuple[str, bytes | None]] = [(f"ce_{name}", value.encode()) for name, value in CE.items()]


def read(
    value: bytes, *, headers: list[tuple[str, bytes | None]] | None = None, **configured: Any
) -> object | Undecodable | Awaiting:
    return Formats({HERE: TopicFormat(**configured)}).decode(HERE, value, headers or [])


def refused(value: bytes, **how: Any) -> str:
    event = read(value, **how)
    assert isinstance(event, Undecodable), event
    return event.detail


def test_a_topic_that_is_not_named_holds_json() -> None:
    assert Formats({"other": TopicFormat(format="plain")}).decode(HERE, b'{"a":1}', []) == {"a": 1}


# plain: encodings and compression


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("utf-8", codecs.BOM_UTF8 + '{"namn":"Åsa"}'.encode()),
        ("utf-16", '{"namn":"Åsa"}'.encode("utf-16")),
        ("utf-16", codecs.BOM_UTF16_BE + '{"namn":"Åsa"}'.encode("utf-16-be")),
        ("utf-16", '{"namn":"Åsa"}'.encode("utf-16-le")),
        ("utf-16", '{"namn":"Åsa"}'.encode("utf-16-be")),
        ("latin-1", '{"namn":"Åsa"}'.encode("latin-1")),
    ],
)
@pytest.mark.parametrize("form", ["plain", "json"])
def test_text_of_every_encoding_is_read(form: str, encoding: str, raw: bytes) -> None:
    assert read(raw, format=form, encoding=encoding) == {"namn": "Åsa"}
    assert read(gzip.compress(raw), format=form, encoding=encoding, compression="gzip") == {"namn": "Åsa"}


def test_what_is_not_json_is_one_text_in_a_plain_topic() -> None:
    assert read(b"SHIPPED;A-1001;2026-11-03", format="plain") == "SHIPPED;A-1001;2026-11-03"
    assert read(b"0012", format="plain") == "0012"
    for line in ('"A-1";"SHIPPED"', '"A-1","say ""hi""","x"', '"""A""-1"\tSHIPPED', '"{";x'):
        assert read(line.encode(), format="plain") == line
    assert read(b'"A-1"', format="plain") == "A-1"
    assert read(rb'"A\",1"', format="plain") == 'A",1'


def test_the_line_break_at_a_plain_texts_end_is_no_part_of_its_last_field() -> None:
    assert read(b"A-1001;SHIPPED\r\n", format="plain") == "A-1001;SHIPPED"
    assert read("A-1001;SHIPPED\n".encode("utf-16"), format="plain", encoding="utf-16") == "A-1001;SHIPPED"
    assert read(b"A-1001\nSHIPPED \n", format="plain") == "A-1001\nSHIPPED "


def test_a_plain_value_that_begins_as_json_must_be_json() -> None:
    for cut in (b'{"a":', b'["a",', b'"A-1', b'"A-1" x'):
        assert "not JSON" in refused(cut, format="plain")
    assert "twice" in refused(b'{"a":1,"a":2}', format="plain")


def test_numbers_leave_as_they_came_also_from_other_encodings() -> None:
    event = read('{"total":199.00}'.encode("utf-16"), format="plain", encoding="utf-16")
    assert written(event) == b'{"total":199.00}'


def test_a_damaged_or_cut_value_is_no_event() -> None:
    packed = gzip.compress(b'{"a":1}')
    assert refused(b'{"a":1}', compression="gzip") == "not gzip, or damaged"
    assert refused(packed[:-3], compression="gzip") == "gzip that ends too early"
    assert refused(packed + b"rest", compression="gzip") == "not gzip, or damaged"
    assert refused(b"{\x00\xff", encoding="utf-16") == "not UTF-16 at byte 2"
    assert refused(b"\x00\xd8\x00", encoding="utf-16").startswith("not UTF-16")


@pytest.mark.parametrize(
    ("encoding", "raw", "why"),
    [
        ("utf-16", b'{"a":1}', "not UTF-16: it looks like JSON"),
        ("utf-16", b"A-1;shipped", "not UTF-16: it begins with byte 65"),
        ("latin-1", '{"a":1}'.encode("utf-16"), "not Latin-1: it looks like UTF-16"),
        ("latin-1", "A-1;å".encode(), "not Latin-1: it looks like UTF-8"),
        ("latin-1", gzip.compress(b"{}", mtime=0), "not Latin-1: it looks like gzip"),
        ("utf-8", '{"å":1}'.encode("utf-16"), "not UTF-8 at byte 0: it looks like UTF-16"),
    ],
)
def test_bytes_of_another_encoding_never_become_a_text_that_nobody_wrote(encoding: str, raw: bytes, why: str) -> None:
    assert refused(raw, format="plain", encoding=encoding) == why


@pytest.mark.parametrize("text", ["<?xml version='1.0'?><état/>", "eyJ;é", "Struct{é}"])
def test_a_text_in_latin_1_may_begin_like_something_that_is_no_json(text: str) -> None:
    assert read(text.encode("latin-1"), format="plain", encoding="latin-1") == text


def test_latin_1_has_the_signs_that_windows_writes_into_it() -> None:
    assert read("199 € ‰ Åre".encode("cp1252"), format="plain", encoding="latin-1") == "199 € ‰ Åre"
    assert read(b"\x81\xe5", format="plain", encoding="latin-1") == "\x81å"  # there is no such sign


def test_gzip_in_several_parts_is_read_as_one() -> None:
    assert read(gzip.compress(b'{"a":') + gzip.compress(b"1}"), compression="gzip") == {"a": 1}


def test_thousands_of_empty_parts_do_not_hold_up_the_event_loop() -> None:
    empty = gzip.compress(b"")
    fits = read(empty * (MAX_GZIP_PARTS - 1) + gzip.compress(b"{}"), compression="gzip")
    assert fits == {}
    over = empty * MAX_GZIP_PARTS + gzip.compress(b"{}")
    assert refused(over, compression="gzip") == "gzip of more than 1000 parts"


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * (MAX_UNPACKED_BYTES + 1))
    assert len(bomb) < 20_000
    assert refused(bomb, compression="gzip") == "gzip of more than 16 MiB"
    half = gzip.compress(b"0" * (MAX_UNPACKED_BYTES // 2 + 1))
    assert refused(half + half, compression="gzip") == "gzip of more than 16 MiB"


@pytest.mark.parametrize("form", ["confluent", "cloudevents"])
def test_an_encoding_where_the_format_says_it_itself_is_refused(form: str) -> None:
    with pytest.raises(ValidationError, match="takes no encoding"):
        TopicFormat.model_validate({"format": form, "encoding": "latin-1"})


# cloudevents


@pytest.mark.parametrize(
    "content_type", [None, "application/cloudevents+json", "Application/CloudEvents+JSON; charset=utf-8"]
)
def test_a_structured_event_is_its_attributes_and_data(content_type: str | None) -> None:
    event = {**CE, "data": {"orderId": "A-1"}}
    headers: list[tuple[str, bytes | None]] = [] if content_type is None else [("content-type", content_type.encode())]
    assert read(json.dumps(event).encode(), format="cloudevents", headers=headers) == event


@pytest.mark.parametrize(
    "content_type", [b"application/json", b"application/vnd.shop+json", b"APPLICATION/JSON; charset=UTF-8"]
)
def test_a_binary_event_comes_out_like_a_structured_one(content_type: bytes) -> None:
    event = read(b'{"orderId":"A-1"}', format="cloudevents", headers=[*CE_HEADERS, ("content-type", content_type)])
    assert event == {**CE, "datacontenttype": content_type.decode(), "data": {"orderId": "A-1"}}


def test_a_binary_event_in_another_charset() -> None:
    headers = [*CE_HEADERS, ("content-type", b"application/json; charset=iso-8859-1")]
    event = read('{"a":"Å"}'.encode("latin-1"), format="cloudevents", headers=headers)
    assert isinstance(event, dict)
    assert event["data"] == {"a": "Å"}
    headers[-1] = ("content-type", b"application/json; charset=windows-1252")
    event = read('{"a":"199 €"}'.encode("cp1252"), format="cloudevents", headers=headers)
    assert isinstance(event, dict)
    assert event["data"] == {"a": "199 €"}
    headers[-1] = ("content-type", b"application/json; charset=ebcdic")
    assert refused(b"{}", format="cloudevents", headers=headers) == "a charset that is not supported"


def test_data_that_is_no_json_is_text_or_stays_bytes() -> None:
    text = read(b"A-1;shipped", format="cloudevents", headers=[*CE_HEADERS, ("content-type", b"text/csv")])
    assert isinstance(text, dict)
    assert text["data"] == "A-1;shipped"
    raw = read(b"\xff\xfe", format="cloudevents", headers=[*CE_HEADERS, ("content-type", b"image/png")])
    assert isinstance(raw, dict)
    assert raw["data_base64"] == "//4="
    none = read(b"{}", format="cloudevents", headers=CE_HEADERS)
    assert isinstance(none, dict)
    assert none["data"] == {}


def test_a_batch_is_a_list_of_events_with_their_data_unpacked() -> None:
    data = base64.b64encode(b'{"total":199.00}').decode()
    batch = [{**CE, "data": {"orderId": "A-1"}}, {**CE, "id": "2", "data_base64": data}]
    headers: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents-batch+json; charset=utf-8")]
    event = read(json.dumps(batch).encode(), format="cloudevents", headers=headers)
    assert written(event) == written([batch[0], {**CE, "id": "2"}])[:-2] + b',"data":{"total":199.00}}]'
    assert read(b"[]", format="cloudevents", headers=headers) == []


def test_data_in_base64_is_data() -> None:
    def unpacked(data: bytes, **others: str) -> object:
        event = {**CE, **others, "data_base64": base64.b64encode(data).decode()}
        found = read(json.dumps(event).encode(), format="cloudevents")
        assert isinstance(found, dict), found
        return found.get("data")

    assert unpacked(b'{"a":1}') == {"a": 1}
    assert unpacked(b"plain words") == "plain words"
    assert unpacked(b"<a/>", datacontenttype="application/xml") == "<a/>"
    assert unpacked(b"\xff\xff") is None


@pytest.mark.parametrize("value", [None, b"", b"null"])
def test_a_binary_event_without_data_is_its_attributes_and_no_tombstone(value: bytes | None) -> None:
    formats = Formats({HERE: TopicFormat(format="cloudevents")})
    assert formats.is_event_without_value(HERE, CE_HEADERS)
    assert formats.decode(HERE, value, CE_HEADERS) == {**CE, "data": None}


@pytest.mark.parametrize(("form", "headers"), [("cloudevents", []), ("json", CE_HEADERS)])
def test_without_an_events_headers_a_record_without_value_is_a_tombstone(
    form: Any, headers: list[tuple[str, bytes | None]]
) -> None:
    assert not Formats({HERE: TopicFormat(format=form)}).is_event_without_value(HERE, headers)


@pytest.mark.parametrize(("prefix", "protocol"), [("ce-", "HTTP"), ("cloudEvents:", "AMQP"), ("cloudEvents_", "AMQP")])
def test_headers_of_another_protocol_are_recognised(prefix: str, protocol: str) -> None:
    headers: list[tuple[str, bytes | None]] = [(f"{prefix}{name}", value.encode()) for name, value in CE.items()]
    why = refused(b'{"orderId": "A-1"}', format="cloudevents", headers=headers)
    assert why.endswith(f"its headers begin with `{prefix.lower()}`, as in {protocol}: in Kafka they begin with `ce_`")


@pytest.mark.parametrize(("wrong", "found"), [(7, "a number"), ({"a": 1}, "an object")])
def test_an_attribute_of_another_type_is_not_called_missing(wrong: object, found: str) -> None:
    why = refused(json.dumps({**CE, "id": wrong}).encode(), format="cloudevents")
    assert why == f"no CloudEvent: id is {found}, not a text"


@pytest.mark.parametrize("missing", ["specversion", "id", "source", "type"])
def test_what_lacks_a_required_attribute_is_no_cloudevent(missing: str) -> None:
    event = {name: value for name, value in CE.items() if name != missing}
    assert refused(json.dumps(event).encode(), format="cloudevents") == f"no CloudEvent: {missing} is missing or empty"
    headers = [(name, value) for name, value in CE_HEADERS if name != f"ce_{missing}"]
    assert (
        refused(b"{}", format="cloudevents", headers=headers)
        == f"no CloudEvent: header ce_{missing} is missing or empty"
    )


@pytest.mark.parametrize(
    ("value", "content_type", "why"),
    [
        (b"{}", b"application/cloudevents+avro", "a CloudEvent in another form than JSON"),
        (b"{}", BATCH, "no batch of CloudEvents: JSON, but an object"),
        (b"[]", b"application/cloudevents+json", "no CloudEvent: JSON, but a list"),
        (
            b'[{"id":"1"}]',
            b"application/cloudevents-batch+json",
            "item 0: no CloudEvent: specversion is missing or empty",
        ),
        (b"3", b"", "no CloudEvent: JSON, but a number"),
        (json.dumps({**CE, "specversion": "9"}).encode(), b"", "a CloudEvent of another version than 1.0 and 0.3"),
        (
            json.dumps({**CE, "data": 1, "data_base64": "AA=="}).encode(),
            b"",
            "a CloudEvent with both data and data_base64",
        ),
        (json.dumps({**CE, "data_base64": "!"}).encode(), b"", "data_base64: not base64"),
        (json.dumps({**CE, "data_base64": 7}).encode(), b"", "data_base64: not base64"),
    ],
)
def test_what_is_no_cloudevent_says_why(value: bytes, content_type: bytes, why: str) -> None:
    assert refused(value, format="cloudevents", headers=[("content-type", content_type)]) == why


def test_what_is_not_there_may_be_written_as_null() -> None:
    event = {**CE, "data": {"orderId": "A-1"}, "data_base64": None, "subject": None, "dataschema": None}
    assert read(json.dumps(event).encode(), format="cloudevents") == event
    coded = {**CE, "data": None, "data_base64": base64.b64encode(b'{"orderId":"A-1"}').decode()}
    assert read(json.dumps(coded).encode(), format="cloudevents") == {**CE, "data": {"orderId": "A-1"}}


# debezium


def field(name: str, kind: str, semantic: str | None = None, **parameters: str) -> dict[str, object]:
    found: dict[str, object] = {"field": name, "type": kind}
    if semantic is not None:
        found["name"] = semantic
    if parameters:
        found["parameters"] = parameters
    return found


ROW = [
    field("id", "int64"),
    field("total", "bytes", "org.apache.kafka.connect.data.Decimal", scale="2"),
    field("weight", "struct", "io.debezium.data.VariableScaleDecimal"),
    field("day", "int32", "io.debezium.time.Date"),
    field("at_ms", "int64", "io.debezium.time.Timestamp"),
    field("at_us", "int64", "io.debezium.time.MicroTimestamp"),
    field("at_ns", "int64", "io.debezium.time.NanoTimestamp"),
    field("clock", "int64", "io.debezium.time.MicroTime"),
    field("zoned", "string", "io.debezium.time.ZonedTimestamp"),
]
WHOLE = {
    "type": "struct",
    "fields": [
        {"field": "before", "type": "struct", "optional": True, "fields": ROW},
        {"field": "after", "type": "struct", "optional": True, "fields": ROW},
        field("op", "string"),
        field("ts_ms", "int64"),
    ],
}


def change(after: dict[str, object] | None, op: str = "u", before: dict[str, object] | None = None) -> dict[str, Any]:
    payload = {"before": before, "after": after, "op": op, "ts_ms": 1_793_698_200_100}
    event = read(json.dumps({"schema": WHOLE, "payload": payload}).encode(), format="debezium")
    assert isinstance(event, dict), event
    return event


def unscaled(number: int) -> str:
    return base64.b64encode(number.to_bytes(8, "big", signed=True)).decode()


def test_a_row_with_its_schema_has_numbers_and_times_that_can_be_read() -> None:
    event = change(
        {
            "id": 7,
            "total": unscaled(19900),
            "weight": {"scale": 3, "value": unscaled(-1500)},
            "day": 20_760,
            "at_ms": 1_793_698_200_123,
            "at_us": 1_793_698_200_123_456,
            "at_ns": 1_793_698_200_123_456_789,
            "clock": 34_200_000_000,
            "zoned": "2026-11-03T09:30:00Z",
        }
    )
    after = event["after"]
    assert written(after["total"]) == b"199.00"
    assert written(after["weight"]) == b"-1.500"
    assert after["day"] == "2026-11-03"
    assert after["at_ms"] == "2026-11-03T09:30:00.123000"
    assert after["at_us"] == after["at_ns"] == "2026-11-03T09:30:00.123456"
    assert after["clock"] == "09:30:00"
    assert after["zoned"] == "2026-11-03T09:30:00Z"
    assert event["ts_ms"] == 1_793_698_200_100


@pytest.mark.parametrize(
    ("weight", "exactly"),
    [
        ({"scale": 0, "value": unscaled(1001)}, 1001),
        ({"scale": 0, "value": unscaled(-(2**63))}, -(2**63)),
        ({"scale": -2, "value": unscaled(10)}, 1000),
        ({"scale": 0, "value": unscaled(0)}, 0),
    ],
)
def test_a_decimal_without_decimals_is_an_integer_for_it_may_be_an_id(weight: object, exactly: int) -> None:
    found = change({"weight": weight})["after"]["weight"]
    assert (found, type(found)) == (exactly, int)
    assert written(found) == str(exactly).encode()


@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_absent_and_null_columns_stay_so(op: str) -> None:
    assert change({"id": 1, "total": None}, op)["after"] == {"id": 1, "total": None}


def test_the_values_of_a_map_are_converted() -> None:
    decimals = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    schema = {"type": "struct", "fields": [{"field": "by_sku", "type": "map", "values": decimals}]}
    for by_sku in ({"a": unscaled(19900)}, [[7, unscaled(19900)]]):
        found = read(json.dumps({"schema": schema, "payload": {"by_sku": by_sku}}).encode(), format="debezium")
        assert b"199.00" in written(found)


UNAVAILABLE = "__debezium_unavailable_value"


@pytest.mark.parametrize("value", [UNAVAILABLE, base64.b64encode(UNAVAILABLE.encode()).decode(), [UNAVAILABLE]])
def test_a_column_that_the_database_did_not_send_is_null_and_never_a_text_for_a_customer(value: object) -> None:
    row = {"id": 1, "note": value, "text": f"{UNAVAILABLE} is a word"}
    known = {**row, "note": None}
    event = {"before": None, "after": row, "op": "u"}
    assert read(json.dumps(event).encode(), format="debezium") == {**event, "after": known}
    assert read(json.dumps({"schema": None, "payload": row}).encode(), format="debezium") == known


def test_a_deletion_has_no_row_after_it() -> None:
    event = change(None, "d", before={"id": 1, "total": unscaled(-1)})
    assert event["op"] == "d"
    assert event["after"] is None
    assert written(event["before"]["total"]) == b"-0.01"


@pytest.mark.parametrize("total", ["199.00", 199.5, 12])
def test_decimals_as_texts_and_doubles_stay_as_they_came(total: object) -> None:
    assert change({"total": total})["after"] == {"total": total}


def test_a_decimal_of_thousands_of_digits_stays_as_it_came() -> None:
    total = base64.b64encode(b"\x7f" * 2000).decode()
    assert change({"total": total})["after"] == {"total": total}


def test_without_a_schema_an_envelope_stays_as_it_came() -> None:
    event = {"before": None, "after": {"id": 1, "at": 1_793_698_200_123_456, "total": "TbE="}, "op": "c"}
    assert read(json.dumps(event).encode(), format="debezium") == event


@pytest.mark.parametrize(
    "value",
    [
        {"orderId": "A-1"},
        '{"orderId":"A-1"}',
        {"schema": {"type": "string", "optional": False}, "payload": '{"orderId":"A-1"}'},
        {"schema": None, "payload": {"orderId": "A-1"}},
    ],
)
def test_an_outbox_event_is_its_payload_however_it_was_converted(value: object) -> None:
    assert read(json.dumps(value).encode(), format="debezium") == {"orderId": "A-1"}


def test_a_payload_that_is_no_json_stays_text_and_a_cut_one_is_no_event() -> None:
    assert read(b'"SHIPPED;A-1"', format="debezium") == "SHIPPED;A-1"
    assert "not JSON" in refused(json.dumps('{"a":').encode(), format="debezium")


def test_a_tombstone_in_the_converters_envelope_is_null() -> None:
    assert read(b'{"schema":null,"payload":null}', format="debezium") is None


# confluent


def test_a_frame_without_a_registry_is_recognised() -> None:
    assert "frame of a Schema Registry (byte 0, schema id 17)" in refused(b"\x00\x00\x00\x00\x11\x02x")


def test_a_value_waits_for_its_schema() -> None:
    class Nothing:
        def reader(self, _: str) -> None:
            return None

    formats = Formats({HERE: TopicFormat(format="confluent")}, Nothing())
    assert formats.decode(HERE, b"\x00\x00\x00\x00\x11\x02x", []) == Awaiting("17", b"\x00\x00\x00\x00\x11\x02x")
    guid = bytes.fromhex("01" + "0123456789abcdef0123456789abcdef")
    waiting = formats.decode(HERE, b"\x02x", [("__value_schema_id", guid)])
    assert waiting == Awaiting("01234567-89ab-cdef-0123-456789abcdef", guid + b"\x02x")
    for value, why in (
        (b'{"a":1}', "looks like JSON"),
        (b"\x07", "begins with byte 7"),
        (b"\x00\x01", "begins with byte 0"),
    ):
        found = formats.decode(HERE, value, [])
        assert isinstance(found, Undecodable)
        assert found.detail == f"no frame of a Schema Registry (byte 0 and the schema's id): {why}"
