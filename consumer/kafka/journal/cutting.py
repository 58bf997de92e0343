"""How a transaction is cut that the broker refuses, until what it refuses stands alone. Pure.

The order within a partition stays: a position never moves past an event whose own write is not safe.
Each cut halves what may be the reason, so one refused record costs some log2(n) transactions more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from consumer.core.ownership import Assignment
from consumer.kafka.journal.writes import DeadLetter, Put, PutAnswer, Write, goes_on, size_of

K = TypeVar("K", Assignment, str)


def halves(writes: Sequence[Write], suspects: Collection[DeadLetter]) -> tuple[list[Write], list[Write]]:
    """Cut where half of the suspects have come; there must be two of them at least."""
    come = 0
    for index, write in enumerate(writes, 1):
        come += isinstance(write, DeadLetter) and write in suspects
        if 2 * come >= len(suspects) and not goes_on(writes[:index]):
            return list(writes[:index]), list(writes[index:])
    raise ValueError("there are fewer suspects")


def in_two(writes: Sequence[Write]) -> tuple[list[Write], list[Write]] | None:
    """Cut in the middle, or as near to it as what belongs together lets; None where all of it does."""
    middle = len(writes) // 2
    for index in sorted(range(1, len(writes)), key=lambda index: abs(index - middle)):
        if not goes_on(writes[:index]):
            return list(writes[:index]), list(writes[index:])
    return None


def by_partition(writes: Sequence[Write]) -> tuple[list[Write], list[Write]] | None:
    """Cut into half of the partitions and the others, a source topic's together; None where there is only one."""
    return _halved(writes, lambda write: write.assignment)


def by_topic(writes: Sequence[Write]) -> tuple[list[Write], list[Write]] | None:
    """Cut into half of the source topics and the others; None where there is only one."""
    return _halved(writes, lambda write: write.assignment.topic)


def _halved(writes: Sequence[Write], of: Callable[[Write], K]) -> tuple[list[Write], list[Write]] | None:
    kinds = sorted({of(write) for write in writes})
    if len(kinds) < 2:
        return None
    first = set(kinds[: len(kinds) // 2])
    return [write for write in writes if of(write) in first], [write for write in writes if of(write) not in first]


def fitting(writes: Sequence[Write], limit: int) -> tuple[list[Write], list[Write]]:
    """Cut before the write with which the transaction would be larger than `limit` bytes; it has one at least."""
    size = 0
    for index, write in enumerate(writes):
        size += size_of(write)
        if index and size > limit and not goes_on(writes[:index]):
            return list(writes[:index]), list(writes[index:])
    return list(writes), []


def without_answers(
    writes: Sequence[Write], refusing: Collection[str | None], control: str | None
) -> tuple[list[Write], list[PutAnswer]]:
    """Cut the answers out that these topics do not take, with what begins by them; returns the others, and them.

    `control`: the control topic. What ends an action stays: it has happened.
    """
    answers = [
        write
        for write in writes
        if isinstance(write, PutAnswer)
        and (control in refusing or (write.redriven is not None and write.redriven.topic in refusing))
    ]
    if not answers:
        return list(writes), answers
    left: list[Write] = []
    is_answered = False  # what comes next is written with a refused answer
    for write in writes:
        is_new = is_answered and isinstance(write, Put | DeadLetter) and write.requested
        if is_new or (isinstance(write, PutAnswer) and write in answers):
            is_answered = isinstance(write, Put | DeadLetter | PutAnswer) and write.with_next
        else:
            is_answered = False
            left.append(write)
    return left, answers
