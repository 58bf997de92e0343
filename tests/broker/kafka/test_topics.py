"""Making and checking topics on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

from consumer.errors import TopicError
from consumer.kafka.topics import RelayTopics, check, create, partition_counts, watermarks
from tests.support.broker import KafkaBroker
from tests.support.sandbox import Sandbox, SandboxFactory, TopicFactory
from tests.support.waiting import until


def topics_of(source: str) -> RelayTopics:
    return RelayTopics(source, f"{source}.engage.delay", f"{source}.engage.dead-letters")


def config(admin: AdminClient, topic: str, name: str) -> str | None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    value = admin.describe_configs([resource])[resource].result(10)[name].value
    return None if value is None else str(value)


def all_there(admin: AdminClient, each: RelayTopics, partitions: int) -> None:
    wanted = dict.fromkeys((each.source, each.delay, each.dead_letters), partitions)
    until(lambda: partition_counts(admin, wanted) == wanted, "the broker knows its topics")


def test_mistakes_do_not_come_one_at_a_time(admin: AdminClient, topics: TopicFactory) -> None:
    one, other = topics(partitions=2), topics(partitions=3)
    wrong = RelayTopics(one, other, f"{one}.none")
    nothing = topics_of("no-such-topic")
    with pytest.raises(TopicError) as caught:
        check(admin, [wrong, nothing])

    assert str(caught.value).splitlines() == [
        f"topic {other} has 3 partitions, its source {one} has 2",
        f"topic {one}.none does not exist",
        f"topic {other} has cleanup.policy=delete: it would lose pending actions",
        "source topic no-such-topic does not exist",
    ]


def test_what_was_made_fits(admin: AdminClient, topics: TopicFactory) -> None:
    each = topics_of(topics(partitions=3))
    done = create(admin, [each])
    all_there(admin, each, 3)
    check(admin, [each])

    assert [line.split(" with ")[0] for line in done] == [f"created {each.delay}", f"created {each.dead_letters}"]
    assert config(admin, each.delay, "cleanup.policy") == "compact"
    assert config(admin, each.dead_letters, "retention.ms") == "-1"
    assert config(admin, each.dead_letters, "message.timestamp.type") == "CreateTime"
    assert config(admin, each.delay, "max.message.bytes") == str(8 * 1024 * 1024)


def test_making_them_again_changes_nothing(admin: AdminClient, topics: TopicFactory) -> None:
    each = topics_of(topics())
    create(admin, [each])
    all_there(admin, each, 1)

    assert create(admin, [each]) == []


def test_a_source_that_grew_leaves_no_partition_without_a_ledger(admin: AdminClient, topics: TopicFactory) -> None:
    each = topics_of(topics())
    create(admin, [each])
    all_there(admin, each, 1)
    admin.create_partitions([NewPartitions(each.source, 3)])[each.source].result(10)
    until(lambda: partition_counts(admin, [each.source]) == {each.source: 3}, "the source grew")
    with pytest.raises(TopicError, match="has 1 partitions"):
        check(admin, [each])

    assert create(admin, [each]) == [
        f"grew {each.delay} from 1 to 3 partitions",
        f"grew {each.dead_letters} from 1 to 3 partitions",
    ]
    all_there(admin, each, 3)
    check(admin, [each])


def test_nothing_is_made_for_a_source_that_is_not_there(admin: AdminClient) -> None:
    name = f"missing-{uuid4().hex[:8]}"
    with pytest.raises(TopicError, match=f"source topic {name} does not exist"):
        create(admin, [topics_of(name)])

    assert partition_counts(admin, [f"{name}.engage.delay"]) == {}


def test_an_unknown_topic_is_named(admin: AdminClient) -> None:
    with pytest.raises(KafkaException, match="no-such-topic"):
        watermarks(admin, [("no-such-topic", 0)])


def test_a_check_makes_no_topic(strict_broker: KafkaBroker) -> None:
    """This broker makes what is asked for; a delay topic made so would not be compacted."""
    admin = AdminClient({"bootstrap.servers": strict_broker.bootstrap_servers})
    name = f"asked-{uuid4().hex[:8]}"
    with pytest.raises(TopicError):
        check(admin, [topics_of(name)])

    assert name not in admin.list_topics(timeout=10).topics


@pytest.fixture
def forbidden(strict_broker: KafkaBroker, sandboxes: SandboxFactory) -> Iterator[Sandbox]:
    """A place whose delay topic we may not look at."""
    sandbox = sandboxes(broker=strict_broker)
    rule = (
        ResourceType.TOPIC,
        sandbox.topics.delay,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.DESCRIBE,
        AclPermissionType.DENY,
    )
    (created,) = sandbox.admin.create_acls([AclBinding(*rule)]).values()
    created.result(10)
    yield sandbox
    (deleted,) = sandbox.admin.delete_acls([AclBindingFilter(*rule)]).values()
    deleted.result(10)


def test_a_missing_right_is_not_taken_for_a_missing_topic(forbidden: Sandbox) -> None:
    for work in (check, create):
        with pytest.raises(TopicError, match=rf"{forbidden.topics.delay}: .*authorization failed"):
            work(forbidden.admin, [forbidden.topics])
