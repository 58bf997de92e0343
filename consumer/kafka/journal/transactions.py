"""The journal's transactions: what is written together, and what a failure means.

For each partition that it touches, a transaction contains the records, dead letters and outcomes, the partition's
`position` record, its source offset and its low-water mark. The last two are committed as offsets of the group.
Everything here runs on one thread, the journal's (journal.py). Its clock, its waits and its Kafka clients are
parameters, so that the simulation (tests/simulation) drives the same rules.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. A transaction begins with a snapshot of the ownership. Writes that the snapshot does not cover are dropped. The
    others are committed with the snapshot's metadata. A stale generation aborts the transaction; what is still owned
    is tried again.
 2. Dead letters are flushed before the records, and records before the offsets are sent. Each record is true and
    idempotent by key on its own. So is the position record: everything before its offset is dealt with. So the
    outcomes of actions that were never pending, which nothing else tells of, are flushed before it, too.
 3. Where a commit's outcome is unknown, a new producer ends the transaction, committed or aborted. The metadata of
    the committed offset names the transaction, so it shows which of the two. Nothing is written twice.
 4. A fenced producer gives up every partition and rejoins the group.
 5. No open transaction is left behind: the next owner's restore would wait for it.
 6. A delay topic that was deleted and recreated begins at offset 0. Then its low-water mark begins at 0 again, and
    what is pending is written again. The old mark would hide all new records.
 7. What the broker refuses stops nothing else. The transaction is cut (cutting.py) until that stands alone. A dead
    letter that its topic refuses is kept in the delay topic, in place of its action's record: it is safe there, the
    action has ended, and the position moves on. A partition whose records or offsets are refused is given up and
    restored again, where others would wait for it: it is refused again and again, and each time a transaction of
    another one is committed just then. Once is not enough: a deleted topic may have been made again in between.
    Where offsets are refused, that is for the source topic: all its partitions are given up together, and each
    attempt after the first one has OFFSETS_AGAIN_S, so that the others wait for one full time-out, however many
    partitions the topic has. All of a delay topic's are given up together, too, where it takes no record at all.
 8. What does not fit into its time is tried again in smaller transactions (transaction_size.py).
 9. A partition of which the broker takes nothing twice (it has lost its leader, or the copies that it needs) counts as
    refused, and so do its dead letters, where it is the dead-letter topic's. Several are tried together, as each
    attempt takes all of a transaction's time, and alone where no others can show that the broker takes anything.
    Where it is the outcomes topic's, or that topic refuses a record, all wait for it: actions that Engage accepted
    cannot end without it, and a partition that is given up would send them again.
10. A request is answered in the transaction that carries it out, so it is carried out once. Where the control topic
    does not take the answer, nothing waits for it: the request stays open, and only what ends an action is written.
producers.py decides which producer may be used, and what its errors mean.
"""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from confluent_kafka import Message, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, Partition, generation
from consumer.kafka.control.records import PARTITION as CONTROL_PARTITION
from consumer.kafka.facts import (
    AnswersRefused,
    Committed,
    DeadLetterAt,
    DeadLetterRefused,
    DelayTopicRecreated,
    Dropped,
    Fenced,
    GivenUp,
    Pinned,
    RecordTooLarge,
    Report,
    TransactionAborted,
)
from consumer.kafka.journal.cutting import by_partition, by_topic, fitting, halves
from consumer.kafka.journal.low_water_mark import PINNING, LowWaterMark, Pinning
from consumer.kafka.journal.producers import (
    AbortedError,
    BatchTooLargeError,
    Clients,
    FencedError,
    OverranError,
    Producers,
    Record,
    RefusedError,
    TooLargeError,
    UnknownOutcomeError,
)
from consumer.kafka.journal.transaction_size import TransactionSize
from consumer.kafka.journal.writes import (
    Barrier,
    Begin,
    DeadLetter,
    Item,
    Keyed,
    Position,
    Put,
    PutAnswer,
    Tombstone,
    Unparked,
    Write,
    size_of,
)
from consumer.kafka.outcomes.outcomes import Ended, record_of
from consumer.kafka.records import position_value, redriven_mark
from consumer.kafka.refused import kept, smaller
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, SourceIdentity

TRANSACTION_S = 10.0
RETRY_S = (0.05, 0.2, 1.0, 5.0)  # between attempts after an abort
MAX_PROBES = 2  # partitions that are asked whether the broker takes anything at all
REFUSALS = 3  # of a partition, with others served in between, until it is given up
# A coordinator answers in milliseconds; librdkafka asks again until the time-out where it says `unknown topic`.
OFFSETS_AGAIN_S = 1.0
HOPELESS_S = 5.0  # a topic that just refused every record is not tried again for so long


@dataclass(slots=True)
class _Partition:
    mark: LowWaterMark
    next_offset: int
    end: int
    outcomes_topic_id: str | None = None
    recreated: bool = False  # the delay topic, since the last transaction that was committed
    incarnation: int = 0  # how often it was recreated
    silent: int = 0  # how often the broker took nothing of it, since then
    refusals: int = 0  # how often it was refused while others were served, since then
    committed_at: float = -math.inf
    too_large: set[bytes | None] = field(default_factory=set)  # keys that were dead-lettered for their record's size


@dataclass(slots=True, kw_only=True)
class _Batch:
    """The writes of one partition in one transaction, and their offsets in the delay topic.

    `latest` is by key: group commit writes only the latest state of an action. `outcomes_alone`: of actions that were
    never pending. `recreated`: the delay topic was recreated since the last transaction.
    """

    assignment: Assignment
    next_offset: int
    start: int
    end: int
    recreated: bool
    latest: dict[bytes, Keyed] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outcomes: list[Ended] = field(default_factory=list)
    outcomes_alone: list[Ended] = field(default_factory=list)
    answers: list[PutAnswer] = field(default_factory=list)
    written: dict[Hashable, int | None] = field(default_factory=dict)
    dead_letters_at: dict[DeadLetter, DeadLetterAt] = field(default_factory=dict)
    unknown: set[bytes | None] = field(default_factory=set)  # keys whose record lies somewhere after `start`

    @property
    def parked(self) -> list[Put]:
        """Its records of actions that are parked."""
        return [write for write in self.latest.values() if isinstance(write, Put) and write.parked_for is not None]

    def offset_of(self, write: Put) -> int | None:
        """Return where its record lies; None where nobody knows."""
        return None if write.key in self.unknown else self.written.get(write.key)

    def add(self, write: Write) -> None:
        match write:
            case Put(key=key, next_offset=next_offset, outcome=outcome):
                self.latest[key] = write
                self._note(outcome)
            case Tombstone(key=key, outcome=outcome):
                self.latest[key] = write
                next_offset = None
                self._note(outcome)
            case DeadLetter(key=key_, next_offset=next_offset, outcome=outcome):
                self.dead_letters.append(write)
                self._note(outcome)
                if key_ is not None:
                    self.latest[key_] = write
            case Position(next_offset=next_offset, outcomes=outcomes):
                self.outcomes_alone += outcomes
            case PutAnswer():
                self.answers.append(write)
                next_offset = None
            case Barrier():
                next_offset = None
        if next_offset is not None:
            self.next_offset = next_offset

    def _note(self, outcome: Ended | None) -> None:
        if outcome is not None:
            self.outcomes.append(outcome)


def _is_of(write: Write, refused: Put) -> bool:
    """Whether it is a write of the refused action."""
    return isinstance(write, Keyed) and (write.assignment, write.key) == (refused.assignment, refused.key)


def _random_name() -> str:
    return uuid.uuid4().hex


ReplaceTooLarge = Callable[[Put | DeadLetter], DeadLetter]
"""Returns what is written in place of a record that the broker refuses, or the same record if it cannot shrink."""


class Transactions:
    """The rules of the module. `settle` and `end` are for one thread; another may call `end_by`."""

    def __init__(
        self,
        clients: Clients,
        *,
        topics: Mapping[str, RelayTopics],
        identities: Mapping[str, SourceIdentity],
        ownership: Callable[[], Ownership],
        clock: Clock,
        pause: Callable[[float], None],
        report: Report,
        replace_too_large: ReplaceTooLarge,
        control: str | None = None,
        timeout_s: float = TRANSACTION_S,
        pinning: Pinning = PINNING,
        new_name: Callable[[], str] = _random_name,
    ) -> None:
        """`topics` and `identities` by source topic. `ownership` returns the latest snapshot.

        `control`: the control topic. `pause` waits between two attempts. `timeout_s`: `transaction.timeout.ms`.
        `new_name` returns a name that nothing else ever had: for a transaction (rule 3), or a refused dead letter.
        """
        self._producers = Producers(clients, clock, timeout_s)
        self._topics = topics
        self._identities = identities
        self._ownership = ownership
        self._clock = clock
        self._pause = pause
        self._report = report
        self._replace_too_large = replace_too_large
        self._control = control
        self._pinning = pinning
        self._new_name = new_name
        self._partitions: dict[Assignment, _Partition] = {}
        self._given_up: frozenset[Assignment] = frozenset()
        self._refused: set[Partition] = set()  # those that were given up alone, until they begin again
        self._ownership_confirmed_at = -math.inf
        self._size = TransactionSize(timeout_s)
        self._hopeless: dict[str, float] = {}  # dead-letter topics that take no records, and until when

    @property
    def busy_since(self) -> float | None:
        """When the present call into librdkafka began."""
        return self._producers.busy_since

    @property
    def end_at(self) -> float:
        """By when all must be committed, by the clock. What is not is dropped."""
        return self._producers.end_at

    def end_by(self, end_at: float) -> None:
        """Drop what is not committed by then, by the clock. May be called from any thread."""
        self._producers.end_at = end_at

    def begin(self) -> None:
        """End what a former run left open under our transactional.id (rule 5): our own restore would wait for it."""
        self._producers.replace()

    def end(self) -> None:
        """Free the producer."""
        self._producers.discard()

    def settle(self, items: Sequence[Item]) -> None:
        """Settle these: commit them, or drop them because their partition is no longer ours."""
        self._settle(self._take_in(items))
        self._producers.offsets_s = math.inf
        if self._producers.one_by_one:
            self._producers.one_by_one = False
            self._producers.discard()

    def _settle(self, writes: list[Write]) -> None:
        parts = deque([writes])
        attempt = 0
        while parts:
            ownership = self._ownership()
            writes, rest = fitting(self._keep_covered(parts.popleft(), ownership), self._size.limit)
            if rest:
                parts.appendleft(rest)
            if not writes:
                continue
            if self._clock() > self.end_at:
                self._report(Dropped([*writes, *chain(*parts)]))
                break
            writes = self._without_hopeless(writes)
            if not writes:
                continue
            try:
                self._transact(writes, ownership)
            except TooLargeError as error:
                smaller_ones = self._with_smaller(writes, error.write)
                if isinstance(error.write, Put) and not error.write.keeps:
                    parts = deque(self._without_action(part, error.write) for part in parts)
                parts.appendleft(smaller_ones)
                self._producers.replace()
            except FencedError as error:
                self._producers.discard()
                self._partitions.clear()
                self._given_up = frozenset(ownership.assignments)
                self._report(Fenced(str(error)))
                self._report(Dropped([*writes, *chain(*parts)]))
                break
            except AbortedError as error:
                self._report(TransactionAborted(str(error)))
                self._learn(writes, error)
                self._producers.replace()
                cut = self._cut(writes, error, attempt)
                if cut is None:
                    self._pause(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                    attempt += 1
                parts.extendleft(reversed([writes] if cut is None else cut))
            else:
                attempt = 0

    def _take_in(self, items: Sequence[Item]) -> list[Write]:
        """Return what is to be written of these; the others only say something of their partition."""
        writes: list[Write] = []
        for item in items:
            if isinstance(item, Begin):
                self._begin(item)
            elif isinstance(item, Unparked):
                self._unpark(item)
            elif (write := self._without_refused(item)) is not None:
                writes.append(write)
        return writes

    def _learn(self, writes: Sequence[Write], error: AbortedError) -> None:
        """Learn from what a transaction came to nothing for."""
        self._producers.offsets_s = math.inf
        if isinstance(error, BatchTooLargeError):
            self._producers.one_by_one = True
        elif isinstance(error, OverranError):
            self._size.overran(sum(map(size_of, writes)), error.written)

    def _cut(self, writes: list[Write], error: AbortedError, attempt: int) -> list[list[Write]] | None:
        """Return the parts to settle instead, in order; None where all is to be tried again."""
        match error:
            case RefusedError():
                parts = self._without_answers(writes, error.topics, str(error))
                parts = self._cut_refused(writes, error) if parts is None else parts
                self._producers.offsets_s = math.inf if error.topics else OFFSETS_AGAIN_S
                return parts
            case OverranError():
                silent = {topic for topic, number in error.unwritten if topic == self._control}
                parts = self._without_answers(writes, silent, str(error))
                return self._cut_silent(writes, error) if parts is None else parts
        # A right that is missing to add a partition to the transaction looks like any other abort.
        return self._without_answers(writes, {self._control}, str(error)) if attempt else None

    def _without_answers(
        self, writes: Sequence[Write], refusing: Collection[str | None], why: str
    ) -> list[list[Write]] | None:
        """Leave the answers out that these topics do not take (rule 10); None: there are none."""
        answers = [
            write
            for write in writes
            if isinstance(write, PutAnswer)
            and (self._control in refusing or (write.redriven is not None and write.redriven.topic in refusing))
        ]
        if not answers:
            return None
        left: list[Write] = []
        is_answered = False  # what comes next is written with a refused answer
        for write in writes:
            is_new = is_answered and isinstance(write, Put | DeadLetter) and write.requested
            if is_new or (isinstance(write, PutAnswer) and write in answers):
                is_answered = isinstance(write, Put | DeadLetter | PutAnswer) and write.with_next
            else:
                is_answered = False
                left.append(write)
        self._report(AnswersRefused(answers, why))
        return [left] if left else []

    def _cut_refused(self, writes: list[Write], error: RefusedError) -> list[list[Write]] | None:
        """Rule 7."""
        suspects = [
            write for write in writes if isinstance(write, DeadLetter) and self._dead_letters_of(write) in error.topics
        ]
        if not suspects:
            if not error.topics.isdisjoint(topics.outcomes for topics in self._topics.values()):
                return None  # rule 9
            of_offsets = not error.topics
            parts = by_topic(writes) if of_offsets else by_partition(writes)
            if parts is not None:
                return list(parts)
            written = troubled = {write.assignment for write in writes}
            if of_offsets:
                troubled = {each for each in self._partitions if each.topic == writes[0].assignment.topic}
            elif error.whole_topic:
                troubled = {each for each in self._partitions if self._topics[each.topic].delay in error.topics}
            # What is refused may have been made meanwhile, for the others as for this one: a deleted delay topic.
            states = [self._partitions[each] for each in written]
            if max(state.refusals for state in states) + 1 < REFUSALS:
                served = self._others_are_served(troubled)
                for state in states:
                    state.refusals += served
                return None
            return self._given_up_if_others_are_served(troubled, writes, str(error))
        if error.whole_topic:
            self._hopeless.update(dict.fromkeys(error.topics, self._clock() + HOPELESS_S))
            return [self._kept(writes, suspects, str(error))]
        named = [write for write in suspects if write in error.suspects] or suspects
        if error.exact or len(named) == 1:
            return [self._kept(writes, named, str(error))]
        return list(halves(writes, set(named)))

    def _cut_silent(self, writes: list[Write], error: OverranError) -> list[list[Write]] | None:
        """Rule 9."""
        silent = [a for a in dict.fromkeys(write.assignment for write in writes) if self._is_silent(a, error)]
        if not silent:
            return None
        for assignment in silent:
            self._partitions[assignment].silent += 1
        others = [write for write in writes if write.assignment not in silent]
        if others:
            if not error.others_taken and not self._others_are_served(silent):
                return None
            return [others, [write for write in writes if write.assignment in silent]]
        if min(self._partitions[each].silent for each in silent) < 2:
            return None
        letters = [write for write in writes if isinstance(write, DeadLetter) and self._lies_in(write, error.unwritten)]
        if not letters:
            parts = self._given_up_if_others_are_served(silent, writes, str(error))
        else:
            parts = [self._kept(writes, letters, str(error))] if self._others_are_served(silent) else None
        if parts is None and len(silent) > 1:  # one of them may hold up the others
            return [[write for write in writes if write.assignment == each] for each in silent]
        return parts

    def _is_silent(self, assignment: Assignment, error: OverranError) -> bool:
        topics, partition = self._topics[assignment.topic], assignment.partition
        return not error.unwritten.isdisjoint({(topics.delay, partition), (topics.dead_letters, partition)})

    def _lies_in(self, write: DeadLetter, partitions: Collection[Partition]) -> bool:
        return (self._dead_letters_of(write), write.assignment.partition) in partitions

    def _given_up_if_others_are_served(
        self, troubled: Collection[Assignment], writes: list[Write], why: str
    ) -> list[list[Write]] | None:
        """Give partitions up that the broker refuses, where others wait for them (rule 7). `writes`: all are theirs."""
        if not self._others_are_served(troubled):
            return None  # no write is dropped for nothing
        self._report(Dropped(writes))
        for assignment in sorted(troubled):
            del self._partitions[assignment]
            self._refused.add((assignment.topic, assignment.partition))
            self._report(GivenUp(assignment, why))
        return []

    def _others_are_served(self, troubled: Collection[Assignment]) -> bool:
        """Tell whether a transaction of another partition is committed now: it holds its position once more.

        Where no other one has begun, those count that were assigned meanwhile: they wait in the queue, behind this
        one's writes.
        """
        ownership = self._ownership()
        others = [a for a in self._partitions if a not in troubled and ownership.covers(a)]
        others.sort(key=lambda a: self._partitions[a].committed_at, reverse=True)
        for other in others[:MAX_PROBES]:
            try:
                self._transact([Position(other, self._partitions[other].next_offset)], ownership)
            except FencedError:
                return False  # the next transaction meets it again
            except AbortedError as error:
                self._report(TransactionAborted(str(error)))
                self._producers.replace()
            else:
                return True
        waiting = {a for a in ownership.assignments if (a.topic, a.partition) not in self._refused}
        return not others and not waiting <= {*self._partitions, *troubled}

    def _without_hopeless(self, writes: list[Write]) -> list[Write]:
        """Keep dead letters at once whose topic took none a moment ago; those that were kept before may try it."""
        if not self._hopeless:
            return writes
        now = self._clock()
        self._hopeless = {topic: until for topic, until in self._hopeless.items() if until > now}
        answered = self._without_answers(writes, self._hopeless, "the topic takes no records at present")
        writes = writes if answered is None else [write for part in answered for write in part]
        refused = [
            write
            for write in writes
            if isinstance(write, DeadLetter) and not write.is_kept and self._dead_letters_of(write) in self._hopeless
        ]
        return self._kept(writes, refused, "the topic takes no records at present") if refused else writes

    def _kept(self, writes: Sequence[Write], refused: Sequence[DeadLetter], why: str) -> list[Write]:
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

    def _dead_letters_of(self, write: Write) -> str:
        return self._topics[write.assignment.topic].dead_letters

    def _with_smaller(self, writes: list[Write], write: Put | DeadLetter) -> list[Write]:
        """Return the writes with what is written in place of a record that the broker refuses as too large."""
        keeps = isinstance(write, Put) and write.keeps is not None
        replacement = smaller(write) if isinstance(write, Put) and keeps else self._replace_too_large(write)
        if replacement is None:
            self._report(TransactionAborted("the delay topic refuses even a dead letter without its value"))
            self._pause(RETRY_S[-1])
            return writes
        if replacement is write and isinstance(write, DeadLetter):
            return self._kept(writes, [write], "its topic refuses even a dead letter without its value")
        if isinstance(write, Put) and isinstance(replacement, DeadLetter):
            return self._dead_lettered(writes, write, replacement)
        return [replacement if each is write else each for each in writes]

    def _dead_lettered(self, writes: Sequence[Write], refused: Put, dead_letter: DeadLetter) -> list[Write]:
        """Return the writes with the dead letter in place of the first of the refused action's.

        There, no position moves past it, wherever the transaction is cut. Of the action's others only positions count.
        """
        first = next(write for write in writes if _is_of(write, refused))
        position, with_next = (first.next_offset, first.with_next) if isinstance(first, Put) else (None, False)
        requested = isinstance(first, Put) and first.requested
        dead_letter = replace(dead_letter, next_offset=position, with_next=with_next, requested=requested)
        self._partitions[refused.assignment].too_large.add(refused.key)
        self._report(RecordTooLarge(refused, dead_letter))
        at = writes.index(first)
        return [*writes[:at], dead_letter, *self._without_action(writes[at + 1 :], refused)]

    def _without_action(self, writes: Sequence[Write], refused: Put) -> list[Write]:
        """Return the writes without those of an action that is dead-lettered, of which only the positions count."""
        left = (self._without_refused(write) if _is_of(write, refused) else write for write in writes)
        return [write for write in left if write is not None]

    def _without_refused(self, write: Write) -> Write | None:
        """Return the write without an action that was dead-lettered because its record is too large.

        Its earlier writes may still be in the queue. They would dead-letter it again, so only their position counts.
        """
        partition = self._partitions.get(write.assignment)
        if partition is None or isinstance(write, Position | Barrier | PutAnswer):
            return write
        if isinstance(write, Put) and write.requested:
            partition.too_large.discard(write.key)  # it begins again
        if write.key not in partition.too_large:
            return write
        if (isinstance(write, Put) and write.keeps) or (isinstance(write, DeadLetter) and write.is_kept):
            return write
        if isinstance(write, Tombstone) or write.next_offset is None:
            return None
        return Position(write.assignment, write.next_offset)

    def _begin(self, begin: Begin) -> None:
        if begin.assignment in self._given_up:
            return
        ownership = self._ownership()
        for gone in [a for a in self._partitions if not ownership.covers(a)]:
            del self._partitions[gone]
        self._refused.discard((begin.assignment.topic, begin.assignment.partition))
        mark = LowWaterMark(begin.live, begin.end, self._pinning, begin.parked_from)
        self._partitions[begin.assignment] = _Partition(mark, begin.next_offset, begin.end, begin.outcomes_topic_id)

    def _unpark(self, unparked: Unparked) -> None:
        state = self._partitions.get(unparked.assignment)
        if state is not None and state.incarnation == unparked.incarnation:  # else the records are written again
            state.mark.unparked(unparked.live, unparked.parked_from, unparked.known)

    def _keep_covered(self, writes: list[Write], ownership: Ownership) -> list[Write]:
        """Return the writes that are still ours (rule 1), and report the others as dropped."""
        kept: list[Write] = []
        gone: list[Write] = []
        for write in writes:
            ours = write.assignment in self._partitions and ownership.covers(write.assignment)
            (kept if ours else gone).append(write)
        if gone:
            self._report(Dropped(gone))
        return kept

    def _transact(self, writes: list[Write], ownership: Ownership) -> None:
        started = self._clock()
        transaction = self._new_name()
        batches = self._batches(writes)
        try:
            self._commit(batches, ownership, transaction)
        except UnknownOutcomeError as error:
            if not self._was_committed(batches, transaction, error):
                raise
        parked: dict[Put, int | None] = {}
        for batch in batches:
            state = self._partitions[batch.assignment]
            of_batch = {write: batch.offset_of(write) for write in batch.parked}
            parked |= of_batch
            state.mark.apply(batch.written, batch.end, {write.key for write in of_batch})
            state.next_offset, state.end, state.recreated = batch.next_offset, batch.end, False
            state.silent, state.refusals, state.committed_at = 0, 0, self._clock()
        seconds = self._clock() - started
        self._size.committed(sum(map(size_of, writes)), seconds)
        if self._hopeless:
            for write in writes:
                if isinstance(write, DeadLetter):
                    self._hopeless.pop(self._dead_letters_of(write), None)
        self._report(
            Committed(
                writes,
                self._ownership_confirmed_at,
                seconds,
                dead_letters={write: at for batch in batches for write, at in batch.dead_letters_at.items()},
                parked=parked,
                recreated={
                    batch.assignment: self._partitions[batch.assignment].incarnation
                    for batch in batches
                    if batch.recreated
                },
            )
        )
        for write in writes:
            if isinstance(write, Put) and write.requested and write.keeps is not None:
                self._report(DeadLetterRefused(write.keeps, "its topic refuses it"))
        for batch in batches:
            if batch.recreated:
                self._report(DelayTopicRecreated(batch.assignment))
            keys = self._partitions[batch.assignment].mark.pinned()
            if keys:
                self._report(Pinned(batch.assignment, keys))

    def _batches(self, writes: list[Write]) -> list[_Batch]:
        batches: dict[Assignment, _Batch] = {}
        for write in writes:
            batch = batches.get(write.assignment)
            if batch is None:
                state = self._partitions[write.assignment]
                batch = batches[write.assignment] = _Batch(
                    assignment=write.assignment,
                    next_offset=state.next_offset,
                    start=state.end,
                    end=state.end,
                    recreated=state.recreated,
                )
            batch.add(write)
        return list(batches.values())

    def _commit(self, batches: list[_Batch], ownership: Ownership, transaction: str) -> None:
        if ownership.group_metadata is None or generation(ownership.group_metadata) < 0:
            raise AbortedError("not a member of the group yet")  # the broker would not check it: no fencing
        self._producers.begin_transaction()
        if sum(self._produce_first(batch) for batch in batches):
            self._producers.flush()
        for batch in batches:
            self._produce(batch)
        self._producers.flush()
        offsets = []
        for batch in batches:
            topic, partition, _ = batch.assignment
            state = self._partitions[batch.assignment]
            if batch.recreated:
                state.mark = LowWaterMark(pinning=self._pinning)
            mark = state.mark.after(batch.written, batch.end)
            offsets.append(TopicPartition(topic, partition, batch.next_offset, metadata=transaction))
            offsets.append(TopicPartition(self._topics[topic].delay, partition, mark, metadata=transaction))
        self._ownership_confirmed_at = self._clock()
        self._producers.send_offsets(offsets, ownership.group_metadata)
        self._producers.commit()

    def _produce_first(self, batch: _Batch) -> int:
        """Produce the batch's dead letters, and outcomes that stand alone (rule 2); returns how many there are."""
        topic, partition, _ = batch.assignment
        to = self._topics[topic].dead_letters
        count = self._produce_outcomes(batch, batch.outcomes_alone) + len(batch.dead_letters)
        for write in batch.dead_letters:
            lies = partial(self._dead_letter_lies, batch, write, to)
            self._producers.produce(to, partition, write.record, delivered=lies, write=write)
        return count

    def _produce_outcomes(self, batch: _Batch, ended: Sequence[Ended]) -> int:
        """Produce outcomes, where they are written; returns how many."""
        topic, partition, _ = batch.assignment
        outcomes = self._topics[topic].outcomes
        if outcomes is None:
            return 0
        for each in ended:
            self._producers.produce(outcomes, partition, record_of(each))
        return len(ended)

    def _dead_letter_lies(self, batch: _Batch, write: DeadLetter, topic: str, record: Message) -> None:
        batch.dead_letters_at[write] = DeadLetterAt(topic, record.offset())

    def _produce(self, batch: _Batch) -> None:
        topic, partition, _ = batch.assignment
        delay_topic = self._topics[topic].delay
        self._produce_outcomes(batch, batch.outcomes)
        for key, write in batch.latest.items():
            record = Record(key, write.value if isinstance(write, Put) else None)
            delivered = partial(self._delivered, batch, write)
            too_large = write if isinstance(write, Put) else None  # a tombstone is not
            self._producers.produce(delay_topic, partition, record, delivered=delivered, write=too_large)
        outcomes_topic_id = self._partitions[batch.assignment].outcomes_topic_id
        value = position_value(self._identities[topic], partition, batch.next_offset, outcomes_topic_id)
        position = Record(POSITION_KEY, value)
        self._producers.produce(delay_topic, partition, position, delivered=partial(self._delivered, batch, None))
        self._produce_answers(batch)

    def _produce_answers(self, batch: _Batch) -> None:
        """Answer requests, and mark the dead letters that were redriven, behind the records that this speaks of."""
        for answer in batch.answers:
            assert self._control is not None  # noqa: S101 - they were read there
            if (of := answer.redriven) is not None:
                self._producers.produce(of.topic, of.partition, redriven_mark(of.offset))
            self._producers.produce(self._control, CONTROL_PARTITION, Record(answer.key, answer.value))

    def _delivered(self, batch: _Batch, write: Keyed | None, record: Message) -> None:
        offset = record.offset()
        if offset is None:  # an earlier try wrote it, and its answer was lost: it lies after the batch's start
            offset = batch.start
            if write is not None:
                batch.unknown.add(write.key)
        elif offset < batch.start:  # rule 6
            state = self._partitions[batch.assignment]
            state.recreated = batch.recreated = True  # an abort does not undo it
            state.incarnation += 1
            state.end = batch.start = batch.end = 0
            batch.written.clear()  # these records were in the deleted topic
        batch.end = max(batch.end, offset + 1)
        if write is not None:
            batch.written[write.key] = offset if isinstance(write, Put) else None

    def _was_committed(self, batches: list[_Batch], transaction: str, error: Exception) -> bool:
        """Fence the transaction, which ends it, then look whether it was committed (rule 3)."""
        why, tries = str(error), 0
        while True:
            self._producers.discard()
            self._report(TransactionAborted(f"outcome of a commit unknown: {why}"))
            try:
                self._producers.build(suspect=tries > 0)
                return transaction in self._committed_transactions(batches)
            except AbortedError as again:
                why, tries = str(again), tries + 1
            ownership = self._ownership()
            if self._clock() > self.end_at or not any(ownership.covers(batch.assignment) for batch in batches):
                return False  # nothing of it is written again then
            self._pause(RETRY_S[-1])

    def _committed_transactions(self, batches: list[_Batch]) -> set[str | None]:
        """Return which transactions committed these partitions' offsets last.

        All partitions are asked for, because some of them may have a new owner since. So are the low-water marks,
        because the group forgets the offsets of a topic that was deleted.
        """
        partitions = [batch.assignment[:2] for batch in batches]
        asked = [TopicPartition(*each) for each in partitions]
        asked += [TopicPartition(self._topics[topic].delay, number) for topic, number in partitions]
        return {each.metadata for each in self._producers.committed(asked)}
