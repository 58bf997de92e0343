"""Engage's order API, as far as it is used here (API v3; source: Voyado's public documentation).

Answers are read leniently (unknown fields are ignored, numbers are texts, other types count as absent);
requests are built strictly.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

DOCUMENTED_ACTIONS = (
    "ConfirmOrder",
    "ConfirmShipment",
    "ConfirmDelivery",
    "ConfirmCancellation",
    "ConfirmCompletion",
    "Custom",
)
"""The actions that Engage's documentation lists; a merchant may determine others."""

MAX_ACTION_CHARACTERS = 200
ActionName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ACTION_CHARACTERS)]


Change = Literal["change-delivery", "change-status"]
"""Calls that change an order without its whole document: POST /api/v3/orders/{orderId}/{change}."""


class _Contract(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True)


class ActionRequest(_Contract):
    """Body of POST /api/v3/orders/{orderId}/action; answered 202 when accepted."""

    action: ActionName
    version_tag: str = Field(description="versionTag of the order's latest processed version.")
    language: str | None = None
    data: Any = None


class OrderAction(_Contract):
    """`orderAction` of an order document: Engage carries it out when it processes that version of the order."""

    action: ActionName
    language: str | None = None
    data: Any = None


class JobAnswer(_Contract):
    """Body of GET /api/v3/orders/jobs/{jobId}, and of the 202 to POST and PUT of an order."""

    job_id: str | None = None
    status: str | None = Field(None, description='"Completed" when done.')
    order_id: str | None = None
    href: str | None = Field(None, description="Where to ask for the job. Never followed to another origin.")
    version_tag: str | None = Field(None, description="Present when the latest update has been processed.")


class OrderAnswer(_Contract):
    """The part of GET /api/v3/orders/{orderId} that matters here."""

    order_id: str | None = None
    version_tag: str | None = None
    last_changed_at: str | None = None
