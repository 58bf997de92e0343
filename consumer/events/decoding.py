"""Bytes to an event, or a reason why not.

The source topic may hold any bytes. Rules:
 1. An accepted event can be written as JSON again, its numbers as they came (numbers.py), and every JSON reader
    understands the same by it.
 2. So JSON on which readers disagree is refused: a key that appears twice in an object (first, last or an error?),
    numbers beyond a double (infinity?), NaN, half a surrogate pair.
 3. A UTF-8 byte order mark at the beginning is skipped (.NET writes one). Other encodings are refused. An escaped NUL
    inside a text is valid JSON and stays: the route decides what an id may contain.
 4. A detail names the position (byte, line and column, or field), never contents.

An ordinary event is parsed once and written again. Where the two texts are the same but for white space, nothing can
be wrong with it: that takes 2 microseconds for 400 bytes. Only an event that looks odd is parsed so that its numbers
keep their text, or examined field by field.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import cast

from pydantic_core import from_json, to_json

from consumer.events.numbers import read_exactly
from schemas.dead_letter import Reason

MAX_NESTING = 64
"""Objects and lists inside each other; System.Text.Json's default, so that Engage's side can be expected to read it.

The parser here stops at 200, and a pending record (schemas/pending_action) wraps the event's parts in a few levels
more: it must be readable again."""

TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"
SHOWN_CHARACTERS = 200

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_DIGITS_TO_0 = bytes.maketrans(b"123456789", b"0" * 9)
_HUGE_INTEGER = b"0" * 309  # the largest double has as many
_Container = dict[str, object] | list[object]
_CONTAINERS = (dict, list)
_WIDE = (
    *(("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16")),
    *(("utf-32-le", "UTF-32"), ("utf-32-be", "UTF-32")),
)
_ORDINARY_KEY = re.compile(r"[A-Za-z_$@][\w$@-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Undecodable:
    """The bytes are no event."""

    detail: str
    reason: Reason = Reason.UNDECODABLE


def decode(value: bytes) -> object | Undecodable:
    """Parse a record's value, which is no tombstone: an object, or whatever JSON it is. Never raises for it."""
    text = value.removeprefix(_BOM)
    try:
        event: object = from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        return _lines(text) or Undecodable(_why_no_json(value, error))
    if not _is_shallow(text, event):
        return Undecodable(TOO_DEEP)
    again = to_json(event)
    if again.translate(None, _SPACE) == text.translate(None, _SPACE) and not _has_huge_integer(text):
        return event
    if not _is_ordinary(text, again):
        problem = _first_problem(text)
        if problem is not None:
            return Undecodable(problem)
    return read_exactly(text)


def _lines(text: bytes) -> list[object] | None:
    """Read JSON Lines, several objects in one value, as a list of them; None: it is something else."""
    lines = [line for line in text.split(b"\n") if line.strip(_SPACE)]
    if len(lines) < 2 or not all(line.lstrip(_SPACE).startswith(b"{") for line in lines):
        return None
    found = [decode(line) for line in lines]
    return found if all(isinstance(each, dict) for each in found) else None


def is_null(value: bytes) -> bool:
    """Tell whether a value is JSON's `null`."""
    return value.removeprefix(_BOM).strip(_SPACE) == b"null"


def kind(value: object) -> str:
    """Name the type of a JSON value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case dict():
            return "an object"
    return "a list"


def _has_huge_integer(text: bytes) -> bool:
    return len(text) >= len(_HUGE_INTEGER) and _HUGE_INTEGER in text.translate(_DIGITS_TO_0)


def _is_ordinary(text: bytes, again: bytes) -> bool:
    """Tell cheaply that nothing is wrong for certain; False: examine it.

    Every pair has a colon, and texts may hold some. So a pair that the parser dropped (its key came again) is
    missing in what is written again. (A colon in a text may have been written as an escape.)
    """
    return (
        again.count(b":") == text.count(b":")
        and (b"\\" not in text or b"\\u003" not in text)
        and b"Infinity" not in again
        and not _has_huge_integer(text)
    )


def _is_shallow(text: bytes, event: object) -> bool:
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return True
    level: list[_Container] = [cast("_Container", event)] if type(event) in _CONTAINERS else []
    for _ in range(MAX_NESTING):
        values = (value.values() if isinstance(value, dict) else value for value in level)
        level = [cast("_Container", held) for held in chain.from_iterable(values) if type(held) in _CONTAINERS]
        if not level:
            return True
    return False


# What begins like this is known, and is no JSON. The longer of two that begin alike comes first.
_SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\x00\x00", "looks like UTF-32"),
    (b"\x00\x00\xfe\xff", "looks like UTF-32"),
    *((f"{{{space}".encode(codec), f"looks like {name}") for codec, name in _WIDE for space in '"\r\n }'),
    *((f"[{space}".encode(codec), f"looks like {name}") for codec, name in _WIDE for space in '{"\r\n ]'),
    (b"\xac\xed\x00\x05", "looks like a serialised Java object"),
    (b"\x1f\x8b", "looks like gzip"),
    (b"\x28\xb5\x2f\xfd", "looks like Zstandard"),
    (b"\x04\x22\x4d\x18", "looks like LZ4"),
    *((sign, "looks like zlib") for sign in (b"x\x01", b"x\x9c", b"x\xda")),
    (b"\xff\xfe", "looks like UTF-16"),
    (b"\xfe\xff", "looks like UTF-16"),
    (b"Obj\x01", "looks like an Avro file"),
    (b"\xc3\x01", "looks like Avro with a single-object header"),
)
JSON_IN_BASE64 = "eyJ"  # {"
# Texts, in whatever encoding: known, and no JSON.
_TEXT_SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"<", "looks like XML"),
    (b"{'", "looks like a dictionary of Python's, written as a text"),
    (b"Struct{", "looks like Kafka Connect's Struct, written as a text by its StringConverter"),
    (b"H4sI", "looks like gzip in base64"),
    (
        JSON_IN_BASE64.encode(),
        "looks like JSON in base64: in the format `plain` a route reads it by `json(base64(event))`",
    ),
)
_JAVA_MAP = re.compile(rb"\{[\w.-]+=")
_GLUE_BYTES = 18  # 3, how it is compressed, then the schema version's id in 16 bytes
_GLUE_COMPRESSIONS = (0, 5)
_FRAME_BYTES = 5  # of a Schema Registry: 0, then the schema's id in 4 bytes


def looks_like(value: bytes) -> str | None:
    """Say what a value looks like that is no JSON in UTF-8; None: nothing that is known."""
    if (what := binary_like(value)) is not None:
        return what
    text = value.removeprefix(_BOM).lstrip(_SPACE)
    if _JAVA_MAP.match(text) is not None:
        return "looks like a map of Java's, written as a text"
    return next((what for sign, what in _TEXT_SIGNS if text.startswith(sign)), None)


def binary_like(value: bytes) -> str | None:
    """Say what a value looks like that is no text of one byte a character; None: nothing that is known."""
    if (sign := next((what for sign, what in _SIGNS if value.startswith(sign)), None)) is not None:
        return sign
    if len(value) > _GLUE_BYTES and value[0] == 3 and value[1] in _GLUE_COMPRESSIONS:
        return "looks like the frame of AWS Glue's Schema Registry, which is not supported"
    if len(value) > _FRAME_BYTES and value[0] == 0:
        schema_id = int.from_bytes(value[1:_FRAME_BYTES], "big")
        inside = "JSON" if value[_FRAME_BYTES : _FRAME_BYTES + 1] in (b"{", b"[") else "a value"
        return f"looks like the frame of a Schema Registry (byte 0, schema id {schema_id}) around {inside}"
    return None


def begins_like(value: bytes) -> str:
    """Say what a value looks like that is not what was expected."""
    if value.removeprefix(_BOM).lstrip(_SPACE)[:1] in (b"{", b"["):
        return "looks like JSON"
    return looks_like(value) or (f"begins with byte {value[0]}" if value else "is empty")


def _why_no_json(value: bytes, error: ValueError) -> str:
    if (what := looks_like(value)) is not None:
        return f"not JSON: {what}"
    try:
        value.decode()
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 at byte {wrong.start}"
    if "recursion limit" in str(error):
        return TOO_DEEP
    return f"not JSON: {error}"


# Field by field, for the few that look odd


class _Pairs(list[tuple[str, object]]):
    """An object with every pair that was written."""


@dataclass(frozen=True, slots=True)
class _Path:
    """Where a value is: its key or index in what holds it."""

    key: str | int
    within: _Path | None

    def __str__(self) -> str:
        steps: list[str] = []
        step: _Path | None = self
        while step is not None:
            steps.append(f"[{step.key}]" if isinstance(step.key, int) else f".{_shown(step.key)}")
            step = step.within
        path = "".join(reversed(steps)).removeprefix(".")
        return path if len(path) <= SHOWN_CHARACTERS else path[: SHOWN_CHARACTERS - 1] + "…"


def _first_problem(text: bytes) -> str | None:
    """Walk over what was written; None where nothing is wrong. `text` was parsed before: it is JSON, and not deep."""
    root: object = json.loads(text.decode(), object_pairs_hook=_Pairs, parse_int=cast("type[int]", _integer))
    open_values: list[tuple[object, _Path | None]] = [(root, None)]
    while open_values:
        value, path = open_values.pop()
        if isinstance(value, float) and math.isinf(value):
            return f"{'the value' if path is None else path}: a number beyond the range of a double"
        if not isinstance(value, list):
            continue
        pairs = value if isinstance(value, _Pairs) else enumerate(value)
        seen: set[str | int] = set()
        for key, held in pairs:
            inner = _Path(key, path)
            if key in seen:
                return f"{inner}: the key appears twice in its object"
            seen.add(key)
            open_values.append((held, inner))
    return None


def _integer(digits: str) -> float:
    return float(digits)  # as a double: it may be beyond its range, and to read it exactly takes quadratic time


def _shown(key: str) -> str:
    """Return a field's name as a log line may show it: printable, and not long."""
    if _ORDINARY_KEY.fullmatch(key):
        return key
    return json.dumps(key if len(key) <= 40 else key[:39] + "…")
