"""Routing: an event becomes one action, or a reason why not.

Routes are tried in order. The first one whose `when` holds takes the event. Then the event must have everything that
the route needs. Nothing is guessed: a wrong guess mails the wrong customer, but a dead letter can be redriven.

Rules:
 1. A `when` that fails on an event (a function given a wrong type, say) counts as neither true nor false: the event
    becomes a dead letter. To treat it as "not matching" could lose an action without notice.
 2. The user's routes come first, in the order of the file; the built-in ones follow (settings puts them so). A user's
    route with a built-in's name replaces it and its contract, `null` switches it off. So a built-in route never sees
    an event that a user's route takes.
 3. An event that reaches a built-in route (its `type` is one of the six) must obey the canonical contract
    (schemas/order_event), unknown versions included; an event of another type that no route takes is unrouted.
 4. Details name keys and expressions, never contents.
 5. What decides nothing stops no mail. Where `language`, `data` or `event_time` gives something unusable, the action
    goes without it, and `Routed.dropped` says so: it is counted. A time that decides (`newer_than`, and `event_time`
    where `max_age` is set) must be a time, with its zone.

Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from consumer.events.decoding import kind
from consumer.events.expressions import is_true
from consumer.events.guards import OnlyFor, Shadow
from consumer.events.routing.actions import action_of
from consumer.events.routing.canonical import check_contract
from consumer.events.routing.elsewhere import json_in
from consumer.events.routing.results import Misrouted, Routed, RouteTrace, Several, Unrouted
from consumer.events.routing.routes import Route
from consumer.events.routing.scope import RecordFacts, Scope
from consumer.events.routing.values import UnusableError, identifier, text_of, value_of
from schemas.dead_letter import ITEM, REDRIVE_OF, Reason

Tombstone = Literal["absent", "empty", "literal_null"]
TOMBSTONES: tuple[Tombstone, ...] = ("absent", "empty", "literal_null")
"""Values that stand for a deletion: none at all (Kafka's own), no bytes, and the JSON text `null`."""

MAX_EACH = 1000
"""Items of one event (`each`): they are saved in one transaction. Below core/places.py's limit."""


class Router:
    """Routes events over compiled routes to the connections that are configured."""

    def __init__(
        self,
        routes: Sequence[Route],
        connections: Collection[str],
        tombstones: Collection[Tombstone] = TOMBSTONES,
        *,
        only_for: Mapping[str, OnlyFor] = MappingProxyType({}),
        shadow: Shadow | None = None,
    ) -> None:
        """`tombstones`: which values say that something was deleted; they are never routed.

        `only_for`: by connection. `shadow`: nothing is sent.
        """
        self._routes = tuple(routes)
        self._connections = frozenset(connections)
        self._only_for = dict(only_for)
        self.tombstones = frozenset(tombstones)
        self.shadow = shadow

    def route(
        self,
        event: object,
        record: RecordFacts,
        trace: list[RouteTrace] | None = None,
        *,
        record_name: str | None = None,
    ) -> Routed | Several | Unrouted | Misrouted:
        """Say what becomes of an event, and in `trace` what each route said. Never raises for what it holds.

        `record_name`: its schema's name for it, where it has a schema.
        """
        scope = Scope(event, record, record_name)
        actions: dict[int, Routed] = {}
        first: Route | None = None  # the route that took the event, or the first of its items
        read = False
        for route in self._routes:
            if first is not None and not _shares_items(first, route):
                _note(trace, route, took=False, why=f"not asked: `{first.name}` comes first")
                continue
            if route.each is None:
                result = self._ask(route, scope)
                if trace is not None:
                    _note(trace, route, took=result is not None, why=_why(route, result))
                if result is None:
                    continue
                if trace is not None:
                    self._note_later(trace, route)
                return result
            try:
                listed = _items(route, scope)
            except UnusableError as wrong:
                _note(trace, route, took=True, why=str(wrong))
                return Misrouted(wrong.reason, str(wrong), route.name)
            read = read or listed is not None
            items = self._ask_each(route, scope, listed or [], actions)
            if isinstance(items, Misrouted):
                _note(trace, route, took=True, why=items.detail)
                return items
            _note(trace, route, took=bool(items), why=f"takes {len(items)} items")
            actions |= items
            first = first or (route if items else None)
        if actions:
            return Several(tuple(actions[item] for item in sorted(actions)))
        return self._other_for_list(scope, trace) or Unrouted(read)

    def _other_for_list(self, scope: Scope, trace: list[RouteTrace] | None) -> Misrouted | None:
        """Find a route that would take what stands where its list must be, and is none; None: there is no such route.

        A converter from XML makes one item of a list with one item, PHP an object of a list with a gap, and a list may
        be JSON in a text. To JMESPath such a list is not there: nothing would become of the event, and nobody would
        know.
        """
        for route in self._routes:
            if (found := _taken_for_list(route, scope)) is not None:
                why = f"each: {route.each} found {found} where its list must be"
                _note(trace, route, took=True, why=why)
                return Misrouted(Reason.INVALID_EVENT, why, route.name)
        return None

    def _note_later(self, trace: list[RouteTrace], taker: Route) -> None:
        later = self._routes[self._routes.index(taker) + 1 :]
        trace.extend(RouteTrace(each.name, False, f"not asked: `{taker.name}` comes first") for each in later)

    def _ask_each(
        self, route: Route, scope: Scope, items: list[object], taken: Collection[int]
    ) -> dict[int, Routed] | Misrouted:
        """Ask for each item that no earlier route took. One item that cannot be used makes the event a dead letter."""
        wanted = _redriven_item(scope.record.headers)
        found: dict[int, Routed] = {}
        for number, item in enumerate(items):
            if number in taken or wanted not in (None, number):
                continue
            result = self._ask(route, scope.of_item(item))
            if isinstance(result, Misrouted):
                return replace(result, detail=f"item {number}: {result.detail}")
            if result is not None:
                found[number] = replace(result, item=number)
        return found

    def _ask(self, route: Route, scope: Scope) -> Routed | Misrouted | None:
        try:
            if not _is_taken(route, scope):
                return None
            if route.canonical:
                check_contract(scope.event)
            return action_of(route, scope, self._connections, self._only_for)
        except UnusableError as wrong:
            return Misrouted(wrong.reason, str(wrong), route.name, *_whose(route, scope))


def _is_taken(route: Route, scope: Scope) -> bool:
    return route.when is None or is_true(value_of("when", route.when, scope))


def _taken_for_list(route: Route, scope: Scope) -> str | None:
    """Say what a route's list is instead of one, where the route takes that or what it holds; None: it does not."""
    try:
        found = value_of("each", route.each_of, scope)
        if isinstance(found, list | bool) or not found:  # PHP's empty list may be {} or false
            return None
        held = json_in(found)
        items = (found, *_items_in(found if held is None else held))
        taken = any(_is_taken(route, scope.of_item(item)) for item in items)
    except UnusableError:  # as for an item that is not there
        return None
    return f"{kind(found)}{'' if held is None else ' with JSON, which json() reads,'}" if taken else None


def _items_in(value: object) -> Iterable[object]:
    match value:
        case dict():
            return (value, *value.values())
        case list():
            return value[:MAX_EACH]
    return ()


def _whose(route: Route, scope: Scope) -> tuple[str | None, str | None]:
    """Return the connection and the order of an event that cannot be used, where it names both."""
    try:
        return text_of("connection", route.connection, scope), identifier("order_id", route.order_id, scope)
    except UnusableError:
        return None, None


def _shares_items(first: Route, route: Route) -> bool:
    """Tell whether a route is asked for the items that the first one left: it names the same list."""
    return first.each is not None and route.each is not None and first.each.text == route.each.text


def _items(route: Route, scope: Scope) -> list[object] | None:
    value = value_of("each", route.each, scope)
    if value is None:
        return None
    if not isinstance(value, list):
        raise UnusableError(f"each: {route.each} gave {kind(value)}, not a list")
    if len(value) > MAX_EACH:
        raise UnusableError(f"each: {route.each} gave more than {MAX_EACH} items")
    return value


def _redriven_item(headers: Sequence[tuple[str, bytes | None]]) -> int | None:
    """Return for which item an event was redriven: its others were dealt with. None: for all."""
    found = {name: value for name, value in headers if name in (REDRIVE_OF, ITEM) and value}
    item = found.get(ITEM, b"")
    return int(item) if REDRIVE_OF in found and item.isdigit() and len(item) < 5 else None


def _note(trace: list[RouteTrace] | None, route: Route, *, took: bool, why: str) -> None:
    if trace is not None:
        trace.append(RouteTrace(route.name, took, why))


def _why(route: Route, result: Routed | Misrouted | None) -> str:
    match result:
        case None:
            return f"when: {route.when} is not true"
        case Misrouted(_, detail):
            return detail
    return f"when: {route.when} is true" if route.when else "takes all"
