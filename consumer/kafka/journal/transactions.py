"""The journal's transactions: what is written together, and what a failure means.

Everything here runs on one thread, the journal's (journal.py). Its clock, its waits and its Kafka clients are
parameters, so that the simulation (tests/simulation) drives the same rules. Here is the loop that tries, learns and
tries again. What it tries and what it learns are in the files that the rules name.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. A transaction begins with a snapshot of the ownership. Writes that the snapshot does not cover are dropped
    (partitions.py). The others are committed with the snapshot's metadata (commits.py). A stale generation aborts the
    transaction; what is still owned is tried again.
 2. Dead letters are flushed before the records, and records before the offsets are sent (commits.py). Each record is
    true and idempotent by key on its own. So is the position record: everything before its offset is dealt with. So
    the outcomes of actions that were never pending, which nothing else tells of, are flushed before it, too.
 3. Where a commit's outcome is unknown, a new producer ends the transaction, committed or aborted. The metadata of
    the committed offset names the transaction, so it shows which of the two (commits.py). Nothing is written twice.
 4. A fenced producer gives up every partition and rejoins the group.
 5. No open transaction is left behind: the next owner's restore would wait for it.
 6. A delay topic that was deleted and recreated begins at offset 0. Then its low-water mark begins at 0 again, and
    what is pending is written again (commits.py). The old mark would hide all new records.
 7. What the broker refuses stops nothing else (refusals.py). The transaction is cut (cutting.py) until that stands
    alone. A dead letter that its topic refuses is kept in the delay topic, in place of its action's record: it is safe
    there, the action has ended, and the position moves on (kept_dead_letters.py). A partition whose records or offsets
    are refused is given up and restored again, where others would wait for it: it is refused again and again, and each
    time a transaction of another one is committed just then. Once is not enough: a deleted topic may have been made
    again in between. Where offsets are refused, that is for the source topic: all its partitions are given up
    together, and each attempt after the first one has OFFSETS_AGAIN_S, so that the others wait for one full time-out,
    however many partitions the topic has. All of a delay topic's are given up together, too, where it takes no record.
 8. What does not fit into its time is tried again in smaller transactions (transaction_size.py). A record that is too
    large by itself becomes a dead letter (too_large.py).
 9. A partition of which the broker takes nothing twice, while it takes records of others (it has lost its leader, or
    the copies that it needs), counts as refused, and so do its dead letters, where it is the dead-letter topic's
    (refusals.py). Who took nothing once is a suspect: its writes wait until the others are safe. Then all partitions
    are asked at once for one small record each, within SUSPECTS_S, as an attempt takes all of a transaction's time
    otherwise. A transaction that is late asks the partitions that it holds nothing of, too. So the others wait once,
    however many partitions are lost, and a partition that is merely slow, or has much to write, takes its record. Where
    all are suspects, or nothing is taken of any, that says nothing of them: they are tried in full, together, and alone
    where no others can show that the broker takes anything. Where it is the outcomes topic's, all wait for it, and so
    they do where that topic refuses an outcome: actions that Engage accepted cannot end without it, and a partition
    that is given up would send them again. An outcome of what was never pending ends none, and is left out.
10. A request is answered in the transaction that carries it out, so it is carried out once. Where the control topic
    does not take the answer, nothing waits for it: the request stays open, and only what ends an action is written
    (refusals.py).
producers.py decides which producer may be used, meanings.py what its errors mean.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from secrets import token_hex

from consumer.core.clock import Clock
from consumer.core.ownership import Ownership
from consumer.kafka.facts import Dropped, Fenced, Report, TransactionAborted
from consumer.kafka.journal.commits import RETRY_S, Commits
from consumer.kafka.journal.cutting import fitting
from consumer.kafka.journal.kept_dead_letters import KeptDeadLetters
from consumer.kafka.journal.low_water_mark import PINNING, Pinning
from consumer.kafka.journal.meanings import AbortedError, BatchTooLargeError, FencedError, OverranError, TooLargeError
from consumer.kafka.journal.partitions import Partitions
from consumer.kafka.journal.producers import Clients, Producers
from consumer.kafka.journal.refusals import Refusals
from consumer.kafka.journal.too_large import ReplaceTooLarge, TooLarge
from consumer.kafka.journal.transaction_size import TransactionSize
from consumer.kafka.journal.writes import Begin, Item, Put, Unparked, Write, size_of
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

TRANSACTION_S = 10.0


def _random_name() -> str:
    return token_hex(16)


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
        self._ownership = ownership
        self._clock = clock
        self._pause = pause
        self._report = report
        self._producers = Producers(clients, clock, timeout_s)
        self._partitions = Partitions(ownership, report, pinning)
        self._size = TransactionSize(timeout_s)
        self._commits = Commits(
            self._producers,
            self._partitions,
            self._size,
            topics=topics,
            identities=identities,
            ownership=ownership,
            clock=clock,
            pause=pause,
            report=report,
            control=control,
            new_name=new_name,
        )
        self._kept = KeptDeadLetters(topics, clock=clock, report=report, control=control, new_name=new_name)
        self._too_large = TooLarge(
            self._partitions, self._kept, replace_too_large=replace_too_large, pause=pause, report=report
        )
        self._refusals = Refusals(
            self._producers,
            self._partitions,
            self._commits,
            self._kept,
            topics=topics,
            ownership=ownership,
            report=report,
            control=control,
        )

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
            writes, rest = fitting(self._partitions.covered(parts.popleft(), ownership), self._size.limit)
            if rest:
                parts.appendleft(rest)
            if not writes:
                continue
            if self._clock() > self.end_at:
                self._report(Dropped([*writes, *chain(*parts)]))
                break
            writes = self._refusals.without_silent_letters(self._kept.without_hopeless(writes))
            if not writes or self._put_off(writes, parts):
                continue
            try:
                self._commits.commit(writes, ownership)
            except TooLargeError as error:
                smaller_ones = self._too_large.with_smaller(writes, error.write)
                if isinstance(error.write, Put) and not error.write.keeps:
                    parts = deque(self._too_large.without_action(part, error.write) for part in parts)
                parts.appendleft(smaller_ones)
                self._producers.replace()
            except FencedError as error:
                self._producers.discard()
                self._partitions.give_all_up(ownership)
                self._report(Fenced(str(error)))
                self._report(Dropped([*writes, *chain(*parts)]))
                break
            except AbortedError as error:
                self._report(TransactionAborted(str(error)))
                self._learn(writes, error)
                self._producers.replace()
                cut = self._refusals.cut(writes, error, attempt)
                if cut is None:
                    self._pause(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                    attempt += 1
                parts.extendleft(reversed([writes] if cut is None else cut))
            else:
                self._kept.committed(writes)
                attempt = 0

    def _put_off(self, writes: list[Write], parts: deque[list[Write]]) -> bool:
        """Put the writes of suspects behind the others, or behind the question whether they take anything (rule 9)."""
        suspects, others = self._refusals.suspected(writes)
        if not suspects or not (others or self._refusals.ask_suspects()):
            return False
        parts.extendleft((suspects, others))  # what was given up meanwhile is covered no more
        return True

    def _take_in(self, items: Sequence[Item]) -> list[Write]:
        """Return what is to be written of these; the others only say something of their partition."""
        writes: list[Write] = []
        for item in items:
            if isinstance(item, Begin):
                self._partitions.begin(item)
            elif isinstance(item, Unparked):
                self._partitions.unpark(item)
            elif (write := self._too_large.without_refused(item)) is not None:
                writes.append(write)
        return writes

    def _learn(self, writes: Sequence[Write], error: AbortedError) -> None:
        """Learn from what a transaction came to nothing for."""
        self._producers.offsets_s = math.inf
        if isinstance(error, BatchTooLargeError):
            self._producers.one_by_one = True
        elif isinstance(error, OverranError):
            self._size.overran(sum(map(size_of, writes)), error.written)
