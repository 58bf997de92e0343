"""`python -m tests.simulation --seeds N [--from N]` plays many schedules, `--seed N [--trace]` one of them again.

Prints how many schedules reached each state, those that are to be reached first, and the schedules per second.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.simulation.coverage import TO_BE_REACHED
from tests.simulation.profile import Profile
from tests.simulation.scheduler import Scheduler, ViolationError

PROFILES = {
    "short": Profile.short,
    "documents": Profile.of_documents,
    "items": Profile.of_items,
    "parking": Profile.of_parking,
    "neighbours": Profile.of_neighbours,
    "pauses": Profile.of_pauses,
    "repeats": Profile.of_repeats,
    "requests": Profile.of_requests,
    "sequences": Profile.of_sequences,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--short", action="store_true", help="one process, one or two events, one fault at the most")
    parser.add_argument("--documents", action="store_true", help="events that carry their order's document")
    parser.add_argument("--items", action="store_true", help="events that are several actions")
    parser.add_argument("--neighbours", action="store_true", help="a relay of another group on the same source")
    parser.add_argument("--parking", action="store_true", help="little memory for the actions of two connections")
    parser.add_argument("--pauses", action="store_true", help="somebody pauses actions, again and again")
    parser.add_argument("--repeats", action="store_true", help="events that are written twice, within a window")
    parser.add_argument("--requests", action="store_true", help="somebody has actions sent again, hastened, dropped")
    parser.add_argument("--sequences", action="store_true", help="actions that supersede others, and steps backwards")
    parser.add_argument("--trace", action="store_true", help="print every step of it")
    arguments = parser.parse_args()
    first, count = (arguments.first, arguments.seeds) if arguments.seed is None else (arguments.seed, 1)
    reached: Counter[str] = Counter()
    steps = 0
    started = time.perf_counter()
    for seed in range(first, first + count):
        drawn = next((draw for name, draw in PROFILES.items() if getattr(arguments, name)), None)
        profile = None if drawn is None else drawn(random.Random(seed))
        scheduler = Scheduler(seed, profile=profile, trace=print if arguments.trace else None)
        try:
            scheduler.run()
        except ViolationError as violation:
            print(
                f"{violation}\n  again: python -m tests.simulation --seed {seed} --trace"
                + "".join(f" --{name}" for name in PROFILES if getattr(arguments, name)),
                file=sys.stderr,
            )
            return 1
        steps += scheduler.steps
        reached.update(dict.fromkeys(scheduler.reached, 1))
    seconds = time.perf_counter() - started
    print("schedules that reached")
    for state in (*TO_BE_REACHED, *sorted(reached.keys() - set(TO_BE_REACHED))):
        print(f"{reached[state]:9,} {state}")
    print(f"{count:,} schedules, {count / seconds:,.0f}/s, {steps / count:,.0f} steps each, nothing violated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
