"""docs/cookbook.md is written from the examples, and says of each event what `route` and their expectations say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.documents import blocks, sections
from tools import cookbook


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that may be changed."""
    source = cookbook.PLACES[0] / "shopify"
    return Path(shutil.copytree(source, tmp_path / "shopify"))


def test_it_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert cookbook.main(["--check"]) == 0, capsys.readouterr().err


def test_what_drifted_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drifted = tmp_path / "cookbook.md"
    drifted.write_text(cookbook.FILE.read_text().replace("| ConfirmDelivery |", "| ConfirmOrder |"))
    monkeypatch.setattr(cookbook, "FILE", drifted)

    assert cookbook.main(["--check"]) == 1
    assert cookbook.main([]) == 0
    assert cookbook.main(["--check"]) == 0


def test_a_recipe_that_decides_otherwise_than_it_expects_is_not_written(recipe: Path) -> None:
    relay = recipe / "relay.yaml"
    relay.write_text(relay.read_text().replace("body.status == 'success'", "body.status"))
    with pytest.raises(ValueError, match=r"event 4 \(a fulfilment that failed\): expected \"ignored\", found"):
        cookbook.recipe(recipe)


def test_every_recipe_shows_its_files_and_a_row_for_each_action() -> None:
    shown = sections(cookbook.FILE.read_text())
    for folder in cookbook.folders():
        section = shown[cookbook.title(folder)]
        text = {block.language: block.text for block in blocks(section)}
        assert text["jsonl"] == (folder / "events.jsonl").read_text()
        assert text["yaml"] == "# relay.yaml\n" + (folder / "relay.yaml").read_text()
        numbers = [int(row.split("|")[1]) for row in section.splitlines() if row.startswith("| ") and row[2].isdigit()]
        assert sorted(set(numbers)) == list(range(1, len(text["jsonl"].splitlines()) + 1))


def test_a_value_of_several_actions_has_a_row_for_each() -> None:
    rows = [*cookbook.table(cookbook.PLACES[0] / "medusa")]
    assert [row for row in rows if "several in one value" in row] == [
        "| 12 | several in one value | ConfirmOrder | order_03 | order |  |  |",
        "| 12 | several in one value | ConfirmOrder | order_04 | order |  |  |",
    ]


def test_a_document_without_a_place_for_the_recipes_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        cookbook.current("# Routing cookbook\n")
