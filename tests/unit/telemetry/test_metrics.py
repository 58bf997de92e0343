"""What the relay reports is what a scrape shows, under names that Prometheus' own linter would pass."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from consumer.core.outcomes import Accepted, DocumentTaken, InDoubt, NotReady, Ready, SendOutcome, Throttled
from consumer.core.poll_plan import Figures
from consumer.events.deciding import Ignoring
from consumer.telemetry.metrics import MAX_STARTED, PREFIX, ConnectionFigures, Metrics, Snapshot, Thread
from schemas.dead_letter import Reason

ACTION = "ConfirmShipment"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(PREFIX + name, labels)


def series(registry: CollectorRegistry, name: str) -> set[tuple[str, ...]]:
    """The label values of every series of a metric."""
    return {
        tuple(sample.labels.values())
        for family in registry.collect()
        for sample in family.samples
        if sample.name == PREFIX + name
    }


def scraped(registry: CollectorRegistry) -> dict[str, Metric]:
    return {each.name: each for each in text_string_to_metric_families(generate_latest(registry).decode())}


def broker(node: int, source: str = "learned", **figures: object) -> dict[str, object]:
    return {"nodeid": node, "source": source, "rtt": {"cnt": 0, "p50": 0, "p99": 0}, **figures}


# -- names ------------------------------------------------------------------------------------------------------


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


# -- from the first moment --------------------------------------------------------------------------------------


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


# -- facts ------------------------------------------------------------------------------------------------------


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


# -- states -----------------------------------------------------------------------------------------------------


def test_a_scrape_shows_the_last_snapshot(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.publish(Snapshot(overdue=99))
    metrics.publish(
        Snapshot(
            pending={"waiting": 5, "sending": 1},
            overdue=2,
            in_doubt=1,
            journal_backlog=7,
            paused=True,
            rate_limit_share=0.25,
            partitions_owned=3,
            lag={("orders", 0): 10},
            connections={"acme": ConnectionFigures(requests_per_second=12.25, suspended=True)},
        )
    )
    assert value(registry, "pending_actions", state="waiting") == 5
    assert value(registry, "pending_actions", state="sending") == 1
    assert value(registry, "overdue_actions") == 2
    assert value(registry, "in_doubt_actions") == 1
    assert value(registry, "journal_backlog_writes") == 7
    assert value(registry, "source_paused") == 1
    assert value(registry, "rate_limit_share_ratio") == 0.25
    assert value(registry, "partitions_owned") == 3
    assert value(registry, "consumer_lag_records", topic="orders", partition="0") == 10
    assert value(registry, "connection_suspended", connection="acme") == 1
    assert value(registry, "connection_cooling_down", connection="acme") == 0
    assert value(registry, "connection_requests_per_second", connection="acme") == 12.25


def test_what_was_learnt_of_a_connection_is_shown(registry: CollectorRegistry, metrics: Metrics) -> None:
    plan = Figures(median_s=2.0, p95_s=7.5, polls=2.25, lateness_s=0.75, seen_lateness_s=0.8, price=1.5)
    metrics.publish(Snapshot(connections={"acme": ConnectionFigures(plan=plan), "fixed": ConnectionFigures()}))
    assert value(registry, "processing_seconds", connection="acme", percentile="50") == 2.0
    assert value(registry, "processing_seconds", connection="acme", percentile="95") == 7.5
    assert value(registry, "planned_polls", connection="acme") == 2.25
    assert value(registry, "planned_lateness_seconds", connection="acme") == 0.75
    assert value(registry, "found_lateness_seconds", connection="acme") == 0.8
    assert value(registry, "planned_polls_per_late_second", connection="acme") == 1.5
    assert series(registry, "planned_polls") == {("acme",)}


def test_dead_letters_that_wait_are_shown_once_they_were_counted(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.publish(Snapshot())
    assert series(registry, "dead_letters_waiting") == set()
    metrics.dead_letters_waiting({"orders": 3, "returns": 0})
    metrics.publish(Snapshot())
    assert value(registry, "dead_letters_waiting", topic="orders") == 3
    assert value(registry, "dead_letters_waiting", topic="returns") == 0


def test_the_lag_of_a_revoked_partition_disappears(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.publish(Snapshot(lag={("orders", 0): 10, ("orders", 1): 20}))
    metrics.publish(Snapshot(lag={("orders", 1): 21}))
    assert series(registry, "consumer_lag_records") == {("orders", "1")}


def test_a_heartbeat_grows_older_although_no_snapshot_comes(registry: CollectorRegistry, metrics: Metrics) -> None:
    age: dict[Thread, float] = {"event_loop": 1.0}
    metrics.watch_heartbeats(lambda: age)
    assert value(registry, "heartbeat_age_seconds", thread="event_loop") == 1
    age["event_loop"] = 40.0
    assert value(registry, "heartbeat_age_seconds", thread="event_loop") == 40


# -- librdkafka -------------------------------------------------------------------------------------------------


def test_a_brokers_round_trip_is_in_seconds(registry: CollectorRegistry, metrics: Metrics) -> None:
    rtt = {"cnt": 9, "p50": 1500, "p99": 250_000}
    metrics.librdkafka_statistics("producer", {"brokers": {"b:9092/3": broker(3, rtt=rtt)}})
    labels = {"client": "producer", "broker": "3"}
    assert value(registry, "librdkafka_broker_rtt_median_seconds", **labels) == pytest.approx(0.0015)
    assert value(registry, "librdkafka_broker_rtt_p99_seconds", **labels) == pytest.approx(0.25)


def test_a_window_without_a_round_trip_is_not_a_fast_one(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.librdkafka_statistics("producer", {"brokers": {"b:9092/3": broker(3)}})
    assert series(registry, "librdkafka_broker_rtt_median_seconds") == set()


def test_bootstrap_servers_share_a_label_and_the_coordinator_has_its_own(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    statistics = {
        "brokers": {
            "a:9092/bootstrap": broker(-1, "configured", rxerrs=1),
            "b:9092/bootstrap": broker(-1, "configured", rxerrs=2),
            "b:9092/1": broker(1, rxerrs=4),
            "GroupCoordinator": broker(1, "logical", rxerrs=8),
        }
    }
    metrics.librdkafka_statistics("consumer", statistics)
    name = "librdkafka_broker_receive_errors_total"
    assert value(registry, name, client="consumer", broker="bootstrap") == 3
    assert value(registry, name, client="consumer", broker="1") == 4
    assert value(registry, name, client="consumer", broker="coordinator") == 8


@pytest.mark.parametrize("statistics", [{}, {"brokers": []}, {"brokers": {"x": 1}}, {"brokers": {"x": {"rtt": 1}}}])
def test_statistics_of_another_shape_do_no_harm(
    registry: CollectorRegistry, metrics: Metrics, statistics: dict[str, object]
) -> None:
    metrics.librdkafka_statistics("consumer", statistics)
    generate_latest(registry)
