"""A route as the user writes it: a map from an event to an action, in JMESPath.

What is wrong with a rule by itself is an error when it is read. What is probably meant otherwise, notes.py says.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from consumer.events.durations import SecondsOrOff
from consumer.events.expressions import compile_expression
from consumer.events.guards import TooOld, written_out
from consumer.events.times import zone_of
from schemas.engage import ActionName
from schemas.pending_action import OnUnknown

Send = Literal["by_itself", "with_document"]


def _checked(text: str) -> str:
    compile_expression(text)
    return text


def _checked_condition(text: str) -> str:
    compile_expression(text, is_condition=True)
    return text


def _known_zone(name: str) -> str:
    if zone_of(name) is None:
        raise ValueError("must be a time zone of the IANA database, such as Europe/Stockholm")
    return name


JMESPath = Annotated[str, AfterValidator(_checked)]
Condition = Annotated[str, AfterValidator(_checked_condition)]
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
    when: Condition | None = Field(
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
        " sent once. Default: the item (`each`) and the parcel that `data` names, such as data.trackingNumber; of an"
        " action of your own, all of `data`.",
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

    _written_out = field_validator("when", "max_age", mode="before")(written_out)

    @model_validator(mode="after")
    def _documents_alone(self) -> RouteRule:
        if self.send == "with_document":
            if self.order is None:
                raise ValueError("send: with_document needs `order`, the document that the action travels in")
            others = ("version_tag", "job_id", "newer_than", "change_delivery", "change_status")
            if unused := [name for name in others if getattr(self, name) is not None]:
                raise ValueError(f"send: with_document has no use for {', '.join(unused)}")
        return self


EXPRESSIONS = (
    *("each", "when", "action_name", "order_id", "version_tag", "job_id", "order", "change_delivery", "change_status"),
    *("newer_than", "event_time", "fact", "language", "data", "connection"),
)
"""The keys of a route that are expressions."""


def expressions_of(rule: RouteRule) -> dict[str, str]:
    """Return a route's expressions by key."""
    return {key: text for key in EXPRESSIONS if (text := getattr(rule, key)) is not None}
