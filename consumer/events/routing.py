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

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from consumer.events import facts
from consumer.events.decoding import kind
from consumer.events.durations import SecondsOrOff
from consumer.events.expressions import (
    EvaluationError,
    Expression,
    Tables,
    compared_paths,
    compile_expression,
    compile_list,
    is_true,
    paths_of,
    written_keys,
)
from consumer.events.guards import Ages, OnlyFor, Shadow, Stopped, TooOld
from consumer.events.identifiers import MAX_ID_CHARACTERS, why_unusable
from consumer.events.times import Unreadable, milliseconds, plausible, read_time, zone_of
from schemas.dead_letter import ITEM, REDRIVE_OF, Reason
from schemas.engage import DOCUMENTED_ACTIONS, MAX_ACTION_CHARACTERS, ActionName, Change
from schemas.order_event import OrderEvent
from schemas.pending_action import (
    FromChange,
    FromDocument,
    FromEvent,
    FromJob,
    FromOrder,
    OnUnknown,
    TagSource,
    WithDocument,
)

UNKNOWN_TIME_MS = 0
"""`event_time_ms` where neither the event nor its record has a time."""


Send = Literal["by_itself", "with_document"]
ORDER_ACTION = "orderAction"
"""Field of an order document. Engage carries this action out when it processes the document."""
_ORDER_ID = "orderid"  # another one, in lower case: Engage may read names in whatever case

_CHANGES: tuple[tuple[str, Change], ...] = (("change_delivery", "change-delivery"), ("change_status", "change-status"))

Tombstone = Literal["absent", "empty", "literal_null"]
TOMBSTONES: tuple[Tombstone, ...] = ("absent", "empty", "literal_null")
"""Values that stand for a deletion: none at all (Kafka's own), no bytes, and the JSON text `null`."""

MAX_LANGUAGE_CHARACTERS = 100  # a language tag in use has up to 12
MAX_EACH = 1000
"""Items of one event (`each`): they are saved in one transaction. Below core/places.py's limit."""

MAX_NAMED = 3  # fields that a dead letter's detail names

# What an event may have wrong and still be an action: fields of the contract that decide nothing.
_MAY_BE_WRONG = frozenset({("language",), ("data",), ("occurredAt",)})
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"(?=.{1,512}\Z)[\x21-\x7e][\x20-\x7e]*=[\x20-\x7e]+")


def _checked(text: str) -> str:
    compile_expression(text)
    return text


def _known_zone(name: str) -> str:
    if zone_of(name) is None:
        raise ValueError("must be a time zone of the IANA database, such as Europe/Stockholm")
    return name


JMESPath = Annotated[str, AfterValidator(_checked)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]


class RouteRule(BaseModel):
    """A route as the user writes it. Its JMESPath reads the event, with its record's names beside it (trees.py).

    If `change_delivery` or `change_status` gives a value, the relay makes this change first, and the tag comes from it.
    Otherwise the tag comes from the first of `version_tag`, `job_id` and `order` that gives a value.
    If none does, the relay polls the order itself. An integer may be an id or a tag; it is taken as text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    each: JMESPath | None = Field(
        None,
        description="A list in the event, with an action for each of its items, such as body.fulfillments[]. The other"
        " expressions of the route read the item as `item`; the route takes the items for which `when` is true.",
    )
    when: JMESPath | None = Field(
        None, description="Which events the route takes: those for which this is true in JMESPath. Default: all."
    )
    action: ActionName = Field(description="The order action to send, by the name that it has in Engage.")
    action_name: JMESPath | None = Field(
        None, description="The action's name, if the event has it. Where this gives nothing, `action` is sent."
    )
    order_id: JMESPath = Field("orderId", description="The order's id in Engage.")
    version_tag: JMESPath | None = Field(None, description="The versionTag, if the event has it.")
    job_id: JMESPath | None = Field(
        None, description="The id of the Engage job that processes the order; the relay polls it."
    )
    order: JMESPath | None = Field(
        None, description="The order document (an object). The relay posts it to Engage first."
    )
    change_delivery: JMESPath | None = Field(
        None,
        description="The order's new delivery (an object). The relay posts it to Engage first, as change-delivery.",
    )
    change_status: JMESPath | None = Field(
        None, description="The order's new status (an object). The relay posts it to Engage first, as change-status."
    )
    send: Send = Field(
        "by_itself",
        description="How the action travels: `by_itself`, with the order's versionTag, or `with_document`, in the"
        " document that `order` gives. Then it needs no versionTag.",
    )
    newer_than: JMESPath | None = Field(
        None,
        description="Without a tag, job or document: wait for a version of the order whose `lastChangedAt` is not older"
        " than this time. It must name its zone, or the route its `time_zone`.",
    )
    event_time: JMESPath | None = Field(
        None,
        description="When the event happened, for the metrics: RFC 3339 and its relatives, or a number of seconds,"
        " milliseconds, microseconds or nanoseconds since 1970. Where it is null, unreadable or implausible, the"
        " record's timestamp serves. Default: `occurredAt`.",
    )
    max_age: SecondsOrOff | None = Field(
        None,
        description="The oldest event, by `event_time`, whose action is sent. Then that time must be readable, with its"
        " zone. Default: the global `max_age`.",
    )
    too_old: TooOld | None = Field(
        None,
        description="What becomes of an older event: `dead_letter`, with the reason `too_old`, or `ignore`. Default:"
        " the global `too_old`.",
    )
    fact: JMESPath | None = Field(
        None,
        description="What tells two facts of an order and action apart, such as data.parcelId: within `repeats` each is"
        " sent once. Default: the item (`each`) and the parcel that `data` names, such as data.trackingNumber.",
    )
    repeats: SecondsOrOff | None = Field(
        None,
        description="For how long the same fact is not sent again; `off`: each event is sent. Default: the global"
        " `repeats`.",
    )
    superseded_by: tuple[str, ...] = Field(
        (),
        description="Names of routes. While an action of this route waits, and one of these routes takes a later event"
        " of the same order, it is withdrawn, and only the later one is sent. Default: both are sent.",
    )
    time_zone: TimeZone | None = Field(
        None, description="The time zone of the event's times that name none, such as Europe/Stockholm."
    )
    language: JMESPath | None = Field(None, description="Language of the e-mail to the customer, such as sv-SE.")
    data: JMESPath | None = Field(None, description="Any JSON to send to Engage with the action.")
    connection: JMESPath = Field("'default'", description="Name of the Engage connection to use.")
    on_unknown: OnUnknown = Field(
        "resend",
        description="What to do with an action in doubt: `resend` sends it again, `dead_letter` leaves it to a person.",
    )

    @model_validator(mode="after")
    def _documents_alone(self) -> RouteRule:
        if self.send == "with_document":
            if self.order is None:
                raise ValueError("send: with_document needs `order`, the document that the action travels in")
            others = ("version_tag", "job_id", "newer_than", "change_delivery", "change_status")
            if unused := [name for name in others if getattr(self, name) is not None]:
                raise ValueError(f"send: with_document has no use for {', '.join(unused)}")
        return self


def _built_in(event_type: str, action: ActionName, action_name: str | None = None) -> RouteRule:
    return RouteRule(
        when=f"type == '{event_type}'",
        action=action,
        action_name=action_name,
        version_tag="engage.versionTag",
        job_id="engage.jobId",
        order="order",
        newer_than="engage.newerThan",
        event_time="occurredAt",
        language="language",
        data="data",
        connection="engage.connection || 'default'",
    )


BUILT_IN_ROUTES: dict[str, RouteRule] = {
    "confirmed": _built_in("order.confirmed", "ConfirmOrder"),
    "shipped": _built_in("order.shipped", "ConfirmShipment"),
    "delivered": _built_in("order.delivered", "ConfirmDelivery"),
    "cancelled": _built_in("order.cancelled", "ConfirmCancellation"),
    "completed": _built_in("order.completed", "ConfirmCompletion"),
    "custom": _built_in("order.custom", "Custom", "action"),
}
"""The routes of the canonical event (schemas/order_event). One that is given as it stands keeps the contract."""


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


_OCCURRED_AT = compile_expression("occurredAt")
_ANY_AGE = Ages()


def compile_routes(
    rules: Mapping[str, RouteRule],
    tables: Tables | None = None,
    ages: Ages = _ANY_AGE,
    repeats_s: float | None = None,
) -> list[Route]:
    """Compile rules in the order in which they are tried: these and no others (settings adds the built-in ones).

    `ages` and `repeats_s` (None: repeats are sent): those of the routes that say nothing of their own.
    """
    return [_compiled(name, rule, tables or {}, ages, repeats_s) for name, rule in rules.items()]


def _limit(own: float | str | None, default: float | None) -> float | None:
    """Return a route's own limit; None: there is none."""
    return default if own is None else None if isinstance(own, str) else own


def _ages(rule: RouteRule, ages: Ages) -> Ages:
    return Ages(max_age_s=_limit(rule.max_age, ages.max_age_s), too_old=rule.too_old or ages.too_old)


EXPRESSIONS = (
    *("each", "when", "action_name", "order_id", "version_tag", "job_id", "order", "change_delivery", "change_status"),
    *("newer_than", "event_time", "fact", "language", "data", "connection"),
)
"""The keys of a route that are expressions."""


def expressions_of(rule: RouteRule) -> dict[str, str]:
    """Return a route's expressions by key."""
    return {key: text for key in EXPRESSIONS if (text := getattr(rule, key)) is not None}


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


class RecordFacts(Protocol):
    """What routing reads of the event's record."""

    @property
    def topic(self) -> str:
        """Where it lies."""

    @property
    def partition(self) -> int:
        """In which partition."""

    @property
    def offset(self) -> int:
        """And at which offset."""

    @property
    def key(self) -> bytes | None:
        """Kafka's key."""

    @property
    def timestamp_ms(self) -> int | None:
        """Milliseconds since 1970 (UTC)."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Kafka's headers, in their order."""


class Scope:
    """What a route's expressions read: the event, and its record's names beside it where one of them is used."""

    __slots__ = ("_root", "event", "items", "record")

    def __init__(self, event: object, record: RecordFacts, item: tuple[object, ...] = ()) -> None:
        """`item`: the one item that it is about, in a route with `each`."""
        self.event = event
        self.record = record
        self.items = item
        self._root: dict[str, object] | None = None

    @property
    def root(self) -> dict[str, object]:
        """The event's fields, and the record's names over them (trees.py)."""
        if self._root is None:
            record = self.record
            fields = self.event if isinstance(self.event, dict) else {}
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            self._root = {
                **fields,
                "event": self.event,
                "headers": {name: _as_text(value) for name, value in record.headers},
                "key": _as_text(record.key),
                "meta": {**place, "timestamp": record.timestamp_ms},
            }
            if self.items:
                (self._root["item"],) = self.items
        return self._root


def _as_text(raw: bytes | None) -> str | None:
    """Return a key or header as text; null where it is none."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


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
    ages: Ages = field(default=_ANY_AGE, repr=False)
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


class _UnusableError(Exception):
    """A route took the event and cannot use it."""

    def __init__(self, detail: str, reason: Reason = Reason.INVALID_EVENT) -> None:
        super().__init__(detail)
        self.reason = reason


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
        self, event: object, record: RecordFacts, trace: list[RouteTrace] | None = None
    ) -> Routed | Several | Unrouted | Misrouted:
        """Say what becomes of an event, and in `trace` what each route said. Never raises for what it holds."""
        scope = Scope(event, record)
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
            except _UnusableError as wrong:
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
        return self._object_for_list(scope, trace) or Unrouted(read)

    def _object_for_list(self, scope: Scope, trace: list[RouteTrace] | None) -> Misrouted | None:
        """Find a route that would take an object which stands where its list must be; None: there is none.

        A converter from XML makes an object of a list with one item, PHP of a list with a gap. To JMESPath such a list
        is not there: nothing would become of the event, and nobody would know.
        """
        for route in self._routes:
            if _takes_an_object(route, scope):
                why = f"each: {route.each} found an object where its list must be"
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
            result = self._ask(route, Scope(scope.event, scope.record, (item,)))
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
                _check_contract(scope.event)
            return self._action(route, scope)
        except _UnusableError as wrong:
            return Misrouted(wrong.reason, str(wrong), route.name, *_whose(route, scope))

    def _action(self, route: Route, scope: Scope) -> Routed:
        connection = _required("connection", route.connection, _text("connection", route.connection, scope))
        if connection not in self._connections:
            raise _UnusableError(f"connection: {_quoted(connection)} is not configured", Reason.UNKNOWN_CONNECTION)
        dropped: list[Dropped] = []
        order_id = _required("order_id", route.order_id, _identifier("order_id", route.order_id, scope))
        only_for = self._only_for.get(connection)
        action, data = _action_name(route, scope), _data(route, scope, dropped)
        return Routed(
            route=route.name,
            connection=connection,
            order_id=order_id,
            action=action,
            language=_language(route, scope, dropped),
            data=data,
            tag_source=_tag_source(route, scope, order_id),
            on_unknown=route.on_unknown,
            event_time_ms=_event_time_ms(route, scope, dropped),
            trace_context=trace_context(scope.record.headers),
            ages=route.ages,
            fact=None if route.repeats_s is None else _fact(route, scope, order_id, action, data),
            repeats_s=route.repeats_s,
            allowed=only_for is None or only_for.allows(order_id, scope),
            dropped=tuple(dropped),
        )


def _is_taken(route: Route, scope: Scope) -> bool:
    return route.when is None or is_true(_value("when", route.when, scope))


def _takes_an_object(route: Route, scope: Scope) -> bool:
    """Tell whether a route's list is an object, and the route takes that one or what it holds."""
    try:
        found = _value("each", route.each_of, scope)
        if not isinstance(found, dict) or not found:  # PHP's empty list may be {}
            return False
        items = (found, *found.values())
        return any(_is_taken(route, Scope(scope.event, scope.record, (item,))) for item in items)
    except _UnusableError:  # as for an item that is not there
        return False


def _fact(route: Route, scope: Scope, order_id: str, action: str, data: object) -> str:
    if route.fact is None:
        parts = facts.default_parts(scope.items, data)
    else:
        value = _value("fact", route.fact, scope)
        parts = [] if value is None else [value]
    return facts.text_of(order_id, action, parts)


def _whose(route: Route, scope: Scope) -> tuple[str | None, str | None]:
    """Return the connection and the order of an event that cannot be used, where it names both."""
    try:
        return _text("connection", route.connection, scope), _identifier("order_id", route.order_id, scope)
    except _UnusableError:
        return None, None


def _shares_items(first: Route, route: Route) -> bool:
    """Tell whether a route is asked for the items that the first one left: it names the same list."""
    return first.each is not None and route.each is not None and first.each.text == route.each.text


def _items(route: Route, scope: Scope) -> list[object] | None:
    value = _value("each", route.each, scope)
    if value is None:
        return None
    if not isinstance(value, list):
        raise _UnusableError(f"each: {route.each} gave {kind(value)}, not a list")
    if len(value) > MAX_EACH:
        raise _UnusableError(f"each: {route.each} gave more than {MAX_EACH} items")
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


def _check_contract(event: object) -> None:
    try:
        OrderEvent.model_validate(event)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        fields = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong if not _may_be_wrong(each)]
        if fields:
            raise _UnusableError("; ".join(fields[:MAX_NAMED])) from None


def _may_be_wrong(error: ErrorDetails) -> bool:
    return error["loc"][:1] in _MAY_BE_WRONG or error["loc"] == ("engage", "newerThan")  # that one is read below


def _value(key: str, expression: Expression | None, scope: Scope) -> object:
    if expression is None:
        return None
    try:
        return expression.search(scope.root if expression.reads_record else scope.event)
    except EvaluationError as error:
        raise _UnusableError(f"{key}: {expression} {error}") from None


def _text(key: str, expression: Expression | None, scope: Scope, *, integers: bool = False) -> str | None:
    value = _value(key, expression, scope)
    if value is None:
        return None
    if integers and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # commerce platforms number their orders
    if integers and isinstance(value, float):
        raise _UnusableError(f"{key}: {expression} gave a number with a fraction or exponent: it may have lost digits")
    if not isinstance(value, str):
        raise _UnusableError(f"{key}: {expression} gave {kind(value)}, not a text")
    if not value:
        raise _UnusableError(f"{key}: {expression} gave an empty text")
    if len(value) > MAX_ID_CHARACTERS:
        raise _UnusableError(f"{key}: {expression} gave more than {MAX_ID_CHARACTERS} characters")
    return value


def notes_on(rule: RouteRule) -> Iterator[str]:
    """Note what is probably an error in a route."""
    if (note := note_on(rule.action)) is not None:
        yield note
    if rule.order is not None and any(map(names_order_action, written_keys(rule.order))):
        yield f"order: the document has an {ORDER_ACTION} of its own: its events become dead letters, not two e-mails"
    if may_swallow_a_parcel(rule):
        yield (
            f"fact: two {rule.action} of one order within `repeats` are one fact, and the second is not sent; if an"
            " order may have several parcels, name the parcel's id (fact: data.parcelId)"
        )
    for one, other in [] if rule.when is None else compared_paths(rule.when):
        yield f"when: it compares {one} with the field {other}; a text stands in single quotes, '{other}'"
    for key, text in expressions_of(rule).items():
        for path, _ in paths_of(text):
            if (meant := nearly_a_record_name(path[0])) is not None:
                yield f"{key}: {path[0]} is a field of the event; of its record there is `{meant}`"


def may_swallow_a_parcel(rule: RouteRule) -> bool:
    """Tell whether a route sends what an order may have several of, and does not tell them apart."""
    is_of_parcels = rule.action in ("ConfirmShipment", "ConfirmDelivery")
    names_one = rule.each is not None or rule.fact is not None or rule.repeats == "off"
    in_data = rule.data is not None and (rule.data == "data" or any(map(facts.names_a_parcel, written_keys(rule.data))))
    return is_of_parcels and not names_one and not in_data


def nearly_a_record_name(name: str) -> str | None:
    """Return the record's name that this one may be an error for: `header` for `headers`, say."""
    if name.lower() in ("header", "headers", "hdrs", "record_headers"):
        return "headers"
    return next(iter(get_close_matches(name.lower(), ("headers", "meta"), n=1, cutoff=0.85)), None)


def names_order_action(field: str) -> bool:
    """Tell whether this field of a document is its `orderAction`, in whatever case: Engage may read it so, too."""
    return field.lower() == ORDER_ACTION.lower()


def note_on(action: str) -> str | None:
    """Note an action that Engage's documentation does not list: it is the merchant's own, or misspelt."""
    if action in DOCUMENTED_ACTIONS:
        return None
    return f"Engage's documentation does not list the action {action}: it must be set up in Engage by this name"


def _action_name(route: Route, scope: Scope) -> ActionName:
    name = _text("action_name", route.action_name, scope)
    if name is not None and not name.strip():
        raise _UnusableError(f"action_name: {route.action_name} gave an empty text")
    if name is not None and len(name) > MAX_ACTION_CHARACTERS:
        raise _UnusableError(f"action_name: {route.action_name} gave more than {MAX_ACTION_CHARACTERS} characters")
    return route.action if name is None else name


def _identifier(key: str, expression: Expression | None, scope: Scope) -> str | None:
    value = _text(key, expression, scope, integers=True)
    why = None if value is None else why_unusable(value)
    if why is not None:
        raise _UnusableError(f"{key}: {expression} gave an id that {why}")
    return value


def _required(key: str, expression: Expression, value: str | None) -> str:
    if value is None:
        raise _UnusableError(f"{key}: {expression} gave nothing")
    return value


def _tag_source(route: Route, scope: Scope, order_id: str) -> TagSource:
    if route.send == "with_document":
        document = _document(route, scope, order_id)
        if document is None:
            raise _UnusableError(f"order: {route.order} gave nothing, and the action travels in it")
        return WithDocument(document=document)
    if (change := _change(route, scope)) is not None:
        return change
    version_tag = _text("version_tag", route.version_tag, scope, integers=True)
    if version_tag is not None:
        return FromEvent(version_tag=version_tag)
    job_id = _identifier("job_id", route.job_id, scope)
    if job_id is not None:
        return FromJob(job_id=job_id)
    if (document := _document(route, scope, order_id)) is not None:
        return FromDocument(document=document)
    return FromOrder(newer_than=_moment("newer_than", route.newer_than, scope, route.time_zone))


def _document(route: Route, scope: Scope, order_id: str) -> dict[str, object] | None:
    document = _object("order", route.order, scope)
    for name, value in (document or {}).items():
        if value is not None and names_order_action(name):
            raise _UnusableError(f"order: {route.order} gave an {ORDER_ACTION}, and the route sends an action, too")
        # Engage would change that order, and mail its customer where the action travels in the document.
        if name.lower() == _ORDER_ID and _is_another(value, order_id):
            raise _UnusableError(f"order: {route.order} gave the document of another order than `order_id`")
    return document


def _is_another(named: object, order_id: str) -> bool:
    """Tell whether a document's `orderId` is certainly another one's: a text or an integer, and not the same."""
    return isinstance(named, str | int) and not isinstance(named, bool) and str(named) != order_id


def _change(route: Route, scope: Scope) -> FromChange | None:
    """Return the change that comes first. It takes the place of a document, of which there must be none, then."""
    found: tuple[str, FromChange] | None = None
    for key, change, expression in route.changes:
        body = _object(key, expression, scope)
        if body is not None and found is not None:
            raise _UnusableError(f"{key}: {expression} gave a second change, after {found[0]}")
        if body is not None:
            found = (key, FromChange(change=change, body=body))
    if found is None:
        return None
    if _value("order", route.order, scope) is not None:
        raise _UnusableError(f"order: {route.order} gave a document, besides {found[0]}")
    return found[1]


def _object(key: str, expression: Expression | None, scope: Scope) -> dict[str, object] | None:
    value = _value(key, expression, scope)
    if value is None or isinstance(value, dict):
        return value
    raise _UnusableError(f"{key}: {expression} gave {kind(value)}, not an object")


def _event_time_ms(route: Route, scope: Scope, dropped: list[Dropped]) -> int:
    """Return when it happened: a figure for the metrics, so nothing that is wrong with it stops the action.

    With `max_age` it decides: then it must be readable, and only where the event has none its record's time serves.
    """
    record_ms = UNKNOWN_TIME_MS if scope.record.timestamp_ms is None else scope.record.timestamp_ms
    if route.ages.max_age_s is not None:
        return _deciding_time_ms(route, scope, record_ms)
    value = _optional("event_time", route.event_time, scope, dropped)
    if value is None:
        return record_ms
    moment = read_time(value, route.time_zone)
    if isinstance(moment, Unreadable):
        dropped.append(Dropped("event_time", f"{route.event_time} gave {kind(value)} that {moment.why}"))
        return record_ms
    if not plausible(moment, scope.record.timestamp_ms):
        dropped.append(Dropped("event_time", f"{route.event_time} gave an implausible time"))
        return record_ms
    return milliseconds(moment)


def _deciding_time_ms(route: Route, scope: Scope, record_ms: int) -> int:
    moment = _moment("event_time", route.event_time, scope, route.time_zone)
    if moment is None and record_ms == UNKNOWN_TIME_MS:
        raise _UnusableError(f"event_time: {route.event_time} gave nothing, its record has no time, and max_age asks")
    if moment is None or not plausible(moment, scope.record.timestamp_ms):  # a clock that is ahead: not old
        return record_ms
    return milliseconds(moment)


def _moment(key: str, expression: Expression | None, scope: Scope, zone: tzinfo | None) -> datetime | None:
    """Read a time that decides something."""
    value = _value(key, expression, scope)
    if value is None:
        return None
    moment = read_time(value, zone)
    if isinstance(moment, Unreadable):
        raise _UnusableError(f"{key}: {expression} gave {kind(value)} that {moment.why}")
    if not plausible(moment, None):
        raise _UnusableError(f"{key}: {expression} gave a time before 2000 or after 2100")
    return moment


def _optional(key: str, expression: Expression | None, scope: Scope, dropped: list[Dropped]) -> object:
    """Return what a field gives that decides nothing: where its expression fails, nothing."""
    try:
        return _value(key, expression, scope)
    except _UnusableError as error:
        dropped.append(Dropped(key, str(error).removeprefix(f"{key}: ")))
        return None


def _language(route: Route, scope: Scope, dropped: list[Dropped]) -> str | None:
    value = _optional("language", route.language, scope, dropped)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str) and len(value) <= MAX_LANGUAGE_CHARACTERS:
        return value
    why = f"more than {MAX_LANGUAGE_CHARACTERS} characters" if isinstance(value, str) else f"{kind(value)}, not a text"
    dropped.append(Dropped("language", f"{route.language} gave {why}"))
    return None


def _data(route: Route, scope: Scope, dropped: list[Dropped]) -> object:
    value = _optional("data", route.data, scope, dropped)
    if route.canonical and not isinstance(value, dict | None):  # the contract's, which this field may break
        dropped.append(Dropped("data", f"{route.data} gave {kind(value)}, not an object"))
        return None
    return value


def trace_context(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str] | None:
    """Read W3C trace context (https://www.w3.org/TR/trace-context/); a malformed one counts as absent."""
    parent = state = None
    for name, value in headers:
        if name == "traceparent":
            parent = value
        elif name == "tracestate":
            state = value
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return None
    context = {"traceparent": parent.decode("ascii")}
    if state is not None and _TRACESTATE.fullmatch(state):
        context["tracestate"] = state.decode("ascii")
    return context


def _quoted(connection: str) -> str:
    return json.dumps(connection if len(connection) <= 60 else connection[:59] + "…")
