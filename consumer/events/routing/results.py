"""What becomes of an event: one of four values, and what each route said of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumer.events.guards import ANY_AGE, Ages, Stopped
from schemas.dead_letter import Reason
from schemas.engage import ActionName
from schemas.pending_action import OnUnknown, TagSource


@dataclass(frozen=True, slots=True)
class Dropped:
    """A field that decides nothing and could not be used: the action goes without it. `why` holds no contents."""

    key: str
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """The event is this action: schemas.pending_action.RoutedAction without its `source`. `dropped` is not kept.

    `item`: for which of the event's items it is (a route's `each`), counted from 0. `ages` and `allowed` are what the
    guards ask (guards.py), and `stopped` is what they say: the action is not sent. `fact`: facts.py; `repeats_s`: for
    how long it is not sent again, None: it is.
    """

    route: str
    connection: str
    order_id: str = field(repr=False)
    action: ActionName
    language: str | None = field(repr=False)
    data: object = field(repr=False)
    tag_source: TagSource = field(repr=False)
    on_unknown: OnUnknown
    event_time_ms: int
    trace_context: dict[str, str] | None = field(repr=False)
    item: int | None = None
    ages: Ages = field(default=ANY_AGE, repr=False)
    allowed: bool = field(default=True, repr=False)
    stopped: Stopped | None = field(default=None, repr=False)
    fact: str | None = field(default=None, repr=False)
    repeats_s: float | None = field(default=None, repr=False)
    dropped: tuple[Dropped, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Several:
    """The event is these actions, one for each item that a route takes, in the order of the items."""

    actions: tuple[Routed, ...]


@dataclass(frozen=True, slots=True)
class Unrouted:
    """No route takes the event: it is counted and ignored. `read`: a route with `each` found a list in it."""

    read: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Misrouted:
    """A route takes the event and cannot use it: a dead letter.

    `connection` and `order_id`: where the event names both. They say whose it is, and decide nothing.
    """

    reason: Reason
    detail: str
    route: str | None
    connection: str | None = field(default=None, compare=False)
    order_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RouteTrace:
    """What one route said of an event: whether it took it, and why."""

    route: str
    took: bool
    why: str
