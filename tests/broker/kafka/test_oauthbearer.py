"""Tokens let every client in: OIDC's by librdkafka itself, and MSK's by our signer. Kafka's own validator judges them.

AWS is not asked: the signer gives the identity provider's tokens here, which MSK would not take. What AWS's signer
makes is held in tests/unit/kafka/test_msk.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from consumer.errors import KafkaUnreachableError
from consumer.kafka import clients, msk
from consumer.kafka.reaching import reached
from tests.support.broker import JVM, PROPERTIES, KafkaBroker, started
from tests.support.oidc import AUDIENCE, CLIENT, SECRET, IdentityProvider
from tests.support.waiting import PATIENCE_S, until

LIFE_S = 4.0  # of a token; the broker ends a connection that shows no new one by then
_ORG = "org.apache.kafka.common.security.oauthbearer"


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider(LIFE_S) as found:
        yield found


@pytest.fixture(scope="module")
def broker(provider: IdentityProvider) -> Iterator[KafkaBroker]:
    keys, listener = f"{provider.url}/keys", "listener.name.oauth"
    broker = KafkaBroker(
        {
            "listener.security.protocol.map": f"{PROPERTIES['listener.security.protocol.map']},OAUTH:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{listener}.oauthbearer.sasl.jaas.config": f"{_ORG}.OAuthBearerLoginModule required;",
            f"{listener}.oauthbearer.sasl.server.callback.handler.class": f"{_ORG}.OAuthBearerValidatorCallbackHandler",
            f"{listener}.oauthbearer.connections.max.reauth.ms": str(int(LIFE_S * 1000)),
            f"{listener}.sasl.oauthbearer.jwks.endpoint.url": keys,
            f"{listener}.sasl.oauthbearer.expected.audience": AUDIENCE,
        },
        jvm=(*JVM, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}"),
        listeners=("OAUTH",),
    )
    started(broker)
    yield broker
    broker.close()


@pytest.fixture
def oidc(broker: KafkaBroker, provider: IdentityProvider) -> dict[str, str | int | float | bool]:
    return {
        "bootstrap.servers": broker.address("OAUTH"),
        "group.id": "engage-relay",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": f"{provider.url}/token",
        "sasl.oauthbearer.client.id": CLIENT,
        "sasl.oauthbearer.client.secret": SECRET,
    }


@pytest.fixture
def by_signer(
    oidc: dict[str, str | int | float | bool], provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str | int | float | bool]:
    def sign(_: str) -> tuple[str, int]:
        token, expires = provider.token()
        return token, int(expires * 1000)

    signer = msk.Signer("eu-north-1", sign)
    monkeypatch.setattr(msk, "signer", lambda _: signer)
    kept = {name: oidc[name] for name in ("bootstrap.servers", "group.id", "security.protocol")}
    return {**kept, "sasl.mechanism": "AWS_MSK_IAM", "aws.region": "eu-north-1"}


def served(call: Callable[[], object]) -> bool:
    """Tell whether a client is served. It is not where the broker has just ended a session that a busy machine renewed
    too late: then it connects again, with the token that it has by now."""
    try:
        call()
    except KafkaException as error:
        if error.args[0].code() != KafkaError._TRANSPORT:
            raise
        return False
    return True


@pytest.mark.parametrize("way", ["oidc", "by_signer"])
def test_every_client_is_let_in_and_stays_in_with_new_tokens(
    way: str, request: pytest.FixtureRequest, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    properties = request.getfixturevalue(way)
    admin, _ = reached(properties, give_up_s=PATIENCE_S)
    producer = Producer(clients.producer(properties, f"transactions-{way}"), logger=clients.LOGGER)
    producer.init_transactions(PATIENCE_S)
    with (
        closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader,
        closing(Consumer(clients.member(properties), logger=clients.LOGGER)) as member,
    ):
        calls: tuple[Callable[[], object], ...] = (
            lambda: admin.list_topics(timeout=PATIENCE_S),
            lambda: producer.list_topics(timeout=PATIENCE_S),
            lambda: reader.list_topics(timeout=PATIENCE_S),
            lambda: member.list_topics(timeout=PATIENCE_S),
        )
        for call in calls:
            call()
        given, ends = len(provider.tokens), time.time() + LIFE_S
        until(lambda: time.time() > ends and len(provider.tokens) >= given + len(calls), "new tokens, unpolled")
        for call in calls:
            until(partial(served, call), "served with a new token")
    said = caplog.text
    assert SECRET not in said
    assert not [token for token in provider.tokens if token in said]


def test_a_wrong_secret_is_said_and_not_shown(oidc: dict[str, str | int | float | bool]) -> None:
    wrong = {**oidc, "sasl.oauthbearer.client.secret": "wrong-secret-that-must-never-be-shown"}
    with pytest.raises(KafkaUnreachableError, match="login: Failed to acquire SASL OAUTHBEARER token") as raised:
        reached(wrong, give_up_s=3)
    assert "never-be-shown" not in str(raised.value)


def test_a_provider_that_was_down_is_asked_again(
    oidc: dict[str, str | int | float | bool], provider: IdentityProvider
) -> None:
    said: list[str] = []

    def bring_up(text: str) -> None:
        said.append(text)
        provider.is_down = False

    provider.is_down = True
    admin, _ = reached(oidc, say=bring_up, give_up_s=PATIENCE_S)
    assert said
    assert admin.list_topics(timeout=PATIENCE_S).brokers
