"""Which of the user's librdkafka properties go to which client, and what the relay insists on.

Four kinds of client: the *member* (the source's consumer, in the group), *readers* (consumers without a membership:
restore, listings), the *producer* (transactional, see journal.py) and the *admin* client.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message

from consumer import logs
from consumer.kafka import msk
from consumer.kafka.throttling import READERS

Properties = Mapping[str, str | int | float | bool]
Config = dict[str, str | int | float | bool]

# Properties of a membership or of the start: a reader that kept them would join, be fenced, or jump.
_MEMBERSHIP = frozenset(
    {
        "auto.offset.reset",
        "group.instance.id",
        "group.protocol",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
        "session.timeout.ms",
        "transactional.id",
        "transaction.timeout.ms",
    }
)

DEFAULT_SESSION_MS = 45_000  # librdkafka's own
TRANSACTION_MS = 10_000  # ours

LOGGER = logging.getLogger("librdkafka")

# Another producer has taken the transactional id.
FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})

FAILURE_RETRY_S = 10.0


class _OnlyNews(logging.Filter):
    """Drop what is no news.

    librdkafka notes that one shared set of properties holds some for the other kind of client, and each client tells
    of each attempt to reach a broker that is away: dozens of lines a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed_at = -FAILURE_RETRY_S

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is worth a line."""
        text = record.getMessage()
        if not text.startswith("FAIL "):
            return "CONFWARN" not in text
        is_news = record.created - self._failed_at >= FAILURE_RETRY_S
        if is_news:
            self._failed_at = record.created
        return is_news


LOGGER.addFilter(_OnlyNews())


_IN_A_FILE = ".file"  # ends no property of librdkafka's; kafka_properties.py says which may have it


def session_s(properties: Properties) -> float:
    """Return the member's session time-out in seconds, as `session.timeout.ms` or librdkafka's default says."""
    return float(properties.get("session.timeout.ms", DEFAULT_SESSION_MS)) / 1000


def transaction_s(properties: Properties) -> float:
    """Return for how many seconds the journal's transactions may be open, as `transaction.timeout.ms` says."""
    return float(properties.get("transaction.timeout.ms", TRANSACTION_MS)) / 1000


def _with_secrets(kafka: Properties) -> Config:
    """Read the secrets that files hold; one written as well wins. Raises KafkaException where one cannot be read."""
    read: Config = {}
    for name, path in kafka.items():
        if name.endswith(_IN_A_FILE):
            try:
                secret = Path(str(path)).read_text("utf-8-sig").rstrip("\r\n")
            except (OSError, ValueError) as error:
                why = (error.strerror if isinstance(error, OSError) else None) or "not text"
                raise exception(KafkaError(KafkaError._INVALID_ARG, why), name) from None
            logs.redact(secret)
            read[name.removesuffix(_IN_A_FILE)] = secret
    return {**read, **{name: value for name, value in kafka.items() if not name.endswith(_IN_A_FILE)}}


def base(kafka: Properties) -> Config:
    """What every client has: connection, security, tuning. Pass `LOGGER` to each as well."""
    return {name: value for name, value in _with_defaults(kafka).items() if name not in _MEMBERSHIP}


def _with_login(kafka: Properties) -> Config:
    """Put a signer in the place of MSK's mechanism, which librdkafka has not."""
    region = msk.region_of(kafka)
    names = [name for name in ("sasl.mechanism", "sasl.mechanisms") if str(kafka.get(name)).upper() == msk.MECHANISM]
    others = {name: value for name, value in _with_secrets(kafka).items() if name not in (*names, msk.REGION)}
    if not names or region is None:
        return others
    # confluent-kafka's types know no hook for code among an AdminClient's properties. It takes one.
    return cast("Config", {**others, "sasl.mechanism": "OAUTHBEARER", "oauth_cb": msk.signer(region)})


def _with_defaults(kafka: Properties) -> Config:
    return {
        # A broker that hangs is asked for as long, and by whoever it coordinates (default: a minute, several in a row).
        "socket.timeout.ms": 10_000,
        **_with_login(kafka),
    }


def reader(kafka: Properties) -> Config:
    """Return a consumer without a membership: reads settled records only, never moves a group's offset by itself."""
    config = {
        "group.id": "engage-relay",
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": 16 * 1024,  # 48 MiB less,
        "fetch.queue.backoff.ms": 20,  # and a restore takes no longer: librdkafka waits a second where that is full
        **base(kafka),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "throttle_cb": READERS.note,
    }
    return cast("Config", config)  # confluent-kafka's types know no hooks for code


def member(kafka: Properties) -> Config:
    """Return the source's consumer: cooperative, read_committed, and an error instead of a silent offset reset."""
    cooperative: Config = (
        {} if kafka.get("group.protocol") == "consumer" else {"partition.assignment.strategy": "cooperative-sticky"}
    )
    return {
        "group.id": "engage-relay",
        "fetch.wait.max.ms": 100,
        # What waits in the client is read again after a rebalance: little is enough to keep one relay busy.
        "queued.min.messages": 2000,
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.queue.backoff.ms": 100,  # librdkafka waits a second where that is there, and it is read in less
        "statistics.interval.ms": 5000,
        **cooperative,
        **{name: value for name, value in _with_defaults(kafka).items() if not name.startswith("transaction")},
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        # Behind the last record may be a transaction's marker, an aborted record or a gap. Only the end tells.
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }


def producer(kafka: Properties, transactional_id: str) -> Config:
    """Return the journal's producer."""
    own = {name: kafka[name] for name in ("transaction.timeout.ms",) if name in kafka}
    return {
        "transaction.timeout.ms": TRANSACTION_MS,
        # librdkafka waits this long between transactions in quick succession (default 100 ms).
        "retry.backoff.ms": 5,
        "linger.ms": 1,
        "compression.type": "lz4",
        # A pending record is its event plus the routed action; librdkafka's own limit is 1 MB.
        "message.max.bytes": 8 * 1024 * 1024,
        # librdkafka has requests to brokers time out just before the transaction, and refuses a longer one.
        **{name: value for name, value in base(kafka).items() if name != "socket.timeout.ms"},
        **own,
        # Once the group's coordinator has left the cluster's metadata, as with every restart,
        # `send_offsets_to_transaction` hangs (librdkafka issues 5456, 5511) until that broker is forgotten, three of
        # these intervals later,
        "topic.metadata.refresh.interval.ms": 500,
        # and any other connection comes or goes: the transaction coordinator's, which is idle then, and opened again
        "connections.max.idle.ms": 5000,
        # (at once, where the last time was longer ago than this; sooner, the waits before it double).
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        # For so long a new producer takes a topic that is unknown for one that was just made (default 30 s), and keeps
        # its records. A deleted one would hold up what is written with it for all of a transaction's time.
        "topic.metadata.propagation.max.ms": 1000,
        "transactional.id": transactional_id,
        "enable.idempotence": True,
    }


def exception(error: KafkaError, what: str) -> KafkaException:
    """Return the exception that says what the error is about."""
    return KafkaException(KafkaError(error.code(), f"{what}: {error.str()}"))


def error_of(exception: KafkaException) -> KafkaError:
    """Return the KafkaError inside an exception of confluent-kafka."""
    error = exception.args[0]
    assert isinstance(error, KafkaError)  # noqa: S101 - confluent-kafka's contract, narrowed for the type checker
    return error


def raw(value: str | bytes | None) -> bytes | None:
    """Return a record's key or value as the bytes that it is."""
    return value.encode() if isinstance(value, str) else value


def headers_of(record: Message) -> list[tuple[str, bytes | None]]:
    """Return a record's headers, in their order."""
    try:
        headers = record.headers() or []
    except UnicodeDecodeError:
        # confluent-kafka cannot show a header whose name is not UTF-8, nor any beside it. The record itself is whole.
        return []
    return [(name, raw(value)) for name, value in (headers.items() if isinstance(headers, dict) else headers)]
