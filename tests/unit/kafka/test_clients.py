"""Which of the user's properties a client is made with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from consumer.kafka import clients
from consumer.kafka.clients import Config, Properties

CLIENTS: list[Callable[[Properties], Config]] = [
    clients.base,
    clients.reader,
    clients.member,
    lambda properties: clients.producer(properties, "relay-0"),
]


@pytest.mark.parametrize("made", CLIENTS)
def test_every_client_gets_a_secret_that_is_in_a_file(made: Callable[[Properties], Config], tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret-of-kafka\n")

    properties = made({"bootstrap.servers": "kafka:9092", "sasl.password.file": str(file)})

    assert properties["sasl.password"] == "s3cret-of-kafka"
    assert "sasl.password.file" not in properties

    file.write_text("rotated-of-kafka")
    assert made({"sasl.password.file": str(file)})["sasl.password"] == "rotated-of-kafka"


def test_a_secret_is_utf_8_whatever_the_systems_locale_is(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p\u00e4ssword\n", "utf-8")
    program = f"""
from consumer.kafka import clients
print(ascii(clients.base({{"sasl.password.file": {str(file)!r}}})["sasl.password"]))"""
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    said = subprocess.check_output([sys.executable, "-c", program], env=environ)

    assert said.strip() == rb"'p\xe4ssword'"


def test_a_byte_order_mark_before_a_secret_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p\u00e4ssword\r\n", "utf-8-sig")

    assert clients.base({"sasl.password.file": str(file)})["sasl.password"] == "p\u00e4ssword"


def test_a_secret_that_is_written_wins_over_one_in_a_file(tmp_path: Path) -> None:
    nowhere = tmp_path / "password"
    nowhere.write_text("in-the-file")

    for given in ({"sasl.password": "w", "sasl.password.file": str(nowhere)}, {"sasl.password": "w"}):
        assert clients.base(given)["sasl.password"] == "w"


def test_a_secret_that_cannot_be_read_is_named_without_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(KafkaException) as missing:
        clients.base({"sasl.password.file": str(tmp_path / "nowhere")})
    assert clients.error_of(missing.value).str() == "sasl.password.file: No such file or directory"

    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(KafkaException, match=r"sasl\.password\.file: not text"):
        clients.base({"sasl.password.file": str(tmp_path / "binary")})


@pytest.mark.parametrize(
    "properties",
    [
        {"transaction.timeout.ms": 1500, "socket.timeout.ms": 60_000},
        {"reconnect.backoff.ms": 5000, "reconnect.backoff.max.ms": 20_000},
        {"connections.max.idle.ms": 540_000, "topic.metadata.refresh.interval.ms": 300_000},
    ],
)
def test_what_librdkafka_takes_for_the_source_is_no_problem_for_the_journal(properties: Properties) -> None:
    Producer(clients.producer(properties, "relay-0"))
    Consumer(clients.member(properties))


def test_the_journals_connections_are_opened_at_once_after_they_were_idle() -> None:
    """librdkafka waits ever longer before connections that it opens again within reconnect.backoff.max.ms."""
    config = clients.producer({"reconnect.backoff.max.ms": 10_000}, "relay-0")
    min_idle = int(str(config["connections.max.idle.ms"])) - 2000  # librdkafka's jitter

    assert int(str(config["reconnect.backoff.max.ms"])) * 2 < min_idle  # counted from the end of the last wait
