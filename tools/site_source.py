"""What `make docs` builds the site from: this repository's Markdown files, in `build/site-source`.

    python -m tools.site_source

The site's pages lie where they lie here (`docs/tuning.md`, `examples/04-redrive/README.md`), so
that one link works in the checkout and on the site. What a page links to is copied along: a
schema, the compose file, a picture.

Three things are rewritten, where the site's Markdown reader is stricter than CommonMark:

 1. In a list, what belongs to a point is indented by the width of its bullet. The reader wants
    four columns.
 2. A table may follow a comment at once. The reader wants an empty line between them.
 3. A point may follow another one's second paragraph at once. The reader wants an empty line
    there, too.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "build" / "site-source"
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/*.md",
    "examples/*.md",
    "examples/*/*.md",
    "helm/*/README.md",
)

_BULLET = re.compile(r" *(?:[-*]|\d+\.) +")
_COMMENT = re.compile(r"<!--.*-->")
_LINK = re.compile(r"\]\(([^)\s#]+)[^)\s]*\)")


def pages(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files that are pages of the site, below `root`."""
    return [page for pattern in PAGES for page in sorted(root.glob(pattern))]


def linked(page: Path) -> list[Path]:
    """Return the files of the repository that a page links to, other pages apart."""
    targets = [page.parent / link for link in _LINK.findall(page.read_text()) if "://" not in link]
    return [target.resolve() for target in targets if target.is_file() and target.suffix != ".md"]


def rewritten(text: str) -> str:
    """Return a page as the site's reader wants it: see the module's text."""
    lines: list[str] = []
    widths: list[int] = []  # of the points that are open: the column in which their text begins
    fenced, after_empty, paragraphs = False, True, False  # paragraphs: the point that is open has more than one
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        within = widths[-1] if widths else 0
        bullet = None if fenced or indent >= within + 4 else _BULLET.match(line)
        if line.strip() and not fenced and (bullet or after_empty):
            widths = [width for width in widths if width <= indent]
            within = widths[-1] if widths else 0
        if bullet and paragraphs and not after_empty:
            lines.append("")
        paragraphs = not bullet and (paragraphs or not line.strip())
        inside = line.strip() and indent >= within
        lines.append(" " * (4 * len(widths) - within) + line if inside else line)
        if bullet:
            widths.append(bullet.end())
        elif line.lstrip().startswith("```"):
            fenced = not fenced
        elif _COMMENT.fullmatch(line):
            lines.append("")
        after_empty = not line.strip()
    return "\n".join(lines) + "\n"


def lay_out(root: Path = ROOT, source: Path = SOURCE) -> None:
    """Make `source` again from the pages below `root` and what they link to."""
    shutil.rmtree(source, ignore_errors=True)
    for page in pages(root):
        laid = source / page.relative_to(root)
        laid.parent.mkdir(parents=True, exist_ok=True)
        laid.write_text(rewritten(page.read_text()))
        for file in linked(page):
            beside = source / file.relative_to(root)
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, beside)


if __name__ == "__main__":
    lay_out()
