"""A registry, and the metrics that it holds."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from consumer.telemetry.metrics import Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)
