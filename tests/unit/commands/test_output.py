"""What is printed: a terminal is never commanded, and JSON is JSON."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from consumer.commands import output


def test_what_a_terminal_would_obey_is_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    output.rows([{"route": "\x1b[2J\tx\n", "n": None}], ["route", "n"])
    output.data("\x1b]0;title\x07")
    shown = capsys.readouterr().out
    assert shown.splitlines() == ["route\tn", "\\x1b[2J\\tx\\n\t", "\\x1b]0;title\\x07"]


@given(st.dictionaries(st.text(), st.text()))
def test_json_is_one_printable_line_whatever_it_holds(row: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("typer.echo", written.append)
        output.json_line(row)
    assert json.loads(written[0]) == row
    assert written[0].isascii()
    assert written[0].isprintable()


def test_yaml_is_one_list_and_no_terminal_obeys_it(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, object]] = [
        {"order_id": "\x1b[2J yes", "n": None, "at": datetime(2026, 1, 2, tzinfo=UTC)},
        {"order_id": "no", "n": 1},
    ]
    output.rows(found, ["n"], look="yaml")
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown) == [
        {"order_id": "\x1b[2J yes", "n": None, "at": "2026-01-02T00:00:00Z"},
        {"order_id": "no", "n": 1},
    ]
    assert "\x1b" not in shown
    output.rows([], ["n"], look="yaml")
    assert yaml.safe_load(capsys.readouterr().out) == []


def test_on_a_terminal_a_table_is_drawn_without_markup_and_without_colour_where_none_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    output.rows([{"order_id": "[red]A-1[/red]\x1b[2J"}], ["order_id"])
    shown = capsys.readouterr().out
    assert "order id" in shown
    assert "[red]A-1[/red]\\x1b[2J" in shown
    assert not re.search(r"\x1b\[(3\d|38;[\d;]*|2J)", shown)


ROWS = [
    {"order_id": f"A-{number}-of-a-shop", "detail": "the field data.total " * 4, "offset": number} for number in (1, 22)
]


def drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, *, wide: bool
) -> tuple[str, str]:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(width)}.items():
        monkeypatch.setenv(name, value)
    output.rows(ROWS, ["order_id", "detail", "offset"], optional=["detail"], look="wide" if wide else "table")
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize("width", [20, 40, 80, 140])
@pytest.mark.parametrize("wide", [True, False])
def test_no_id_is_ever_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, wide: bool
) -> None:
    shown, _ = drawn(capsys, monkeypatch, width, wide=wide)
    for row in ROWS:
        (line,) = [line for line in shown.splitlines() if f"{row['order_id']} " in line + " "]
        assert line.split()[-1] == str(row["offset"])


def test_what_does_not_fit_is_left_out_and_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, told = drawn(capsys, monkeypatch, 80, wide=False)
    assert "data.total" not in shown
    assert told == "left out, because the terminal is too narrow: detail (-o wide shows them)\n"

    shown, told = drawn(capsys, monkeypatch, 80, wide=True)
    assert "data.total" in shown
    assert told == ""

    shown, told = drawn(capsys, monkeypatch, 140, wide=False)
    assert "data.total" in shown
    assert told == ""
