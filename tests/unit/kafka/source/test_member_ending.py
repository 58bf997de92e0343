"""How a consumer leaves the group, and what ends it, where a broker is not needed to show it."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from consumer.errors import ConsumerFailedError
from consumer.kafka.facts import ClientError, Fact, Failed
from consumer.kafka.source.membership import Membership


def member_of(facts: list[Fact]) -> Membership:
    return Membership(
        ["orders"],
        facts.append,
        clock=lambda: 0.0,
        wait=lambda *_: True,
        beat=lambda: None,
        confirm=lambda: None,
        incarnations={"orders": 0},
    )


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
    membership = member_of(facts)
    membership.leave(cast("Consumer", Closing(error)))
    assert facts == [ClientError(f"leaving the group: {type(error).__name__}")]


class FatalRecord:
    """What `poll` returns, as seen with confluent-kafka 2.16."""

    def topic(self) -> None: ...
    def partition(self) -> None: ...
    def error(self) -> KafkaError:
        return KafkaError(KafkaError._FATAL, "the broker does not take this member")


@pytest.mark.parametrize("fatal", [False, True])
def test_a_fatal_error_is_one_by_its_code_whatever_its_flag_says(fatal: bool) -> None:
    facts: list[Fact] = []
    membership = member_of(facts)
    record = FatalRecord()
    error = KafkaError(KafkaError._FATAL, "the broker does not take this member", fatal)
    membership._on_record_error(record, error)  # type: ignore[arg-type]
    (fact,) = facts
    assert isinstance(fact, Failed)
    assert isinstance(fact.error, ConsumerFailedError)
