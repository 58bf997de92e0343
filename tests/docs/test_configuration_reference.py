"""docs/configuration.md is made from the settings model, and is current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consumer.config.environment import overrides
from consumer.config.loading import load
from consumer.config.settings import Settings
from consumer.events.durations import seconds
from tests.docs.documents import blocks
from tools import configuration_reference as reference


def test_it_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


def test_what_drifted_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drifted = tmp_path / "configuration.md"
    drifted.write_text(reference.FILE.read_text().replace("| `limits.pending` |", "| `limits.pendign` |"))
    monkeypatch.setattr(reference, "FILE", drifted)

    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0


def test_a_document_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers for keys"):
        reference.current("<!-- short: begin -->\n<!-- short: end -->\n")


def test_every_key_has_a_meaning() -> None:
    rows = reference.settings()
    assert len({row.key for row in rows}) == len(rows) > 25
    assert all(row.meaning for row in rows)


@pytest.mark.parametrize("row", reference.settings(), ids=lambda row: str(row.key))
def test_every_variable_sets_the_key_beside_it(row: reference.Setting) -> None:
    (variable,) = re.findall(
        rf"^\| `{re.escape(row.key)}` \|.*\| `(\w+)` \|$", reference.settings_table(), re.MULTILINE
    )
    said, errors = overrides({variable: "{}" if row.kind == "text by name" else "1"}, Settings, {})
    assert errors == []
    assert [each.path for each in said] == [tuple(part.replace("NAME", "name") for part in row.path)]


def test_the_whole_file_shows_the_defaults(tmp_path: Path) -> None:
    whole = next(block.text for block in blocks(reference.FILE.read_text()) if block.file)
    file = tmp_path / "relay.yaml"
    file.write_text(whole)
    least = tmp_path / "least.yaml"
    least.write_text(
        "kafka: {'bootstrap.servers': 'broker-1:9092,broker-2:9092'}\n"
        "engage: {connections: {default: {base_url: https://acme.voyado.com,"
        " api_key_file: /run/secrets/engage-api-key}}}\n"
    )
    assert load(file, {}) == load(least, {})


@pytest.mark.parametrize("text", ["24h", "10m", "1m", "10s", "500ms", "90s"])
def test_a_duration_is_shown_as_it_may_be_written(text: str) -> None:
    assert seconds(reference._duration(seconds(text))) == seconds(text)
