"""The delay topic's records: the actions that are still open, so that a restart knows them.

Key: `{incarnation}:{source offset}:{route}` (UTF-8), or `position` for the partition's next source offset. The
partition is the source partition's number. A tombstone ends an action. `payload` is written once and carried along
unread; the fields beside it are the action's progress.

Offsets mean nothing without their topic. So the position names the group, the cluster and the topic that it belongs
to (`SourceIdentity`). A source that is recreated, and adopted by a person, gets the next incarnation: its offsets
begin at 0 again, and never meet those of what is still pending from the former topic.

Version 1 (0.1.0) had neither. Readers ignore unknown fields, so a newer relay may add some (`version` stays). A
change that an older reader must not ignore raises `version`: the older reader dead-letters an action that it cannot
read, and does not start from a position that it cannot read.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.dead_letter import Reason
from schemas.engage import ActionName, Change

POSITION_KEY = b"position"
OnUnknown = Literal["resend", "dead_letter"]


class _Contract(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Bytes(_Contract):
    """Bytes in JSON: as text where they are UTF-8, else in base64. Exactly one of the two is set."""

    text: str | None = None
    base64: str | None = None

    @classmethod
    def of(cls, raw: bytes) -> Bytes:
        """Wrap `raw`, whatever it is."""
        return cls(**cls.fields_of(raw))

    @staticmethod
    def fields_of(raw: bytes) -> dict[str, str]:
        """Return what `raw` is in JSON."""
        try:
            return {"text": raw.decode()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode("ascii")}

    def raw(self) -> bytes:
        """Return the very bytes that were wrapped."""
        return base64.b64decode(self.base64) if self.base64 is not None else (self.text or "").encode()


class SourceRecord(_Contract):
    """The event's record as it was consumed, kept whole so that a dead letter is the original, untouched."""

    topic: str
    partition: int
    offset: int
    incarnation: int = Field(0, description="How many topics were the source before the one of this offset.")
    timestamp_ms: int | None = Field(None, description="Milliseconds since 1970 (UTC); null where the broker had none.")
    key: Bytes | None = None
    value: Bytes | None = None
    headers: list[tuple[str, Bytes | None]] = Field(default_factory=list)


class FromEvent(_Contract):
    """The event carried the versionTag."""

    kind: Literal["event"] = "event"
    version_tag: str


class FromJob(_Contract):
    """The versionTag comes from a job."""

    kind: Literal["job"] = "job"
    job_id: str


class FromOrder(_Contract):
    """The versionTag comes from the order itself."""

    kind: Literal["order"] = "order"
    newer_than: datetime | None = None


class FromDocument(_Contract):
    """The order document is posted to Engage first (409: put), which answers with a job."""

    kind: Literal["document"] = "document"
    document: dict[str, Any]


class FromChange(_Contract):
    """The order is changed first (POST /orders/{orderId}/change-delivery or change-status), which a job processes."""

    kind: Literal["change"] = "change"
    change: Change
    body: dict[str, Any]


class WithDocument(_Contract):
    """The action needs no versionTag: it travels in the order document, as its `orderAction`."""

    kind: Literal["with_document"] = "with_document"
    document: dict[str, Any]


TagSource = Annotated[
    FromEvent | FromJob | FromOrder | FromDocument | FromChange | WithDocument, Field(discriminator="kind")
]


class RoutedAction(_Contract):
    """What a route made of an event. Never changes afterwards."""

    route: str
    connection: str
    order_id: str
    action: ActionName
    language: str | None = None
    data: Any = None
    tag_source: TagSource
    on_unknown: OnUnknown = "resend"
    event_time_ms: int = Field(description="When it happened: milliseconds since 1970 (UTC).")
    trace_context: dict[str, str] | None = Field(
        None, description="W3C traceparent and tracestate: the event's, or with tracing on those of its processing."
    )
    item: int | None = Field(None, description="Which of its event's items it is for, from 0; null: for the event.")
    fact: str | None = Field(None, description="Digest (hex) of what is sent once only within the window.")
    asked_by: str | None = Field(
        None, description="A person asked for it: the command and the request's id; null: it came with its event."
    )
    why_asked: str | None = Field(None, description="Why, in that person's words.")
    shadow: bool = Field(False, description="It was read in a shadow run: it ends where it would be sent.")
    source: SourceRecord


class PendingAction(_Contract):
    """A live record of the delay topic."""

    version: Literal[2] = 2
    state: Literal["pending", "sending"] = Field(
        description="`sending` is the intent: a `sending` record without a tombstone is in doubt after a crash."
    )
    first_seen_ms: int = Field(description="When the event was first read; the deadline counts from here.")
    due_ms: int = Field(description="When it is next to be looked at.")
    attempts: int = Field(0, description="Polls answered so far, when this record was written.")
    sends: int = Field(0, description="Times that the action was sent or meant to be.")
    version_tag: str | None = Field(None, description="The tag last learnt.")
    job_id: str | None = Field(None, description="The job that a posted document or change was given.")
    document_sent: bool = Field(False, description="The order's document or change may have been under way to Engage.")
    contact_until_ms: int | None = Field(
        None, description="By when its order must have a contact; null before Engage first said that it has none."
    )
    payload: RoutedAction


class SourceIdentity(_Contract):
    """Whose offsets these are."""

    group: str = Field(description="The consumer group of the relay.")
    cluster_id: str | None = Field(None, description="Null where the cluster does not tell.")
    topic: str
    topic_id: str | None = Field(
        None, description="A recreated topic has another one. Null where the brokers know no ids."
    )
    incarnation: int = Field(0, description="How many topics were the source before this one.")
    former_topics: tuple[str, ...] = Field((), description="Other names that the source had before.")


class RefusedDeadLetter(_Contract):
    """A live record of the delay topic: a dead letter that its topic refuses. It is written there once that takes it.

    Its key is that of the action. An event that never became one has `dead-letter:` and a name that is its own.
    """

    version: Literal[1] = 1
    state: Literal["refused"] = "refused"
    reason: Reason
    offset: int | None = Field(None, description="Of the event in the source, where that is known.")
    key: Bytes | None = None
    value: Bytes | None = None
    headers: list[tuple[str, Bytes | None]] = Field(default_factory=list)


class Position(_Contract):
    """The next offset of the source partition: written in every transaction that touches the partition."""

    version: Literal[2] = 2
    next_offset: int
    partition: int
    source: SourceIdentity
    outcomes_topic_id: str | None = Field(
        None, description="Of the topic that says which facts were sent. Null where nobody knows."
    )
