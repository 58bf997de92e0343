"""What the relay says of itself: the model behind /status, its page and `engage-relay status`.

PURE: made from what the event loop published last, on the admin server's thread.

Rules:
 1. It shows no contents of events: only counts, times, names from the configuration, and coordinates of dead letters.
 2. It says how old its figures are, because they come from the event loop, which may be stuck.
 3. Readers ignore fields that they do not know. Times are UTC, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from consumer.core.ledger.book import AGE_SLOT_S
from consumer.core.pauses import Pause as Paused
from consumer.core.poll_plan import Figures as PollFigures
from consumer.core.progress import FAULTS, StallReason
from consumer.telemetry.rolling import Durations, Flow, Slice, quantile
from consumer.telemetry.snapshot import ConnectionFigures, Holding, Snapshot
from schemas.dead_letter import Reason

# A pending action's age: an order that is processed takes seconds to minutes, an outage hours, the deadline a day.
AGE_LIMITS_S = (60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
OLD_S = 1800.0  # of the oldest pending action, as the alert EngageRelayOldestPending
MIN_SILENCE_S = 300.0  # without an accepted action
MIN_GROWTH = 10  # of what is pending meanwhile: one slow order is no outage
STALE_S = 5.0  # figures come once a second; of a healthy loop none is as old as this
MAX_OF_A_KIND = 5  # lines that say the same of several; how many more there are is a line of its own
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_S = 250_000_000_000.0  # in the year 9892: a record of the delay topic may say anything

State = Literal["starting", "running", "stuck", "draining"]
ConnectionState = Literal["suspended", "cooldown", "open"]
_STATES = get_args(ConnectionState)  # the worst first


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Age(_Part):
    """How many open actions are younger than `under_s` and as old as the limit before; None: all that are older."""

    under_s: float | None
    actions: int


class Pending(_Part):
    """The actions that are not accepted yet. `parked`: those of `open` that wait for room in memory (`limit`)."""

    open: int
    limit: int
    parked: int = 0
    in_doubt: int
    overdue: int
    next_due: datetime | None
    oldest: datetime | None
    by_state: dict[str, int]
    by_age: list[Age]


class Source(_Part):
    """The lag on the source, and whether the source is paused for back-pressure."""

    lag: int
    paused: bool
    journal_backlog: int


class Polling(_Part):
    """What was learnt of a connection: by when half and 95 % of the tags are there, and what its polls cost.

    `lateness_s`: how late a tag is expected to be found; `seen_lateness_s`: how late they were (core/poll_plan.py).
    """

    median_s: float
    p95_s: float
    polls: float
    lateness_s: float
    seen_lateness_s: float | None
    price: float


class Connection(_Part):
    """One Engage tenant. `rate` is what it may be asked at present, of `rate_limit`, which all instances share."""

    name: str
    state: ConnectionState
    why: str | None
    since: datetime | None
    next_at: datetime | None
    rate_limit: float
    rate: float
    in_flight: int
    requests_per_second: float
    accepted_per_second: float
    polling: Polling | None


class Partition(_Part):
    """A partition of the source that this instance owns.

    `why`: the reason for which it is set apart. `lag` is None until it was measured. `stalled`: why it stands still
    (core/progress.py), with `stalled_since`; None: it does not. `drained`: its topic is not in `source.topics` any
    more; what is pending is delivered, and nothing is read.
    """

    topic: str
    partition: int
    holding: Holding
    why: str | None
    pending: int
    lag: int | None
    stalled: StallReason | None = None
    stalled_since: datetime | None = None
    drained: bool = False


class Pause(_Part):
    """What a person has put on hold, or discards, on all instances. Names that are None: of all of them.

    `since`: when it was asked for; `until`: when it ends by itself.
    """

    id: str
    mode: Literal["hold", "discard"]
    connection: str | None = None
    route: str | None = None
    action: str | None = None
    reason: str
    since: datetime | None
    until: datetime | None = None


class DeadLetter(_Part):
    """Where a dead letter lies and where its event was, in the same partition of two topics, and why."""

    at: datetime
    reason: Reason | str
    source_topic: str
    partition: int
    source_offset: int | None
    dead_letter_topic: str | None
    dead_letter_offset: int | None


class DeadLetters(_Part):
    """Since this instance started; the last ones come first.

    `waiting`: those in the topic that nobody has redriven, of this instance's partitions; None: it was not counted.
    """

    total: int
    waiting: int | None = None
    by_reason: dict[str, int]
    last: list[DeadLetter]


class Latency(_Part):
    """Of so many accepted actions; None where there were none."""

    accepted: int
    p50_s: float | None
    p95_s: float | None


class Moment(_Part):
    """A slice of the last minutes: counts of it, and what was open at its end."""

    start: datetime
    seconds: float
    events: int
    requests: int
    accepted: int
    dead_letters: int
    pending: int
    overdue: int
    event_to_accepted: Latency
    tag_ready_to_accepted: Latency


class Recent(_Part):
    """The last minutes: the oldest moment first, and all of them together."""

    moments: list[Moment]
    event_to_accepted: Latency
    tag_ready_to_accepted: Latency


@dataclass(frozen=True, slots=True)
class Identity:
    """Which instance it is, of which consumer group, on which Kafka cluster (its id; None: not known)."""

    instance: str = ""
    group: str = ""
    cluster: str | None = None


class Status(_Part):
    """What one instance does, at the moment `at`, `age_s` seconds ago.

    `instance`: its host's name, or its `group.instance.id`. `cluster`: Kafka's id; None while it is not known.
    """

    version: str
    instance: str = ""
    group: str = ""
    cluster: str | None = None
    state: State
    at: datetime | None
    age_s: float | None
    started: datetime | None
    attention: list[str]
    pauses: list[Pause] = []
    rate_limit_share: float
    pending: Pending
    source: Source
    connections: list[Connection]
    partitions: list[Partition]
    dead_letters: DeadLetters
    recent: Recent


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
        at=_at(snapshot.at) if began else None,
        age_s=None if age_s is None or not began else round(age_s, 3),
        started=_time(flow.started),
        attention=[*not_alive, *([waiting[:1].upper() + waiting[1:]] if waiting else []), *_attention(snapshot, flow)],
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
                stalled_since=_time(stall.since) if stall else None,
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


def _attention(snapshot: Snapshot, flow: Flow) -> list[str]:
    """Say what an operator should look at, the worst first."""
    said = _stalled(snapshot, FAULTS)
    suspended = [
        f"Connection {name} is suspended: {each.halt.why if each.halt else 'Engage refuses its API key'}; "
        "nothing is lost, give it another key"
        for name, each in sorted(snapshot.connections.items())
        if each.suspended
    ]
    said += _some(suspended, "connections are suspended")
    said += [
        f"Paused since {_written(each.begun)}, {_how(each)}: {each.what} ({each.reason}); `engage-relay resume` ends it"
        for each in snapshot.pauses
    ]
    if snapshot.control_unreadable:
        said.append(
            f"Records of the control topic that cannot be read, and are ignored: {snapshot.control_unreadable}; what "
            "they ask for is not done"
        )
    if snapshot.requests_refused is not None and snapshot.requests_open:
        said.append(
            f"Requests about single actions that cannot be carried out: {snapshot.requests_open}; the control topic "
            f"takes no answers ({snapshot.requests_refused}), see its rights in SECURITY.md"
        )
    set_apart = [
        f"{topic}[{number}] is set apart, the others are served: {each.why}"
        for (topic, number), each in sorted(snapshot.partitions.items())
        if each.holding == "set_apart"
    ]
    said += _some(set_apart, "partitions are set apart")
    said += [
        f"{count} dead letters of {topic} wait in the delay topic, as their own topic refuses them ({why}); nothing is "
        "lost, `engage-relay topics check` may say what is wrong with it"
        for topic, (count, why) in sorted(snapshot.refused_dead_letters.items())
        if count
    ]
    if not snapshot.pauses and (why := _nothing_accepted(flow)) is not None:
        said.append(why)
    if snapshot.oldest_pending_age_s >= OLD_S:
        said.append(
            f"The oldest pending action is {duration(snapshot.oldest_pending_age_s)} old: is its order never ready?"
        )
    if snapshot.in_doubt:
        said.append(f"In doubt: {_actions(snapshot.in_doubt)} Engage may have processed already")
    if snapshot.overdue:
        said.append(
            f"Overdue: {_actions(snapshot.overdue)} whose time has come and whose connection could not take them yet"
        )
    parked = [
        f"Parked: {_actions(each.parked)} of connection {name} wait for room in memory; no other connection waits"
        for name, each in sorted(snapshot.connections.items())
        if each.parked
    ]
    said += _some(parked, "connections have actions parked")
    if snapshot.paused:
        said.append("The source is paused: too much is parked, or waits for a transaction")
    return said + _stalled(snapshot, set(_STALLS) - FAULTS)


def _some(said: list[str], others: str) -> list[str]:
    """Name some of what is said of many, and count the others."""
    more = len(said) - MAX_OF_A_KIND
    return said if more <= 0 else [*said[:MAX_OF_A_KIND], f"{more} more {others}"]


# What each reason means to who reads it: the faults first.
_STALLS: dict[StallReason, str] = {
    "unknown": "no reason is known; look at the log, then restart this instance",
    "journal": "what was read waits for a transaction; the log says why none is committed",
    "set_apart": "set apart; the log says why",
    "restoring": "the delay partition is being read; the log says what the restore waits for",
    "foreign_transaction": "a producer's transaction on the source has not ended",
    "suspended": "the source is paused because no more can be parked, and Engage refuses the key of a connection",
    "paused": "the source is paused because no more can be parked",
    "registry": "the Schema Registry cannot be asked for the schema of its next event; the log says why",
    "unknown_schema": "the Schema Registry has no schema of the id that its next event names (yet)",
}


def _stalled(snapshot: Snapshot, reasons: Collection[StallReason]) -> list[str]:
    """Say which partitions stand still for these reasons: one line for each reason."""
    said = []
    for reason, meaning in _STALLS.items():
        stalled = sorted(at for at, stall in snapshot.stalled.items() if stall.reason == reason)
        if stalled and reason in reasons:
            since = min(stall.since for stall in snapshot.stalled.values() if stall.reason == reason)
            (topic, number), others = stalled[0], len(stalled) - 1
            named = f"{topic}[{number}]" + (f" and {others} more" if others else "")
            said.append(f"No progress for {duration(snapshot.at - since)} on {named}: {meaning}")
    return said


def _nothing_accepted(flow: Flow) -> str | None:
    """Say that nothing was accepted in the last minutes, while more and more is pending."""
    slices = flow.slices
    seconds = sum(each.seconds for each in slices)
    # What a restore brings is pending, too, but it is no growth.
    grown = min(slices[-1].pending - slices[0].pending, sum(each.events for each in slices)) if slices else 0
    if seconds < MIN_SILENCE_S or grown < MIN_GROWTH or any(sum(each.accepted.values()) for each in slices):
        return None
    return f"Nothing was accepted for {duration(seconds)}, and {_actions(grown)} more are pending than before"


def _pause(pause: Paused) -> Pause:
    return Pause(
        id=pause.id,
        mode="discard" if pause.discard else "hold",
        connection=pause.connection,
        route=pause.route,
        action=pause.action,
        reason=pause.reason,
        since=_time(pause.begun),
        until=_time(pause.until),
    )


def _how(pause: Paused) -> str:
    until = "until it is ended" if pause.until is None else f"until {_written(pause.until)}"
    return f"{'what comes is discarded' if pause.discard else 'on hold'} {until}"


def _written(seconds: float) -> str:
    return _at(seconds).strftime("%Y-%m-%d %H:%M UTC")


def _actions(count: int) -> str:
    return f"{count} action" if count == 1 else f"{count} actions"


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
        next_due=_time(snapshot.next_due),
        oldest=None if oldest is None else _at(oldest * AGE_SLOT_S),
        by_state=dict(snapshot.pending),
        by_age=ages(snapshot.first_seen, snapshot.at),
    )


def connections_in_brief(status: Status) -> str:
    """Return how many connections are open, and which are in trouble, in a few words."""
    others = [f"{each.name} {each.state}" for each in status.connections if each.state != "open"]
    open_ = len(status.connections) - len(others)
    more = len(others) - MAX_OF_A_KIND
    return ", ".join(
        [
            *([f"{number(open_)} open"] if open_ else []),
            *others[:MAX_OF_A_KIND],
            *([f"{number(more)} more in trouble"] if more > 0 else []),
        ]
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
        since=_time(halt.since) if halt else None,
        next_at=_time(figures.next_at),
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
                at=_at(each.at),
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
        start=_at(of.start),
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


def _at(seconds: float) -> datetime:
    return EPOCH + timedelta(milliseconds=round(min(max(seconds, 0.0), LATEST_S) * 1000))


def _time(seconds: float | None) -> datetime | None:
    """Return the moment, to the millisecond; None where there is none, or it never comes."""
    return None if seconds is None or seconds == inf else _at(seconds)


# In words, for the page and the terminal


def is_known(status: Status) -> bool:
    """Tell whether there is more to show than the state: figures, of an instance that owns partitions or may own some.

    Before that, "nothing is pending" would be a guess.
    """
    return status.at is not None and (status.state != "starting" or bool(status.partitions))


def now_of(status: Status) -> datetime:
    """Return the moment at which the status was asked for, on the relay's own clock."""
    return (status.at or EPOCH) + timedelta(seconds=status.age_s or 0.0)


def number(value: float) -> str:
    """Write a count, or a value on an axis: `0`, `0.5`, `12`, `1,234`."""
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:.1f}"


def rate(value: float) -> str:
    """Write what may have a fraction, and has one digit for it: `0`, `0.4`, `12.0`, `1,234`."""
    return f"{value:,.0f}" if value == 0 or value >= 99.95 else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """Write a duration to two digits or so: `0 s`, `35 ms`, `2.4 s`, `3 min 20 s`, `17 h`, `2 d 4 h`; None: a dash."""
    if seconds is None:
        return "\u2013"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    for name, size, small, per in _UNITS:
        if whole >= size:
            remainder = whole % size // per
            return f"{whole // size} {name}" + (f" {remainder} {small}" if remainder and whole < 10 * size else "")
    return f"{whole} s"


_UNITS = (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def age_label(limits: Sequence[Age], index: int) -> str:
    """Write what `limits[index]` counts: `under 1 min`, `1 min to 5 min`, `1 d and older`."""
    upper, lower = limits[index].under_s, limits[index - 1].under_s if index else None
    if lower is None:
        return f"under {duration(upper)}"
    return f"{duration(lower)} and older" if upper is None else f"{duration(lower)} to {duration(upper)}"
