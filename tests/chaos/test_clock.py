"""Clocks that are wrong, disagree or jump, and events that are dated in the future: nobody waits for them."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice

import pytest

from consumer.errors import ExitCode
from tests.chaos.relay import CLOCK
from tests.chaos.stage import EVENTS, Stage, StageFactory
from tests.support.events import Raw, event, order_id, partition_of, publish_raw
from tests.support.figures import Figures, Scale

QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
HOUR_S = 3600
MINUTES_S = 300
SLOW = {"processing": "uniform:500ms..2s"}  # at a hand-over there is always something that waits for its time


def dated(stage: Stage, orders: int, ahead: timedelta) -> None:
    """Publish orders whose events and records are dated ahead; Kafka takes records of an hour ahead at most."""
    begun = len(stage.published) // len(EVENTS)
    at = datetime.now(UTC)
    for name in map(order_id, range(begun, begun + orders)):
        jobs = [stage.engage.submit_all([name])[0] for _ in EVENTS]
        occurred = (at + ahead).isoformat()
        record_ms = round((at + min(ahead, timedelta(minutes=50))).timestamp() * 1000)
        records = [
            Raw(name.encode(), event(name, n, engage={"jobId": job}, occurredAt=occurred), timestamp_ms=record_ms)
            for n, job in zip(EVENTS, jobs, strict=True)
        ]
        publish_raw(stage.sandbox, records, partition_of(name, stage.sandbox.partitions))
        stage.published += [(name, number) for number in EVENTS]


@pytest.mark.long
def test_instances_whose_clocks_differ_by_minutes_take_over_from_each_other(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    stage = stages(kafka=QUICK, engage=SLOW)
    stage.keep_open = 40
    draw = random.Random(5)
    kills = scale.of(3, 40)
    clocks = cycle([MINUTES_S, -MINUTES_S, 0])
    names = [f"relay-{n}" for n in range(2)]
    relays = {name: stage.relay(name, static=True, environ={CLOCK: f"{next(clocks):+}"}) for name in names}
    for name in islice(cycle(names), kills):
        stage.until_accepted_more(draw.randint(20, 40))
        with stage.fault():
            relays[name].kill()
            relays[name] = stage.relay(name, static=True, environ={CLOCK: f"{next(clocks):+}"})
    balance = stage.finish(kills=kills)
    figures(seconds_apart=2 * MINUTES_S, kills=kills, **balance.figures())
    stage.stop_all()


@pytest.mark.long
def test_a_clock_that_jumps_by_an_hour_is_not_noticed_until_the_next_start_nor_then(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    stage = stages(kafka=QUICK, engage=SLOW)
    stage.keep_open = 40
    # Each is right at first, jumps at its tenth acceptance, and leaves a clock of that kind to its successor.
    jumps = [f"{HOUR_S:+}@10", f"{HOUR_S:+}", f"{-HOUR_S:+}@10", f"{-HOUR_S:+}"] * scale.of(1, 10)
    for clock in jumps:
        relay = stage.relay("relay", static=True, environ={CLOCK: clock})
        stage.until_accepted_more(40)
        with stage.fault():
            assert relay.stop() == ExitCode.OK, relay.last_words
    stage.relay("relay", static=True)
    balance = stage.finish()
    figures(jumps=len(jumps) // 2, **balance.figures())
    stage.stop_all()


def test_events_that_are_dated_in_the_future_are_sent_now(stages: StageFactory, figures: Figures) -> None:
    stage = stages(kafka=QUICK)
    relay = stage.relay()
    began = time.monotonic()
    dated(stage, 10, timedelta(minutes=5))
    dated(stage, 10, timedelta(days=400))
    balance = stage.finish()
    seconds = time.monotonic() - began
    assert relay.metric("event_to_accepted_seconds_sum") == 0
    assert relay.metric("event_to_accepted_seconds_count") == len(stage.published)
    figures(days_ahead=400, seconds=f"{seconds:.1f}", **balance.figures())
    stage.stop_all()
