"""The canonical event: its six routes, and the contract that binds whoever sends it.

An event that reaches one of these routes must obey the contract (schemas/order_event), unknown versions included.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consumer.events.routing.rules import RouteRule
from consumer.events.routing.values import UnusableError
from schemas.engage import ActionName
from schemas.order_event import OrderEvent

MAX_NAMED = 3  # fields that a dead letter's detail names
# What an event may have wrong and still be an action: fields of the contract that decide nothing.
_MAY_BE_WRONG = frozenset({("language",), ("data",), ("occurredAt",)})


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


def check_contract(event: object) -> None:
    """Raise UnusableError where an event breaks the contract in a field that decides something."""
    try:
        OrderEvent.model_validate(event)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        fields = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong if not _may_be_wrong(each)]
        if fields:
            raise UnusableError("; ".join(fields[:MAX_NAMED])) from None


def _may_be_wrong(error: ErrorDetails) -> bool:
    return error["loc"][:1] in _MAY_BE_WRONG or error["loc"] == ("engage", "newerThan")  # that one is read below
