"""From a record to the decision: whose event it is."""

from __future__ import annotations

import pytest

from consumer.events.deciding import redriven_elsewhere
from schemas.dead_letter import REDRIVE_OF


@pytest.mark.parametrize(
    ("header", "ignored"),
    [
        (b"orders.engage.dead-letters/0/17", False),
        (b"orders.staging.dead-letters/0/17", True),
        (b"\xff/0/17", True),
        (b"orders.staging.dead-letters", False),  # whoever wrote it, it was no redrive
        (b"https://example.com/0/17", False),
        (b"", False),
        (None, False),
    ],
)
def test_what_another_relay_redrove_is_not_mailed_by_this_one(header: bytes | None, ignored: bool) -> None:
    headers = [("x", b"1"), (REDRIVE_OF, header)]
    assert redriven_elsewhere(headers, {"orders.engage.dead-letters"}) is ignored
    assert redriven_elsewhere([], {"orders.engage.dead-letters"}) is False
