"""Schemas are fetched from a registry, and values are read by them."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from google.protobuf.message_factory import GetMessageClass
from pydantic import ValidationError

from consumer.config.sections.registry import Registry
from consumer.events.decoding import Undecodable
from consumer.events.expressions import compile_expression
from consumer.events.formats.formats import Named, Reader
from consumer.events.numbers import written
from consumer.kafka.registry.client import ConfluentRegistry
from consumer.kafka.registry.protobuf import compiled
from consumer.kafka.registry.readers import reader_of
from consumer.kafka.registry.schemas import ASK_AGAIN_S, RegistryError, Schemas, UnknownSchemaError
from schemas.dead_letter import Reason
from tests.support.registry import TestRegistry, event_of, framed

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "orderId", "type": "string"},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "tag", "type": ["null", "string"]},
        {"name": "raw", "type": "bytes"},
        {"name": "weight", "type": "double"},
        {"name": "lines", "type": {"type": "array", "items": {"type": "map", "values": "long"}}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["SENT", "BACK"]}},
    ],
}
SENT = {
    "orderId": "A-1",
    "total": Decimal("199.00"),
    "at": datetime(2026, 11, 3, 9, 30, 0, 123456, UTC),
    "local": datetime(2026, 11, 3, 10, 30),  # noqa: DTZ001 - that is what local means
    "day": date(2026, 11, 3),
    "clock": time(9, 30),
    "tag": None,
    "raw": b"\xff\x00",
    "weight": float("nan"),
    "lines": [{"a": 2**62}],
    "state": "SENT",
}
PROTO = """syntax = "proto3"; package shop;
import "google/protobuf/timestamp.proto"; import "address.proto";
message Other { string x = 1; message Inner { string y = 1; } }
message Order { string order_id = 1; uint64 big = 2; google.protobuf.Timestamp at = 3; Address to = 4;
  enum Kind { CONFIRMED = 0; SHIPPED = 1; } Kind kind = 5; string tag = 6; optional string note = 7;
  repeated string lines = 8; bool back = 9; }"""
ADDRESS = 'syntax = "proto3"; package shop; message Address { string city = 1; }'


ENVELOPE = """syntax = "proto3"; package shop;
import "google/protobuf/any.proto"; import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto";
import "google/protobuf/field_mask.proto";
message Envelope { string order_id = 1; bool back = 2; google.protobuf.Any payload = 3;
  map<string, Part> parts = 4; repeated Part list = 5; google.protobuf.Struct more = 6;
  google.protobuf.FieldMask mask = 7; message Part { google.protobuf.Timestamp at = 1; int64 big = 2; } }"""


@pytest.fixture
def registry() -> Iterator[TestRegistry]:
    with TestRegistry() as found:
        found.schemas = {
            1: {"schema": json.dumps(ORDER)},
            2: {"schema": '{"type":"object"}', "schemaType": "JSON"},
            3: {
                "schema": PROTO,
                "schemaType": "PROTOBUF",
                "references": [{"name": "address.proto", "subject": "address", "version": 4}],
            },
            4: {"schema": '{"type":"nonsense"}'},
            5: {"schema": "hm", "schemaType": "THRIFT"},
            6: {"schema": "message {", "schemaType": "PROTOBUF"},
        }
        found.versions = {("address", 4): {"schema": ADDRESS, "schemaType": "PROTOBUF"}}
        yield found


def asking(registry: TestRegistry, **configured: Any) -> ConfluentRegistry:
    return ConfluentRegistry(Registry(url=registry.url, **configured).properties)


def reader(registry: TestRegistry, schema: int) -> Reader:
    found = reader_of(asking(registry).fetch(str(schema)))
    assert not isinstance(found, Undecodable), found
    return found


def avro(schema: dict[str, Any], value: object) -> bytes:
    raw = io.BytesIO()
    fastavro.schemaless_writer(raw, fastavro.parse_schema(schema), value)
    return raw.getvalue()


def test_a_schema_whose_fields_are_tagged_is_read(registry: TestRegistry) -> None:
    """confluent-kafka 2.16.0 raised TypeError for these tags of a data contract: no event of it was ever read."""
    registry.schemas[1] = {**registry.schemas[1], "metadata": {"tags": {"Order.orderId": ["PII"]}}}
    found = event_of(reader(registry, 1), framed(1, avro(ORDER, SENT)))
    assert isinstance(found, dict)
    assert found["orderId"] == "A-1"


def test_an_avro_value_is_read_with_what_its_types_mean(registry: TestRegistry) -> None:
    event = event_of(reader(registry, 1), framed(1, avro(ORDER, SENT)))
    assert isinstance(event, dict)
    assert written(event.pop("total")) == b"199.00"
    assert event == {
        "orderId": "A-1",
        "at": "2026-11-03T09:30:00.123456Z",
        "local": "2026-11-03T10:30:00",
        "day": "2026-11-03",
        "clock": "09:30:00",
        "tag": None,
        "raw": "/wA=",
        "weight": None,
        "lines": [{"a": 2**62}],
        "state": "SENT",
    }


@pytest.mark.parametrize("price", [199.99, 0.1, 1e-7, 16777216.0, 3.4028235e38, -0.5, 123456.79])
def test_an_avro_number_of_single_precision_leaves_as_its_writer_saw_it(registry: TestRegistry, price: float) -> None:
    of_price = {"type": "record", "name": "Price", "fields": [{"name": "each", "type": ["null", "float"]}]}
    order = {
        "type": "record",
        "name": "Prices",
        "fields": [{"name": "float", "type": "float"}, {"name": "lines", "type": {"type": "array", "items": of_price}}],
    }
    registry.schemas[7] = {"schema": json.dumps(order)}
    raw = avro(order, {"float": price, "lines": [{"each": price}, {"each": None}]})
    event = event_of(reader(registry, 7), framed(7, raw))
    assert isinstance(event, dict)
    assert event == {"float": pytest.approx(price, rel=1e-7), "lines": [{"each": event["float"]}, {"each": None}]}
    assert written(event["float"]) == written(price)


FAR, BEFORE_ALL = 2**63 - 1, -(2**63)


def test_a_number_of_single_precision_in_a_referenced_schema_leaves_as_its_writer_saw_it(
    registry: TestRegistry,
) -> None:
    price = {"type": "record", "name": "shop.Price", "fields": [{"name": "each", "type": "float"}]}
    order = {"type": "record", "name": "shop.Order", "fields": [{"name": "price", "type": "shop.Price"}]}
    registry.versions = {("price", 1): {"schema": json.dumps(price)}}
    reference = {"name": "shop.Price", "subject": "price", "version": 1}
    registry.schemas[7] = {"schema": json.dumps(order), "references": [reference]}
    assert event_of(reader(registry, 7), framed(7, avro(price, {"each": 199.99}))) == {"price": {"each": 199.99}}


@pytest.mark.parametrize(
    ("base", "logical", "came", "found"),
    [
        *(("long", f"timestamp-{unit}", FAR, FAR) for unit in ("millis", "micros")),
        *(("long", f"local-timestamp-{unit}", BEFORE_ALL, BEFORE_ALL) for unit in ("millis", "micros")),
        ("long", "time-micros", 86_400_000_000, 86_400_000_000),
        ("int", "date", 2**31 - 1, 2**31 - 1),
        ("string", "uuid", "unknown", "unknown"),
        ("long", "timestamp-nanos", 1_793_698_200_123_456_789, "2026-11-03T09:30:00.123456Z"),
        ("long", "local-timestamp-nanos", 1_793_698_200_123_456_789, "2026-11-03T09:30:00.123456"),
    ],
)
def test_an_avro_value_that_its_logical_type_does_not_allow_stops_no_event(
    registry: TestRegistry, base: str, logical: str, came: object, found: object
) -> None:
    """The end of time stands for "never" in many a database."""
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "id", "type": "string"}, {"name": "x", "type": base}],
    }
    raw = avro(schema, {"id": "A-1", "x": came})
    schema["fields"][1]["type"] = {"type": base, "logicalType": logical}  # type: ignore[index]
    registry.schemas[7] = {"schema": json.dumps(schema)}
    assert event_of(reader(registry, 7), framed(7, raw)) == {"id": "A-1", "x": found}


def test_json_behind_a_frame_keeps_its_numbers(registry: TestRegistry) -> None:
    read = reader(registry, 2)
    assert written(event_of(read, framed(2, b'{"total":199.00}'))) == b'{"total":199.00}'
    assert isinstance(event_of(read, framed(2, b'{"a":1,"a":2}')), Undecodable)


def test_a_protobuf_value_is_read_without_a_generated_class(registry: TestRegistry) -> None:
    fetched = asking(registry).fetch("3")
    read = reader_of(fetched)
    assert not isinstance(read, Undecodable)
    file = compiled(fetched.schema, {"address.proto": fetched.references["address", 4]})
    order = GetMessageClass(file.message_types_by_name["Order"])(
        order_id="A-1", big=2**64 - 1, to={"city": "Lund"}, at=datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
    )
    assert event_of(read, framed(3, b"\x02\x02" + order.SerializeToString())) == {
        "orderId": "A-1",
        "big": "18446744073709551615",
        "at": "2026-11-03T09:30:00Z",
        "to": {"city": "Lund"},
        "kind": "CONFIRMED",
        "tag": None,
        "lines": [],
        "back": False,
    }
    inner = framed(3, b"\x04\x00\x00\x0a\x01y")
    assert event_of(read, inner) == {"y": "y"}
    assert event_of(read, framed(3, b"\x00\x0a\x01x")) == {"x": "x"}


@pytest.mark.parametrize("schema", [1, 2, 3])
@pytest.mark.parametrize("value", [b"", b"\x02", b"\xff" * 40, b"\x02\x7e\x01", b"\x00"])
def test_bytes_that_are_not_what_the_schema_says_are_no_event(
    registry: TestRegistry, schema: int, value: bytes
) -> None:
    event = event_of(reader(registry, schema), framed(schema, value))
    assert isinstance(event, Undecodable) or (schema, value) == (3, b"\x00")


def test_a_protobuf_schema_is_compiled_where_the_root_file_system_is_read_only(
    registry: TestRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    fetched = asking(registry).fetch("3")
    file = compiled(fetched.schema, {"address.proto": fetched.references["address", 4]})
    assert file.message_types_by_name["Order"].name == "Order"


def test_what_protobufs_json_has_no_form_for_stops_no_event(registry: TestRegistry) -> None:
    registry.schemas[8] = {"schema": ENVELOPE, "schemaType": "PROTOBUF"}
    found = asking(registry).fetch("8")
    message: Any = GetMessageClass(compiled(found.schema, {}).message_types_by_name["Envelope"])(order_id="A-1")
    message.payload.type_url, message.payload.value = "type.googleapis.com/shop.Unknown", b"\xff"
    message.parts["p"].at.seconds = 10**12
    message.list.add(big=2**62)
    message.more["rate"] = float("nan")
    message.mask.paths.append("A_b")
    event = event_of(reader(registry, 8), framed(8, b"\0" + message.SerializeToString()))
    assert event == {
        "orderId": "A-1",
        "back": False,
        "payload": {"typeUrl": "type.googleapis.com/shop.Unknown", "value": "/w=="},
        "parts": {"p": {"at": {"seconds": 10**12}, "big": "0"}},
        "list": [{"big": str(2**62)}],
        "more": {"fields": {"rate": {"numberValue": None}}},
        "mask": {"paths": ["A_b"]},
    }


def test_an_avro_row_of_debezium_is_converted_by_the_names_of_its_types(registry: TestRegistry) -> None:
    row = {
        "type": "record",
        "name": "Value",
        "fields": [
            {"name": "id", "type": "long"},
            {
                "name": "created",
                "type": ["null", {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}],
            },
        ],
    }
    envelope = {
        "type": "record",
        "name": "Envelope",
        "fields": [
            {"name": "before", "type": ["null", row]},
            {"name": "after", "type": ["null", "Value"]},
            {"name": "op", "type": "string"},
        ],
    }
    registry.schemas[8] = {"schema": json.dumps(envelope)}
    value = avro(envelope, {"before": None, "after": {"id": 1, "created": 1_793_698_200_123_456}, "op": "c"})
    event = event_of(reader(registry, 8), framed(8, value), as_change=True)
    assert event == {"before": None, "after": {"id": 1, "created": "2026-11-03T09:30:00.123456"}, "op": "c"}


def sort_of(registry: TestRegistry, schema: int, value: bytes) -> str | None:
    found = reader(registry, schema)(framed(schema, value), as_change=False)
    assert isinstance(found, Named)
    return found.record_name


def test_a_value_is_named_as_its_schema_names_it(registry: TestRegistry) -> None:
    """Of events of several sorts in one topic (TopicRecordNameStrategy), often nothing else tells them apart."""
    plain = {"type": "record", "name": "shop.Sent", "fields": ORDER["fields"][:1]}
    registry.schemas |= {
        7: {"schema": json.dumps(plain)},
        8: {"schema": json.dumps({"title": "OrderSent", "type": "object"}), "schemaType": "JSON"},
        9: {"schema": json.dumps({"type": "map", "values": "long"})},
    }
    assert sort_of(registry, 1, avro(ORDER, SENT)) == "shop.Order"
    assert sort_of(registry, 2, b"{}") is None
    assert sort_of(registry, 3, b"\x00\x0a\x01x") == "shop.Other"
    assert sort_of(registry, 3, b"\x04\x00\x00\x0a\x01y") == "shop.Other.Inner"
    assert sort_of(registry, 7, b"\x06A-1") == "shop.Sent"
    assert sort_of(registry, 8, b"{}") == "OrderSent"
    assert sort_of(registry, 9, b"\x00") is None


def test_a_value_of_a_union_is_named_as_its_branch(registry: TestRegistry) -> None:
    """A topic whose subject is a union of references to the events' schemas has one schema for them all."""
    record = {"type": "record", "fields": [{"name": "orderId", "type": "string"}]}
    versions = {("placed", 1): {**record, "name": "shop.Placed"}, ("sent", 3): {**record, "name": "shop.Sent"}}
    references = [
        {"name": schema["name"], "subject": subject, "version": version}
        for (subject, version), schema in versions.items()
    ]
    registry.versions = {each: {"schema": json.dumps(schema)} for each, schema in versions.items()}
    registry.schemas[7] = {"schema": json.dumps(["shop.Placed", "shop.Sent"]), "references": references}
    registry.schemas[8] = {"schema": json.dumps(["null", {**record, "name": "Sent", "namespace": "shop"}])}
    assert sort_of(registry, 7, b"\x00\x06A-1") == "shop.Placed"
    assert sort_of(registry, 7, b"\x02\x06A-1") == "shop.Sent"
    assert event_of(reader(registry, 7), framed(7, b"\x02\x06A-1")) == {"orderId": "A-1"}
    assert sort_of(registry, 8, b"\x02\x06A-1") == "shop.Sent"
    assert sort_of(registry, 8, b"\x00") is None
    guid = bytes(range(16))
    assert reader(registry, 8)(b"\x01" + guid + b"\x02\x06A-1", as_change=False) == Named(
        {"orderId": "A-1"}, "shop.Sent"
    )


@pytest.mark.parametrize("schema", [4, 5, 6])
def test_a_schema_that_cannot_be_used_says_so(registry: TestRegistry, schema: int) -> None:
    found: object = reader_of(asking(registry).fetch(str(schema)))
    if callable(found):
        found = event_of(found, framed(schema, b"\x02x"))
    assert isinstance(found, Undecodable)
    assert found.detail.startswith(("its schema ", "its bytes "))


CONFLUENTS = """syntax = "proto3"; import "confluent/meta.proto"; import "{decimal}";
message Order {{ string id = 1 [(confluent.field_meta).tags = "PII"]; confluent.type.Decimal total = 2; }}"""


@pytest.mark.parametrize("decimal", ["confluent/type/decimal.proto", "confluent/types/decimal.proto"])
def test_a_protobuf_schema_may_import_what_confluents_serialisers_never_register(
    registry: TestRegistry, decimal: str
) -> None:
    """Kafka Connect's converter and tags of data contracts import them: no event of such a topic was ever read."""
    registry.schemas[7] = {"schema": CONFLUENTS.format(decimal=decimal), "schemaType": "PROTOBUF"}
    found = asking(registry).fetch("7")
    message: Any = GetMessageClass(compiled(found.schema, {}).message_types_by_name["Order"])(id="A-1")
    message.total.value, message.total.scale = (19900).to_bytes(3, "big"), 2
    event = event_of(reader(registry, 7), framed(7, b"\0" + message.SerializeToString()))
    assert isinstance(event, dict)
    assert event["id"] == "A-1"
    total = compile_expression("decimal(total.value, total.scale)").search(event)
    assert written(total) == b"199.00"


def test_a_protobuf_import_that_the_registry_does_not_have_is_named(registry: TestRegistry) -> None:
    schema = 'syntax = "proto3"; import "buf/validate/validate.proto"; message Order { string id = 1; }'
    registry.schemas[7] = {"schema": schema, "schemaType": "PROTOBUF"}
    missing = "it imports buf/validate/validate.proto, which is not among its references in the registry"
    assert reader_of(asking(registry).fetch("7")) == Undecodable(f"its schema cannot be used: {missing}")


def test_an_import_leads_nowhere_else(registry: TestRegistry) -> None:
    registry.schemas[3] = {
        **registry.schemas[3],
        "references": [{"name": "../../x.proto", "subject": "address", "version": 4}],
    }
    assert isinstance(reader_of(asking(registry).fetch("3")), Undecodable)


# asking


def test_a_schema_of_a_guid_is_asked_for_by_it(registry: TestRegistry) -> None:
    guid = "01234567-89ab-cdef-0123-456789abcdef"
    registry.by_guid[guid] = registry.schemas[1]
    assert asking(registry).fetch(guid).schema.schema_str == json.dumps(ORDER)


def test_only_the_registrys_own_word_makes_a_schema_unknown(registry: TestRegistry) -> None:
    with pytest.raises(UnknownSchemaError):
        asking(registry).fetch("999")
    for status, why in ((401, "credentials"), (403, "let us read"), (404, "address"), (500, "500"), (429, "429")):
        registry.status = status
        with pytest.raises(RegistryError, match=why):
            asking(registry).fetch("999")


def test_a_registry_that_is_not_there_or_is_none_is_said() -> None:
    gone = TestRegistry()
    with gone:
        url = gone.url
    with pytest.raises(RegistryError, match="cannot be reached"):
        ConfluentRegistry(Registry(url=url).properties).fetch("1")


def test_a_registry_that_does_not_answer_is_given_up_after_its_time_out(registry: TestRegistry) -> None:
    registry.block.clear()
    with pytest.raises(RegistryError, match="cannot be reached"):
        asking(registry, timeout=0.2).fetch("1")


def test_it_logs_in_by_password_or_token_as_they_are_now(registry: TestRegistry, tmp_path: Any) -> None:
    asking(registry, username="me", password="secret").fetch("1")
    assert registry.authorization[-1] == "Basic bWU6c2VjcmV0"
    file = tmp_path / "token"
    file.write_text("first\n")
    by_token = asking(registry, token_file=file)
    by_token.fetch("1")
    assert registry.authorization[-1] == "Bearer first"
    file.write_text("second\r\n", "utf-8-sig")
    by_token.fetch("1")
    assert registry.authorization[-1] == "Bearer second"


@pytest.mark.parametrize(
    ("configured", "why"),
    [
        ({"url": "registry:8081"}, "must be https"),
        ({"url": "https://me:secret@registry"}, "without credentials"),
        ({"url": "http://registry", "username": "me", "password": "secret"}, "url must be https"),
        ({"url": "https://registry", "username": "me"}, "belong together"),
        ({"url": "https://registry", "token": "t", "username": "me", "password": "secret"}, "write one of"),
        ({"url": "https://registry", "logical_cluster": "lsrc-1"}, "belong to a token"),
        ({"url": "https://registry", "key_file": "/key"}, "belongs to a certificate_file"),
    ],
)
def test_a_wrong_login_is_refused_without_showing_it(configured: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as raised:
        Registry.model_validate(configured)
    assert "secret" not in str(raised.value)


# what is known


class Now:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_a_schema_is_fetched_once_and_read_from_then_on(registry: TestRegistry) -> None:
    schemas = Schemas(asking(registry), Now(), reader_of)
    assert schemas.reader("1") is None
    schemas.fetch("1", framed(1, b""))
    assert registry.asked == ["/schemas/ids/1"]
    read = schemas.reader("1")
    assert callable(read)
    assert isinstance(event_of(read, framed(1, avro(ORDER, SENT))), dict)
    assert registry.asked == ["/schemas/ids/1"]


def test_a_schema_that_was_given_up_is_unknown_until_it_is_asked_for_again(registry: TestRegistry) -> None:
    now = Now()
    schemas = Schemas(asking(registry), now, reader_of)
    schemas.give_up("9")
    found = schemas.reader("9")
    assert isinstance(found, Undecodable)
    assert found.reason is Reason.UNKNOWN_SCHEMA
    assert found.detail == "the Schema Registry has no schema id 9"
    now.at += ASK_AGAIN_S + 1
    assert schemas.reader("9") is None
    assert schemas.was_given_up("9")
    registry.schemas[9] = registry.schemas[2]
    schemas.fetch("9", framed(9, b"{}"))
    assert callable(schemas.reader("9"))
    assert not schemas.was_given_up("9")
