"""The status tells what was published: counted cheaply, right at any moment, and nothing from an event."""

from __future__ import annotations

import math
import random
import statistics
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from consumer.admin.status import (
    AGE_LIMITS_S,
    Status,
    age_label,
    ages,
    connections_in_brief,
    duration,
    now_of,
    number,
    rate,
    status_of,
)
from consumer.core.effects import ActionId, LiveAction, NewAction, Poll, Send
from consumer.core.ledger.book import AGE_SLOT_S
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import Accepted, NotReady, Ready, Rejected
from consumer.core.ownership import Assignment
from consumer.core.pauses import Pause
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.rolling import GROWTH, SLICE_S, SLICES, Flow, History, Slice, quantile
from consumer.telemetry.snapshot import ConnectionFigures, DeadLettered, Halt, PartitionFigures, Snapshot
from schemas.dead_letter import Reason
from tests.unit.admin import status_sample

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
NOW = NOON.timestamp()


def told(
    snapshot: Snapshot, flow: Flow | None = None, age_s: float | None = 0.4, joined: bool = True, draining: bool = False
) -> Status:
    published = (snapshot, flow or Flow(started=NOW - 60))
    return status_of(published, version="1", age_s=age_s, joined=joined, draining=draining)


# -- the last minutes -------------------------------------------------------------------------------------------


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


# -- what is pending, by age ------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "restore", "drop", "work"]), st.integers(0, 3), st.floats(0, 400)),
    max_size=40,
)


@given(STEPS)
def test_the_ledger_counts_ages_as_if_it_looked_at_every_action(steps: list[tuple[str, int, float]]) -> None:
    ledger, now = Ledger(Policy(), lambda: 0.5), NOW
    seen: dict[ActionId, float] = {}
    for offset, (what, partition, passes_s) in enumerate(steps):
        now += passes_s
        assignment = Assignment("orders", partition, 1)
        action = NewAction(
            route="r",
            connection="acme",
            order_id=f"order-{offset % 3}",
            payload=b"",
            version_tag="tag" if offset % 2 else None,
        )
        if what == "accept" and ledger.accept(assignment, offset, action, now):
            seen[ActionId(assignment, offset)] = now
        elif what == "restore" and ledger.open_of(assignment) is None:
            first_seen = now - passes_s
            live = LiveAction(
                offset=offset, action=action, sending=False, first_seen=first_seen, due=now, attempts=0, sends=0
            )
            ledger.assign(assignment, [live], now)
            seen[ActionId(assignment, offset)] = first_seen
        elif what == "drop":
            ledger.drop(assignment)
            seen = {each: at for each, at in seen.items() if each.assignment != assignment}
        elif what == "work":
            for ended in _worked(ledger, now):
                del seen[ended]
        assert ledger.first_seen() == _counted(seen)
        assert ledger.open_of(assignment) in (None, sum(each.assignment == assignment for each in seen))


def _worked(ledger: Ledger, now: float) -> list[ActionId]:
    """Do all that is due; returns what was accepted."""
    ended = []
    ledger.wake(now)
    for effect in ledger.save_intents("acme", 2):
        ledger.intent_saved(effect.action_id, getattr(effect, "sends", 0), now)
    while (request := ledger.take("acme")) is not None:
        match request:
            case Send(action_id=action_id):
                ledger.action_answered(action_id, Accepted(), now)
                ended.append(action_id)
            case Poll(action_id=action_id):
                ledger.poll_answered(action_id, Ready("tag") if action_id.offset % 3 else NotReady(), now)
    return ended


def _counted(seen: dict[ActionId, float]) -> dict[int, int]:
    slots = [int(at // AGE_SLOT_S) for at in seen.values()]
    return {slot: slots.count(slot) for slot in set(slots)}


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


# -- the status -------------------------------------------------------------------------------------------------


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


def test_what_an_operator_should_look_at_is_said_in_words() -> None:
    assert told(Snapshot(at=NOW)).attention == []
    said = told(Snapshot(at=NOW, in_doubt=1, overdue=2, paused=True)).attention
    assert [each.split(":")[0] for each in said] == ["In doubt", "Overdue", "The source is paused"]
    assert "1 action " in said[0]
    assert "2 actions " in said[1]


def test_a_pause_is_said_with_its_reason_and_silence_is_no_news_then() -> None:
    silent = Flow(
        started=NOW - 900,
        slices=tuple(Slice(start=NOW - 900 + 300 * n, seconds=300, events=60, pending=60 * n) for n in range(3)),
    )
    pauses = (
        Pause(id="p1", begun=NOW - 7200, reason="a wrong template", route="shipped"),
        Pause(id="p2", begun=NOW, reason="a replay", until=NOW + 3600, discard=True),
    )
    assert any("Nothing was accepted" in line for line in told(Snapshot(at=NOW), silent).attention)
    status = told(Snapshot(at=NOW, pauses=pauses, control_unreadable=2), silent)
    assert status.attention == [
        "Paused since 2026-11-25 10:00 UTC, on hold until it is ended: route shipped (a wrong template); "
        "`engage-relay resume` ends it",
        "Paused since 2026-11-25 12:00 UTC, what comes is discarded until 2026-11-25 13:00 UTC: everything (a replay); "
        "`engage-relay resume` ends it",
        "Records of the control topic that cannot be read, and are ignored: 2; what they ask for is not done",
    ]
    assert [(each.id, each.mode, each.route, each.until) for each in status.pauses] == [
        ("p1", "hold", "shipped", None),
        ("p2", "discard", None, NOON + timedelta(hours=1)),
    ]


def test_requests_that_nobody_can_answer_are_said_with_the_reason() -> None:
    (said,) = told(Snapshot(at=NOW, requests_open=3, requests_refused="TOPIC_AUTHORIZATION_FAILED")).attention
    assert said.startswith("Requests about single actions that cannot be carried out: 3; the control topic takes no")
    assert "TOPIC_AUTHORIZATION_FAILED" in said
    assert told(Snapshot(at=NOW, requests_open=3)).attention == []


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


# -- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"),
        (0, "0 s"),
        (0.035, "35 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (2.44, "2.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (761, "12 min"),
        (7500, "2 h 5 min"),
        (62_000, "17 h"),
        (187_200, "2 d 4 h"),
        (86_400 * 30, "30 d"),
    ],
)
def test_a_duration_is_written_as_people_say_it(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e8))
def test_a_written_duration_is_near_the_true_one(seconds: float) -> None:
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}
    words = duration(seconds).split()
    written = sum(float(count) * units[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(written - seconds) <= max(0.001, 0.1 * seconds)


def test_numbers_have_as_many_digits_as_they_are_worth() -> None:
    assert [number(each) for each in (0, 0.5, 12, 123.4, 1234)] == ["0", "0.5", "12", "123", "1,234"]
    assert [rate(each) for each in (0, 0.42, 12, 99.96, 1234)] == ["0", "0.4", "12.0", "100", "1,234"]


def test_every_age_has_a_name() -> None:
    counted = ages({}, NOW)
    assert [age_label(counted, index) for index in range(len(counted))] == [
        "under 1 min",
        "1 min to 5 min",
        "5 min to 15 min",
        "15 min to 1 h",
        "1 h to 6 h",
        "6 h to 1 d",
        "1 d and older",
    ]


def test_many_connections_are_told_in_a_few_words() -> None:
    refused = ConnectionFigures(suspended=True)
    many = {f"shop-{number}": refused if number < 7 else ConnectionFigures() for number in range(1000)}
    assert connections_in_brief(told(Snapshot(at=NOW, connections=many))) == (
        "993 open, shop-0 suspended, shop-1 suspended, shop-2 suspended, shop-3 suspended, shop-4 suspended, "
        "2 more in trouble"
    )
    assert connections_in_brief(told(Snapshot(at=NOW, connections={"acme": ConnectionFigures()}))) == "1 open"
