"""Dead letters that their topic refused: when they are tried again."""

from __future__ import annotations

import math
from itertools import pairwise

from consumer.core.ownership import Assignment
from consumer.kafka.journal.writes import DeadLetter
from consumer.kafka.records.dead_letters import DeadLetterRecord
from consumer.kafka.refused import kept, read
from consumer.relay.refused import MAX_AT_ONCE, RETRY_S, RefusedDeadLetters
from schemas.dead_letter import Reason

OURS = Assignment("orders", 0, 1)
OTHER = Assignment("orders", 1, 2)


def refused(n: int, assignment: Assignment = OURS) -> DeadLetter:
    record = DeadLetterRecord(None, b"\xff%d" % n, [("engage-relay-detail", b"why"), ("h", None)])
    write = DeadLetter(assignment=assignment, record=record, reason=Reason.UNDECODABLE, offset=n, next_offset=n + 1)
    keeps = kept(write, f"{n}").keeps
    assert keeps is not None
    return keeps


def test_a_refused_dead_letter_is_read_back_as_it_was() -> None:
    keeps = refused(7)
    assert keeps.key is not None
    waiting = RefusedDeadLetters()
    waiting.refused(keeps, "no", 0.0)
    (put,) = waiting.rewrite(OURS, keeps.key)
    restored = read(OURS, put.key, put.value)

    assert restored is not None
    assert (restored.record, restored.reason, restored.offset) == (keeps.record, keeps.reason, 7)
    assert restored.is_kept
    assert restored.next_offset is None


def test_a_topic_that_refuses_all_of_them_is_tried_after_growing_waits() -> None:
    waiting, now, tried = RefusedDeadLetters(), 0.0, []
    for n in range(200):
        waiting.refused(refused(n), "no", now)
    for _ in range(8):
        now = waiting.next_retry
        due = waiting.take_due(now)
        assert len(due) == MAX_AT_ONCE
        assert waiting.take_due(now) == []  # while these are under way
        tried.append(now)
        for write in due:
            waiting.refused(write, "no", now)

    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits == [*RETRY_S[1:], *[RETRY_S[-1]] * 3]
    assert waiting.count == 200


def test_each_gets_its_try() -> None:
    waiting, seen = RefusedDeadLetters(), set()
    for n in range(3 * MAX_AT_ONCE):
        waiting.refused(refused(n), "no", 0.0)
    for _ in range(3):
        now = waiting.next_retry
        for write in waiting.take_due(now):
            seen.add(write.offset)
            waiting.refused(write, "no", now)

    assert seen == set(range(3 * MAX_AT_ONCE))


def test_once_the_topic_takes_one_the_others_follow_at_once() -> None:
    waiting = RefusedDeadLetters()
    for n in range(2 * MAX_AT_ONCE):
        waiting.refused(refused(n), "no", 0.0)
    now = waiting.next_retry
    while due := waiting.take_due(now):
        for write in due:
            waiting.committed(write, now)

    assert (waiting.count, waiting.bytes, waiting.next_retry) == (0, 0, math.inf)


def test_a_partition_that_left_takes_its_own_along() -> None:
    waiting = RefusedDeadLetters()
    waiting.refused(refused(1), "no", 0.0)
    waiting.refused(refused(1, OTHER), "no", 0.0)
    assert len(waiting.take_due(10.0)) == 2
    waiting.forget(OURS)
    waiting.refused(refused(2, OTHER), "no", 10.0)

    assert waiting.count == 2
    assert waiting.rewrite(OURS) == []
    assert waiting.figures() == {"orders": (2, "no")}


def test_the_record_of_one_that_is_being_tried_is_not_written_behind_the_try() -> None:
    waiting, keeps = RefusedDeadLetters(), refused(1)
    waiting.refused(keeps, "no", 0.0)
    waiting.take_due(waiting.next_retry)

    assert waiting.rewrite(OURS) == []
    waiting.committed(keeps, 10.0)
    assert waiting.refused(refused(2), "no", 10.0) == []


def test_a_record_is_written_again_once_its_try_has_failed() -> None:
    waiting, keeps = RefusedDeadLetters(), refused(1)
    waiting.refused(keeps, "no", 0.0)
    waiting.take_due(waiting.next_retry)
    waiting.rewrite(OURS, keeps.key)

    (put,) = waiting.refused(keeps, "no", 10.0)
    assert put.key == keeps.key
    assert waiting.refused(keeps, "no", 11.0) == []
