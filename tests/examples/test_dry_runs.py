"""Each example's README says what its commands print, and names files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.commands import accept
from tests.docs.documents import ROOT, links
from tests.examples.readme import EXAMPLES, Example, output_of

SESSIONS = [
    pytest.param(Example(folder), command, output, id=f"{folder.name}: {command}")
    for folder in EXAMPLES
    for command, output in Example(folder).sessions()
]
each_example = pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: str(folder.name))


@pytest.mark.parametrize(("example", "command", "output"), SESSIONS)
def test_a_session_prints_what_the_readme_shows(example: Example, command: str, output: str) -> None:
    assert output_of(command, example.folder) == output


@each_example
def test_every_command_of_the_relay_is_one_that_it_takes(folder: Path) -> None:
    called = [words for words in Example(folder).commands if words[0] == "engage-relay"]
    for words in called:
        accept(words[1 : words.index(">")] if ">" in words else words[1:])
    assert called or Example(folder).steps("helm")


@each_example
def test_every_file_of_an_example_is_shown_in_its_readme(folder: Path) -> None:
    text = Example(folder).text
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "README.md":
            assert re.search(rf"\b{re.escape(file.name)}\b", text), f"{file} is not mentioned"


def test_the_index_leads_to_every_example() -> None:
    index = links((ROOT / "examples" / "README.md").read_text())
    assert [f"{folder.name}/README.md" for folder in EXAMPLES] == [link for link in index if link.endswith("README.md")]
