"""Which writes go into one transaction, and how long they wait for it."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from consumer.core.effects import ActionId, Times
from consumer.core.ownership import Assignment
from consumer.kafka.journal.waiting_writes import (
    COMPANY,
    END_S,
    INTENT_S,
    MAX_WRITES,
    NEW_S,
    WaitingWrites,
    patience_s,
)
from consumer.kafka.journal.writes import Barrier, Begin, DeadLetter, Intent, Item, Position, Put, Tombstone
from consumer.kafka.outcomes.outcomes import EndedAction
from consumer.kafka.records import DeadLetterRecord
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName

ASSIGNMENT = Assignment("orders", 0, 1)
ENDED = EndedAction(outcome=OutcomeName.ACCEPTED, payload=b"", ended=1000.0, times=Times(first_seen=1000.0))
LETTER = DeadLetterRecord(key=None, value=None, headers=[])


class Clock:
    """Stands still until it is moved. `asked`: the journal's thread waits for company."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = threading.Event()

    def __call__(self) -> float:
        self.asked.set()
        return self.now


class Queue:
    """A journal's thread that takes once, and whoever submits."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.writes = WaitingWrites(self.clock)
        self._thread = ThreadPoolExecutor(1)

    def take(self) -> Future[list[Item]]:
        return self._thread.submit(self.writes.take)

    def close(self) -> None:
        self.clock.now += NEW_S
        self.writes.close()
        self._thread.shutdown()


@pytest.fixture
def queue() -> Iterator[Queue]:
    queue = Queue()
    yield queue
    queue.close()


def new_action(offset: int) -> Put:
    return Put(ASSIGNMENT, b"0:%d:r" % offset, b"pending", next_offset=offset + 1)


def intent(offset: int) -> Put:
    return Put(ASSIGNMENT, b"0:%d:r" % offset, b"intent", intent=Intent(ActionId(ASSIGNMENT, offset), 1))


def test_new_actions_wait_for_company_and_an_intent_takes_them_along(queue: Queue) -> None:
    first, second, sent = new_action(0), new_action(1), intent(2)
    taken = queue.take()
    queue.writes.submit([first])
    assert queue.clock.asked.wait(10)
    queue.writes.submit([second])

    queue.writes.submit([sent])
    queue.clock.now += INTENT_S

    assert taken.result(10) == [first, second, sent]


def test_a_new_action_that_stays_alone_is_safe_within_the_patience(queue: Queue) -> None:
    write = new_action(0)
    queue.writes.submit([write])
    taken = queue.take()
    queue.clock.now += NEW_S

    assert taken.result(10) == [write]


def test_so_many_that_they_are_worth_a_transaction_wait_for_no_more(queue: Queue) -> None:
    taken = queue.take()
    for offset in range(COMPANY - 1):
        queue.writes.submit([new_action(offset)])
        assert queue.clock.asked.wait(10)

    queue.writes.submit([new_action(COMPANY)])

    assert len(taken.result(10)) == COMPANY


def test_the_end_waits_for_nothing(queue: Queue) -> None:
    write = new_action(0)
    queue.writes.submit([write])
    taken = queue.take()
    assert queue.clock.asked.wait(10)
    queue.writes.close()

    assert taken.result(10) == [write]
    assert queue.take().result(10) == []


def test_what_a_full_transaction_left_waits_for_no_more(queue: Queue) -> None:
    left = new_action(MAX_WRITES)
    queue.writes.submit(intent(offset) for offset in range(MAX_WRITES))
    queue.writes.submit([left])

    assert len(queue.take().result(10)) == MAX_WRITES
    assert queue.take().result(10) == [left]


def test_the_first_write_that_may_wait_no_more_takes_the_others_along(queue: Queue) -> None:
    new, sent, ended = new_action(0), intent(1), Tombstone(ASSIGNMENT, b"0:2:r")
    queue.writes.submit([new])
    queue.writes.submit([sent])
    queue.writes.submit([ended])
    taken = queue.take()
    assert queue.clock.asked.wait(10)
    queue.clock.now += END_S

    assert taken.result(10) == [new, sent, ended]


def test_a_write_that_may_wait_longer_does_not_hold_up_the_one_before(queue: Queue) -> None:
    sent, new = intent(0), new_action(1)
    queue.writes.submit([sent])
    queue.clock.now += INTENT_S / 2
    queue.writes.submit([new])
    queue.clock.now += INTENT_S / 2

    assert queue.take().result(10) == [sent, new]


@pytest.mark.parametrize(
    "write",
    [
        Put(ASSIGNMENT, b"0:0:r", b"withdrawn"),
        Put(ASSIGNMENT, b"0:0:r", b"a second record", next_offset=1, outcome=ENDED),
        DeadLetter(assignment=ASSIGNMENT, record=LETTER, reason=Reason.REJECTED, offset=0),
        Position(ASSIGNMENT, 1, outcomes=(ENDED,)),
        Begin(ASSIGNMENT, [], 0, 0),
        Barrier(ASSIGNMENT),
    ],
    ids=lambda write: type(write).__name__,
)
def test_what_others_stand_still_for_never_waits(queue: Queue, write: Item) -> None:
    queue.writes.submit([write])

    assert queue.take().result(10) == [write]


@pytest.mark.parametrize(
    ("write", "seconds"),
    [
        (new_action(0), NEW_S),
        (Put(ASSIGNMENT, b"0:0:r", b"of several", with_next=True), NEW_S),
        (Position(ASSIGNMENT, 1), NEW_S),
        (intent(0), INTENT_S),
        (Tombstone(ASSIGNMENT, b"0:0:r"), END_S),
    ],
    ids=["a new action", "one of several of an event", "a position alone", "an intent", "the end of an action"],
)
def test_how_long_a_write_may_wait_for_company(write: Item, seconds: float) -> None:
    assert patience_s(write) == seconds
