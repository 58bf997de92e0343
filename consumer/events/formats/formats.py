"""Which format each topic's values have, and how a record's value becomes an event by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consumer.events.decoding import Undecodable, decode
from consumer.events.formats import cloudevents, debezium, plain
from consumer.events.formats.framing import Framed, framed
from consumer.events.formats.text import Compression, Encoding, as_utf_8, unpacked

Headers = Sequence[tuple[str, bytes | None]]
FormatName = Literal["json", "cloudevents", "confluent", "debezium", "plain"]
_NO_ENCODING: dict[FormatName, str] = {
    "confluent": "its values are binary",
    "cloudevents": "the header content-type says it",
}


class TopicFormat(BaseModel):
    """What the values of a topic look like."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    format: FormatName = Field(
        "json",
        description="`json`; `cloudevents` (structured, batched or binary); `confluent` (Avro, JSON Schema or Protobuf"
        " behind a Schema Registry's frame; needs `registry`); `debezium` (change events, and the outbox event router;"
        " framed ones need `registry`); `plain` (JSON or any other text).",
    )
    encoding: Encoding = Field("utf-8", description="How the text is encoded. Not for `confluent` and `cloudevents`.")
    compression: Compression = Field("none", description="What each value is compressed with, beside Kafka's own.")

    @model_validator(mode="after")
    def _says_its_encoding_itself(self) -> TopicFormat:
        if self.encoding != "utf-8" and (why := _NO_ENCODING.get(self.format)) is not None:
            raise ValueError(f"format {self.format} takes no encoding: {why}")
        return self

    @property
    def may_be_framed(self) -> bool:
        """Whether its values may need a schema of a registry."""
        return self.format in ("confluent", "debezium")


@dataclass(frozen=True, slots=True)
class Awaiting:
    """The event's schema is not known yet: nobody can say what becomes of it before a registry was asked.

    `sample`: a value of that schema.
    """

    schema: str
    sample: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Named:
    """An event, and its record's full name, by its schema (`com.shop.OrderShipped`): what sort of event it is.

    A topic with events of several sorts tells them apart by nothing else: Confluent's RecordNameStrategy and
    TopicRecordNameStrategy, and a union of references.
    (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#subject-name-strategy)
    """

    event: object
    record_name: str | None


class Reader(Protocol):
    """Reads the values of one schema, which was fetched. Never raises for what they hold."""

    def __call__(self, value: bytes, *, as_change: bool) -> Named | Undecodable:
        """Read a value with its frame. `as_change`: what Debezium's types mean is converted, too."""


class Readers(Protocol):
    """The schemas that are known by now. It never waits."""

    def reader(self, schema: str) -> Reader | Undecodable | None:
        """Return what reads a schema's values, or why none ever will; None: the registry was not asked yet."""


Decode = Callable[[bytes, Headers], "object | Named | Undecodable | Awaiting"]


class Formats:
    """The format of each source topic. A topic that is not named holds JSON."""

    def __init__(self, formats: Mapping[str, TopicFormat] | None = None, readers: Readers | None = None) -> None:
        """`readers`: None where no registry is configured."""
        self._decoders = {topic: _decoder(each, readers) for topic, each in (formats or {}).items()}
        self._names = {topic: each.format for topic, each in (formats or {}).items()}

    def is_event_without_value(self, topic: str, headers: Headers) -> bool:
        """Tell whether a record's headers alone are an event, so that it is no tombstone without a value."""
        return self._names.get(topic) == "cloudevents" and cloudevents.is_binary(headers)

    def is_plain_text(self, topic: str, event: object) -> bool:
        """Tell whether an event that is a text is what its topic's format promises."""
        return isinstance(event, str) and self._names.get(topic) == "plain"

    def decode(self, topic: str, value: bytes | None, headers: Headers) -> object | Named | Undecodable | Awaiting:
        """Read a record's value. Never raises for what it holds."""
        if value is None and self.is_event_without_value(topic, headers):
            return cloudevents.read(b"", headers)
        if value is None:
            return Undecodable("the record has no value")
        decoder = self._decoders.get(topic)
        return decode(value) if decoder is None else decoder(value, headers)


JSON = Formats()
"""Every topic holds JSON."""


def _decoder(each: TopicFormat, readers: Readers | None) -> Decode:
    read_text = _TEXTS.get(each.format)

    def read_value(value: bytes, headers: Headers) -> object | Named | Undecodable | Awaiting:
        found = unpacked(value, each.compression)
        if isinstance(found, Undecodable):
            return found
        if readers is not None and each.may_be_framed:
            frame = framed(found, headers)
            if isinstance(frame, Framed):
                return _read_framed(frame, readers, as_change=each.format == "debezium")
            if each.format == "confluent":
                return frame
        text = as_utf_8(found, each.encoding)
        if isinstance(text, Undecodable):
            return text
        if each.format == "cloudevents":
            return cloudevents.read(text, headers)
        return Undecodable("format confluent needs a registry") if read_text is None else read_text(text)

    return read_value


_TEXTS: dict[FormatName, Callable[[bytes], object | Undecodable]] = {
    "json": decode,
    "debezium": debezium.read,
    "plain": plain.read,
}


def _read_framed(frame: Framed, readers: Readers, *, as_change: bool) -> Named | Undecodable | Awaiting:
    reader = readers.reader(frame.schema)
    if reader is None:
        return Awaiting(frame.schema, frame.value)
    return reader if isinstance(reader, Undecodable) else reader(frame.value, as_change=as_change)
