"""How fast a connection is asked, and when to ask again."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.outcomes import (
    Accepted,
    Forbidden,
    InDoubt,
    NotReady,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
    Withdrawn,
)
from consumer.core.pacing import (
    COOLDOWNS_S,
    FAILED_ALONE,
    FAILURES_IN_A_ROW,
    MAX_FAILED,
    MAX_RETRY_AFTER_S,
    SUSPENDED_PROBES_S,
    Pace,
    PollSchedule,
)

T0 = 1_760_000_000.0
LONGEST_PROBE_S = SUSPENDED_PROBES_S[-1]
DOWN = Unavailable("refused")


def pace_of(requests_per_second: float, share: float = 1.0, now: float = T0) -> Pace:
    pace = Pace(requests_per_second)
    pace.set_share(share, now)
    return pace


def run(pace: Pace, start: float, end: float, lateness: Iterator[float]) -> Iterator[float]:
    """Send whatever the pace allows, woken by a timer that is late by the next of `lateness`."""
    now = start
    while now < end:
        while (at := pace.next_at(now)) <= now:
            pace.sent(now)
            yield now
        if at == math.inf:
            return
        now = max(at, now) + next(lateness)


def late_by(*seconds: float) -> Iterator[float]:
    while True:
        yield from seconds


def max_in_a_second(moments: Iterable[float]) -> int:
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def fail(pace: Pace, times: int, now: float) -> None:
    for _ in range(times):
        pace.answered(DOWN, now)


# -- even, never in bursts ------------------------------------------------------------------------------------------


def test_requests_leave_evenly() -> None:
    sent = list(run(pace_of(50), T0, T0 + 2, late_by(0.0)))
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert min(gaps) == pytest.approx(max(gaps), rel=0.01) == pytest.approx(1 / 47.5, rel=0.01)


@given(
    rate_limit=st.sampled_from([10.0, 50.0, 200.0, 1000.0]),
    lateness=st.lists(st.sampled_from([0.0, 0.0005, 0.002, 0.02, 0.3, 1.5]), min_size=1, max_size=12),
)
def test_no_sliding_second_exceeds_the_rate_limit_however_late_the_timers_are(
    rate_limit: float, lateness: list[float]
) -> None:
    sent = list(run(pace_of(rate_limit), T0, T0 + 3, late_by(*lateness)))
    assert max_in_a_second(sent) <= rate_limit


@pytest.mark.parametrize("rate_limit", [5.0, 50.0, 1000.0])
def test_timers_that_are_late_by_two_milliseconds_cost_nothing(rate_limit: float) -> None:
    punctual = list(run(pace_of(rate_limit), T0, T0 + 10, late_by(0.0)))
    late = list(run(pace_of(rate_limit), T0, T0 + 10, late_by(0.002, 0.0005, 0.0019)))
    assert len(late) >= len(punctual) - 0.002 * rate_limit - 1  # what is still to be caught up at the end


@pytest.mark.parametrize("lateness", [0.0, 0.0005, 0.0019])
def test_a_huge_rate_is_throttled_neither_by_timers_nor_by_the_clocks_resolution(lateness: float) -> None:
    sent = sum(1 for _ in run(pace_of(100_000), T0, T0 + 0.2, late_by(lateness)))
    assert sent == pytest.approx(0.2 * 97_000, rel=0.03)


def test_nothing_is_given_twice_while_time_stands_still() -> None:
    pace = pace_of(50)
    sent = 0
    while pace.next_at(T0 + 1) <= T0 + 1:
        pace.sent(T0 + 1)
        sent += 1
    assert sent == 1


def test_an_idle_connection_saves_nothing_up() -> None:
    pace = pace_of(50)
    assert max_in_a_second(run(pace, T0 + 3600, T0 + 3602, late_by(0.0))) <= 50


# -- shared without talking -----------------------------------------------------------------------------------------


def test_without_a_share_nothing_leaves() -> None:
    assert Pace(50).next_at(T0) == math.inf
    assert pace_of(50, share=0.0).next_at(T0) == math.inf


def test_a_tiny_share_still_gets_its_permit() -> None:
    pace = pace_of(50, share=0.0001)
    assert pace.next_at(T0) == pytest.approx(T0 + 1 / (50 * 0.0001 / 2), abs=1)


def test_a_new_share_starts_with_nothing_earned() -> None:
    pace = pace_of(50, share=0.5)
    assert pace.next_at(T0) > T0


def test_what_was_earned_at_the_old_rate_is_kept_as_a_fraction_of_the_next_request() -> None:
    pace = pace_of(1.0, share=0.5)  # one in 4 s
    pace.set_share(1.0, T0 + 2)  # one in 2 s, half of which is earned
    assert pace.next_at(T0 + 2) - T0 == pytest.approx(2 + 1, abs=0.001)


@given(
    moves=st.lists(st.tuples(st.floats(0.01, 1.0), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), max_size=20),
    seed=st.integers(0, 1000),
)
def test_a_rebalance_never_lets_two_instances_together_exceed_the_rate_limit(
    moves: list[tuple[float, float]], seed: int
) -> None:
    """A share shrinks before the other one grows: partitions are revoked before they are assigned."""
    draw = random.Random(seed)
    timers = iter(lambda: draw.choice([0.0, 0.001, 0.002]), None)
    ours, theirs, now = pace_of(50, share=1.0), Pace(50), T0
    share = 1.0
    sent: list[float] = []
    for lasts, next_share in [*moves, (2.0, 0.0)]:
        for pace in (ours, theirs):
            sent += run(pace, now, now + lasts, timers)
        now += lasts
        for pace, portion in sorted(
            ((ours, next_share), (theirs, 1 - next_share)), key=lambda each: each[0] is ours and next_share > share
        ):
            pace.set_share(portion, now)
        share = next_share
    assert max_in_a_second(sent) <= 50


@pytest.mark.parametrize("instances", [2, 3, 5, 8, 12])
def test_however_many_instances_share_a_key_no_sliding_second_exceeds_the_rate_limit(instances: int) -> None:
    draw = random.Random(instances)
    timers = iter(lambda: draw.choice([0.0, 0.001, 0.002]), None)
    sent: list[float] = []
    for _ in range(instances):
        start = T0 + draw.random()
        sent += run(pace_of(50, share=1 / instances), start, start + 20, timers)
    assert max_in_a_second(sorted(sent)) <= 50


# -- 429 ------------------------------------------------------------------------------------------------------------


def test_429_halves_the_rate_once_a_second_however_many_answers_say_it() -> None:
    pace = pace_of(100)
    for _ in range(20):
        pace.answered(Throttled(0.0), T0)
    assert pace.rate(T0) == pytest.approx(48)
    pace.answered(Throttled(0.0), T0 + 1.0)
    assert pace.rate(T0 + 1.0) == pytest.approx((48 + 4.8) / 2)


def test_without_429_the_rate_grows_back_to_the_rate_limit_and_no_further() -> None:
    pace = pace_of(100)
    pace.answered(Throttled(0.0), T0)
    assert pace.rate(T0 + 5) == pytest.approx(96 * 0.75)
    assert pace.rate(T0 + 10) == pytest.approx(96) == pytest.approx(pace.rate(T0 + 1000))


def test_the_rate_never_shrinks_to_nothing() -> None:
    pace = pace_of(100)
    for second in range(60):
        pace.answered(Throttled(0.0), T0 + second)
    assert pace.rate(T0 + 60) >= 1


def test_the_connection_cools_down_as_long_as_it_is_told() -> None:
    pace = pace_of(50)
    pace.answered(Throttled(7.0), T0 + 1)
    pace.answered(Throttled(2.0), T0 + 1)
    assert pace.next_at(T0 + 1) == T0 + 8


def test_a_429_that_does_not_say_how_long_is_a_cooldown_of_a_second() -> None:
    pace = pace_of(50)
    pace.answered(Throttled(), T0 + 1)
    assert pace.next_at(T0 + 1) == T0 + 2


# -- failures in a row ----------------------------------------------------------------------------------------------


def test_a_few_failures_are_no_reason_to_stop() -> None:
    pace = pace_of(50)
    fail(pace, FAILURES_IN_A_ROW - 1, T0 + 1)
    assert pace.next_at(T0 + 1) <= T0 + 1


def test_failures_between_successes_are_no_reason_to_stop() -> None:
    pace = pace_of(50)
    for _ in range(20):
        fail(pace, FAILURES_IN_A_ROW - 1, T0 + 1)
        pace.answered(NotReady(), T0 + 1)
    assert pace.next_at(T0 + 1) <= T0 + 1


def test_failures_in_a_row_stop_the_connection_then_one_request_tries_it() -> None:
    pace = pace_of(50)
    fail(pace, FAILURES_IN_A_ROW, T0 + 1)
    assert pace.next_at(T0 + 1) == T0 + 1 + COOLDOWNS_S[0]
    pace.sent(T0 + 3)
    assert pace.next_at(T0 + 4) == math.inf
    pace.answered(Accepted(), T0 + 4)
    assert pace.next_at(T0 + 4) <= T0 + 4
    pace.sent(T0 + 4)
    assert pace.next_at(T0 + 5) <= T0 + 5


def test_cooldowns_grow_while_half_open_probes_fail_and_start_small_again_after_a_success() -> None:
    pace, now = pace_of(50), T0 + 1
    fail(pace, FAILURES_IN_A_ROW - 1, now)
    cooldowns = []
    for _ in range(len(COOLDOWNS_S) + 2):
        pace.sent(now)
        pace.answered(InDoubt("no answer"), now)
        cooldowns.append(round(pace.next_at(now) - now, 3))
        now = pace.next_at(now)
    assert cooldowns == [*COOLDOWNS_S, COOLDOWNS_S[-1], COOLDOWNS_S[-1]]
    pace.answered(Accepted(), now)
    fail(pace, FAILURES_IN_A_ROW, now)
    assert pace.next_at(now) == now + COOLDOWNS_S[0]


def test_late_failures_do_not_lengthen_the_cooldown() -> None:
    pace = pace_of(50)
    fail(pace, 100, T0 + 1)
    assert pace.next_at(T0 + 1) == T0 + 1 + COOLDOWNS_S[0]


def test_503_with_retry_after_cools_down_as_long_as_it_says() -> None:
    pace = pace_of(50)
    for _ in range(FAILURES_IN_A_ROW):
        pace.answered(Unavailable("503", 20.0), T0 + 1)
    assert pace.next_at(T0 + 1) == T0 + 21


@pytest.mark.parametrize("outcome", [Withdrawn(), Rejected(0, "cannot be a path segment")])
def test_a_request_that_was_never_made_proves_nothing_and_lets_the_next_one_try(outcome: Withdrawn | Rejected) -> None:
    pace = pace_of(50)
    pace.answered(Unauthorized(401), T0)
    pace.sent(T0 + LONGEST_PROBE_S)
    pace.answered(outcome, T0 + LONGEST_PROBE_S)
    assert pace.suspended
    assert pace.next_at(T0 + LONGEST_PROBE_S + 1) <= T0 + LONGEST_PROBE_S + 1
    pace.sent(T0 + LONGEST_PROBE_S + 1)
    assert pace.next_at(T0 + LONGEST_PROBE_S + 2) == math.inf


# -- a refused key --------------------------------------------------------------------------------------------------


def test_a_refused_key_suspends_the_connection_and_is_tried_at_growing_intervals() -> None:
    pace, at = pace_of(50), T0
    pace.answered(Unauthorized(401), T0)
    for wait_s in (*SUSPENDED_PROBES_S, SUSPENDED_PROBES_S[-1]):
        assert pace.suspended
        assert pace.next_at(at) == at + wait_s
        at += wait_s
        pace.sent(at)
        assert pace.next_at(at) == math.inf
        pace.answered(Unauthorized(401), at)


def test_answers_to_what_was_under_way_when_the_key_was_refused_put_its_next_try_off_no_further() -> None:
    pace = pace_of(50)
    for _ in range(50):
        pace.answered(Unauthorized(401), T0)
    assert pace.next_at(T0) == T0 + SUSPENDED_PROBES_S[0]


@pytest.mark.parametrize("ended_by", [Accepted(), None], ids=["an answer of use", "a new key"])
def test_the_intervals_begin_again(ended_by: Accepted | None) -> None:
    pace = pace_of(50)
    for at in range(0, 600, 60):
        pace.answered(Unauthorized(401), T0 + at)
    if ended_by is None:
        pace.key_changed()
    else:
        pace.answered(ended_by, T0 + 600)
    pace.answered(Unauthorized(401), T0 + 601)
    assert pace.next_at(T0 + 601) == T0 + 601 + SUSPENDED_PROBES_S[0]


def test_a_new_key_is_tried_at_once_with_one_request() -> None:
    pace = pace_of(50)
    pace.answered(Unauthorized(401), T0)
    pace.key_changed()
    assert pace.next_at(T0 + 1) <= T0 + 1
    pace.sent(T0 + 1)
    assert pace.next_at(T0 + 2) == math.inf
    assert pace.suspended
    pace.answered(NotReady(), T0 + 2)
    assert not pace.suspended
    assert pace.next_at(T0 + 2) <= T0 + 2


def test_a_new_key_does_not_end_another_cooldown() -> None:
    pace = pace_of(50)
    pace.answered(Throttled(7.0), T0)
    pace.key_changed()
    assert pace.next_at(T0) == T0 + 7


def test_an_answer_to_what_was_under_way_shows_that_the_key_is_taken_and_ends_the_wait_for_another() -> None:
    pace = pace_of(50)
    pace.answered(Unauthorized(401), T0)
    pace.answered(Accepted(), T0 + 1)
    assert not pace.suspended
    assert not pace.cooling_down(T0 + 1)
    assert pace.next_at(T0 + 1) <= T0 + 1


def test_an_answer_to_what_was_under_way_does_not_end_the_cooldown_after_a_429() -> None:
    pace = pace_of(50)
    pace.answered(Throttled(7.0), T0)
    pace.answered(Unauthorized(401), T0)
    pace.answered(Accepted(), T0 + 1)
    assert pace.next_at(T0 + 1) == T0 + 7


# -- 403: the key, or one request -----------------------------------------------------------------------------------


def test_one_action_that_is_forbidden_stops_nobody_else() -> None:
    pace = pace_of(50)
    for n in range(20):
        pace.answered(Forbidden(), T0 + n, "poison")
        assert not pace.suspended
        assert pace.next_at(T0 + n + 1) <= T0 + n + 1


def test_several_actions_that_are_forbidden_in_a_row_mean_the_key() -> None:
    pace = pace_of(50)
    for about in ("a", "b"):
        pace.answered(Forbidden(), T0, about)
        assert not pace.suspended
    pace.answered(Forbidden(), T0, "a")
    assert pace.suspended
    assert pace.next_at(T0) == T0 + SUSPENDED_PROBES_S[0]


def test_an_answer_of_use_in_between_shows_that_it_is_not_the_key() -> None:
    pace = pace_of(50)
    for n in range(20):
        pace.answered(Forbidden(), T0 + n, f"poison {n}")
        pace.answered(Forbidden(), T0 + n, f"another {n}")
        pace.answered(NotReady(), T0 + n, "well")
    assert not pace.suspended


@pytest.mark.parametrize("between", [Throttled(), Unavailable("Engage answered 503"), Withdrawn()])
def test_what_says_nothing_of_the_key_does_not_acquit_it(between: Throttled | Unavailable | Withdrawn) -> None:
    pace = pace_of(50)
    for about in ("a", "b", "c"):
        pace.answered(Forbidden(), T0, about)
        pace.answered(between, T0, "other")
    assert pace.suspended


def test_a_forbidden_probe_keeps_the_connection_suspended_and_a_good_one_ends_it() -> None:
    pace = pace_of(50)
    pace.answered(Unauthorized(401), T0)
    pace.sent(T0 + 60)
    pace.answered(Forbidden(), T0 + 60, "a")
    assert pace.suspended
    assert pace.next_at(T0 + 60) == T0 + 60 + SUSPENDED_PROBES_S[1]
    pace.sent(T0 + 120)
    pace.answered(Accepted(), T0 + 120, "b")
    assert not pace.suspended


def test_an_action_whose_probe_was_forbidden_is_not_the_next_probe_while_another_may_come() -> None:
    pace = pace_of(50)
    for about in ("a", "b", "poison"):
        pace.answered(Forbidden(), T0, about)
    assert pace.not_as_probe(T0 + LONGEST_PROBE_S) == "poison"
    assert pace.not_as_probe(T0 + 2 * LONGEST_PROBE_S) is None, "where nobody else came, it must do"
    pace.sent(T0 + LONGEST_PROBE_S)
    pace.answered(NotReady(), T0 + LONGEST_PROBE_S, "well")
    assert pace.not_as_probe(T0 + LONGEST_PROBE_S) is None


def test_the_probe_after_failures_is_not_the_forbidden_one_again() -> None:
    pace = pace_of(50)
    for _ in range(FAILURES_IN_A_ROW):
        pace.answered(Unavailable("refused"), T0, "any")
    pace.sent(T0 + 1)
    pace.answered(Forbidden(), T0 + 1, "poison")
    assert not pace.suspended
    assert pace.next_at(T0 + 2) <= T0 + 2
    assert pace.not_as_probe(T0 + 2) == "poison"


# -- one action that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Throttled(5.0), Unauthorized(401), Unavailable("a 500"), InDoubt("a 500")])
def test_what_one_action_fails_with_again_and_again_while_others_are_served_says_nothing_of_the_connection(
    failure: Throttled | Unauthorized | Unavailable | InDoubt,
) -> None:
    pace, now = pace_of(50), T0
    for _ in range(FAILED_ALONE):
        assert not pace.answered(failure, now, "poison")
        now += 60
        pace.answered(NotReady(), now, "another")
    for _ in range(FAILURES_IN_A_ROW):
        assert pace.answered(failure, now, "poison")
    assert pace.next_at(now) <= now
    assert not pace.suspended


def test_a_key_that_cannot_be_read_is_nobodys_own_failure() -> None:
    pace = pace_of(50)
    for _ in range(2 * FAILED_ALONE):
        pace.answered(Unauthorized(0), T0, "any")
        assert pace.suspended
        pace.answered(NotReady(), T0, "another")


def test_orders_that_are_answered_500_for_ever_stop_no_other_for_long() -> None:
    """Before, each of them was a half-open probe that failed, 30 s apart: another order waited for all of them."""
    pace, schedule = pace_of(50), PollSchedule()
    poisons, asked = 40, Counter[int]()
    late_s: list[float] = []
    waiting = [(T0 + 30 + 3 * n, n) for n in range(poisons)] + [(T0 + 60 * n, poisons) for n in range(120)]
    heapify(waiting)
    now = T0
    while waiting:
        due, about = heappop(waiting)
        now = max(now, due, pace.next_at(now))
        pace.sent(now)
        if about == poisons:
            pace.answered(NotReady(), now, about)
            late_s.append(now - due)
        elif now < T0 + 7200:
            asked[about] += 1
            pace.answered(Unavailable("Engage answered 500", answered=True), now, about)
            heappush(waiting, (now + schedule.backoff(asked[about], 0.5), about))
    assert max(late_s[60:]) < 1, "after an hour it is known whose failures these are"


def test_one_action_that_is_throttled_again_and_again_stops_the_others_a_few_times_only() -> None:
    pace, now = pace_of(50), T0
    for _ in range(FAILED_ALONE):
        pace.answered(Throttled(5.0), now, "poison")
        assert pace.next_at(now) == now + 5
        now += 6
        pace.answered(Accepted(), now, "another")
    before = pace.rate(now)
    pace.answered(Throttled(5.0), now, "poison")
    assert pace.rate(now) == before
    assert pace.next_at(now) <= now


def test_where_nobody_was_served_between_them_it_is_the_connection_that_is_throttled() -> None:
    pace, now = pace_of(50), T0
    for _ in range(2 * FAILED_ALONE):
        pace.answered(Throttled(5.0), now, "a")
        assert pace.next_at(now) == now + 5
        now += 6


def test_an_action_that_was_served_in_between_is_throttled_with_its_connection() -> None:
    pace, now = pace_of(50), T0
    for _ in range(2 * FAILED_ALONE):
        pace.answered(Throttled(5.0), now, "a")
        assert pace.next_at(now) == now + 5
        now += 6
        pace.answered(Accepted(), now, "a")


def test_only_so_many_throttled_actions_are_remembered() -> None:
    pace = pace_of(50)
    for number in range(2 * MAX_FAILED):
        pace.answered(Throttled(), T0, number)
    assert len(pace._failed_of) == MAX_FAILED


# -- Retry-After ----------------------------------------------------------------------------------------------------


def test_after_a_wait_that_was_cut_one_request_tries_whether_it_was_enough() -> None:
    pace = pace_of(50)
    pace.answered(Throttled(MAX_RETRY_AFTER_S), T0)
    later = T0 + MAX_RETRY_AFTER_S
    assert pace.next_at(T0) == later
    pace.sent(later)
    assert pace.next_at(later + 1) == math.inf
    pace.answered(Throttled(MAX_RETRY_AFTER_S), later + 1)
    assert pace.next_at(later + 1) == later + 1 + MAX_RETRY_AFTER_S
    pace.sent(later + 301)
    pace.answered(NotReady(), later + 302)
    assert pace.next_at(later + 310) <= later + 310


# -- when to ask again ----------------------------------------------------------------------------------------------


def test_polls_come_less_and_less_often_up_to_the_maximum() -> None:
    schedule = PollSchedule(initial_s=1.0, max_interval_s=60.0, growth=2.0)
    assert [schedule.interval(n, 0.5) for n in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert schedule.first_poll(100.0) == 101.0


@given(attempts=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_an_interval_is_never_beyond_the_maximum_and_never_nothing(attempts: int, jitter: float) -> None:
    assert 0 < PollSchedule(initial_s=0.0).interval(attempts, jitter) <= 60.0


def test_intervals_are_spread_at_the_maximum_too() -> None:
    spread = [PollSchedule().interval(1000, jitter) for jitter in (0.0, 0.5, 0.999)]
    assert spread == pytest.approx([40.0, 50.0, 60.0], rel=0.01)


def test_failed_calls_wait_as_engage_asks_for() -> None:
    schedule = PollSchedule()
    assert [schedule.backoff(n, 0.5) for n in (0, 1, 2, 3, 4, 99)] == [10.0, 10.0, 30.0, 60.0, 300.0, 300.0]
    assert (schedule.backoff(1, 0.0), schedule.backoff(1, 1.0)) == pytest.approx((8.0, 12.0))


def test_a_half_open_probe_is_the_whole_call_and_its_next_request_waits_for_its_permit_only() -> None:
    pace = pace_of(50)
    fail(pace, FAILURES_IN_A_ROW, T0)
    at = pace.next_at(T0 + COOLDOWNS_S[0])
    pace.sent(at)

    assert pace.next_at(at + 1) == math.inf
    assert pace.next_of_a_call_at(at) == pytest.approx(at + 1 / 47.5)


def test_a_suspension_ends_where_only_one_action_is_left_to_ask_with_and_it_is_the_one_that_is_refused() -> None:
    """Nobody else can show that the key is good again. Else it would wait for ever, and no deadline would end it."""
    pace = pace_of(50)
    for about in ("a", "poison", "b"):
        pace.answered(Forbidden(), T0, about)
    assert pace.suspended
    for probe in (1, 2):
        pace.answered(Forbidden(), T0 + probe * LONGEST_PROBE_S, "poison")
        assert pace.suspended
    pace.answered(Forbidden(), T0 + 3 * LONGEST_PROBE_S, "poison")
    assert not pace.suspended


def test_a_suspension_stays_while_others_are_refused_as_well() -> None:
    pace = pace_of(50)
    pace.answered(Unauthorized(401), T0)
    for probe in range(1, 20):
        pace.answered(Forbidden(), T0 + probe * LONGEST_PROBE_S, f"action {probe % 2}")
        assert pace.suspended
