"""What the relay reports is what a scrape shows, under names that Prometheus' own linter would pass."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from consumer.core.outcomes import Accepted, DocumentTaken, InDoubt, NotReady, Ready, SendOutcome, Throttled
from consumer.events.deciding import Ignoring
from consumer.telemetry.metrics import MAX_STARTED, Metrics, Thread
from consumer.telemetry.names import PREFIX
from consumer.telemetry.snapshot import ConnectionFigures, Snapshot
from schemas.dead_letter import Reason
from tests.unit.telemetry.scrapes import broker, series, value

ACTION = "ConfirmShipment"


def scraped(registry: CollectorRegistry) -> dict[str, Metric]:
    return {each.name: each for each in text_string_to_metric_families(generate_latest(registry).decode())}


def ours(registry: CollectorRegistry) -> list[Metric]:
    return [family for family in registry.collect() if not family.name.startswith(("process_", "python_"))]


# The rules of `promtool check metrics` (prometheus/client_golang, promlint).
TYPE_WORDS = {"counter", "gauge", "histogram", "summary", "metric"}
ABBREVIATED_UNITS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "m", "h", "d"}
NOT_BASE_UNITS = {"milliseconds", "microseconds", "minutes", "hours", "days", "kilobytes", "percent"}


def test_every_name_follows_prometheus_conventions(registry: CollectorRegistry, metrics: Metrics) -> None:
    for family in ours(registry):
        words = set(family.name.split("_"))
        assert re.fullmatch(r"engage_relay(_[a-z0-9]+)+", family.name)
        assert family.documentation.endswith(".")
        assert not words & (TYPE_WORDS | ABBREVIATED_UNITS | NOT_BASE_UNITS), family.name
        # The client takes the counters' suffix off and puts it on again; nothing else may have it.
        assert not family.name.endswith("_total"), family.name
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_info")), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds"), family.name
        if words & {"age", "duration", "lateness", "wait", "rtt"}:
            assert family.name.endswith("_seconds"), family.name
        if "share" in words:
            assert family.name.endswith("_ratio"), family.name


def test_no_series_tells_only_when_a_counter_was_made(registry: CollectorRegistry, metrics: Metrics) -> None:
    assert "_created" not in generate_latest(registry).decode()


def test_partitions_are_a_label_of_the_lag_alone(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.publish(Snapshot(partitions_owned=1, lag={("orders", 0): 1}))
    with_partition = {s.name for f in registry.collect() for s in f.samples if "partition" in s.labels}
    assert with_partition == {PREFIX + "consumer_lag_records"}


def test_a_first_scrape_names_every_metric_that_a_later_one_holds(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    first = set(scraped(registry))
    report_everything(metrics)
    assert set(scraped(registry)) == first


def report_everything(metrics: Metrics) -> None:
    metrics.events_consumed("orders", 3)
    metrics.routed("shipped", ACTION)
    metrics.field_dropped("shipped", "data")
    for why in get_args(Ignoring):
        metrics.ignored("orders", why)
    metrics.poll_answered("default", Ready("tag"))
    metrics.action_answered("default", ACTION, Accepted())
    metrics.accepted("default", ACTION, 12.0, 0.2)
    metrics.request("default", "action", "202", 0.1)
    metrics.limiter_waited("default", 0.02)
    metrics.poll_started("default", 0.03)
    metrics.dead_lettered(Reason.REJECTED)
    metrics.transaction_committed(0.01, 20)
    metrics.transaction_aborted()
    metrics.restored(100, 1.5)
    metrics.rebalanced("assigned")
    metrics.librdkafka_statistics("consumer", {"brokers": {"b:9092/1": broker(1, rtt={"cnt": 1, "p50": 5, "p99": 5})}})
    metrics.build_info("1.2.3")
    metrics.publish(Snapshot(lag={("orders", 0): 1}, connections={"default": ConnectionFigures()}))
    metrics.watch_heartbeats(lambda: {"consumer": 0.5})


def test_what_can_happen_regardless_of_the_configuration_starts_at_zero(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    for reason in Reason:
        assert value(registry, "dead_letters_total", reason=reason) == 0
    for kind in ("assigned", "revoked", "lost"):
        assert value(registry, "rebalances_total", kind=kind) == 0
    for name in ("transactions_aborted_total", "in_doubt_actions", "overdue_actions"):
        assert value(registry, name) == 0


def test_what_the_configuration_foretells_starts_at_zero(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.expect(topics=["orders"], connections=["default"], routes=[("shipped", ACTION)])
    before = generate_latest(registry).decode().count("\n")

    assert value(registry, "events_consumed_total", topic="orders") == 0
    assert value(registry, "actions_routed_total", route="shipped", action=ACTION) == 0
    assert value(registry, "actions_answered_total", connection="default", action=ACTION, outcome="in_doubt") == 0
    assert value(registry, "polls_answered_total", connection="default", outcome="not_ready") == 0
    assert len(series(registry, "actions_answered_total")) == len(get_args(SendOutcome))

    metrics.events_consumed("orders", 1)
    metrics.routed("shipped", ACTION)
    metrics.poll_answered("default", DocumentTaken(None))
    metrics.action_answered("default", ACTION, Accepted())
    metrics.accepted("default", ACTION, 1, 1)
    metrics.limiter_waited("default", 1)
    metrics.poll_started("default", 1)
    assert generate_latest(registry).decode().count("\n") == before


def test_of_many_connections_only_what_an_alert_misses_starts_at_zero(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    shops = [f"shop-{n}" for n in range(MAX_STARTED + 1)]
    metrics.expect(topics=["orders"], connections=shops, routes=[("shipped", ACTION)])

    assert value(registry, "actions_answered_total", connection="shop-7", action=ACTION, outcome="accepted") == 0
    of_one = [line for line in generate_latest(registry).decode().splitlines() if "shop-7" in line]
    assert len(of_one) == 1

    metrics.poll_answered("shop-7", DocumentTaken(None))
    assert value(registry, "polls_answered_total", connection="shop-7", outcome="document_taken") == 1


def test_each_fact_is_counted_under_its_labels(registry: CollectorRegistry, metrics: Metrics) -> None:
    report_everything(metrics)
    metrics.events_consumed("orders", 4)

    assert value(registry, "events_consumed_total", topic="orders") == 7
    assert value(registry, "events_unrouted_total", topic="orders") == 1
    assert value(registry, "tombstones_ignored_total", topic="orders") == 1
    assert value(registry, "foreign_redrives_ignored_total", topic="orders") == 1
    assert value(registry, "actions_routed_total", route="shipped", action=ACTION) == 1
    assert value(registry, "dead_letters_total", reason="rejected") == 1
    assert value(registry, "requests_total", connection="default", call="action", status="202") == 1
    assert value(registry, "request_duration_seconds_sum", connection="default", call="action") == pytest.approx(0.1)
    assert value(registry, "limiter_wait_seconds_sum", connection="default") == pytest.approx(0.02)
    assert value(registry, "due_lateness_seconds_sum", connection="default") == pytest.approx(0.03)
    assert value(registry, "transaction_duration_seconds_count") == 1
    assert value(registry, "transaction_records_total") == 20
    assert value(registry, "transactions_aborted_total") == 1
    assert value(registry, "restore_duration_seconds_sum") == 1.5
    assert value(registry, "restored_records_total") == 100
    assert value(registry, "rebalances_total", kind="assigned") == 1
    assert value(registry, "build_info", version="1.2.3") == 1


def test_an_outcome_is_named_after_its_class(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.poll_answered("default", NotReady())
    metrics.poll_answered("default", Throttled(3.0))
    metrics.action_answered("default", ACTION, InDoubt("read timeout"))
    assert series(registry, "polls_answered_total") == {("default", "not_ready"), ("default", "throttled")}
    assert series(registry, "actions_answered_total") == {("default", ACTION, "in_doubt")}


def test_an_event_from_yesterday_differs_from_one_of_an_hour_ago(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.accepted("default", ACTION, 3500, 0.2)
    metrics.accepted("default", ACTION, 80_000, 0.2)
    assert value(registry, "event_to_accepted_seconds_bucket", connection="default", action=ACTION, le="3600.0") == 1
    assert value(registry, "event_to_accepted_seconds_bucket", connection="default", action=ACTION, le="86400.0") == 2
    assert value(registry, "tag_ready_to_accepted_seconds_bucket", connection="default", le="0.25") == 2


def test_a_sender_whose_clock_is_ahead_does_not_make_a_sum_fall(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.accepted("default", ACTION, 10, 1)
    metrics.accepted("default", ACTION, -3600, -0.001)
    assert value(registry, "event_to_accepted_seconds_sum", connection="default", action=ACTION) == 10
    assert value(registry, "event_to_accepted_seconds_count", connection="default", action=ACTION) == 2


def test_statuses_that_nobody_registered_are_one_series(registry: CollectorRegistry, metrics: Metrics) -> None:
    for status in ("200", "timeout", "299", "799", "999"):
        metrics.request("default", "job", status, 0.1)
    assert {labels[-1] for labels in series(registry, "requests_total")} == {"200", "timeout", "other"}
    assert value(registry, "requests_total", connection="default", call="job", status="other") == 3


def test_a_heartbeat_grows_older_although_no_snapshot_comes(registry: CollectorRegistry, metrics: Metrics) -> None:
    age: dict[Thread, float] = {"event_loop": 1.0}
    metrics.watch_heartbeats(lambda: age)
    assert value(registry, "heartbeat_age_seconds", thread="event_loop") == 1
    age["event_loop"] = 40.0
    assert value(registry, "heartbeat_age_seconds", thread="event_loop") == 40
