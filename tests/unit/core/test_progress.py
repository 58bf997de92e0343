"""A partition that stands still is found, whatever the reason; one that has nothing to do, or moves, is not."""

from __future__ import annotations

from typing import get_args

import pytest

from consumer.core.ownership import Assignment
from consumer.core.progress import STALL_S, Changes, ProgressWatch, Reading, Seen, Stall, StallReason, by_reason

FIRST, SECOND = Assignment("orders", 0, 1), Assignment("orders", 1, 2)
NOON = 1_795_608_000.0


def seen(
    next_offset: int = 7, lag: int = 3, pending: int | None = 2, reason: StallReason = "unknown", *, known: bool = True
) -> Seen:
    return Seen(Reading(next_offset, lag) if known else None, pending, reason)


def looked(watch: ProgressWatch, at: Seen, *, until_s: float, since_s: float = 0.0) -> Changes:
    """Look once a second, as the relay does, and return what the last look found."""
    changes = Changes({}, {})
    for second in range(int(since_s), int(until_s) + 1):
        changes = watch.look({FIRST: at}, NOON + second)
    return changes


def test_a_partition_with_a_lag_that_nothing_moves_stands_still_after_the_patience() -> None:
    watch = ProgressWatch()
    looked(watch, seen(), until_s=STALL_S - 1)
    assert watch.stalled == {}
    changes = watch.look({FIRST: seen()}, NOON + STALL_S)
    assert changes.begun == watch.stalled == {FIRST: Stall("unknown", NOON)}
    assert changes.ended == {}


def test_it_is_said_once_and_its_end_once() -> None:
    watch = ProgressWatch()
    looked(watch, seen(), until_s=STALL_S)
    assert looked(watch, seen(), since_s=STALL_S + 1, until_s=2 * STALL_S) == Changes({}, {})
    changes = watch.look({FIRST: seen(next_offset=8)}, NOON + 2 * STALL_S + 1)
    assert changes == Changes({}, {FIRST: Stall("unknown", NOON)})
    assert watch.stalled == {}
    assert watch.look({FIRST: seen(next_offset=8)}, NOON + 2 * STALL_S + 2) == Changes({}, {})


@pytest.mark.parametrize("lag", [0, 3])
def test_one_that_waits_for_the_registry_is_said_once_although_its_pending_actions_end(lag: int) -> None:
    watch = ProgressWatch()
    first = watch.look({FIRST: seen(lag=lag, pending=4, reason="registry")}, NOON)
    assert first.begun == {FIRST: Stall("registry", NOON)}
    for second in (1, 2, 3):
        moved = seen(lag=lag, pending=4 - second, reason="registry")
        assert watch.look({FIRST: moved}, NOON + second) == Changes({}, {})


@pytest.mark.parametrize(
    "moved",
    [seen(next_offset=8), seen(pending=1), seen(pending=3), seen(lag=0)],
    ids=["read", "settled", "accepted", "nothing left"],
)
def test_whatever_moves_starts_the_patience_again(moved: Seen) -> None:
    watch = ProgressWatch()
    looked(watch, seen(), until_s=STALL_S - 1)
    watch.look({FIRST: moved}, NOON + STALL_S - 1)
    looked(watch, moved, since_s=STALL_S, until_s=2 * STALL_S - 2)
    assert watch.stalled == {}


def test_an_idle_partition_never_stands_still() -> None:
    watch = ProgressWatch()
    looked(watch, seen(lag=0), until_s=3 * STALL_S)
    assert watch.stalled == {}


def test_a_growing_lag_is_no_progress() -> None:
    watch = ProgressWatch()
    for second in range(int(STALL_S) + 1):
        watch.look({FIRST: seen(lag=1 + second)}, NOON + second)
    assert set(watch.stalled) == {FIRST}


def test_one_whose_lag_nobody_knows_is_treated_as_if_it_had_some() -> None:
    watch = ProgressWatch()
    looked(watch, seen(known=False, pending=None, reason="restoring"), until_s=STALL_S)
    assert watch.stalled == {FIRST: Stall("restoring", NOON)}


def test_another_reason_is_said_again() -> None:
    watch = ProgressWatch()
    looked(watch, seen(reason="paused"), until_s=STALL_S)
    changes = watch.look({FIRST: seen(reason="unknown")}, NOON + STALL_S + 1)
    assert changes == Changes({FIRST: Stall("unknown", NOON)}, {})


def test_partitions_stand_still_by_themselves() -> None:
    watch = ProgressWatch()
    for second in range(int(STALL_S) + 1):
        watch.look({FIRST: seen(), SECOND: seen(next_offset=second)}, NOON + second)
    assert set(watch.stalled) == {FIRST}


def test_one_that_is_given_away_is_forgotten_and_its_next_assignment_begins_anew() -> None:
    watch = ProgressWatch()
    looked(watch, seen(), until_s=STALL_S)
    assert watch.look({}, NOON + STALL_S + 1) == Changes({}, {})
    assert watch.stalled == {}
    again = FIRST._replace(epoch=9)
    watch.look({again: seen()}, NOON + STALL_S + 2)
    assert watch.stalled == {}
    watch.look({again: seen()}, NOON + 2 * STALL_S + 2)
    assert set(watch.stalled) == {again}


def test_partitions_are_named_by_reason_in_their_order() -> None:
    stalls = {
        SECOND: Stall("paused", NOON),
        FIRST: Stall("paused", NOON),
        Assignment("x", 3, 1): Stall("unknown", NOON),
    }
    assert by_reason(stalls) == {"paused": ["orders[0]", "orders[1]"], "unknown": ["x[3]"]}
    assert {"paused", "unknown"} <= set(get_args(StallReason))
