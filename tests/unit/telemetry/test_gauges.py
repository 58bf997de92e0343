"""A scrape shows the last snapshot, and nothing of the one before."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from consumer.core.poll_plan import Figures
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.snapshot import ConnectionFigures, Snapshot
from tests.unit.telemetry.scrapes import series, value


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


def test_a_topic_that_does_not_fit_is_shown_until_it_does(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.topics_unfit({"orders.engage.delay": ["it deletes"]})
    metrics.publish(Snapshot())
    assert value(registry, "topics_unfit", topic="orders.engage.delay") == 1
    metrics.topics_unfit({})
    metrics.publish(Snapshot())
    assert series(registry, "topics_unfit") == set()


def test_the_lag_of_a_revoked_partition_disappears(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.publish(Snapshot(lag={("orders", 0): 10, ("orders", 1): 20}))
    metrics.publish(Snapshot(lag={("orders", 1): 21}))
    assert series(registry, "consumer_lag_records") == {("orders", "1")}
