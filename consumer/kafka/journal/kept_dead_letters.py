"""Dead letters that their topic refuses: the delay topic keeps them, in place of their actions' records.

A dead letter is safe there, its action has ended, and the position moves on (rule 7 of transactions.py). What such a
record looks like is in refused.py. The relay offers the dead letters to their topic again, from time to time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from consumer.core.clock import Clock
from consumer.kafka.facts import AnswersRefused, DeadLetterRefused, Report
from consumer.kafka.journal.cutting import without_answers
from consumer.kafka.journal.writes import DeadLetter, Write
from consumer.kafka.refused import kept
from consumer.kafka.topics.topics import RelayTopics

HOPELESS_S = 5.0  # a topic that just refused every record is not tried again for so long


class KeptDeadLetters:
    """Knows which dead-letter topics took nothing a moment ago, and what is written instead."""

    def __init__(
        self,
        topics: Mapping[str, RelayTopics],
        *,
        clock: Clock,
        report: Report,
        control: str | None,
        new_name: Callable[[], str],
    ) -> None:
        """`topics` by source topic. `control`: the control topic. `new_name` returns one that nothing else ever had."""
        self._topics = topics
        self._clock = clock
        self._report = report
        self._control = control
        self._new_name = new_name
        self._hopeless: dict[str, float] = {}  # dead-letter topics that take no records, and until when

    def topic_of(self, write: DeadLetter) -> str:
        """Return where it is written."""
        return self._topics[write.assignment.topic].dead_letters

    def refused_whole(self, topics: Collection[str]) -> None:
        """Take that these topics refuse every record."""
        self._hopeless.update(dict.fromkeys(topics, self._clock() + HOPELESS_S))

    def committed(self, writes: Sequence[Write]) -> None:
        """Take that these are committed: their topics take records."""
        if self._hopeless:
            for write in writes:
                if isinstance(write, DeadLetter):
                    self._hopeless.pop(self.topic_of(write), None)

    def without_hopeless(self, writes: list[Write]) -> list[Write]:
        """Keep dead letters at once whose topic took none a moment ago; those that were kept before may try it."""
        if not self._hopeless:
            return writes
        now = self._clock()
        self._hopeless = {topic: until for topic, until in self._hopeless.items() if until > now}
        why = "the topic takes no records at present"
        writes, answers = without_answers(writes, self._hopeless, self._control)
        if answers:
            self._report(AnswersRefused(answers, why))
        refused = [
            write
            for write in writes
            if isinstance(write, DeadLetter) and not write.is_kept and self.topic_of(write) in self._hopeless
        ]
        return self.kept(writes, refused, why) if refused else writes

    def kept(self, writes: Sequence[Write], refused: Sequence[DeadLetter], why: str) -> list[Write]:
        """Return the writes with those that keep the refused dead letters in the delay topic, in their places."""
        result: list[Write] = []
        for write in writes:
            if not isinstance(write, DeadLetter) or write not in refused:
                result.append(write)
            elif write.is_kept:
                self._report(DeadLetterRefused(write, why))
            else:
                put = kept(write, self._new_name())
                assert put.keeps is not None  # noqa: S101 - what it is for
                if not put.requested:  # else it is perhaps not written, and reported when it is
                    self._report(DeadLetterRefused(put.keeps, why))
                result.append(put)
        return result
