"""The state of the relay at one moment: what is pending, held and paused, and how each connection fares.

It is frozen: the event loop's thread takes it, and the threads of the admin server read it, for scrapes and pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from consumer.core.ledger.book import AGE_SLOT_S
from consumer.core.ownership import Partition
from consumer.core.pauses import Pause
from consumer.core.poll_plan import Figures as PollFigures
from consumer.core.progress import Stall
from schemas.dead_letter import Reason

# A partition that is owned: `leaving` while it is handed over, `set_apart` where it cannot be served.
Holding = Literal["restoring", "open", "leaving", "set_apart"]
# Why: the source lacks the next offset; the delay partition cannot be read; the broker refuses what we write.
SetApart = Literal["overrun", "unreadable", "unwritable"]


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a connection is suspended or cools down, and since when (seconds since 1970). `why` is an outcome's."""

    why: str
    since: float
    suspended: bool


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """Where a dead letter lies, where its event was, and why it became one.

    Both have the same partition. The record of the delay topic that cannot be read may have no source offset.
    """

    reason: Reason
    source_topic: str
    partition: int
    source_offset: int | None
    dead_letter_topic: str | None
    dead_letter_offset: int | None
    at: float


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """An owned partition at one moment. `drained`: its source is no longer configured, and nothing is read from it."""

    holding: Holding = "open"
    pending: int = 0
    apart: SetApart | None = None
    why: str | None = None
    drained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFigures:
    """One connection's pace at one moment."""

    requests_per_second: float = 0.0  # the rate at present, this instance's share
    suspended: bool = False  # its key is refused
    cooling_down: bool = False  # after failures in a row or a 429
    halt: Halt | None = None  # why nothing leaves, where nothing does
    next_at: float | None = None  # when the next request may leave, while it cools down
    rate_limit: float = 0.0  # the key's requests per second, for all instances
    in_flight: int = 0
    plan: PollFigures | None = None  # what was learnt of its processing times, where that decides when to poll
    parked: int = 0  # open actions that are not held in memory
    parked_bytes: int = 0  # of their records


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of things at one moment, taken on the event loop's thread. Give it mappings that nobody changes."""

    pending: Mapping[str, int] = field(default_factory=dict)  # `Ledger.counts()`
    overdue: int = 0
    in_doubt: int = 0
    facts: int = 0  # that are not sent again
    journal_backlog: int = 0  # writes that wait for a transaction
    paused: bool = False  # the source, for back-pressure
    rate_limit_share: float = 0.0  # 0 to 1, of every connection's rate limit
    partitions_owned: int = 0
    lag: Mapping[Partition, int] = field(default_factory=dict)  # records to read, of the owned partitions only
    connections: Mapping[str, ConnectionFigures] = field(default_factory=dict)
    stalled: Mapping[Partition, Stall] = field(default_factory=dict)  # the partitions that stand still
    dead_letters_waiting: Mapping[str, int] = field(default_factory=dict)  # by source topic, as far as it was counted
    topics_unfit: Mapping[str, Sequence[str]] = field(default_factory=dict)  # why, by topic: as the last look found it
    # For the status page only; times are seconds since 1970.
    at: float = 0.0  # when it was taken
    first_seen: Mapping[int, int] = field(default_factory=dict)  # `Ledger.first_seen()`
    next_due: float | None = None
    max_pending: int = 0  # above it actions are parked
    partitions: Mapping[Partition, PartitionFigures] = field(default_factory=dict)
    dead_letters: tuple[DeadLettered, ...] = ()  # the last ones
    refused_dead_letters: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # by source topic; the last why
    pauses: tuple[Pause, ...] = ()  # that are on
    control_unreadable: int = 0  # records of the control topic
    requests_open: int = 0  # of all instances
    requests_refused: str | None = None  # why their answers cannot be written

    @property
    def oldest_pending_age_s(self) -> float:
        """How long ago the event of the oldest pending action was read; 0 where nothing is pending."""
        oldest = min(self.first_seen, default=None)
        return 0.0 if oldest is None else max(0.0, self.at - oldest * AGE_SLOT_S)
