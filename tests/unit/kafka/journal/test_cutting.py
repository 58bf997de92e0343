"""How a refused transaction is cut: nothing changes its place within its partition."""

from __future__ import annotations

import random

import pytest

from consumer.core.ownership import Assignment
from consumer.kafka.journal.cutting import by_partition, by_topic, fitting, halves
from consumer.kafka.journal.writes import DeadLetter, Position, Put, Write, size_of
from consumer.kafka.records import DeadLetterRecord
from schemas.dead_letter import Reason

ORDERS = [Assignment("orders", n, 1) for n in range(4)]
RETURNS = [Assignment("returns", n, 2) for n in range(2)]


def dead_letter(n: int, assignment: Assignment = ORDERS[0]) -> DeadLetter:
    record = DeadLetterRecord(b"k", b"%d" % n, [])
    return DeadLetter(assignment=assignment, record=record, reason=Reason.REJECTED, offset=n)


def drawn(seed: int) -> list[Write]:
    draw = random.Random(seed)
    return [
        dead_letter(n, draw.choice(ORDERS)) if draw.random() < 0.5 else Position(draw.choice(ORDERS), n)
        for n in range(draw.randint(2, 200))
    ]


@pytest.mark.parametrize("seed", range(50))
def test_a_refused_dead_letter_is_found_with_a_logarithm_of_cuts(seed: int) -> None:
    writes = drawn(seed)
    suspects = {write for write in writes if isinstance(write, DeadLetter)}
    if not suspects:
        return
    culprit = random.Random(seed).choice(sorted(suspects, key=lambda each: each.offset or 0))
    settled: list[Write] = []
    parts, cuts = [writes], 0
    while parts:
        part = parts.pop(0)
        left = [write for write in part if isinstance(write, DeadLetter)]
        if culprit in part and len(left) > 1:
            parts[:0] = halves(part, set(left))
            cuts += 1
        else:
            settled += part

    assert settled == writes
    assert cuts <= len(suspects).bit_length()


def test_partitions_are_cut_by_their_topic_first() -> None:
    writes: list[Write] = [Position(each, 1) for each in (RETURNS[0], ORDERS[0], RETURNS[1], ORDERS[1])]
    cut = by_partition(writes)

    assert cut is not None
    assert [{write.assignment.topic for write in part} for part in cut] == [{"orders"}, {"returns"}]


def test_a_topic_is_not_cut_where_topics_are() -> None:
    writes: list[Write] = [Position(each, 1) for each in (*ORDERS, *RETURNS)]
    cut = by_topic(writes)

    assert cut is not None
    assert [{write.assignment for write in part} for part in cut] == [set(ORDERS), set(RETURNS)]
    assert by_topic(cut[0]) is None


def test_a_partition_alone_is_not_cut() -> None:
    assert by_partition([Position(ORDERS[0], 1), Position(ORDERS[0], 2)]) is None


def test_a_transaction_is_cut_before_it_is_too_large_and_has_one_write_at_least() -> None:
    writes: list[Write] = [Put(ORDERS[0], b"%d" % n, b"v" * 100) for n in range(7)]

    assert [len(part) for part in fitting(writes, 250)] == [2, 5]
    assert [len(part) for part in fitting(writes, 10)] == [1, 6]
    assert [len(part) for part in fitting(writes, 700)] == [7, 0]
    assert sum(map(size_of, writes)) == 700
