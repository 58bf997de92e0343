"""A refused login ends the relay only where its file holds another one by now."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import KafkaError

from consumer.kafka.login_files import LoginFiles

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "b:1: SASL authentication error")


def test_a_refused_login_counts_once_its_file_changed(tmp_path: Path) -> None:
    password, authority = tmp_path / "password", tmp_path / "ca.pem"
    password.write_text("former")
    authority.write_text("unchanged")
    kafka = {"sasl.password.file": str(password), "ssl.ca.location": str(authority), "sasl.username": "relay"}
    login = LoginFiles(kafka)
    assert login.outdated_by(REFUSED) == []

    password.write_text("new")
    assert login.outdated_by(REFUSED) == ["sasl.password.file"]
    assert login.outdated_by(KafkaError(KafkaError._TRANSPORT, "b:1: connection refused")) == []
    alert = "b:1: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42"
    assert login.outdated_by(KafkaError(KafkaError._TRANSPORT, alert)) == ["sasl.password.file"]
    assert LoginFiles(kafka).outdated_by(REFUSED) == [], "whoever starts then has the new one"


def test_a_file_that_is_away_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    """As while a secret is replaced; a directory of authorities cannot be compared either."""
    password = tmp_path / "password"
    password.write_text("former")
    login = LoginFiles({"sasl.password.file": str(password), "ssl.ca.location": str(tmp_path)})
    password.unlink()
    assert login.outdated_by(REFUSED) == []
