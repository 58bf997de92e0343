"""The commands that ask brokers and Engage, as an operator calls them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from typer.testing import CliRunner, Result

from consumer.commands import checks
from consumer.commands.cli import app
from consumer.errors import ExitCode
from consumer.kafka.records.dead_letters import dead_letter_of_event
from consumer.kafka.records.source_events import SourceEvent
from consumer.simulator import Simulator, SimulatorOptions
from schemas.dead_letter import Reason
from tests.support.log_state import logs_as_they_were
from tests.support.sandbox import TopicFactory, relay_topics
from tests.support.waiting import until

KEY = "4711-very-secret"


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    with logs_as_they_were():
        yield


@contextmanager
def engage(options: SimulatorOptions) -> Iterator[str]:
    """Run the simulated Engage on a thread of its own; gives its URL."""
    simulator, stop, ready = Simulator(options), asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with simulator:
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield simulator.url
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


class Operator:
    """Somebody at a shell, with the configuration in the environment."""

    def __init__(self, bootstrap_servers: str, source: str) -> None:
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "ENGAGE_BASE_URL": "http://127.0.0.1:9",
            "ENGAGE_API_KEY": KEY,
            "ENGAGE_RELAY__SOURCE__TOPICS": source,
            "ENGAGE_RELAY__KAFKA__GROUP_ID": f"relay-{uuid4().hex[:8]}",
        }

    @property
    def group(self) -> str:
        return self.environment["ENGAGE_RELAY__KAFKA__GROUP_ID"]

    def calls(self, *arguments: str, stdin: str = "", **environment: str) -> Result:
        result = CliRunner().invoke(app, arguments, input=stdin, env={**self.environment, **environment})
        assert KEY not in result.output
        return result


@pytest.fixture
def source(topics: TopicFactory) -> str:
    return topics(partitions=2)


@pytest.fixture
def operator(bootstrap_servers: str, source: str) -> Operator:
    return Operator(bootstrap_servers, source)


def json_lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def put_dead_letters(bootstrap_servers: str, source: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for number in range(count):
        event = SourceEvent(
            topic=source, partition=1, offset=200 + number, timestamp_ms=None, key=b"A-%d" % number, value=b"{}"
        )
        dead_letter = dead_letter_of_event(event, Reason.NOT_FOUND, "not there", 1_762_257_600.0, "shipped")
        producer.produce(
            f"{source}.engage.dead-letters", dead_letter.value, dead_letter.key, 1, headers=dead_letter.headers
        )
    assert producer.flush(30) == 0


def test_topics_are_checked_made_and_checked_again(admin: AdminClient, operator: Operator, source: str) -> None:
    missing = operator.calls("topics", "check")
    assert missing.exit_code == ExitCode.TOPICS
    assert missing.stdout == ""
    assert [f"{source}.engage.{kind}" in missing.stderr for kind in ("delay", "dead-letters")] == [True, True]
    made = operator.calls("topics", "create", "--replication", "1")
    assert made.exit_code == 0
    assert len(made.stdout.splitlines()) == 4
    relay_topics(admin, source, operator.group)  # returns when they answer
    assert operator.calls("topics", "check").exit_code == 0
    assert operator.calls("topics", "create").stdout == "nothing to do\n"


def test_topics_without_a_source_are_the_operators_error(operator: Operator) -> None:
    result = operator.calls("topics", "create", ENGAGE_RELAY__SOURCE__TOPICS="nobody-made-this")
    assert result.exit_code == ExitCode.TOPICS
    assert "nobody-made-this" in result.stderr


def test_what_dead_letters_list_prints_redrive_reads(
    bootstrap_servers: str, admin: AdminClient, operator: Operator, source: str
) -> None:
    relay_topics(admin, source, operator.group)
    put_dead_letters(bootstrap_servers, source, 3)
    listed = operator.calls("dead-letters", "list", "--json", "--limit", "2")
    assert listed.exit_code == 0
    assert [(row["source_offset"], row["key"], row["redriven"]) for row in json_lines(listed)] == [
        (200, "A-0", False),
        (201, "A-1", False),
    ]
    redriven = operator.calls("dead-letters", "redrive", "-", "--to-source", "--json", stdin=listed.stdout)
    assert redriven.exit_code == 0
    assert [(row["dead_letter_offset"], row["result"], row["to"]) for row in json_lines(redriven)] == [
        (0, "redriven", f"{source}[1]"),
        (1, "redriven", f"{source}[1]"),
    ]
    again = operator.calls("dead-letters", "redrive", "--all", "--dry-run")
    assert [line.split(": ", 1)[1] for line in again.stdout.splitlines()] == [
        "skipped: was redriven before",
        "skipped: was redriven before",
        f"would be redriven to {source}[1]",
    ]


def test_a_dead_letter_that_was_named_by_offset_and_is_not_there_gives_code_1(
    bootstrap_servers: str, admin: AdminClient, operator: Operator, source: str
) -> None:
    relay_topics(admin, source, operator.group)
    put_dead_letters(bootstrap_servers, source, 1)
    result = operator.calls(
        "dead-letters", "redrive", "--to-source", "--dead-letter-offset", "1:0", "--dead-letter-offset", "1:7"
    )
    assert result.exit_code == ExitCode.FAILED
    first, second = result.stdout.splitlines()
    assert first == f"{source}.engage.dead-letters/1/0: redriven to {source}[1]"
    assert "/1/7: failed: " in second


def test_a_dead_letter_is_named_by_the_offset_of_its_event_too(
    bootstrap_servers: str, admin: AdminClient, operator: Operator, source: str
) -> None:
    relay_topics(admin, source, operator.group)
    put_dead_letters(bootstrap_servers, source, 2)

    result = operator.calls(
        "dead-letters", "redrive", "--to-source", "--source-offset", "1:201", "--source-offset", "1:1"
    )

    assert result.exit_code == ExitCode.FAILED
    assert result.stdout == f"{source}.engage.dead-letters/1/1: redriven to {source}[1]\n"
    assert result.stderr == f"{source}[1]: no dead letter of the event at offset 1, or another condition excludes it\n"


def test_tables_for_pipes_are_separated_by_tabs(
    bootstrap_servers: str, admin: AdminClient, operator: Operator, source: str
) -> None:
    relay_topics(admin, source, operator.group)
    put_dead_letters(bootstrap_servers, source, 1)
    names, row = (line.split("\t") for line in operator.calls("dead-letters", "list").stdout.splitlines())
    assert dict(zip(names, row, strict=True)) == {
        "source_topic": source,
        "source_partition": "1",
        "source_offset": "200",
        "dead_letter_offset": "0",
        "reason": "not_found",
        "detail": "not there",
        "route": "shipped",
        "key": "A-0",
        "failed_at": "2025-11-04T12:00:00Z",
        "redriven": "False",
    }
    assert operator.calls("pending", "list").stdout.split("\t")[:4] == ["topic", "partition", "offset", "state"]


def test_a_list_with_a_gap_says_so_on_stderr_and_gives_code_1(operator: Operator) -> None:
    for command in ("pending", "dead-letters"):
        result = operator.calls(command, "list", "--json")
        assert result.exit_code == ExitCode.FAILED
        assert result.stdout == ""
        assert "does not exist" in result.stderr


def findings(result: Result) -> dict[str, str]:
    """What was found, by how it stands: only what follows the summary."""
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    return {what.split(":")[0]: standing for standing, what in lines if standing in ("ok", "note", "failed")}


def test_check_config_online_finds_that_all_is_well(admin: AdminClient, operator: Operator, source: str) -> None:
    relay_topics(admin, source, operator.group)
    with engage(SimulatorOptions(valid_keys=frozenset({KEY}))) as url:
        result = operator.calls("check-config", "--online", ENGAGE_BASE_URL=url)
    assert result.exit_code == 0
    assert findings(result) == dict.fromkeys(
        ("brokers", "topics", "rights", "start", "transactions", "connection default"), "ok"
    )


def test_check_config_online_says_that_run_will_need_from(
    bootstrap_servers: str, admin: AdminClient, operator: Operator, source: str
) -> None:
    relay_topics(admin, source, operator.group)
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(source, b"{}")
    assert producer.flush(30) == 0
    with engage(SimulatorOptions()) as url:
        result = operator.calls("check-config", "--online", ENGAGE_BASE_URL=url)
    assert result.exit_code == 0
    assert findings(result)["start"] == "note"
    assert "holds 1 records" in result.stdout


def test_check_config_online_names_the_partitions_of_which_the_group_knows_nothing(
    bootstrap_servers: str, admin: AdminClient, operator: Operator, source: str
) -> None:
    relay_topics(admin, source, operator.group)
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for partition in (0, 1, 1):
        producer.produce(source, b"{}", partition=partition)
    assert producer.flush(30) == 0
    group = operator.environment["ENGAGE_RELAY__KAFKA__GROUP_ID"]
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(source, 0, 1)])

    def committed() -> bool:
        (future,) = admin.alter_consumer_group_offsets([asked]).values()
        return all(each.error is None for each in future.result(30).topic_partitions)

    until(committed, "the group's coordinator takes the offset")  # a new broker's is still loading
    with engage(SimulatorOptions()) as url:
        result = operator.calls("check-config", "--online", ENGAGE_BASE_URL=url)
    assert findings(result)["start"] == "note"
    assert "2 in partition 1" in result.stdout


def test_every_check_refuses_a_dead_letter_topic_that_loses_dead_letters_and_names_the_way_out(
    admin: AdminClient, operator: Operator, source: str
) -> None:
    each = relay_topics(admin, source, operator.group)
    week = ConfigEntry("retention.ms", str(7 * 24 * 3600 * 1000), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, each.dead_letters, incremental_configs=[week])
    admin.incremental_alter_configs([resource])[resource].result(30)
    with engage(SimulatorOptions()) as url:
        for command in (("topics", "check"), ("check-config", "--online")):
            result = operator.calls(*command, ENGAGE_BASE_URL=url)
            assert result.exit_code == ExitCode.TOPICS
            assert f"{each.dead_letters} deletes dead letters after 7 days" in result.output
    assert operator.calls("topics", "check", ENGAGE_RELAY__DEAD_LETTERS__KEEP="7d").exit_code == 0
    assert operator.calls("topics", "create").stdout == f"altered {each.dead_letters}: retention.ms=-1\n"
    assert operator.calls("topics", "check").exit_code == 0


def test_a_coordinator_that_is_not_settled_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first `check-config --online` on a new cluster would fail."""
    answers = [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]
    monkeypatch.setattr(checks, "ASK_RETRY_S", 0)

    def ask() -> str:
        if answers:
            raise KafkaException(KafkaError(answers.pop()))
        return "answered"

    assert checks.asked(ask) == "answered"


def test_check_config_online_continues_behind_what_failed_and_ends_with_the_first_code(operator: Operator) -> None:
    with engage(SimulatorOptions(valid_keys=frozenset({"another"}))) as url:
        result = operator.calls("check-config", "--online", ENGAGE_BASE_URL=url)
    assert result.exit_code == ExitCode.TOPICS
    assert findings(result) == {
        "brokers": "ok",
        "topics": "failed",
        "rights": "ok",
        "transactions": "ok",
        "connection default": "failed",
    }
    assert "refused (401)" in result.stdout


@pytest.mark.parametrize(
    ("environment", "told", "code"),
    [
        ({"ENGAGE_API_KEY": "", "ENGAGE_API_KEY_FILE": "/nowhere/key"}, "/nowhere/key", ExitCode.CONFIGURATION),
        ({"ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__CA_FILE": "/nowhere/ca"}, "ca_file", ExitCode.CONFIGURATION),
        ({}, "connect", ExitCode.FAILED),
    ],
)
def test_check_config_online_says_why_a_connection_cannot_work(
    admin: AdminClient, operator: Operator, source: str, environment: dict[str, str], told: str, code: ExitCode
) -> None:
    relay_topics(admin, source, operator.group)
    url = {"ENGAGE_BASE_URL": "https://127.0.0.1:9"}
    result = operator.calls("check-config", "--online", **{**url, **environment})
    assert result.exit_code == code
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("failed") and "connection" in line]
    assert "default" in line
    assert told in line
