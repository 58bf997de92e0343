"""The status tells what was published, and nothing from an event."""

from __future__ import annotations

import math
import statistics
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.admin.status import AGE_LIMITS_S, ages
from consumer.admin.status_model import Status, now_of
from consumer.core.ledger.book import AGE_SLOT_S
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import ConnectionFigures, DeadLettered, Halt, PartitionFigures, Snapshot
from schemas.dead_letter import Reason
from tests.unit.admin import status_sample
from tests.unit.admin.told import NOON, NOW, told


@given(st.lists(st.floats(0, 3e5), max_size=50))
def test_ages_are_right_to_a_slot_and_none_is_missing(ages_s: list[float]) -> None:
    first_seen: dict[int, int] = {}
    for each in ages_s:
        slot = int((NOW - each) // AGE_SLOT_S)
        first_seen[slot] = first_seen.get(slot, 0) + 1
    counted = ages(first_seen, NOW)
    assert sum(each.actions for each in counted) == len(ages_s)
    younger = 0
    for limit_s, counts in zip(AGE_LIMITS_S, counted, strict=False):
        younger += counts.actions
        surely = sum(age_s < limit_s for age_s in ages_s)
        at_most = sum(age_s < limit_s + AGE_SLOT_S for age_s in ages_s)
        assert surely <= younger <= at_most


def test_the_status_says_what_the_snapshot_holds() -> None:
    status = told(
        Snapshot(
            at=NOW,
            pending={"waiting": 2, "sending": 1},
            overdue=1,
            in_doubt=1,
            rate_limit_share=0.25,
            lag={("orders", 1): 7},
            next_due=NOW + 5,
            max_pending=100,
            first_seen={int(NOW - 3600) // AGE_SLOT_S: 3},
            partitions={("orders", 1): PartitionFigures("open", 3), ("orders", 0): PartitionFigures("restoring")},
            dead_letters=(
                DeadLettered(Reason.REJECTED, "orders", 1, 17, "orders.engage.dead-letters", 3, NOW - 9),
                DeadLettered(Reason.UNREADABLE_PENDING, "orders", 0, None, None, None, NOW - 3),
            ),
        ),
        Flow(started=NOW - 90, dead_letters={"rejected": 1, "unreadable_pending": 1}),
    )
    assert (status.state, status.at, status.started) == ("running", NOON, NOON - timedelta(seconds=90))
    assert now_of(status) == NOON + timedelta(seconds=0.4)
    pending = status.pending
    assert (pending.open, pending.limit, pending.overdue, pending.in_doubt) == (3, 100, 1, 1)
    assert (pending.next_due, pending.oldest) == (NOON + timedelta(seconds=5), NOON - timedelta(hours=1))
    assert [(each.partition, each.holding, each.pending, each.lag) for each in status.partitions] == [
        (0, "restoring", 0, None),
        (1, "open", 3, 7),
    ]
    assert status.source.lag == 7
    assert [(each.reason, each.source_offset, each.dead_letter_offset) for each in status.dead_letters.last] == [
        ("unreadable_pending", None, None),
        ("rejected", 17, 3),
    ]
    assert status.dead_letters.total == 2


@pytest.mark.parametrize(
    ("age_s", "began", "joined", "draining", "state"),
    [
        (None, False, False, False, "starting"),
        (0.3, True, False, False, "starting"),
        (0.3, True, True, False, "running"),
        (6.0, True, True, False, "stuck"),
        (6.0, True, False, False, "stuck"),
        (None, True, True, False, "stuck"),
        (6.0, True, True, True, "draining"),
        (None, False, False, True, "draining"),
    ],
)
def test_the_state_in_one_word(age_s: float | None, began: bool, joined: bool, draining: bool, state: str) -> None:
    flow = Flow(started=NOW - 60 if began else None)
    assert told(Snapshot(), flow, age_s, joined, draining).state == state


def test_before_the_first_snapshot_there_are_no_figures_and_no_age_of_them() -> None:
    status = told(Snapshot(), Flow(), age_s=3.0)
    assert (status.at, status.age_s, status.started) == (None, None, None)


def test_a_connection_says_why_nothing_leaves_and_since_when() -> None:
    halt = Halt("Engage refuses its API key (401)", NOW - 60, suspended=True)
    status = told(
        Snapshot(
            at=NOW,
            connections={
                "acme": ConnectionFigures(requests_per_second=24.0, rate_limit=50, in_flight=3),
                "beta": ConnectionFigures(
                    requests_per_second=24.0, suspended=True, cooling_down=True, halt=halt, next_at=NOW + 7
                ),
                "gamma": ConnectionFigures(
                    requests_per_second=24.0, cooling_down=True, halt=Halt("connect", NOW - 5, suspended=False)
                ),
                # A half-open probe is under way: the cooldown is over, and nobody knows yet when the next may leave.
                "delta": ConnectionFigures(
                    requests_per_second=24.0, halt=Halt("connect", NOW - 5, suspended=False), next_at=math.inf
                ),
            },
        )
    )
    states = {each.name: (each.state, each.why) for each in status.connections}
    assert states == {
        "acme": ("open", None),
        "beta": ("suspended", "Engage refuses its API key (401)"),
        "gamma": ("cooldown", "connect"),
        "delta": ("cooldown", "connect"),
    }
    beta = next(each for each in status.connections if each.name == "beta")
    assert (beta.since, beta.next_at) == (NOON - timedelta(seconds=60), NOON + timedelta(seconds=7))
    assert next(each for each in status.connections if each.name == "delta").next_at is None
    assert status.attention == [
        "Connection beta is suspended: Engage refuses its API key (401); nothing is lost, give it another key"
    ]


@pytest.mark.parametrize("moment", [-1e18, 1e18, math.inf])
def test_a_time_that_cannot_be_breaks_nothing(moment: float) -> None:
    slot = int(min(moment, 1e18)) // AGE_SLOT_S
    status = told(Snapshot(at=NOW, next_due=moment, first_seen={slot: 1}))
    assert Status.model_validate_json(status.model_dump_json()) == status


def test_a_reader_of_an_older_version_ignores_what_it_does_not_know() -> None:
    status = status_sample.status()
    newer = status.model_dump_json().replace('{"version"', '{"news":{"a":1},"version"', 1)
    assert Status.model_validate_json(newer) == status


def test_the_samples_latencies_are_those_that_it_was_made_of() -> None:
    recent = status_sample.status().recent
    assert recent.event_to_accepted.accepted > 5000
    p50 = [each.event_to_accepted.p50_s for each in recent.moments if each.event_to_accepted.p50_s is not None]
    assert recent.event_to_accepted.p50_s == pytest.approx(statistics.median(p50), rel=0.1)
