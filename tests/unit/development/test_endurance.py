"""What the soak makes of its samples: a figure that could not be bad would prove nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.endurance import (
    AIM_S,
    SLACK_BYTES,
    SLACK_COUNT,
    Buckets,
    Late,
    Report,
    Sample,
    Use,
    growth,
    late,
    lateness,
    quantile,
    rise,
    since,
)

MIB = 1 << 20
GOOD = Report(
    seconds=600.0,
    warm_up_s=120.0,
    published=10,
    accepted=6,
    pending=3,
    dead_letters=1,
    requests=100_000,
    answers_429=10,
    memory_bytes=90 * MIB,
    memory_growth_bytes=1.0 * MIB,
    descriptors_growth=0,
    threads_growth=0,
    cpu_share=0.1,
    late_free=Late(100, 0.01, 0.1, 0.25),
    late_busy=Late(100, 5.0, 60.0, 60.0),
)


def buckets(on_time: float, late_ones: float = 0.0) -> Buckets:
    """Return a histogram of polls late by at most 0.1 s, and of others late by 1 to 5 s."""
    return {0.1: on_time, 1.0: on_time, 5.0: on_time + late_ones, math.inf: on_time + late_ones}


def test_a_quantile_lies_within_its_bucket_as_far_as_its_share() -> None:
    assert quantile(buckets(100), 0.5) == pytest.approx(0.05)
    assert quantile(buckets(50, 50), 0.75) == pytest.approx(3.0)
    assert quantile(buckets(0), 0.99) == quantile({}, 0.99) == 0.0
    assert quantile({0.1: 1.0, math.inf: 100.0}, 0.99) == math.inf


def test_the_most_is_the_bound_of_the_last_bucket_that_holds_any() -> None:
    assert late(buckets(10)).max_s == 0.1
    assert late(buckets(10, 1)).max_s == 5.0
    assert late({0.1: 10.0, math.inf: 11.0}).max_s == math.inf
    assert late(buckets(0)) == late({}) == Late(0, 0.0, 0.0, 0.0)


def test_what_a_minute_added_is_the_difference_of_two_readings() -> None:
    assert since(buckets(30, 5), buckets(10, 5)) == buckets(20)


def test_growth_is_that_of_a_line_through_the_samples_whatever_single_ones_do() -> None:
    steady = [(float(at), 50.0 + (5 if at % 2 else -5)) for at in range(100)]
    leaking = [(at, value + at) for at, value in steady]
    assert abs(growth(steady)) < 1.0
    assert growth(leaking) == pytest.approx(99.0, abs=1.0)
    assert growth([]) == growth([(0.0, 7.0)]) == 0.0


def test_what_comes_and_goes_does_not_rise_and_what_stays_does() -> None:
    assert rise([10, 40, 10, 12, 11, 40, 10, 39, 12]) <= 0
    assert rise(list(range(30))) == 20
    assert rise([]) == 0


def sample(at: float, requests: float, histogram: Buckets) -> Sample:
    return Sample(
        at=at,
        memory_bytes=0,
        descriptors=0,
        threads=0,
        cpu_s=0.0,
        pending=0,
        accepted=0,
        used={"default": Use(100.0, requests, histogram)},
    )


def test_a_sample_counts_as_free_where_it_and_the_one_before_left_some_rate() -> None:
    samples = [
        sample(0, 0, buckets(0)),
        sample(1, 100, buckets(0, 10)),  # busy
        sample(2, 150, buckets(5, 15)),  # half of it used, but what had queued up is in it
        sample(3, 200, buckets(25, 15)),  # free
        sample(4, 250, buckets(55, 15)),  # free
    ]
    assert lateness(samples, free=True) == buckets(50)
    assert lateness(samples, free=False) == buckets(5, 15)
    assert lateness([], free=True) == {}


def test_the_verdict_names_every_aim_that_was_missed() -> None:
    assert GOOD.misses() == []
    bad = {
        "not everything is accounted for": replace(GOOD, accepted=5),
        "Engage answered 429": replace(GOOD, answers_429=11),
        "memory grows": replace(GOOD, memory_growth_bytes=SLACK_BYTES + 1.0),
        "descriptors grow": replace(GOOD, descriptors_growth=SLACK_COUNT + 1),
        "threads grow": replace(GOOD, threads_growth=SLACK_COUNT + 1),
        "the rate limit was never free": replace(GOOD, late_free=Late(0, 0.0, 0.0, 0.0)),
        f"p99 of the lateness is above {AIM_S:g} s": replace(GOOD, late_free=Late(9, 0.1, AIM_S + 0.01, 0.5)),
    }
    assert {name: report.misses() for name, report in bad.items()} == {name: [name] for name in bad}
