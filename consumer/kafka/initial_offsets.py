"""EDGE. Where a source topic starts when the relay meets it for the first time.

Rules:
 1. A relay *starts* a topic once: it writes a position record for each of its partitions, all in one transaction. So
    a topic is started if partition 0 of its delay topic holds a settled record. (Any record is not enough: an aborted
    transaction leaves records behind that nobody can read.)
 2. In a started topic, a partition without any position was added later. It starts at its beginning.
 3. In a topic that was not started, a partition is known if the group has committed an offset of it (another consumer
    did, or the delay topic was lost). For partitions that are unknown and hold records the operator decides
    (`run --from`), never the relay: starting at the beginning would send all e-mails again, starting at the end would
    lose the events that wait. That the group knows another partition says nothing about these.
 4. A decision is fenced. It is written under one transactional id for the group, and that id is taken before the
    look at the topics. An instance that takes the id later fences the earlier one, whose look is out of date by
    then. So an instance that was frozen in between writes nothing, and looks again.
 5. An instance that has nothing to decide takes no transactional id: an ordinary start disturbs no other instance.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from consumer.errors import StartRefusedError
from consumer.kafka import clients
from consumer.kafka.records import position_value
from consumer.kafka.scan import StalledError, records_between
from consumer.kafka.topics import (
    CALL_TIMEOUT_S,
    RelayTopics,
    Watermarks,
    committed_offsets,
    partition_counts,
    watermarks,
)
from schemas.pending_action import POSITION_KEY

Start = Literal["earliest", "latest"]

GLANCE_S = 2.0  # to find a settled record after which no transaction is open; it takes milliseconds as a rule
ATTEMPTS = 10  # each one fails only because another instance decides the same, within one transaction
FENCED_RETRY_S = 0.2
_WORDS: Mapping[Start, str] = {"earliest": "beginning", "latest": "end"}


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What is known of where a topic continues.

    `committed` and `marks` are by partition; both are empty if it `started`.
    """

    topics: RelayTopics
    started: bool
    committed: Mapping[int, int]
    marks: Mapping[int, Watermarks]

    @property
    def undecided(self) -> dict[int, int]:
        """How many records each unknown partition holds."""
        return {n: high - low for n, (low, high) in self.marks.items() if n not in self.committed}

    @property
    def unread(self) -> int:
        """How many records the undecided partitions hold."""
        return sum(self.undecided.values())

    @property
    def in_parts(self) -> bool:
        """Whether the group knows some partitions, and not all."""
        return 0 < len(self.undecided) < len(self.marks)

    def refusal(self, group: object) -> str:
        """Say what the operator has to decide about."""
        text = f"{self.topics.source} holds {self.unread} records that this group has never read"
        if not self.in_parts:
            return text
        where = ", ".join(f"{count} in partition {n}" for n, count in self.undecided.items() if count)
        return f"{text}: {where} (group {group} has offsets of the other partitions)"

    def decision(self, start: Start | None) -> str:
        """Say where it starts."""
        word = _WORDS[start or "latest"]
        if not self.in_parts:
            return f"{self.topics.source} starts at the {word}"
        partitions = ", ".join(map(str, self.undecided))
        return (
            f"{self.topics.source} continues where the group was, and starts at the {word} in partitions {partitions}"
        )

    def positions(self, start: Start | None) -> dict[int, int]:
        """Return where each partition continues."""
        begin = {n: low if start == "earliest" else high for n, (low, high) in self.marks.items()}
        return {**begin, **self.committed}


def beginnings(reader: Consumer, admin: AdminClient, topics: RelayTopics) -> Beginnings:
    """Look where a topic continues. Raises KafkaException where the broker does not answer."""
    if is_started(reader, admin, topics.delay):
        return Beginnings(topics, True, {}, {})
    source = [(topics.source, n) for n in range(partition_counts(admin, (topics.source,)).get(topics.source, 0))]
    committed = {n: offset for (_, n), offset in committed_offsets(reader, source).items()}
    return Beginnings(topics, False, committed, {n: marks for (_, n), marks in watermarks(admin, source).items()})


def is_started(reader: Consumer, admin: AdminClient, delay_topic: str, stalled_s: float | None = None) -> bool:
    """Tell whether a relay has started this topic (rule 1).

    `reader` is read_committed, and reads nothing else meanwhile. Raises KafkaException where the broker does not
    answer, or an open transaction hides the answer for `stalled_s`.
    """
    first = (delay_topic, 0)
    if delay_topic not in partition_counts(admin, (delay_topic,)):
        return False
    low, high = watermarks(admin, [first])[first]
    if low == high:
        return False
    with suppress(KafkaException):  # without it the reader looks for unknown leaders a second later
        reader.list_topics(delay_topic, CALL_TIMEOUT_S)
    try:
        return next(records_between(reader, first, low, high, stalled_s=stalled_s), None) is not None
    except StalledError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{delay_topic}[0]: {error}")) from None
    finally:
        reader.unassign()


def settle_start(properties: clients.Properties, topics: Iterable[RelayTopics], start: Start | None) -> list[str]:
    """Write down where each topic that nobody has started yet starts; returns what was decided, a line each.

    Raises StartRefusedError (it says how much would be replayed), KafkaException where the broker does not answer.
    """
    topics = tuple(topics)
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for _ in range(ATTEMPTS):
            if all(_surely_started(reader, admin, each.delay) for each in topics):
                return []
            producer = Producer(clients.producer(properties, start_id(properties)), logger=clients.LOGGER)
            producer.init_transactions(CALL_TIMEOUT_S)  # ends the transaction of one that died while it wrote
            decided = _to_start(reader, admin, topics, start, properties)  # rule 4: the look that counts
            try:
                _write(producer, decided, start)
            except KafkaException as error:
                if clients.error_of(error).code() not in clients.FENCED:
                    raise
                time.sleep(FENCED_RETRY_S)
            else:
                return [each.decision(start) for each in decided if each.undecided]
    raise KafkaException(KafkaError(KafkaError._FENCED, "other instances decide where to start"))


def start_of(properties: clients.Properties) -> Start | None:
    """Return what the configuration itself says: the standing answer to `run --from`."""
    match properties.get("auto.offset.reset"):
        case "earliest":
            return "earliest"
        case "latest":
            return "latest"
        case _:
            return None


def start_id(properties: clients.Properties) -> str:
    """Return the transactional id under which the group's instances decide where to start."""
    return f"{properties['group.id']}-start"


def _surely_started(reader: Consumer, admin: AdminClient, delay_topic: str) -> bool:
    """Take a quick look (rule 5). What it cannot see may be the transaction of an instance that died deciding."""
    try:
        return is_started(reader, admin, delay_topic, GLANCE_S)
    except KafkaException:
        return False


def _to_start(
    reader: Consumer,
    admin: AdminClient,
    topics: Iterable[RelayTopics],
    start: Start | None,
    properties: clients.Properties,
) -> list[Beginnings]:
    """Return the topics that were not started. Raises StartRefusedError where nobody said how."""
    found = [each for each in (beginnings(reader, admin, of) for of in topics) if not each.started]
    refused = [each.refusal(properties["group.id"]) for each in found if each.unread and start is None]
    if refused:
        raise StartRefusedError("\n".join(refused))
    return found


def _write(producer: Producer, decided: Iterable[Beginnings], start: Start | None) -> None:
    """Write all positions in one transaction (rule 1). Raises KafkaException."""
    producer.begin_transaction()
    for each in decided:
        for partition, offset in each.positions(start).items():
            producer.produce(each.topics.delay, position_value(offset), POSITION_KEY, partition)
    producer.commit_transaction(CALL_TIMEOUT_S)
