"""Guards: what keeps an action from being sent, though a route made one. Decided when its event is read.

Rules:
 1. `only_for` comes first: it protects customers while somebody tries things out. Then `max_age`, then a shadow run.
 2. Where nobody can tell whether an action is allowed, it is not: an `only_for` that fails withholds.
 3. A redriven event is never too old, because a person asked for it. `only_for` and a shadow run stop it all the same.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from consumer.events.durations import written
from consumer.events.expressions import EvaluationError, Expression, is_true

if TYPE_CHECKING:
    from consumer.events.routing.results import Routed
    from consumer.events.routing.scope import Scope

StoppedBy = Literal["withheld", "too_old", "shadow", "repeat", "superseded", "out_of_sequence"]
TooOld = Literal["dead_letter", "ignore"]
Shadow = Literal["polls", "no_polls"]
"""A run that sends nothing: with the polls that would come before, or without."""


def written_out(written: object) -> object:
    """Refuse a key that keeps mails back and has no value, as a template writes it whose value is not set.

    Raises ValueError.
    """
    if written is None:
        raise ValueError("is empty, and would keep nothing back: leave the key out if that is meant")
    return written


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How old a route's events may be, in seconds; None: as old as they like. `too_old`: what becomes of older ones."""

    max_age_s: float | None = None
    too_old: TooOld = "dead_letter"


ANY_AGE = Ages()


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why an action is not sent. `detail` holds no contents. `is_dead_letter`: a person shall look at it."""

    by: StoppedBy
    detail: str
    is_dead_letter: bool = False


@dataclass(frozen=True, slots=True)
class OnlyFor:
    """The orders that a connection serves: those listed, or those for which an expression is true."""

    orders: frozenset[str] = frozenset()
    expression: Expression | None = None

    def allows(self, order_id: str, scope: Scope) -> bool:
        """Tell whether an order's action may leave (rule 2)."""
        if self.expression is None:
            return order_id in self.orders
        try:
            return is_true(self.expression.search(scope.root if self.expression.reads_record else scope.event))
        except EvaluationError:
            return False


def stopped(action: Routed, now: float, shadow: Shadow | None, *, redriven: bool) -> Stopped | None:
    """Say what stops an action; None: nothing does. `now` is seconds since 1970."""
    if not action.allowed:
        return Stopped("withheld", f"only_for: connection {action.connection} serves other orders only")
    too_old = None if redriven else _too_old(action, now)
    if too_old is not None:
        return too_old
    if shadow is not None and (shadow == "no_polls" or action.tag_source.kind not in _POLLED):
        return Stopped("shadow", "a shadow run sends nothing")
    return None


_POLLED: Collection[str] = ("job", "order")  # sources of a tag that no request of the relay's changes


def _too_old(action: Routed, now: float) -> Stopped | None:
    most = action.ages.max_age_s
    age_s = now - action.event_time_ms / 1000
    if most is None or age_s <= most:
        return None
    detail = f"max_age: the event is {_days(age_s)} old, and {written(most)} is allowed"
    return Stopped("too_old", detail, is_dead_letter=action.ages.too_old == "dead_letter")


def _days(age_s: float) -> str:
    return f"{age_s / 86_400:.1f} days" if age_s >= 86_400 else f"{age_s / 3600:.1f} hours"
