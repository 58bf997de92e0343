"""Records out of text: what tools export, told apart by its shape, so that a dry run decides on the record itself.

Read are
 - values: one per line (JSON Lines), or one JSON value over many lines;
 - `kcat -J`, and the like of it (`rpk topic consume`, exports of Kafka UIs): a JSON object per record;
 - `kafka-console-consumer`, with any of its `print.` properties, separated by tabs;
 - any of these of a dead-letter topic: the record is the one that became the dead letter.

Rules:
 1. A value's bytes are not touched, where the export kept them. JSON on which readers disagree must be seen here, too.
 2. What cannot be read is said (`Unreadable`), and never taken for an event.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic import ValidationError

from consumer.events.numbers import read_exactly, written
from consumer.kafka.records.pending import event_of_unreadable
from consumer.kafka.records.source_events import KafkaHeaders, SourceEvent
from consumer.kafka.records.unreadable import Unreadable as UnreadablePending
from schemas.dead_letter import PREFIX, REDRIVE_OF, DeadLetterHeaders, Reason

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
# What an exported record has beside its value; nothing else may be beside it.
_COORDINATES = frozenset({"partition", "offset"})
_VALUES = ("payload", "value", "content")
_BESIDE = frozenset(
    {
        *("topic", "broker", "tstype", "ts", "timestamp", "timestampType", "timestamp_type", "leaderEpoch", "headers"),
        *("key", "key_size", "keySize", "value_size", "valueSize", "payload_size", "size", "keyFormat", "valueFormat"),
        *("keySerde", "valueSerde", "keyDeserializeProperties", "valueDeserializeProperties", "headersSize"),
    }
)
_LAMBDAS = frozenset({"aws:kafka", "SelfManagedKafka"})
_LISTED = frozenset({"source_topic", "source_offset", "reason", "redriven"})
# kafka-console-consumer's fields, in its order; then headers, key and value, without a name.
_NAMED_FIELD = re.compile(rb"(CreateTime|LogAppendTime|Partition|Offset|Delivery|Epoch):(-?[0-9]+|NOT_PRESENT)")
_NO_TIMESTAMP, _NO_HEADERS, _NULL = b"NO_TIMESTAMP", b"NO_HEADERS", b"null"
# What kcat and kafka-console-consumer write to stderr.
_SAID = re.compile(
    rb"% (?:Reached end of topic|Auto-selecting|Waiting for|Group|ERROR|Headers).*|Processed a total of [0-9]+ messages"
)
_HEADERS = re.compile(rb"[\w.-]+:[^,\t]*(?:,[\w.-]+:[^,\t]*)*")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that holds no record, or one that the export spoiled."""

    why: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a record is taken to have where the text does not say it."""

    topic: str
    key: bytes | None = None
    headers: KafkaHeaders = ()

    def record(self, number: int, value: bytes | None) -> SourceEvent:
        """Return the record of a bare value, the text's `number`-th (from 1)."""
        return SourceEvent(
            topic=self.topic,
            partition=0,
            offset=number - 1,
            timestamp_ms=None,
            key=self.key,
            value=value,
            headers=self.headers,
        )


def records_in(lines: Iterable[bytes], defaults: Defaults) -> Iterator[SourceEvent | Unreadable]:
    """Yield each record; line by line as they come, where the first line is a record by itself."""
    filled = (line for line in (line.strip(b"\r\n") for line in lines) if line.strip(_SPACE))
    for number, text in enumerate(_texts(filled), 1):
        yield _record(text, number, defaults)


def _texts(filled: Iterator[bytes]) -> Iterator[bytes]:
    """Yield each record's text: a line, or all of them where they are one JSON value or several of more lines."""
    first = next(filled, None)
    if first is None:
        return
    if _parsed(first) is not _NOTHING or _is_console_line(first):
        yield first
        yield from filled
        return
    lines = [first, *filled]
    yield from _documents(b"\n".join(lines)) or lines


_NOTHING = object()


def _parsed(text: bytes) -> object:
    try:
        parsed: object = json.loads(text.removeprefix(_BOM).decode())  # of bytes it would guess the encoding
    except (ValueError, RecursionError):
        return _NOTHING
    return parsed


def _documents(text: bytes) -> list[bytes]:
    """Cut JSON values that follow each other out of their text, as they stand; none where it is anything else."""
    try:
        whole = text.removeprefix(_BOM).decode().strip()
    except UnicodeDecodeError:
        return []
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(whole):
        try:
            _, end = decoder.raw_decode(whole, at)
        except (ValueError, RecursionError):
            return []
        found.append(whole[at:end].encode())
        at = end + len(whole[end:]) - len(whole[end:].lstrip())
    return found


def _record(text: bytes, number: int, defaults: Defaults) -> SourceEvent | Unreadable:
    parsed = _parsed(text)
    if isinstance(parsed, list) and parsed and all(map(_is_exported, parsed)):
        return Unreadable("a list of exported records: write each of them on a line of its own (`jq -c '.[]'`)")
    if isinstance(parsed, dict):
        if isinstance(parsed.get("records"), dict) and parsed.get("eventSource") in _LAMBDAS:
            return Unreadable("what AWS Lambda is given, records with values in base64: read the topic itself")
        if _is_exported(parsed):
            return _original(_enveloped(text, defaults))
        if parsed.keys() >= _LISTED:
            return Unreadable(
                "a line of `dead-letters list` has no value: read the dead letter itself (--topic, --offset)"
            )
    if parsed is _NOTHING:
        if _SAID.fullmatch(text) is not None:
            return Unreadable("what the tool itself says, no record: it was not kept apart from the records (2>&1)")
        if _is_console_line(text):
            return _original(_console_line(text, number, defaults))
        if (column := _column_of_value(text)) is not None:
            return Unreadable(
                f"{column} bytes stand before the JSON value, as of a key with a separator: export with `kcat -J`,"
                " separate with tabs, or read the bytes as they are (--raw)"
            )
    return defaults.record(number, text.strip(_SPACE))


# A JSON object for each record


def _is_exported(parsed: object) -> bool:
    """Tell whether an object is a record with its place, and nothing else; some tools write names with a capital."""
    if not isinstance(parsed, dict):
        return False
    names = {name[:1].lower() + name[1:] for name in parsed}
    return names >= _COORDINATES and bool(names & set(_VALUES)) and not names - _BESIDE - _COORDINATES - set(_VALUES)


def _is_base64_of_json(value: object) -> bool:
    try:
        return isinstance(value, str) and _parsed(base64.b64decode(value, validate=True)) not in (_NOTHING, value)
    except ValueError:
        return False


def _enveloped(text: bytes, defaults: Defaults) -> SourceEvent | Unreadable:
    written_fields = cast("dict[str, object]", read_exactly(text.removeprefix(_BOM)))
    fields = {name[:1].lower() + name[1:]: value for name, value in written_fields.items()}
    if "�" in text.decode():
        return Unreadable("the export replaced bytes that are not UTF-8: read the topic itself (--topic, --offset)")
    raw = fields[next(name for name in _VALUES if name in fields)]
    if isinstance(raw, str) and _parsed(raw.encode()) is _NOTHING and _is_base64_of_json(raw):
        return Unreadable("the export wrote the value in base64: export it as text, or read the topic itself")
    timestamp = fields.get("ts", fields.get("timestamp"))
    partition, offset = fields["partition"], fields["offset"]
    headers = _headers_of(fields.get("headers"))
    if not (isinstance(partition, int) and isinstance(offset, int)) or headers is None:
        return Unreadable("looks like an exported record, but its partition, offset or headers are not a record's")
    return SourceEvent(
        topic=str(fields.get("topic") or defaults.topic),
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp if isinstance(timestamp, int) and timestamp >= 0 else None,
        key=_bytes_of(fields.get("key")),
        value=_bytes_of(raw),
        headers=headers,
    )


def _bytes_of(value: object) -> bytes | None:
    """Return what was exported as text; a tool that decoded JSON in it kept all but its white space."""
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else written(value)


def _headers_of(written_headers: object) -> list[tuple[str, bytes | None]] | None:
    """Read kcat's flat list of names and values, a list of objects, or an object; None: it is none of them."""
    if written_headers is None:
        return []
    if isinstance(written_headers, dict):
        return [(str(name), _bytes_of(value)) for name, value in written_headers.items()]
    if not isinstance(written_headers, list):
        return None
    parts: list[object] = written_headers
    objects = [part for part in parts if isinstance(part, dict) and "key" in part]
    if len(objects) == len(parts):
        return [(str(part["key"]), _bytes_of(part.get("value"))) for part in objects]
    names = [name for name in parts[::2] if isinstance(name, str)]
    if len(names) * 2 != len(parts):
        return None
    return [(name, _bytes_of(value)) for name, value in zip(names, parts[1::2], strict=True)]


# A line of fields, separated by tabs


def _is_console_line(line: bytes) -> bool:
    if b"\t" not in line:
        return False
    first, _, _ = line.partition(b"\t")
    if _NAMED_FIELD.fullmatch(first) or first in (_NO_TIMESTAMP, _NO_HEADERS):
        return True
    parts = line.split(b"\t")
    value, before = _value_of(parts)
    if value == _NULL:
        return before == 1 or _HEADERS.fullmatch(first) is not None
    return isinstance(_parsed(value), dict | list | str)  # a number at the end is a column of the value's own


def _value_of(parts: Sequence[bytes]) -> tuple[bytes, int]:
    """Return the value and how many fields stand before it: JSON may have tabs between its parts."""
    for index in range(1, min(len(parts), 4)):
        value = b"\t".join(parts[index:])
        if _parsed(value) is not _NOTHING:
            return value, index
    return parts[-1], len(parts) - 1


def _console_line(line: bytes, number: int, defaults: Defaults) -> SourceEvent | Unreadable:
    parts = line.split(b"\t")
    named: dict[bytes, int] = {}
    while len(parts) > 1:
        if (match := _NAMED_FIELD.fullmatch(parts[0])) is not None:
            named[match[1]] = -1 if match[2] == b"NOT_PRESENT" else int(match[2])
        elif parts[0] != _NO_TIMESTAMP:
            break
        del parts[0]
    value, before = _value_of(parts) if len(parts) > 1 else (parts[0], 0)
    if before > 2:
        return Unreadable("more fields than console-consumer prints stand before the value")
    headers, key = _headers_and_key(parts[:before])
    timestamp = named.get(b"CreateTime", named.get(b"LogAppendTime"))
    bare = defaults.record(number, None if value == _NULL else value)
    return replace(
        bare,
        partition=named.get(b"Partition", bare.partition),
        offset=named.get(b"Offset", bare.offset),
        timestamp_ms=timestamp,
        key=bare.key if key is None else None if key == _NULL else key,
        headers=bare.headers if headers is None else headers,
    )


def _headers_and_key(parts: Sequence[bytes]) -> tuple[list[tuple[str, bytes | None]] | None, bytes | None]:
    """Read what stands before the value: headers and key, or one of them."""
    if not parts:
        return None, None
    if parts[0] == _NO_HEADERS:
        return [], parts[1] if len(parts) > 1 else None
    if len(parts) == 1:
        return None, parts[0]  # a key may hold colons, as headers do; keys are printed oftener
    if not _HEADERS.fullmatch(parts[0]):
        return None, b"\t".join(parts)
    pairs = (pair.partition(b":") for pair in parts[0].split(b","))
    return [(name.decode(), None if value == _NULL else value) for name, _, value in pairs], parts[1]


def _column_of_value(text: bytes) -> int | None:
    """Return how many bytes stand before a JSON object at the end of the line, if they look like a key."""
    start = text.find(b"{")
    if start <= 0 or text[:start].strip(_SPACE) in (b"", _BOM) or text[:1] in b'{["':
        return None
    return start if isinstance(_parsed(text[start:]), dict) else None


# A dead letter


def original(record: SourceEvent) -> SourceEvent | Unreadable:
    """Return the record that became this dead letter, where it is one; else the record itself."""
    try:
        why = DeadLetterHeaders.from_kafka(record.headers)
    except ValidationError:
        return record
    if why.reason is Reason.UNREADABLE_PENDING:
        event = event_of_unreadable(record.value or b"")
        return (
            Unreadable(f"a pending record that cannot be read: {event.detail}")
            if isinstance(event, UnreadablePending)
            else event
        )
    return replace(
        record,
        topic=why.source_topic,
        partition=why.source_partition,
        offset=why.source_offset,
        timestamp_ms=why.source_timestamp_ms,
        headers=[each for each in record.headers if not each[0].startswith(PREFIX) or each[0] == REDRIVE_OF],
    )


def _original(record: SourceEvent | Unreadable) -> SourceEvent | Unreadable:
    return record if isinstance(record, Unreadable) else original(record)
