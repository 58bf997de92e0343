"""What the documents hold: fenced blocks, commands, outcome tables, links.

Conventions of README and docs/:
 1. A YAML block says in its first line which file it is (`# relay.yaml`).
 2. A `jsonl` block is `events.jsonl` of its section; a table with the columns of `OUTCOME` says what becomes of each.
 3. Commands are indented by four or more; a continued line ends with a backslash. A drawing is no command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
CHART_README = ROOT / "helm" / "engage-relay" / "README.md"
DOCUMENTS = [ROOT / "README.md", *DOCS, CHART_README]
# The READMEs of recipes, a level deeper, are in the cookbook.
EXAMPLES = sorted([*(ROOT / "examples").glob("*.md"), *(ROOT / "examples").glob("*/*.md")])
LINKING = [
    *DOCUMENTS,
    *EXAMPLES,
    *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
]
OUTCOME = "| event | becomes | order | tag from | language | data |\n"

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_DRAWING = re.compile(r"[─│▼▲▶]")
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def name_of(document: Path) -> str:
    """Return the document's path below the root: a test's id."""
    return str(document.relative_to(ROOT))


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that its first line names; empty where it names none."""
        named = re.match(r"# ([\w.-]+\.yaml)\b", self.text)
        return "" if named is None else named[1]


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document or section."""
    return [Block(language, body) for language, body in _FENCE.findall(text)]


def sections(text: str) -> dict[str, str]:
    """Return the parts of a document by the `##` headings that they stand under."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[list[str]]:
    """Return the words of each command in a code line, pipes taken apart."""
    return [words for line in lines(text) for words in _words(line) if words]


def lines(text: str) -> list[str]:
    """Return the code lines as they stand, for a shell; a continued one is one."""
    found: list[str] = []
    for paragraph in _code(_FENCE.sub("", text)):
        if not _DRAWING.search(paragraph):
            found.extend(line.strip() for line in paragraph.replace("\\\n", " ").splitlines())
    return [line for line in found if line]


def _code(text: str) -> Iterator[str]:
    """Yield the indented code: lines after an empty one, indented by four more than what they belong to."""
    lines: list[str] = []
    margin, empty, indent = 0, True, None
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        deep = len(line) - len(line.lstrip())
        if stripped and indent is None and empty and deep >= margin + 4:
            indent = deep
        if stripped and indent is not None and deep >= indent:
            lines.append(line)
            continue
        if lines and stripped:
            yield "\n".join(lines)
            lines, indent = [], None
        if stripped:
            bullet = re.match(r" *(?:[-*]|\d+\.) +", line)
            margin = bullet.end() if bullet else (margin if deep else 0)
        empty = not stripped
    if lines:
        yield "\n".join(lines)


def _words(line: str) -> list[list[str]]:
    words = shlex.split(line, comments=True)
    found: list[list[str]] = [[]]
    for word in words:
        if word in ("|", "&&"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def mentioned(text: str) -> list[list[str]]:
    """Return the `engage-relay` commands in running text."""
    return [shlex.split(each) for each in re.findall(r"`(engage-relay [^`]+)`", _FENCE.sub("", text))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of an outcome table, as it is written."""

    becomes: str
    order: str
    tag_from: str
    language: str
    data: str


def outcomes(text: str) -> list[Outcome]:
    """Return the rows of the section's outcome table, in the events' order."""
    assert OUTCOME in text, "there is no table of what becomes of the events"
    rows: list[Outcome] = []
    for line in text[text.index(OUTCOME) :].splitlines()[2:]:
        if not line.startswith("|"):
            break
        number, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert int(number) == len(rows) + 1
        rows.append(Outcome(*cells))
    return rows


def links(text: str) -> list[str]:
    """Return where a document's links and images lead."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    return [*_LINK.findall(_FENCE.sub("", text)), *_IMAGE.findall(prose)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
