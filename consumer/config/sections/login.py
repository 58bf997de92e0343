"""Whether Kafka's properties for logging in fit together. librdkafka notices when a client is made, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from consumer.kafka import msk

Properties = Mapping[str, object]

_OAUTHBEARER = "sasl.oauthbearer"
_ASSERTIONS = ("assertion.file", "assertion.private.key.file", "assertion.private.key.pem")


def errors(properties: Properties) -> Iterator[tuple[str, str]]:
    """Yield the properties that are missing or do not fit, each with what to write."""
    mechanism = str(properties.get("sasl.mechanism", properties.get("sasl.mechanisms", ""))).upper()
    if not mechanism:
        return
    protocol = str(properties.get("security.protocol", "plaintext")).upper()
    if mechanism == msk.MECHANISM:
        yield from _msk(properties, protocol)
    elif mechanism == "OAUTHBEARER":
        if not protocol.startswith("SASL_"):
            yield "security.protocol", "must be SASL_SSL: without it nobody logs in"
        yield from _oauthbearer(properties)


def _msk(properties: Properties, protocol: str) -> Iterator[tuple[str, str]]:
    if protocol != "SASL_SSL":
        yield "security.protocol", f"must be SASL_SSL with {msk.MECHANISM}"
    if not msk.is_installed():
        yield "sasl.mechanism", f"{msk.MECHANISM}: {msk.MISSING}"
    if msk.region_of(properties) is None:
        yield msk.REGION, "is missing: the brokers' names do not tell one region (such as eu-north-1)"


def _oauthbearer(properties: Properties) -> Iterator[tuple[str, str]]:
    method = str(properties.get(f"{_OAUTHBEARER}.method", "default")).lower()
    if method != "oidc":
        if str(properties.get("enable.sasl.oauthbearer.unsecure.jwt", "")).lower() != "true":
            yield f"{_OAUTHBEARER}.method", f"must be oidc (for Amazon MSK's IAM: sasl.mechanism {msk.MECHANISM})"
        return
    if str(properties.get(f"{_OAUTHBEARER}.metadata.authentication.type", "none")).lower() != "none":
        return  # the machine it runs on vouches for it
    needed = [f"{_OAUTHBEARER}.token.endpoint.url"]
    if str(properties.get(f"{_OAUTHBEARER}.grant.type", "client_credentials")).endswith("jwt-bearer"):
        if not any(f"{_OAUTHBEARER}.{each}" in properties for each in _ASSERTIONS):
            yield f"{_OAUTHBEARER}.assertion.file", f"is missing, or one of {', '.join(_ASSERTIONS[1:])}"
    else:
        needed += [f"{_OAUTHBEARER}.client.id", f"{_OAUTHBEARER}.client.secret"]
    for name in needed:
        longer = name.replace(".client.", ".client.credentials.client.")  # librdkafka's other name for the same
        if not {name, longer, f"{name}.file"} & properties.keys():
            file = " (or its .file)" if name.endswith(".secret") else ""
            yield name, f"is missing{file}: sasl.oauthbearer.method=oidc needs it"
