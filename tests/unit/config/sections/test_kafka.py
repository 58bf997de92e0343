"""Any property of librdkafka is taken, and one that cannot be is refused with the reason."""

from __future__ import annotations

import pytest
import yaml

from consumer.config.loading import load
from tests.unit.config.workspace import THREE, Workspace


def kafka_error(relay: Workspace, line: str) -> str:
    """Load a good file with this line more under kafka; return the one error, without its place."""
    servers = {"KAFKA_BOOTSTRAP_SERVERS": ""} if line.startswith("bootstrap.servers") else {}  # the variable wins
    found = relay.errors(f"kafka:\n  {line}\n", {**THREE, **servers})
    assert len(found) == 1
    return found[0].removeprefix("relay.yaml:2:3 ")


def test_any_property_of_librdkafka_is_taken_under_its_own_name(relay: Workspace) -> None:
    written = {
        "bootstrap.servers": "a:9092,b:9092",
        "group.id": "g",
        "group.instance.id": "pod-0",
        "group.protocol": "classic",
        "transactional.id": "relay-0",
        "session.timeout.ms": 45000,
        "auto.offset.reset": "latest",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.password": "p",
        "linger.ms": 0.5,
        "socket.keepalive.enable": True,
        "enable.auto.commit": False,  # as the relay has it anyway
        "acks": "all",
    }

    assert relay.load(yaml.safe_dump({"kafka": written}), {**THREE, "KAFKA_BOOTSTRAP_SERVERS": ""}).kafka == written


@pytest.mark.parametrize(
    "servers",
    ["kafka", "a_b.c-d:1, b:65535,", "SASL_SSL://b1.example.com:9094", "10.0.0.5:9092", "[2001:db8::5]:9092", "::1"],
)
def test_every_address_that_librdkafka_takes_is_taken(relay: Workspace, servers: str) -> None:
    written = {"bootstrap.servers": servers}
    kafka = relay.load(yaml.safe_dump({"kafka": written}), {**THREE, "KAFKA_BOOTSTRAP_SERVERS": ""}).kafka
    assert kafka["bootstrap.servers"] == servers


def test_a_secret_of_kafka_may_be_in_a_file_that_loading_does_not_open(relay: Workspace) -> None:
    written = {
        "sasl.password.file": "/nowhere/password",
        "sasl.oauthbearer.client.secret.file": "/nowhere/client-secret",
        "ssl.key.password.file": "/nowhere/key-password",
        "ssl.keystore.password.file": "/nowhere/keystore-password",
    }

    assert relay.load(yaml.safe_dump({"kafka": written}), THREE).kafka.items() >= written.items()
    assert load(None, {**THREE, "ENGAGE_RELAY__KAFKA__SASL_PASSWORD_FILE": "/f"}).kafka["sasl.password.file"] == "/f"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("group.idd: x", "did you mean group.id?"),
        ("bootstrap_servers: x", "did you mean bootstrap.servers?"),
        ("error_cb: x", "unknown property"),
        ("logger: x", "unknown property"),
        ("default.topic.config: x", "librdkafka takes no such value here"),
        ("session.timeout.ms: 0", "must be a whole number from 1 to 3600000"),
        ("linger.ms: true", "librdkafka takes no such value here"),
        ("socket.keepalive.enable: maybe", "must be true or false"),
        ("group.id: ''", "must not be empty"),
        ("bootstrap.servers: ' , '", "must be host:port, or several"),
        ("bootstrap.servers: 'a:9092,b:kafka'", "must be host:port, or several"),
        ("bootstrap.servers: a:99999", "must be host:port, or several"),
        ("bootstrap.servers: a:0", "must be host:port, or several"),
        ("bootstrap.servers: 'a:9092 b:9092'", "must be host:port, or several"),
        ("bootstrap.servers: 'a:9092;b:9092'", "must be host:port, or several"),
        ("bootstrap.servers: 'https://a:9092/'", "must be host:port, or several"),
        ("metadata.broker.list: a:x", "must be host:port, or several"),
        ("sasl.username:", "must not be empty"),
        ("sasl.username: {a: b}", "must be text, a number, true or false"),
        ("sasl.password.file: ''", "must be the path of a file that holds the secret"),
        ("sasl.password.file: [x]", "must be the path of a file that holds the secret"),
        ("sasl.username.file: x", "unknown property"),
        ("enable.auto.commit: true", "must be false, or left out: offsets are committed in the delay topic's"),
        ("enable.auto.offset.store: true", "must be false, or left out"),
        ("enable.idempotence: false", "must be true, or left out: transactions need it"),
        ("isolation.level: read_uncommitted", "must be read_committed, or left out"),
        ("enable.partition.eof: false", "must be true, or left out"),
        ("acks: 1", "must be all or -1, or left out"),
        ("auto.offset.reset: none", "must be earliest or latest, or left out"),
    ],
)
def test_a_property_that_cannot_be_is_refused_with_the_reason(relay: Workspace, line: str, text: str) -> None:
    found = kafka_error(relay, line)

    assert found.startswith(f"kafka.{line.partition(':')[0]}: ")
    assert text in found


@pytest.mark.parametrize(
    ("lines", "place", "why"),
    [
        (
            "session.timeout.ms: 300001",
            "2:3 kafka.session.timeout.ms",
            "`max.poll.interval.ms` must be >= `session.timeout",
        ),
        (
            "max.poll.interval.ms: 45000\n  session.timeout.ms: 45001",
            "2:3 kafka.max.poll.interval.ms",
            "must be >= `session",
        ),
        (
            "group.protocol: consumer\n  heartbeat.interval.ms: 1000",
            "3:3 kafka.heartbeat.interval.ms",
            "`heartbeat.interval.ms` is not supported for `group.protocol=consumer`",
        ),
        ("fetch.max.bytes: 1000", "2:3 kafka.fetch.max.bytes", "`fetch.max.bytes` must be >= `message.max.bytes`"),
        (
            "reconnect.backoff.ms: 20000",
            "2:3 kafka.reconnect.backoff.ms",
            "`reconnect.backoff.max.ms` must be >= `reconn",
        ),
        ("message.timeout.ms: 10001", "2:3 kafka.message.timeout.ms", "must be set <= `transaction.timeout.ms`"),
        ("retries: 0", "2:3 kafka.retries", "`retries` must be set >= 1 when `enable.idempotence` is true"),
    ],
)
def test_properties_that_do_not_fit_together_are_refused_as_librdkafka_will(
    relay: Workspace, lines: str, place: str, why: str
) -> None:
    """It says so only of a client: the start took it for a broker's answer, and tried again for ever."""
    (error,) = relay.errors(f"kafka:\n  {lines}\n", THREE)
    assert error.startswith(f"relay.yaml:{place}: ")
    assert why in error


def test_what_a_client_would_read_open_or_load_is_not_asked_of_one(relay: Workspace) -> None:
    """No file of a login is read, no mock cluster started, no library loaded by checking a configuration."""
    written = {
        "security.protocol": "SSL",
        "ssl.ca.location": "/nowhere/ca.pem",
        "ssl.key.location": "/nowhere/key.pem",
        "test.mock.num.brokers": 3,
    }
    assert relay.load(yaml.safe_dump({"kafka": written}), THREE).kafka.items() >= written.items()
