"""A route, compiled: its expressions, and what the configuration says where the rule says nothing of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo

from consumer.events.expressions import Expression, Tables, compile_expression, compile_list
from consumer.events.guards import ANY_AGE, Ages
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.rules import RouteRule, Send
from consumer.events.times import zone_of
from schemas.engage import ActionName, Change
from schemas.pending_action import OnUnknown

_CHANGES: tuple[tuple[str, Change], ...] = (("change_delivery", "change-delivery"), ("change_status", "change-status"))
_OCCURRED_AT = compile_expression("occurredAt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule, compiled. `canonical`: the events that it takes must obey the canonical contract.

    `each_of`: what must be a list for `each` to find items.
    """

    name: str
    action: ActionName
    on_unknown: OnUnknown
    canonical: bool
    each: Expression | None
    each_of: Expression | None
    when: Expression | None
    action_name: Expression | None
    order_id: Expression
    version_tag: Expression | None
    job_id: Expression | None
    order: Expression | None
    changes: tuple[tuple[str, Change, Expression], ...]
    send: Send
    newer_than: Expression | None
    event_time: Expression
    ages: Ages
    fact: Expression | None
    repeats_s: float | None
    time_zone: tzinfo | None
    language: Expression | None
    data: Expression | None
    connection: Expression


def compile_routes(
    rules: Mapping[str, RouteRule],
    tables: Tables | None = None,
    ages: Ages = ANY_AGE,
    repeats_s: float | None = None,
) -> list[Route]:
    """Compile rules in the order in which they are tried: these and no others (settings adds the built-in ones).

    `ages` and `repeats_s` (None: repeats are sent): those of the routes that say nothing of their own.
    """
    return [_compiled(name, rule, tables or {}, ages, repeats_s) for name, rule in rules.items()]


def _compiled(name: str, rule: RouteRule, tables: Tables, ages: Ages, repeats_s: float | None) -> Route:
    with_item = rule.each is not None

    def compiled(text: str) -> Expression:
        return compile_expression(text, tables, with_item=with_item)

    def optional(text: str | None) -> Expression | None:
        return None if text is None else compiled(text)

    return Route(
        name=name,
        action=rule.action,
        on_unknown=rule.on_unknown,
        canonical=rule == BUILT_IN_ROUTES.get(name),
        each=None if rule.each is None else compile_expression(rule.each, tables),
        each_of=None if rule.each is None else compile_list(rule.each, tables),
        when=None
        if rule.when is None
        else compile_expression(rule.when, tables, is_condition=True, with_item=with_item),
        action_name=optional(rule.action_name),
        order_id=compiled(rule.order_id),
        version_tag=optional(rule.version_tag),
        job_id=optional(rule.job_id),
        order=optional(rule.order),
        changes=tuple(
            (key, change, compiled(text)) for key, change in _CHANGES if (text := getattr(rule, key)) is not None
        ),
        send=rule.send,
        newer_than=optional(rule.newer_than),
        event_time=_OCCURRED_AT if rule.event_time is None else compiled(rule.event_time),
        ages=_ages(rule, ages),
        fact=optional(rule.fact),
        repeats_s=_limit(rule.repeats, repeats_s),
        time_zone=None if rule.time_zone is None else zone_of(rule.time_zone),
        language=optional(rule.language),
        data=optional(rule.data),
        connection=compiled(rule.connection),
    )


def _limit(own: float | str | None, default: float | None) -> float | None:
    """Return a route's own limit; None: there is none."""
    return default if own is None else None if isinstance(own, str) else own


def _ages(rule: RouteRule, ages: Ages) -> Ages:
    return Ages(max_age_s=_limit(rule.max_age, ages.max_age_s), too_old=rule.too_old or ages.too_old)
