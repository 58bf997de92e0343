"""When a partition that the broker refuses is given up: what only memory knows of it goes with it."""

from __future__ import annotations

import math
import sys
from unittest.mock import Mock

import pytest

from consumer.core.clock import steady_clock
from consumer.core.ownership import Assignment, Ownership
from consumer.kafka.facts import Dropped, Fact, GivenUp
from consumer.kafka.journal.producers import RefusedError
from consumer.kafka.journal.transactions import REFUSALS, Transactions, _Batch
from consumer.kafka.journal.writes import Begin, Position, Put, Write
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

REFUSED, OTHER = Assignment("orders", 0, 1), Assignment("orders", 1, 1)


class Refusing(Transactions):
    """Its broker refuses one partition so often, and takes another one meanwhile if that is `served`."""

    def __init__(self, times: float, *, served: bool = True) -> None:
        self._times, self._served = times, served
        self.reported: list[Fact] = []
        self.paused: list[float] = []
        self.taken: list[Write] = []
        owned = {("orders", 0): 1, ("orders", 1): 1}
        super().__init__(
            Mock(),
            topics={"orders": RelayTopics("orders", "delay", "dead-letters", "outcomes")},
            identities={"orders": SourceIdentity(group="g", topic="orders")},
            ownership=lambda: Ownership(b"CGMDv2:" + (1).to_bytes(4, sys.byteorder), owned),
            clock=steady_clock(),
            pause=self._wait,
            report=self.reported.append,
            replace_too_large=Mock(),
        )
        self.settle([Begin(REFUSED, [], 0, 0), Begin(OTHER, [], 0, 0)])

    def _wait(self, seconds: float) -> None:
        self.paused.append(seconds)
        if len(self.paused) == 20:  # the broker takes everything again
            self._times, self._served = 0, True

    def _commit(self, batches: list[_Batch], ownership: Ownership, transaction: str) -> None:
        is_refused = any(batch.assignment == REFUSED for batch in batches)
        if is_refused and self._times > 0:
            self._times -= 1
            raise RefusedError("UNKNOWN_TOPIC_OR_PART", whole_topic=True)
        if not is_refused and not self._served:
            raise RefusedError("UNKNOWN_TOPIC_OR_PART", whole_topic=True)

    def _transact(self, writes: list[Write], ownership: Ownership) -> None:
        super()._transact(writes, ownership)
        self.taken += [write for write in writes if not isinstance(write, Position)]

    def of(self, kind: type[Fact]) -> list[Fact]:
        return [fact for fact in self.reported if isinstance(fact, kind)]


@pytest.mark.parametrize("times", range(1, REFUSALS))
def test_a_topic_that_was_made_again_between_the_refusal_and_the_look_at_the_others_costs_nothing(times: int) -> None:
    """The others are served then, so it looked as if this partition alone were refused."""
    transactions = Refusing(times)
    write = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([write])

    assert transactions.taken == [write]
    assert transactions.of(GivenUp) == transactions.of(Dropped) == []


def test_a_partition_that_is_refused_again_and_again_while_others_are_served_is_given_up() -> None:
    transactions = Refusing(math.inf)
    transactions.settle([Put(REFUSED, b"0:0:r", b"pending", next_offset=1)])
    following = Put(OTHER, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([following])

    assert len(transactions.of(GivenUp)) == 1
    assert transactions.taken == [following]
    assert sum(transactions.paused) < 1.0


def test_while_nobody_is_served_nothing_is_dropped() -> None:
    transactions = Refusing(math.inf, served=False)
    write = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([write])

    assert len(transactions.paused) == 20
    assert transactions.taken == [write]
    assert transactions.of(GivenUp) == []


def test_a_commit_in_between_makes_the_count_begin_again() -> None:
    transactions = Refusing(REFUSALS - 1)
    first = Put(REFUSED, b"0:0:r", b"pending", next_offset=1)
    transactions.settle([first])
    transactions._times = REFUSALS - 1
    second = Put(REFUSED, b"0:1:r", b"pending", next_offset=2)
    transactions.settle([second])

    assert transactions.taken == [first, second]
