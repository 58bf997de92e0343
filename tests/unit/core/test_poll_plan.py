"""When to poll, learnt from processing times; and what that reaches, on a virtual clock."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lateness import SCENARIOS, Scenario, Summary, play, summary
from consumer.core.pacing import PollSchedule
from consumer.core.poll_plan import (
    AGES,
    LONGEST_S,
    MAX_PRICE,
    MIN_PRICE,
    POINTS,
    PollPlan,
    best_polls,
    expectation,
    points_until,
)

MASSES = st.lists(st.floats(0, 1), min_size=POINTS, max_size=POINTS)
AGE = st.floats(0, 10_000)


def learnt_from(times: Callable[[], float], observations: int, plan: PollPlan | None = None) -> PollPlan:
    """Poll as the plan says, an action after the other, and let it plan again after every twenty of them."""
    plan = plan or PollPlan(60.0)
    for n in range(observations):
        ready, empty, age = times(), 0.0, plan.next_age(0.0)
        while age < ready:
            empty, age = age, plan.next_age(age)
        plan.found(empty, age)
        if n % 20 == 19:
            plan.steer(0.85)
    return plan


def polls_of(plan: PollPlan, ready: float) -> list[float]:
    """Return the ages at which an action is polled whose tag comes at `ready`."""
    ages = [plan.next_age(0.0)]
    while ages[-1] < ready:
        ages.append(plan.next_age(ages[-1]))
    return ages


# -- the dynamic programme -------------------------------------------------------------------------------------------


def cost(mass: list[float], polls: list[int], price: float) -> float:
    expected = expectation(mass, polls)
    return expected.polls + price * expected.lateness_s


@settings(max_examples=settings().max_examples * 2 // 5)
@given(MASSES.filter(lambda mass: sum(mass) > 1), st.floats(0.02, 20), st.randoms(use_true_random=False))
def test_no_other_polls_are_cheaper(mass: list[float], price: float, chance: random.Random) -> None:
    best = cost(mass, list(best_polls(mass, price)), price)
    for _ in range(5):
        reach = chance.choice((1, 5, 30, POINTS))
        others = [min(POINTS - 1, n + chance.randrange(reach)) for n in range(POINTS)]
        assert best <= cost(mass, others, price) * (1 + 1e-9)


@given(MASSES, st.floats(0.02, 20))
def test_the_next_poll_is_always_later(mass: list[float], price: float) -> None:
    assert all(later >= n for n, later in enumerate(best_polls(mass, price)))


@given(st.floats(0.05, LONGEST_S))
def test_an_age_lies_between_the_points_beside_it(age: float) -> None:
    n = points_until(age)
    assert AGES[n - 1] <= age * (1 + 1e-6)
    assert n == POINTS or age < AGES[n] * (1 + 1e-6)


# -- what is learnt --------------------------------------------------------------------------------------------------


def test_what_always_takes_as_long_is_polled_once_and_soon_after() -> None:
    plan = learnt_from(lambda: 3.0, 400)
    assert polls_of(plan, 3.0) == [pytest.approx(3.0, rel=0.08)]


def test_two_kinds_of_orders_are_polled_when_either_is_there_and_hardly_between() -> None:
    chance = random.Random(1)
    plan = learnt_from(lambda: 0.5 if chance.random() < 0.9 else 20.0, 1500)
    ages = polls_of(plan, 20.0)
    assert ages[0] == pytest.approx(0.5, rel=0.3)
    assert len([age for age in ages if 1.0 < age < 15.0]) <= 4
    assert ages[-1] == pytest.approx(20.0, rel=0.2)


def plans_after(observations: int, plan: PollPlan) -> int:
    """Let a plan steer after each observation; returns how often it planned again."""
    plans = 0
    for _ in range(observations):
        before = plan._polls
        plan.found(1.0, 2.0)
        plan.steer(0.85)
        plans += plan._polls is not before
    return plans


def test_a_connection_with_few_orders_does_not_plan_again_for_each_of_them() -> None:
    plan = PollPlan(60.0)
    assert plans_after(10, plan) == 10, "at first each says much"
    assert plans_after(90, plan) < 40
    assert plans_after(1000, plan) < 60


def test_an_afternoon_that_is_four_times_slower_is_noticed() -> None:
    plan = learnt_from(lambda: 2.0, 1000)
    assert polls_of(plan, 2.0)[0] < 2.5
    learnt_from(lambda: 8.0, 600, plan)
    ages = polls_of(plan, 8.0)
    assert len(ages) <= 3
    assert ages[-1] == pytest.approx(8.0, rel=0.1)


def test_the_figures_are_those_of_the_times() -> None:
    chance = random.Random(1)
    plan = learnt_from(lambda: chance.lognormvariate(math.log(2.0), 0.8), 2000)
    assert plan.figures().median_s == pytest.approx(2.0, rel=0.2)
    assert plan.figures().p95_s == pytest.approx(2.0 * math.exp(0.8 * 1.645), rel=0.35)


def test_the_lateness_that_is_told_is_the_one_that_was() -> None:
    """Nobody sees when a tag came: it is estimated from between which two polls it did."""
    chance = random.Random(1)
    late: list[float] = []
    plan = PollPlan(60.0)
    assert plan.figures().seen_lateness_s is None
    for number in range(3000):
        ready, age = chance.lognormvariate(math.log(2.0), 0.8), plan.next_age(0.0)
        empty = 0.0
        while age < ready:
            empty, age = age, plan.next_age(age)
        plan.found(empty, age)
        late.append(age - ready)
        if number % 20 == 19:
            plan.steer(0.85)
    assert plan.figures().seen_lateness_s == pytest.approx(statistics.fmean(late[-600:]), rel=0.2)


def test_a_tag_that_was_there_whenever_anybody_looked_teaches_nothing() -> None:
    """After an outage, all tags are there at the first poll, hours late: Engage is no slower for that."""
    plan = learnt_from(lambda: 2.0, 1000)
    before = polls_of(plan, 2.0)
    for _ in range(1000):
        plan.found(0.0, 3600.0)
    plan.steer(0.85)
    assert polls_of(plan, 2.0) == before


# -- what holds whatever was learnt ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(AGE, AGE), max_size=50), st.lists(st.floats(0, 100), max_size=30), AGE)
def test_the_next_poll_is_never_at_once_and_never_later_than_the_longest_interval(
    seen: list[tuple[float, float]], uses: list[float], age: float
) -> None:
    plan = PollPlan(60.0)
    for one, other in seen:
        plan.found(min(one, other), max(one, other))
    for use in uses:
        plan.steer(use)
    assert age < plan.next_age(age) <= age + 60.0
    assert MIN_PRICE <= plan.price <= MAX_PRICE


def test_slow_does_not_look_like_never() -> None:
    plan = learnt_from(lambda: 0.2, 5000)
    ages = polls_of(plan, 3600.0)
    waits = [after - before for before, after in pairwise(ages)]
    assert max(waits) <= 60.0
    assert len([age for age in ages if age <= 60.0]) >= 5


def test_a_short_rate_limit_buys_fewer_polls_and_a_wide_one_more() -> None:
    chance = random.Random(1)
    plan = learnt_from(lambda: chance.lognormvariate(math.log(2.0), 0.8), 1000)
    usual = plan.figures()
    for _ in range(50):
        plan.steer(0.2)
    wide = plan.figures()
    for _ in range(50):
        plan.steer(2.0)
    short = plan.figures()
    assert short.polls < usual.polls < wide.polls
    assert short.lateness_s > usual.lateness_s > wide.lateness_s


# -- what it reaches -------------------------------------------------------------------------------------------------


def reached(scenario: Scenario) -> Summary:
    return summary(scenario, play(scenario, PollSchedule(learns=True), seed=1))


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Scenario:
    (found,) = (each for each in SCENARIOS if each.name.startswith(request.param))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "ratio"),
    [("lognormal", 1.15), ("90 %", 1.3), ("four times slower", 1.3), ("short limit", 1.3)],
    indirect=["scenario"],
)
def test_lateness_is_near_the_least_that_its_requests_allow(scenario: Scenario, ratio: float) -> None:
    result = reached(scenario)
    assert result.ratio is not None
    assert result.ratio <= ratio


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "late_s"),
    [("beside 300 ", 1.3), ("beside 10,000 ", 1.3), ("30 % have no contact", 3.0)],
    indirect=["scenario"],
)
def test_orders_that_never_get_ready_or_a_contact_make_no_others_late(scenario: Scenario, late_s: float) -> None:
    result = reached(scenario)
    assert result.ratio is not None
    assert result.ratio <= 1.3
    assert result.late <= late_s


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["always 3 s"], indirect=True)
def test_what_always_takes_as_long_costs_two_requests_and_a_quarter_second(scenario: Scenario) -> None:
    result = reached(scenario)
    assert result.requests <= 2.1
    assert result.late <= 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "accepted_per_s"), [("too many", 0.95 * 50), ("3,000 that waited", 95)], indirect=["scenario"]
)
def test_a_rate_limit_that_is_used_up_goes_to_two_requests_for_each_action(
    scenario: Scenario, accepted_per_s: float
) -> None:
    assert reached(scenario).accepted_per_s >= accepted_per_s
