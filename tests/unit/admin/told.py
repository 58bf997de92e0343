"""A status at noon, for the tests of what it says."""

from __future__ import annotations

from datetime import UTC, datetime

from consumer.admin.status import status_of
from consumer.admin.status_model import Status
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import Snapshot

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
NOW = NOON.timestamp()


def told(
    snapshot: Snapshot, flow: Flow | None = None, age_s: float | None = 0.4, joined: bool = True, draining: bool = False
) -> Status:
    published = (snapshot, flow or Flow(started=NOW - 60))
    return status_of(published, version="1", age_s=age_s, joined=joined, draining=draining)
