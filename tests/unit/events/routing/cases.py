"""Events, routes and what becomes of them, for the tests of routing."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.results import Misrouted, Routed
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from schemas.dead_letter import Reason

Event = dict[str, object]
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OCCURRED_MS = 1_762_162_200_000
RECORD_MS = 1_762_162_999_000


@dataclass(frozen=True)
class Record:
    topic: str = "orders"
    partition: int = 3
    offset: int = 17
    key: bytes | None = b"A-1001"
    timestamp_ms: int | None = RECORD_MS
    headers: tuple[tuple[str, bytes | None], ...] = ()


RECORD = Record()
SHIPPED: Event = {
    "version": 1,
    "type": "order.shipped",
    "orderId": "A-1001",
    "occurredAt": "2025-11-03T09:30:00Z",
    "language": "sv-SE",
    "engage": {"jobId": "job-7"},
    "data": {"trackingNumber": "JJSE00001"},
}
PARCEL_SENT: Event = {"kind": "parcel.sent", "number": 1001, "shop": "se"}
PARCEL_ROUTE = RouteRule(when="kind == 'parcel.sent'", action="ConfirmShipment", order_id="number")


def router(**rules: RouteRule) -> Router:
    """The user's rules, then the built-in ones that they don't name."""
    built_in = {name: rule for name, rule in BUILT_IN_ROUTES.items() if name not in rules}
    return Router(compile_routes({**rules, **built_in}), {"default", "se"})


def routed(event: Event, record: Record = RECORD, **rules: RouteRule) -> Routed:
    result = router(**rules).route(event, record)
    assert isinstance(result, Routed), result
    return result


def misrouted(event: Event, **rules: RouteRule) -> Misrouted:
    result = router(**rules).route(event, RECORD)
    assert isinstance(result, Misrouted), result
    return result


def parcel(event: Event = PARCEL_SENT, **keys: object) -> Routed:
    return routed(event, parcel=RouteRule.model_validate({**PARCEL_ROUTE.model_dump(exclude_unset=True), **keys}))


def wrong_parcel(event: Event = PARCEL_SENT, **keys: object) -> str:
    wrong = misrouted(event, parcel=RouteRule.model_validate({**PARCEL_ROUTE.model_dump(exclude_unset=True), **keys}))
    assert (wrong.reason, wrong.route) == (Reason.INVALID_EVENT, "parcel")
    return wrong.detail


IN_ITS_DOCUMENT: Event = {"send": "with_document", "order": "document"}
