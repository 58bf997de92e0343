"""What the chaos tests call the usual speed, full speed again, and stuck."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.progress import FULL, Probe, recovery_s, usual_speed

BEGAN, ENDED = 110.0, 115.0  # the fault's
STUCK_S = 90.0


def evenly(begin: float, end: float, per_second: int) -> list[float]:
    """Return the moments of so many acceptances in each second, the first one at `begin`."""
    return [begin + n / per_second for n in range(round((end - begin) * per_second))]


BEFORE = evenly(100, BEGAN, 10)


# The usual speed


def test_the_usual_speed_is_what_is_accepted_in_a_second() -> None:
    assert usual_speed(BEFORE, BEGAN) == 10


def test_what_came_after_the_moment_is_not_usual() -> None:
    assert usual_speed([*BEFORE, *evenly(BEGAN, ENDED, 50)], BEGAN) == 10


def test_a_burst_and_a_standstill_of_a_second_are_not_usual() -> None:
    moments = [*evenly(100, 103, 10), *evenly(103, 104, 500), *evenly(105, BEGAN, 10)]
    assert usual_speed(moments, BEGAN) == 10


def test_a_long_standstill_does_not_make_slowness_usual() -> None:
    assert usual_speed([*evenly(60, 62, 10), *evenly(108, BEGAN, 10)], BEGAN) == 10


def test_of_less_than_a_second_the_speed_is_reckoned() -> None:
    assert usual_speed(evenly(100, 100.5, 10), 100.5) == 10


@pytest.mark.parametrize("moments", [[], [BEGAN], [ENDED]])
def test_without_anything_accepted_before_there_is_no_usual_speed(moments: Sequence[float]) -> None:
    assert usual_speed(moments, BEGAN) == 0


@given(st.lists(st.floats(0, 100), max_size=50).map(sorted), st.floats(0, 200))
def test_the_usual_speed_is_within_what_was_accepted(moments: list[float], before: float) -> None:
    speed = usual_speed(moments, before)
    assert speed >= 0
    assert (speed > 0) <= any(moment < before for moment in moments)


# Full speed again


def test_recovery_ends_where_the_first_second_of_full_speed_begins() -> None:
    after = [*evenly(ENDED + 0.5, ENDED + 3, 2), *evenly(ENDED + 3, ENDED + 6, 10)]
    assert recovery_s([*BEFORE, *after], BEGAN, ENDED) == 3


def test_who_continues_as_before_has_recovered_with_the_next_acceptance() -> None:
    assert recovery_s([*BEFORE, *evenly(ENDED + 0.25, ENDED + 3, 10)], BEGAN, ENDED) == 0.25


def test_what_was_accepted_during_the_fault_is_no_recovery() -> None:
    during = evenly(BEGAN, ENDED, 100)
    assert recovery_s([*BEFORE, *during, *evenly(ENDED + 4, ENDED + 6, 10)], BEGAN, ENDED) == 4


def test_nearly_full_is_full() -> None:
    assert recovery_s([*BEFORE, *evenly(ENDED + 1, ENDED + 3, round(FULL * 10))], BEGAN, ENDED) == 1


def test_slower_than_that_is_no_recovery() -> None:
    assert recovery_s([*BEFORE, *evenly(ENDED, ENDED + 60, round(FULL * 10) - 2)], BEGAN, ENDED) is None


def test_a_remainder_that_is_too_little_for_a_second_tells_nothing() -> None:
    assert recovery_s([*BEFORE, *evenly(ENDED, ENDED + 0.5, 10)], BEGAN, ENDED) is None
    assert recovery_s(BEFORE, BEGAN, ENDED) is None


def test_a_recovery_after_the_next_fault_began_is_not_this_ones() -> None:
    moments = [*BEFORE, *evenly(ENDED + 5, ENDED + 8, 10)]
    assert recovery_s(moments, BEGAN, ENDED, until=ENDED + 5) is None
    assert recovery_s(moments, BEGAN, ENDED, until=inf) == 5


def test_where_nothing_was_accepted_before_the_first_acceptance_is_the_recovery() -> None:
    assert recovery_s([ENDED + 7], BEGAN, ENDED) == 7


# Slow, or stuck


def test_whoever_comes_further_is_never_stuck_however_slowly() -> None:
    probe = Probe(STUCK_S)
    for accepted in range(10):
        began = 1000 + accepted * STUCK_S
        assert probe.see(accepted, "the same", now=began) is None
        assert probe.see(accepted, "the same", now=began + STUCK_S - 1) is None
    assert probe.longest_wait_s == STUCK_S - 1


def test_whoever_comes_no_further_is_stuck_in_time_and_not_before() -> None:
    probe = Probe(STUCK_S)
    assert probe.see(7, 0, now=1000) is None
    assert probe.see(7, 1, now=1000 + STUCK_S - 0.1) is None
    wrong = probe.see(7, 2, now=1000 + STUCK_S)
    assert wrong is not None
    assert "no further for 90 s" in wrong


def test_being_busy_is_no_progress_but_differs_from_idleness() -> None:
    busy, idle = Probe(STUCK_S), Probe(STUCK_S)
    busy.see(7, 1, now=1000)
    idle.see(7, 1, now=1000)
    assert "still tries" in str(busy.see(7, 2, now=1000 + STUCK_S))
    assert "nothing is even tried" in str(idle.see(7, 1, now=1000 + STUCK_S))


def test_it_is_stuck_from_where_it_last_came_further() -> None:
    probe = Probe(STUCK_S)
    probe.see(7, 0, now=1000)
    assert probe.see(8, 0, now=1000 + STUCK_S) is None
    assert probe.see(8, 0, now=1000 + 2 * STUCK_S - 1) is None
    assert probe.see(8, 0, now=1000 + 2 * STUCK_S) is not None


def test_the_longest_standstill_is_kept() -> None:
    probe = Probe(STUCK_S)
    for progress, now in [(1, 1000), (1, 1020), (2, 1021), (2, 1026), (3, 1027)]:
        probe.see(progress, now, now=now)
    assert probe.longest_wait_s == 20
