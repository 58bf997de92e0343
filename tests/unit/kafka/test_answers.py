"""Answers that the control topic refuses: what was to be carried out with them is not, and nothing waits for them."""

from __future__ import annotations

import sys
from unittest.mock import Mock

from consumer.core.clock import steady_clock
from consumer.core.ownership import Assignment, Ownership
from consumer.kafka.facts import AnswersRefused, Fact
from consumer.kafka.journal.producers import RefusedError
from consumer.kafka.journal.transactions import Transactions
from consumer.kafka.journal.writes import Begin, Put, PutAnswer, Tombstone, Write, goes_on
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

OWNED = Assignment("orders", 0, 1)
CONTROL = "control"


class Refusing(Transactions):
    """Its control topic takes nothing."""

    def __init__(self) -> None:
        self.reported: list[Fact] = []
        self.taken: list[Write] = []
        super().__init__(
            Mock(),
            topics={"orders": RelayTopics("orders", "delay", "dead-letters", "outcomes")},
            identities={"orders": SourceIdentity(group="g", topic="orders")},
            ownership=lambda: Ownership(b"CGMDv2:" + (1).to_bytes(4, sys.byteorder), {("orders", 0): 1}),
            clock=steady_clock(),
            pause=lambda _: None,
            report=self.reported.append,
            replace_too_large=Mock(),
            control=CONTROL,
        )

    def _transact(self, writes: list[Write], ownership: Ownership) -> None:
        if any(isinstance(write, PutAnswer) for write in writes):
            raise RefusedError("TOPIC_AUTHORIZATION_FAILED", topics={CONTROL})
        self.taken += writes


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
    transactions = Refusing()
    transactions.settle([Begin(OWNED, [], 0, 0), *sent_again, *dropped, new])

    # What ends an action has happened: it stays pending for ever without its tombstone.
    assert transactions.taken == [dropped[1], new]
    (refused,) = [fact for fact in transactions.reported if isinstance(fact, AnswersRefused)]
    assert [each.request_id for each in refused.answers] == ["resend", "drop"]


def test_an_answer_and_what_carries_it_out_are_never_cut_apart() -> None:
    assert goes_on([answer("resend", with_next=True)])
    assert not goes_on([answer("retry-now", with_next=False)])
