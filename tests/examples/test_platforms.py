"""Each platform that the documentation promises routes for has them, with the variants that really come."""

from __future__ import annotations

import pytest

from tests.docs.documents import ROOT

PLATFORMS = (
    "bigcommerce",
    "centra",
    "commercetools",
    "debezium-outbox",
    "debezium-rows",
    "magento",
    "medusa",
    "norce",
    "saleor",
    "scayle",
    "shopify",
    "woocommerce",
)
MIN_VARIANTS = 5


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_has_at_least_five_different_events(platform: str) -> None:
    events = (ROOT / "examples" / "06-platforms" / platform / "events.jsonl").read_text().splitlines()
    assert len(set(events)) >= MIN_VARIANTS


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_has_an_event_with_a_null_and_one_with_an_empty_text(platform: str) -> None:
    text = (ROOT / "examples" / "06-platforms" / platform / "events.jsonl").read_text().replace("\\", "")  # in a text
    assert ": null" in text
    assert ': ""' in text
