"""What is wrong with a configuration, in an operator's words, and where it is.

Pydantic's texts are for programmers and show the wrong value. These lines name the key, say where it is and what to
write. They hold no value, because it may be a secret, even under the wrong key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from consumer.config.environment import Override, VariableError, did_you_mean, variable_for
from consumer.config.yaml_file import ConfigurationFile, FileError, KeyPath, Position

_SECTION = "must be a section, with keys of its own"
_LIST = "must be a list, such as [a, b]"
_WHOLE = "must be a whole number"
_NUMBER = "must be a number"
_BOOL = "must be true or false"
_EMPTY = "must not be empty"
# By pydantic's error type, https://docs.pydantic.dev/latest/errors/validation_errors/; braces are its context.
WORDS = {
    "bool_parsing": _BOOL,
    "bool_type": _BOOL,
    "dict_type": _SECTION,
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "list_type": _LIST,
    "literal_error": "must be {expected}",
    "model_attributes_type": _SECTION,
    "model_type": _SECTION,
    "path_type": "must be a file's path",
    "string_too_long": "must be at most {max_length} characters",
    "string_too_short": _EMPTY,
    "string_type": "must be text: put it in quotes",
    "string_unicode": "must be UTF-8 text",
    "too_short": _EMPTY,
    "tuple_type": _LIST,
    "value_error": "{error}",
}


class Errors:
    """Collects what is wrong; `sources` are the values that came from variables."""

    def __init__(
        self,
        file_name: str,
        file: ConfigurationFile,
        sources: Mapping[KeyPath, Override],
        meaningless: Iterable[VariableError],
    ) -> None:
        self._file_name = file_name
        self._file = file
        self._sources = sources
        self._found: list[tuple[Position | None, str]] = [
            *((error.position, self._in_file(error)) for error in file.errors),
            *((None, f"{error.variable}: {error.text}") for error in meaningless),
        ]

    def add(self, error: ValidationError, model: type[BaseModel]) -> None:
        """Add what pydantic found. A value that the file's reader could not read is no second error."""
        for details in error.errors(include_url=False, include_input=False):
            path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
            if not self._follows_from_another(path, details["type"]):
                self._found.append(self._placed(path, _text(path, details, model)))

    def lines(self) -> tuple[str, ...]:
        """Return a line for each: those in the file by line, then the others."""
        ordered = sorted(self._found, key=lambda found: (found[0] is None, found[0] or ()))
        return tuple(line for _, line in ordered)

    def _follows_from_another(self, path: KeyPath, kind: str) -> bool:
        if kind == "missing":  # what is missing may be what could not be read beside it
            return any(path[: len(bad)] == bad or path[:-1] == bad[:-1] for bad in self._file.unusable)
        return any(path[: len(bad)] == bad for bad in self._file.unusable)

    def _placed(self, path: KeyPath, text: str) -> tuple[Position | None, str]:
        prefixes = [path[:length] for length in range(len(path), 0, -1)]
        # What a variable gave replaced everything that the file has there.
        for source in (self._sources[at] for at in prefixes if at in self._sources):
            key = "" if source.path == path else f" {label(path)}"
            return None, f"{source.variable}{key}: {text}"
        for position in (self._file.positions[at] for at in prefixes if at in self._file.positions):
            return position, f"{self._where(position)} {label(path)}: {text}"
        return None, f"{label(path)}: {text}"

    def _where(self, position: Position) -> str:
        return f"{self._file_name}:{position.line}:{position.column}"

    def _in_file(self, error: FileError) -> str:
        where = self._file_name if error.position is None else self._where(error.position)
        return f"{where} {label(error.path)}: {error.text}" if error.path else f"{where}: {error.text}"


def label(path: KeyPath) -> str:
    """Write a key's path as one reads it: `source.topics[1]`.

    A key is cut where `key:value` was written without the space: what follows may be a secret.
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = re.split(r"[^\w./-]", part, maxsplit=1)[0]
            text += ("." if text else "") + (name if name == part else f"{name}…")
    return text


def _text(path: KeyPath, details: ErrorDetails, model: type[BaseModel]) -> str:
    match details["type"]:
        case "missing":
            variable = variable_for(path)
            either = f"{variable} or {variable}_FILE" if path[-1] == "api_key" else variable
            return f"missing (set {either}, or write it in the configuration file)"
        case "extra_forbidden":
            nearest = did_you_mean(path, model)
            first, _, rest = str(path[-1]).partition(".")
            if first in model.model_fields and re.fullmatch(r"[\w.-]+", rest):
                return f"unknown key: a dot stands for a section here, so write {first}: and below it {rest}"
            if nearest is None:
                return "unknown key"
            return f"unknown key, did you mean {nearest[-1] if nearest[:-1] == path[:-1] else label(nearest)}?"
    words = WORDS.get(details["type"])
    text = details["msg"] if words is None else words.format(**details.get("ctx", {}))
    return " ".join(text.split())
