"""For `status --all`: every instance as a row (admin/fleet.py asks them)."""

from __future__ import annotations

from consumer.admin.fleet import Instance
from consumer.admin.status import connections_in_brief, duration, now_of, number

COLUMNS = (
    "instance",
    "state",
    "version",
    "group",
    "cluster",
    "partitions",
    "pending",
    "oldest",
    "lag",
    "connections",
    "address",
)
OPTIONAL = ("cluster", "address", "group", "version", "lag", "oldest")  # that a narrow terminal does without


def row(instance: Instance) -> dict[str, object]:
    """Return an instance's row."""
    status = instance.status
    if status is None:
        return {**dict.fromkeys(COLUMNS, ""), "state": "no answer", "address": instance.address}
    oldest = status.pending.oldest
    return {
        "instance": status.instance,
        "state": status.state,
        "version": status.version,
        "group": status.group,
        "cluster": status.cluster,
        "partitions": len(status.partitions),
        "pending": number(status.pending.open),
        "oldest": None if oldest is None else duration((now_of(status) - oldest).total_seconds()),
        "lag": number(status.source.lag),
        "connections": connections_in_brief(status),
        "address": instance.address,
    }
