"""How a transaction is cut that the broker refuses, until what it refuses stands alone. Pure.

The order within a partition stays: a position never moves past an event whose own write is not safe.
Each cut halves what may be the reason, so one refused record costs some log2(n) transactions more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from consumer.kafka.journal.writes import DeadLetter, Write, goes_on, size_of


def halves(writes: Sequence[Write], suspects: Collection[DeadLetter]) -> tuple[list[Write], list[Write]]:
    """Cut where half of the suspects have come; there must be two of them at least."""
    come = 0
    for index, write in enumerate(writes, 1):
        come += isinstance(write, DeadLetter) and write in suspects
        if 2 * come >= len(suspects) and not goes_on(writes[:index]):
            return list(writes[:index]), list(writes[index:])
    raise ValueError("there are fewer suspects")


def by_partition(writes: Sequence[Write]) -> tuple[list[Write], list[Write]] | None:
    """Cut into half of the partitions and the others, a source topic's together; None where there is only one."""
    assignments = sorted({write.assignment for write in writes})
    if len(assignments) < 2:
        return None
    first = set(assignments[: len(assignments) // 2])
    return [w for w in writes if w.assignment in first], [w for w in writes if w.assignment not in first]


def by_topic(writes: Sequence[Write]) -> tuple[list[Write], list[Write]] | None:
    """Cut into half of the source topics and the others; None where there is only one."""
    topics = sorted({write.assignment.topic for write in writes})
    if len(topics) < 2:
        return None
    first = set(topics[: len(topics) // 2])
    return [w for w in writes if w.assignment.topic in first], [w for w in writes if w.assignment.topic not in first]


def fitting(writes: Sequence[Write], limit: int) -> tuple[list[Write], list[Write]]:
    """Cut before the write with which the transaction would be larger than `limit` bytes; it has one at least."""
    size = 0
    for index, write in enumerate(writes):
        size += size_of(write)
        if index and size > limit and not goes_on(writes[:index]):
            return list(writes[:index]), list(writes[index:])
    return list(writes), []
