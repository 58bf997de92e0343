"""Writes the project's version wherever a file must name it: `python -m tools.version` (`--check`: only compare).

The version's one place is `pyproject.toml`. The package, `--version` and the User-Agent read it from what is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES: Mapping[str, tuple[str, ...]] = {  # what stands before the version, by file
    "Dockerfile": (r"^ARG VERSION=",),
    "docs/operations.md": (r"^ +image: engage-relay:",),
    "helm/engage-relay/Chart.yaml": (r"^version: ", r'^appVersion: "', r"^ +image: engage-relay:"),
}
_VERSION = r"\d+\.\d+\.\d+[\w.+-]*"


def project_version() -> str:
    """Return the version that `pyproject.toml` has."""
    said: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return said


def rewritten(text: str, befores: tuple[str, ...], version: str) -> str:
    """Return a file's text with the version in each of its places. Raises ValueError where one is not there."""
    for before in befores:
        text, count = re.subn(f"({before}){_VERSION}", rf"\g<1>{version}", text, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"{before} is followed by no version")
    return text


def drifted() -> list[Path]:
    """Return the files that name another version."""
    version = project_version()
    files = {ROOT / name: befores for name, befores in PLACES.items()}
    return [file for file, befores in files.items() if rewritten(text := file.read_text(), befores, version) != text]


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    found = drifted()
    for file in found:
        if arguments == ["--check"]:
            sys.stderr.write(f"{file} names another version than pyproject.toml: python -m tools.version\n")
        else:
            befores = PLACES[str(file.relative_to(ROOT))]
            file.write_text(rewritten(file.read_text(), befores, project_version()))
    return int(bool(found) and arguments == ["--check"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
