"""Readers of values by their schema: Avro, JSON Schema, Protobuf, by confluent-kafka's own deserialisers.

Rules:
 1. A reader has all that it needs: its deserialiser asks the schemas that were fetched, and never the network.
 2. What a reader returns is JSON: values.py says what becomes of decimals, bytes and times. An enum of Protobuf is its
    name, and an empty text of Protobuf is null: it cannot tell it from one that was not set.
 3. A value that its logical type does not allow, as the time of a far end that means "never", is read as what it is
    written as (https://avro.apache.org/docs/1.12.0/specification/#logical-types). One field stops no event.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from io import BytesIO
from typing import TYPE_CHECKING, cast

import fastavro.read
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaParseException, UnknownType
from confluent_kafka.schema_registry.schema_registry_client import RegisteredSchema
from confluent_kafka.schema_registry.serde import SchemaId

from consumer.events.decoding import TOO_DEEP, Undecodable
from consumer.events.formats import debezium
from consumer.events.formats.formats import Named, Reader
from consumer.events.formats.values import TooDeepError, as_json, single
from consumer.kafka.registry.schemas import RegistryError, UnusableSchemaError

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

# No subject is needed to read a value, and the default strategy would ask the registry for one.
_BY_ID = {"subject.name.strategy.type": "TOPIC"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A schema, and those it refers to by subject and version."""

    schema: Schema
    references: Mapping[tuple[str, int], Schema]


class _Known:
    """What a deserialiser asks in place of a registry's client (rule 1)."""

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched

    def config(self) -> dict[str, object]:
        return {}

    def get_schema(self, *_: object) -> Schema:
        return self._fetched.schema

    get_schema_by_guid = get_schema

    def get_version(self, subject: str, version: int, *_: object) -> RegisteredSchema:
        schema = self._fetched.references[subject, version]
        return RegisteredSchema(subject=subject, version=version, schema_id=None, guid=None, schema=schema)


def reader_of(fetched: Fetched, *, is_validated: bool = True) -> Reader | Undecodable:
    """Return what reads the values of a schema, or why nothing does.

    `is_validated`: JSON is held to its schema; Avro and Protobuf cannot be read otherwise.
    """
    kind = fetched.schema.schema_type or "AVRO"
    try:
        match kind:
            case "AVRO":
                return _avro(fetched)
            case "JSON":
                from consumer.kafka.registry.json_schema import json_reader  # noqa: PLC0415 - an import of 100 ms

                return json_reader(fetched.schema, _by_name(fetched), client_of(fetched), is_validated=is_validated)
            case "PROTOBUF":
                from consumer.kafka.registry.protobuf import protobuf_reader  # noqa: PLC0415 - an import of 100 ms

                return protobuf_reader(fetched.schema, _by_name(fetched))
    except (OSError, subprocess.SubprocessError) as error:  # this machine's trouble, not the schema's
        raise RegistryError(f"its schema could not be compiled ({type(error).__name__})") from None
    except UnusableSchemaError as error:
        return Undecodable(f"its schema cannot be used: {error}")
    except Exception as error:  # noqa: BLE001 - a library's parser, given whatever somebody registered
        return Undecodable(f"its schema cannot be used ({type(error).__name__})")
    return Undecodable("its schema is neither Avro nor JSON Schema nor Protobuf")


def _by_name(fetched: Fetched) -> dict[str, Schema]:
    """Return what a schema refers to, by the names under which it is imported."""
    found: dict[str, Schema] = {}
    for schema in (fetched.schema, *fetched.references.values()):
        for each in schema.references or ():
            if each.name is not None and each.subject is not None and each.version is not None:
                found[each.name] = fetched.references[each.subject, each.version]
    return found


def client_of(fetched: Fetched) -> SchemaRegistryClient:
    """Return a registry's client that knows only what was fetched."""
    return cast("SchemaRegistryClient", _Known(fetched))


def _avro(fetched: Fetched) -> Reader:
    written: object = json.loads(fetched.schema.schema_str or "null")
    references = {at: _reading_single(each) for at, each in fetched.references.items()}
    deserialise = AvroDeserializer(client_of(Fetched(_reading_single(fetched.schema), references)), conf=_BY_ID)
    convert = debezium.conversion(written)
    names = [_record_name(each) for each in (written if isinstance(written, list) else [written])]

    def read(value: bytes, *, as_change: bool) -> Named | Undecodable:
        try:
            event = as_json(deserialise(value))
        except TooDeepError:
            return Undecodable(TOO_DEEP)
        except (SchemaParseException, UnknownType) as error:  # it parses the schema with the first value
            return Undecodable(f"its schema cannot be used ({type(error).__name__})")
        except Exception as error:  # noqa: BLE001 - the library's decoder, given any bytes
            return not_its_schema(error)
        if as_change:
            event = debezium.unwrapped(event if convert is None else convert(event))
            if isinstance(event, Undecodable):
                return event
        return Named(event, names[_branch(value)] if isinstance(written, list) else names[0])

    return read


def _branch(value: bytes) -> int:
    """Return which of a union's schemas a framed value has.

    It is the number before the value (https://avro.apache.org/docs/1.12.0/specification/#unions-1).
    """
    behind_frame = SchemaId("AVRO").from_bytes(BytesIO(value))
    return cast("int", fastavro.schemaless_reader(behind_frame, "int", None))


def _record_name(schema: object) -> str | None:
    """Return the full name of what an Avro schema describes; None: it has none. In a union it may be a reference."""
    match schema:
        case {"type": "record" | "enum" | "fixed", "name": str(name), **rest}:
            namespace = rest.get("namespace")
            return f"{namespace}.{name}" if namespace and "." not in name else name
        case str() if schema not in _PRIMITIVES:
            return schema
    return None


_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


_SINGLE = "engage-relay-single"
_Logical = Callable[..., object]
fastavro.read.LOGICAL_READERS[f"float-{_SINGLE}"] = lambda value, *_: single(value)


def _nanoseconds(zone: tzinfo | None) -> _Logical:
    return lambda value, *_: (_EPOCH + timedelta(microseconds=value // 1000)).replace(tzinfo=zone)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
fastavro.read.LOGICAL_READERS["long-timestamp-nanos"] = _nanoseconds(UTC)
fastavro.read.LOGICAL_READERS["long-local-timestamp-nanos"] = _nanoseconds(None)


def _or_as_it_came(read: _Logical) -> _Logical:
    """Return a reader of a logical type that leaves alone what it cannot read (rule 3)."""

    def reads(value: object, *schema: object) -> object:
        try:
            return read(value, *schema)
        except (ValueError, ArithmeticError):  # the year 292278994, the uuid "unknown"
            return value

    return reads


fastavro.read.LOGICAL_READERS.update(
    {name: _or_as_it_came(read) for name, read in fastavro.read.LOGICAL_READERS.items()}
)


def _reading_single(schema: Schema) -> Schema:
    written: object = json.loads(schema.schema_str or "null")
    return Schema(json.dumps(_with_single(written)), "AVRO", schema.references)


def _with_single(schema: object) -> object:
    """Return an Avro schema whose numbers of single precision are read by `single`."""
    match schema:
        case "float":
            return {"type": "float", "logicalType": _SINGLE}
        case list():
            return [_with_single(each) for each in schema]
        case dict():
            return {key: _with_single(inner) if key in _OF_TYPES else inner for key, inner in schema.items()}
    return schema


_OF_TYPES = ("type", "items", "values", "fields")


def not_its_schema(error: Exception) -> Undecodable:
    """Say that a value is not what its schema says. The library's text may hold contents."""
    name = type(error).__name__
    return Undecodable(f"its bytes are not what its schema says ({name})")
