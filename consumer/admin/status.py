"""The status, made from what the event loop published last.

PURE: on the admin server's thread. What it looks like, status_model.py says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from consumer.admin.attention import attention, capitalised
from consumer.admin.moments import moment_at, moment_or_none
from consumer.admin.status_model import (
    Age,
    Connection,
    ConnectionState,
    DeadLetter,
    DeadLetters,
    Identity,
    Latency,
    Moment,
    Partition,
    Pause,
    Pending,
    Polling,
    Recent,
    Source,
    State,
    Status,
)
from consumer.core.ledger.book import AGE_SLOT_S
from consumer.core.pauses import Pause as Paused
from consumer.core.poll_plan import Figures as PollFigures
from consumer.telemetry.rolling import Durations, Flow, Slice, quantile
from consumer.telemetry.snapshot import ConnectionFigures, Snapshot

# A pending action's age: an order that is processed takes seconds to minutes, an outage hours, the deadline a day.
AGE_LIMITS_S = (60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
STALE_S = 5.0  # figures come once a second; of a healthy loop none is as old as this
_STATES = get_args(ConnectionState)  # the worst first


def status_of(
    published: tuple[Snapshot, Flow],
    *,
    version: str,
    age_s: float | None,
    not_alive: Sequence[str] = (),
    joined: bool = True,
    draining: bool = False,
    waiting: str | None = None,
    identity: Identity | None = None,
) -> Status:
    """Say it.

    `age_s`: since the event loop last showed life, which is when it published; None: it has not begun, or has ended.
    `joined`: the group, once. `not_alive`: what liveness says. `waiting`: what a start waits for. `identity`: whose it
    is.
    """
    snapshot, flow = published
    who = identity or Identity()
    began = flow.started is not None
    return Status(
        version=version,
        instance=who.instance,
        group=who.group,
        cluster=who.cluster,
        state=_state(began, joined, age_s, draining),
        at=moment_at(snapshot.at) if began else None,
        age_s=None if age_s is None or not began else round(age_s, 3),
        started=moment_or_none(flow.started),
        attention=[*not_alive, *([capitalised(waiting)] if waiting else []), *attention(snapshot, flow)],
        pauses=[_pause(each) for each in snapshot.pauses],
        rate_limit_share=round(snapshot.rate_limit_share, 4),
        pending=_pending(snapshot),
        source=Source(lag=sum(snapshot.lag.values()), paused=snapshot.paused, journal_backlog=snapshot.journal_backlog),
        connections=sorted(
            (_connection(name, each, flow) for name, each in snapshot.connections.items()),
            key=lambda each: (_STATES.index(each.state), each.name),
        ),
        partitions=[
            Partition(
                topic=topic,
                partition=number,
                holding=each.holding,
                why=each.why,
                pending=each.pending,
                lag=snapshot.lag.get((topic, number)),
                stalled=stall.reason if (stall := snapshot.stalled.get((topic, number))) else None,
                stalled_since=moment_or_none(stall.since) if stall else None,
                drained=each.drained,
            )
            for (topic, number), each in sorted(snapshot.partitions.items())
        ],
        dead_letters=_dead_letters(snapshot, flow.dead_letters),
        recent=Recent(
            moments=[_moment(each) for each in flow.slices],
            event_to_accepted=_latency([each.event_to_accepted for each in flow.slices]),
            tag_ready_to_accepted=_latency([each.ready_to_accepted for each in flow.slices]),
        ),
    )


def _state(began: bool, joined: bool, age_s: float | None, draining: bool) -> State:
    if draining:
        return "draining"
    if began and (age_s is None or age_s > STALE_S):
        return "stuck"
    return "running" if began and joined else "starting"


def _pause(pause: Paused) -> Pause:
    return Pause(
        id=pause.id,
        mode="discard" if pause.discard else "hold",
        connection=pause.connection,
        route=pause.route,
        action=pause.action,
        reason=pause.reason,
        since=moment_or_none(pause.begun),
        until=moment_or_none(pause.until),
    )


def _parked(snapshot: Snapshot) -> int:
    return sum(each.parked for each in snapshot.connections.values())


def _pending(snapshot: Snapshot) -> Pending:
    oldest = min(snapshot.first_seen, default=None)
    return Pending(
        open=sum(snapshot.pending.values()) + _parked(snapshot),
        limit=snapshot.max_pending,
        parked=_parked(snapshot),
        in_doubt=snapshot.in_doubt,
        overdue=snapshot.overdue,
        next_due=moment_or_none(snapshot.next_due),
        oldest=None if oldest is None else moment_at(oldest * AGE_SLOT_S),
        by_state=dict(snapshot.pending),
        by_age=ages(snapshot.first_seen, snapshot.at),
    )


def ages(first_seen: Mapping[int, int], now: float) -> list[Age]:
    """Count open actions by age, from `Ledger.first_seen()`; to AGE_SLOT_S exactly."""
    counts = [0] * (len(AGE_LIMITS_S) + 1)
    for slot, count in first_seen.items():
        age_s = now - (slot + 1) * AGE_SLOT_S  # of the youngest that it may hold
        counts[sum(age_s >= limit_s for limit_s in AGE_LIMITS_S)] += count
    return [Age(under_s=limit_s, actions=count) for limit_s, count in zip((*AGE_LIMITS_S, None), counts, strict=True)]


def _connection(name: str, figures: ConnectionFigures, flow: Flow) -> Connection:
    halt = figures.halt
    state: ConnectionState = (
        "suspended" if figures.suspended else "cooldown" if halt or figures.cooling_down else "open"
    )
    return Connection(
        name=name,
        state=state,
        why=halt.why if halt else None,
        since=moment_or_none(halt.since) if halt else None,
        next_at=moment_or_none(figures.next_at),
        rate_limit=figures.rate_limit,
        rate=round(figures.requests_per_second, 2),
        in_flight=figures.in_flight,
        requests_per_second=round(flow.per_second(lambda each: each.requests.get(name, 0)), 2),
        accepted_per_second=round(flow.per_second(lambda each: each.accepted.get(name, 0)), 2),
        polling=None if figures.plan is None else _polling(figures.plan),
    )


def _polling(plan: PollFigures) -> Polling:
    return Polling(
        median_s=round(plan.median_s, 2),
        p95_s=round(plan.p95_s, 2),
        polls=round(plan.polls, 2),
        lateness_s=round(plan.lateness_s, 2),
        seen_lateness_s=None if plan.seen_lateness_s is None else round(plan.seen_lateness_s, 2),
        price=round(plan.price, 2),
    )


def _dead_letters(snapshot: Snapshot, by_reason: Mapping[str, int]) -> DeadLetters:
    return DeadLetters(
        total=sum(by_reason.values()),
        waiting=sum(snapshot.dead_letters_waiting.values()) if snapshot.dead_letters_waiting else None,
        by_reason=dict(sorted(by_reason.items(), key=lambda each: -each[1])),
        last=[
            DeadLetter(
                at=moment_at(each.at),
                reason=each.reason,
                source_topic=each.source_topic,
                partition=each.partition,
                source_offset=each.source_offset,
                dead_letter_topic=each.dead_letter_topic,
                dead_letter_offset=each.dead_letter_offset,
            )
            for each in reversed(snapshot.dead_letters)
        ],
    )


def _moment(of: Slice) -> Moment:
    return Moment(
        start=moment_at(of.start),
        seconds=round(of.seconds, 3),
        events=of.events,
        requests=sum(of.requests.values()),
        accepted=sum(of.accepted.values()),
        dead_letters=of.dead_letters,
        pending=of.pending,
        overdue=of.overdue,
        event_to_accepted=_latency([of.event_to_accepted]),
        tag_ready_to_accepted=_latency([of.ready_to_accepted]),
    )


def _latency(of: Sequence[Durations]) -> Latency:
    return Latency(
        accepted=sum(sum(each.values()) for each in of),
        p50_s=_rounded(quantile(of, 0.5)),
        p95_s=_rounded(quantile(of, 0.95)),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")
