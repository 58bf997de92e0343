"""The consumer's part in the group, where a broker is not needed to show it."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from consumer.kafka.facts import ClientError, Fact
from consumer.kafka.source.membership import Membership


class Closing:
    """A consumer that fails while it closes."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def close(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        SystemError("returned a result with an exception set"),
        RuntimeError("Consumer closed"),
        KafkaException(KafkaError(KafkaError._STATE)),
    ],
)
def test_a_stop_is_no_failure_where_a_callback_fails_while_the_client_closes(error: Exception) -> None:
    """Partitions that are lost just then are called back for: what was owned has been handed over before."""
    facts: list[Fact] = []
    membership = Membership(
        ["orders"],
        facts.append,
        clock=lambda: 0.0,
        wait=lambda *_: True,
        beat=lambda: None,
        confirm=lambda: None,
        incarnations={"orders": 0},
    )
    membership.leave(cast("Consumer", Closing(error)))
    assert facts == [ClientError(f"leaving the group: {type(error).__name__}")]
