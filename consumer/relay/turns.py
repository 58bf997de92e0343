"""Turns: which open request is looked at next, and for which there is room beside what came with events (requests.py).

Rules:
 1. Who has waited longest is looked at next. So what cannot be carried out yet keeps nobody else from it.
 2. Of each connection, at most MAX_PENDING actions that were asked for are on their way. One counts until it ends, and
    COUNTED_S at the most: an order that is never ready, or a pause, keeps the requests behind it no longer.
 3. Of one order, what is asked for begins as it was asked: while one has no room, the later ones wait as well.
 4. What had no room is not read again before its connection may have some.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from consumer.core.effects import ActionId, NewAction
from consumer.core.requests import Request

MAX_PENDING = 20  # a connection's ordinary slots
COUNTED_S = 10.0  # Engage has processed most orders by then; of the others two begin in a second, and poll seldom


class _Order(NamedTuple):
    connection: str
    order_id: str


class _Begun(NamedTuple):
    connection: str
    at: float
    is_saved: bool


class Turns:
    """Who waits, and what is on its way. Times are seconds since 1970."""

    def __init__(self, *, holds: Callable[[ActionId], bool], is_behind: Callable[[str, float], bool]) -> None:
        """`holds` an action: it is pending. `is_behind`: a connection does not get to what is due."""
        self._holds = holds
        self._is_behind = is_behind
        self._not_before: dict[str, float] = {}
        self._orders: dict[str, frozenset[_Order]] = {}  # of the requests that were read, and have no answer
        self._waiting: defaultdict[_Order, set[str]] = defaultdict(set)  # the same by order
        self._begun: dict[ActionId, _Begun] = {}
        self._counts: Counter[str] = Counter()  # of those, by connection

    # -- who waits ------------------------------------------------------------------------------------------------

    def heard(self, requests: Collection[str]) -> None:
        """Forget the requests that are not open any more."""
        self._not_before = {each: at for each, at in self._not_before.items() if each in requests}
        for each in self._orders.keys() - set(requests):
            self.answered(each)

    def in_turn(self, requests: Mapping[str, Request], now: float) -> list[Request]:
        """Return the requests that wait for no time, who has waited longest first. Their ids say who came first."""
        self._count(now)
        waited = ((self._not_before.get(each, 0.0), each) for each in requests)
        return [requests[each] for until, each in sorted(waited) if until <= now]

    def wait(self, request_id: str, until: float) -> None:
        """Look at a request later."""
        self._not_before[request_id] = until

    def answered(self, request_id: str) -> None:
        """Note that a request has its answer: nobody waits for it any more."""
        for order in self._orders.pop(request_id, ()):
            self._waiting[order].discard(request_id)
            if not self._waiting[order]:
                del self._waiting[order]

    # -- whether there is room ------------------------------------------------------------------------------------

    def may_have_room(self, request_id: str, now: float) -> bool:
        """Whether a request is worth reading (rule 4)."""
        orders = self._orders.get(request_id, frozenset())
        connections = {each.connection for each in orders}
        if any(self._counts[each] >= MAX_PENDING or self._is_behind(each, now) for each in connections):
            return False
        return all(min(self._waiting[each]) == request_id for each in orders)

    def has_room(self, request_id: str, actions: Collection[NewAction], now: float) -> bool:
        """Whether there is room for all actions of a request. While there is not, the later ones of an order wait."""
        self.answered(request_id)
        self._orders[request_id] = frozenset(_Order(each.connection, each.order_id) for each in actions)
        for order in self._orders[request_id]:
            self._waiting[order].add(request_id)
        self._count(now)
        return self.may_have_room(request_id, now)

    # -- what is on its way ---------------------------------------------------------------------------------------

    def begin(self, action_id: ActionId, connection: str, now: float) -> None:
        """Count an action that was asked for, and is about to be saved."""
        self._begun[action_id] = _Begun(connection, now, is_saved=False)
        self._counts[connection] += 1

    def saved(self, action_id: ActionId) -> None:
        """Note that it is saved: from now on it counts while it is pending."""
        if (begun := self._begun.get(action_id)) is not None:
            self._begun[action_id] = begun._replace(is_saved=True)

    def _count(self, now: float) -> None:
        self._begun = {
            each: begun
            for each, begun in self._begun.items()
            if now - begun.at < COUNTED_S and (not begun.is_saved or self._holds(each))
        }
        self._counts = Counter(begun.connection for begun in self._begun.values())
