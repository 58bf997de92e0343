"""Environment variables over the configuration file: which key a variable's name means, and what its text means.

`ENGAGE_RELAY__SECTION__KEY` at any depth, in any case; the names of connections and routes are parts of it
(`-` and `.` are written `_`, as a shell has it). Under KAFKA, underscores are the dots of librdkafka's names; under
HEADERS, the hyphens of a header's name.
A section or a list is JSON; a list may be separated by commas instead. An empty variable counts as not set.
Rule: no error's text holds a variable's value: it may be a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args, get_origin

from pydantic import BaseModel

from consumer.config.yaml_file import KeyPath

PREFIX = "ENGAGE_RELAY__"
SHORT: dict[str, KeyPath] = {
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap.servers"),
    "ENGAGE_BASE_URL": ("engage", "connections", "default", "base_url"),
    "ENGAGE_API_KEY": ("engage", "connections", "default", "api_key"),
    "ENGAGE_API_KEY_FILE": ("engage", "connections", "default", "api_key_file"),
}

Model = type[BaseModel]


@dataclass(frozen=True, slots=True)
class Override:
    """What one variable says."""

    variable: str
    path: KeyPath
    value: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class VariableError:
    """A variable that means nothing here."""

    variable: str
    text: str


class _MeansNothingError(Exception):
    """Says what is wrong with a variable."""


def overrides(
    environ: Mapping[str, str], model: Model, values: Mapping[str, object]
) -> tuple[list[Override], list[VariableError]]:
    """Read the variables; of two that mean the same, the later in the list wins.

    `values` are the file's: a connection or route that it names keeps that spelling.
    """
    found: list[Override] = []
    errors: list[VariableError] = []
    ours = [name for name in environ if environ[name] and (name.upper() in SHORT or name.upper().startswith(PREFIX))]
    for variable in sorted(ours, key=lambda name: (name.upper() not in SHORT, name.count("__"), name)):
        try:
            path, annotation = _meant(variable, model, values)
            found.append(Override(variable, path, _value(annotation, environ[variable])))
        except _MeansNothingError as error:
            errors.append(VariableError(variable, str(error)))
    return found, errors


def near_misses(environ: Mapping[str, str]) -> list[str]:
    """Say of each variable that looks like one of ours, and is none, which one may be meant.

    `ENGAGE_RELAY_LIMITS__PENDING` has one underscore too few, `KAFKA_BOOTSTRAP_SERVER` no s at its end.
    Kubernetes makes variables of a service that is called engage-relay (`ENGAGE_RELAY_PORT`): they are nobody's error.
    """
    found = []
    for variable in sorted(environ):
        name = variable.upper()
        if name in (*SHORT, *OF_COMMANDS) or name.startswith(PREFIX) or _OF_A_SERVICE.fullmatch(name):
            continue
        meant = None
        if name.startswith(_ONE_UNDERSCORE):
            meant = PREFIX + name.removeprefix(_ONE_UNDERSCORE).lstrip("_")
        if (near := _nearest(name)) is not None:
            meant = near
        if meant is not None:
            found.append(f"{variable}: not a variable of engage-relay, and ignored; did you mean {meant}?")
    return found


OF_COMMANDS = ("ENGAGE_RELAY_CONFIG", "ENGAGE_RELAY_LOG_LEVEL", "ENGAGE_RELAY_LOG_FORMAT")  # options' variables
_ONE_UNDERSCORE = PREFIX.removesuffix("_")
_OF_A_SERVICE = re.compile(r"ENGAGE_RELAY(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP)\w*)?)")
_NEAR = 0.92  # one letter or underscore of a dozen


def _nearest(name: str) -> str | None:
    """Return the short variable, or the configuration file's, that differs from this name in next to nothing."""
    by_letters = {each.replace("_", ""): each for each in (*SHORT, *OF_COMMANDS)}
    nearest = difflib.get_close_matches(name.replace("_", ""), by_letters, n=1, cutoff=_NEAR)
    return by_letters[nearest[0]] if nearest else None


def apply(said: list[Override], values: dict[str, object]) -> dict[KeyPath, Override]:
    """Write what the variables say into the file's `values`; returns which one gave each value."""
    sources: dict[KeyPath, Override] = {}
    for override in said:
        _put(override, override.path, override.value, values, sources)
    return sources


def _put(
    override: Override, path: KeyPath, value: object, values: dict[str, object], sources: dict[KeyPath, Override]
) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _put(override, (*path, name), inner, values, sources)
        return
    section = values
    for part in map(str, path[:-1]):
        if section.get(part) is None:
            section[part] = {}
        below = section[part]
        if not isinstance(below, dict):
            return  # the file has no section where it must: its error stays visible
        section = below
    section[str(path[-1])] = value
    sources[path] = override
    other = _INSTEAD.get(str(path[-1]))
    if other is not None and (*path[:-1], other) not in sources:
        section.pop(other, None)


# A key in the environment replaces the file's, in whichever way either is given.
_INSTEAD = {"api_key": "api_key_file", "api_key_file": "api_key"}


def variable_for(path: KeyPath) -> str:
    """Name the variable that sets this key: a short one where there is one."""
    short = next((name for name, key in SHORT.items() if key == path), None)
    return short or PREFIX + "__".join(_folded(str(part)).upper() for part in path)


def did_you_mean(path: KeyPath, model: Model) -> KeyPath | None:
    """Return the known key nearest to one that isn't: of the same section, else of any other."""
    name, known = str(path[-1]), list(_keys(model))
    siblings = {str(key[-1]): key for key in known if len(key) == len(path) and _under(key, path[:-1])}
    anywhere = {str(key[-1]): key for key in reversed(known)}
    for candidates in (siblings, anywhere):
        if nearest := difflib.get_close_matches(name.lower(), candidates, n=1, cutoff=0.7):
            key = candidates[nearest[0]]
            return (*path[:-1], key[-1]) if candidates is siblings else key
    return None


ANY_NAME = "NAME"


def _keys(annotation: object) -> Iterator[KeyPath]:
    """Every key that can be written, names of the user's choice as `ANY_NAME`."""
    if (inner := _named(annotation)) is not None:
        yield from ((ANY_NAME, *inner_keys) for inner_keys in _keys(inner))
    elif (section := _section(annotation)) is not None:
        for name, info in section.model_fields.items():
            yield (name,)
            yield from ((name, *inner_keys) for inner_keys in _keys(info.annotation))


def _under(key: KeyPath, parents: KeyPath) -> bool:
    return all(ours in (theirs, ANY_NAME) for ours, theirs in zip(key, parents, strict=False))


def _meant(variable: str, model: Model, values: Mapping[str, object]) -> tuple[KeyPath, object]:
    """Return the key that the variable sets, and its type."""
    short = SHORT.get(variable.upper())
    parts = [str(part) for part in short] if short else variable[len(PREFIX) :].split("__")
    path: list[str] = []
    annotation: object = model
    written: object = values
    while parts:
        if (inner := _named(annotation)) is not None:
            if _section(inner) is None:  # librdkafka's properties, or headers
                between = "." if path == ["kafka"] else "-"
                return (*path, between.join(parts).replace("_", between).lower()), str
            name = _as_written(parts.pop(0), written)
        elif (section := _section(annotation)) is not None:
            name = parts.pop(0).lower()
            if name not in section.model_fields:
                raise _MeansNothingError(_unknown((*path, name), parts, model))
            inner = section.model_fields[name].annotation
        else:
            raise _MeansNothingError(_unknown((*path, parts[0]), parts[1:], model))
        path.append(name)
        annotation = inner
        written = written.get(name) if isinstance(written, Mapping) else None
    return tuple(path), annotation


def _as_written(part: str, written: object) -> str:
    names = [str(name) for name in written] if isinstance(written, Mapping) else []
    return next((name for name in names if _folded(name) == _folded(part)), part.lower())


def _folded(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "_", name.lower())


def _unknown(path: KeyPath, remaining: list[str], model: Model) -> str:
    nearest = did_you_mean(path, model)
    return "unknown name" if nearest is None else f"unknown name, did you mean {variable_for((*nearest, *remaining))}?"


def _value(annotation: object, text: str) -> object:
    if _is_list(annotation) and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    if not _is_list(annotation) and _named(annotation) is None and _section(annotation) is None:
        return text
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = ...
    if value is None and type(None) in get_args(annotation):
        return None
    if not isinstance(value, list if _is_list(annotation) else dict):
        raise _MeansNothingError("must be JSON: " + ('["a", "b"]' if _is_list(annotation) else '{"key": "value"}'))
    return value


# What a field's type says of the keys under it


def _section(annotation: object) -> Model | None:
    """Return the model of a section, also of one that may be null."""
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    if _named(annotation) is not None or _is_list(annotation):
        return None
    return next((found for part in get_args(annotation) if (found := _section(part)) is not None), None)


def _named(annotation: object) -> object | None:
    """Return what a mapping from names of the user's choice holds."""
    return get_args(annotation)[1] if get_origin(annotation) is dict else None


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) in (list, tuple)
