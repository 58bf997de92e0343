"""What the broker refuses stops nothing else: what is written instead of a transaction that was aborted.

This keeps rules 7, 9 and 10 of transactions.py. The transaction is cut (cutting.py) until what is refused stands alone.
Then an answer or an outcome is left out, a dead letter is kept in the delay topic (kept_dead_letters.py), and a
partition is given up, where others would wait for it. Whether they would is not guessed: a transaction of another one
is committed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from consumer.core.ownership import Assignment, Ownership, Partition
from consumer.kafka.facts import AnswersRefused, Dropped, OutcomesRefused, Refused, Report, TransactionAborted
from consumer.kafka.journal.commits import Commits
from consumer.kafka.journal.cutting import by_partition, by_topic, halves, in_two, without_answers
from consumer.kafka.journal.kept_dead_letters import KeptDeadLetters
from consumer.kafka.journal.meanings import AbortedError, FencedError, OverranError, RefusedError
from consumer.kafka.journal.partitions import Partitions
from consumer.kafka.journal.producers import Producers
from consumer.kafka.journal.writes import DeadLetter, Keyed, Position, Write
from consumer.kafka.topics.topics import RelayTopics

MAX_PROBES = 2  # partitions that are asked whether the broker takes anything at all
SILENT = 2  # so often the broker takes nothing of a partition, until it is given up
REFUSALS = 3  # of a partition, with others served in between, until it is given up
# A coordinator answers in milliseconds; librdkafka asks again until the time-out where it says `unknown topic`.
OFFSETS_AGAIN_S = 1.0
# For one small record of each partition. Twenty times what brokers take; where all are slow, see producers.SLOWER.
SUSPECTS_S = 3.0


def _without_outcome(write: Write) -> Write:
    """Return a write of what was never pending without its outcome."""
    match write:
        case Position():
            return replace(write, outcomes=())
        case DeadLetter(key=None):
            return replace(write, outcome=None)
    return write


class Refusals:
    """Decides what becomes of the writes of an aborted transaction."""

    def __init__(
        self,
        producers: Producers,
        partitions: Partitions,
        commits: Commits,
        kept: KeptDeadLetters,
        *,
        topics: Mapping[str, RelayTopics],
        ownership: Callable[[], Ownership],
        report: Report,
        control: str | None,
    ) -> None:
        """See Transactions."""
        self._producers = producers
        self._partitions = partitions
        self._commits = commits
        self._kept = kept
        self._topics = topics
        self._ownership = ownership
        self._report = report
        self._control = control

    def cut(self, writes: list[Write], error: AbortedError, attempt: int) -> list[list[Write]] | None:
        """Return the parts to settle instead, in order; None where all is to be tried again."""
        match error:
            case RefusedError():
                parts = self._without_answers(writes, error.topics, str(error))
                parts = self._cut_refused(writes, error, attempt) if parts is None else parts
                self._producers.offsets_s = math.inf if error.topics else OFFSETS_AGAIN_S
                return parts
            case OverranError():
                silent = {topic for topic, number in error.unwritten if topic == self._control}
                parts = self._without_answers(writes, silent, str(error))
                return self._cut_silent(writes, error) if parts is None else parts
        # A right that is missing to add a partition to the transaction looks like any other abort.
        return self._without_answers(writes, {self._control}, str(error)) if attempt else None

    def _without_answers(
        self, writes: list[Write], refusing: Collection[str | None], why: str
    ) -> list[list[Write]] | None:
        """Leave the answers out that these topics do not take (rule 10); None: there are none."""
        left, answers = without_answers(writes, refusing, self._control)
        if not answers:
            return None
        self._report(AnswersRefused(answers, why))
        return [left] if left else []

    def _cut_refused(self, writes: list[Write], error: RefusedError, attempt: int) -> list[list[Write]] | None:
        """Rule 7."""
        suspects = [
            write for write in writes if isinstance(write, DeadLetter) and self._kept.topic_of(write) in error.topics
        ]
        if not suspects:
            if error.topics and error.topics <= {each.outcomes for each in self._topics.values()}:
                return self._cut_outcomes(writes, error)
            of_offsets = not error.topics
            parts = by_topic(writes) if of_offsets else by_partition(writes)
            return list(parts) if parts is not None else self._refused_again(writes, error, attempt)
        if error.whole_topic:
            self._kept.refused_whole(error.topics)
            return [self._kept.kept(writes, suspects, str(error))]
        named = [write for write in suspects if write in error.suspects] or suspects
        if error.exact or len(named) == 1:
            return [self._kept.kept(writes, named, str(error))]
        return list(halves(writes, set(named)))

    def _cut_outcomes(self, writes: list[Write], error: RefusedError) -> list[list[Write]] | None:
        """Rule 9: only memory knows what Engage accepted, and intents are committed all the same."""
        parts = by_partition(writes) or in_two(writes)
        if parts is not None:
            return list(parts)
        if any(isinstance(write, Keyed) and write.outcome and write.key is not None for write in writes):
            return None
        self._report(OutcomesRefused(str(error)))
        return [[_without_outcome(write) for write in writes]]

    def _refused_again(self, writes: list[Write], error: RefusedError, attempt: int) -> list[list[Write]] | None:
        """Count a refusal of what stands alone: one partition, or one source topic where its offsets are refused.

        All partitions of a delay topic that takes no record are troubled: none of them shows that others are served.
        Where no others wait, these are tried on, and named.
        """
        written = troubled = {write.assignment for write in writes}
        if not error.topics:
            troubled = {each for each in self._partitions.states if each.topic == writes[0].assignment.topic}
        elif error.whole_topic:
            troubled = {each for each in self._partitions.states if self._topics[each.topic].delay in error.topics}
        # What is refused may have been made meanwhile, for the others as for this one: a deleted delay topic.
        states = [self._partitions.states[each] for each in written]
        if max(state.refusals for state in states) + 1 < REFUSALS:
            served, parts = self._others_are_served(troubled), None
            for state in states:
                state.refusals += served
        else:
            parts = self._given_up_if_others_are_served(troubled, writes, str(error))
        if parts is None and attempt + 1 >= REFUSALS:
            self._report(Refused(sorted(troubled), str(error)))
        return parts

    def suspected(self, writes: Sequence[Write]) -> tuple[list[Write], list[Write]]:
        """Cut into the writes of partitions that took nothing when they were written last, and the others."""
        silent = {assignment for assignment, state in self._partitions.states.items() if state.silent}
        if not silent:  # nearly always, and there may be thousands of writes
            return [], list(writes)
        suspects = [write for write in writes if write.assignment in silent]
        return suspects, [write for write in writes if write.assignment not in silent]

    def ask_suspects(self) -> bool:
        """Ask all partitions at once whether they take anything; give those up that took nothing twice (rule 9).

        Each holds its position once more. A partition that nothing was written of yet is found out with the others.
        Returns whether that says it of the suspects: not where all are, or the broker takes nothing of any partition.
        """
        ownership, states = self._ownership(), self._partitions.states
        asked = [a for a in states if ownership.covers(a)]
        if all(states[each].silent for each in asked):
            return False
        self._producers.records_s = SUSPECTS_S
        try:
            self._commits.commit([Position(each, states[each].next_offset) for each in asked], ownership, alone=True)
        except FencedError:
            return False  # the next transaction meets it again
        except AbortedError as error:
            self._report(TransactionAborted(str(error)))
            self._producers.replace()
            return isinstance(error, OverranError) and error.outdone and self._found_out(asked, error)
        else:
            return True
        finally:
            self._producers.records_s = math.inf

    def _found_out(self, asked: Collection[Assignment], error: OverranError) -> bool:
        states = self._partitions.states
        self._count_silence(error)
        for each in asked:
            if not self._is_silent(each, error):
                states[each].silent = states[each].outdone = 0
        lost = [each for each in asked if states[each].outdone >= SILENT]
        return not lost or self._given_up_if_others_are_served(lost, [], str(error)) is not None

    def _cut_silent(self, writes: list[Write], error: OverranError) -> list[list[Write]] | None:
        """Rule 9."""
        letters = [write for write in writes if isinstance(write, DeadLetter) and self._lies_in(write, error.unwritten)]
        self._count_silence(error)
        silent = [a for a in dict.fromkeys(write.assignment for write in writes) if self._is_silent(a, error)]
        if not silent:
            return None
        states = [self._partitions.states[each] for each in silent]
        for state in states:
            state.letters_silent += bool(letters)
        others = [write for write in writes if write.assignment not in silent]
        is_known = bool(letters) and all(state.takes_no_letters for state in states)
        if is_known or others:
            if not error.others_taken and not self._others_are_served(silent):
                return None
            if is_known:
                return [self._kept.kept(writes, letters, str(error))]
            return [others, [write for write in writes if write.assignment in silent]]
        parts: list[list[Write]] | None = None
        if letters:
            if min(state.letters_silent for state in states) >= SILENT and self._others_are_served(silent):
                parts = [self._kept.kept(writes, letters, str(error))]
                self._partitions.take_no_letters(silent)
        else:
            if not error.outdone and self._others_are_served(silent):
                for state in states:
                    state.outdone += 1
            if min(state.outdone for state in states) >= SILENT:
                parts = self._given_up_if_others_are_served(silent, writes, str(error))
        if parts is None and len(silent) > 1 and min(each.silent + each.letters_silent for each in states) >= SILENT:
            return [[write for write in writes if write.assignment == each] for each in silent]  # one holds up others
        return parts

    def without_silent_letters(self, writes: list[Write]) -> list[Write]:
        """Keep dead letters at once whose partition took none again and again; those that were kept before may try it.

        Each try is the time of a transaction, for which all others wait.
        """
        silent = {each for each, state in self._partitions.states.items() if state.takes_no_letters}
        if not silent:  # nearly always
            return writes
        refused = [w for w in writes if isinstance(w, DeadLetter) and not w.is_kept and w.assignment in silent]
        return self._kept.kept(writes, refused, "its partition takes no dead letters at present") if refused else writes

    def _count_silence(self, error: OverranError) -> None:
        """Count for each partition whether the delay topic took nothing of it, also of those that were only asked."""
        for assignment, state in self._partitions.states.items():
            is_silent = (self._topics[assignment.topic].delay, assignment.partition) in error.unwritten
            state.silent += is_silent
            state.outdone += is_silent and error.outdone

    def _is_silent(self, assignment: Assignment, error: OverranError) -> bool:
        topics, partition = self._topics[assignment.topic], assignment.partition
        return not error.unwritten.isdisjoint({(topics.delay, partition), (topics.dead_letters, partition)})

    def _lies_in(self, write: DeadLetter, partitions: Collection[Partition]) -> bool:
        return (self._kept.topic_of(write), write.assignment.partition) in partitions

    def _given_up_if_others_are_served(
        self, troubled: Collection[Assignment], writes: list[Write], why: str
    ) -> list[list[Write]] | None:
        """Give partitions up that the broker refuses, where others wait for them (rule 7). `writes`: all are theirs."""
        if not self._others_are_served(troubled):
            return None  # no write is dropped for nothing
        if writes:
            self._report(Dropped(writes))
        for assignment in sorted(troubled):
            self._partitions.give_up(assignment, why)
        return []

    def _others_are_served(self, troubled: Collection[Assignment]) -> bool:
        """Tell whether a transaction of another partition is committed now: it holds its position once more.

        Where no other one has begun, those count that were assigned meanwhile: they wait in the queue, behind this
        one's writes.
        """
        ownership, states = self._ownership(), self._partitions.states
        others = [a for a in states if a not in troubled and ownership.covers(a)]
        others.sort(key=lambda a: states[a].committed_at, reverse=True)
        for other in others[:MAX_PROBES]:
            try:
                self._commits.commit([Position(other, states[other].next_offset)], ownership, alone=True)
            except FencedError:
                return False  # the next transaction meets it again
            except AbortedError as error:
                self._report(TransactionAborted(str(error)))
                self._producers.replace()
            else:
                return True
        return not others and self._partitions.others_wait(troubled, ownership)
