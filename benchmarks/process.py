"""What the kernel says of a process (Linux's /proc), and where it may run."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def require_linux() -> None:
    """End with a line where there is no /proc."""
    if not sys.platform.startswith("linux"):
        sys.exit("the benchmarks read /proc and pin processes to cores: they need Linux")


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has taken, user and system, all threads: seconds, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def cpu_s_by_thread(pid: int) -> Counter[str]:
    """Return the CPU time of each kind of thread: `main`, librdkafka's (`rdk:main`, `rdk:broker`), and `others`."""
    taken: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it ended meanwhile
            head, _, rest = (task / "stat").read_text().rpartition(")")
            name = head.partition("(")[2]
            fields = rest.split()
            kafka = name.rstrip("0123456789") if name.startswith("rdk") else "others"
            taken["main" if int(task.name) == pid else kafka] += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S  # type: ignore[assignment]
    return taken


def memory_bytes(pid: int, field: str) -> int:
    """Return `VmHWM` (the most there ever was) or `VmRSS` (what is resident now)."""
    return _status(pid, field) * 1024


def threads(pid: int) -> int:
    """Return how many threads it has."""
    return _status(pid, "Threads")


def descriptors(pid: int) -> int:
    """Return how many files and sockets it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise KeyError(field)


@cache  # as it was before anything was pinned
def cores() -> tuple[set[int], set[int]]:
    """Return the core that is measured, and those of everything else. With only one, they share it."""
    *others, last = sorted(os.sched_getaffinity(0))
    return {last}, set(others) or {last}


@contextmanager
def pinned_to(allowed: set[int]) -> Iterator[None]:
    """Start processes on these cores: what is started within inherits them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return int(candidate.getsockname()[1])
