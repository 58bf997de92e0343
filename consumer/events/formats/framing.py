"""A Schema Registry's frame: which schema a value has, and where the value begins.

Two frames are known: byte 0 and the schema's id in four bytes before the value; or byte 1 and its GUID in sixteen
bytes, in the header `__value_schema_id` (byte 0 and an id may be there, too).
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from consumer.events.decoding import Undecodable, begins_like

VALUE_SCHEMA = "__value_schema_id"
_ID_FRAME, _GUID_FRAME = 5, 17


@dataclass(frozen=True, slots=True)
class Framed:
    """A value with its schema. `schema`: an id as digits, or a GUID. `value`: with the frame before it."""

    schema: str
    value: bytes


def framed(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Framed | Undecodable:
    """Find the frame of a value."""
    for name, frame in headers:
        if name == VALUE_SCHEMA and frame is not None:
            schema = _schema_of(frame)
            if schema is None:
                return Undecodable(f"header {VALUE_SCHEMA}: not the id of a schema")
            return Framed(schema, frame + value)
    schema = _schema_of(value[:_ID_FRAME]) or _schema_of(value[:_GUID_FRAME])
    if schema is None:
        return Undecodable(f"no frame of a Schema Registry (byte 0 and the schema's id): {begins_like(value)}")
    return Framed(schema, value)


def _schema_of(frame: bytes) -> str | None:
    if len(frame) == _ID_FRAME and frame[0] == 0:
        return str(int.from_bytes(frame[1:], "big"))
    return str(UUID(bytes=frame[1:])) if len(frame) == _GUID_FRAME and frame[0] == 1 else None
