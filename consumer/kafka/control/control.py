"""EDGE. What the commands do with the control topic: read all that it says, and write records to it.

Rules:
 1. It is read to its end before anything is written: a command acts on what holds now.
 2. A write is confirmed by all replicas in sync, or the command fails. Each record is complete in itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from consumer.core.pauses import NO_PAUSES, Pause, Pauses, Scope
from consumer.kafka import clients
from consumer.kafka.control.records import PARTITION, Controls
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.scan import StalledError, records_between

WRITE_S = 15.0


def new_id(now: float) -> str:
    """Return an id that nothing else ever had. Later ones sort behind earlier ones. `now`: seconds since 1970."""
    return f"{int(now * 1000):012x}{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Record:
    """A record to write. `value`: None forgets the key."""

    key: bytes
    value: bytes | None


def read_controls(properties: clients.Properties, topic: str) -> Controls:
    """Read all that the topic says now. Raises KafkaException, also where the topic does not exist or hangs."""
    return read_to_end(properties, topic)[0]


def read_to_end(properties: clients.Properties, topic: str) -> tuple[Controls, int]:
    """Read all that the topic says, and return where it ended. Raises as `read_controls`."""
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    at = (topic, PARTITION)
    if topic not in partition_counts(admin, (topic,)):
        raise clients.exception(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), f"topic {topic} does not exist")
    low, end = watermarks(admin, [at])[at]
    controls = Controls()
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        try:
            for record in records_between(reader, at, low, end):
                controls.take(clients.raw(record.key()), clients.raw(record.value()))
        except StalledError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}[{PARTITION}]: {error}")) from None
    return controls, end


class CurrentPauses:
    """What holds actions now. It is read when it is first asked for; `gaps` says why it could not be."""

    def __init__(self, properties: clients.Properties, topic: str | None) -> None:
        """`topic`: None where there is none, so nothing is paused."""
        self.gaps: list[str] = []
        self._properties = properties
        self._topic = topic

    def holding(self, scope: Scope) -> Pause | None:
        """Return what holds such actions; None: nothing does, as far as is known."""
        return self.pauses.holding(scope, time.time())

    @cached_property
    def pauses(self) -> Pauses:
        """All that there are; none where they cannot be read."""
        if self._topic is None:
            return NO_PAUSES
        try:
            return read_controls(self._properties, self._topic).pauses
        except KafkaException as error:
            self.gaps.append(f"{self._topic}: {clients.error_of(error).str()}")
            return NO_PAUSES


def write_controls(properties: clients.Properties, topic: str, records: Sequence[Record]) -> None:
    """Write records, in this order. Raises KafkaException where one was not confirmed."""
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer(
        {**clients.base(properties), "enable.idempotence": True, "message.timeout.ms": int(WRITE_S * 1000)},
        logger=clients.LOGGER,
    )
    for each in records:
        producer.produce(topic, each.value, each.key, PARTITION, on_delivery=delivered)
    left = producer.flush(2 * WRITE_S)
    if refused:
        raise KafkaException(refused[0])
    if left:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}: the broker did not confirm the record"))
