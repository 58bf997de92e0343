"""Moments, from seconds since 1970: whatever a record says, it is one that can be written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_S = 250_000_000_000.0  # in the year 9892: a record of the delay topic may say anything


def moment_at(seconds: float) -> datetime:
    """Return the moment, to the millisecond."""
    return EPOCH + timedelta(milliseconds=round(min(max(seconds, 0.0), LATEST_S) * 1000))


def moment_or_none(seconds: float | None) -> datetime | None:
    """Return the moment, to the millisecond; None where there is none, or it never comes."""
    return None if seconds is None or seconds == inf else moment_at(seconds)


def minute(seconds: float) -> str:
    """Write the moment, to the minute."""
    return moment_at(seconds).strftime("%Y-%m-%d %H:%M UTC")
