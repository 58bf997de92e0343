"""The control topic's records: what a person asks of all instances of a relay, kept over restarts.

Key: `pause/ID` (UTF-8). The topic has one partition that counts (0) and is compacted: the last record of a key holds.
A pause that a person ended stays, with `ended_ms`, until a later command clears it away: time on hold counts for no
deadline, also after a restart. A tombstone forgets it.

Readers ignore unknown fields and unknown keys: newer relays may add some (`version` stays). A change that an older
reader must not ignore raises `version`: the older reader cannot read the record then, says so, and leaves it alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PAUSE = "pause/"
MAX_REASON = 200
MAX_NAME = 200
MAX_MS = 253_402_300_799_000  # the end of the year 9999


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
