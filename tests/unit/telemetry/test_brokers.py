"""What librdkafka says of its brokers is shown for each of them, in seconds and counts."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from consumer.telemetry.metrics import Metrics
from tests.unit.telemetry.scrapes import broker, series, value


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
