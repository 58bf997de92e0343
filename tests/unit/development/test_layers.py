"""`make lint` refuses an import that goes up: tried in a temporary copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each test lints all layers

ROOT = Path(__file__).parents[3]
PACKAGES = ("consumer", "schemas", "tests", "tools", "benchmarks")
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache"], cwd=copy, check=False, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "corpus"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_hold(copy: Path) -> None:
    assert lint(copy).returncode == 0


@pytest.mark.parametrize(
    ("room", "line", "broken"),
    [
        ("core/pacing.py", "from consumer.kafka import topics\n", "Rooms import downwards only"),
        ("kafka/topics/scan.py", "from consumer.engage import client\n", "Rooms import downwards only"),
        ("events/decoding.py", "import socket\n", "core and events do no I/O"),
        ("run/process.py", "from tools import dashboard\n", "The product does not know its tests"),
        ("newroom.py", "", "Missing layer"),
    ],
)
def test_an_arrow_that_goes_up_is_refused(copy: Path, room: str, line: str, broken: str) -> None:
    file = copy / "consumer" / room
    written = file.read_text() if file.exists() else ""
    file.write_text(written + line)

    linted = lint(copy)

    assert linted.returncode == 1
    assert broken in linted.stdout or "newroom" in linted.stdout
