"""Answers that the control topic refuses: what was to be carried out with them is not, and nothing waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import Mock

from consumer.core.ownership import Assignment
from consumer.kafka.facts import AnswersRefused
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.meanings import RefusedError
from consumer.kafka.journal.writes import Begin, Put, PutAnswer, Tombstone, Write, goes_on
from tests.unit.kafka.journal.tried_transactions import TriedTransactions

OWNED = Assignment("orders", 0, 1)
CONTROL = "control"


class Refusing(TriedTransactions):
    """Its control topic takes nothing."""

    def _try(self, batches: Sequence[Batch]) -> None:
        if any(batch.answers for batch in batches):
            raise RefusedError("TOPIC_AUTHORIZATION_FAILED", topics={CONTROL})


def answer(request_id: str, *, with_next: bool) -> PutAnswer:
    key = f"request/{request_id}".encode()
    return PutAnswer(assignment=OWNED, request_id=request_id, key=key, value=b"done", with_next=with_next)


def test_what_was_asked_for_is_not_written_without_its_answer_and_everything_else_is() -> None:
    sent_again: list[Write] = [
        answer("resend", with_next=True),
        Put(OWNED, b"0:1:r", b"pending", requested=True, with_next=True),
        Put(OWNED, b"0:1.1:r", b"pending", requested=True),
    ]
    dropped: list[Write] = [answer("drop", with_next=True), Tombstone(OWNED, b"0:2:r")]
    new = Put(OWNED, b"0:9:r", b"pending", next_offset=10)
    transactions = Refusing([OWNED], replace_too_large=Mock(), control=CONTROL)
    transactions.settle([Begin(OWNED, [], 0, 0), *sent_again, *dropped, new])

    # What ends an action has happened: it stays pending for ever without its tombstone.
    assert transactions.committed == [[dropped[1], new]]
    (refused,) = transactions.of(AnswersRefused)
    assert [each.request_id for each in refused.answers] == ["resend", "drop"]


def test_an_answer_and_what_carries_it_out_are_never_cut_apart() -> None:
    assert goes_on([answer("resend", with_next=True)])
    assert not goes_on([answer("retry-now", with_next=False)])
