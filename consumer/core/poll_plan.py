"""When to poll, learnt from each connection's own processing times. Pure; ages and times are seconds.

A poll that comes too early costs a request, one that comes too late keeps a customer waiting. For a processing time T
with a known distribution, the ages t1 < t2 < ... at which to poll that minimise

    E[polls] + price * E[lateness]        lateness: from when the tag is there to the poll that finds it

follow from a dynamic programme over a grid of ages (`best_polls`):

    V(t) = min over s > t of 1 + price * E[(s - T)+ ; t < T <= s | T > t] + P(T > s | T > t) * V(s)

`price` is what a second of lateness is worth, in polls. It is steered so that the connection uses TARGET_USE of its
rate limit: requests to spare buy earliness.

The distribution is learnt from what each action tells: its tag came between its last empty poll and the one that
found it. The action adds one unit of mass to the ages of that interval, in proportion to the present estimate, which
is smoothed. (One step of expectation-maximisation for each observation: iterated to the maximum likelihood, the
estimate is all spikes. What keeps it from that is to smooth it in each step: Silverman et al., "A smoothed EM approach
to indirect estimation problems", 1990.) Older observations fade, so a slow afternoon is noticed within a minute or two.
A restart learns again.

Rules:
 1. Slow must not look like never: some mass is always kept at every age (the prior), so polls go on up to the deadline,
    MAX_GAP or `max_interval_s` apart at the most.
 2. What says nothing is not learnt: an interval that holds nearly all the mass.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

SHORTEST_S, LONGEST_S = 0.05, 600.0
POINTS = 260
RATIO = (LONGEST_S / SHORTEST_S) ** (1 / (POINTS - 1))
AGES: tuple[float, ...] = tuple(SHORTEST_S * RATIO**n for n in range(POINTS))
MIDDLES = tuple((before + age) / 2 for before, age in pairwise((0.0, *AGES)))

HALF_LIFE = 500  # observations, after which an older one counts half
FADING = 0.5 ** (1 / HALF_LIFE)
PRIOR_MEDIAN_S, PRIOR_SIGMA = 2.0, 1.2
PRIOR_WEIGHT, TAIL_WEIGHT = 0.25, 0.5  # observations: the guess that serves at first, and the mass at every age
TELLS_NOTHING = 0.98
MIN_GAP_S = 0.05
PLAN_INTERVAL_S = 2.0
TARGET_USE, MAX_USE = 0.85, 3.0
FIRST_PRICE, MIN_PRICE, MAX_PRICE = 2.0, 0.02, 4.0  # at 4, half a second less costs two more requests for an action
GAIN = 0.25  # of the relative error, at each new plan
# What a plan may leave out: each of a thousand connections learns something now and then, and a plan is a millisecond.
LEFT_OUT, MOST_LEFT_OUT = 0.1, 20


def _lognormal(median: float, sigma: float) -> list[float]:
    below = [0.5 + 0.5 * math.erf(math.log(age / median) / sigma / math.sqrt(2)) for age in AGES]
    return [at - before for before, at in pairwise((0.0, *below))]


PRIOR = array("d", (PRIOR_WEIGHT * mass + TAIL_WEIGHT / POINTS for mass in _lognormal(PRIOR_MEDIAN_S, PRIOR_SIGMA)))


def points_until(age: float) -> int:
    """Return how many of AGES are at most `age`."""
    if age < SHORTEST_S:
        return 0
    return min(POINTS, int(math.log(age / SHORTEST_S) / math.log(RATIO) + 1e-9) + 1)


def best_polls(mass: Sequence[float], price: float) -> array[int]:
    """Return at which of AGES to poll next: `[n]` after the first n of them were found empty, as an index.

    `mass`: how likely the tag comes between one of AGES and the next, in any unit. The index is at least n, and grows
    with n, which makes the programme fast.
    """
    below = [0.0, *accumulate(mass)]
    moment = [0.0, *accumulate(m * middle for m, middle in zip(mass, MIDDLES, strict=True))]
    total = below[POINTS]
    value = [0.0] * (POINTS + 1)
    polls = array("h", bytes(2 * POINTS))
    last = POINTS
    for n in range(POINTS - 1, -1, -1):
        best, at = math.inf, n + 1
        below_n, moment_n = below[n], moment[n]
        for k in range(n + 1, last + 1):
            cost = price * (AGES[k - 1] * (below[k] - below_n) - (moment[k] - moment_n)) + value[k]
            if cost < best:
                best, at = cost, k
        value[n] = total - below_n + best
        polls[n] = at - 1
        last = at
    return polls


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a plan is expected to cost on average: polls of an action, and how late (seconds) its tag is found."""

    polls: float
    lateness_s: float


def expectation(mass: Sequence[float], polls: Sequence[int]) -> Expectation:
    """Return what these polls cost where the tag comes as `mass` says."""
    below = [0.0, *accumulate(mass)]
    moment = [0.0, *accumulate(m * middle for m, middle in zip(mass, MIDDLES, strict=True))]
    asked = late = 0.0
    n = 0
    while n < POINTS:
        k = polls[n] + 1
        asked += below[POINTS] - below[n]
        late += AGES[k - 1] * (below[k] - below[n]) - (moment[k] - moment[n])
        n = k
    return Expectation(asked / below[POINTS], late / below[POINTS])


@cache
def _first_polls() -> array[int]:
    return best_polls(PRIOR, FIRST_PRICE)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a plan knows and expects: by when half and 95 % of the tags are there, polls of an action, how late it is.

    `seen_lateness_s`: how late tags were found of late, None before the first; it is an estimate, as nobody knows when
    between two polls a tag came. `price`: see the module. All times are seconds.
    """

    median_s: float
    p95_s: float
    polls: float
    lateness_s: float
    seen_lateness_s: float | None
    price: float


class PollPlan:
    """When to poll on one connection: what was learnt of its processing times, and what follows from it."""

    def __init__(self, max_interval_s: float) -> None:
        """Know nothing but the prior."""
        self._max_interval_s = max_interval_s
        self._mass = array("d", bytes(8 * POINTS))
        self._found = self._late_s = 0.0  # tags that were found, and how late all of them together, after their fading
        self._seen: Counter[tuple[int, int]] = Counter()  # intervals of AGES since the last plan
        self._seen_ages: Counter[tuple[int, int]] = Counter()  # the ages at which their tags were found, added up
        self._price = self._planned_price = FIRST_PRICE
        self._polls = _first_polls()
        self._figures: Figures | None = None

    @property
    def price(self) -> float:
        """What a second of lateness is worth at present, in polls."""
        return self._price

    def next_age(self, age: float) -> float:
        """Return at which age to poll an action that had no tag at `age` (0: nobody has asked yet)."""
        return max(age + MIN_GAP_S, min(self._planned(age), age + self._max_interval_s))

    def is_spare(self, age: float) -> bool:
        """Whether the poll after `age` is none that the plan wants: only `max_interval_s` calls for it."""
        return self._planned(age) > age + self._max_interval_s

    def _planned(self, age: float) -> float:
        n = points_until(age)
        return AGES[self._polls[n]] if n < POINTS else math.inf

    def found(self, empty_age: float, age: float) -> None:
        """Learn that a tag came after `empty_age` (0: nobody had asked) and at `age` at the latest. O(1)."""
        first = min(points_until(empty_age), POINTS - 1)
        interval = first, max(first + 1, min(points_until(age) + 1, POINTS))
        self._seen[interval] += 1
        self._seen_ages[interval] += age  # type: ignore[assignment] # a Counter of floats

    def steer(self, use: float) -> None:
        """Plan again, where enough was learnt or the price changed; that takes a millisecond or several.

        `use`: which part of the allowed requests was used since the last time, waiting ones included.
        """
        error = (TARGET_USE - min(use, MAX_USE)) / TARGET_USE
        self._price = min(MAX_PRICE, max(MIN_PRICE, self._price * math.exp(GAIN * error)))
        new = self._seen.total()
        is_news = new > min(LEFT_OUT * self._found, MOST_LEFT_OUT)
        if is_news or not 0.8 < self._planned_price / self._price < 1.25:
            self._learn()
            self._polls = best_polls(self.distribution(), self._price)
            self._planned_price = self._price
            self._figures = None

    def distribution(self) -> list[float]:
        """Return the estimate: mass by age, smoothed. Not normalised."""
        mass = [learnt + prior for learnt, prior in zip(self._mass, PRIOR, strict=True)]
        inner = [(before + 2 * at + after) / 4 for before, at, after in zip(mass, mass[1:], mass[2:], strict=False)]
        return [(3 * mass[0] + mass[1]) / 4, *inner, (mass[-2] + 3 * mass[-1]) / 4]

    def figures(self) -> Figures:
        """Return what was learnt and what the present plan is expected to cost."""
        if self._figures is None:
            mass = self.distribution()
            below = list(accumulate(mass))
            median_s, p95_s = (AGES[bisect_left(below, part * below[-1], hi=POINTS - 1)] for part in (0.5, 0.95))
            expected = expectation(mass, self._polls)
            seen_s = self._late_s / self._found if self._found else None
            self._figures = Figures(median_s, p95_s, expected.polls, expected.lateness_s, seen_s, self._price)
        return self._figures

    def _learn(self) -> None:
        estimate = self.distribution()
        below = [0.0, *accumulate(estimate)]
        moment = [0.0, *accumulate(m * middle for m, middle in zip(estimate, MIDDLES, strict=True))]
        weights = [0.0] * (POINTS + 1)  # by how much an age's weight differs from that of the age before
        observations, late_s = 0, 0.0
        for (first, last), count in self._seen.items():
            held = below[last] - below[first]
            if first or held < TELLS_NOTHING * below[POINTS]:
                weights[first] += count / held
                weights[last] -= count / held
                observations += count
                late_s += self._seen_ages[first, last] - count * (moment[last] - moment[first]) / held
        self._seen.clear()
        self._seen_ages.clear()
        faded = FADING**observations
        self._found = self._found * faded + observations
        self._late_s = self._late_s * faded + max(late_s, 0.0)
        for n, weight in enumerate(accumulate(weights[:POINTS])):
            self._mass[n] = self._mass[n] * faded + estimate[n] * max(weight, 0.0)
