"""`make lint` refuses an import that nobody declares, and a declared library that nothing imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each test looks at all imports

ROOT = Path(__file__).parents[3]
DEPTRY = Path(sys.executable).with_name("deptry")


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPTRY, "consumer", "schemas"], cwd=copy, check=False, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("consumer", "schemas"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_what_is_imported_is_declared(copy: Path) -> None:
    assert lint(copy).returncode == 0


@pytest.mark.parametrize("imported", ["requests", "pytest"])  # comes along with something else; a development tool
def test_an_import_that_nobody_declares_is_refused(copy: Path, imported: str) -> None:
    (copy / "consumer" / "errors.py").write_text(f"import {imported}\n")
    linted = lint(copy)
    assert linted.returncode != 0
    assert f"'{imported}'" in linted.stderr


def test_a_declared_library_that_nothing_imports_is_refused(copy: Path) -> None:
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace("dependencies = [\n", 'dependencies = [\n    "requests",\n', 1))
    linted = lint(copy)
    assert linted.returncode != 0
    assert "'requests'" in linted.stderr
