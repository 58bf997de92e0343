"""The events that the benchmarks publish: canonical, with a job and some data, 300 to 400 bytes each."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic_core import to_json

from consumer.kafka.topics import topics

TOPIC = "orders"
TOPICS = topics.RelayTopics(TOPIC, f"{TOPIC}.engage.delay", f"{TOPIC}.engage.dead-letters")
MAX_QUEUED = 50_000  # librdkafka refuses what is more than twice as much
FLUSH_TIMEOUT_S = 60.0

_TYPES = ("order.confirmed", "order.shipped", "order.delivered")
_LINE_BYTES = 420
_LETTERS = "eeeeaaaattttiooonnnsssrrhhlld cmfpugbvy "
Event = tuple[str, bytes]


def event(
    number: int, order_id: str, job_id: str, connection: str | None = None, document_bytes: int | None = None
) -> Event:
    """Return the key and the value of one event, of now. `connection`: another one than the route's.

    `document_bytes`: it brings the order's document, in `order`, of so many bytes.

    Of now, because Engage's time for an order counts from its event's: an old date would spoil what is learnt of it.
    """
    engage = {"jobId": job_id} if connection is None else {"jobId": job_id, "connection": connection}
    value: dict[str, object] = {
        "version": 1,
        "type": _TYPES[number % len(_TYPES)],
        "orderId": order_id,
        "occurredAt": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "language": "sv-SE",
        "engage": engage,
        "data": {
            "trackingNumber": f"SE{number:012d}",
            "carrier": "PostNord",
            "trackingUri": f"https://tracking.example.com/parcel/SE{number:012d}?lang=sv",
            "deliveryDate": "2025-03-17",
        },
    }
    if document_bytes is not None:
        value["order"] = _document(number, order_id, document_bytes)
    return order_id, to_json(value)


def _document(number: int, order_id: str, size: int) -> dict[str, object]:
    """Return an order of as many lines as it takes. No two lines are alike, so it compresses as orders do."""
    draw = random.Random(number)
    lines: list[dict[str, object]] = []
    document: dict[str, object] = {"orderId": order_id, "currency": "SEK", "items": lines}
    while len(lines) * _LINE_BYTES < size:
        sku = f"{draw.getrandbits(48):012x}"
        lines.append(
            {
                "sku": sku,
                "name": f"Article {draw.getrandbits(32):08x}, {draw.choice(('blue', 'green', 'black'))}",
                "quantity": draw.randint(1, 3),
                "price": round(draw.uniform(49, 1999), 2),
                "imageUrl": f"https://images.example.com/{sku[:4]}/{sku}-{draw.getrandbits(64):016x}.jpg",
                "description": "".join(draw.choices(_LETTERS, k=200)),
            }
        )
    return document


def create_topics(bootstrap_servers: str, partitions: int, beside: topics.RelayTopics = TOPICS) -> None:
    """Make the source topic and those beside it. Raises KafkaException or TopicError."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})  # it outlives the broker
    admin.create_topics([NewTopic(TOPIC, partitions, 1)])[TOPIC].result()
    topics.create(admin, [beside], control="engage-relay.engage.control")


class Publisher:
    """A producer of events."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )
        self._refused: list[KafkaError] = []

    def publish(self, events: Iterable[Event]) -> None:
        """Publish all of them, by key. Raises RuntimeError where one was not written."""
        for key, value in events:
            while len(self._producer) >= MAX_QUEUED:
                self._producer.poll(0.1)
            self._producer.produce(TOPIC, value, key, on_delivery=self._delivered)
            self._producer.poll(0)
        if self._producer.flush(FLUSH_TIMEOUT_S) or self._refused:
            raise RuntimeError(f"events were not written: {self._refused[:1] or 'the broker is too slow'}")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refused.append(error)


def publish(bootstrap_servers: str, events: Iterable[Event]) -> None:
    """Publish all of them, by key. Raises RuntimeError where one was not written."""
    Publisher(bootstrap_servers).publish(events)
