"""EDGE. Where a source topic starts when the relay meets it for the first time.

Rules:
 1. A relay *starts* a topic once: it writes a position record for each of its partitions, all in one transaction. So
    a topic is started if its delay topic holds a settled position record. (Any record is not enough: an aborted
    transaction leaves records behind that nobody can read.) It names the source that it is of (identity.py).
 2. In a started topic, a partition without any position was added later. It starts at its beginning.
 3. In a topic that was not started, a partition is known if the group has committed an offset of it (another consumer
    did, or the delay topic was lost). For partitions that are unknown and hold records the operator decides
    (`run --from`), never the relay: starting at the beginning would send all e-mails again, starting at the end would
    lose the events that wait. That the group knows another partition says nothing about these.
 4. A decision is fenced. It is written under one transactional id for the group, and that id is taken before the
    look at the topics. An instance that takes the id later fences the earlier one, whose look is out of date by
    then. So an instance that was frozen in between writes nothing, and looks again. Another group has another id: so
    the records must also lie where the delay topic ended at the look. Else somebody has written in between.
 5. An instance that has nothing to decide takes no transactional id: an ordinary start disturbs no other instance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import StartRefusedError
from consumer.kafka import clients
from consumer.kafka.identity.identity import present_identities, recorded_positions, verified
from consumer.kafka.journal.meanings import cause_of
from consumer.kafka.records.positions import position_value
from consumer.kafka.topics.asking import CALL_TIMEOUT_S, partition_counts
from consumer.kafka.topics.offsets import Watermarks, committed_offsets, watermarks
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, SourceIdentity

Start = Literal["earliest", "latest"]

GLANCE_S = 2.0  # to find a settled record after which no transaction is open; it takes milliseconds as a rule
ATTEMPTS = 10  # each one fails only because another instance decides the same, within one transaction
FENCED_RETRY_S = 0.2
_WORDS: Mapping[Start, str] = {"earliest": "beginning", "latest": "end"}


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What is known of where a topic continues.

    `identity`: the source, as its delay topic names it if it `started`. `committed` and `marks` are by partition; both
    are empty if it `started`. `ends`: where each delay partition ended at the look.
    """

    topics: RelayTopics
    identity: SourceIdentity
    started: bool
    committed: Mapping[int, int]
    marks: Mapping[int, Watermarks]
    ends: Mapping[int, int]

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


def beginnings(
    reader: Consumer,
    admin: AdminClient,
    topics: RelayTopics,
    present: SourceIdentity,
    stalled_s: float | None = None,
) -> Beginnings:
    """Look where a topic continues. `present`: the source as it is now.

    `reader` is read_committed, and reads nothing else meanwhile. Raises IdentityError where the delay topic belongs to
    another source, KafkaException where the broker does not answer, or an open transaction hides the answer for
    `stalled_s`.
    """
    tail = recorded_positions(reader, admin, topics.delay, stalled_s)
    if (identity := verified(topics, tail.positions, present)) is not None:
        return Beginnings(topics, identity, True, {}, {}, tail.ends)
    source = [(topics.source, n) for n in range(partition_counts(admin, (topics.source,)).get(topics.source, 0))]
    committed = {n: offset for (_, n), offset in committed_offsets(reader, source).items()}
    marks = {n: marks for (_, n), marks in watermarks(admin, source).items()}
    return Beginnings(topics, present, False, committed, marks, tail.ends)


@dataclass(frozen=True, slots=True)
class Started:
    """Where the topics start was settled. `identities`: by source. `decided`: a line for each decision."""

    identities: Mapping[str, SourceIdentity]
    decided: list[str]


def settle_start(
    properties: clients.Properties,
    topics: Iterable[RelayTopics],
    start: Start | None,
    check: Callable[[Sequence[Beginnings]], None] | None = None,
) -> Started:
    """Write down where each topic that nobody has started yet starts.

    `check` sees what is about to start, and may raise. Raises IdentityError where a delay topic belongs to another
    source, StartRefusedError (it says how much would be replayed), KafkaException where the broker does not answer.
    """
    topics = tuple(topics)
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for _ in range(ATTEMPTS):
            present = present_identities(admin, str(properties["group.id"]), [each.source for each in topics])
            known = [_surely_started(reader, admin, each, present[each.source]) for each in topics]
            if all(known):
                return Started({each.topic: each for each in known if each is not None}, [])
            producer = Producer(clients.producer(properties, start_id(properties)), logger=clients.LOGGER)
            producer.init_transactions(CALL_TIMEOUT_S)  # ends the transaction of one that died while it wrote
            found = [beginnings(reader, admin, each, present[each.source]) for each in topics]
            decided = _to_start(found, start, properties)  # rule 4: the look that counts
            if check is not None:
                check(decided)
            records = [
                PositionRecord(each.topics.delay, partition, offset, each.identity, each.ends.get(partition, 0))
                for each in decided
                for partition, offset in each.positions(start).items()
            ]
            if write_positions(producer, records):
                identities = {each.topics.source: each.identity for each in found}
                return Started(identities, [each.decision(start) for each in decided if each.undecided])
            time.sleep(FENCED_RETRY_S)
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


def _surely_started(
    reader: Consumer, admin: AdminClient, topics: RelayTopics, present: SourceIdentity
) -> SourceIdentity | None:
    """Take a quick look (rule 5). What it cannot see may be the transaction of an instance that died deciding."""
    try:
        return verified(topics, recorded_positions(reader, admin, topics.delay, GLANCE_S).positions, present)
    except KafkaException:
        return None


def _to_start(found: Iterable[Beginnings], start: Start | None, properties: clients.Properties) -> list[Beginnings]:
    """Return the topics that were not started. Raises StartRefusedError where nobody said how."""
    to_start = [each for each in found if not each.started]
    refused = [each.refusal(properties["group.id"]) for each in to_start if each.unread and start is None]
    if refused:
        raise StartRefusedError("\n".join(refused))
    return to_start


@dataclass(frozen=True, slots=True)
class PositionRecord:
    """A position record to write. `at`: the offset at which it must come to lie (rule 4)."""

    delay_topic: str
    partition: int
    next_offset: int
    identity: SourceIdentity
    at: int


def write_positions(
    producer: Producer,
    records: Iterable[PositionRecord],
    offsets: Sequence[TopicPartition] = (),
    group_metadata: object = None,
) -> bool:
    """Write all of them in one transaction (rule 1). False: somebody else wrote meanwhile, and nothing was written.

    `offsets` are committed with them, under `group_metadata`. Raises KafkaException.
    """
    refused: list[KafkaError] = []
    displaced: list[int | None] = []

    def delivered(at: int, error: KafkaError | None, record: Message) -> None:
        if error is not None:
            refused.append(error)
        elif record.offset() != at:
            displaced.append(record.offset())

    try:
        producer.begin_transaction()
        for each in records:
            value = position_value(each.identity, each.partition, each.next_offset)
            producer.produce(
                each.delay_topic, value, POSITION_KEY, each.partition, on_delivery=partial(delivered, each.at)
            )
        producer.flush(CALL_TIMEOUT_S)
        if refused:
            raise KafkaException(refused[0])
        if displaced:
            producer.abort_transaction(CALL_TIMEOUT_S)
            return False
        if offsets:
            producer.send_offsets_to_transaction(list(offsets), group_metadata, CALL_TIMEOUT_S)
        producer.commit_transaction(CALL_TIMEOUT_S)
    except (KafkaException, SystemError) as exception:
        error = cause_of(exception)
        if error.code() not in clients.FENCED:
            raise KafkaException(error) from None
        return False
    return True
