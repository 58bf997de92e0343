"""What more connections, more partitions and more instances cost: the same load in different shapes, one after another.

    python -m benchmarks.scale                               eight minutes
    python -m benchmarks.scale --seconds 10 --rest-s 5       a short look

Each line is a run of benchmarks/steady.py at PER_SECOND events. Linear growth is judged by what each further connection
or partition adds to memory, to the start and to CPU at rest: it should be the same for the tenth and the thousandth.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from benchmarks import process
from benchmarks.running import BenchmarkError
from benchmarks.steady import Load, Steady, play

PER_SECOND = 60.0
CONNECTIONS = (1, 10, 100, 1000)
PARTITIONS = (1, 6, 60)
BASE = Load(per_second=PER_SECOND, rate=160.0)
HEAD = (
    f"{'instances':>9} {'connections':>11} {'partitions':>10} {'start':>8} {'at rest':>9} {'memory':>10} "
    f"{'CPU/action':>11} {'requests':>9} {'late, mean':>11} {'p99':>8} {'scrape':>8}"
)


def shapes(seconds: float, rest_s: float) -> list[Load]:
    """Return what is run: more connections, then more partitions, then a second instance."""
    base = replace(BASE, seconds=seconds, rest_s=rest_s)
    return [
        *(replace(base, connections=connections) for connections in CONNECTIONS),
        *(replace(base, connections=10, partitions=partitions) for partitions in PARTITIONS if partitions != 6),
        *(replace(base, connections=100, partitions=60, instances=instances) for instances in (1, 2)),
    ]


def line(load: Load, steady: Steady) -> str:
    """Return a run as a line."""
    return (
        f"{load.instances:9} {load.connections:11} {load.partitions:10} {steady.start_s:6.1f} s "
        f"{steady.rest_share:9.2%} {steady.peak_mib:6.0f} MiB {steady.cpu_ms:8.2f} ms {steady.requests:9.2f} "
        f"{steady.late_mean:9.2f} s {steady.late_p99:6.2f} s {steady.scrape_s:6.2f} s"
    )


def growth(runs: Sequence[tuple[Load, Steady]]) -> list[str]:
    """Return what each further connection added, from one run to the next."""
    by_connections = [run for run in runs if run[0].partitions == 6 and run[0].instances == 1]
    return [
        f"  from {before.connections} to {after.connections} connections: "
        f"{(late.peak_mib - early.peak_mib) * 1024 / more:.0f} KiB, "
        f"{(late.start_s - early.start_s) * 1000 / more:.1f} ms of the start, "
        f"{(late.rest_share - early.rest_share) * 1e6 / more:.0f} us of CPU a second at rest, each"
        for (before, early), (after, late) in pairwise(by_connections)
        for more in (after.connections - before.connections,)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all and print a line for each. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rest-s", type=float, default=10.0)
    options = parser.parse_args(arguments)
    process.require_linux()
    os.sched_setaffinity(0, process.cores()[1])
    print(f"{PER_SECOND:g} events/s, spread over all connections; instances on one core together.")
    print(HEAD)
    runs: list[tuple[Load, Steady]] = []
    for load in shapes(options.seconds, options.rest_s):
        try:
            steady = play(load)
        except BenchmarkError as error:
            print(f"{load}: {error}", file=sys.stderr)
            return 1
        runs.append((load, steady))
        print(line(load, steady), flush=True)
    print("\n".join(growth(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
