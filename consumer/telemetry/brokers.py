"""What librdkafka says of its brokers, as metrics: STATISTICS.md of librdkafka, "brokers"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from consumer.telemetry.names import PREFIX

# librdkafka's counters per broker (STATISTICS.md, "brokers"): its name, ours, and what it says.
_BROKER_COUNTERS = (
    ("txerrs", "transmit_errors_total", "Requests that could not be sent."),
    ("rxerrs", "receive_errors_total", "Responses received with an error."),
    ("txretries", "request_retries_total", "Requests sent again."),
    ("req_timeouts", "request_timeouts_total", "Requests that timed out."),
    ("disconnects", "disconnects_total", "Connections that ended."),
)
# Its windows of round trips, in microseconds.
_BROKER_RTT = (
    ("p50", "rtt_median_seconds", "Round trip, median of the last window."),
    ("p99", "rtt_p99_seconds", "Round trip, 99th percentile of the last window."),
)
_MICROSECOND_S = 1e-6


@dataclass(frozen=True, slots=True)
class BrokerFigures:
    """What one client says of one broker: counters, and round trips in seconds, by librdkafka's names."""

    broker: str
    counters: dict[str, float]
    rtt_s: dict[str, float]


def broker_figures(statistics: Mapping[str, object]) -> list[BrokerFigures]:
    """Read the figures per broker; connections that share a label (several bootstrap servers) are one."""
    found: dict[str, BrokerFigures] = {}
    brokers = statistics.get("brokers")
    for broker in brokers.values() if isinstance(brokers, dict) else ():
        if not isinstance(broker, dict):
            continue
        label = _broker_label(broker)
        figures = found.setdefault(label, BrokerFigures(label, {}, {}))
        for key, _, _ in _BROKER_COUNTERS:
            figures.counters[key] = figures.counters.get(key, 0.0) + _number(broker, key)
        rtt = broker.get("rtt")
        if isinstance(rtt, dict) and _number(rtt, "cnt") > 0:  # a window without a round trip says nothing
            for key, _, _ in _BROKER_RTT:
                seconds = _number(rtt, key) * _MICROSECOND_S
                figures.rtt_s[key] = max(figures.rtt_s.get(key, 0.0), seconds)
    return list(found.values())


def _broker_label(broker: Mapping[str, object]) -> str:
    """Return the node id; the coordinator's connection is one of its own, beside that broker's."""
    if broker.get("source") == "logical":
        return "coordinator"
    node = broker.get("nodeid")
    return str(node) if isinstance(node, int) and node >= 0 else "bootstrap"


def _number(of: Mapping[str, object], key: str) -> float:
    value = of.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def broker_families(statistics: Mapping[str, list[BrokerFigures]]) -> Iterator[Metric]:
    """Return the metrics of every client's brokers."""
    labels = ["client", "broker"]
    for key, name, text in _BROKER_COUNTERS:
        counter = CounterMetricFamily(f"{PREFIX}librdkafka_broker_{name}", text, labels=labels)
        for client, brokers in statistics.items():
            for figures in brokers:
                counter.add_metric([client, figures.broker], figures.counters[key])
        yield counter
    for key, name, text in _BROKER_RTT:
        gauge = GaugeMetricFamily(f"{PREFIX}librdkafka_broker_{name}", text, labels=labels)
        for client, brokers in statistics.items():
            for figures in brokers:
                if key in figures.rtt_s:
                    gauge.add_metric([client, figures.broker], figures.rtt_s[key])
        yield gauge
