"""The documentation as a site: what `make docs` refuses, and what is rewritten for the site's Markdown reader."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import LINKING, ROOT
from tools.site_source import lay_out, pages, rewritten

MKDOCS = Path(sys.executable).with_name("mkdocs")


def build(root: Path) -> subprocess.CompletedProcess[str]:
    lay_out(root, root / "build" / "site-source")
    shutil.copy(ROOT / "mkdocs.yml", root)
    return subprocess.run(
        [MKDOCS, "build", "--strict"], cwd=root, check=False, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for page in pages(ROOT):
        (tmp_path / page.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    for folder in ("examples", "docs/images", "helm", "schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder, dirs_exist_ok=True)
    for file in ("compose.yaml", "Dockerfile"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def test_every_document_is_a_page() -> None:
    assert set(LINKING) == set(pages(ROOT))


def test_what_leads_nowhere_and_what_nothing_leads_to_are_refused(copy: Path) -> None:
    refused = {
        "[no such page](docs/gone.md)": "'docs/gone.md', but the target is not found",
        "[no such heading](docs/tuning.md#gone)": "does not contain an anchor '#gone'",
        "[a folder](consumer)": "'consumer'",
    }
    page = copy / "CONTRIBUTING.md"
    page.write_text("\n\n".join([page.read_text(), *refused]))
    (copy / "docs" / "forgotten.md").write_text("# Not in the navigation\n")
    built = build(copy)
    assert built.returncode != 0
    assert [said for said in (*refused.values(), "docs/forgotten.md") if said not in built.stderr] == []


def test_what_a_page_links_to_is_on_the_site(copy: Path) -> None:
    assert build(copy).returncode == 0
    for file in ("schemas/order_event.schema.json", "examples/01-canonical/events.jsonl", "docs/images/status.png"):
        assert (copy / "build" / "site" / file).is_file()


@pytest.mark.parametrize(
    ("written", "on_the_site"),
    [
        ("1. One\n\n       code\n\n   More.\n2. Two\n", "1. One\n\n        code\n\n    More.\n\n2. Two\n"),
        (
            "- One\n  continues\n  - Two\n    continues\n\nEnd\n",
            "- One\n    continues\n    - Two\n        continues\n\nEnd\n",
        ),
        ("- One\n- Two\n\n    code\n", "- One\n- Two\n\n      code\n"),
        ("Text\n\n    - code\n      code\n", "Text\n\n    - code\n      code\n"),
        ("```yaml\n- a:\n  b\n```\n  text\n", "```yaml\n- a:\n  b\n```\n  text\n"),
        ("<!-- begin -->\n| a |\n| --- |\n", "<!-- begin -->\n\n| a |\n| --- |\n"),
    ],
)
def test_lists_and_tables_are_written_as_the_sites_reader_wants_them(written: str, on_the_site: str) -> None:
    assert rewritten(written) == on_the_site
