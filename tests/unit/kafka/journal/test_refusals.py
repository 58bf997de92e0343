"""When a partition that the broker refuses is given up: what only memory knows of it goes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unittest.mock import Mock

import pytest

from consumer.core.ownership import Assignment
from consumer.kafka.facts import Dropped, GivenUp, OutcomesRefused, Refused
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.meanings import OverranError, RefusedError
from consumer.kafka.journal.refusals import OFFSETS_AGAIN_S, REFUSALS
from consumer.kafka.journal.writes import Begin, DeadLetter, Position, Put, Tombstone
from consumer.kafka.records.dead_letters import DeadLetterRecord
from schemas.dead_letter import Reason
from tests.unit.kafka.journal.tried_transactions import TriedTransactions

REFUSED, OTHER = Assignment("orders", 0, 1), Assignment("returns", 0, 1)
BESIDE = [Assignment("orders", number, 1) for number in range(1, 12)]  # of the same topic


class Refusing(TriedTransactions):
    """Its broker refuses a topic's offsets so often, and takes another one's meanwhile if that is `served`."""

    def __init__(self, times: float, *, served: bool = True, topic: str | None = None, only: bool = False) -> None:
        """`topic`: whose records are refused; None: it is the offsets. `only`: there is no other one."""
        self.times, self._served = times, served
        self._refused_topics = [] if topic is None else [topic]
        self.refused_within_s: list[float] = []
        all_of_them = [REFUSED, *BESIDE, *([] if only else [OTHER])]
        super().__init__(all_of_them, replace_too_large=Mock())
        self.settle([Begin(each, [], 0, 0) for each in all_of_them])

    def _wait(self, seconds: float) -> None:
        super()._wait(seconds)
        if len(self.paused) == 20:  # the broker takes everything again
            self.times, self._served = 0, True

    def _try(self, batches: Sequence[Batch]) -> None:
        is_refused = any(batch.assignment.topic == "orders" for batch in batches)
        if is_refused and self.times > 0:
            self.times -= 1
            self.refused_within_s.append(self._producers.offsets_s)
            raise RefusedError("UNKNOWN_TOPIC_OR_PART", topics=self._refused_topics, whole_topic=True)
        if not is_refused and not self._served:
            raise RefusedError("UNKNOWN_TOPIC_OR_PART", whole_topic=True)


@pytest.mark.parametrize("times", range(1, REFUSALS))
def test_a_topic_that_was_made_again_between_the_refusal_and_the_look_at_the_others_costs_nothing(times: int) -> None:
    """The others are served then, so it looked as if this partition alone were refused."""
    transactions = Refusing(times)
    write = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([write])

    assert transactions.taken == [write]
    assert not transactions.of(GivenUp)
    assert not transactions.of(Dropped)


def test_a_partition_that_is_refused_again_and_again_while_others_are_served_is_given_up() -> None:
    transactions = Refusing(math.inf)
    transactions.settle([Put(REFUSED, b"0:0:r", b"pending", next_offset=1)])
    following = Put(OTHER, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([following])

    assert REFUSED in {each.assignment for each in transactions.of(GivenUp)}
    assert transactions.taken == [following]
    assert sum(transactions.paused) < 1.0


def test_the_others_wait_for_a_deleted_topic_once_however_many_partitions_it_has() -> None:
    """A refusal takes all of the transaction's time: librdkafka asks again until then whether the topic is there."""
    transactions = Refusing(math.inf)
    transactions.settle([Put(each, b"0:0:r", b"pending", next_offset=1) for each in (REFUSED, *BESIDE, OTHER)])

    assert {each.assignment for each in transactions.of(GivenUp)} == {REFUSED, *BESIDE}
    assert transactions.refused_within_s == [math.inf, *[OFFSETS_AGAIN_S] * REFUSALS]
    assert [write.assignment for write in transactions.taken] == [OTHER]


def test_all_partitions_of_a_delay_topic_that_takes_no_record_are_given_up_together() -> None:
    """Otherwise those that were written last are asked whether the broker takes anything, and the others wait on."""
    transactions = Refusing(math.inf, topic="orders.delay")
    for each in BESIDE:
        transactions._partitions.states[each].committed_at = math.inf
    transactions.settle([Put(each, b"0:0:r", b"pending", next_offset=1) for each in (REFUSED, OTHER)])

    assert {each.assignment for each in transactions.of(GivenUp)} == {REFUSED, *BESIDE}
    assert [write.assignment for write in transactions.taken] == [OTHER]


def test_while_nobody_is_served_nothing_is_dropped() -> None:
    transactions = Refusing(math.inf, served=False)
    write = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([write])

    assert len(transactions.paused) == 20
    assert transactions.taken == [write]
    assert transactions.of(GivenUp) == []


def test_of_an_instance_that_owns_nothing_else_what_is_refused_is_named() -> None:
    """Nobody else shows that the broker takes anything, so nothing is given up: it is tried on."""
    transactions = Refusing(math.inf, only=True)
    write = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([write])

    assert {tuple(fact.assignments) for fact in transactions.of(Refused)} == {(REFUSED, *BESIDE)}
    assert transactions.taken == [write]
    assert not transactions.of(GivenUp)


def test_what_is_refused_for_a_moment_is_not_named() -> None:
    transactions = Refusing(REFUSALS - 1, only=True)
    transactions.settle([Put(REFUSED, b"0:0:r", b"pending", next_offset=1)])

    assert not transactions.of(Refused)


def test_a_commit_in_between_makes_the_count_begin_again() -> None:
    transactions = Refusing(REFUSALS - 1)
    first = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([first])
    transactions.times = REFUSALS - 1
    second = Put(REFUSED, b"0:1:r", b"pending", next_offset=2)
    transactions.settle([second])

    assert transactions.taken == [first, second]


class RefusingOutcomes(TriedTransactions):
    """Its outcomes topic refuses outcomes of actions that were pending, or of others (`alone`), for a while."""

    def __init__(self, *, alone: bool) -> None:
        super().__init__((REFUSED, OTHER), replace_too_large=Mock())
        self._alone = alone
        self.settle([Begin(each, [], 0, 0) for each in (REFUSED, OTHER)])

    def _try(self, batches: Sequence[Batch]) -> None:
        letters = [each.outcome for batch in batches for each in batch.dead_letters if each.key is None]
        alone = [each for batch in batches for each in batch.outcomes_alone] + [each for each in letters if each]
        if (alone if self._alone else any(batch.outcomes for batch in batches)) and len(self.paused) < 20:
            raise RefusedError("MSG_SIZE_TOO_LARGE", topics={"outcomes"})


def test_an_accepted_action_whose_outcome_is_refused_is_not_sent_again() -> None:
    """Given up, it is restored as in doubt and sent again, and its outcome is refused again: mail after mail."""
    transactions = RefusingOutcomes(alone=False)
    ended = Tombstone(REFUSED, b"0:0:r", outcome=Mock())
    pending = Put(OTHER, b"0:1:r", b"pending", next_offset=1)
    transactions.settle([ended, pending])

    assert transactions.taken == [ended, pending]
    assert len(transactions.paused) == 20
    assert not transactions.of(GivenUp)
    assert not transactions.of(Dropped)


def test_an_outcome_of_what_was_never_pending_stops_nothing() -> None:
    """An event that names no order has an outcome without a key: a compacted topic never takes it."""
    transactions = RefusingOutcomes(alone=True)
    before, behind = (Tombstone(REFUSED, b"0:%d:r" % offset, outcome=Mock()) for offset in (0, 2))
    other = Put(OTHER, b"0:1:r", b"pending", next_offset=1)
    record = DeadLetterRecord(b"k", b"garbage", [])
    letter = DeadLetter(
        assignment=REFUSED, record=record, reason=Reason.UNDECODABLE, offset=1, next_offset=2, outcome=Mock()
    )
    transactions.settle([before, Position(REFUSED, 1, (Mock(),)), letter, behind, other])

    letters = [write for write in transactions.taken if isinstance(write, DeadLetter)]
    assert [(each.record, each.outcome) for each in letters] == [(record, None)]
    assert {before, behind, other} == {*transactions.taken} - {*letters}
    positions = [write for writes in transactions.committed for write in writes if isinstance(write, Position)]
    assert [(each.assignment, each.next_offset, each.outcomes) for each in positions] == [(REFUSED, 1, ())]
    assert not transactions.paused
    assert len(transactions.of(OutcomesRefused)) == 2
    assert not transactions.of(GivenUp)


class Silent(TriedTransactions):
    """Its broker takes nothing of a lost partition, nor of what is in one transaction with it."""

    def _try(self, batches: Sequence[Batch]) -> None:
        assignments = [batch.assignment for batch in batches]
        if REFUSED in assignments and len(self.paused) < 20:
            unwritten = {(f"{each.topic}.delay", each.partition) for each in assignments}
            raise OverranError("timed out", 0, unwritten, others_taken=False)


def test_a_lost_partition_holds_up_no_other_one_that_is_always_written_with_it() -> None:
    """Where there is no third one, nothing shows that the broker takes anything: each is tried alone."""
    both = (REFUSED, OTHER)
    transactions = Silent(both, replace_too_large=Mock())
    transactions.settle([Begin(each, [], 0, 0) for each in both])
    writes = [Put(each, b"0:0:r", b"pending", next_offset=1) for each in both]
    transactions.settle(writes)

    assert transactions.taken == [writes[1]]
    assert [each.assignment for each in transactions.of(GivenUp)] == [REFUSED]
