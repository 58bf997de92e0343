"""The formats of the source topics as they are configured, with the registry that some of them need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from consumer.config.settings import Settings
from consumer.core.clock import Clock
from consumer.errors import ConfigurationError
from consumer.events.formats.formats import Formats

if TYPE_CHECKING:
    from consumer.config.sections.registry import Registry
    from consumer.kafka.registry.client import ConfluentRegistry
    from consumer.kafka.registry.schemas import Schemas

MISSING = "registry: its client is not installed: pip install 'engage-relay[registry]'"


def formats_of(settings: Settings, clock: Clock) -> tuple[Formats, Schemas | None]:
    """Return how each topic's values become events, and the schemas that they need.

    Raises ConfigurationError where a registry is configured and its client is not installed. Nothing is asked here.
    """
    schemas = None if settings.registry is None else _schemas(settings, clock)
    return Formats(settings.source.formats, schemas), schemas


def _schemas(settings: Settings, clock: Clock) -> Schemas:
    from consumer.kafka.registry.schemas import Schemas  # noqa: PLC0415 - an extra

    assert settings.registry is not None  # noqa: S101 - it was asked before
    client = client_of(settings.registry)
    from consumer.kafka.registry.readers import reader_of  # noqa: PLC0415 - an extra

    return Schemas(client, clock, partial(reader_of, is_validated=settings.registry.validate_json))


def has_client() -> bool:
    """Tell whether what asks a registry is installed."""
    return _client() is not None


def client_of(registry: Registry) -> ConfluentRegistry:
    """Return what asks a registry. Raises ConfigurationError where its client is not installed. Nothing is asked."""
    client = _client()
    if client is None:
        raise ConfigurationError((MISSING,))
    return client(registry.properties)


def _client() -> type[ConfluentRegistry] | None:
    try:
        from consumer.kafka.registry.client import ConfluentRegistry  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    return ConfluentRegistry
