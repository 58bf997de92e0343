"""EDGE. Dead letters, listed and redriven.

Rules:
 1. Nothing is redriven unless it was chosen, and never twice. The redriven event and a *mark* beside its letter are
    one transaction: the mark is there exactly when the event is. What is marked is skipped, whoever asks again.
 2. One redrive at a time: all have the group's one transactional id, so a second one fences the first. Marks are read
    after that, so it sees every redrive that came to something.
 3. An event goes back to its own topic and partition with its own key, value and headers, and one that says of which
    letter it is a redrive. Its timestamp is new: the topic's retention counts from it, and with the old one the event
    might be deleted before it is read. (When it happened stands in the event; the letter keeps the old timestamp.)
 4. It goes nowhere but to a source topic of this configuration, whatever the letter's headers say.
 5. Letters and marks are read up to what was the end when the reading began; a value is held only while it is sent.

A mark: no key, no value, one header `engage-relay-redriven` = offset of the letter, in the letter's own partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from consumer.kafka import clients
from consumer.kafka.scan import Gap, StalledError, records_between
from consumer.kafka.topics import RelayTopics, partition_counts, watermarks
from schemas.dead_letter import PREFIX, REDRIVE_OF, DeadLetterHeaders, Reason

REDRIVEN = PREFIX + "redriven"
CALL_TIMEOUT_S = 15.0  # above transaction.timeout.ms (10 s), so that the broker decides before we do

Headers = list[tuple[str, bytes | None]]
Result = Literal["redriven", "chosen", "skipped", "failed"]


@dataclass(frozen=True, slots=True, order=True)
class Coordinates:
    """Where a letter lies: its id."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter. `redrive_of`: the letter that its event was a redrive of. `headers` are all of the record's."""

    coordinates: Coordinates
    why: DeadLetterHeaders
    redriven: bool
    redrive_of: str | None
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(repr=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: those that meet every condition that is not None."""

    source_topic: str | None = None
    reasons: frozenset[Reason] | None = None
    since_ms: int | None = None
    coordinates: frozenset[Coordinates] | None = None

    def takes(self, dead_letter: DeadLetter) -> bool:
        """Tell whether the letter is meant."""
        return (
            (self.source_topic is None or dead_letter.why.source_topic == self.source_topic)
            and (self.reasons is None or dead_letter.why.reason in self.reasons)
            and (self.since_ms is None or dead_letter.why.failed_at_ms >= self.since_ms)
            and (self.coordinates is None or dead_letter.coordinates in self.coordinates)
        )


@dataclass(frozen=True, slots=True)
class Redrive:
    """What became of a letter; `why` where it was skipped or failed. `chosen`: a dry run would redrive it."""

    coordinates: Coordinates
    result: Result
    to: tuple[str, int] | None = None
    why: str | None = None


def dead_letters(
    properties: clients.Properties, topics: Iterable[RelayTopics], selection: Selection
) -> Iterator[DeadLetter | Gap]:
    """Yield the letters that are meant, in the order of topic, partition and offset.

    A Gap follows what could be read of its partition. Raises KafkaException where the broker does not answer.
    """
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for topic in dead_letter_topics(topics, selection.source_topic):
            yield from _dead_letters_of_topic(reader, admin, topic, selection)


def redrive(
    properties: clients.Properties, topics: Iterable[RelayTopics], selection: Selection, *, dry_run: bool
) -> Iterator[Redrive | Gap]:
    """Send the events of the letters that are meant back, one transaction each; what is yielded is done.

    Stopped at any moment and started again, it goes on where it was. Raises KafkaException where the broker does not
    answer or another redrive began: the letter under way is then either redriven and marked, or neither.
    """
    topics = tuple(topics)
    sources = {(each.dead_letters, each.source) for each in topics}
    sender = None if dry_run else _Sender(properties)  # rule 2: before anything is read
    missing = set(selection.coordinates or ())
    for found in dead_letters(properties, topics, selection):
        if isinstance(found, Gap):
            yield found
            continue
        missing.discard(found.coordinates)
        to = (found.why.source_topic, found.why.source_partition)
        if found.redriven:
            yield Redrive(found.coordinates, "skipped", to, "was redriven before")
        elif (why := _why_never(found, sources)) is not None:
            yield Redrive(found.coordinates, "failed", None, why)
        elif sender is None:
            yield Redrive(found.coordinates, "chosen", to)
        else:
            refused = sender.send(found)
            yield Redrive(found.coordinates, "redriven" if refused is None else "failed", to, refused)
    for coordinates in sorted(missing):
        yield Redrive(coordinates, "failed", None, "no such dead letter, or another condition excludes it")


def dead_letter_topics(topics: Iterable[RelayTopics], source_topic: str | None = None) -> list[str]:
    """Return the dead-letter topics, each once (source topics may share one), or that of one source topic."""
    return list(dict.fromkeys(each.dead_letters for each in topics if source_topic in (None, each.source)))


def _dead_letters_of_topic(
    reader: Consumer, admin: AdminClient, topic: str, selection: Selection
) -> Iterator[DeadLetter | Gap]:
    count = partition_counts(admin, (topic,)).get(topic)
    if count is None:
        yield Gap(topic, 0, "the topic does not exist")
        return
    partitions = [(topic, number) for number in range(count)]
    ends = watermarks(admin, partitions)
    for partition in partitions:
        low, end = ends[partition]
        if selection.coordinates is not None:  # a mark lies behind its letter, so nothing before the first one matters
            chosen = [each.offset for each in selection.coordinates if (each.topic, each.partition) == partition]
            low = max(low, min(chosen, default=end))
        try:
            yield from _dead_letters_between(reader, partition, low, end, selection)
        except StalledError as error:
            yield Gap(*partition, str(error))


def _dead_letters_between(
    reader: Consumer, partition: tuple[str, int], start: int, end: int, selection: Selection
) -> Iterator[DeadLetter | Gap]:
    """Read twice: first the marks, which lie behind their letters, then the letters."""
    marks = (_header(record, REDRIVEN) for record in records_between(reader, partition, start, end))
    redriven = {int(mark) for mark in marks if mark is not None and mark.isdigit() and len(mark) < 20}
    for record in records_between(reader, partition, start, end):
        if _header(record, REDRIVEN) is not None:
            continue
        dead_letter = _dead_letter(record, redriven)
        if dead_letter is None:
            if selection.reasons is None and selection.coordinates is None:
                yield Gap(*partition, f"offset {record.offset()} is no dead letter that this version can read")
        elif selection.takes(dead_letter):
            yield dead_letter


def _dead_letter(record: Message, redriven: set[int]) -> DeadLetter | None:
    """Read a letter; None for what somebody else put there."""
    headers = clients.headers_of(record)
    try:
        why = DeadLetterHeaders.from_kafka(headers)
    except ValidationError:
        return None
    coordinates = Coordinates(record.topic() or "", record.partition() or 0, record.offset() or 0)
    redrive_of = _header(record, REDRIVE_OF)
    return DeadLetter(
        coordinates,
        why,
        coordinates.offset in redriven,
        None if redrive_of is None else redrive_of.decode(errors="replace"),
        record.key(),
        record.value(),
        headers,
    )


def _header(record: Message, name: str) -> bytes | None:
    return next((value for each, value in reversed(clients.headers_of(record)) if each == name), None)


def _why_never(dead_letter: DeadLetter, sources: set[tuple[str, str]]) -> str | None:
    if dead_letter.why.reason is Reason.UNREADABLE_PENDING:
        return "holds a record of the delay topic, which is no event: publish its event anew"
    if dead_letter.value is None:
        return "has lost its value, which the topic refused as too large: publish its event anew"
    if (dead_letter.coordinates.topic, dead_letter.why.source_topic) not in sources:
        return "its source topic is none of this configuration"
    return None if dead_letter.why.source_partition >= 0 else "its source partition cannot be"


class _Sender:
    """Sends letters' events back, a transaction each."""

    def __init__(self, properties: clients.Properties) -> None:
        self._properties = clients.producer(properties, f"{properties['group.id']}-redrive")
        self._producer = self._new_producer()

    def send(self, dead_letter: DeadLetter) -> str | None:
        """Redrive and mark it; returns why it was refused. Raises KafkaException for what concerns them all."""
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        original = [(name, value) for name, value in dead_letter.headers if not name.startswith(PREFIX)]
        self._producer.begin_transaction()
        try:
            self._producer.produce(
                dead_letter.why.source_topic,
                dead_letter.value,
                dead_letter.key,
                dead_letter.why.source_partition,
                on_delivery=delivered,
                headers=[*original, (REDRIVE_OF, str(dead_letter.coordinates).encode())],
            )
            self._producer.produce(
                dead_letter.coordinates.topic,
                partition=dead_letter.coordinates.partition,
                on_delivery=delivered,
                headers=[(REDRIVEN, b"%d" % dead_letter.coordinates.offset)],
            )
            self._producer.commit_transaction(CALL_TIMEOUT_S)
        except KafkaException as error:
            failure = clients.error_of(error)
            if failure.fatal() or not (refused or failure.code() in _OF_ONE_RECORD):
                raise
            # A producer that aborted is never used again; the new one's start aborts what the old one began.
            self._producer = self._new_producer()
            return (refused[0] if refused else failure).str()
        return None

    def _new_producer(self) -> Producer:
        producer = Producer(self._properties, logger=clients.LOGGER)
        producer.init_transactions(CALL_TIMEOUT_S)
        return producer


# What produce() says of a record before it is sent.
_OF_ONE_RECORD = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC})
