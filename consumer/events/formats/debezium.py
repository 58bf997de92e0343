"""The format `debezium`: change events of a database's rows, and events of the outbox event router.

An event is the envelope as Debezium writes it: `op` (c, u, d, r for a snapshot's rows), `before`, `after`, `source`.
An outbox event is the payload itself. The envelope of Kafka Connect's converter, `{"schema", "payload"}`, is taken off.
(https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types)

Rules:
 1. Where the value brings its schema, its types decide: a decimal that is written as bytes is a number with all its
    digits, a day or time that is written as a count is ISO 8601 text.
 2. A column without a time zone gives a time without one. Debezium counts it as if it were UTC, and it is not: the
    route says which zone it is (`time_zone`), and nothing guesses it.
 3. Without a schema nothing tells a decimal from a text or a time from a number: they stay as they came. Routes have
    `time()` for a time.
 4. A payload that is JSON in a text is read: the outbox's payload column comes so.
 5. A column that the database did not send, since it was not changed, is null: Debezium's text for it is no value, and
    must not get into an e-mail.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

from consumer.events.decoding import Undecodable, decode
from consumer.events.formats.values import base64_number

Convert = Callable[[object], object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_NS = 86_400 * 10**9
_MICROSECOND, _MILLISECOND, _DAY = 10**3, 10**6, _DAY_NS
_ENVELOPE = frozenset({"schema", "payload"})
# `unavailable.value.placeholder`, for a column of texts, of bytes, of a list.
_UNAVAILABLE = "__debezium_unavailable_value"
_UNAVAILABLES = (_UNAVAILABLE, b64encode(_UNAVAILABLE.encode()).decode(), [_UNAVAILABLE])


def read(text: bytes) -> object | Undecodable:
    """Read a change event or an outbox event, with its schema or without."""
    value = decode(text)
    return value if isinstance(value, Undecodable) else unwrapped(value)


def has_envelope(value: object) -> TypeGuard[dict[str, object]]:
    """Tell whether a value is what Kafka Connect's JSON converter writes with its schema."""
    return isinstance(value, dict) and value.keys() == _ENVELOPE


def unwrapped(value: object) -> object | Undecodable:
    """Take off what the converter put around the event, and convert what its schema tells."""
    if has_envelope(value):
        schema, value = value["schema"], value["payload"]
        if isinstance(schema, dict) and (convert := conversion(schema)) is not None:
            value = convert(value)
    if isinstance(value, str):
        return _json_in(value)
    if not isinstance(value, dict):
        return value
    rows = {name: _sent(value[name]) for name in ("before", "after") if name in value}
    return _sent({**value, **rows} if rows else value)


def _sent(row: object) -> object:
    """Return a row whose columns that were not sent are null (rule 5)."""
    if not isinstance(row, dict) or not any(value in _UNAVAILABLES for value in row.values()):
        return row
    return {name: None if value in _UNAVAILABLES else value for name, value in row.items()}


def _json_in(text: str) -> object | Undecodable:
    """Read a payload that is JSON in a text; any other text stays one."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    return decode(text.encode())


def conversion(schema: object) -> Convert | None:
    """Return what converts values of a schema, Kafka Connect's or Avro's. None: they stay as they are."""
    return _conversion(schema, {})


_Named = dict[str, Convert | None]


def _conversion(schema: object, records: _Named) -> Convert | None:
    """`records`: those of Avro's that were described before, and are only named from then on (`before`, `after`)."""
    match schema:
        case str():
            return records.get(schema.rpartition(".")[2])
        case list():  # a union of Avro's: null, and what it may be otherwise
            branches = [each for each in schema if each != "null"]
            return _conversion(branches[0], records) if len(branches) == 1 else None
        case {"type": dict() | list() as inner}:  # Avro's, with a property of its own around a type
            return _conversion(inner, records)
        case dict():
            return _conversion_of(schema, records)
    return None


def _conversion_of(schema: Mapping[str, object], records: _Named) -> Convert | None:
    name = schema.get("connect.name", schema.get("name"))
    if isinstance(name, str) and name in _BY_NAME:
        return _optional(_BY_NAME[name])
    if name == _DECIMAL:
        scale = _scale(schema)
        return None if scale is None else _optional(lambda value: _decimal(value, scale))
    match schema:
        case {"type": "struct" | "record", "fields": list() as fields}:
            convert = _struct(fields, records)
            if schema["type"] == "record":
                records[str(schema.get("name")).rpartition(".")[2]] = convert
            return convert
        case {"type": "array", "items": items}:
            return _array(_conversion(items, records))
        case {"type": "map", "values": values}:
            return _map(_conversion(values, records))
    return None


def _scale(schema: Mapping[str, object]) -> int | None:
    parameters = schema.get("parameters", schema.get("connect.parameters"))
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    try:
        return int(str(scale))
    except ValueError:
        return None


def _struct(fields: list[object], records: _Named) -> Convert | None:
    """Return what converts an object: each of its fields that has a conversion. Connect says `field`, Avro `name`."""
    by_field = {
        str(each.get("field", each.get("name"))): convert
        for each in fields
        if isinstance(each, dict)
        and (convert := _conversion(each if "field" in each else each.get("type"), records)) is not None
    }

    def with_its_fields(value: object) -> object:
        if not isinstance(value, dict):
            return value
        changed = {name: convert(value[name]) for name, convert in by_field.items() if name in value}
        return {**value, **changed} if changed else value

    return with_its_fields if by_field else None


def _array(item: Convert | None) -> Convert | None:
    if item is None:
        return None
    return lambda value: [item(each) for each in value] if isinstance(value, list) else value


def _map(inner: Convert | None) -> Convert | None:
    """Return what converts a map. Connect's converter writes one whose keys are no texts as a list of pairs."""
    if inner is None:
        return None

    def with_its_values(value: object) -> object:
        match value:
            case dict():
                return {key: inner(each) for key, each in value.items()}
            case list() if all(isinstance(each, list) and len(each) == 2 for each in value):
                return [[key, inner(each)] for key, each in value]
        return value

    return with_its_values


def _optional(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


# The types that Debezium and Kafka Connect name


def _decimal(value: object, scale: int) -> object:
    """Return an exact number. Where the bytes are none (a converter wrote the number itself), what came."""
    if not isinstance(value, str):
        return value
    number = base64_number(value, scale)
    return value if number is None else number


def _variable_scale(value: object) -> object:
    if isinstance(value, dict) and isinstance(scale := value.get("scale"), int):
        return _decimal(value.get("value"), scale)
    return value


def _local(unit_ns: int) -> Convert:
    """Return what makes a day and time of the clock on the wall out of a count since 1970: without a zone."""

    def convert(value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        try:
            return (_EPOCH + timedelta(microseconds=value * unit_ns // 1000)).replace(tzinfo=None).isoformat()
        except OverflowError:
            return value

    return convert


def _day(value: object) -> object:
    text = _local(_DAY)(value)
    return text.partition("T")[0] if isinstance(text, str) else text


def _time_of_day(unit_ns: int) -> Convert:
    def convert(value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value * unit_ns < _DAY_NS:
            return value
        text = _local(unit_ns)(value)
        return text.partition("T")[2] if isinstance(text, str) else text

    return convert


_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_BY_NAME: dict[str, Convert] = {
    "io.debezium.data.VariableScaleDecimal": _variable_scale,
    "io.debezium.time.Date": _day,
    "io.debezium.time.Time": _time_of_day(_MILLISECOND),
    "io.debezium.time.MicroTime": _time_of_day(_MICROSECOND),
    "io.debezium.time.NanoTime": _time_of_day(1),
    "io.debezium.time.Timestamp": _local(_MILLISECOND),
    "io.debezium.time.MicroTimestamp": _local(_MICROSECOND),
    "io.debezium.time.NanoTimestamp": _local(1),
    "org.apache.kafka.connect.data.Date": _day,
    "org.apache.kafka.connect.data.Time": _time_of_day(_MILLISECOND),
    "org.apache.kafka.connect.data.Timestamp": _local(_MILLISECOND),
}
