"""Making and checking topics on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
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
from consumer.kafka import clients
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.rules import TopicRules
from consumer.kafka.topics.topics import RelayTopics, check, create, unfit
from tests.support.broker import KafkaBroker
from tests.support.sandbox import Sandbox, SandboxFactory, TopicFactory
from tests.support.waiting import until

DAY_MS = 24 * 3600 * 1000


def topics_of(source: str) -> RelayTopics:
    return RelayTopics(source, f"{source}.engage.delay", f"{source}.engage.dead-letters", f"{source}.engage.outcomes")


def config(admin: AdminClient, topic: str, name: str) -> str | None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    value = admin.describe_configs([resource])[resource].result(10)[name].value
    return None if value is None else str(value)


def all_there(admin: AdminClient, each: RelayTopics, partitions: int) -> None:
    wanted = dict.fromkeys((each.source, *each.own), partitions)
    until(lambda: partition_counts(admin, wanted) == wanted, "the broker knows its topics")


def test_errors_do_not_come_one_at_a_time(admin: AdminClient, topics: TopicFactory) -> None:
    one, other = topics(partitions=3), topics(partitions=2)
    wrong = RelayTopics(one, other, f"{one}.none")
    nothing = topics_of("no-such-topic")
    with pytest.raises(TopicError) as caught:
        check(admin, [wrong, nothing])

    lines = str(caught.value).splitlines()
    assert lines[:3] == [
        f"topic {other} has 2 partitions, its source {one} has 3",
        f"topic {one}.none does not exist",
        f"topic {other} has cleanup.policy=delete: it would lose pending actions",
    ]
    assert f"topic {other} refuses records whose time is more than 3600 s ahead" in lines[3]
    assert lines[4:] == ["source topic no-such-topic does not exist"]


def test_what_was_made_fits(admin: AdminClient, topics: TopicFactory) -> None:
    each = topics_of(topics(partitions=3))
    done = create(admin, [each])
    all_there(admin, each, 3)
    check(admin, [each])

    assert [line.split(" with ")[0] for line in done] == [f"created {name}" for name in each.own]
    assert config(admin, each.delay, "cleanup.policy") == "compact"
    assert config(admin, each.dead_letters, "retention.ms") == "-1"
    assert config(admin, each.dead_letters, "message.timestamp.type") == "LogAppendTime"
    assert config(admin, each.delay, "message.timestamp.type") == "LogAppendTime"
    assert config(admin, each.delay, "max.message.bytes") == str(8 * 1024 * 1024)
    assert config(admin, each.own[-1], "retention.ms") == str(90 * DAY_MS)


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

    assert create(admin, [each]) == [f"grew {name} from 1 to 3 partitions" for name in each.own]
    all_there(admin, each, 3)
    check(admin, [each])


WRONG_DEAD_LETTERS = {
    "no key, no dead letter": {"cleanup.policy": "compact"},
    "gone after a week": {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)},
    "gone in a storm": {"retention.bytes": "1000000"},
    "refused by a clock": {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "3600000"},
    "refused by a past": {"message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": "3600000"},
    "without its value": {"max.message.bytes": "1000"},
}


@pytest.mark.parametrize("how", WRONG_DEAD_LETTERS)
def test_a_dead_letter_topic_that_loses_dead_letters_or_stops_the_journal_does_not_fit_until_create_was_called(
    sandboxes: SandboxFactory, how: str
) -> None:
    sandbox = sandboxes(partitions=2, dead_letters=WRONG_DEAD_LETTERS[how])
    with pytest.raises(TopicError, match=f"topic {sandbox.topics.dead_letters} ") as refused:
        check(sandbox.admin, [sandbox.topics])
    assert unfit(sandbox.admin, [sandbox.topics]) == {sandbox.topics.dead_letters: str(refused.value).splitlines()}

    (line,) = create(sandbox.admin, [sandbox.topics])
    assert line.startswith(f"altered {sandbox.topics.dead_letters}: ")
    assert check(sandbox.admin, [sandbox.topics]) == []
    assert unfit(sandbox.admin, [sandbox.topics]) == {}
    assert create(sandbox.admin, [sandbox.topics]) == []


def test_a_delay_topic_that_a_wrong_clock_would_stop_does_not_fit_until_create_was_called(
    sandboxes: SandboxFactory,
) -> None:
    limits = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "3600000"}
    sandbox = sandboxes(delay=limits)
    with pytest.raises(TopicError, match="wrong clock"):
        check(sandbox.admin, [sandbox.topics])

    assert create(sandbox.admin, [sandbox.topics]) == [
        f"altered {sandbox.topics.delay}: message.timestamp.type=LogAppendTime"
    ]
    assert check(sandbox.admin, [sandbox.topics]) == []


def test_a_record_of_a_host_whose_clock_is_two_hours_ahead_is_taken_by_what_create_makes(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes()
    failed: list[KafkaError] = []
    producer = Producer(clients.base(sandbox.properties))
    for topic in (sandbox.topics.delay, sandbox.topics.dead_letters):
        producer.produce(
            topic,
            b"v",
            b"k",
            timestamp=round(time.time() + 7200) * 1000,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(30) == 0
    assert failed == []


@pytest.mark.parametrize("which", ["delay", "dead letters"])
def test_a_topic_that_holds_somebodys_records_is_not_made_to_delete_them_by_an_errorn_name(
    sandboxes: SandboxFactory, which: str
) -> None:
    """`topics create` says which line a person may run, and leaves the topic as it is."""
    right, wrong = ("compact", "delete") if which == "delay" else ("delete", "compact")
    sandbox = sandboxes(**{which.replace(" ", "_"): {"cleanup.policy": wrong}})
    topic = sandbox.topics.delay if which == "delay" else sandbox.topics.dead_letters
    sandbox.fill(topic, 3)
    with pytest.raises(TopicError) as caught:
        create(sandbox.admin, [sandbox.topics])

    (line,) = str(caught.value).splitlines()
    assert "kafka-configs.sh --bootstrap-server BOOTSTRAP --alter --entity-type topics" in line
    assert f"--entity-name {topic} --add-config cleanup.policy={right}" in line
    assert config(sandbox.admin, topic, "cleanup.policy") == wrong


def test_a_compacted_source_is_refused_until_it_is_accepted(admin: AdminClient, topics: TopicFactory) -> None:
    each = topics_of(topics(config={"cleanup.policy": "compact"}))
    create(admin, [each])
    all_there(admin, each, 1)
    with pytest.raises(TopicError, match=r"source\.compacted: accept"):
        check(admin, [each])

    assert check(admin, [each], TopicRules(compacted_source=True)) == []
    assert config(admin, each.source, "cleanup.policy") == "compact"  # it is its owner's


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


@contextmanager
def forbidden(sandbox: Sandbox, topic: str, *operations: AclOperation) -> Iterator[None]:
    """Have these operations on a topic refused, and no others."""
    about = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*")
    every = AclBindingFilter(*about, AclOperation.ANY, AclPermissionType.ANY)
    rules = [(AclOperation.ALL, AclPermissionType.ALLOW), *((each, AclPermissionType.DENY) for each in operations)]
    for created in sandbox.admin.create_acls([AclBinding(*about, *rule) for rule in rules]).values():
        created.result(10)
    until(lambda: len(sandbox.admin.describe_acls(every).result(10)) == len(rules), "the broker knows the rules")
    yield
    (deleted,) = sandbox.admin.delete_acls([every]).values()
    deleted.result(10)


def test_a_missing_right_is_not_taken_for_a_missing_topic(
    strict_broker: KafkaBroker, sandboxes: SandboxFactory
) -> None:
    sandbox = sandboxes(broker=strict_broker)
    with forbidden(sandbox, sandbox.topics.delay, AclOperation.DESCRIBE):
        for work in (check, create):
            with pytest.raises(TopicError, match=rf"{sandbox.topics.delay}: .*authorization failed"):
                work(sandbox.admin, [sandbox.topics])


def test_a_configuration_that_may_not_be_looked_at_is_named_and_not_taken_for_a_good_one(
    strict_broker: KafkaBroker, sandboxes: SandboxFactory
) -> None:
    sandbox = sandboxes(broker=strict_broker, dead_letters={"cleanup.policy": "compact"})
    with forbidden(sandbox, sandbox.topics.dead_letters, AclOperation.DESCRIBE_CONFIGS):
        (line,) = check(sandbox.admin, [sandbox.topics])
    assert sandbox.topics.dead_letters in line
    assert "not checked" in line


def test_what_may_not_be_altered_comes_with_the_line_to_run(
    strict_broker: KafkaBroker, sandboxes: SandboxFactory
) -> None:
    sandbox = sandboxes(broker=strict_broker, dead_letters={"retention.ms": "1000"})
    with (
        forbidden(sandbox, sandbox.topics.dead_letters, AclOperation.ALTER_CONFIGS),
        pytest.raises(TopicError, match="authorization failed") as caught,
    ):
        create(sandbox.admin, [sandbox.topics])
    assert f"--entity-name {sandbox.topics.dead_letters} --add-config retention.ms=-1" in str(caught.value)
