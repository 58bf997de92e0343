"""What all commands share: exit codes, configuration, streams, and ends that must be ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from consumer import logs
from consumer.commands.cli import app
from consumer.commands.exits import EXIT_CODES
from consumer.errors import ExitCode
from tests.unit.commands.calling import ENVIRONMENT, KEY, called


def test_help_documents_every_exit_code() -> None:
    shown = called("--help").stdout
    for code in ExitCode:
        assert f"  {code.value}  " in shown
    assert len([line for line in EXIT_CODES.splitlines() if line.startswith("  ")]) == len(ExitCode)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, consumer.commands.cli as cli\n"
        "heavy = {'pydantic', 'confluent_kafka', 'structlog', 'rich', 'asyncio'}\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["check-config"],
        ["route", "-"],
        ["topics", "create"],
        ["topics", "check"],
        ["pending", "list"],
        ["dead-letters", "list"],
        ["dead-letters", "redrive", "--all"],
    ],
)
def test_every_error_of_the_configuration_is_reported_on_stderr_with_code_2(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("polling:\n  deadlin: 5s\nlimits:\n  pending: 0\n")
    result = called(*command, "--config", str(file))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{file}:2:3 polling.deadlin: ")
    assert second.startswith(f"{file}:4:3 limits.pending: ")


def test_the_file_may_be_named_in_the_environment_which_overrides_it(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("source: {topics: [sales]}\nkafka: {group.id: from-file}\n")
    result = called("check-config", ENGAGE_RELAY_CONFIG=str(file), ENGAGE_RELAY__KAFKA__GROUP_ID="from-environment")
    assert result.exit_code == 0
    assert "sales.engage.delay" in result.stdout
    assert "from-environment" in result.stdout
    assert "from-file" not in result.stdout


def test_a_fault_shows_no_local_variables() -> None:
    assert app.pretty_exceptions_enable is False


def test_brokers_that_do_not_answer_give_code_1_and_one_line() -> None:
    result = called("topics", "check")
    assert result.exit_code == ExitCode.FAILED
    assert result.stdout == ""
    assert result.stderr == "Kafka does not answer at 127.0.0.1:1: connection refused\n"


@pytest.mark.slow
def test_run_ends_the_process_although_a_client_hangs() -> None:
    """A thread that never ends stands for a librdkafka call that never returns."""
    script = """
import sys, threading
from consumer import cli
from consumer.errors import ExitCode
from consumer.run import process
def failing(settings, *, start, create_topics, shadow):
    threading.Thread(target=threading.Event().wait).start()
    print("the last line", file=sys.stderr)
    return ExitCode.OFFSET_OUT_OF_RANGE
process.run = failing
sys.argv = ["engage-relay", "run"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.OFFSET_OUT_OF_RANGE
    assert done.stderr.endswith("the last line\n")


def test_keys_and_passwords_known_at_the_start_never_show_in_logs() -> None:
    result = called("check-config", ENGAGE_RELAY__KAFKA__SASL_PASSWORD="p4ssword-of-kafka")
    assert result.exit_code == 0
    assert {KEY, "p4ssword-of-kafka"} <= set(logs._secrets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "is_json"),
    [
        ((), {}, True),
        (("--log-format", "text"), {}, False),
        ((), {"ENGAGE_RELAY_LOG_FORMAT": "text"}, False),
        (("--log-format", "json"), {"ENGAGE_RELAY_LOG_FORMAT": "text"}, True),
    ],
)
def test_the_logs_are_text_or_json_as_somebody_says(
    arguments: tuple[str, ...], environment: dict[str, str], is_json: bool, tmp_path: Path
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("engage: {connections: {default: {api_key_file: /nowhere}}}\n")
    result = run_alone(*arguments, "--config", str(file), **environment)
    assert "cannot run" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("{") is is_json


@pytest.mark.slow
def test_the_level_may_be_named_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("engage: {connections: {default: {api_key_file: /nowhere}}}\n")
    near_miss = {"KAFKA_BOOTSTRAP_SERVER": "x"}  # a warning
    assert "KAFKA_BOOTSTRAP_SERVER" in run_alone("--config", str(file), **near_miss).stderr
    usual = run_alone("--config", str(file), ENGAGE_RELAY_LOG_LEVEL="warning", ENGAGE_RELAY_LOG_FORMAT="json").stderr
    assert "ENGAGE_RELAY_LOG" not in usual  # known, so nothing else was meant
    quiet = run_alone("--config", str(file), ENGAGE_RELAY_LOG_LEVEL="error", **near_miss).stderr
    assert "KAFKA_BOOTSTRAP_SERVER" not in quiet


def run_alone(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `run` in a process of its own: it ends at once, because a file cannot be read."""
    where = {**os.environ, **ENVIRONMENT, **environment}
    where.pop("ENGAGE_API_KEY")
    command = [sys.executable, "-m", "consumer.cli", "run", *arguments]
    return subprocess.run(command, env=where, capture_output=True, text=True, timeout=60, check=False)
