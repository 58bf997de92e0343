"""What every generator of one file does with what it made: writes it, or with `--check` says that it has drifted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def write_or_check(file: Path, made: Callable[[str], str], arguments: Sequence[str], *, by: str) -> int:
    """Return the exit code. `made`: the file's text, out of its present one; `by`: the generator's module."""
    present = file.read_text()
    current = made(present)
    if list(arguments) != ["--check"]:
        file.write_text(current)
    elif current != present:
        sys.stderr.write(f"{file} is not current: python -m {by}\n")
        return 1
    return 0
