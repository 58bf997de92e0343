"""JSON behind a frame is held to its schema: which drafts, which references, and what a dead letter tells."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference

from consumer.events.decoding import Undecodable
from consumer.events.formats.formats import Reader
from consumer.events.numbers import written
from consumer.kafka.registry.readers import Fetched, reader_of
from tests.support.registry import event_of, framed

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "orderId": {"type": "string", "minLength": 1},
        "total": {"type": "number"},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku", "quantity"]}},
        "state": {"enum": ["SENT", "BACK"]},
        "email": {"pattern": "^[^@]+@[^@]+$"},
    },
    "required": ["orderId"],
    "additionalProperties": False,
}


def reader(schema: object, references: Mapping[str, object] | None = None, *, is_validated: bool = True) -> Reader:
    found = reader_of(fetched(schema, references or {}), is_validated=is_validated)
    assert not isinstance(found, Undecodable), found
    return found


def fetched(schema: object, references: Mapping[str, object]) -> Fetched:
    refers = [SchemaReference(name, f"of {name}", 1) for name in references]
    by_subject = {(f"of {name}", 1): Schema(json.dumps(each), "JSON") for name, each in references.items()}
    return Fetched(Schema(json.dumps(schema), "JSON", refers), by_subject)


def read(schema: object, event: object, references: Mapping[str, object] | None = None) -> object:
    return event_of(reader(schema, references), framed(1, json.dumps(event).encode()))


def detail(schema: object, event: object, references: Mapping[str, object] | None = None) -> str:
    found = read(schema, event, references)
    assert isinstance(found, Undecodable), found
    return found.detail


def test_what_is_as_its_schema_says_is_read_and_keeps_its_numbers() -> None:
    value = framed(1, b'{"orderId":"A-1","total":199.00,"state":"SENT"}')
    assert written(event_of(reader(ORDER), value)) == b'{"orderId":"A-1","total":199.00,"state":"SENT"}'


@pytest.mark.parametrize(
    ("event", "field", "rule"),
    [
        ({}, "the value itself", "`required`, without orderId"),
        ([], "the value itself", "`type`, found a list"),
        ({"orderId": 4711}, "orderId", "`type`, found a number"),
        ({"orderId": ""}, "orderId", "`minLength`, found a text"),
        ({"orderId": "A", "total": "12.50"}, "total", "`type`, found a text"),
        ({"orderId": "A", "lines": [{"sku": "s", "quantity": 1}, {}]}, "lines[1]", "`required`, without sku, quantity"),
        ({"orderId": "A", "state": "LOST"}, "state", "`enum`, found a text"),
        ({"orderId": "A", "email": "kim.example.com"}, "email", "`pattern`, found a text"),
        ({"orderId": "A", "lines": [False]}, "lines[0]", "`type`, found a boolean"),
        ({"orderId": "A", "secret": "kim@example.com"}, "the value itself", "`additionalProperties`, found an object"),
    ],
)
def test_a_value_that_breaks_a_rule_names_field_rule_and_type_and_no_value(
    event: object, field: str, rule: str
) -> None:
    assert detail(ORDER, event) == f"it is not what its schema says: {field}: {rule}"


def test_a_value_that_fits_none_of_several_schemas_names_the_nearest() -> None:
    either = {"oneOf": [{"type": "null"}, {"type": "object", "properties": {"id": {"type": "string"}}}]}
    assert detail({"properties": {"order": either}}, {"order": {"id": 1}}).startswith(
        "it is not what its schema says: order"
    )


def test_producers_that_do_not_keep_to_their_schema_can_be_read_all_the_same() -> None:
    value = framed(1, b'{"total":"12.50"}')
    assert event_of(reader(ORDER, is_validated=False), value) == {"total": "12.50"}


def test_what_is_no_json_says_so_as_anywhere_else() -> None:
    for value in (b'{"a":1,"a":2}', b"{", b"\xff\xfe"):
        found = event_of(reader(ORDER), framed(1, value))
        assert isinstance(found, Undecodable)
        assert "schema" not in found.detail
    assert isinstance(event_of(reader(ORDER), b"\x00\x00"), Undecodable)


@pytest.mark.parametrize(
    ("draft", "tuples", "fails"),
    [
        (None, "items", True),
        ("http://json-schema.org/draft-04/schema#", "items", True),
        ("http://json-schema.org/draft-06/schema#", "items", True),
        (DRAFT_7, "items", True),
        (DRAFT_7.rstrip("#"), "items", True),
        ("https://json-schema.org/draft/2019-09/schema", "items", True),
        ("https://json-schema.org/draft/2020-12/schema", "prefixItems", True),
        (DRAFT_7, "prefixItems", False),  # a word that this draft does not know
    ],
)
def test_a_schema_is_taken_by_its_own_draft_and_by_draft_7_without_one(
    draft: str | None, tuples: str, fails: bool
) -> None:
    schema = {**({} if draft is None else {"$schema": draft}), tuples: [{"type": "string"}]}
    assert isinstance(read(schema, [1]), Undecodable) is fails
    assert read(schema, ["a"]) == ["a"]


# references

ADDRESS = {"type": "object", "properties": {"city": {"$ref": "city.json"}}}
CITY = {"type": "string"}


@pytest.mark.parametrize("own", [None, "https://schemas.example/shop/order.json"])
def test_references_are_those_that_were_registered_by_name(own: str | None) -> None:
    schema = {**({} if own is None else {"$id": own}), "properties": {"to": {"$ref": "address.json"}}}
    references = {"address.json": ADDRESS, "city.json": CITY}
    assert read(schema, {"to": {"city": "Lund"}}, references) == {"to": {"city": "Lund"}}
    assert detail(schema, {"to": {"city": 1}}, references).endswith("to.city: `type`, found a number")


def test_a_reference_is_found_by_its_own_id_and_inside_itself_too() -> None:
    address = {"$id": "https://schemas.example/address", "definitions": {"zip": {"type": "string"}}}
    schema = {"properties": {"zip": {"$ref": "https://schemas.example/address#/definitions/zip"}}}
    assert detail(schema, {"zip": 22100}, {"any name": address}).endswith("zip: `type`, found a number")
    tree = {"properties": {"next": {"$ref": "#"}, "id": {"type": "string"}}}
    assert detail(tree, {"next": {"next": {"id": 1}}}).endswith("next.next.id: `type`, found a number")


@pytest.mark.parametrize("where", ["http://127.0.0.1:1/address.json", "https://schemas.example/x", "gone.json"])
def test_nothing_is_fetched_from_the_network(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments, **_: asked.append(arguments))
    found = detail({"properties": {"to": {"$ref": where}}}, {"to": 1})
    assert found == "its schema cannot be used: it refers to a schema that is not registered as its reference"
    assert asked == []


def test_a_schema_that_refers_to_itself_without_end_says_so() -> None:
    assert detail({"$ref": "#"}, 1) == "its schema cannot be used: it refers to itself without end"


@pytest.mark.parametrize("schema", [{"type": "text"}, {"properties": []}, 7, {"minLength": -1}])
def test_a_schema_that_is_none_says_so(schema: object) -> None:
    found = reader_of(fetched(schema, {}))
    assert isinstance(found, Undecodable)
    assert found.detail.startswith("its schema cannot be used")


# patterns


def test_a_pattern_takes_no_longer_than_the_text_is_long() -> None:
    started = time.process_time()
    assert isinstance(read({"pattern": "^(a+)+$"}, "a" * 100_000 + "!"), Undecodable)
    assert time.process_time() - started < 5  # where the engine goes back, the universe ends first


def test_a_pattern_that_needs_look_around_is_not_checked() -> None:
    assert read({"pattern": "^(?!x)a"}, "xyz") == "xyz"


# Debezium and Kafka Connect


def test_a_change_is_held_to_its_schema_before_it_is_unwrapped() -> None:
    schema = {"properties": {"op": {"enum": ["c", "u"]}}}
    assert event_of(reader(schema), framed(1, b'{"op":"c","after":{}}'), as_change=True) == {"op": "c", "after": {}}
    assert isinstance(event_of(reader(schema), framed(1, b'{"op":"x"}'), as_change=True), Undecodable)
