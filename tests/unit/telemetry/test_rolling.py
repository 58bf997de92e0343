"""The last minutes: counted cheaply, right at any moment, and of a size that does not grow."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from consumer.core.outcomes import Accepted, Rejected
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.rolling import GROWTH, SLICE_S, SLICES, Flow, History, quantile
from consumer.telemetry.snapshot import Snapshot
from schemas.dead_letter import Reason

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


def test_a_rate_is_that_of_the_last_one_to_two_slices() -> None:
    history = History()
    history.tick(NOW, 0, 0)
    flow = Flow()
    for second in range(1, 28):
        for _ in range(1 if second <= 10 else 5):
            history.requested("acme")
        flow = history.tick(NOW + second, 0, 0)
    assert flow.per_second(lambda each: each.requests.get("acme", 0)) == pytest.approx(5)
    assert flow.per_second(lambda each: each.requests.get("nobody", 0)) == 0
    assert Flow().per_second(lambda each: each.events) == 0


def test_it_keeps_ten_minutes_whatever_happens_and_forgets_what_is_older() -> None:
    history, flow = History(), Flow()
    for second in range(3000):
        history.consumed(2)
        flow = history.tick(NOW + second, pending=second, overdue=0)
    assert len(flow.slices) == SLICES + 1
    assert flow.slices[-2].start - flow.slices[0].start == pytest.approx(SLICE_S * (SLICES - 1))
    assert {each.events for each in flow.slices[:-1]} == {2 * SLICE_S}
    assert flow.slices[-1].pending == 2999


def test_what_was_published_does_not_change_afterwards() -> None:
    history = History()
    history.tick(NOW, 0, 0)
    history.took(1.0, 0.1)
    history.accepted("acme")
    before = history.tick(NOW + 1, 0, 0)
    copy = repr(before)
    history.took(9.0, 0.9)
    history.accepted("acme")
    history.dead_lettered("rejected")
    history.tick(NOW + 2, 5, 5)
    assert repr(before) == copy


def test_a_clock_that_is_another_one_starts_again() -> None:
    history = History()
    history.tick(NOW, 0, 0)
    assert history.tick(NOW - 3600, 0, 0).started == NOW - 3600


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_right_to_half_a_step(durations: list[float], share: float) -> None:
    history = History()
    for each in durations:
        history.took(each, 0.0)
    found = quantile([history.tick(NOW, 0, 0).slices[0].event_to_accepted], share)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert found is not None
    assert exact / GROWTH**0.51 <= found <= exact * GROWTH**0.51


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([{}, {}], 0.95) is None


def test_a_senders_clock_that_is_ahead_counts_as_the_shortest() -> None:
    history = History()
    history.took(-3600.0, -0.1)
    assert quantile([history.tick(NOW, 0, 0).slices[0].event_to_accepted], 0.5) == 0.001


def test_its_size_does_not_depend_on_how_much_happens() -> None:
    history, chance = History(), random.Random(1)
    for _ in range(20_000):
        history.took(chance.lognormvariate(1, 3), 0.1)
    assert len(history.tick(NOW, 0, 0).slices[0].event_to_accepted) < 400


def test_metrics_tell_the_history_what_they_are_told() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.publish(Snapshot(at=NOW))
    metrics.events_consumed("orders", 3)
    metrics.request("acme", "action", "202", 0.1)
    metrics.request("acme", "action", "withdrawn", 0.0)  # never left
    metrics.action_answered("acme", "ConfirmOrder", Accepted())
    metrics.action_answered("acme", "ConfirmOrder", Rejected(400, "no"))
    metrics.accepted("acme", "ConfirmOrder", None, 0.2)
    metrics.dead_lettered(Reason.REJECTED)
    metrics.publish(Snapshot(at=NOW + 2, pending={"waiting": 4, "due": 3}, overdue=3))
    snapshot, flow = metrics.published()
    (current,) = flow.slices
    assert snapshot.at == NOW + 2
    assert (current.events, current.requests, current.accepted) == (3, {"acme": 1}, {"acme": 1})
    assert (sum(current.event_to_accepted.values()), sum(current.ready_to_accepted.values())) == (0, 1)
    assert (current.pending, current.overdue, flow.dead_letters) == (7, 3, {"rejected": 1})
