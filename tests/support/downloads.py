"""Programs that tests need and a machine may not have: fetched once, and kept.

They lie in `${XDG_CACHE_HOME:-~/.cache}/engage-relay`, where `make clean` leaves them.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


class UnavailableError(RuntimeError):
    """It cannot be had on this machine; the text says why."""


def needed(what: str, get: Callable[[], T]) -> T:
    """Return what `get` gets. Where that is unavailable the test is skipped with the reason; in CI it fails."""
    try:
        return get()
    except UnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"No {what}, which CI must have: {error}", pytrace=False)
        pytest.skip(f"No {what}: {error}")


def kept(name: str, fetch: Callable[[Path], Path]) -> Path:
    """Return the kept directory of this name.

    Where it is not there yet, `fetch` makes it in the temporary directory that it is given, and returns what is to be
    kept: it appears complete or not at all, and one run fetches while others wait.
    """
    directory = _cache() / name
    if not directory.is_dir():
        with alone(name):
            if not directory.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=directory.parent) as temporary:
                    fetch(Path(temporary)).rename(directory)
    return directory


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Let no other run do this at the same time."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def said(
    command: Sequence[str | Path], *, cwd: Path, timeout_s: float, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command; returns its exit code and all that it said. Raises UnavailableError where it takes too long."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} did not finish within {timeout_s:.0f} s") from error
    return done.returncode, done.stdout.decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line that says something, shortened."""
    return (text.strip().splitlines() or ["(it said nothing)"])[-1].strip()[:500]


def first_error(text: str) -> str:
    """Return Maven's first line with an error, or the last one that says something, shortened."""
    return next((line.strip()[:500] for line in text.splitlines() if "ERROR" in line), last_line(text))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engage-relay"
