"""The oracle's count of outcomes: one for each action that ended, in the transaction that ended it.

Excused: what a delayed request made visible in part. The same outcome may then be there a second time, or be missing
where its tombstone alone became visible and its writer died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from consumer.core.places import place_of
from consumer.kafka.outcomes.outcomes import key_of, read_outcome
from consumer.kafka.records.dead_letters import REDRIVEN
from consumer.kafka.records.keys import place_of_key
from schemas.dead_letter import PREFIX
from schemas.outcome import Outcome, OutcomeName
from schemas.pending_action import POSITION_KEY, RefusedDeadLetter
from tests.simulation.kafka_model import Headers, Log, Record, Transaction
from tests.simulation.process import TOPICS
from tests.simulation.workload import Event

TOPIC = TOPICS.outcomes or ""
At = tuple[int, int]
"""A partition, and the place of an event in it (core/places.py)."""


class Outcomes:
    """What the committed log of the outcomes topic says, by event."""

    def __init__(self) -> None:
        self.counted: Counter[At] = Counter()
        self._past: Counter[At] = Counter()  # of actions that began again since
        self._torn: Counter[At] = Counter()
        self.ended_unheard: set[At] = set()  # a tombstone became visible, perhaps without its outcome
        self._torn_dead_letters: set[tuple[At, str]] = set()

    def tear(self, log: Log, record: Record) -> None:
        """It is visible although its transaction is not committed as its writer meant it."""
        if log.topic == TOPIC:
            self._torn[event_at(_read(record))] += 1
        elif (dead_letter := _dead_letter(log, record)) is not None:
            self._torn_dead_letters.add(dead_letter)
            self.ended_unheard.add(dead_letter[0])
        elif log.topic == TOPICS.delay and record.value is None:
            self.ended_unheard.add((log.partition, _place_of(record)))

    def begin_again(self, at: At) -> None:
        """An action begins again: the outcomes that it had count no more."""
        self._past[at] += self.counted.pop(at, 0)
        self._torn.pop(at, None)
        self.ended_unheard.discard(at)

    def committed(self, transaction: Transaction, *, torn: bool, excused: Callable[[At], bool]) -> str | None:
        """Count a transaction's outcomes. Returns what is wrong with it as a whole.

        `excused`: whether an event's tombstone need not be there: the delay topic took it along when it was deleted, or
        its action begins again in the same transaction.
        """
        found = [_read(record) for log, record in transaction.records if log.topic == TOPIC]
        self.counted.update(map(event_at, found))
        if torn:
            return None
        given_up = [one for one in found if one.outcome is OutcomeName.DEAD_LETTER]
        said = {(event_at(one), str(one.reason)) for one in given_up}
        dead_letters = {each for log, r in transaction.records if (each := _dead_letter(log, r)) is not None}
        if any(not excused(at) for at, _ in said - dead_letters - self._torn_dead_letters):
            return f"a transaction has the dead letters {dead_letters}, and outcomes say {said}"
        tombstones = {
            (log.partition, _place_of(record))
            for log, record in transaction.records
            if log.topic == TOPICS.delay and record.value is None
        }
        ends_when_read = (OutcomeName.REPEAT, OutcomeName.OUT_OF_SEQUENCE)
        of_pending = [one for one in found if one not in given_up and one.outcome not in ends_when_read]
        alone = set(map(event_at, of_pending)) - tombstones - self.ended_unheard
        alone = {at for at in alone if not excused(at)}
        return f"outcomes of {alone} without their tombstones" if alone else None

    def what_is_wrong(self, event: Event, *, read: bool, pending: bool, dead_letter: bool, repeat: bool) -> str | None:
        """Say what is wrong with an event's outcomes."""
        at = event.partition, event.place
        count, torn = self.counted[at], self._torn[at]
        accepted = event.payload and (event.accepted > 0 or event.withheld)
        has_ended = read and not pending and (dead_letter or repeat or accepted)
        most = torn + has_ended
        least = int(has_ended and not event.bereft and at not in self.ended_unheard)
        return None if least <= count <= most else f"{count} outcomes, of at least {least} and at most {most}"

    def differs_from(self, number: int, settled: Iterable[Record]) -> bool:
        """Whether a partition's log holds others than were counted."""
        counted = Counter({at: count for at, count in (self.counted + self._past).items() if at[0] == number})
        return Counter(event_at(_read(record)) for record in settled) != counted


def check(event: Event, outcome: Outcome) -> str | None:
    """Say what is wrong with one outcome of an event."""
    if outcome.outcome is OutcomeName.ACCEPTED and not event.accepted:
        return "an outcome says that it was accepted"
    if outcome.order_id not in (None, event.order):
        return f"its outcome is that of order {outcome.order_id}"
    return None


def of_transaction(transaction: Transaction) -> list[Outcome]:
    """Return a transaction's outcomes."""
    return [_read(record) for log, record in transaction.records if log.topic == TOPIC]


def _read(record: Record) -> Outcome:
    outcome = read_outcome(record.value or b"")
    assert isinstance(outcome, Outcome), outcome
    assert record.key == key_of(outcome.connection, outcome.order_id)
    return outcome


def event_at(outcome: Outcome) -> At:
    """Return where its event is."""
    place = outcome.place
    return place.partition, place_of(place.incarnation, place.offset, place.item or 0)


def _dead_letter(log: Log, record: Record) -> tuple[At, str] | None:
    """Return the event and the reason of a dead letter, also of one that its topic refused; None for other records."""
    if log.topic == TOPICS.dead_letters:
        if is_mark(record):
            return None
        return (log.partition, source_place(record.headers)), header(record.headers, "reason")
    if log.topic == TOPICS.delay and b'"state":"refused"' in (record.value or b"")[:40]:
        refused = RefusedDeadLetter.model_validate_json(record.value or b"")
        return (log.partition, source_place(raw(refused))), refused.reason
    return None


def _place_of(record: Record) -> int:
    """Return the place of a tombstone's action; -1 for a dead letter's that was none."""
    assert record.key != POSITION_KEY
    place = place_of_key(record.key or b"")
    return -1 if place is None else place


def is_mark(record: Record) -> bool:
    """Whether it says of a dead letter that it was redriven."""
    return any(name == REDRIVEN for name, _ in record.headers)


def raw(refused: RefusedDeadLetter) -> Headers:
    """Return the headers of a dead letter that its topic refused."""
    return [(name, None if value is None else value.raw()) for name, value in refused.headers]


def source_place(headers: Headers) -> int:
    """Return the place of a dead letter's event."""
    incarnation, item = (int(header(headers, name, "0")) for name in ("source-incarnation", "item"))
    return place_of(incarnation, int(header(headers, "source-offset")), item)


def header(headers: Headers, name: str, absent: str | None = None) -> str:
    """Return a header that a dead letter adds."""
    value = next((value for key, value in headers if key == PREFIX + name), absent)
    return value.decode() if isinstance(value, bytes) else str(value)
