"""Bytes to an event, or a reason why not.

The source topic may hold any bytes. Rules:
 1. An accepted event can be written as JSON again, and every JSON reader understands the same by it.
 2. So JSON on which readers disagree is refused: a key that appears twice in an object (first, last or an error?),
    integers beyond signed 64 bits, numbers beyond a double (infinity?), NaN, half a surrogate pair.
 3. A UTF-8 byte order mark at the beginning is skipped (.NET writes one). Other encodings are refused. An escaped NUL
    inside a text is valid JSON and stays: the route decides what an id may contain.
 4. A detail names the position (byte, line and column, or field), never contents.

An ordinary event is parsed once and written again, and the two texts are compared by counts of characters. Together
that takes 3.6 microseconds for 400 bytes. (The parse alone takes 1.1, a walk over the fields in Python 12.) Only an
event that looks odd is examined field by field.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import cast

from pydantic_core import from_json, to_json

MAX_NESTING = 64
"""Objects and lists inside each other; System.Text.Json's default, so that Engage's side can be expected to read it.

The parser here stops at 200, and a pending record (schemas/pending_action) wraps the event's parts in a few levels
more: it must be readable again."""

TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"
SHOWN_CHARACTERS = 200

_BOM = b"\xef\xbb\xbf"
_DIGITS_TO_0 = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_INTEGER = b"0" * 19  # 2**63 has 19 digits
_Container = dict[str, object] | list[object]
_CONTAINERS = (dict, list)
_INT64 = range(-(2**63), 2**63)
_ORDINARY_KEY = re.compile(r"[A-Za-z_$@][\w$@-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Undecodable:
    """The bytes are no event."""

    detail: str


def decode(value: bytes) -> dict[str, object] | Undecodable:
    """Parse a record's value, which is no tombstone. Never raises for what it holds."""
    text = value.removeprefix(_BOM)
    try:
        event = from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        return Undecodable(_why_no_json(value, error))
    if not isinstance(event, dict):
        return Undecodable("JSON, but not an object")
    if not _is_shallow(text, event):
        return Undecodable(TOO_DEEP)
    if not _is_ordinary(text, event):
        problem = _first_problem(text)
        if problem is not None:
            return Undecodable(problem)
    return event


def _is_ordinary(text: bytes, event: dict[str, object]) -> bool:
    """Tell cheaply that nothing is wrong for certain; False: examine it.

    Every pair has a colon, and texts may hold some. So a pair that the parser dropped (its key came again) is
    missing in what is written again. (A colon in a text may have been written as an escape.)
    """
    written = to_json(event)
    return (
        written.count(b":") == text.count(b":")
        and (b"\\" not in text or b"\\u003" not in text)
        and _LONG_INTEGER not in text.translate(_DIGITS_TO_0)
        and b"Infinity" not in written
    )


def _is_shallow(text: bytes, event: dict[str, object]) -> bool:
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return True
    level: list[_Container] = [event]
    for _ in range(MAX_NESTING):
        values = (value.values() if isinstance(value, dict) else value for value in level)
        level = [cast("_Container", held) for held in chain.from_iterable(values) if type(held) in _CONTAINERS]
        if not level:
            return True
    return False


def _why_no_json(value: bytes, error: ValueError) -> str:
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
    root: object = json.loads(text.decode(), object_pairs_hook=_Pairs, parse_int=_integer)
    open_values: list[tuple[object, _Path | None]] = [(root, None)]
    while open_values:
        value, path = open_values.pop()
        if isinstance(value, int) and value not in _INT64:
            return f"{path}: an integer beyond 64 bits"
        if isinstance(value, float) and math.isinf(value):
            return f"{path}: a number beyond the range of a double"
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


def _integer(digits: str) -> int:
    return int(digits[:21])  # enough to tell that it is beyond 64 bits; a longer one costs quadratic time


def _shown(key: str) -> str:
    """Return a field's name as a log line may show it: printable, and not long."""
    if _ORDINARY_KEY.fullmatch(key):
        return key
    return json.dumps(key if len(key) <= 40 else key[:39] + "…")
