"""The topics beside a source topic, for tests that need all three."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient

from consumer.kafka.topics import RelayTopics, create, partition_counts


def relay_topics(admin: AdminClient, source: str) -> RelayTopics:
    """Make them; returns when all three answer (the broker takes a moment to know a new topic)."""
    topics = RelayTopics(source, f"{source}.engage.delay", f"{source}.engage.dead-letters")
    while not partition_counts(admin, [source]):
        pass
    create(admin, [topics])
    while len(partition_counts(admin, [source, topics.delay, topics.dead_letters])) < 3:
        pass
    return topics
