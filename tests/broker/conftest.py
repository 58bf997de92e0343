"""A real broker for the tests in this directory.

`KAFKA_BOOTSTRAP_SERVERS` names one to use; else one is started from Maven Central's Kafka for the whole session (see
tests/support/broker.py). Where neither can be had, these tests are skipped with the reason; in CI that is a failure.
`KAFKA_VERSION` tries another version (`KAFKA_VERSION=3.9.1 make test`). Under xdist each worker starts its own broker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.kafka import clients
from consumer.kafka.topics.rules import COMPACTED, CONTROL, DEAD_LETTERS, TopicRules, outcomes_configuration
from consumer.kafka.topics.topics import RelayTopics
from tests.support.broker import KafkaBroker, started
from tests.support.sandbox import Member, Sandbox, SandboxFactory, TopicFactory, control_topic, led
from tests.support.waiting import PATIENCE_S, until

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this directory: `pytest -m "not broker"` leaves it out."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.broker)


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """Return the broker's address."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    broker = started(KafkaBroker())
    try:
        yield broker.bootstrap_servers
    finally:
        broker.close()


@pytest.fixture(scope="session")
def strict_broker() -> Iterator[KafkaBroker]:
    """Return a broker of our own, which may be stopped, has access rules, and makes topics that are asked for."""
    broker = started(
        KafkaBroker(
            {
                "auto.create.topics.enable": "true",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "allow.everyone.if.no.acl.found": "true",
            }
        )
    )
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def admin(bootstrap_servers: str) -> AdminClient:
    """Return an admin client of the broker."""
    return AdminClient({"bootstrap.servers": bootstrap_servers})


@pytest.fixture
def topics(admin: AdminClient) -> Iterator[TopicFactory]:
    """Return a factory of topics with unique names: `topics(partitions=3)`, `topics("orders", config={...})`.

    They are deleted when the test ends, together with those made after them (`{name}.engage.delay` …).
    """
    made: list[str] = []

    def make(name: str = "orders", *, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        topic = f"{name}-{uuid4().hex[:8]}"
        future = admin.create_topics([NewTopic(topic, partitions, 1, config=dict(config or {}))])[topic]
        future.result(timeout=30)
        made.append(topic)
        until(lambda: led(admin, [(topic, n) for n in range(partitions)]), "the new partitions have leaders")
        return topic

    yield make
    existing = admin.list_topics(timeout=30).topics if made else {}
    ours = [topic for topic in existing if any(topic == name or topic.startswith(name + ".") for name in made)]
    if ours:
        for deletion in admin.delete_topics(ours).values():
            deletion.result(timeout=30)


@pytest.fixture
def sandboxes(bootstrap_servers: str) -> Iterator[SandboxFactory]:
    """Return a factory of places: `sandboxes(partitions=2, delay={"max.message.bytes": "1000"})`.

    Each has topics and a group of its own; `broker` puts it elsewhere than on the session's broker.
    """
    with ExitStack() as closing:

        def make(
            *,
            partitions: int = 1,
            delay: Mapping[str, str] | None = None,
            dead_letters: Mapping[str, str] | None = None,
            group: str | None = None,
            broker: KafkaBroker | None = None,
        ) -> Sandbox:
            address = bootstrap_servers if broker is None else broker.bootstrap_servers
            name = f"orders-{uuid4().hex[:8]}"
            outcomes = f"{name}.engage.outcomes"
            topics = RelayTopics(name, f"{name}.engage.delay", f"{name}.engage.dead-letters", outcomes)
            admin = AdminClient({"bootstrap.servers": address}, logger=clients.LOGGER)
            new = [
                NewTopic(topics.source, partitions, 1),
                NewTopic(topics.delay, partitions, 1, config={**COMPACTED, **(delay or {})}),
                NewTopic(topics.dead_letters, partitions, 1, config={**DEAD_LETTERS, **(dead_letters or {})}),
                NewTopic(outcomes, partitions, 1, config=outcomes_configuration(TopicRules())),
            ]
            control = control_topic(group or f"{name}-group")
            if control not in admin.list_topics(timeout=PATIENCE_S).topics:  # a group may have several sources
                new.append(NewTopic(control, 1, 1, config=CONTROL))
            for future in admin.create_topics(new).values():
                future.result(PATIENCE_S)
            made_partitions = [(each.topic, n) for each in new for n in range(each.num_partitions)]
            until(lambda: led(admin, made_partitions), "the new partitions have leaders")
            properties: dict[str, str | int | float | bool] = {
                "bootstrap.servers": address,
                "group.id": group or f"{name}-group",
                "reconnect.backoff.max.ms": 500,
            }
            made = Sandbox(properties, topics, admin, partitions)
            closing.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="session")
def shared_member(bootstrap_servers: str) -> Iterator[Member]:
    """Return a member of the group `shared`, alone in it, so that its generation stays."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers}, logger=clients.LOGGER)
    topic = f"shared-{uuid4().hex[:8]}"
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(PATIENCE_S)
    member = Member({"bootstrap.servers": bootstrap_servers, "group.id": topic}, topic)
    until(member.poll, "the shared member joins")
    yield member
    member.close()
