"""A start that Kafka lets wait: what it says of that, and how often."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from consumer.config.loading import load
from consumer.kafka.reaching import Causes, Waiting
from consumer.kafka.topics import topics
from consumer.run import ground

NOTE = "topic orders: its configuration was not checked"
MAY_NOT = KafkaException(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Transactional Id refused"))
TRIES = 4

pytestmark = pytest.mark.anyio


async def test_a_start_that_is_refused_again_and_again_says_so_once_and_begins_when_it_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The brokers answer, and refuse the next step: it said both, and its notes, each second."""
    monkeypatch.setattr(ground, "BROKER_RETRY_S", 0.0)
    monkeypatch.setattr(ground, "reached", lambda *_, **__: (AdminClient({}), Causes()))
    monkeypatch.setattr(topics, "check", lambda *_: [NOTE])
    found = ground.Ground({}, {}, {})
    refusals = [MAY_NOT] * TRIES
    waiting = Waiting()
    shown: list[str | None] = []

    def settle() -> ground.Ground:
        shown.append(waiting.text)
        if refusals:
            raise refusals.pop()
        return found

    file = tmp_path / "relay.yaml"
    file.write_text("kafka: {bootstrap.servers: 127.0.0.1:1}")
    settings = load(file, {"ENGAGE_BASE_URL": "http://127.0.0.1:1", "ENGAGE_API_KEY": "key", "SOURCE_TOPICS": "orders"})
    with capture_logs() as lines:
        assert await ground.prepare(settings, asyncio.Event(), waiting, settle, create_topics=False) is found
    refused = "Kafka does not answer as it should, trying again: Transactional Id refused"
    assert [each["event"] for each in lines] == [NOTE, refused, "Kafka answers"]
    assert shown == [None, *[refused] * TRIES]
