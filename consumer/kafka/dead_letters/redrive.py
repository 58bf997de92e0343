"""EDGE. Dead letters, listed and redriven.

There are two ways to redrive. By default the relay that owns the dead letter's partition is asked (`requests_for`): it
makes the action again, and no other reader of the source sees the event twice. Or the event goes back to the source
(`redrive`), for which these rules hold.

Rules:
 1. Nothing is redriven unless it was chosen, and never twice. One transaction writes the
    redriven event and, beside its dead letter, a *mark*: the mark is there exactly when the
    event is. What is marked is skipped, whoever asks again.
 2. One redrive at a time: all have the group's one transactional id, so a second one
    fences the first. Marks are read after that, so the second one sees every event that
    the first one redrove. A redrive that takes the id again, because the broker refused a
    record, reads the marks that were written meanwhile.
 3. An event goes back to its own topic and partition with its own key, value and headers.
    Two more headers say of which dead letter it is a redrive, and where its event lay when
    it came for the first time: its order's document is as old as that. Its timestamp is new: the
    topic's retention counts from it, and with the old one the event might be deleted
    before it is read. (The event says when it happened; the dead letter's headers keep the
    old timestamp.) A pending record that an older version could not read holds its event:
    that is what is sent.
 4. It goes only to a source topic of this configuration, whatever the headers say.
 5. Dead letters and marks are read up to the end of the partition when the reading began.
    A value is held in memory only while it is sent.

A mark: no key, no value, one header `engage-relay-redriven`. It names the offset of a dead
letter in the same partition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from consumer.core.requests import DeadLetterId, Request
from consumer.kafka import clients
from consumer.kafka.control.control import new_id
from consumer.kafka.records.dead_letters import REDRIVEN
from consumer.kafka.records.pending import event_of_unreadable
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.scan import Gap, StalledError, records_between
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import FIRST_OFFSET, ITEM, PREFIX, REDRIVE_OF, DeadLetterHeaders, Reason

CALL_TIMEOUT_S = 15.0  # above transaction.timeout.ms (10 s), so that the broker decides before we do

Headers = list[tuple[str, bytes | None]]
Result = Literal["redriven", "marked", "chosen", "asked", "skipped", "failed"]


@dataclass(frozen=True, slots=True, order=True)
class Coordinates:
    """Where a dead letter lies: its id."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter. `redrive_of`: the one that its event was a redrive of. `headers` are all of the record's."""

    coordinates: Coordinates
    why: DeadLetterHeaders
    redriven: bool
    redrive_of: str | None
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(repr=False)

    @property
    def source(self) -> Coordinates:
        """Where its event is in the source."""
        return Coordinates(self.why.source_topic, self.why.source_partition, self.why.source_offset)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those that meet every condition that is not None.

    `coordinates`: their own. `sources`: their events'.
    """

    source_topic: str | None = None
    reasons: frozenset[Reason] | None = None
    since_ms: int | None = None
    coordinates: frozenset[Coordinates] | None = None
    sources: frozenset[Coordinates] | None = None

    def takes(self, dead_letter: DeadLetter) -> bool:
        """Tell whether the dead letter is meant."""
        return (
            (self.source_topic is None or dead_letter.why.source_topic == self.source_topic)
            and (self.reasons is None or dead_letter.why.reason in self.reasons)
            and (self.since_ms is None or dead_letter.why.failed_at_ms >= self.since_ms)
            and (self.coordinates is None or dead_letter.coordinates in self.coordinates)
            and (self.sources is None or dead_letter.source in self.sources)
        )


@dataclass(frozen=True, slots=True)
class Redrive:
    """What became of a dead letter; `why` where it was skipped or failed. `chosen`: a dry run would redrive it.

    `marked`: it counts as redriven, and its event was not sent. `asked`: the relay was asked to.
    """

    coordinates: Coordinates
    result: Result
    to: tuple[str, int] | None = None
    why: str | None = None


def dead_letters(
    properties: clients.Properties, topics: Iterable[RelayTopics], selection: Selection
) -> Iterator[DeadLetter | Gap]:
    """Yield the dead letters that are meant, in the order of topic, partition and offset.

    A Gap follows what could be read of its partition. Raises KafkaException where the broker does not answer.
    """
    yield from _dead_letters(properties, topics, selection, {})


def _dead_letters(
    properties: clients.Properties,
    topics: Iterable[RelayTopics],
    selection: Selection,
    marks: dict[tuple[str, int], _Marks],
) -> Iterator[DeadLetter | Gap]:
    """Yield them; `marks` gets the marks of each partition that was begun, and may be read on meanwhile."""
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        for topic in dead_letter_topics(topics, selection.source_topic):
            yield from _dead_letters_of_topic(reader, admin, topic, selection, marks)


def redrive(
    properties: clients.Properties,
    topics: Iterable[RelayTopics],
    selection: Selection,
    *,
    dry_run: bool,
    only_mark: bool = False,
) -> Iterator[Redrive | Gap]:
    """Send the events of the dead letters that are meant back, one transaction each; what is yielded is done.

    `only_mark`: somebody dealt with them otherwise, so none is sent, and each is marked as if it had been.
    Stopped at any moment and started again, it continues where it was. Raises KafkaException where the broker does not
    answer or another redrive began: the dead letter under way is then either redriven and marked, or neither.
    """
    topics = tuple(topics)
    sources = {(each.dead_letters, each.source) for each in topics}
    sender = None if dry_run else _Sender(properties)  # rule 2: before anything is read
    missing = set(selection.coordinates or ())
    missing_sources = set(selection.sources or ())
    marks: dict[tuple[str, int], _Marks] = {}
    for found in _dead_letters(properties, topics, selection, marks):
        if isinstance(found, Gap):
            yield found
            continue
        at = found.coordinates
        missing.discard(at)
        missing_sources.discard(found.source)
        to = (found.why.source_topic, found.why.source_partition)
        if found.redriven:
            yield Redrive(at, "skipped", to, "was redriven before")
        elif isinstance(event := None if only_mark else _event_of(found, sources), str):
            yield Redrive(at, "failed", None, event)
        elif sender is None:
            yield Redrive(at, "chosen", to)
        elif (refused := sender.send(at, event)) is None:
            yield Redrive(at, "redriven" if event else "marked", to)
        else:
            marks[at.topic, at.partition].read(properties)  # rule 2
            yield Redrive(at, "failed", to, refused)
    yield from _not_found(missing, missing_sources)


def requests_for(
    properties: clients.Properties, topics: Iterable[RelayTopics], selection: Selection, why: str | None, now: float
) -> Iterator[Request | Redrive | Gap]:
    """Yield the requests to redrive the dead letters that are meant; a Redrive says why there is none for one.

    `why`: the person's reason; None: the dead letter's own. `now`: seconds since 1970. Raises KafkaException.
    """
    topics = tuple(topics)
    sources = {(each.dead_letters, each.source) for each in topics}
    missing, missing_sources = set(selection.coordinates or ()), set(selection.sources or ())
    for found in dead_letters(properties, topics, selection):
        if isinstance(found, Gap):
            yield found
            continue
        missing.discard(found.coordinates)
        missing_sources.discard(found.source)
        yield _request_for(found, sources, why, now)
    yield from _not_found(missing, missing_sources)


def _request_for(
    found: DeadLetter, sources: Collection[tuple[str, str]], why: str | None, now: float
) -> Request | Redrive:
    at, of = found.coordinates, found.why
    if found.redriven:
        return Redrive(at, "skipped", (of.source_topic, of.source_partition), "was redriven before")
    if isinstance(event := _event_of(found, sources), str):
        return Redrive(at, "failed", None, event)
    if of.source_offset < 0:
        return Redrive(at, "failed", None, "nobody knows where its event lay: redrive it with --to-source")
    return Request(
        id=new_id(now),
        what="send_again",
        topic=of.source_topic,
        partition=of.source_partition,
        offset=of.source_offset,
        incarnation=of.source_incarnation or 0,
        item=of.item,
        dead_letter=DeadLetterId(at.topic, at.partition, at.offset),
        reason=why or f"it was a dead letter: {of.reason}",
        asked_by="redrive",
        asked=now,
    )


def _not_found(missing: Collection[Coordinates], missing_sources: Collection[Coordinates]) -> Iterator[Redrive | Gap]:
    for coordinates in sorted(missing):
        yield Redrive(coordinates, "failed", None, "no such dead letter, or another condition excludes it")
    for source in sorted(missing_sources):
        why = f"no dead letter of the event at offset {source.offset}, or another condition excludes it"
        yield Gap(source.topic, source.partition, why)


def dead_letter_topics(topics: Iterable[RelayTopics], source_topic: str | None = None) -> list[str]:
    """Return the dead-letter topics, each once (source topics may share one), or that of one source topic."""
    return list(dict.fromkeys(each.dead_letters for each in topics if source_topic in (None, each.source)))


def _dead_letters_of_topic(
    reader: Consumer, admin: AdminClient, topic: str, selection: Selection, marks: dict[tuple[str, int], _Marks]
) -> Iterator[DeadLetter | Gap]:
    count = partition_counts(admin, (topic,)).get(topic)
    if count is None:
        yield Gap(topic, 0, "the topic does not exist")
        return
    partitions = [(topic, number) for number in range(count)]
    ends = watermarks(admin, partitions)
    for partition in partitions:
        low, end = ends[partition]
        if selection.coordinates is not None:  # a mark lies behind its dead letter: before the first one is none
            chosen = [each.offset for each in selection.coordinates if (each.topic, each.partition) == partition]
            low = max(low, min(chosen, default=end))
        marks[partition] = _Marks(partition, low)
        try:
            marks[partition].read_to(reader, end)
            yield from _dead_letters_between(reader, marks[partition], low, end, selection)
        except StalledError as error:
            yield Gap(*partition, str(error))


@dataclass(slots=True)
class _Marks:
    """What was redriven of a partition, as far as its marks were read: up to `next`."""

    partition: tuple[str, int]
    next: int
    redriven: set[int] = field(default_factory=set)

    def read_to(self, reader: Consumer, end: int) -> None:
        """Read on. Raises StalledError, KafkaException."""
        for record in records_between(reader, self.partition, self.next, end):
            if (mark := mark_in(record)) is not None:
                self.redriven.add(mark)
        self.next = max(self.next, end)

    def read(self, properties: clients.Properties) -> None:
        """Read what came since, with a reader of its own. Raises KafkaException, also where something hides it."""
        admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
        _, end = watermarks(admin, [self.partition])[self.partition]
        with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
            try:
                self.read_to(reader, end)
            except StalledError as error:
                topic, number = self.partition
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}[{number}]: {error}")) from None


def _dead_letters_between(
    reader: Consumer, marks: _Marks, start: int, end: int, selection: Selection
) -> Iterator[DeadLetter | Gap]:
    for record in records_between(reader, marks.partition, start, end):
        if _header(record, REDRIVEN) is not None:
            continue
        dead_letter = dead_letter_in(record, marks.redriven)
        if dead_letter is None:
            if selection.reasons is None and selection.coordinates is None:
                yield Gap(*marks.partition, f"offset {record.offset()} is no dead letter that this version can read")
        elif selection.takes(dead_letter):
            yield dead_letter


def mark_in(record: Message) -> int | None:
    """Return the offset of the dead letter that a record marks as redriven; None: it is no mark."""
    mark = _header(record, REDRIVEN)
    return int(mark) if mark is not None and mark.isdigit() and len(mark) < 20 else None


def dead_letter_in(record: Message, redriven: Collection[int]) -> DeadLetter | None:
    """Read a dead letter; None for what somebody else put there, and for a mark."""
    headers = clients.headers_of(record)
    if _header(record, REDRIVEN) is not None:
        return None
    try:
        why = DeadLetterHeaders.from_kafka(headers)
    except ValidationError:
        return None
    coordinates = Coordinates(record.topic() or "", record.partition() or 0, record.offset() or 0)
    redrive_of = _header(record, REDRIVE_OF)
    return DeadLetter(
        coordinates=coordinates,
        why=why,
        redriven=coordinates.offset in redriven,
        redrive_of=None if redrive_of is None else redrive_of.decode(errors="replace"),
        key=record.key(),
        value=record.value(),
        headers=headers,
    )


def _header(record: Message, name: str) -> bytes | None:
    return next((value for each, value in reversed(clients.headers_of(record)) if each == name), None)


def _event_of(dead_letter: DeadLetter, sources: Collection[tuple[str, str]]) -> SourceEvent | str:
    """Return the event to send back, or why there is none."""
    why = dead_letter.why
    if dead_letter.value is None:
        return "has lost its value, which the topic refused as too large: publish its event again"
    if (dead_letter.coordinates.topic, why.source_topic) not in sources:
        return "its source topic is none of this configuration"
    if why.source_partition < 0:
        return "its source partition cannot be"
    if why.reason is not Reason.UNREADABLE_PENDING:
        return SourceEvent(
            topic=why.source_topic,
            partition=why.source_partition,
            offset=why.source_offset,
            timestamp_ms=why.source_timestamp_ms,
            key=dead_letter.key,
            value=dead_letter.value,
            headers=dead_letter.headers,
        )
    event = event_of_unreadable(dead_letter.value)
    if isinstance(event, Unreadable):
        return (
            f"holds a pending record that this version cannot read ({event.detail}): redrive it with the version that "
            "wrote it, or publish its event again"
        )
    if event.value is None or (event.topic, event.partition) != (why.source_topic, why.source_partition):
        return "holds a pending record of another partition: publish its event again"
    return event


def event_to_redrive(dead_letter: DeadLetter, sources: Collection[tuple[str, str]]) -> SourceEvent | str:
    """Return a dead letter's event with the headers of a redrive, or why there is none.

    `sources`: dead-letter topic and source topic of each source of this configuration.
    """
    event = _event_of(dead_letter, sources)
    if isinstance(event, str):
        return event
    incarnation = dead_letter.why.source_incarnation or 0
    return replace(event, headers=_headers_of(dead_letter.coordinates, event), incarnation=incarnation)


def _headers_of(at: Coordinates, event: SourceEvent) -> Headers:
    return [*own_headers(event.headers), (REDRIVE_OF, str(at).encode()), *_first_offset(event), *_item(event)]


class _Sender:
    """Sends events back, a transaction each."""

    def __init__(self, properties: clients.Properties) -> None:
        self._properties = clients.producer(properties, f"{properties['group.id']}-redrive")
        self._producer = self._new_producer()

    def send(self, at: Coordinates, event: SourceEvent | None) -> str | None:
        """Redrive and mark it (without an event: mark it); returns why it was refused.

        Raises KafkaException for what concerns them all.

        Whatever was refused, the id may have been another redrive's meanwhile: read its marks.
        """
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        self._producer.begin_transaction()
        try:
            if event is not None:
                self._producer.produce(
                    event.topic,
                    event.value,
                    event.key,
                    event.partition,
                    on_delivery=delivered,
                    headers=[*_headers_of(at, event)],
                )
        except KafkaException as error:
            failure = clients.error_of(error)
            if failure.code() not in _OF_ONE_RECORD:
                raise
            self._producer.commit_transaction(CALL_TIMEOUT_S)  # it is empty; the id stays ours, or another's
            return failure.str()
        try:
            self._producer.produce(
                at.topic, partition=at.partition, on_delivery=delivered, headers=[(REDRIVEN, b"%d" % at.offset)]
            )
            self._producer.commit_transaction(CALL_TIMEOUT_S)
        except KafkaException as error:
            failure = clients.error_of(error)
            if failure.fatal() or not (refused or failure.code() in _OF_ONE_RECORD):
                raise
            # A producer that aborted is never used again. The abort fails where another redrive has taken the id.
            self._producer.abort_transaction(CALL_TIMEOUT_S)
            self._producer = self._new_producer()
            return (refused[0] if refused else failure).str()
        return None

    def _new_producer(self) -> Producer:
        producer = Producer(self._properties, logger=clients.LOGGER)
        producer.init_transactions(CALL_TIMEOUT_S)
        return producer


def own_headers(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Return the event's own headers of those of its dead letter."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIX)]


def _item(event: SourceEvent) -> Headers:
    """Return the header that says for which item the dead letter was: the event's others were dealt with."""
    return [(name, value) for name, value in event.headers if name == ITEM]


def _first_offset(event: SourceEvent) -> Headers:
    """Return the header with the offset of the event that was not redriven itself; none where nobody knows it."""
    earlier = dict(event.headers)
    if REDRIVE_OF not in earlier:
        return [(FIRST_OFFSET, b"%d" % event.offset)] if event.offset >= 0 else []
    return [(FIRST_OFFSET, earlier[FIRST_OFFSET])] if FIRST_OFFSET in earlier else []


# What produce() says of a record before it is sent.
_OF_ONE_RECORD = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC})
