"""Which librdkafka properties a user may write. librdkafka itself is asked, and nothing is connected to.

Of each property alone it says what it thinks of it before it makes a client. Whether they fit together, it says only of
a client: so one of each kind is made that knows no broker, and nothing of a login.

kafka/clients.py is the authority on which property goes to which client and what is set whatever the user writes.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import libversion as librdkafka_version

from consumer.kafka import clients, msk

_OFFSETS = "offsets are committed in the delay topic's transactions"
# What kafka/clients.py sets anyway: the same value is welcome, another would be ignored in silence.
_INSISTED: dict[str, tuple[tuple[str, ...], str]] = {
    "enable.auto.commit": (("false",), _OFFSETS),
    "enable.auto.offset.store": (("false",), _OFFSETS),
    "enable.idempotence": (("true",), "transactions need it"),
    "enable.partition.eof": (("true",), "the end of a partition tells that nothing is left to read"),
    "partition.assignment.strategy": (("cooperative-sticky",), "partitions are taken and given one by one"),
    "isolation.level": (("read_committed",), "an assignment is restored from settled offsets"),
    "acks": (("all", "-1"), "transactions need it"),
    "request.required.acks": (("all", "-1"), "transactions need it"),
    "auto.offset.reset": (("earliest", "latest"), "it says where a topic that is new to the group starts"),
}
# Secrets in a file, which clients.py reads for each client: librdkafka itself takes them as text only.
_SECRET_FILES = frozenset(
    f"{name}.file"
    for name in ("sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.password", "ssl.keystore.password")
)
# What must not be shown. A certificate is none, but it is long.
_SECRET = re.compile(r"password|passphrase|secret|\.pem$|jaas|token|oauthbearer\.config")
# For "did you mean" alone: librdkafka has no list that Python can ask for.
_WELL_KNOWN = re.findall(
    r"\S+",
    """
    bootstrap.servers group.id client.id client.rack client.dns.lookup debug group.instance.id group.protocol
    transactional.id transaction.timeout.ms session.timeout.ms heartbeat.interval.ms max.poll.interval.ms
    partition.assignment.strategy group.remote.assignor security.protocol sasl.mechanism sasl.mechanisms sasl.username
    sasl.password sasl.oauthbearer.method sasl.oauthbearer.client.id sasl.oauthbearer.client.secret
    sasl.oauthbearer.scope sasl.oauthbearer.extensions sasl.oauthbearer.token.endpoint.url sasl.kerberos.service.name
    sasl.kerberos.principal sasl.kerberos.keytab ssl.ca.location ssl.ca.pem ssl.certificate.location
    ssl.certificate.pem ssl.key.location ssl.key.pem ssl.key.password ssl.keystore.location ssl.keystore.password
    ssl.endpoint.identification.algorithm ssl.cipher.suites enable.ssl.certificate.verification compression.type
    linger.ms batch.size message.max.bytes fetch.max.bytes fetch.min.bytes fetch.wait.max.ms max.partition.fetch.bytes
    queued.max.messages.kbytes queued.min.messages receive.message.max.bytes socket.timeout.ms socket.keepalive.enable
    socket.connection.setup.timeout.ms connections.max.idle.ms reconnect.backoff.ms reconnect.backoff.max.ms
    retry.backoff.ms metadata.max.age.ms topic.metadata.refresh.interval.ms broker.address.family
    statistics.interval.ms allow.auto.create.topics log.connection.close aws.region
    """,
)
# librdkafka takes a client's properties in their order and stops at the first that it doesn't know: at this one,
# always. So none is ever made, and nothing is connected to.
_STOP = "engage-relay.stop"
# What a client that is made on trial knows nothing of: brokers and logins, real ones and those of a mock cluster, and
# libraries that it would load.
_OF_CONNECTIONS = (
    *("bootstrap.", "metadata.broker.list", "security.", "sasl.", "ssl.", "https.", "enable.ssl", "enable.sasl"),
    *("aws.", "test.", "plugin.", "debug"),
)
_SILENT = logging.getLogger("librdkafka.trial")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def is_secret(name: str) -> bool:
    """Tell whether a property's value must not be shown."""
    return _SECRET.search(name) is not None and not name.endswith((".file", ".url"))


def error(name: str, value: object) -> str | None:
    """Say what is wrong with a property, without its value; None where nothing is."""
    accepted, reason = _INSISTED.get(name, ((), ""))
    if accepted and str(value).lower() not in accepted:
        return f"must be {' or '.join(accepted)}, or left out: {reason}"
    if value is None or (value == "" and name in ("bootstrap.servers", "group.id")):
        return "must not be empty"
    if name in ("bootstrap.servers", "metadata.broker.list"):
        return _not_addresses(str(value))
    if name in _SECRET_FILES:
        return None if isinstance(value, str) and value else "must be the path of a file that holds the secret"
    if name == msk.REGION:
        known = isinstance(value, str) and re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", value)
        return None if known else "must be a region of AWS, such as eu-north-1"
    if not isinstance(value, str | int | float):
        return "must be text, a number, true or false"
    return _in_our_words(name, _said_by_librdkafka(name, value))


def misfits(properties: clients.Properties) -> Iterator[tuple[str, str]]:
    """Yield what does not fit together: a property that was written, and what librdkafka says of it and others."""
    alone = {name: value for name, value in properties.items() if not name.startswith(_OF_CONNECTIONS)}
    found: dict[str, str] = {}  # by what is said: two clients may say the same
    makes: tuple[Callable[[], Consumer | Producer], ...] = (
        lambda: Consumer(clients.member(alone), logger=_SILENT),
        lambda: Consumer(clients.reader(alone), logger=_SILENT),
        lambda: Producer(clients.producer(alone, "engage-relay"), logger=_SILENT),
    )
    for make in makes:
        try:
            client = make()
            if isinstance(client, Consumer):
                client.close()
        except KafkaException as error:
            _, _, why = clients.error_of(error).str().partition(": ")  # behind "Failed to create consumer"
            why = why.replace("`must", "` must")
            named = re.findall(r"`([a-z.]+)", why) or ["group.id"]
            found[why] = next((name for name in named if name in alone), named[0])
    yield from ((name, why) for why, name in found.items())


def _not_addresses(value: str) -> str | None:
    """Say what is wrong with the brokers' addresses. librdkafka takes any text, and then looks for them for ever."""
    addresses = [each.strip() for each in value.split(",") if each.strip()]
    if addresses and all(map(_is_address, addresses)):
        return None
    return "must be host:port, or several of them with commas, such as broker-1:9092,broker-2:9092"


def _is_address(text: str) -> bool:
    if re.fullmatch(r"[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}", text):  # IPv6 without brackets: it has no port
        return True
    found = re.fullmatch(r"([A-Za-z_]+://)?([^\s:/\[\]]+|\[[0-9A-Fa-f:.%]+\])(:(?P<port>[0-9]{1,5}))?", text)
    return found is not None and 0 < int(found["port"] or "9092") < 65536


def _said_by_librdkafka(name: str, value: str | float) -> str:
    if not re.fullmatch(r"[a-z0-9.]+", name) or name == "logger":  # others are confluent-kafka's hooks for code
        return "No such configuration property"
    try:
        Producer({name: value, _STOP: ""})
    except KafkaException as error:
        return clients.error_of(error).str()
    except (TypeError, ValueError, AttributeError):  # a hook for code, or text that C cannot hold
        pass
    return ""


def _in_our_words(name: str, said: str) -> str | None:
    """Tell what librdkafka says of a property; its own words may hold the value."""
    if f'"{_STOP}"' in said:
        return None
    if "No such configuration property" in said:
        text = f"unknown property (librdkafka {librdkafka_version()[0]})"
        nearest = difflib.get_close_matches(name.lower(), [*_WELL_KNOWN, *_INSISTED], n=1, cutoff=0.7)
        return f"{text}, did you mean {nearest[0]}?" if nearest else text
    if span := re.search(r"allowed range (-?[0-9]+)\.\.(-?[0-9]+)", said):
        return f"must be a whole number from {span[1]} to {span[2]}"
    return "must be true or false" if "Expected bool" in said else "librdkafka takes no such value here"
