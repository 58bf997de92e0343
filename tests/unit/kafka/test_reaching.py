"""Why no broker answers is told by address, in words that an operator can act on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError

from consumer.errors import ConfigurationError, KafkaUnreachableError
from consumer.kafka.reaching import LOG_INTERVAL_S, MAX_CAUSE, Causes, Waiting, cause_of, reached


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            "b:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)",
            ("b:9", "connection refused"),
        ),
        (
            "localhost:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT,"
            " 11 identical error(s) suppressed)",
            ("localhost:9", "connection refused"),
        ),
        (
            "kafka:9092/1: Failed to resolve 'kafka:9092': Name or service not known (after 5ms in state CONNECT)",
            ("kafka:9092", "unknown host (Name or service not known)"),
        ),
        (
            "ssl://[::1]:9093/bootstrap: SSL handshake failed: wrong version number (after 1ms in state SSL_HANDSHAKE)",
            ("[::1]:9093", "SSL handshake failed: wrong version number"),
        ),
        (
            "sasl_ssl://b-1.acme:9096/bootstrap: SASL authentication error: Authentication failed (after 3ms in state "
            "AUTH_REQ)",
            ("b-1.acme:9096", "SASL authentication error: Authentication failed"),
        ),
        (
            "b:9092/-1: Connection setup timed out in state CONNECT (after 30029ms in state CONNECT)",
            ("b:9092", "Connection setup timed out in state CONNECT"),
        ),
        ("1/1 brokers are down", None),
        ("", None),
    ],
)
def test_what_librdkafka_says_of_a_connection(said: str, cause: tuple[str, str] | None) -> None:
    assert cause_of(said) == cause


def test_a_cause_is_short_and_the_last_one_of_an_address_counts() -> None:
    causes = Causes()
    causes.note(KafkaError(KafkaError._SSL, f"b:1/bootstrap: {'x' * 1000}"))
    assert len(str(causes)) == MAX_CAUSE + len("b:1: ")
    causes.note(KafkaError(KafkaError._TRANSPORT, "b:1/bootstrap: gone"))
    causes.note(KafkaError(KafkaError._TRANSPORT, "a:1/bootstrap: away"))
    assert str(causes) == "a:1: away; b:1: gone"


def test_a_port_where_nobody_listens_is_told_and_given_up() -> None:
    said: list[str] = []
    with pytest.raises(KafkaUnreachableError, match=r"^Kafka does not answer at 127\.0\.0\.1:1: connection refused$"):
        reached({"bootstrap.servers": "127.0.0.1:1"}, say=said.append, give_up_s=1.1)
    assert set(said) <= {"waiting for Kafka at 127.0.0.1:1: connection refused"}


def test_it_is_told_again_and_again_until_somebody_stops_it() -> None:
    said: list[str] = []
    reached({"bootstrap.servers": "127.0.0.1:1"}, say=said.append, stopped=lambda: len(said) == 1)
    assert said == ["waiting for Kafka at 127.0.0.1:1: connection refused"]


def test_properties_that_do_not_fit_are_no_broker_that_is_away() -> None:
    with pytest.raises(ConfigurationError, match=r"^kafka: ssl\.ca\.location failed"):
        reached({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "ssl", "ssl.ca.location": "/nowhere"})


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []

    class Log:
        warning: Callable[[str], None] = lines.append
        info: Callable[[str], None] = lines.append

    monkeypatch.setattr("consumer.kafka.reaching._LOG", Log)
    return lines


def test_a_cause_is_logged_where_it_is_new_or_lasts(warned: list[str]) -> None:
    now = 0.0
    waiting = Waiting(lambda: now)
    for text in ("refused", "refused", "unknown", "refused"):
        waiting.say(text)
    assert warned == ["refused", "unknown", "refused"]
    assert waiting.text == "refused"
    now += LOG_INTERVAL_S
    waiting.say("refused")
    assert len(warned) == 4
    waiting.over()
    assert warned[-1] == "Kafka answers"


def test_a_start_that_never_waited_says_nothing(warned: list[str]) -> None:
    Waiting().over()
    assert warned == []
