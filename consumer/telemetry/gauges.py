"""A snapshot as gauges: what a scrape says of the state of things."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric

from consumer.core.poll_plan import Figures as PollFigures
from consumer.core.progress import StallReason
from consumer.telemetry.names import PREFIX
from consumer.telemetry.snapshot import Snapshot


def gauge(name: str, text: str, label: str = "", values: Iterable[tuple[str, float]] = ()) -> GaugeMetricFamily:
    """Return a gauge with a series for each value of its label, or with one where it has none."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label] if label else [])
    for value_of_label, value in values:
        family.add_metric([value_of_label] if label else [], value)
    return family


def snapshot_families(snapshot: Snapshot) -> Iterator[Metric]:
    """Return the gauges of a snapshot."""
    for name, text, value in (
        ("overdue_actions", "Polls and actions that are due and could not leave yet.", snapshot.overdue),
        ("in_doubt_actions", "Open actions that Engage may have processed already.", snapshot.in_doubt),
        (
            "pending_limit_actions",
            "How many open actions an instance holds in memory: limits.pending.",
            snapshot.max_pending,
        ),
        ("journal_backlog_writes", "Writes that wait for a transaction.", snapshot.journal_backlog),
        (
            "source_paused",
            "1 while the source is paused: too much waits for the journal, or is parked.",
            snapshot.paused,
        ),
        (
            "rate_limit_share_ratio",
            "This instance's share of every connection's rate limit, 0 to 1.",
            snapshot.rate_limit_share,
        ),
        ("partitions_owned", "Source partitions that this instance owns.", snapshot.partitions_owned),
        (
            "oldest_pending_age_seconds",
            "How long ago the event of the oldest open action was read; 0 where none is open.",
            snapshot.oldest_pending_age_s,
        ),
    ):
        yield gauge(name, text, values=[("", value)])
    yield gauge("pending_actions", "Open actions by state.", "state", snapshot.pending.items())
    apart = GaugeMetricFamily(
        PREFIX + "partitions_set_apart",
        "1 for a source partition that cannot be served, while the others are.",
        labels=["topic", "partition", "reason"],
    )
    for (topic, number), each in snapshot.partitions.items():
        if each.apart is not None:
            apart.add_metric([topic, str(number), each.apart], 1)
    yield apart
    yield gauge(
        "refused_dead_letters", "Dead letters that wait in the delay topic: their topic refuses them.", "topic",
        ((topic, count) for topic, (count, _) in snapshot.refused_dead_letters.items()),
    )  # fmt: skip
    yield gauge(
        "pauses",
        "Pauses that are on, by mode (hold, discard): what they cover is not sent.",
        "mode",
        ((mode, sum(each.discard is (mode == "discard") for each in snapshot.pauses)) for mode in ("hold", "discard")),
    )
    yield gauge(
        "control_records_unreadable",
        "Records of the control topic that this version cannot read, and ignores.",
        values=[("", snapshot.control_unreadable)],
    )
    yield gauge(
        "requests_open",
        "Requests about single actions that no instance has answered yet. Each instance tells of all.",
        values=[("", snapshot.requests_open)],
    )
    yield gauge(
        "topics_unfit",
        "1 for a topic that does not fit: it is missing, or it would lose or refuse records.",
        "topic",
        ((topic, 1) for topic in snapshot.topics_unfit),
    )
    yield gauge(
        "dead_letters_waiting",
        "Dead letters that wait for a redrive, of the owned partitions; absent while nobody counted them.",
        "topic",
        snapshot.dead_letters_waiting.items(),
    )

    stalled = Counted(each.reason for each in snapshot.stalled.values())
    yield gauge(
        "stalled_partitions",
        "Owned partitions with a lag of which nothing was read or settled for 5 minutes, by reason; for"
        " registry and unknown_schema: at once.",
        "reason",
        ((reason, stalled[reason]) for reason in get_args(StallReason)),
    )

    connections = snapshot.connections.items()
    yield gauge(
        "connection_suspended", "1 while Engage refuses the API key (401, 403): an operator must act.", "connection",
        ((name, each.suspended) for name, each in connections),
    )  # fmt: skip
    yield gauge(
        "connection_cooling_down", "1 while the connection is in cooldown after failures or a 429.", "connection",
        ((name, each.cooling_down) for name, each in connections),
    )  # fmt: skip
    yield gauge(
        "parked_actions", "Open actions that are in the delay topic alone, and wait for room in memory.", "connection",
        ((name, each.parked) for name, each in connections),
    )  # fmt: skip
    yield gauge(
        "parked_bytes", "Bytes of the records of parked actions.", "connection",
        ((name, each.parked_bytes) for name, each in connections),
    )  # fmt: skip
    yield gauge(
        "connection_requests_per_second", "How many requests per second this instance may send now.", "connection",
        ((name, each.requests_per_second) for name, each in connections),
    )  # fmt: skip

    yield from _plan_families([(name, each.plan) for name, each in connections if each.plan is not None])

    lag = GaugeMetricFamily(
        PREFIX + "consumer_lag_records",
        "Lag: records of the source that the relay has not read.",
        labels=["topic", "partition"],
    )
    for (topic, partition), records in snapshot.lag.items():
        lag.add_metric([topic, str(partition)], records)
    yield lag


def _plan_families(plans: Sequence[tuple[str, PollFigures]]) -> Iterator[Metric]:
    processing = GaugeMetricFamily(
        PREFIX + "processing_seconds",
        "How long Engage takes until an order's tag is there, as the relay learnt it.",
        labels=["connection", "percentile"],
    )
    for name, each in plans:
        processing.add_metric([name, "50"], each.median_s)
        processing.add_metric([name, "95"], each.p95_s)
    yield processing
    yield gauge(
        "planned_polls", "How many polls an action is expected to take.", "connection",
        ((name, each.polls) for name, each in plans),
    )  # fmt: skip
    yield gauge(
        "planned_lateness_seconds", "How late a tag is expected to be found.", "connection",
        ((name, each.lateness_s) for name, each in plans),
    )  # fmt: skip
    yield gauge(
        "found_lateness_seconds", "How late tags were found of late, estimated.", "connection",
        ((name, each.seen_lateness_s) for name, each in plans if each.seen_lateness_s is not None),
    )  # fmt: skip
    yield gauge(
        "planned_polls_per_late_second", "What a second of lateness is worth at present, in polls.", "connection",
        ((name, each.price) for name, each in plans),
    )  # fmt: skip
