"""The outcomes topic's records: one for each action that ended, and for each event that became a dead letter itself.

Key: `{connection}:{order id}` (UTF-8); none where the event names no order. The partition is the source partition's
number, so an order's outcomes lie in one partition. A record is written in the transaction that ends the action: what
readers see (`isolation.level=read_committed`) adds up with the tombstones and the dead letters.

A record holds no payload and no personal data. Its `place` names the event, which is in the source while that keeps it.
After a broker's failure a record may appear twice: two records of one place and one `outcome` are one outcome.

Readers ignore unknown fields and take an unknown `outcome` for one that sent nothing: newer relays may add some
(`version` stays). A change that an older reader must not ignore raises `version`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class OutcomeName(StrEnum):
    """How an action ended."""

    ACCEPTED = "accepted"  # Engage took it: the customer is mailed, where Engage mails
    DEAD_LETTER = "dead_letter"  # it was given up, or its event cannot be used; `reason` says why
    REPEAT = "repeat"  # the same fact was sent before, within the window
    TOO_OLD = "too_old"  # its event is older than allowed
    OUT_OF_SEQUENCE = "out_of_sequence"  # a later step of its order was sent before
    SUPERSEDED = "superseded"  # a later event of its order took its place while it waited
    WITHHELD = "withheld"  # its connection is for other orders, or a person discards what is paused
    SHADOW = "shadow"  # the relay runs without sending
    DROPPED = "dropped"  # a person ended it while it was pending


class _Contract(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Place(_Contract):
    """Where the event lies in the source."""

    topic: str
    partition: int
    offset: int = Field(description="-1 where nobody knows it.")
    incarnation: int = Field(0, description="How many topics were the source before the one of this offset.")
    item: int | None = Field(None, description="Which of its event's items, from 0 (a route's `each`).")


class Outcome(_Contract):
    """What became of an action. Times are milliseconds since 1970 (UTC), absent where nobody knows them."""

    version: Literal[1] = 1
    outcome: OutcomeName
    reason: str | None = Field(None, description="Why: of a dead letter, its own reason; else in words.")
    connection: str | None = None
    order_id: str | None = None
    route: str | None = Field(None, description="The route that took the event.")
    action: str | None = None
    fact: str | None = Field(None, description="Digest (hex) of what may be sent once only, where that is watched.")
    place: Place
    event_ms: int | None = Field(None, description="When it happened.")
    first_seen_ms: int = Field(description="When the relay first read the event.")
    tag_ready_ms: int | None = Field(None, description="When the action could be sent: its versionTag was known.")
    sent_ms: int | None = Field(None, description="When it was last sent; absent also after a restart in between.")
    answered_ms: int | None = Field(None, description="When Engage's answer came that ended it.")
    ended_ms: int = Field(description="When it ended.")
    attempts: int = Field(0, description="Polls answered.")
    sends: int = Field(0, description="Times that the action was sent.")
    trace_id: str | None = Field(None, description="The W3C trace id of its processing, or of its event.")
    asked_by: str = Field(
        "event",
        description="`event`; or who had it sent again: `resend ID`, with the request's id, or `redrive of "
        "TOPIC/PARTITION/OFFSET`.",
    )
    why_asked: str | None = Field(None, description="Why it was asked for, in that person's words.")
