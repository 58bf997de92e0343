"""A Schema Registry of the tests: it answers as Confluent's documents, and fails when it is told to.

(https://docs.confluent.io/platform/current/schema-registry/develop/api.html)
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler

from consumer.events.decoding import Undecodable
from consumer.events.formats.formats import Reader
from tests.support.local_server import LocalServer, answer_json

NO_SCHEMA = {"error_code": 40403, "message": "Schema not found"}


class TestRegistry(LocalServer):
    """Schemas by id, those of subjects by version. `status`: what it answers instead; `block`: it does not answer."""

    __test__ = False

    def __init__(self, schemas: Mapping[int, Mapping[str, object]] | None = None) -> None:
        self.schemas: dict[int, Mapping[str, object]] = dict(schemas or {})
        self.by_guid: dict[str, Mapping[str, object]] = {}
        self.versions: dict[tuple[str, int], Mapping[str, object]] = {}
        self.status: int | None = None
        self.block = threading.Event()
        self.block.set()
        self.asked: list[str] = []
        self.authorization: list[str | None] = []
        super().__init__(self._handler())

    def __exit__(self, *_: object) -> None:
        self.block.set()
        super().__exit__()

    def answer(self, path: str) -> tuple[int, object]:
        """Return what is answered to a path."""
        if self.status is not None:
            return self.status, {"error_code": self.status, "message": "as it was told"}
        found: object = None
        if match := re.fullmatch(r"/schemas/ids/(\d+)", path):
            found = self.schemas.get(int(match[1]))
        elif match := re.fullmatch(r"/schemas/guids/([0-9a-f-]+)", path):
            found = self.by_guid.get(match[1])
        elif match := re.fullmatch(r"/subjects/([\w.-]+)/versions/(\d+)", path):
            at = match[1], int(match[2])
            found = (
                {"subject": at[0], "version": at[1], "id": 900, **self.versions[at]} if at in self.versions else None
            )
        elif path == "/subjects":
            found = []
        return (404, NO_SCHEMA) if found is None else (200, found)

    def _handler(registry) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.block.wait(30)
                path = self.path.partition("?")[0]
                registry.asked.append(path)
                registry.authorization.append(self.headers.get("Authorization"))
                answer_json(self, *registry.answer(path), kind="application/vnd.schemaregistry.v1+json")

            def log_message(self, *_: object) -> None: ...

        return Handler


def framed(schema: int, value: bytes) -> bytes:
    """Put a Schema Registry's frame before a value."""
    return b"\x00" + schema.to_bytes(4, "big") + value


def event_of(reader: Reader, value: bytes, *, as_change: bool = False) -> object:
    """Return the event that a framed value is, or why it is none."""
    found = reader(value, as_change=as_change)
    return found if isinstance(found, Undecodable) else found.event
