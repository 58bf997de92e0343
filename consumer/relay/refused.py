"""The dead letters that their topic refused: the delay topic keeps them, and they are tried again from here.

Rules:
 1. A topic is tried with a few of them at a time, and after growing waits while it refuses all of them. Once it takes
    one, the others follow at once.
 2. They count as pending: their number and size pause the source, as a pending action's do.
 3. A restart finds them in the delay topic. So does the partition's next owner.
 4. The record of one that is being tried is not written again meanwhile. Behind the try that succeeds it would stay
    for ever. It is written again once the try has failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from consumer.core.ownership import Assignment
from consumer.kafka.journal.writes import DeadLetter, Put, size_of
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.refused import put_of

MAX_AT_ONCE = 50  # each that is refused again costs some transactions
RETRY_S = (1.0, 5.0, 15.0, 60.0, 300.0)

_Id = tuple[Assignment, bytes]


@dataclass(slots=True)
class _Topic:
    """The refused dead letters of one source topic, the next to be tried first."""

    waiting: dict[_Id, DeadLetter] = field(default_factory=dict)
    under_way: set[_Id] = field(default_factory=set)
    to_rewrite: set[_Id] = field(default_factory=set)  # of those under way (rule 4)
    failures: int = 0
    retry_at: float = math.inf
    why: str = ""

    def wait(self, now: float) -> None:
        self.retry_at = now + RETRY_S[min(self.failures, len(RETRY_S) - 1)]
        self.failures += 1


class RefusedDeadLetters:
    """All of the partitions that are ours."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self.count = 0
        self.bytes = 0

    def refused(self, write: DeadLetter, why: str, now: float) -> list[Put]:
        """Take one that the journal keeps, or has just tried in vain; returns what is to be written (rule 4)."""
        topic, at = self._topics.setdefault(write.assignment.topic, _Topic()), _id(write)
        topic.why = why
        was_under_way = at in topic.under_way
        topic.under_way.discard(at)
        self._remove(topic, at)
        topic.waiting[at] = write
        self.count += 1
        self.bytes += size_of(write)
        if (was_under_way and not topic.under_way) or topic.retry_at == math.inf:
            topic.wait(now)
        rewrites = at in topic.to_rewrite
        topic.to_rewrite.discard(at)
        return [put_of(write)] if rewrites else []

    def restored(self, writes: Iterable[DeadLetter], now: float) -> None:
        """Take those that a restore found: the topic may take them by now."""
        for write in writes:
            self.refused(write, "it was refused before", now)

    def committed(self, write: DeadLetter, now: float) -> None:
        """Note that a dead letter is written."""
        topic = self._topics.get(write.assignment.topic)
        if topic is None or not write.is_kept:
            return
        self._forget(topic, _id(write))
        topic.failures = 0
        topic.retry_at = now if topic.waiting else math.inf  # rule 1

    def forget(self, assignment: Assignment) -> None:
        """Leave a partition's to its next owner."""
        topic = self._topics.get(assignment.topic)
        if topic is None:
            return
        for at in [at for at in topic.waiting if at[0] == assignment]:
            self._forget(topic, at)
        if not topic.waiting:
            topic.retry_at = math.inf

    def take_due(self, now: float) -> list[DeadLetter]:
        """Return those that are to be tried again now."""
        due: list[DeadLetter] = []
        for topic in self._topics.values():
            if topic.retry_at <= now and not topic.under_way:
                first = list(islice(topic.waiting, MAX_AT_ONCE))
                topic.under_way.update(first)
                due += [topic.waiting[at] for at in first]
        return due

    @property
    def next_retry(self) -> float:
        """When `take_due` has something next."""
        return min((t.retry_at for t in self._topics.values() if t.waiting and not t.under_way), default=math.inf)

    def rewrite(self, assignment: Assignment, key: object = None) -> list[Put]:
        """Return what writes the records of a partition's again: of all of them, or of a key (rule 4)."""
        topic = self._topics.get(assignment.topic)
        if topic is None:
            return []
        if key is None:
            asked = [at for at in topic.waiting if at[0] == assignment]
        else:
            asked = [at for at in ((assignment, key),) if at in topic.waiting]
        topic.to_rewrite.update(at for at in asked if at in topic.under_way)
        return [put_of(topic.waiting[at]) for at in asked if at not in topic.under_way]

    def keeps(self, assignment: Assignment, place: int) -> bool:
        """Whether the dead letter of the action at this place waits here."""
        topic = self._topics.get(assignment.topic)
        waiting = () if topic is None else topic.waiting
        return any(at == assignment and place_of_key(key) == place for at, key in waiting)

    def figures(self) -> Mapping[str, tuple[int, str]]:
        """Return how many there are of each source topic, and why the last one was refused."""
        return {name: (len(topic.waiting), topic.why) for name, topic in self._topics.items()}

    def _forget(self, topic: _Topic, at: _Id) -> None:
        topic.under_way.discard(at)
        topic.to_rewrite.discard(at)
        self._remove(topic, at)

    def _remove(self, topic: _Topic, at: _Id) -> None:
        if (former := topic.waiting.pop(at, None)) is not None:
            self.count -= 1
            self.bytes -= size_of(former)


def _id(write: DeadLetter) -> _Id:
    assert write.key is not None  # noqa: S101 - the journal gives it one
    return write.assignment, write.key
