"""Properties for logging in that do not fit together are named before a client is made."""

from __future__ import annotations

import pytest

from consumer.config.sections import login

OIDC = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "OAUTHBEARER",
    "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.token.endpoint.url": "https://login.example.com/token",
    "sasl.oauthbearer.client.id": "engage-relay",
    "sasl.oauthbearer.client.secret": "s",
}
MSK = {
    "bootstrap.servers": "b-1.shop.abc123.c2.kafka.eu-north-1.amazonaws.com:9098",
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "AWS_MSK_IAM",
}
JWT = {
    "sasl.oauthbearer.grant.type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "sasl.oauthbearer.client.id": None,
    "sasl.oauthbearer.client.secret": None,
}


def named(properties: dict[str, object]) -> list[str]:
    return [name for name, _ in login.errors({key: value for key, value in properties.items() if value is not None})]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"sasl.oauthbearer.client.secret": None, "sasl.oauthbearer.client.secret.file": "/run/secrets/x"},
        {"sasl.oauthbearer.client.id": None, "sasl.oauthbearer.client.credentials.client.id": "engage-relay"},
        {**JWT, "sasl.oauthbearer.assertion.file": "/run/secrets/assertion.jwt"},
        {**JWT, "sasl.oauthbearer.assertion.private.key.file": "/run/secrets/key.pem"},
        {"sasl.mechanism": None, "sasl.mechanisms": "OAUTHBEARER"},
        {"sasl.oauthbearer.method": None, "enable.sasl.oauthbearer.unsecure.jwt": True},
    ],
)
def test_what_is_whole_is_taken(changed: dict[str, object]) -> None:
    assert named({**OIDC, **changed}) == []


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"security.protocol": None}, ["security.protocol"]),
        ({"security.protocol": "SSL"}, ["security.protocol"]),
        ({"sasl.oauthbearer.method": None}, ["sasl.oauthbearer.method"]),
        ({"sasl.oauthbearer.token.endpoint.url": None}, ["sasl.oauthbearer.token.endpoint.url"]),
        ({"sasl.oauthbearer.client.id": None}, ["sasl.oauthbearer.client.id"]),
        ({"sasl.oauthbearer.client.secret": None}, ["sasl.oauthbearer.client.secret"]),
        (JWT, ["sasl.oauthbearer.assertion.file"]),
        ({"sasl.mechanism": None, "sasl.mechanisms": "OAUTHBEARER", "security.protocol": None}, ["security.protocol"]),
    ],
)
def test_what_oidc_lacks_is_named(changed: dict[str, object], missing: list[str]) -> None:
    assert named({**OIDC, **changed}) == missing


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, []),
        ({"sasl.mechanism": "aws_msk_iam"}, []),
        ({"security.protocol": "SASL_PLAINTEXT"}, ["security.protocol"]),
        ({"bootstrap.servers": "kafka.internal:9098"}, ["aws.region"]),
        ({"bootstrap.servers": "kafka.internal:9098", "aws.region": "eu-north-1"}, []),
    ],
)
def test_what_msk_lacks_is_named(changed: dict[str, object], wrong: list[str]) -> None:
    assert named({**MSK, **changed}) == wrong


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.kafka.msk.is_installed", lambda: False)
    assert list(login.errors(MSK)) == [
        ("sasl.mechanism", "AWS_MSK_IAM: its signer is not installed: pip install 'engage-relay[msk]'")
    ]


def test_other_mechanisms_are_left_to_librdkafka() -> None:
    assert named({"sasl.mechanism": "PLAIN"}) == []
    assert named({"security.protocol": "SSL"}) == []
