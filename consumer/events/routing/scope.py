"""What a route's expressions read: the event, and its record's names beside it (trees.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RecordFacts(Protocol):
    """What routing reads of the event's record."""

    @property
    def topic(self) -> str:
        """Where it lies."""

    @property
    def partition(self) -> int:
        """In which partition."""

    @property
    def offset(self) -> int:
        """And at which offset."""

    @property
    def key(self) -> bytes | None:
        """Kafka's key."""

    @property
    def timestamp_ms(self) -> int | None:
        """Milliseconds since 1970 (UTC)."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Kafka's headers, in their order."""


class Scope:
    """What a route's expressions read: the event, and its record's names beside it where one of them is used."""

    __slots__ = ("_record_name", "_root", "event", "items", "record")

    def __init__(
        self, event: object, record: RecordFacts, record_name: str | None = None, *, item: tuple[object, ...] = ()
    ) -> None:
        """`record_name`: its schema's name for it. `item`: the one item that it is about, in a route with `each`."""
        self.event = event
        self.record = record
        self._record_name = record_name
        self.items = item
        self._root: dict[str, object] | None = None

    def of_item(self, item: object) -> Scope:
        """Return what the expressions of a route with `each` read for one item."""
        return Scope(self.event, self.record, self._record_name, item=(item,))

    @property
    def root(self) -> dict[str, object]:
        """The event's fields, and the record's names over them (trees.py)."""
        if self._root is None:
            record = self.record
            fields = self.event if isinstance(self.event, dict) else {}
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            self._root = {
                **fields,
                "event": self.event,
                "headers": {name: _as_text(value) for name, value in record.headers},
                "key": _as_text(record.key),
                "meta": {**place, "timestamp": record.timestamp_ms, "record_name": self._record_name},
            }
            if self.items:
                (self._root["item"],) = self.items
        return self._root


def _as_text(raw: bytes | None) -> str | None:
    """Return a key or header as text; null where it is none."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None
