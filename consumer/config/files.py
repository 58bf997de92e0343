"""EDGE. The files that a configuration names, read once before anything depends on them.

A missing key or password would otherwise show as something else, and late: as a key that Engage refuses, or as brokers
that do not answer.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from consumer.config.settings import Settings
from consumer.engage.api_key import ApiKey
from consumer.errors import ConfigurationError

# librdkafka's own: this file, or a directory, or `probe` for the system's.
_MAY_BE_ELSEWHERE = "ssl.ca.location"
_LIBRDKAFKAS = (".location", ".keytab")
_SECRETS = ".file"


def check_files(settings: Settings) -> None:
    """Raise ConfigurationError with every file that cannot be read or holds nothing of use. It tells of no content."""
    if wrong := tuple(unreadable(settings)):
        raise ConfigurationError(wrong)


def unreadable(settings: Settings) -> Iterator[str]:
    """Say of each file that cannot be read which key names it, and why."""
    for name, connection in settings.engage.connections.items():
        where = f"engage.connections.{name}"
        if connection.api_key_file is not None:
            yield from _failure(f"{where}.api_key_file", connection.api_key_file, _api_key)
        if connection.ca_file is not None:
            yield from _failure(f"{where}.ca_file", connection.ca_file, _authorities)
    if settings.registry is not None:
        for name, file in settings.registry.files():
            read = _secret if name in ("password_file", "token_file") else _OF_REGISTRY.get(name, Path.read_bytes)
            yield from _failure(f"registry.{name}", file, read)
    for name, value in settings.kafka.items():
        file = Path(str(value))
        if name.endswith(_SECRETS):
            yield from _failure(f"kafka.{name}", file, _secret)
        elif name.endswith(_LIBRDKAFKAS) and not (name == _MAY_BE_ELSEWHERE and (value == "probe" or file.is_dir())):
            yield from _failure(f"kafka.{name}", file, Path.read_bytes)


def _failure(key: str, file: Path, read: Callable[[Path], object]) -> Iterator[str]:
    try:
        read(file)
    except OSError as error:
        yield f"{key}: cannot read {file}: {error.strerror or type(error).__name__}"
    except ValueError as error:
        text = "is not text" if isinstance(error, UnicodeDecodeError) else str(error).removeprefix(f"{file} ")
        yield f"{key}: {file} {text}"


def _api_key(file: Path) -> None:
    ApiKey(file).current()


def _authorities(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise ValueError("holds no certificates") from None


def _secret(file: Path) -> None:
    if not file.read_text("utf-8-sig").rstrip("\r\n"):
        raise ValueError("is empty")


_OF_REGISTRY: dict[str, Callable[[Path], object]] = {"ca_file": _authorities}
