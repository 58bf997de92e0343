"""What a scrape shows, for the tests of metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from consumer.telemetry.names import PREFIX


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


def broker(node: int, source: str = "learned", **figures: object) -> dict[str, object]:
    return {"nodeid": node, "source": source, "rtt": {"cnt": 0, "p50": 0, "p99": 0}, **figures}
