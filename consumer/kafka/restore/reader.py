"""EDGE. What a restore asks of Kafka: a consumer of its own, without a membership, and an admin client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.identity.identity import recorded_positions, topic_ids
from consumer.kafka.throttling import READERS
from consumer.kafka.topics.asking import CALL_TIMEOUT_S
from consumer.kafka.topics.offsets import Watermarks, committed_offsets, watermarks
from consumer.kafka.topics.topics import RelayTopics

# Of no progress. A dead instance's transaction ends after its transaction.timeout.ms, which is 10 s unless set
# otherwise, and the broker looks every 10 s.
GIVE_UP_S = 25.0
# While others wait for their restore: one that cannot be read must not hold them up for longer.
GIVE_UP_SOON_S = 5.0
ASK_RETRY_S = 0.5
POLL_S = 0.2
AT_ONCE = 1000


class RestoreError(Exception):
    """The restore failed for now. Trying again may help: with more than one partition, with each alone."""


class Reader(Protocol):
    """What a restore asks of Kafka. All but `start` and `read` raise KafkaException where Kafka does not answer."""

    def committed(self, partitions: list[Partition], by_relays: list[Partition]) -> dict[Partition, int]:
        """Return the group's settled offsets, absent ones left out, and of `by_relays` those that no relay committed.

        Before it raises, it waits, so the caller may call again at once.
        """

    def watermarks(self, partitions: list[Partition]) -> dict[Partition, Watermarks]:
        """Return each partition's first offset and its high watermark, open transactions included."""

    def is_known(self, topics: RelayTopics) -> bool:
        """Tell whether this group has started the topic before (initial_offsets.py)."""

    def topic_ids(self, topics: list[str]) -> dict[str, str]:
        """Return the ids of these topics, without those that are not known."""

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Begin to read these partitions' settled records from there."""

    def read(self) -> list[Message]:
        """Return what came within POLL_S, partition-EOF and errors included."""

    def stop(self) -> None:
        """Read no more of them."""

    def throttled_s(self) -> float:
        """Return for how many seconds more the broker makes it wait, as a quota is used up (throttling.py); 0: none."""


class KafkaReader:
    """A real Reader: a consumer of its own, without a membership, and an admin client."""

    def __init__(self, properties: clients.Properties) -> None:
        self._consumer = Consumer(clients.reader(properties), logger=clients.LOGGER)
        self._admin = AdminClient(clients.base(properties), logger=clients.LOGGER)

    def committed(self, partitions: list[Partition], by_relays: list[Partition]) -> dict[Partition, int]:
        """See Reader."""
        try:
            return committed_offsets(self._consumer, partitions, by_relays)
        except KafkaException:
            time.sleep(ASK_RETRY_S)
            raise

    def watermarks(self, partitions: list[Partition]) -> dict[Partition, Watermarks]:
        """See Reader."""
        return watermarks(self._admin, partitions)

    def is_known(self, topics: RelayTopics) -> bool:
        """See Reader."""
        return bool(recorded_positions(self._consumer, self._admin, topics.delay).positions)

    def topic_ids(self, topics: list[str]) -> dict[str, str]:
        """See Reader."""
        return topic_ids(self._admin, topics)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """See Reader."""
        for topic in {topic for topic, _ in offsets}:
            with suppress(KafkaException):  # without it the reader looks for unknown leaders a second later
                self._consumer.list_topics(topic, CALL_TIMEOUT_S)
        self._consumer.assign([TopicPartition(*tp, offset) for tp, offset in offsets.items()])

    def read(self) -> list[Message]:
        """See Reader."""
        first = self._consumer.poll(POLL_S)
        return [] if first is None else [first, *self._consumer.consume(AT_ONCE, 0)]

    def stop(self) -> None:
        """See Reader."""
        self._consumer.unassign()

    def throttled_s(self) -> float:
        """See Reader."""
        return READERS.left_s

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()
