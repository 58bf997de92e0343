"""CONTRIBUTING.md names targets, files and folders that there are, and describes every folder of tests."""

from __future__ import annotations

import re

from tests.docs.documents import ROOT, commands, sections

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_target_that_it_names_is_one_of_the_makefile() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", TEXT)) | {words[1] for words in commands(TEXT) if len(words) > 1}
    assert len(named) > 8
    assert named <= TARGETS


def test_every_path_that_it_names_is_there() -> None:
    named = {
        path for path in re.findall(r"`([\w./-]+)`", TEXT) if "/" in path or re.search(r"\.(md|py|toml|yml)$", path)
    }
    assert len(named) > 30
    assert {path for path in named if "NN-" not in path and not (ROOT / path).exists()} == set()


def test_every_folder_of_tests_has_its_line() -> None:
    table = sections(TEXT)["Tests"]
    described = set(re.findall(r"^\| `tests/(\w+)`", table, re.MULTILINE))
    assert described == {folder.name for folder in (ROOT / "tests").iterdir() if (folder / "__init__.py").exists()}
