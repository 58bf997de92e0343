"""Writes the recipes of docs/cookbook.md: `python -m tools.cookbook` (`--check`: only compare).

Rules:
 1. A recipe is a folder below examples/: what its files say is what the page says. Nothing is copied by hand.
 2. What becomes of an event is asked of the code that `run` decides by. A folder whose `route test` finds a difference
    is an error: so the page shows nothing that is untested.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from consumer.commands.routing.expectations import about_and_decision, differences, verdicts_of
from consumer.commands.routing.route import Verdict
from consumer.events.numbers import written
from consumer.events.routing.results import Routed
from tools.generated import write_or_check

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "cookbook.md"
PLACES = (ROOT / "examples" / "06-platforms", ROOT / "examples" / "07-recipes")
BEGIN, END = "<!-- recipes: begin -->\n", "<!-- recipes: end -->\n"
HEAD = ("event", "is about", "becomes", "order", "tag from", "language", "data")

_LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)")


def folders(places: tuple[Path, ...] = PLACES) -> list[Path]:
    """Return the recipes in the page's order: by place, then by title."""
    return [
        each
        for place in places
        for each in sorted((file.parent for file in place.glob("*/relay.yaml")), key=lambda it: title(it).lower())
    ]


def title(folder: Path) -> str:
    """Return a recipe's title: the first heading of its README."""
    return (folder / "README.md").read_text().partition("\n")[0].removeprefix("# ")


def recipe(folder: Path) -> str:
    """Return a recipe's section. Raises ValueError where an event becomes something else than the folder expects."""
    if found := [str(each) for each in differences(folder)]:
        raise ValueError("\n".join(found))
    _, _, text = (folder / "README.md").read_text().partition("\n")
    here = os.path.relpath(folder, FILE.parent)
    return (
        f"## {title(folder)}\n\n{_with_links_from_here(text.strip(), folder)}\n\n"
        f"Files: [{folder.parent.name}/{folder.name}]({here}/relay.yaml).\n\n"
        f"```jsonl\n{(folder / 'events.jsonl').read_text()}```\n\n"
        f"```yaml\n# relay.yaml\n{(folder / 'relay.yaml').read_text()}```\n\n" + "\n".join(table(folder)) + "\n"
    )


def _with_links_from_here(text: str, folder: Path) -> str:
    """Make the links of a folder's README lead to the same files from the page."""

    def moved(link: re.Match[str]) -> str:
        return f"]({os.path.relpath((folder / link[1]).resolve(), FILE.parent)}"

    return _LINK.sub(moved, text)


def table(folder: Path) -> Iterator[str]:
    """Yield the lines of the table that says what becomes of a folder's events."""
    yield _row(*HEAD)
    yield _row(*["---"] * len(HEAD))
    expected = yaml.safe_load((folder / "expected.yaml").read_text())
    for verdict, entry in zip(verdicts_of(folder), expected, strict=True):
        about, _ = about_and_decision(entry)
        for action in verdict.actions or (None,):
            yield _row(str(verdict.number), about, *_cells(verdict, action))


def _cells(verdict: Verdict, action: Routed | None) -> tuple[str, ...]:
    if action is None:
        becomes = f"dead letter `{verdict.reason}`" if verdict.fate == "dead_letter" else verdict.fate
        return becomes, "", "", "", ""
    data = "" if action.data is None else f"`{written(action.data).decode()}`"
    return action.action, action.order_id, action.tag_source.kind, action.language or "", data


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def current(document: str) -> str:
    """Return the document with its recipes rewritten."""
    before, begin, remainder = document.partition(BEGIN)
    _, end, after = remainder.partition(END)
    if not begin or not end:
        raise ValueError(f"{FILE} has no markers: {BEGIN.strip()} ... {END.strip()}")
    return before + BEGIN + "\n" + "\n".join(recipe(each) for each in folders()) + "\n" + END + after


def main(arguments: list[str]) -> int:
    """Write the recipes, or check them."""
    return write_or_check(FILE, current, arguments, by="tools.cookbook")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
