"""Each command's help: whole lines on 80 columns, and examples that the command line takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from consumer.commands.cli import app
from consumer.commands.examples import EXAMPLES
from tests.deploy.commands import accept, told
from tests.unit.commands.calling import called


def paths(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield every command with whether it is a group of others."""
    is_group = isinstance(command, typer.core.TyperGroup)
    yield path, is_group
    if isinstance(command, typer.core.TyperGroup):
        for name, each in command.commands.items():
            yield from paths(each, (*path, name))


ALL = list(paths(typer.main.get_command(app)))
COMMANDS = [" ".join(path) for path, is_group in ALL if not is_group]


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_no_line_of_a_help_is_cut_on_80_columns(path: tuple[str, ...]) -> None:
    # On a terminal of 80 columns click writes 78. Its runner for tests writes 80, unless it is told.
    shown = CliRunner().invoke(app, [*path, "--help"], terminal_width=78)
    assert shown.exit_code == 0
    lines = [each for each in shown.stdout.splitlines() if "Usage:" not in each]
    assert [each for each in lines if re.search(r"(\.\.\.|…)$", each)] == []
    assert [each for each in lines if len(each) > 80 and "engage-relay " not in each] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_that_it_takes(command: str) -> None:
    shown = called(*command.split(), "--help").stdout
    examples = told("\n".join(f"    {line}" for line in EXAMPLES[command]))
    assert any(each[: len(command.split())] == command.split() for each in examples)
    for line in EXAMPLES[command]:
        assert f"  {line}\n" in shown
    for each in examples:
        accept(each)


LISTS = ("status", "route", "reconcile", "pending list", "dead-letters list", "dead-letters redrive")


@pytest.mark.parametrize("command", LISTS)
def test_what_lists_things_prints_them_as_lines_or_as_yaml(command: str) -> None:
    shown = called(*command.split(), "--help").stdout
    assert re.search(r"-o, --output <(wide\|)?json\|yaml>", shown)
    assert "--json" in shown


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert EXAMPLES.keys() == set(COMMANDS)
