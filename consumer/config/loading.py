"""The configuration as it is loaded: the file, the environment over it, and all that is wrong with both.

Rules:
 1. All errors are reported at once, a line each, with their position: file, line and column, or variable.
 2. An error says what to write instead, in an operator's words. It never holds a value, which may be a secret.
 3. Loading opens only the configuration file, so it does not check what only a broker, Engage or a secret's file can
    show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from consumer.config import environment, yaml_file
from consumer.config.errors import Errors
from consumer.config.settings import Settings
from consumer.config.yaml_file import ConfigurationFile, UnreadableFileError
from consumer.errors import ConfigurationError


def load(path: Path | None, environ: Mapping[str, str], *, only_routes: bool = False) -> Settings:
    """Read the file, if there is one, and the environment over it. Raises ConfigurationError.

    `only_routes`: what concerns brokers and Engage may be missing or wrong. Such settings serve to decide, not to run.
    """
    try:
        file = ConfigurationFile({}, {}) if path is None else yaml_file.read(path)
    except UnreadableFileError as error:
        file = ConfigurationFile({}, {}, (error.error,), frozenset({()}))
    said, meaningless = environment.overrides(environ, Settings, file.values)
    sources = environment.apply(said, file.values)
    errors = Errors(str(path), file, sources, meaningless)
    settings = None
    try:
        settings = Settings.model_validate(_without_edges(file.values) if only_routes else file.values)
    except ValidationError as error:
        errors.add(error, Settings)
    lines = errors.lines() or (() if settings is None or only_routes else _wrong_proxies(settings, environ))
    if settings is None or lines:  # raised here, so that no traceback leads to pydantic's error
        raise ConfigurationError(lines)
    return settings


def _wrong_proxies(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    wrong: dict[str, None] = {}
    for connection in settings.engage.connections.values():
        try:
            connection.proxy_in(environ)
        except ValueError as error:
            wrong[str(error)] = None
    return tuple(wrong)


def _without_edges(values: Mapping[str, object]) -> dict[str, object]:
    """Leave out what only `run` needs: of the connections, a decision knows their names and `only_for`."""
    engage = values.get("engage")
    connections = engage.get("connections") if isinstance(engage, dict) else None
    named = connections if isinstance(connections, dict) and connections else {"default": None}
    stand_in = {"base_url": "https://localhost", "api_key": "none"}
    return {
        **values,
        "kafka": {"bootstrap.servers": "localhost:9092"},
        "engage": {"connections": {str(name): stand_in | _only_for_in(each) for name, each in named.items()}},
    }


def _only_for_in(connection: object) -> dict[str, object]:
    return {key: connection[key] for key in connection if key == "only_for"} if isinstance(connection, dict) else {}
