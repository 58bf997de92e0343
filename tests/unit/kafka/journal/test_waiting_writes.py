"""Which writes go into one transaction, and how long they wait for it."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from consumer.core.effects import ActionId, Times
from consumer.core.ownership import Assignment
from consumer.kafka.journal.waiting_writes import COMPANY, MAX_WRITES, PATIENCE_S, WaitingWrites, may_wait
from consumer.kafka.journal.writes import Barrier, Intent, Item, Position, Put, Tombstone
from consumer.kafka.outcomes.outcomes import EndedAction
from schemas.outcome import OutcomeName

ASSIGNMENT = Assignment("orders", 0, 1)
ENDED = EndedAction(outcome=OutcomeName.ACCEPTED, payload=b"", ended=1000.0, times=Times(first_seen=1000.0))


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
        self.clock.now += PATIENCE_S
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

    assert taken.result(10) == [first, second, sent]


def test_a_new_action_that_stays_alone_is_safe_within_the_patience(queue: Queue) -> None:
    write = new_action(0)
    queue.writes.submit([write])
    taken = queue.take()
    queue.clock.now += PATIENCE_S

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


def test_what_is_left_of_a_long_queue_is_as_urgent_as_its_writes(queue: Queue) -> None:
    queue.writes.submit(intent(offset) for offset in range(MAX_WRITES))
    queue.writes.submit([new_action(MAX_WRITES)])
    assert len(queue.take().result(10)) == MAX_WRITES
    queue.clock.asked.clear()

    taken = queue.take()
    assert queue.clock.asked.wait(10)
    queue.clock.now += PATIENCE_S
    assert len(taken.result(10)) == 1


@pytest.mark.parametrize(
    "write",
    [
        intent(0),
        Tombstone(ASSIGNMENT, b"0:0:r"),
        Put(ASSIGNMENT, b"0:0:r", b"withdrawn"),
        Put(ASSIGNMENT, b"0:0:r", b"a second record", next_offset=1, outcome=ENDED),
        Position(ASSIGNMENT, 1, outcomes=(ENDED,)),
        Barrier(ASSIGNMENT),
    ],
    ids=lambda write: type(write).__name__,
)
def test_what_others_wait_for_never_waits(queue: Queue, write: Item) -> None:
    queue.writes.submit([write])

    assert not may_wait(write)
    assert queue.take().result(10) == [write]


def test_a_position_alone_is_only_progress() -> None:
    assert may_wait(Position(ASSIGNMENT, 1))


def test_all_new_actions_of_one_event_may_wait() -> None:
    assert may_wait(Put(ASSIGNMENT, b"0:0:r", b"pending", with_next=True))
