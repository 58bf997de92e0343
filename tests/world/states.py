"""The rare states that some thousands of schedules must reach: one that is never reached is a gap in the world."""

from __future__ import annotations

from tests.world.engage import ACTION_TROUBLE, POLL_TROUBLE
from tests.world.world import FAIL_POINTS, FAULTS

TO_BE_REACHED = (
    *(f"fault: {fault}" for fault in dict.fromkeys(FAULTS)),
    *(f"crash there: {where}" for where in FAIL_POINTS),
    *(f"freeze there: {where}" for where in FAIL_POINTS),
    *(f"crash in the midst of: {thread}" for thread in ("journal", "source", "restore", "other")),
    *(f"{call}: {fate}" for call in ("init", "flush", "offsets", "commit") for fate in ("lost", "answer lost")),
    "commit: late",
    "commit: echo",
    "a delayed commit arrived",
    "a delayed commit was fenced",
    "a delayed request committed another transaction",
    "records of a transaction that were written in part",
    "a record's offset stayed unknown",
    "a record was too large",
    "a transaction was aborted",
    "a commit's outcome was unknown",
    "a producer was fenced",
    "offsets were refused: ILLEGAL_GENERATION",
    "offsets were refused: UNKNOWN_MEMBER_ID",
    "offsets were refused: _FENCED",
    "the journal dropped what was no longer owned",
    "an old record pinned the mark",
    "compacted",
    "a restore met an open transaction",
    "a restore knew no offset of orders",
    "a restore knew no offset of orders.delay",
    "offsets were undecided when asked for",
    "a seek came too early for the client",
    "a generation was negative while partitions were owned",
    "a member was given up for dead, and came back",
    "a hand-over overran its time",
    "records were deleted unread",
    "an offset is out of range while it consumes",
    "a process ended for an offset that is out of range",
    "the source was held",
    "the source went on",
    "an action was withdrawn",
    "an action in doubt was sent again",
    "an action was accepted twice, in doubt",
    *(f"poll: {trouble}" for trouble in POLL_TROUBLE),
    *(f"action: {trouble}" for trouble in ACTION_TROUBLE if trouble != "refused"),
    *(
        f"dead letter: {reason}"
        for reason in (
            "undecodable", "invalid_event", "rejected", "poll_rejected", "job_failed", "not_found", "deadline",
            "stale_tag", "outcome_unknown", "too_large",
        )
    ),
)  # fmt: skip
