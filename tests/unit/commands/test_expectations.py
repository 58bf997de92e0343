"""`route test`: what real shapes and habits of platforms become, and how a difference is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.commands.routing.expectations import differences, folders_below
from tests.unit.commands.calling import called

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize("folder", folders_below(CASES), ids=lambda folder: str(folder.name))
def test_each_case_becomes_what_is_expected(folder: Path) -> None:
    assert [str(each) for each in differences(folder)] == []


def test_folders_that_agree_end_with_code_0() -> None:
    result = called("route", "test", str(CASES))
    assert (result.exit_code, result.stdout) == (0, f"{len(folders_below(CASES))} folders, 0 differences\n")


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("- ignored", 'expected "ignored", found {"action":"ConfirmShipment"'),
        ("- {order: A-2}", 'expected {"order":"A-2"}, found {'),
        ("- {data: {total: 198.00}}", "found {"),
        ("- [{order: A-1}]", 'expected [{"order":"A-1"}], found {'),
        ("- {dead_letter: undecodable}", "found {"),
        ("- {order: A-1}\n- ignored", "expected 2 events, found 1"),
        ("refused: x", "expected refused: x, found a configuration without errors"),
    ],
)
def test_a_difference_is_shown_and_ends_with_code_1(expected: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"type": "order.shipped", "orderId": "A-1", "data": {"total": 199.00}}')
    (tmp_path / "expected.yaml").write_text(expected)
    result = called("route", "test", str(tmp_path))
    assert result.exit_code == 1
    assert shown in result.stdout
    assert result.stdout.endswith("1 folders, 1 differences\n")


def test_a_folder_without_expectations_is_an_error(tmp_path: Path) -> None:
    assert called("route", "test", str(tmp_path)).exit_code == 2
