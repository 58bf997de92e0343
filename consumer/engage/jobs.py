"""A job's status: which words mean that it is done, and which that it never will be."""

from __future__ import annotations

import re

from consumer.engage.bodies import JsonObject, field_of

# Docs name only "Completed" and "an error when it can't be processed"; public clients know CompletedWithErrors and
# Failed as well. A word counts by how it begins (the first two), or as one of those in use elsewhere.
COMPLETED_BEGINS = ("complete",)
FAILED_BEGINS = ("fail", "error")
COMPLETED_STATUSES = frozenset({"succeeded", "success", "done", "finished", "processed"})
FAILED_STATUSES = frozenset({"faulted", "rejected", "cancelled", "canceled", "aborted"})
MAX_STATUS_CHARACTERS = 32
_WORD = re.compile(rf"[0-9a-z_-]{{1,{MAX_STATUS_CHARACTERS}}}")


def is_completed(status: str | None) -> bool:
    """Tell whether a job of this status (lower case) is done."""
    return status is not None and (status in COMPLETED_STATUSES or status.startswith(COMPLETED_BEGINS))


def is_failed(status: str | None) -> bool:
    """Tell whether a job of this status (lower case) will never be done."""
    return status is not None and (status in FAILED_STATUSES or status.startswith(FAILED_BEGINS))


def status_of(job: JsonObject) -> str | None:
    """Return a job's status, in lower case; None where it has none. What is no text is a word of no known meaning."""
    status = field_of(job, "status")
    return None if status is None else str(status).strip().lower()


def word_of(status: str | None) -> str | None:
    """Return a status that may be shown: one word, as it came from outside; None for one that says nothing."""
    if not status:
        return None
    return status if _WORD.fullmatch(status) else "other"
