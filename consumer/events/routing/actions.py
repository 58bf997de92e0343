"""The action that a route makes of an event, or of one of its items."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from consumer.events import facts
from consumer.events.decoding import kind
from consumer.events.guards import OnlyFor
from consumer.events.routing.event_times import event_time_ms
from consumer.events.routing.results import Dropped, Routed
from consumer.events.routing.routes import Route
from consumer.events.routing.scope import Scope
from consumer.events.routing.tag_sources import tag_source_of
from consumer.events.routing.values import UnusableError, identifier, optional_value, required, text_of, value_of
from consumer.events.trace_context import trace_context
from schemas.dead_letter import Reason
from schemas.engage import MAX_ACTION_CHARACTERS, ActionName

MAX_LANGUAGE_CHARACTERS = 100  # a language tag in use has up to 12


def action_of(route: Route, scope: Scope, connections: Collection[str], only_for: Mapping[str, OnlyFor]) -> Routed:
    """Return the action. `connections`: those that are configured. `only_for`: by connection."""
    connection = required("connection", route.connection, text_of("connection", route.connection, scope))
    if connection not in connections:
        raise UnusableError(f"connection: {_quoted(connection)} is not configured", Reason.UNKNOWN_CONNECTION)
    dropped: list[Dropped] = []
    order_id = required("order_id", route.order_id, identifier("order_id", route.order_id, scope))
    serves = only_for.get(connection)
    action, data = _action_name(route, scope), _data(route, scope, dropped)
    return Routed(
        route=route.name,
        connection=connection,
        order_id=order_id,
        action=action,
        language=_language(route, scope, dropped),
        data=data,
        tag_source=tag_source_of(route, scope, order_id),
        on_unknown=route.on_unknown,
        event_time_ms=event_time_ms(route, scope, dropped),
        trace_context=trace_context(scope.record.headers),
        ages=route.ages,
        fact=None if route.repeats_s is None else _fact(route, scope, order_id, action, data),
        repeats_s=route.repeats_s,
        allowed=serves is None or serves.allows(order_id, scope),
        dropped=tuple(dropped),
    )


def _fact(route: Route, scope: Scope, order_id: str, action: str, data: object) -> str:
    if route.fact is None:
        parts = facts.default_parts(action, scope.items, data)
    else:
        parts = facts.own_parts(value_of("fact", route.fact, scope), scope.items)
    return facts.text_of(order_id, action, parts)


def _action_name(route: Route, scope: Scope) -> ActionName:
    name = text_of("action_name", route.action_name, scope)
    if name is not None and not name.strip():
        raise UnusableError(f"action_name: {route.action_name} gave an empty text")
    if name is not None and len(name) > MAX_ACTION_CHARACTERS:
        raise UnusableError(f"action_name: {route.action_name} gave more than {MAX_ACTION_CHARACTERS} characters")
    return route.action if name is None else name


def _language(route: Route, scope: Scope, dropped: list[Dropped]) -> str | None:
    value = optional_value("language", route.language, scope, dropped)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str) and len(value) <= MAX_LANGUAGE_CHARACTERS:
        return value
    why = f"more than {MAX_LANGUAGE_CHARACTERS} characters" if isinstance(value, str) else f"{kind(value)}, not a text"
    dropped.append(Dropped("language", f"{route.language} gave {why}"))
    return None


def _data(route: Route, scope: Scope, dropped: list[Dropped]) -> object:
    value = optional_value("data", route.data, scope, dropped)
    if route.canonical and not isinstance(value, dict | None):  # the contract's, which this field may break
        dropped.append(Dropped("data", f"{route.data} gave {kind(value)}, not an object"))
        return None
    return value


def _quoted(connection: str) -> str:
    return json.dumps(connection if len(connection) <= 60 else connection[:59] + "…")
