"""docs/guarantees.md names tests that there are, and commands that play them and print a figure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.docs.documents import ROOT

KINDS = ("silence", "identity", "failure domains", "parking")
TEST = re.compile(r"^(?:async )?def (test_\w+)\(([^)]*)\)", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"\bfigures: Figures\b")


class Row(NamedTuple):
    """What it says of a kind of fault."""

    kind: str
    fault: str
    holder: str
    command: str
    figure: str


def rows() -> Iterator[Row]:
    for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(Row._fields) and cells[0] in KINDS:
            yield Row(*cells)


ROWS = tuple(rows())
TESTS = {
    name: (path, parameters)
    for path in (ROOT / "tests").rglob("test_*.py")
    for name, parameters in TEST.findall(path.read_text())
}


def test_each_kind_has_its_rows() -> None:
    assert {row.kind for row in ROWS} == set(KINDS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_row_names_what_holds_it_and_a_command_that_prints_its_figure(row: Row) -> None:
    holder, command = row.holder.strip("`"), row.command.strip("`").split()
    if holder.startswith("benchmarks."):
        assert (ROOT / holder.replace(".", "/")).with_suffix(".py").exists()
        assert command[:3] == ["python", "-m", holder]
        return
    path, parameters = TESTS[holder]
    assert command[0] == "pytest"
    assert path.is_relative_to(ROOT / command[1])
    assert [name for name in TESTS if command[-1] in name] == [holder]
    assert PRINTS.search(parameters), f"{holder} prints no figure"
