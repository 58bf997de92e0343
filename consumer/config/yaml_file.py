"""The configuration file: YAML as values, with the line and column of each.

Why not `yaml.safe_load`: it forgets where a key stood, takes the last of two equal keys in silence, and reads `on`,
`0123`, `12:30:00` and `2025-01-01` as something else than what was written. Here
 1. an unquoted value that YAML 1.1 and 1.2 (or two programs) read differently is an error: nothing is guessed;
 2. what a configuration has no use for (anchors, aliases, tags, a second document) is an error, so that no file
    grows when it is read, and depth and size have a limit;
 3. keys are text, always;
 4. no error's text holds a value: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.reader import ReaderError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]


class Position(NamedTuple):
    """Where in the file, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class FileError:
    """One thing that is wrong with the file itself. `path` is empty where it concerns no single key."""

    position: Position | None
    text: str
    path: KeyPath = ()


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """What was read. `values` holds everything; what is in `unusable` is None there."""

    values: dict[str, object] = field(repr=False)
    positions: dict[KeyPath, Position]
    errors: tuple[FileError, ...] = ()
    unusable: frozenset[KeyPath] = frozenset()


class UnreadableFileError(Exception):
    """The file cannot be read at all, or is no YAML."""

    def __init__(self, text: str, position: Position | None = None) -> None:
        super().__init__(text)
        self.error = FileError(position, text)


def read(path: Path) -> ConfigurationFile:
    """Read the file. Raises UnreadableFileError where nothing of it can be used; lesser errors are returned."""
    text = _text(path)
    if "\0" in text or not text.strip():
        raise UnreadableFileError("is empty" if "\0" not in text else "is not a text file")
    builder = _Builder(text)
    try:
        values = builder.document()
    except ReaderError as error:
        raise UnreadableFileError("holds a control character", _position_at(text, error.position)) from None
    except yaml.MarkedYAMLError as error:
        raise UnreadableFileError(*_explained(error)) from None
    return ConfigurationFile(values, builder.positions, tuple(builder.errors), frozenset(builder.unusable))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableFileError("there is no such file") from None
    except IsADirectoryError:
        raise UnreadableFileError("is a directory, not a file") from None
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}") from None
    if len(raw) > MAX_BYTES:
        raise UnreadableFileError(f"is longer than {MAX_BYTES} bytes: this is no configuration")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", errors="ignore").removeprefix("\ufeff")
        raise UnreadableFileError("is not UTF-8 text", _position_at(before, len(before))) from None


def _position_at(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


class _Builder:
    """Makes values of the parser's events, and notes the position of each."""

    def __init__(self, text: str) -> None:
        self.positions: dict[KeyPath, Position] = {}
        self.errors: list[FileError] = []
        self.unusable: set[KeyPath] = set()
        self._events: Iterator[Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> dict[str, object]:
        next(self._events)  # the stream's start
        if not isinstance(next(self._events), DocumentStartEvent):
            raise UnreadableFileError("is empty")
        top = next(self._events)
        if isinstance(top, ScalarEvent) and not top.value and top.style is None:
            raise UnreadableFileError("is empty")
        values = self._value(top, ())
        if not isinstance(values, dict):
            raise UnreadableFileError("must hold sections at its top level (kafka:, engage:, …)", _position(top))
        next(self._events)  # the document's end
        if isinstance(second := next(self._events), DocumentStartEvent):
            self.errors.append(FileError(_position(second), "a second document begins here; it would be ignored"))
        return values

    def _value(self, event: Event, path: KeyPath) -> object:
        if len(path) > MAX_DEPTH:
            raise UnreadableFileError(f"is nested more than {MAX_DEPTH} levels deep", _position(event))
        why = _unsupported(event) or _ambiguous(event)
        if why is not None:
            self.errors.append(FileError(_position(event), why, path))
            self.unusable.add(path)
        match event:
            case MappingStartEvent():
                return self._mapping(path)
            case SequenceStartEvent():
                return self._sequence(path)
            case ScalarEvent() if path not in self.unusable:
                return _characters(event.value) if event.style is not None else _plain(event.value)
            case _:
                return None

    def _sequence(self, path: KeyPath) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            at = (*path, len(items))
            self.positions[at] = _position(event)
            items.append(self._value(event, at))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(key := next(self._events), MappingEndEvent):
            if not isinstance(key, ScalarEvent) or _unsupported(key) is not None:
                raise UnreadableFileError("a key must be plain text", _position(key))
            name = _characters(key.value)
            at = (*path, name)
            if name in values:
                self.errors.append(
                    FileError(_position(key), f"written twice, first in line {self.positions[at].line}", at)
                )
            self.positions[at] = _position(key)
            values[name] = self._value(next(self._events), at)
        return values


def _position(event: Event) -> Position:
    mark = event.start_mark
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)


def _unsupported(event: Event) -> str | None:
    match event:
        case AliasEvent():
            return "aliases (*name) are not supported: write the value out, or in quotes if it begins with *"
        case NodeEvent(anchor=str()):
            return "anchors (&name) are not supported: leave it out, or use quotes if the value begins with &"
        case ScalarEvent(tag=str()) | MappingStartEvent(tag=str()) | SequenceStartEvent(tag=str()):
            return "tags (!name) are not supported: leave it out, or use quotes if the value begins with !"
        case ScalarEvent() if _has_half_a_character(event):
            return _HALF_A_CHARACTER
    return None


_HALF_A_CHARACTER = "holds half a surrogate pair (\\ud800 to \\udfff): write the character itself"


def _has_half_a_character(event: ScalarEvent) -> bool:
    try:
        _characters(event.value)
    except UnicodeDecodeError:
        return True
    return False


def _characters(text: str) -> str:
    """Join surrogate pairs: JSON, which is YAML, may write a character as two escapes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _ambiguous(event: Event) -> str | None:
    if not isinstance(event, ScalarEvent) or event.style is not None:
        return None
    return next((why for pattern, why in _AMBIGUOUS if pattern.fullmatch(event.value)), None)


_NUMBER_IN_DIGITS = "YAML programs read such a number differently: write it in plain digits, or in quotes if it is text"
# `off` is a text here, and false is understood where `off` is: a Helm chart's YAML makes it false.
# What YAML 1.1 reads differently from YAML 1.2, https://yaml.org/type/ against https://yaml.org/spec/1.2.2/#103-core-schema
_AMBIGUOUS = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            r"(?!off\Z)(?i:yes|no|on|off|y|n)",
            "YAML programs read this word differently: write true or false, or in quotes if it is text",
        ),
        (r"[-+]?0[0-9_]+(\.[0-9_]*)?", _NUMBER_IN_DIGITS),  # octal
        (r"[-+]?0[xob][0-9a-fA-F_]+", _NUMBER_IN_DIGITS),
        (r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+", _NUMBER_IN_DIGITS),
        (r"[-+]?[0-9][0-9_.]*_[0-9_.]*", _NUMBER_IN_DIGITS),
        (r"[-+]?[0-9]{19,}", _NUMBER_IN_DIGITS),
        (r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", _NUMBER_IN_DIGITS),  # base 60
        (r"(?i:[-+]?\.inf|\.nan)", "must be a finite number, or in quotes if it is text"),
        (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?", "YAML reads this as a date: put it in quotes"),
    )
)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)")


def _plain(text: str) -> object:
    """Read an unquoted value that is not ambiguous."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


# PyYAML's words for a programmer, as words for the person who wrote the file.
_SYNTAX = (
    (r"found character '\\t'", "a tab cannot stand here: use spaces"),
    (
        r"found character '(.)' that cannot start any token",
        "a value cannot begin with this character: put it in quotes",
    ),
    (r"mapping values are not allowed", "a key is not expected here: look at the indentation and for an unquoted ': '"),
    (r"could not find expected ':'", "a ':' and a space are missing after the key"),
    (
        r"expected <block end>, but found '<scalar>'",
        "the value before this has ended: within 'single quotes' a quote is written twice, within double ones \\\"",
    ),
    (r"expected <block end>, but found", "this does not line up with the lines above: look at the indentation"),
    (r"found unexpected end of stream", "the quotes are never closed"),
    (r"expected ',' or '[\]}]'", "a ',' or the closing bracket is missing"),
    (r"expected chomping or indentation", "`|` and `>` begin a text on the next line: put the whole value in quotes"),
    (r"expected alphabetic or numeric character", "a value cannot begin with this: put it in quotes"),
    (r"sequence entries are not allowed here", "a list's '- ' stands on a line of its own"),
    (r"found unknown escape character|expected escape sequence", "unknown escape after '\\': use single quotes"),
)


def _explained(error: yaml.MarkedYAMLError) -> tuple[str, Position | None]:
    problem = error.problem or ""
    text = next((ours for theirs, ours in _SYNTAX if re.search(theirs, problem)), "is not valid YAML here")
    mark = error.problem_mark or error.context_mark
    return text, None if mark is None else Position(mark.line + 1, mark.column + 1)
