"""The control topic's records: what a person asks of all instances of a relay, kept over restarts.

Key: `pause/ID` or `request/ID` (UTF-8). The topic has one partition that counts (0) and is compacted: the last record
of a key holds. A pause that a person ended stays, with `ended_ms`, until a later command clears it away: time on hold
counts for no deadline, also after a restart. A tombstone forgets it.

A request is about one action. The instance that owns its event's partition carries it out, and writes the record again
with its `answer`, in the transaction that carries it out. A later command clears answered ones away. A request holds
references and a person's words, no payload and no personal data.

Readers ignore unknown fields and unknown keys: newer relays may add some (`version` stays). A change that an older
reader must not ignore raises `version`: the older reader cannot read the record then, says so, and leaves it alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PAUSE = "pause/"
REQUEST = "request/"
MAX_REASON = 200
MAX_NAME = 200
MAX_MS = 253_402_300_799_000  # the end of the year 9999
MAX_ITEM = (1 << 12) - 1
MAX_OFFSET = (1 << 63) - 1

What = Literal["send_again", "retry_now", "drop"]
Answer = Literal["done", "refused"]


class PauseRecord(BaseModel):
    """Actions that are put on hold. It covers what all that it names have in common; everything where it names nothing.

    Times are milliseconds since 1970 (UTC).
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal[1] = 1
    connection: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    route: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    action: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    mode: Literal["hold", "discard"] = Field(
        "hold", description="`hold`: they wait. `discard`: they end with the outcome `withheld`."
    )
    reason: str = Field(min_length=1, max_length=MAX_REASON, description="Why, in a person's words.")
    begun_ms: int = Field(ge=0, le=MAX_MS)
    until_ms: int | None = Field(None, ge=0, le=MAX_MS, description="When it ends by itself.")
    ended_ms: int | None = Field(None, ge=0, le=MAX_MS, description="When a person ended it.")
    ended_reason: str | None = Field(None, max_length=MAX_REASON, description="Why it was ended.")


class _Contract(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class RecordAt(_Contract):
    """Where a record lies."""

    topic: str = Field(min_length=1, max_length=249)
    partition: int = Field(ge=0)
    offset: int = Field(ge=0, le=MAX_OFFSET)


class ActionAt(RecordAt):
    """Which action is meant: where its event lies in the source."""

    incarnation: int = Field(0, ge=0, description="How many topics were the source before the one of this offset.")
    item: int | None = Field(None, ge=0, le=MAX_ITEM, description="Which of its event's items, from 0.")


class RequestRecord(_Contract):
    """What a person asks for one action. Times are milliseconds since 1970 (UTC)."""

    version: Literal[1] = 1
    what: What = Field(
        description="`send_again`: make the action of its event again, and send it. `retry_now`: its next step is due "
        "now. `drop`: end it with the outcome `dropped`."
    )
    action: ActionAt
    route: str | None = Field(None, min_length=1, max_length=MAX_NAME, description="The route that must take it.")
    dead_letter: RecordAt | None = Field(
        None, description="Send this dead letter's event, which counts as redriven then; absent: the source has it."
    )
    reason: str = Field(min_length=1, max_length=MAX_REASON, description="Why, in a person's words.")
    asked_by: str = Field(min_length=1, max_length=MAX_NAME, description="The command: `resend`, `redrive`, `pending`.")
    asked_ms: int = Field(ge=0, le=MAX_MS)
    answer: Answer | None = Field(None, description="Absent while the request is open.")
    detail: str | None = Field(None, description="What became of it, or why it was refused.")
    answered_ms: int | None = Field(None, ge=0, le=MAX_MS)
