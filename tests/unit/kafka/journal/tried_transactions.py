"""The journal's transactions without a broker: a test says what a broker would refuse."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TypeVar
from unittest.mock import Mock

from consumer.core.clock import steady_clock
from consumer.core.ownership import Assignment, Ownership
from consumer.kafka.facts import Committed, Fact
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.too_large import ReplaceTooLarge
from consumer.kafka.journal.transactions import Transactions
from consumer.kafka.journal.writes import Position, Write
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

F = TypeVar("F", bound=Fact)


def owned(assignments: Collection[Assignment]) -> Ownership:
    """Return a snapshot with these, of a member of the group."""
    owned = {(each.topic, each.partition): each.epoch for each in assignments}
    return Ownership(b"CGMDv2:" + (1).to_bytes(4, sys.byteorder), owned)


class TriedTransactions(Transactions):
    """Each transaction is committed, unless `_try` raises what its refusal means."""

    def __init__(
        self, assignments: Collection[Assignment], *, replace_too_large: ReplaceTooLarge, control: str | None = None
    ) -> None:
        """Own these. They have not begun yet."""
        self.reported: list[Fact] = []
        self.paused: list[float] = []
        topics = {each.topic for each in assignments}
        super().__init__(
            Mock(),
            topics={name: RelayTopics(name, f"{name}.delay", "dead-letters", "outcomes") for name in topics},
            identities={name: SourceIdentity(group="g", topic=name) for name in topics},
            ownership=lambda: owned(assignments),
            clock=steady_clock(),
            pause=self._wait,
            report=self.reported.append,
            replace_too_large=replace_too_large,
            control=control,
        )
        vars(self._commits)["_write"] = lambda batches, *_: self._try(batches)

    def _try(self, batches: Sequence[Batch]) -> None: ...

    def _wait(self, seconds: float) -> None:
        self.paused.append(seconds)

    @property
    def committed(self) -> list[Sequence[Write]]:
        """The writes of each transaction that was committed."""
        return [fact.writes for fact in self.of(Committed)]

    @property
    def taken(self) -> list[Write]:
        """All that was committed, but the positions that only ask whether the broker takes anything."""
        return [write for writes in self.committed for write in writes if not isinstance(write, Position)]

    def of(self, kind: type[F]) -> list[F]:
        """Return the facts of this kind that were reported."""
        return [fact for fact in self.reported if isinstance(fact, kind)]
