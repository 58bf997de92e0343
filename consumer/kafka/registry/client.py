"""EDGE. Asks a Schema Registry by confluent-kafka's own client, and says what is wrong in an operator's words."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError
from httpx2 import HTTPError, InvalidURL

from consumer.kafka.registry.readers import Fetched
from consumer.kafka.registry.schemas import RegistryError, UnknownSchemaError

T = TypeVar("T")

SCHEMA_NOT_FOUND = 40403
MAX_REFERENCES = 200

_WHY = {
    401: "it refuses our credentials (401)",
    403: "it does not let us read schemas (403)",
    404: "its address is wrong: what answers there is no Schema Registry (404)",
}


class ConfluentRegistry:
    """The client. Its calls wait; call it from any thread but the event loop's."""

    def __init__(self, properties: Callable[[], Mapping[str, object]]) -> None:
        """`properties`: those of confluent-kafka's SchemaRegistryClient, as they are now.

        They are asked for with each schema, which is seldom: a password in a file may have changed. May raise OSError.
        """
        self._properties = properties

    def fetch(self, schema: str) -> Fetched:
        """Return a schema and those it refers to. Raises RegistryError, UnknownSchemaError."""
        return _asked(lambda: self._fetched(schema))

    def check(self) -> None:
        """Ask whether it answers and lets us in. Raises RegistryError."""
        _asked(self._checked)

    def _client(self) -> SchemaRegistryClient:
        return SchemaRegistryClient({**self._properties(), "max.retries": 0})

    def _checked(self) -> None:
        with self._client() as client:
            client.get_subjects(limit=1)

    def _fetched(self, schema: str) -> Fetched:
        with self._client() as client:
            found = client.get_schema(int(schema)) if schema.isdigit() else client.get_schema_by_guid(schema)
            references: dict[tuple[str, int], Schema] = {}
            _collect(client, found, references)
        return Fetched(found, references)


def _collect(client: SchemaRegistryClient, schema: Schema, into: dict[tuple[str, int], Schema]) -> None:
    """Fetch what a schema refers to, and what that refers to."""
    for each in schema.references or ():
        if each.subject is None or each.version is None or (each.subject, each.version) in into:
            continue
        if len(into) >= MAX_REFERENCES:
            raise RegistryError(f"a schema refers to more than {MAX_REFERENCES} others")
        found = client.get_version(each.subject, each.version, True)
        into[each.subject, each.version] = found.schema
        _collect(client, found.schema, into)


def _asked(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except SchemaRegistryError as error:
        if error.error_code == SCHEMA_NOT_FOUND:
            raise UnknownSchemaError from None
        raise RegistryError(_WHY.get(error.http_status_code, f"it answered {error.http_status_code}")) from None
    except OAuthTokenError:
        raise RegistryError("no token could be had for it") from None
    except (HTTPError, InvalidURL, ssl.SSLError, OSError) as error:
        raise RegistryError(f"it cannot be reached ({type(error).__name__})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RegistryError("what answers there is no Schema Registry") from None
