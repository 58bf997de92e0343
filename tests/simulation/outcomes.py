"""The oracle's count of outcomes: one for each action that ended, in the transaction that ended it.

Excused: what a delayed request made visible in part. The same outcome may then be there a second time, or be missing
where its tombstone alone became visible and its writer died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from consumer.core.places import offset_at
from consumer.kafka.outcomes.outcomes import key_of, read_outcome
from consumer.kafka.records import place_of_key
from schemas.dead_letter import PREFIX
from schemas.outcome import Outcome, OutcomeName
from schemas.pending_action import POSITION_KEY, RefusedDeadLetter
from tests.simulation.kafka_model import Log, Record, Transaction
from tests.simulation.process import TOPICS
from tests.simulation.workload import Event

TOPIC = TOPICS.outcomes or ""
At = tuple[int, int]
"""A partition and the source offset of an event in it."""


class Outcomes:
    """What the committed log of the outcomes topic says, by event."""

    def __init__(self) -> None:
        self.counted: Counter[At] = Counter()
        self._torn: Counter[At] = Counter()
        self._ended_unheard: set[At] = set()  # a tombstone became visible, perhaps without its outcome
        self._torn_dead_letters: set[tuple[At, str]] = set()

    def tear(self, log: Log, record: Record) -> None:
        """It is visible although its transaction is not committed as its writer meant it."""
        if log.topic == TOPIC:
            self._torn[_at(_read(record))] += 1
        elif (dead_letter := _dead_letter(log, record)) is not None:
            self._torn_dead_letters.add(dead_letter)
            self._ended_unheard.add(dead_letter[0])
        elif log.topic == TOPICS.delay and record.value is None:
            self._ended_unheard.add((log.partition, _offset_of(record)))

    def committed(self, transaction: Transaction, *, torn: bool, bereft: Callable[[At], bool]) -> str | None:
        """Count a transaction's outcomes. Returns what is wrong with it as a whole.

        `bereft`: whether the delay topic took an event's tombstone along when it was deleted.
        """
        found = [_read(record) for log, record in transaction.records if log.topic == TOPIC]
        self.counted.update(map(_at, found))
        if torn:
            return None
        given_up = [one for one in found if one.outcome is OutcomeName.DEAD_LETTER]
        said = {(_at(one), str(one.reason)) for one in given_up}
        dead_letters = {each for log, r in transaction.records if (each := _dead_letter(log, r)) is not None}
        if any(not bereft(at) for at, _ in said - dead_letters - self._torn_dead_letters):
            return f"a transaction has the dead letters {dead_letters}, and outcomes say {said}"
        tombstones = {
            (log.partition, _offset_of(record))
            for log, record in transaction.records
            if log.topic == TOPICS.delay and record.value is None
        }
        of_pending = [one for one in found if one not in given_up and one.outcome is not OutcomeName.REPEAT]
        alone = set(map(_at, of_pending)) - tombstones - self._ended_unheard
        alone = {at for at in alone if not bereft(at)}
        return f"outcomes of {alone} without their tombstones" if alone else None

    def what_is_wrong(self, event: Event, *, read: bool, pending: bool, dead_letter: bool, repeat: bool) -> str | None:
        """Say what is wrong with an event's outcomes."""
        at = event.partition, event.offset
        count, torn = self.counted[at], self._torn[at]
        has_ended = read and not pending and (dead_letter or repeat or (event.payload and event.accepted > 0))
        most = torn + has_ended
        least = int(has_ended and not event.bereft and at not in self._ended_unheard)
        return None if least <= count <= most else f"{count} outcomes, of at least {least} and at most {most}"

    def differs_from(self, number: int, settled: Iterable[Record]) -> bool:
        """Whether a partition's log holds others than were counted."""
        counted = Counter({at: count for at, count in self.counted.items() if at[0] == number})
        return Counter(_at(_read(record)) for record in settled) != counted


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


def _at(outcome: Outcome) -> At:
    return outcome.place.partition, outcome.place.offset


def _dead_letter(log: Log, record: Record) -> tuple[At, str] | None:
    """Return the event and the reason of a dead letter, also of one that its topic refused; None for other records."""
    if log.topic == TOPICS.dead_letters:
        return (log.partition, int(_header(record, "source-offset"))), _header(record, "reason")
    if log.topic == TOPICS.delay and b'"state":"refused"' in (record.value or b"")[:40]:
        refused = RefusedDeadLetter.model_validate_json(record.value or b"")
        return (log.partition, refused.offset or 0), refused.reason
    return None


def _offset_of(record: Record) -> int:
    """Return the offset of a tombstone's action; -1 for a dead letter's that was none."""
    assert record.key != POSITION_KEY
    place = place_of_key(record.key or b"")
    return -1 if place is None else offset_at(place)


def _header(record: Record, name: str) -> str:
    value = next(value for key, value in record.headers if key == PREFIX + name)
    return value.decode() if isinstance(value, bytes) else str(value)
