"""What the relay says of itself: the model behind /status, its page and `engage-relay status`.

Rules:
 1. It shows no contents of events: only counts, times, names from the configuration, and coordinates of dead letters.
 2. It says how old its figures are, because they come from the event loop, which may be stuck.
 3. Readers ignore fields that they do not know. Times are UTC, durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from consumer.admin.moments import EPOCH
from consumer.core.progress import StallReason
from consumer.telemetry.snapshot import Holding
from schemas.dead_letter import Reason

State = Literal["starting", "running", "stuck", "draining"]
ConnectionState = Literal["suspended", "cooldown", "open"]


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


def is_known(status: Status) -> bool:
    """Tell whether there is more to show than the state: figures, of an instance that owns partitions or may own some.

    Before that, "nothing is pending" would be a guess.
    """
    return status.at is not None and (status.state != "starting" or bool(status.partitions))


def now_of(status: Status) -> datetime:
    """Return the moment at which the status was asked for, on the relay's own clock."""
    return (status.at or EPOCH) + timedelta(seconds=status.age_s or 0.0)
