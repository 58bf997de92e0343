"""EDGE. Where a source topic starts when the relay meets it for the first time.

Rules:
 1. A topic is known once an offset of it was committed by the group, or its delay topic's partition 0 was written.
 2. An unknown topic that holds records is the operator's decision (`run --from`), never ours: from the beginning
    would mail everybody again, from the end would lose what waits.
 3. The decision is written down for *all* partitions at once, as position records, before anybody joins: a
    partition that stays idle would otherwise be decided anew, and differently, at the next start.
 4. Partition 0 is written last: whoever ends in the midst of it leaves a topic that is not known yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from consumer.errors import StartRefusedError
from consumer.kafka import clients
from consumer.kafka.records import position_value
from consumer.kafka.topics import CALL_TIMEOUT_S, RelayTopics, committed_offsets, partition_counts, watermarks
from schemas.pending_action import POSITION_KEY

Start = Literal["earliest", "latest"]


def topic_is_known(reader: Consumer, admin: AdminClient, topic: str, delay_topic: str) -> bool:
    """Tell whether this group has been here before. Raises KafkaException where the broker does not answer."""
    counts = partition_counts(admin, (topic, delay_topic))
    if counts.get(delay_topic) and watermarks(admin, [(delay_topic, 0)])[delay_topic, 0][1] > 0:
        return True
    return bool(committed_offsets(reader, [(topic, n) for n in range(counts.get(topic, 0))]))


def settle_start(properties: clients.Properties, topics: Iterable[RelayTopics], start: Start | None) -> list[str]:
    """Write down where each topic that nobody knows yet starts; returns what was decided, a line each.

    Raises StartRefusedError (it says how much would be replayed), KafkaException where the broker does not answer.
    """
    reader = Consumer(clients.reader(properties), logger=clients.LOGGER)
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    decided: list[str] = []
    refused: list[str] = []
    positions: list[tuple[str, int, int]] = []
    try:
        for each in topics:
            if topic_is_known(reader, admin, each.source, each.delay):
                continue
            count = partition_counts(admin, (each.source,)).get(each.source, 0)
            marks = watermarks(admin, [(each.source, n) for n in range(count)])
            waiting = sum(high - low for low, high in marks.values())
            if waiting and start is None:
                refused.append(f"{each.source} holds {waiting} records that this group has never read")
                continue
            decided.append(f"{each.source} starts at the {'beginning' if start == 'earliest' else 'end'}")
            positions += [
                (each.delay, n, low if start == "earliest" else high) for (_, n), (low, high) in marks.items()
            ]
    finally:
        reader.close()
    if refused:
        raise StartRefusedError("\n".join(refused))
    _write(properties, positions)
    return decided


def _write(properties: clients.Properties, positions: list[tuple[str, int, int]]) -> None:
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    if not positions:
        return
    producer = Producer({**clients.base(properties), "enable.idempotence": True}, logger=clients.LOGGER)
    # Rule 4: partition 0 makes the topic known, so it comes when the others are safe.
    for last in (False, True):
        for delay_topic, partition, offset in positions:
            if (partition == 0) is last:
                producer.produce(delay_topic, position_value(offset), POSITION_KEY, partition, on_delivery=delivered)
        if producer.flush(CALL_TIMEOUT_S):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the start's positions were not written in time"))
        if failed:
            raise KafkaException(failed[0])
