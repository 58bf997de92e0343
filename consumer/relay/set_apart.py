"""The partitions that cannot be served, while others can: why, and until when.

Rules:
 1. Each is named from its first moment to its last: in the log at both, in the status and the metrics in between.
 2. It is known by its topic and number. What the journal gave up begins again as another assignment, and is no better
    for that.
 3. It is served again when a transaction of it is committed: that it can be read says nothing of the rest. Of a
    partition whose next offset is gone, transactions go on, and say nothing.
 4. What is refused together is served again together: only some of these may have anything to write.
 5. Where it goes to another instance, that one finds out for itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from consumer.core.ownership import Assignment, Partition
from consumer.relay.log import ThrottledLog
from consumer.telemetry.snapshot import SetApart


@dataclass(frozen=True, slots=True)
class _Apart:
    """`together`: the partitions that were set apart with it, and itself."""

    reason: SetApart
    why: str
    together: frozenset[Partition]


class PartitionsApart:
    """They, by topic and number."""

    def __init__(self, log: ThrottledLog) -> None:
        self._log = log
        self._apart: dict[Partition, _Apart] = {}

    def __contains__(self, assignment: Assignment) -> bool:
        return assignment[:2] in self._apart

    def of(self, assignment: Assignment) -> tuple[SetApart, str] | None:
        """Return the reason and its text; None where it is served."""
        apart = self._apart.get(assignment[:2])
        return None if apart is None else (apart.reason, apart.why)

    def count(self, reason: SetApart) -> int:
        """How many there are for this reason."""
        return sum(each.reason == reason for each in self._apart.values())

    def add(self, assignments: Collection[Assignment], reason: SetApart, why: str) -> None:
        """Set these apart together."""
        together = frozenset(each[:2] for each in assignments)
        for topic, partition in sorted(together):
            former = self._apart.get((topic, partition))
            self._apart[topic, partition] = _Apart(reason, why, together)
            if former is None or former.reason != reason:
                self._log.error(
                    "partition set apart: it cannot be served, the others go on",
                    topic=topic,
                    partition=partition,
                    reason=reason,
                    why=why,
                )

    def committed(self, assignments: Iterable[Assignment]) -> None:
        """Learn that transactions of these were committed (rule 3)."""
        if not self._apart:
            return
        written = {each[:2] for each in assignments}
        for at, each in sorted(self._apart.items(), key=lambda item: item[0]):
            if each.reason != "overrun" and not written.isdisjoint(each.together):
                del self._apart[at]
                self._log.info("partition served again", topic=at[0], partition=at[1])

    def forget(self, assignment: Assignment) -> None:
        """Say no more of one that is ours no more, nor of those of which only it would tell that they are served."""
        if (gone := self._apart.get(assignment[:2])) is not None:
            for at in gone.together:
                self._apart.pop(at, None)
