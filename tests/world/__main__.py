"""`python -m tests.world --seeds N [--from N] | --seed N [--trace]`: many schedules, or one again."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.world.world import ViolationError, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print every step of it")
    arguments = parser.parse_args()
    reached: Counter[str] = Counter()
    seeds = range(arguments.first, arguments.first + arguments.seeds) if arguments.seed is None else [arguments.seed]
    started = time.perf_counter()
    steps = 0
    for seed in seeds:
        world = World(seed, trace=print if arguments.trace else None)
        try:
            world.run()
        except ViolationError as violation:
            print(f"{violation}\n  again: python -m tests.world --seed {seed} --trace", file=sys.stderr)
            return 1
        steps += world.steps
        reached.update({state: 1 for state in world.reached})
    seconds = time.perf_counter() - started
    for state, schedules in sorted(reached.items()):
        print(f"{schedules:8} {state}")
    print(f"{len(seeds)} schedules, {len(seeds) / seconds:.0f}/s, {steps / len(seeds):.0f} steps each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
