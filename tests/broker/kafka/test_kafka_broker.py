"""The test broker does what the tests that stand on it take for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.broker import KafkaBroker, kafka_jars
from tests.support.downloads import needed
from tests.support.sandbox import TopicFactory
from tests.support.waiting import until


def _read(bootstrap_servers: str, topic: str, expected: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        values: list[bytes | None] = []

        def read_on() -> bool:
            for record in consumer.consume(100, timeout=0.2):
                assert record.error() is None
                values.append(record.value())
            return len(values) >= expected

        until(read_on, f"{topic} holds {expected} records")
        return values
    finally:
        consumer.close()


def _transactional(bootstrap_servers: str, transactional_id: str) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": transactional_id})
    producer.init_transactions(30)
    return producer


def test_the_broker_answers(admin: AdminClient) -> None:
    assert len(admin.list_topics(timeout=10).brokers) >= 1


def test_a_topic_has_a_name_of_its_own_and_the_partitions_asked_for(admin: AdminClient, topics: TopicFactory) -> None:
    first, second = topics(partitions=3), topics(partitions=1, config={"cleanup.policy": "compact"})

    known = admin.list_topics(timeout=10).topics
    assert first != second
    assert len(known[first].partitions) == 3
    assert len(known[second].partitions) == 1


def test_an_unknown_topic_is_not_created_by_being_asked_for(admin: AdminClient) -> None:
    admin.list_topics("never-made", timeout=10)
    assert "never-made" not in admin.list_topics(timeout=10).topics


def test_a_committed_transaction_is_read_and_an_aborted_one_is_not(
    bootstrap_servers: str, topics: TopicFactory
) -> None:
    topic = topics()
    aborting, committing = (_transactional(bootstrap_servers, f"{topic}-{n}") for n in range(2))
    for producer, value in ((aborting, b"aborted"), (committing, b"committed")):
        producer.begin_transaction()
        producer.produce(topic, value)
        assert producer.flush(30) == 0
    aborting.abort_transaction(30)
    committing.commit_transaction(30)

    assert _read(bootstrap_servers, topic, expected=1) == [b"committed"]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def own_broker() -> KafkaBroker:
    needed("Kafka broker", kafka_jars)
    return KafkaBroker()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_broker_that_starts_again_has_its_data_and_its_address(own_broker: KafkaBroker, how: str) -> None:
    with own_broker as broker:
        address = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": address})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(timeout=30)
        producer = Producer({"bootstrap.servers": address, "acks": "all"})
        producer.produce("kept", b"before")
        assert producer.flush(30) == 0

        broker.stop() if how == "stop" else broker.kill()
        broker.start()

        assert broker.bootstrap_servers == address
        assert _read(address, "kept", expected=1) == [b"before"]


def test_a_broker_does_not_outlive_an_owner_that_was_killed(own_broker: KafkaBroker, tmp_path: Path) -> None:
    script = (
        "import time; from tests.support.broker import KafkaBroker; broker = KafkaBroker(); broker.start();"
        "print(broker._process.pid, broker._directory, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            pid, directory = owner.stdout.readline().split()
        finally:
            owner.send_signal(signal.SIGKILL)

    until(lambda: not _runs(int(pid)), "the broker has ended")
    until(lambda: not Path(directory).exists(), "its directory is gone")
