"""A time that the configuration asks for and the broker does not allow. No retry helps; the operator acts. Pure."""

from __future__ import annotations

from confluent_kafka import KafkaError

from consumer.errors import ConfigurationError

_SETTINGS = {
    KafkaError.INVALID_SESSION_TIMEOUT: (
        "session.timeout.ms",
        "less than its group.min.session.timeout.ms or more than its group.max.session.timeout.ms",
    ),
    KafkaError.INVALID_TRANSACTION_TIMEOUT: (
        "transaction.timeout.ms",
        "more than its transaction.max.timeout.ms",
    ),
}


def beyond_limits(error: KafkaError) -> ConfigurationError | None:
    """Return which setting the broker does not allow; None: the error says nothing of the kind."""
    if (found := _SETTINGS.get(error.code())) is None:
        return None
    name, limits = found
    return ConfigurationError((f"kafka.{name}: the broker does not allow it; it is {limits}",))
