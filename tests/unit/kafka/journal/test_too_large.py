"""A record that the broker refuses as too large: what its dead letter takes over from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consumer.core.ownership import Assignment
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.cutting import fitting
from consumer.kafka.journal.meanings import TooLargeError
from consumer.kafka.journal.writes import Begin, DeadLetter, Put
from consumer.kafka.records.dead_letters import DeadLetterRecord
from schemas.dead_letter import Reason
from tests.unit.kafka.journal.tried_transactions import TriedTransactions

OWNED = Assignment("orders", 0, 1)
ITEMS = (b"first", b"second", b"third")  # an event of three actions


def dead_letter_of(write: Put | DeadLetter) -> DeadLetter:
    record = DeadLetterRecord(write.key, b"", [])
    return DeadLetter(assignment=OWNED, record=record, reason=Reason.TOO_LARGE, offset=0, key=write.key)


class Refusing(TriedTransactions):
    """Its broker refuses the records of these keys once each, and takes every other transaction."""

    def __init__(self, too_large: Sequence[bytes]) -> None:
        super().__init__([OWNED], replace_too_large=dead_letter_of)
        self._refused_keys = too_large

    def _try(self, batches: Sequence[Batch]) -> None:
        for write in batches[0].latest.values():
            if isinstance(write, Put) and write.key in self._refused_keys:
                raise TooLargeError(write)


@pytest.mark.parametrize("too_large", [ITEMS[:1], ITEMS[1:2], ITEMS[2:], ITEMS])
def test_an_event_of_several_actions_stays_in_one_transaction_where_some_are_too_large(
    too_large: Sequence[bytes],
) -> None:
    puts = [Put(OWNED, key, b"v" * 1000, with_next=True) for key in ITEMS]
    event = [*puts[:-1], replace(puts[-1], with_next=False, next_offset=1)]
    following = Put(OWNED, b"of the next event", b"v" * 1000, next_offset=2)
    transactions = Refusing(too_large)
    transactions.settle([Begin(OWNED, [], 0, 0), *event, following])

    (taken,) = transactions.committed
    assert [isinstance(each, DeadLetter) for each in taken] == [key in too_large for key in ITEMS] + [False]
    first, second = fitting(taken, 1)  # cut as soon as it may be
    assert (len(first), second) == (len(ITEMS), [following])
    assert [each.next_offset for each in first if isinstance(each, Put | DeadLetter)] == [None, None, 1]
