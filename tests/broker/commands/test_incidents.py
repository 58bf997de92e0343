"""The two likeliest incidents, in a real Prometheus: orders never get ready, events are not routed. And what is none.

A minute is a second here (test_monitoring.py).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumer.commands.cli import app
from tests.broker.commands.test_monitoring import monitored, orders
from tests.deploy.prometheus import Prometheus
from tests.support.events import event, order_id, publish
from tests.support.relay_process import configuration, written
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

pytestmark = pytest.mark.long

PATIENCE_S = 180.0


def fired(prometheus: Prometheus) -> set[str]:
    """Return the names of the alerts that fired since the first scrape. Before it, no relay was ever seen."""
    series = prometheus.query('max_over_time(ALERTS{alertstate="firing",alertname!="EngageRelayNeverSeen"}[10m])')
    return {str(each["metric"]["alertname"]) for each in series}  # type: ignore[index]


def count(prometheus: Prometheus, series: str) -> float:
    """Return how often a series was scraped, all of its kind together."""
    found = prometheus.query(f"sum(count_over_time({series}[10m]))")
    return float(found[0]["value"][1]) if found else 0.0  # type: ignore[index]


def test_orders_that_never_get_ready_are_told_although_engage_answers_and_nothing_is_overdue(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=2)
    with monitored(sandbox, tmp_path, stuck=1.0) as (_, _, prometheus):
        until(lambda: count(prometheus, "engage_relay_pending_actions"), "Prometheus knows the relay")
        told = {"EngageRelayOldPending", "EngageRelayNothingAccepted"}
        batches = itertools.count()

        def is_told_while_more_come() -> bool:
            batch = next(batches)
            orders(sandbox, range(batch * 3, batch * 3 + 3))
            return told <= prometheus.firing().keys()

        until(is_told_while_more_come, "both alerts fire", PATIENCE_S)
        assert fired(prometheus) == told


def test_events_that_no_route_takes_are_told(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes(partitions=2)
    with monitored(sandbox, tmp_path) as (_, _, prometheus):
        until(lambda: count(prometheus, "engage_relay_events_consumed_total"), "Prometheus knows the relay")
        publish(sandbox, [(order_id(n), event(order_id(n), kind="order.shiped")) for n in range(100)])
        until(lambda: "EngageRelayUnrouted" in prometheus.firing(), "the alert fires", PATIENCE_S)
        assert fired(prometheus) == {"EngageRelayUnrouted"}


def test_a_redrive_on_an_idle_topic_is_no_incident(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    """Its transaction's marker lies behind the last event, and was taken for an event that nobody reads."""
    sandbox = sandboxes(partitions=2)
    with monitored(sandbox, tmp_path) as (engage, relay, prometheus):
        publish(sandbox, [(order_id(1), b"not JSON")])
        until(lambda: relay.metric("dead_letters_total") == 1, "it is a dead letter")
        config = written(tmp_path, configuration(sandbox, engage.url), "operator")
        redrive = ["dead-letters", "redrive", "--all", "--to-source", "--yes", "--config", str(config)]
        redriven = CliRunner().invoke(app, redrive)
        assert redriven.exit_code == 0, redriven.output
        until(lambda: relay.metric("dead_letters_total") == 2, "the redriven event was read")
        # No progress for 10 minutes, and an increase over 5: twice that, by what Prometheus scrapes of both partitions.
        before = count(prometheus, "engage_relay_consumer_lag_records")
        until(lambda: count(prometheus, "engage_relay_consumer_lag_records") >= before + 2 * 30, "half an hour goes by")
        assert relay.metric("consumer_lag_records") == 0
        assert fired(prometheus) <= {"EngageRelayDeadLetters", "EngageRelayDeadLettersWaiting"}
