"""EDGE. Whether everything adds up: events of the source against outcomes, pending actions and dead letters.

It works while the relay runs. What is read of a partition is bounded by offsets that are taken in this order, so that
nothing in between looks lost:
 1. up to where the group has read the source: what became of an event before that is committed;
 2. the end of the delay partition, which is then read: an action that ended before has its tombstone there, in a
    transaction that is settled once it was read;
 3. the ends of the outcomes and the dead letters: that transaction's outcome lies before them.
An action that ends between 2 and 3 is pending and has an outcome: it is counted once, as ended.

The same code decides over the events as in `run` (events/deciding.py), with the present routes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from consumer.core.ownership import Assignment, Partition
from consumer.core.pauses import Scope
from consumer.core.places import incarnation_at, item_at, offset_at
from consumer.events.deciding import Ignored
from consumer.events.routing.results import Misrouted
from consumer.kafka import clients, refused
from consumer.kafka.control.control import CurrentPauses
from consumer.kafka.orders.history import Search
from consumer.kafka.orders.matching import actions_of
from consumer.kafka.orders.reading import Span, StalledError, read
from consumer.kafka.orders.timeline import At
from consumer.kafka.outcomes.outcomes import read_outcome
from consumer.kafka.records.dead_letters import REDRIVEN
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.records.positions import read_position
from consumer.kafka.source.membership import event_of
from consumer.kafka.topics.asking import CALL_TIMEOUT_S, partition_counts
from consumer.kafka.topics.offsets import committed_offsets, watermarks
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import DeadLetterHeaders
from schemas.outcome import Outcome, OutcomeName
from schemas.pending_action import POSITION_KEY, Position, SourceIdentity

MARGIN_MS = 3600 * 1000  # outcomes and dead letters are read from so much earlier: clocks differ


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not add up, about an event or an item of it."""

    at: At
    what: str
    order_id: str | None = None
    action: str | None = None


@dataclass(slots=True)
class Sums:
    """What was counted. `actions`: how many actions and unusable events became what, by the outcome's name.

    `on_hold`: of those that are pending, what a pause covers now. `again`: of those that ended, what a person had sent
    again; what it came to last counts.
    """

    events: int = 0
    ignored: int = 0
    expected: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    pending: int = 0
    on_hold: int = 0
    again: int = 0
    unread: int = 0
    problems: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: Sums) -> None:
        """Add another partition's."""
        self.events += other.events
        self.ignored += other.ignored
        self.expected += other.expected
        self.ends += other.ends
        self.pending += other.pending
        self.on_hold += other.on_hold
        self.again += other.again
        self.unread += other.unread
        self.problems += other.problems
        self.reasons += other.reasons


@dataclass(frozen=True, slots=True)
class _Expected:
    """What an event, or its item, should have become. `action`: None for a dead letter of the event itself."""

    order_id: str | None
    action: str | None
    at_ms: int


_Place = tuple[int, int]
"""An event's offset in its source partition, and which of its items."""


@dataclass(slots=True)
class _Found:
    """What was found of one partition. `events`: the range of offsets that was looked at.

    `paused`: what is pending, and a pause covers it. `dead_letters`: also those that their topic refuses.
    `told_from_ms`: the time of the first outcome that is there; None where the outcomes reach back to what was asked
    for. `outcomes`: by who asked for the action, the latest last: its event, then perhaps a person, again and again.
    """

    events: range = range(0)
    expected: dict[_Place, _Expected] = field(default_factory=dict)
    ignored: set[int] = field(default_factory=set)
    live: set[_Place] = field(default_factory=set)
    paused: set[_Place] = field(default_factory=set)
    outcomes: dict[_Place, dict[str, set[OutcomeName]]] = field(default_factory=dict)
    reasons: dict[_Place, str | None] = field(default_factory=dict)
    dead_letters: set[_Place] = field(default_factory=set)
    told_from_ms: int | None = None
    unread: int = 0


def reconcile(
    topics: RelayTopics, search: Search, *, since_ms: int | None, orders: Collection[str] | None = None
) -> Iterator[Problem | Sums | Seen | str]:
    """Compare one source, partition by partition; yields problems, each partition's sums, and what could not be read.

    `since_ms`: only events from then on (ms since 1970). `orders`: only these. Raises KafkaException where the brokers
    do not answer.
    """
    if topics.outcomes is None:
        yield f"{topics.source}: no outcomes are written (outcomes.topic: none), so nothing can be compared"
        return
    admin = AdminClient(clients.base(search.properties), logger=clients.LOGGER)
    count = partition_counts(admin, (topics.source,)).get(topics.source)
    if count is None:
        yield f"{topics.source}: the topic does not exist"
    pauses = CurrentPauses(search.properties, search.control)
    with closing(Consumer(clients.reader(search.properties), logger=clients.LOGGER)) as asker:
        for number in range(count or 0):
            one = _Partition(topics, number, search, admin, asker, pauses, since_ms, orders)
            try:
                found = one.read()
            except StalledError as error:
                yield str(error)
                continue
            yield from one.gaps
            yield Seen(frozenset(each.order_id for each in found.expected.values() if each.order_id is not None))
            yield from _compared(topics.source, number, found, with_others=orders is None)
    yield from pauses.gaps


@dataclass(frozen=True, slots=True)
class Seen:
    """The orders of which there are events."""

    orders: frozenset[str]


class _Partition:
    """Reads one partition, in the order that the module's text says."""

    def __init__(  # noqa: PLR0917 - private, and called once
        self,
        topics: RelayTopics,
        number: int,
        search: Search,
        admin: AdminClient,
        asker: Consumer,
        pauses: CurrentPauses,
        since_ms: int | None,
        orders: Collection[str] | None,
    ) -> None:
        self.gaps: list[str] = []
        self._topics = topics
        self._number = number
        self._search = search
        self._admin = admin
        self._asker = asker
        self._since_ms = since_ms
        self._orders = orders
        self._found = _Found()
        self._pauses = pauses
        self._source = SourceIdentity(group="", topic=topics.source)  # as the delay topic names it, once that was read

    def read(self) -> _Found:
        """Read all of it. Raises StalledError, KafkaException."""
        source: Partition = (self._topics.source, self._number)
        low, end = watermarks(self._admin, [source])[source]
        position = committed_offsets(self._asker, [source]).get(source, low)
        start = self._offset_at(source, self._since_ms, low, end)
        self._found.unread = max(0, end - max(position, start))
        self._read_delay()
        self._read_outcomes(self._topics.outcomes or "")
        self._read_dead_letters()
        self._found.events = range(start, max(start, min(position, end)))
        self._read_events(source)
        return self._found

    def _records(self, topic: str, span: Span | None = None, since_ms: int | None = None) -> Iterator[Message]:
        """Yield the records of this partition of a topic: those of the span, or those since then."""
        at = (topic, self._number)
        if span is None:
            low, end = watermarks(self._admin, [at])[at]
            span = Span(self._offset_at(at, since_ms, low, end), end)
        search = self._search
        for _, records in read(search.properties, {at: span}, tell=search.tell, stalled_s=search.stalled_s):
            yield from records
        if span.error is not None:
            self.gaps.append(f"{topic}[{self._number}]: {span.error}")

    def _offset_at(self, at: Partition, ms: int | None, low: int, end: int) -> int:
        """Return the offset of the first record since then; the end where there is none."""
        if ms is None:
            return low
        (found,) = self._asker.offsets_for_times([TopicPartition(*at, ms)], CALL_TIMEOUT_S)
        if found.error is not None:
            raise clients.exception(found.error, f"{at[0]}[{at[1]}]")
        return max(low, found.offset) if found.offset >= 0 else end

    def _read_delay(self) -> None:
        found, live = self._found, dict[bytes, bytes]()
        for record in self._records(self._topics.delay):
            key, value = clients.raw(record.key()), clients.raw(record.value())
            if key == POSITION_KEY:
                position = read_position(value or b"")
                if isinstance(position, Position):
                    self._source = position.source
            elif key is not None and value is None:
                live.pop(key, None)
            elif key is not None and value is not None:
                live[key] = value
        for key, value in live.items():
            dead_letter = refused.read(Assignment(self._topics.source, self._number, 0), key, value)
            place = place_of_key(key)
            if dead_letter is not None:
                self._take_dead_letter(
                    (name, each.encode() if isinstance(each, str) else each)
                    for name, each in dead_letter.record.headers
                )
            elif place is not None and incarnation_at(place) == self._source.incarnation:
                found.live.add((offset_at(place), item_at(place)))

    def _read_outcomes(self, topic: str) -> None:
        since_ms = None if self._since_ms is None else self._since_ms - MARGIN_MS
        at = (topic, self._number)
        low, end = watermarks(self._admin, [at])[at]
        span = Span(self._offset_at(at, since_ms, low, end), end)
        found = self._found
        for record in self._records(topic, span):
            outcome = read_outcome(clients.raw(record.value()) or b"")
            if not isinstance(outcome, Outcome):
                continue
            of = outcome.place
            if self._is_of_source(of.topic, of.partition, of.incarnation):
                place = (of.offset, of.item or 0)
                found.outcomes.setdefault(place, {}).setdefault(outcome.asked_by, set()).add(outcome.outcome)
                found.reasons[place] = outcome.reason
        if span.start == low:
            found.told_from_ms = span.since_ms if span.since_ms is not None else int(time.time() * 1000)

    def _read_dead_letters(self) -> None:
        since_ms = None if self._since_ms is None else self._since_ms - MARGIN_MS
        for record in self._records(self._topics.dead_letters, since_ms=since_ms):
            headers = clients.headers_of(record)
            if any(name == REDRIVEN for name, _ in headers):
                continue
            self._take_dead_letter(headers)

    def _take_dead_letter(self, headers: Iterable[tuple[str, bytes | None]]) -> None:
        with suppress(ValidationError):
            why = DeadLetterHeaders.from_kafka(headers)
            if self._is_of_source(why.source_topic, why.source_partition, why.source_incarnation or 0):
                self._found.dead_letters.add((why.source_offset, why.item or 0))

    def _is_of_source(self, topic: str, partition: int, incarnation: int) -> bool:
        """Tell whether an offset is one of the source that is there now, also under a former name (identity.py)."""
        names = (self._source.topic, *self._source.former_topics)
        return topic in names and (partition, incarnation) == (self._number, self._source.incarnation)

    def _read_events(self, source: Partition) -> None:
        found, search, orders = self._found, self._search, self._orders
        span = Span(found.events.start, found.events.stop)
        for record in self._records(source[0], span):
            event = event_of(record, source, record.offset() or 0)
            at_ms = record.timestamp()[1]
            decision = search.decide(event, at_ms)
            if isinstance(decision, str):
                self.gaps.append(f"{At(*source, event.offset)}: {decision}")
                continue
            if isinstance(decision, Misrouted):
                expected = _Expected(decision.order_id, None, at_ms)
                if orders is None or decision.order_id in orders:
                    found.expected[event.offset, 0] = expected
            elif isinstance(decision, Ignored):
                found.ignored.add(event.offset)
            for action in actions_of(decision):
                if orders is None or action.order_id in orders:
                    place = (event.offset, action.item or 0)
                    found.expected[place] = _Expected(action.order_id, action.action, at_ms)
                    scope = Scope(action.connection, action.route, action.action)
                    if place in found.live and self._pauses.holding(scope) is not None:
                        found.paused.add(place)


def _compared(topic: str, number: int, found: _Found, *, with_others: bool) -> Iterator[Problem | Sums]:
    """Yield what does not add up, then the sums. `with_others`: also what nothing was expected of."""
    sums = Sums(expected=len(found.expected), unread=found.unread, ignored=len(found.ignored) if with_others else 0)
    sums.events = len({offset for offset, _ in found.expected}) + sums.ignored
    problems: list[tuple[_Place, str]] = []
    for place, expected in found.expected.items():
        outcomes = found.outcomes.get(place, {})
        what = _wrong(place, expected, found)
        if what is not None:
            problems.append((place, what))
        elif outcomes:
            (outcome,) = list(outcomes.values())[-1]
            sums.ends[outcome] += 1
            sums.again += len(outcomes) > 1
            if (reason := found.reasons.get(place)) is not None:
                sums.reasons[reason] += 1
        else:
            sums.pending += 1
            sums.on_hold += place in found.paused
    if with_others:
        others = {place for place in (*found.outcomes, *found.dead_letters) if place[0] in found.events}
        problems += [(place, _UNEXPECTED) for place in others - found.expected.keys()]
    sums.problems = len(problems)
    for place, what in sorted(problems):
        known = found.expected.get(place)
        at = At(topic, number, place[0], place[1] or None)
        yield Problem(at, what, *((None, None) if known is None else (known.order_id, known.action)))
    yield sums


_UNEXPECTED = "it has an outcome or a dead letter, though the present routes make nothing of its event"


def _wrong(place: _Place, expected: _Expected, found: _Found) -> str | None:
    """Say what does not add up about an event that should have become something."""
    by_asker = found.outcomes.get(place, {})
    doubled = next((each for each in by_asker.values() if len(each) > 1), None)
    if doubled is not None:
        return f"it has several outcomes: {', '.join(sorted(doubled))}"
    outcomes = {name for each in by_asker.values() for name in each}
    is_dead = place in found.dead_letters
    if not outcomes and place in found.live:
        return None
    if not outcomes and is_dead:
        return "it is a dead letter, and has no outcome"
    if not outcomes and found.told_from_ms is not None and expected.at_ms < found.told_from_ms:
        return "nothing tells what became of it: it is older than the first outcome that is kept"
    if not outcomes:
        return "it was read, and is lost: it has no outcome, is not pending and is no dead letter"
    if OutcomeName.DEAD_LETTER in outcomes and not is_dead:
        return "its outcome is a dead letter, and the dead-letter topic has none"
    if OutcomeName.DEAD_LETTER not in outcomes and is_dead:
        return f"its outcome is {', '.join(sorted(outcomes))}, and it is a dead letter, too"
    if OutcomeName.ACCEPTED in outcomes and expected.action is None:
        return "it was accepted, though the present routes make no action of its event"
    return None
