"""EDGE. An order's history: all records about it in the one partition that holds them, of each of the topics.

The relay's own topics have the partitions of their source. So only the source's partition must be known: it is what
the producer's partitioner makes of the record's key, which is the order's id (events/partitioners.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from consumer.core.ownership import Partition
from consumer.events.deciding import Decision, decide
from consumer.events.formats.formats import JSON, Awaiting, Formats
from consumer.events.routing.results import Misrouted
from consumer.events.routing.router import Router
from consumer.kafka import clients
from consumer.kafka.orders.matching import Contains, holder_of, is_about
from consumer.kafka.orders.reading import STALLED_S, Span, StalledError, Tell, read
from consumer.kafka.outcomes.outcomes import read_outcome
from consumer.kafka.records.dead_letters import REDRIVEN
from consumer.kafka.records.positions import read_position
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.registry.schemas import RegistryError, Schemas, UnknownSchemaError
from consumer.kafka.source.membership import event_of
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import committed_offsets, watermarks
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.outcome import Outcome
from schemas.pending_action import POSITION_KEY, PendingAction, Position


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """An event, what becomes of it by the present routes, and when Kafka got it (ms since 1970)."""

    event: SourceEvent
    decision: Decision
    at_ms: int


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record of the delay topic, or its tombstone (`pending` is None), and when it was written."""

    key: bytes
    pending: PendingAction | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class FoundDeadLetter:
    """A dead letter, where it lies, and when it was written."""

    topic: str
    partition: int
    offset: int
    why: DeadLetterHeaders
    at_ms: int


@dataclass(slots=True)
class History:
    """What was found. `spans`: what was searched. `positions`: up to where each source partition was read.

    `incarnations`: which of its topics a source is now, by its partitions (core/places.py).

    `gaps`: what could not be read, a line each.
    """

    order_id: str
    events: list[FoundEvent] = field(default_factory=list)
    records: list[FoundRecord] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    dead_letters: list[FoundDeadLetter] = field(default_factory=list)
    redriven: set[tuple[str, int, int]] = field(default_factory=set)
    spans: Mapping[Partition, Span] = field(default_factory=dict)
    positions: Mapping[Partition, int] = field(default_factory=dict)
    incarnations: dict[Partition, int] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether no record is about the order."""
        return not (self.events or self.records or self.outcomes or self.dead_letters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How to search. `router`, `dead_letter_topics`, `formats` and `schemas`: as `run` decides over the events.

    `control`: the control topic, which says what is on hold.
    """

    properties: clients.Properties
    router: Router
    dead_letter_topics: Collection[str]
    formats: Formats = JSON
    schemas: Schemas | None = None
    tell: Tell = lambda _: None
    stalled_s: float = STALLED_S
    give_up_s: float | None = None
    gentle: bool = False
    control: str | None = None

    def decide(self, event: SourceEvent, at_ms: int) -> Decision | str:
        """Say what becomes of an event that came then; a text where its schema cannot be had, which says why."""
        return self._decide(event, at_ms, fetches=self.schemas is not None)

    def _decide(self, event: SourceEvent, at_ms: int, *, fetches: bool) -> Decision | str:
        decision = decide(event, self.router, self.dead_letter_topics, now=at_ms / 1000, formats=self.formats)
        if not isinstance(decision, Awaiting):
            return decision
        why = f"schema {decision.schema} is not known"
        if not fetches or self.schemas is None:
            return why
        try:
            self.schemas.fetch(decision.schema, decision.sample)
        except (RegistryError, UnknownSchemaError) as error:
            return f"{why}: {error}"
        return self._decide(event, at_ms, fetches=False)


def history_of(order_id: str, partitions: Iterable[tuple[RelayTopics, int]], search: Search) -> History:
    """Search these partitions of these sources, and the same ones of the topics that belong to them.

    Raises KafkaException where the brokers do not answer.
    """
    wanted = list(partitions)
    admin = AdminClient(clients.base(search.properties), logger=clients.LOGGER)
    positions = _positions(search.properties, [(topics.source, number) for topics, number in wanted])
    kinds = {
        (topic, number): (kind, topics)
        for topics, number in wanted
        for topic, kind in zip((topics.source, *topics.own), (_event, _record, _dead_letter, _outcome), strict=False)
    }
    counts = partition_counts(admin, {topic for topic, _ in kinds})
    there = {at for at in kinds if at[1] < counts.get(at[0], 0)}
    spans = {at: Span(low, end) for at, (low, end) in watermarks(admin, there).items()}
    found = History(order_id, spans=spans, positions=positions)
    found.gaps = [f"{topic}[{number}]: does not exist" for topic, number in kinds if (topic, number) not in there]
    reader = _Reader(found, holder_of(order_id), search)
    try:
        for at, records in read(
            search.properties,
            spans,
            tell=search.tell,
            stalled_s=search.stalled_s,
            give_up_s=search.give_up_s,
            gentle=search.gentle,
        ):
            kinds[at][0](reader, at, records)
    except StalledError as error:
        found.gaps.append(str(error))
    found.gaps += [f"{topic}[{n}]: {span.error}" for (topic, n), span in spans.items() if span.error is not None]
    return found


def _positions(properties: clients.Properties, partitions: list[Partition]) -> dict[Partition, int]:
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader, suppress(KafkaException):
        return committed_offsets(reader, partitions)
    return {}


class _Reader:
    """Takes what is about the order out of the batches."""

    def __init__(self, found: History, contains: Contains, search: Search) -> None:
        self.found = found
        self.contains = contains
        self.search = search
        self.key_end = b":" + found.order_id.encode()
        self.keys: set[bytes] = set()  # of the order's records in the delay topic


_Kind = Callable[[_Reader, Partition, list[Message]], None]


def _event(reader: _Reader, at: Partition, records: list[Message]) -> None:
    contains, found, search = reader.contains, reader.found, reader.search
    for record in records:
        if contains(clients.raw(record.value())) or contains(clients.raw(record.key())):
            event = event_of(record, at, record.offset() or 0)
            at_ms = record.timestamp()[1]
            decision = _decided(search.decide(event, at_ms))
            if is_about(found.order_id, event, decision):
                found.events.append(FoundEvent(event, decision, at_ms))


def _decided(decision: Decision | str) -> Decision:
    return Misrouted(Reason.UNKNOWN_SCHEMA, decision, None) if isinstance(decision, str) else decision


def _record(reader: _Reader, at: Partition, records: list[Message]) -> None:  # noqa: ARG001 - as its siblings
    for record in records:
        key, value = clients.raw(record.key()), clients.raw(record.value())
        if key is None:
            continue
        if key == POSITION_KEY:
            position = read_position(value or b"")
            if isinstance(position, Position):
                source = position.source
                reader.found.incarnations[source.topic, position.partition] = source.incarnation
        elif value is None:
            if key in reader.keys:
                reader.found.records.append(FoundRecord(key, None, record.timestamp()[1]))
        elif key in reader.keys or reader.contains(value):
            with suppress(ValidationError):
                pending = PendingAction.model_validate_json(value)
                if pending.payload.order_id == reader.found.order_id:
                    reader.keys.add(key)
                    reader.found.records.append(FoundRecord(key, pending, record.timestamp()[1]))


def _dead_letter(reader: _Reader, at: Partition, records: list[Message]) -> None:
    contains, found, search = reader.contains, reader.found, reader.search
    for record in records:
        value, key = clients.raw(record.value()), clients.raw(record.key())
        if value is None and key is None:
            mark = dict(clients.headers_of(record)).get(REDRIVEN)
            if mark is not None and mark.isdigit() and len(mark) < 20:
                found.redriven.add((*at, int(mark)))
                continue
        if not (contains(value) or contains(key)):
            continue
        with suppress(ValidationError):
            why = DeadLetterHeaders.from_kafka(clients.headers_of(record))
            event = event_of(record, (why.source_topic, why.source_partition), why.source_offset)
            at_ms = record.timestamp()[1]
            decision = _decided(search.decide(event, at_ms))
            if is_about(found.order_id, event, decision):
                found.dead_letters.append(FoundDeadLetter(*at, record.offset() or 0, why, at_ms))


def _outcome(reader: _Reader, at: Partition, records: list[Message]) -> None:  # noqa: ARG001 - as its siblings
    end, found = reader.key_end, reader.found
    for record in records:
        key = clients.raw(record.key())
        if key is not None and key.endswith(end):
            outcome = read_outcome(clients.raw(record.value()) or b"")
            if isinstance(outcome, Outcome) and outcome.order_id == found.order_id:
                found.outcomes.append(outcome)
