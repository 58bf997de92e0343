"""README and ARCHITECTURE say what is: their snippets are tried, their tables held against the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from consumer.commands.cli import app
from consumer.config.loading import load
from consumer.errors import ExitCode
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.snapshot import ConnectionFigures, Snapshot
from schemas.dead_letter import Reason
from schemas.order_event import OrderEvent

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def _snippet(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_configuration_in_the_readme_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(_snippet("yaml"))

    settings = load(file, {})

    assert next(iter(settings.effective_routes)) == "parcel-sent"


def test_the_event_in_the_readme_is_canonical() -> None:
    assert OrderEvent.model_validate(json.loads(_snippet("json"))).type == "order.shipped"


def test_the_three_variables_of_the_readme_are_enough() -> None:
    named = re.findall(r"export ([A-Z_]+)=(\S+)", README)
    assert len(named) == 3
    assert load(None, dict(named)).topics[0].source == "orders"


def test_every_command_in_the_readme_exists() -> None:
    written = re.findall(r"(?:^    |`|\| )engage-relay ([a-z][a-z -]*[a-z])", README, re.MULTILINE)
    assert len(written) > 8
    assert [command for command in written if not _runs_help(tuple(command.split()))] == []


def _runs_help(words: tuple[str, ...]) -> bool:
    """Tell whether the words, as far as they are commands and not prose or options, name a command."""
    names = [word for word in words if not word.startswith("-")]
    return any(CliRunner().invoke(app, [*names[:n], "--help"]).exit_code == 0 for n in (1, 2) if len(names) >= n)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_a_dead_letter_is_explained(reason: Reason) -> None:
    assert f"`{reason}`" in README


def test_every_exit_code_is_explained() -> None:
    table = README[README.index("| exit code |") :]
    explained = [int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)]
    assert explained == [code.value for code in ExitCode]


def test_every_metric_in_the_readme_is_in_a_scrape() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    figures = {"default": ConnectionFigures()}
    metrics.publish(Snapshot(pending={"waiting": 0}, lag={("orders", 0): 0}, connections=figures))
    scrape = generate_latest(registry).decode()

    named = set(re.findall(r"engage_relay_[a-z_]+", README))
    assert named
    assert {name for name in named if f"# TYPE {name} " not in scrape} == set()


def test_the_architecture_names_no_file_that_is_not_there() -> None:
    named = set(re.findall(r"`([a-z_/]+\.py)`", ARCHITECTURE))
    assert named
    assert {name for name in named if not list((ROOT / "consumer").rglob(name)) and not (ROOT / name).exists()} == set()
