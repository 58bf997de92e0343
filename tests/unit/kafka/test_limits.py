"""What a broker does not allow is told from what it may allow later."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from consumer.errors import ExitCode
from consumer.kafka.limits import beyond_limits


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        (KafkaError.INVALID_SESSION_TIMEOUT, "kafka.session.timeout.ms"),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, "kafka.transaction.timeout.ms"),
    ],
)
def test_a_time_that_the_broker_does_not_allow_is_an_error_of_the_configuration(code: int, setting: str) -> None:
    error = beyond_limits(KafkaError(code))
    assert error is not None
    assert error.exit_code is ExitCode.CONFIGURATION
    assert str(error).startswith(f"{setting}: the broker does not allow it")


@pytest.mark.parametrize("code", [KafkaError.GROUP_MAX_SIZE_REACHED, KafkaError._TIMED_OUT, KafkaError.NOT_COORDINATOR])
def test_what_may_come_right_ends_nothing(code: int) -> None:
    assert beyond_limits(KafkaError(code)) is None
