"""Where each value of the configuration comes from: a line of the file, a variable of the environment, or a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, SecretStr

from consumer.config import environment, yaml_file
from consumer.config.errors import label
from consumer.config.loading import load
from consumer.config.sections import kafka_properties
from consumer.config.settings import Settings
from consumer.config.yaml_file import ConfigurationFile, KeyPath

MASK = "(hidden)"


@dataclass(frozen=True, slots=True)
class Origin:
    """A value, as it may be shown, and where it comes from."""

    key: str
    value: object = field(repr=False)
    origin: str


def origins(path: Path | None, environ: Mapping[str, str]) -> Iterator[Origin]:
    """Return every value in force, secrets hidden. Raises ConfigurationError where the configuration is wrong."""
    settings = load(path, environ)
    file = ConfigurationFile({}, {}) if path is None else yaml_file.read(path)
    said, _ = environment.overrides(environ, Settings, file.values)
    by_variable = {key: each.variable for key, each in environment.apply(said, file.values).items()}
    for key, value in _values(settings, ()):
        yield Origin(label(key), value, _origin(key, by_variable, path, file))


def _origin(key: KeyPath, by_variable: Mapping[KeyPath, str], path: Path | None, file: ConfigurationFile) -> str:
    prefixes = [key[:length] for length in range(len(key), 0, -1)]
    for at in prefixes:
        if at in by_variable:
            return by_variable[at]
    if key in file.positions:
        return f"{path}:{file.positions[key].line}"
    return "default"


def _values(section: BaseModel, at: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    for name, about in type(section).model_fields.items():
        value = getattr(section, name)
        if name == "kafka" and not at:
            yield from (((name, each), _shown_property(each, found)) for each, found in value.items())
        elif not about.repr and value:
            yield (*at, name), MASK
        else:
            yield from _flat(value, (*at, name))


def _flat(value: object, at: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, BaseModel):
        yield from _values(value, at)
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, (*at, str(name)))
    elif isinstance(value, SecretStr):
        yield at, MASK
    elif isinstance(value, tuple):
        yield at, [str(each) for each in value]
    else:
        plain = value is None or isinstance(value, str | bool | int | float)
        yield at, value if plain else {} if value == {} else str(value)


def _shown_property(name: str, value: object) -> object:
    return MASK if kafka_properties.is_secret(name) else value
