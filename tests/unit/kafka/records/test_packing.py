"""A payload reads the same however it is kept in memory."""

from __future__ import annotations

from consumer.kafka.records.payloads import (
    read_payload,
)
from consumer.kafka.records.pending import new_action
from tests.unit.kafka.records.samples import event, routed


def test_actions_read_the_same_however_many_came_since() -> None:
    given = [{"number": number, "text": "x" * (number % 100) * 100} for number in range(1500)]
    payloads = [new_action(routed(each), event()).payload for each in given]
    for _ in range(2):
        assert [read_payload(each).data for each in payloads] == given
