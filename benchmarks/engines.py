"""What a request costs in CPU: our engine, httpx's objects over it, and the engine of another commit, in one run.

    python -m benchmarks.engines                      this commit and the one before
    python -m benchmarks.engines --against v0.1.0     any other commit
    python -m benchmarks.engines --most 1.5           exit code 1 where ours costs more than 1.5 times the other

Rules:
 1. The ways take turns, round by round, so whatever else the machine does meets all of them. The medians are compared.
 2. Each way is a process of its own on the measured core; the Engage that answers at once is on the others.
 3. A commit that cannot be had, or whose engine is called otherwise, is left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from benchmarks import process
from benchmarks.running import BenchmarkError, instant_engage
from tests.support.archives import unpack

REPOSITORY = Path(__file__).parent.parent
PROBE = Path(__file__).with_name("engine_probe.py")
OURS = "ours, as the relay asks"
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Way:
    """A way to make requests, and the directory of the code that makes them."""

    way: str
    code: Path


class _Probe:
    def __init__(self, way: Way, url: str) -> None:
        with process.pinned_to(process.cores()[0]):
            self._process = subprocess.Popen(
                [sys.executable, str(PROBE), way.way, url],
                env={**os.environ, "PYTHONPATH": str(way.code)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        if (found := self._line()) != str(way.code):
            raise BenchmarkError(f"ran the code of {found}, not of {way.code}")

    def round(self) -> float:
        """Return the microseconds of CPU that a request took."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline().strip():
            return line
        assert self._process.stderr is not None
        raise BenchmarkError(self._process.stderr.read().strip().rpartition("\n")[2])

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def measured(ways: Mapping[str, Way], rounds: int = ROUNDS) -> dict[str, float | BenchmarkError]:
    """Return what a request costs by each way, or why that is not known: microseconds of CPU, the rounds' median."""
    results: dict[str, float | BenchmarkError] = {}
    costs: dict[str, list[float]] = {}
    with ExitStack() as closing:
        url = closing.enter_context(instant_engage(0))
        probes: dict[str, _Probe] = {}
        for name, way in ways.items():
            try:
                probes[name] = closing.enter_context(_Probe(way, url))
                probes[name].round()  # it warms up
            except BenchmarkError as error:
                results[name] = error
                probes.pop(name, None)
        for _ in range(rounds):
            for name, probe in probes.items():
                costs.setdefault(name, []).append(probe.round())
    return results | {name: statistics.median(taken) for name, taken in costs.items()}


def code_of(commit: str, into: Path) -> Path:
    """Write the code of a commit into a directory. Raises BenchmarkError where there is no such commit."""
    packed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", commit, "consumer", "schemas"], capture_output=True, check=False
    )
    if packed.returncode:
        raise BenchmarkError(packed.stderr.decode().strip())
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        unpack(archive, into)
    return into.resolve()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__.split("\n")[0])
    parser.add_argument("--against", default="HEAD^", help="the other commit")
    parser.add_argument("--most", type=float, help="how many times the other's CPU is the most that ours may take")
    options = parser.parse_args(arguments)
    process.require_linux()
    os.sched_setaffinity(0, process.cores()[1])
    ways = {OURS: Way("engine", REPOSITORY)}
    ways |= {f"ours, by httpx's {way}": Way(way, REPOSITORY) for way in ("transport", "client")}
    with tempfile.TemporaryDirectory() as directory:
        other = f"{options.against}, as the relay asks"
        try:
            ways[other] = Way("engine", code_of(options.against, Path(directory)))
        except BenchmarkError as error:
            print(f"{options.against} is left out: {error}")
        results = measured(ways)
    ours = results[OURS]
    if isinstance(ours, BenchmarkError):
        print(ours, file=sys.stderr)
        return 1
    print(f"{'microseconds of CPU per request, 32 in flight':48} {'':>6}  times ours")
    for name, result in results.items():
        print(f"  {name:46} " + (f"{result:6.1f}  {result / ours:5.2f}" if isinstance(result, float) else f"{result}"))
    compared = results.get(other)
    return int(isinstance(compared, float) and options.most is not None and ours > options.most * compared)


if __name__ == "__main__":
    sys.exit(main())
