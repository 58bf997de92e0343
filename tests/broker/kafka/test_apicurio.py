"""A real registry answers as the one of the tests does: what is registered there is read, what is not is unknown."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from consumer.config.sections.registry import Registry
from consumer.events.decoding import Undecodable
from consumer.kafka.registry.client import ConfluentRegistry
from consumer.kafka.registry.readers import reader_of
from consumer.kafka.registry.schemas import RegistryError, UnknownSchemaError
from tests.support.apicurio import Apicurio
from tests.support.downloads import UnavailableError
from tests.support.registry import event_of, framed

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "orderId", "type": "string"}, {"name": "to", "type": "shop.Address"}],
}
ADDRESS: dict[str, Any] = {
    "type": "record",
    "name": "Address",
    "namespace": "shop",
    "fields": [{"name": "city", "type": "string"}],
}
OBJECT = '{"$schema":"http://json-schema.org/draft-07/schema#","title":"o","type":"object"}'
HERE = SerializationContext("orders", MessageField.VALUE)
BY_TOPIC = {"subject.name.strategy.type": "TOPIC"}


@pytest.fixture(scope="module")
def apicurio() -> Iterator[Apicurio]:
    try:
        registry = Apicurio()
        registry.__enter__()
    except UnavailableError as error:
        pytest.skip(f"no registry: {error}")
    try:
        yield registry
    finally:
        registry.__exit__()


@pytest.fixture
def client(apicurio: Apicurio) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": apicurio.url}) as found:
        yield found


def read(apicurio: Apicurio, value: bytes) -> object:
    schema = str(int.from_bytes(value[1:5], "big"))
    reader = reader_of(ConfluentRegistry(Registry(url=apicurio.url).properties).fetch(schema))
    assert not isinstance(reader, Undecodable), reader
    return event_of(reader, value)


def test_avro_that_refers_to_another_schema_is_read(apicurio: Apicurio, client: SchemaRegistryClient) -> None:
    client.register_schema("address", Schema(json.dumps(ADDRESS), "AVRO"))
    refers = Schema(json.dumps(AVRO), "AVRO", [SchemaReference("shop.Address", "address", 1)])
    number = client.register_schema("orders-avro", refers)
    raw = io.BytesIO()
    named_schemas: dict[str, Any] = {}
    fastavro.parse_schema(ADDRESS, named_schemas)
    fastavro.schemaless_writer(
        raw, fastavro.parse_schema(AVRO, named_schemas), {"orderId": "A-1", "to": {"city": "Lund"}}
    )
    assert read(apicurio, framed(number, raw.getvalue())) == {"orderId": "A-1", "to": {"city": "Lund"}}


def test_what_confluents_serialisers_write_is_read(apicurio: Apicurio, client: SchemaRegistryClient) -> None:
    avro = AvroSerializer(client, json.dumps(ADDRESS), conf=BY_TOPIC)({"city": "Lund"}, HERE)
    assert avro is not None
    assert read(apicurio, avro) == {"city": "Lund"}
    other = SerializationContext("json-orders", MessageField.VALUE)
    written = JSONSerializer(OBJECT, client, conf=BY_TOPIC)({"orderId": "A-1"}, other)
    assert written is not None
    assert read(apicurio, written) == {"orderId": "A-1"}


def test_protobuf_that_imports_another_file_is_read(apicurio: Apicurio, client: SchemaRegistryClient) -> None:
    address = 'syntax = "proto3"; package shop; message Address { string city = 1; }'
    order = 'syntax = "proto3"; import "address.proto"; message Order { string order_id = 1; shop.Address to = 2; }'
    client.register_schema("address.proto", Schema(address, "PROTOBUF"))
    refers = Schema(order, "PROTOBUF", [SchemaReference("address.proto", "address.proto", 1)])
    number = client.register_schema("orders-proto", refers)
    value = framed(number, b"\x00\x0a\x03A-1\x12\x06\x0a\x04Lund")
    assert read(apicurio, value) == {"orderId": "A-1", "to": {"city": "Lund"}}


def test_a_schema_that_it_has_not_is_unknown_and_another_address_is_none(apicurio: Apicurio) -> None:
    with pytest.raises(UnknownSchemaError):
        ConfluentRegistry(Registry(url=apicurio.url).properties).fetch("999999")
    elsewhere = apicurio.url.replace("/apis/ccompat/v7", "/elsewhere")
    with pytest.raises(RegistryError, match="address is wrong"):
        ConfluentRegistry(Registry(url=elsewhere).properties).fetch("1")
    ConfluentRegistry(Registry(url=apicurio.url).properties).check()


def test_json_is_held_to_its_schema_and_to_those_that_it_refers_to(
    apicurio: Apicurio, client: SchemaRegistryClient
) -> None:
    address = '{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","required":["city"]}'
    order = (
        '{"$schema":"http://json-schema.org/draft-07/schema#","type":"object",'
        '"properties":{"total":{"type":"number"},"to":{"$ref":"address.json"}}}'
    )
    client.register_schema("address.json", Schema(address, "JSON"))
    number = client.register_schema(
        "orders-json-2", Schema(order, "JSON", [SchemaReference("address.json", "address.json", 1)])
    )
    assert read(apicurio, framed(number, b'{"total":12.5,"to":{"city":"Lund"}}')) == {
        "total": 12.5,
        "to": {"city": "Lund"},
    }
    wrong = read(apicurio, framed(number, b'{"to":{"zip":"22100"}}'))
    assert isinstance(wrong, Undecodable)
    assert wrong.detail == "it is not what its schema says: to: `required`, without city"
