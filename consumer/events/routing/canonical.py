"""The canonical event: its six routes, and the contract that binds whoever sends it.

An event that reaches one of these routes must obey the contract (schemas/order_event), unknown versions included.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consumer.events.decoding import kind
from consumer.events.field_names import plain
from consumer.events.routing.rules import RouteRule
from consumer.events.routing.values import UnusableError
from schemas.engage import ActionName
from schemas.order_event import OrderEvent

MAX_NAMED = 3  # fields that a dead letter's detail names
MAX_NAME_CHARACTERS = 40  # of an event's own name for a field, to be shown
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
        wrong = [each for each in error.errors(include_url=False) if not _may_be_wrong(each)]
        if wrong:
            raise UnusableError("; ".join(_said(each, event) for each in wrong[:MAX_NAMED])) from None


def _said(error: ErrorDetails, event: object) -> str:
    """Say what is wrong with a field, in a sender's words and without what it holds."""
    field, context = ".".join(map(str, error["loc"])), error.get("ctx", {})
    match error["type"]:
        case "missing":
            near = next((name for name in _names(event) if plain(name) == plain(field)), None)
            return f"{field} is missing" if near is None else f"{field} is missing: the event has it as {near}"
        case "string_too_short":
            return f"{field} is empty"
        case "string_too_long":
            return f"{field} is longer than {context['max_length']} characters"
        case "literal_error":
            return f"{field} is {_kind(error)}, and must be {context['expected']}"
        case wrong_type if wrong_type in _TYPES:
            return f"{field} is {_kind(error)}, not {_TYPES[wrong_type]}"
    return f"{field}: {error['msg']}"


_TYPES = {
    "string_type": "a text",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _kind(error: ErrorDetails) -> str:
    is_another_number = error["type"] == "literal_error" and isinstance(error["input"], int | float)
    return "another number" if is_another_number and not isinstance(error["input"], bool) else kind(error["input"])


def _names(event: object) -> Iterable[str]:
    return (name for name in event if len(name) <= MAX_NAME_CHARACTERS) if isinstance(event, dict) else ()


def _may_be_wrong(error: ErrorDetails) -> bool:
    return error["loc"][:1] in _MAY_BE_WRONG or error["loc"] == ("engage", "newerThan")  # that one is read below
