"""How long the others wait for partitions that are lost, and that none is taken for lost that is merely slow.

The broker is a few lines here, on a clock of the test's own: what is lost takes nothing and keeps the transactional.id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast
from unittest.mock import Mock

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.core.ownership import Assignment
from consumer.kafka.facts import Committed, DeadLetterRefused, Dropped, Fact, GivenUp
from consumer.kafka.journal.transactions import TRANSACTION_S, Transactions
from consumer.kafka.journal.writes import Begin, DeadLetter, Position, Put, Write
from consumer.kafka.records.dead_letters import DeadLetterRecord
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import Reason
from schemas.pending_action import SourceIdentity
from tests.unit.kafka.journal.tried_transactions import owned

LETTERS = "dead-letters"
ALL = [Assignment("orders", number, 1) for number in range(9)]
LOST = [ALL[1], ALL[4], ALL[7]]
OTHERS = [each for each in ALL if each not in LOST]


def put(assignment: Assignment, offset: int = 0) -> Put:
    return Put(assignment, b"0:%d:r" % offset, b"pending", next_offset=offset + 1)


@dataclass(slots=True)
class Broker:
    """`takes_s`: how long a partition's record takes: for ever where it is lost."""

    now: float = 0.0
    lost: set[int] = field(default_factory=set)
    letters_lost: set[int] = field(default_factory=set)  # of the dead-letter topic
    takes_s: dict[int, float] = field(default_factory=dict)
    takes_later_s: dict[int, float] | None = None  # from the second transaction on
    back_at: dict[int, float] = field(default_factory=dict)  # of what is lost
    blocked: set[int] = field(default_factory=set)  # successors of the transactional.id
    transactions: list[set[int]] = field(default_factory=list)  # the partitions of each

    def is_lost(self, topic: str, partition: int) -> bool:
        lost = self.letters_lost if topic == LETTERS else self.lost
        return partition in lost and self.now < self.back_at.get(partition, math.inf)


@cache
def message_of(topic: str, partition: int) -> Message:
    message = Mock(**{"topic.return_value": topic, "partition.return_value": partition})
    message.offset.return_value, message.value.return_value = 1, b""
    return cast("Message", message)


class FakeProducer:
    def __init__(self, broker: Broker, successor: int) -> None:
        self._broker = broker
        self._successor = successor
        self._waiting: list[tuple[str, int, float, Callable[[KafkaError | None, Message], None]]] = []

    def init_transactions(self, timeout: float) -> None:
        if self._successor in self._broker.blocked:
            self._broker.now += timeout
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def begin_transaction(self) -> None:
        self._broker.transactions.append(set())
        if len(self._broker.transactions) > 1 and self._broker.takes_later_s is not None:
            self._broker.takes_s = self._broker.takes_later_s

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, **options: Any) -> None:
        self._broker.transactions[-1].add(partition)
        if self._broker.is_lost(topic, partition):
            self._broker.blocked.add(self._successor)
        self._waiting.append((topic, partition, self._broker.now, options["on_delivery"]))

    def flush(self, timeout: float) -> int:
        if self._waiting:
            self._broker.now += timeout
        waiting, self._waiting = self._waiting, []
        for topic, partition, since, delivered in waiting:
            waits_s = self._broker.now - since
            message = message_of(topic, partition)
            if not self._broker.is_lost(topic, partition) and waits_s >= self._broker.takes_s.get(partition, 0):
                delivered(None, message)
            elif waits_s >= TRANSACTION_S:
                delivered(KafkaError(KafkaError._MSG_TIMED_OUT), message)
            else:
                self._waiting.append((topic, partition, since, delivered))
        return len(self._waiting)

    def send_offsets_to_transaction(self, *_: object) -> None: ...

    def commit_transaction(self, timeout: float) -> None: ...

    def abort_transaction(self, timeout: float) -> None: ...

    def purge(self) -> None:
        self._waiting.clear()


@dataclass(slots=True)
class FakeClients:
    broker: Broker

    def producer(self, *, one_by_one: bool, successor: int) -> Producer:
        return cast("Producer", FakeProducer(self.broker, successor))

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        return partitions


class Journal(Transactions):
    """Of all the partitions; keeps what it reports, with the time."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.reported: list[tuple[float, Fact]] = []
        super().__init__(
            FakeClients(broker),
            topics={"orders": RelayTopics("orders", "orders.delay", LETTERS, None)},
            identities={"orders": SourceIdentity(group="g", topic="orders")},
            ownership=lambda: owned(ALL),
            clock=lambda: broker.now,
            pause=self._wait,
            report=lambda fact: self.reported.append((broker.now, fact)),
            replace_too_large=Mock(),
        )
        self.settle([Begin(each, [], 0, 0) for each in ALL])

    def _wait(self, seconds: float) -> None:
        self.broker.now += seconds

    @property
    def given_up(self) -> list[Assignment]:
        return [fact.assignment for _, fact in self.reported if isinstance(fact, GivenUp)]

    def waited_s(self, writes: Collection[Write]) -> float:
        """Settle these; return when the last one of those that are not lost was committed."""
        since, seen = self.broker.now, len(self.reported)
        puts = {each for each in writes if isinstance(each, Put)}
        self.settle(list(writes))
        return max(
            at - since
            for at, fact in self.reported[seen:]
            if isinstance(fact, Committed) and not puts.isdisjoint(fact.writes)
        )


def test_of_several_lost_partitions_the_others_wait_for_one_attempt() -> None:
    journal = Journal(Broker(lost={each.partition for each in LOST}))
    served_s = journal.waited_s([put(each) for each in ALL])

    assert journal.given_up == LOST
    assert served_s < TRANSACTION_S + 3  # before the lost ones are asked
    assert journal.broker.now < 20


def test_a_lost_partition_that_nothing_was_written_of_is_found_out_with_the_one_that_was() -> None:
    """Otherwise each waits for its next event, and the others wait for each of them."""
    journal = Journal(Broker(lost={each.partition for each in LOST}))
    journal.settle([put(LOST[0])])

    assert journal.given_up == LOST
    assert journal.broker.now < 20
    assert journal.waited_s([put(each) for each in OTHERS]) < 1


def test_a_partition_that_was_given_up_is_asked_before_the_others_wait_for_it_again() -> None:
    """It may be restored and take no record all the same: too few of its copies are in sync."""
    journal = Journal(Broker(lost={each.partition for each in LOST}))
    journal.settle([put(each) for each in ALL])
    journal.settle([Begin(each, [], 0, 0) for each in LOST])
    since = journal.broker.now
    served_s = journal.waited_s([put(each, 1) for each in ALL])

    assert journal.given_up == [*LOST, *LOST]
    assert served_s < 1
    assert journal.broker.now - since < 7

    journal.broker.lost.clear()
    journal.settle([Begin(each, [], 0, 0) for each in LOST])
    assert journal.waited_s([put(each, 2) for each in ALL]) < 1
    assert journal.given_up == [*LOST, *LOST]


def test_a_partition_that_is_slow_once_is_written_as_soon_as_it_takes_its_record() -> None:
    journal = Journal(Broker(takes_s={LOST[0].partition: 8.0}))
    writes = [put(each) for each in (LOST[0], OTHERS[0])]

    assert journal.waited_s(writes) < 9
    assert not journal.given_up


def test_where_all_are_slow_a_slower_one_is_waited_for_so_much_longer() -> None:
    """A thin uplink, or a quota: it took nothing in full time, for the others' sake, and it is the last one now."""
    slow = {each.partition: 12.0 for each in LOST}
    journal = Journal(Broker(takes_s=slow, takes_later_s=dict.fromkeys(range(9), 2.5) | dict.fromkeys(slow, 9.0)))
    writes = [put(each) for each in ALL]
    journal.settle(writes)

    committed = [write for _, fact in journal.reported if isinstance(fact, Committed) for write in fact.writes]
    assert set(writes) == {write for write in committed if not isinstance(write, Position)}
    assert not journal.given_up
    assert not [fact for _, fact in journal.reported if isinstance(fact, Dropped)]


def test_a_lost_partition_is_found_out_where_all_are_slow() -> None:
    """The others' transactions are late, too. What is asked in them is none of the suspects."""
    journal = Journal(Broker(lost={LOST[0].partition}, takes_s=dict.fromkeys(range(9), 4.0)))
    writes = [put(each) for each in ALL]

    assert journal.waited_s(writes) < TRANSACTION_S + 7
    assert journal.given_up == LOST[:1]


def test_a_partition_whose_leader_comes_last_after_an_outage_is_not_given_up() -> None:
    """While nobody was served, its silence said nothing of it: it is as good as one that is silent for once."""
    for others_back_at in range(30, 45):
        journal = Journal(Broker(lost={each.partition for each in ALL}))
        journal.broker.back_at = {each.partition: float(others_back_at) for each in ALL}
        journal.broker.back_at[LOST[0].partition] += 4.0
        writes = [put(each) for each in ALL]
        journal.settle(writes)
        assert not journal.given_up, others_back_at


def test_where_the_broker_takes_nothing_at_all_no_partition_is_given_up() -> None:
    everywhere = {each.partition for each in ALL}
    journal = Journal(Broker(lost=everywhere, back_at=dict.fromkeys(everywhere, 100.0)))
    writes = [put(each) for each in ALL]
    journal.settle(writes)

    assert not journal.given_up
    assert not [fact for _, fact in journal.reported if isinstance(fact, Dropped)]


def letter(assignment: Assignment, offset: int) -> DeadLetter:
    record = DeadLetterRecord(b"k", b"{no json", [])
    return DeadLetter(
        assignment=assignment, record=record, reason=Reason.UNDECODABLE, offset=offset, next_offset=offset + 1
    )


def test_where_a_dead_letter_partition_is_lost_no_new_dead_letter_holds_up_the_others() -> None:
    journal = Journal(Broker(letters_lost={1}))
    puts = [[put(each, offset) for each in OTHERS] for offset in range(4)]

    first_s = journal.waited_s([letter(ALL[1], 0), *puts[0]])
    another_s = journal.waited_s([letter(ALL[1], 1), *puts[1]])
    (kept, _) = (fact.write for _, fact in journal.reported if isinstance(fact, DeadLetterRefused))
    retry_s = journal.waited_s([kept, *puts[2]])

    assert first_s < 2 * TRANSACTION_S + 10
    assert another_s < 1
    assert retry_s < TRANSACTION_S + 5
    assert journal.given_up == []

    journal.broker.letters_lost.clear()
    journal.settle([kept])
    assert journal.waited_s([letter(ALL[1], 2), *puts[3]]) < 1
    letters = [each for _, fact in journal.reported if isinstance(fact, Committed) for each in fact.writes]
    assert [each.offset for each in letters if isinstance(each, DeadLetter)] == [0, 2]
