"""Events as the shop publishes them: canonical ones, and records of any kind.

Each holds what may never show in a log (`CUSTOMER`, `SECRET_ID`).
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

from confluent_kafka import KafkaError, Message, Producer

from consumer.kafka import clients
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_S

CUSTOMER = "kim.exempel@example.com"  # in every event's data: personal, like the order's id
SECRET_ID = "ORDER-OF-A-PERSON"  # every order id begins with it
TYPES = ("order.confirmed", "order.shipped", "order.delivered", "order.completed")
HOUR_AGO_MS = int(time.time() - 3600) * 1000


def order_id(number: int | str) -> str:
    return f"{SECRET_ID}-{number}"


def event(order: str, number: int = 1, /, *, kind: str | None = None, **more: object) -> bytes:
    """Return a canonical event; `number` is which one of its order's it is, and arrives at Engage in its data."""
    body: dict[str, object] = {
        "type": kind or TYPES[(number - 1) % len(TYPES)],
        "orderId": order,
        "data": {"event": number, "email": CUSTOMER},
        **more,
    }
    return json.dumps(body, ensure_ascii=False).encode()


def number_of(data: object) -> object:
    """Return the event's number from an action's data."""
    return data.get("event") if isinstance(data, dict) else None


def partition_of(order: str, partitions: int) -> int:
    """Say where an order's events lie: all in one partition."""
    return crc32(order.encode()) % partitions


def publish(sandbox: Sandbox, events: Iterable[tuple[str, bytes]]) -> None:
    """Put events on the source, each keyed by its order and in its order's partition."""
    by_partition: defaultdict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
    for order, value in events:
        by_partition[partition_of(order, sandbox.partitions)].append((order.encode(), value))
    for partition, records in by_partition.items():
        sandbox.write(sandbox.topics.source, records, partition)


@dataclass(frozen=True)
class Raw:
    """A record as somebody put it on the source."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = HOUR_AGO_MS  # older ones the topic's retention may take away


def publish_raw(sandbox: Sandbox, records: Sequence[Raw], partition: int = 0) -> None:
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({**clients.base(sandbox.properties), "linger.ms": 0}, logger=clients.LOGGER)
    for each in records:
        producer.produce(
            sandbox.topics.source,
            each.value,
            each.key,
            partition,
            on_delivery=delivered,
            timestamp=each.timestamp_ms,
            headers=list(each.headers),
        )
    assert producer.flush(PATIENCE_S) == 0
    assert failed == []
