"""`engage-relay run` as a process: what it refuses and with which exit code, how it waits, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from consumer.kafka.topics.rules import CONTROL
from consumer.kafka.topics.topics import RelayTopics
from tests.support.books import Books
from tests.support.engage import API_KEY, Engage
from tests.support.events import Raw, event, order_id, publish, publish_raw
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory, TopicFactory, control_topic
from tests.support.waiting import PATIENCE_S, until

ORDER = order_id("run")


@contextmanager
def relay_of(
    sandbox: Sandbox, engage: Engage, tmp_path: Path, *arguments: str, **sections: dict[str, object]
) -> Iterator[RelayProcess]:
    """Run it for a place."""
    with RelayProcess(tmp_path, written(tmp_path, configuration(sandbox, engage.url, **sections)), *arguments) as relay:
        yield relay


def why(relay: RelayProcess) -> str:
    """Return what the last line says of why it cannot run."""
    (refusal,) = relay.said("cannot run")
    return str(refusal["why"])


def around(bootstrap_servers: str, source: str, engage_url: str) -> dict[str, object]:
    """Return a configuration for a source topic that has nothing beside it."""
    return {
        "kafka": {"bootstrap.servers": bootstrap_servers, "group.id": source},
        "source": {"topics": [source]},
        "engage": {"connections": {"default": {"base_url": engage_url, "api_key": API_KEY}}},
        "admin": {"listen": "127.0.0.1:0"},
    }


# What an operator must decide


def test_missing_topics_are_named(topics: TopicFactory, bootstrap_servers: str, tmp_path: Path) -> None:
    source = topics()
    config = around(bootstrap_servers, source, "http://127.0.0.1:1")
    with RelayProcess(tmp_path, written(tmp_path, config)) as relay:
        assert relay.wait() == 3
        assert f"{source}.engage.delay does not exist" in why(relay)
        assert f"{source}.engage.dead-letters does not exist" in why(relay)


def test_topics_are_made_where_that_is_asked_for(topics: TopicFactory, bootstrap_servers: str, tmp_path: Path) -> None:
    source = topics(partitions=3)
    with Engage() as engage:
        config = around(bootstrap_servers, source, engage.url)
        with RelayProcess(tmp_path, written(tmp_path, config), "--create-topics") as relay:
            relay.wait_until_ready().wait_until_owning(3)
            assert relay.stop() == 0


def test_a_partition_count_that_differs_is_refused(
    topics: TopicFactory, admin: AdminClient, bootstrap_servers: str, tmp_path: Path
) -> None:
    source = topics(partitions=3)
    others = [NewTopic(f"{source}.engage.delay", 2, 1, config={"cleanup.policy": "compact"}),
              NewTopic(f"{source}.engage.dead-letters", 3, 1),
              NewTopic(control_topic(source), 1, 1, config=CONTROL)]  # fmt: skip
    for future in admin.create_topics(others).values():
        future.result(PATIENCE_S)
    config = around(bootstrap_servers, source, "http://127.0.0.1:1")
    with RelayProcess(tmp_path, written(tmp_path, config)) as relay:
        assert relay.wait() == 3
        assert f"{source}.engage.delay has 2 partitions, its source {source} has 3" in why(relay)


def test_a_dead_letter_topic_that_would_stop_the_journal_is_refused(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    """The first event without a key would otherwise stop every partition, with all probes green."""
    sandbox = sandboxes(dead_letters={"cleanup.policy": "compact"})
    with Engage() as engage, relay_of(sandbox, engage, tmp_path) as relay:
        assert relay.wait() == 3
        assert f"{sandbox.topics.dead_letters} has cleanup.policy=compact" in why(relay)
    with Engage() as engage, relay_of(sandbox, engage, tmp_path, "--create-topics") as relay:
        relay.wait_until_ready()
        assert relay.stop() == 0


def test_a_compacted_source_is_refused_until_that_is_accepted(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    compact = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    source = ConfigResource(ResourceType.TOPIC, sandbox.topics.source, incremental_configs=[compact])
    sandbox.admin.incremental_alter_configs([source])[source].result(PATIENCE_S)
    with Engage() as engage, relay_of(sandbox, engage, tmp_path) as relay:
        assert relay.wait() == 3
        assert "source.compacted: accept" in why(relay)
    accepted: dict[str, object] = {"topics": [sandbox.topics.source], "compacted": "accept"}
    with Engage() as engage, relay_of(sandbox, engage, tmp_path, source=accepted) as relay:
        relay.wait_until_ready()
        assert relay.stop() == 0


def test_a_topic_new_to_the_group_that_holds_records_needs_a_decision(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=2)
    with Engage() as engage:
        for number in range(7):
            engage.submit(order_id(number))
        publish(sandbox, [(order_id(number), event(order_id(number))) for number in range(7)])
        with relay_of(sandbox, engage, tmp_path) as relay:
            assert relay.wait() == 4
            assert f"{sandbox.topics.source} holds 7 records" in why(relay)
            assert "--from" in relay.text
        assert engage.requests.total() == 0
        with relay_of(sandbox, engage, tmp_path, "--from", "latest") as relay, Books(sandbox) as books:
            relay.wait_until_ready().wait_until_owning(2)
            engage.submit(ORDER)
            publish(sandbox, [(ORDER, event(ORDER))])
            until(lambda: engage.events_of(ORDER) == [1], "what comes after the decision is sent")
            assert len(engage.accepted) == 1
            assert books.read().dead_letters == []
            assert relay.stop() == 0


@pytest.mark.parametrize("how", ["retention", "a recreated topic"])
def test_an_offset_that_the_source_does_not_hold_is_no_silent_reset(
    sandboxes: SandboxFactory, tmp_path: Path, how: str
) -> None:
    sandbox = sandboxes()
    with Engage() as engage:
        publish(sandbox, [(ORDER, event(ORDER, number)) for number in (1, 2, 3, 4)])
        if how == "retention":
            sandbox.commit((sandbox.topics.source, 0, 1))
            for deleted in sandbox.admin.delete_records([TopicPartition(sandbox.topics.source, 0, 3)]).values():
                deleted.result(PATIENCE_S)
        else:
            sandbox.commit((sandbox.topics.source, 0, 1000))
        with relay_of(sandbox, engage, tmp_path) as relay:
            assert relay.wait() == 5
            assert ("2 records were deleted unread" if how == "retention" else "the topic was recreated") in why(relay)
        assert engage.requests.total() == 0


def test_every_error_in_the_configuration_is_named(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    config = configuration(sandbox, "http://127.0.0.1:1", limits={"pendign": 1}, connection={"timeout": "soon"})
    with RelayProcess(tmp_path, written(tmp_path, config)) as relay:
        assert relay.wait() == 2
        assert "limits.pendign: unknown key" in relay.text
        assert "timeout" in relay.text


def test_an_admin_port_that_is_taken_is_refused(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config = configuration(sandboxes(), "http://127.0.0.1:1", admin={"listen": listen})
        with RelayProcess(tmp_path, written(tmp_path, config)) as relay:
            assert relay.wait() == 2
            assert listen in why(relay)


# What needs no decision


def test_three_environment_variables_are_enough(admin: AdminClient, bootstrap_servers: str, tmp_path: Path) -> None:
    if "KAFKA_BOOTSTRAP_SERVERS" in os.environ:
        pytest.skip("its topic is called `orders`: only on a broker of our own")
    names = ["orders", "orders.engage.delay", "orders.engage.dead-letters", control_topic("engage-relay")]
    admin.create_topics([NewTopic("orders", 2, 1)])["orders"].result(PATIENCE_S)
    try:
        with Engage() as engage:
            environ = {
                "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
                "ENGAGE_BASE_URL": engage.url,
                "ENGAGE_API_KEY": API_KEY,
                "ENGAGE_RELAY__ADMIN__LISTEN": "127.0.0.1:0",  # 8080 may be taken on this machine
            }
            with RelayProcess(tmp_path, None, "--from", "latest", "--create-topics", environ=environ) as relay:
                relay.wait_until_ready().wait_until_owning(2)
                engage.submit(ORDER)
                properties: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap_servers}
                sandbox = Sandbox(properties, RelayTopics(names[0], names[1], names[2]), admin, 2)
                publish(sandbox, [(ORDER, event(ORDER))])
                until(lambda: engage.events_of(ORDER) == [1], "the event's action is accepted")
                assert relay.stop() == 0
    finally:
        for deleted in admin.delete_topics(names).values():
            deleted.result(PATIENCE_S)


def test_without_a_broker_it_keeps_trying_is_alive_not_ready_and_stops_at_once(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes()
    with socket.socket() as nobody, Engage() as engage:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        unreachable: dict[str, object] = {"bootstrap.servers": f"127.0.0.1:{nobody.getsockname()[1]}"}
        with relay_of(sandbox, engage, tmp_path, kafka=unreachable) as patient:
            with relay_of(sandbox, engage, tmp_path, kafka=unreachable) as hasty:
                assert hasty.get("/healthz")[0] == 200
                assert hasty.get("/readyz")[0] == 503
                hasty.terminate()  # while it waits for the first answer
                assert hasty.wait(5) == 0
            waits = f"waiting for Kafka at {unreachable['bootstrap.servers']}: connection refused"
            until(lambda: patient.said(waits), "it says what it waits for")
            assert patient.get("/readyz") == (503, f"{waits}\n")
            assert json.loads(patient.get("/status.json")[1])["attention"] == [waits[0].upper() + waits[1:]]
            assert patient.get("/healthz")[0] == 200
            patient.terminate()
            assert patient.wait(5) == 0


def test_the_second_sigterm_ends_it_at_once(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    with (
        Engage(faults=("hang=1,calls=action",)) as engage,
        relay_of(sandbox, engage, tmp_path, "--from", "earliest", connection={"timeout": "60s"}) as relay,
    ):
        relay.wait_until_ready()
        engage.submit(ORDER)
        publish(sandbox, [(ORDER, event(ORDER))])
        until(lambda: engage.faults["hang"], "an action is in flight")
        relay.terminate()
        until(lambda: relay.said("stopping: handing partitions over"), "it waits for what is in flight")
        relay.terminate()
        assert relay.wait(5) == 128 + signal.SIGTERM


def test_logs_hold_neither_the_key_nor_anything_of_the_events(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    # One request in five: after several in a row the relay would ask only every half a minute.
    faults = ("error=0.04", "unavailable=0.04", "garbage=0.04", "reset-after=0.04", "stale=0.04")
    orders = [order_id(number) for number in range(40)]
    bad = [Raw(ORDER.encode(), value) for value in (b"\xff", event(ORDER)[:-1], event(""), event(ORDER, version=2))]
    with Engage(seed=8, faults=faults, failing=0.1) as engage:
        for order in orders:
            engage.submit(order, contact=order != orders[0])
        with relay_of(sandbox, engage, tmp_path, "--from", "earliest") as relay, Books(sandbox) as books:
            publish_raw(sandbox, bad)
            publish(sandbox, [(order, event(order)) for order in orders])
            until(lambda: len(engage.accepted) >= 5 and engage.faults.total() >= 3, "some are accepted, some fail")
            until(lambda: len(books.read().dead_letters) >= len(bad), "the bad ones are dead-lettered")
            engage.down()
            until(lambda: relay.metric("requests_total"), "metrics are there")
            metrics = relay.get("/metrics")[1]
            assert relay.stop() == 0
            relay.assert_discreet()
            assert relay.log
            for secret in (API_KEY, ORDER, orders[0]):
                assert secret not in metrics
