"""The canonical order event: what the built-in routes read from the source topic.

Any other shape is welcome with routes of your own (README, "Your own events").
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from schemas.engage import ActionName

OrderEventType = Literal[
    "order.confirmed",
    "order.shipped",
    "order.delivered",
    "order.cancelled",
    "order.completed",
    "order.custom",
]

NonEmpty = Annotated[str, StringConstraints(min_length=1)]


class _Contract(BaseModel):
    # Unknown fields are the sender's business; a wrong type in a known one is an error, never a guess.
    model_config = ConfigDict(alias_generator=to_camel, extra="allow", strict=True, frozen=True)


class EngageReference(_Contract):
    """Where the order's versionTag comes from; all optional (without any, the order itself is polled)."""

    version_tag: NonEmpty | None = Field(None, description="The versionTag itself: the action is sent at once.")
    job_id: NonEmpty | None = Field(None, description="The Engage job that processes the order: it is polled.")
    connection: NonEmpty | None = Field(None, description="Name of the Engage connection; default: `default`.")
    newer_than: Annotated[datetime, Field(strict=False)] | None = Field(
        None,
        description="With neither tag nor job: an order with an older lastChangedAt counts as not yet processed.",
    )


class OrderEvent(_Contract):
    """One thing that happened to one order, in the order in which it happened (key the topic by orderId)."""

    version: Literal[1] = Field(1, description="Version of this contract.")
    type: OrderEventType
    order_id: NonEmpty = Field(description="Engage's orderId.")
    occurred_at: Annotated[datetime, Field(strict=False)] | None = Field(
        None, description="When it happened (RFC 3339). Default: the record's timestamp."
    )
    action: ActionName | None = Field(
        None,
        description="Of an order.custom event: the name of its action, as it is set up in Engage; default: Custom.",
    )
    language: NonEmpty | None = Field(None, description="Language of the e-mail to the customer, such as sv-SE.")
    engage: EngageReference | None = None
    order: dict[str, Any] | None = Field(
        None, description="The order document: it is posted to Engage first, then its job is polled."
    )
    data: dict[str, Any] | None = Field(None, description="Sent to Engage with the action, unchanged.")
