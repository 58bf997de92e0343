"""Tokens for MSK: what librdkafka gets while AWS answers and while it does not, and what is said of it."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from consumer.kafka import clients, msk
from consumer.kafka.reaching import NoTokenError, watched
from tests.support.waiting import until

KAFKA = {
    "bootstrap.servers": "b-1.shop.abc123.c2.kafka.eu-north-1.amazonaws.com:9098",
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "AWS_MSK_IAM",
    "group.id": "engage-relay",
}
TOKEN = "token-that-must-never-be-logged"


class NoCredentialsError(Exception):
    """Named as AWS's SDK names it; its text holds what must not be shown."""


class Aws:
    """What signs: a token of 900 s, or a failure."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fails: Exception | None = None
        self.signed = 0

    def sign(self, region: str) -> tuple[str, int]:
        if self.fails is not None:
            raise self.fails
        self.signed += 1
        return f"{TOKEN} {self.signed} of {region}", int((self.now + 900) * 1000)

    def signer(self) -> msk.Signer:
        return msk.Signer("eu-north-1", self.sign, lambda: self.now)


def test_a_token_is_given_with_its_end_in_seconds() -> None:
    assert Aws().signer()() == (f"{TOKEN} 1 of eu-north-1", 1900.0)


def test_while_aws_does_not_answer_the_last_token_serves_as_long_as_it_is_valid() -> None:
    aws = Aws()
    signer = aws.signer()
    signer()
    aws.fails = TimeoutError(TOKEN)
    with structlog.testing.capture_logs() as logs:
        aws.now += 720
        assert signer() == (f"{TOKEN} 1 of eu-north-1", 1900.0)
        aws.now += 170
        with pytest.raises(msk.TokenError, match="AWS cannot be reached"):
            signer()
        aws.fails = None
        assert signer() == (f"{TOKEN} 2 of eu-north-1", aws.now + 900)
    said = [line.get("why", line["event"]) for line in logs]
    why = "no token for MSK in eu-north-1: AWS cannot be reached for credentials (TimeoutError)"
    assert said == [why, why, "AWS signs tokens for MSK again"]
    assert TOKEN not in str(logs)
    assert signer.failure is None


def test_a_failure_that_stays_is_said_once_a_minute() -> None:
    aws = Aws()
    aws.fails = TimeoutError()
    signer = aws.signer()
    with structlog.testing.capture_logs() as logs:
        for _ in range(7):
            with pytest.raises(msk.TokenError):
                signer()
            aws.now += 10
    assert len(logs) == 2


def test_a_failure_names_who_has_to_act_and_no_secret() -> None:
    aws = Aws()
    aws.fails = NoCredentialsError(TOKEN)
    with pytest.raises(msk.TokenError) as raised:
        aws.signer()()
    assert str(raised.value) == (
        "no token for MSK in eu-north-1: AWS's SDK finds no credentials: give the pod a role, or set AWS_ACCESS_KEY_ID"
        " (NoCredentialsError)"
    )
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("properties", "region"),
    [
        ({"aws.region": "eu-west-1"}, "eu-west-1"),
        ({"bootstrap.servers": KAFKA["bootstrap.servers"]}, "eu-north-1"),
        ({"bootstrap.servers": "boot-x.c1.kafka-serverless.us-gov-west-1.amazonaws.com:9098"}, "us-gov-west-1"),
        ({"bootstrap.servers": KAFKA["bootstrap.servers"], "aws.region": "us-east-1"}, "us-east-1"),
        ({"bootstrap.servers": "b.kafka.eu-west-1.amazonaws.com:1,b.kafka.eu-west-2.amazonaws.com:1"}, None),
        ({"bootstrap.servers": "localhost:9092"}, None),
        ({}, None),
    ],
)
def test_the_region_is_the_brokers_unless_it_is_named(properties: dict[str, object], region: str | None) -> None:
    assert msk.region_of(properties) == region


def test_awss_own_signer_makes_a_token_of_its_form_without_asking_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-a-test")
    msk.signer.cache_clear()
    token, expires = msk.signer("eu-north-1")()
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    asked = parse_qs(url.query)
    assert (url.hostname, asked["Action"]) == ("kafka.eu-north-1.amazonaws.com", ["kafka-cluster:Connect"])
    assert asked["X-Amz-Credential"][0].startswith("AKIDEXAMPLE/")
    assert 800 < expires - time.time() <= 900
    assert "a-secret-of-a-test" not in token


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> Aws:
    """AWS in the place of its SDK, for clients that are made as the relay makes them."""
    aws = Aws()
    made = msk.Signer("eu-north-1", aws.sign)
    monkeypatch.setattr(msk, "signer", lambda _: made)
    return aws


@pytest.mark.parametrize("kind", ["member", "reader", "producer", "admin"])
def test_every_client_gets_tokens_on_a_thread_of_its_own_and_again_before_they_end(signing: Aws, kind: str) -> None:
    threads: list[int] = []
    made = signing.sign

    def short(region: str) -> tuple[str, int]:
        threads.append(threading.get_ident())
        token, _ = made(region)
        return token, int((time.time() + 2) * 1000)

    signer = clients.base(KAFKA)["oauth_cb"]
    assert isinstance(signer, msk.Signer)
    signer._sign = short
    properties = {**KAFKA, "bootstrap.servers": "b.kafka.eu-north-1.amazonaws.com.localhost:1"}
    kinds: dict[str, Callable[[], object]] = {
        "member": lambda: Consumer(clients.member(properties), logger=clients.LOGGER),
        "reader": lambda: Consumer(clients.reader(properties), logger=clients.LOGGER),
        "producer": lambda: Producer(clients.producer(properties, "t"), logger=clients.LOGGER),
        "admin": lambda: AdminClient(clients.base(properties), logger=clients.LOGGER),
    }
    client = kinds[kind]()
    until(lambda: len(threads) >= 2, "a second token, though nobody polls")
    assert threading.get_ident() not in threads
    if isinstance(client, Consumer):
        client.close()


@pytest.mark.slow  # confluent-kafka waits for a token for 10 s
def test_without_a_token_a_client_is_made_later_and_the_reason_is_said(signing: Aws) -> None:
    signing.fails = NoCredentialsError(TOKEN)
    with pytest.raises(NoTokenError, match="give the pod a role") as raised:
        watched(KAFKA)
    assert TOKEN not in str(raised.value)
    assert KafkaError.SASL_AUTHENTICATION_FAILED == 58  # what `watched` tells it by
