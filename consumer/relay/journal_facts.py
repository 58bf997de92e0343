"""What the journal reports, and what follows from it: for the ledger, the partitions, requests and dead letters.

Rules:
 1. What was dropped is nothing to do: the partition's next owner finds what it needs in Kafka.
 2. A dead letter that its topic refuses stays in the delay topic, and is tried again (refused.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence

from consumer.core.clock import Clock
from consumer.core.effects import ActionId
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.kafka.facts import (
    AnswersRefused,
    Committed,
    DeadLetterAt,
    DeadLetterRefused,
    DelayTopicRecreated,
    Dropped,
    Fenced,
    GivenUp,
    JournalFact,
    OutcomesRefused,
    Pinned,
    RecordTooLarge,
    Refused,
    TransactionAborted,
)
from consumer.kafka.journal.writes import Barrier, DeadLetter, Intent, Put, PutAnswer, Write
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.records.pending import live_action
from consumer.kafka.records.unreadable import Unreadable
from consumer.relay.edges import Source
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox
from consumer.relay.partitions import Partitions
from consumer.relay.reading_back import ReadingBack
from consumer.relay.refused import RefusedDeadLetters
from consumer.relay.requests import Requests
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.snapshot import DeadLettered

LAST_DEAD_LETTERS = 20  # that the status page shows


class JournalFacts:
    """Takes what the journal reports."""

    def __init__(
        self,
        *,
        source: Source,
        ledger: Ledger,
        outbox: Outbox,
        refused: RefusedDeadLetters,
        partitions: Partitions,
        reading_back: ReadingBack,
        requests: Requests | None,
        clock: Clock,
        tick_soon: Callable[[], None],
        metrics: Metrics,
        log: ThrottledLog,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._outbox = outbox
        self._refused = refused
        self._partitions = partitions
        self._reading_back = reading_back
        self._requests = requests
        self._clock = clock
        self._tick_soon = tick_soon
        self._metrics = metrics
        self._log = log
        self.dead_letters: deque[DeadLettered] = deque(maxlen=LAST_DEAD_LETTERS)

    def take(self, fact: JournalFact) -> None:  # noqa: PLR0912 - one line for each fact
        """Take a fact, and do what follows."""
        match fact:
            case Committed(writes, _, seconds):
                self._metrics.transaction_committed(seconds, len(writes))
                self._committed(fact)
            case Dropped(writes):
                self._dropped(writes)
            case Pinned(assignment, keys):
                self._pinned(assignment, keys)
            case DelayTopicRecreated(assignment):
                self._recreated(assignment)
            case RecordTooLarge(write):
                self._record_too_large(write)
            case DeadLetterRefused(refused, why):
                self._dead_letter_refused(refused, why)
            case AnswersRefused():
                if self._requests is not None:
                    self._requests.refused(fact)
            case OutcomesRefused(why):
                self._log.throttled("the outcomes topic refuses an outcome; it is left out", why=why)
            case TransactionAborted(why):
                self._metrics.transaction_aborted()
                self._log.throttled("transaction aborted, trying again", why=why)
            case Fenced(why):
                self._log.error("fenced: another producer uses our transactional.id; rejoining", why=why)
                self._source.rejoin()
            case GivenUp(assignment, why):
                self._partitions.given_up(assignment, why)
            case Refused(assignments, why):
                self._partitions.refused(assignments, why)

    def _committed(self, fact: Committed) -> None:
        now = self._clock()
        self._reading_back.committed(fact)
        self._partitions.committed(write.assignment for write in fact.writes)
        for write in fact.writes:
            match write:
                case Put(intent=Intent(action_id, sends, _, before_document)):
                    saved = self._ledger.intent_saved(
                        action_id, sends, fact.ownership_confirmed_at, before_document=before_document
                    )
                    self._outbox.apply(saved, now)
                case Put(requested=True, keeps=None) if self._requests is not None:
                    self._requests.saved(write, now)
                case PutAnswer() if self._requests is not None:
                    self._requests.committed(write)
                case DeadLetter():
                    self._refused.committed(write, now)
                    self._dead_lettered(write, fact.dead_letters.get(write), now)
                case Barrier():
                    self._reached(write)
        self._tick_soon()

    def _dead_lettered(self, write: DeadLetter, at: DeadLetterAt | None, now: float) -> None:
        self._metrics.dead_lettered(write.reason)
        topic, partition, _ = write.assignment
        dead_letter = DeadLettered(
            reason=write.reason,
            source_topic=topic,
            partition=partition,
            source_offset=write.offset,
            dead_letter_topic=at.topic if at else None,
            dead_letter_offset=at.offset if at else None,
            at=now,
        )
        self.dead_letters.append(dead_letter)
        self._log.rationed(
            "an event became a dead letter",
            reason=write.reason,
            route=write.record.route,
            source_topic=topic,
            partition=partition,
            source_offset=write.offset,
            dead_letter_topic=dead_letter.dead_letter_topic,
            dead_letter_offset=dead_letter.dead_letter_offset,
        )

    def _reached(self, barrier: Barrier) -> None:
        self._partitions.reached(barrier)
        if self._requests is not None:
            self._requests.reached(barrier)

    def _dropped(self, writes: Sequence[Write]) -> None:
        """Do nothing for dropped writes: the partition's next owner finds what it needs in Kafka."""
        for write in writes:
            if isinstance(write, Barrier):
                self._reached(write)
            elif isinstance(write, PutAnswer) and self._requests is not None:
                self._requests.dropped(write)
        self._tick_soon()

    def _pinned(self, assignment: Assignment, keys: Iterable[Hashable]) -> None:
        now = self._clock()
        for key in keys:
            if isinstance(key, bytes) and (place := place_of_key(key)) is not None:
                self._outbox.apply(self._ledger.refresh(ActionId(assignment, place)), now)
            for put in self._refused.rewrite(assignment, key):
                self._outbox.add(put)
        self._tick_soon()

    def _recreated(self, assignment: Assignment) -> None:
        self._log.error(
            "the delay topic was recreated; pending records are written again",
            topic=assignment.topic,
            partition=assignment.partition,
        )
        self._outbox.write_again(self._ledger.rewrite(assignment))
        for put in self._refused.rewrite(assignment):
            self._outbox.add(put)
        self._tick_soon()

    def _record_too_large(self, write: Put) -> None:
        """Forget an action that the journal had to dead-letter."""
        place = place_of_key(write.key)
        if place is None:
            return
        now = self._clock()
        fact, in_doubt = self._ledger.record_too_large(ActionId(write.assignment, place), now)
        if write.parked_for is not None:
            live = live_action(write.key, write.value)
            assert not isinstance(live, Unreadable)  # noqa: S101 - we wrote it ourselves a moment ago
            self._ledger.parked_too_large(write.assignment, live.action, place)
            fact = live.action.fact
        if fact is not None:
            self._outbox.fact_ended(write.assignment, fact, now, sent=in_doubt)
        self._tick_soon()

    def _dead_letter_refused(self, write: DeadLetter, why: str) -> None:
        """Try a dead letter again later, which its topic refuses and the delay topic keeps."""
        self._metrics.dead_letter_refused(write.assignment.topic)
        self._log.throttled(
            "the dead-letter topic refuses a dead letter; the delay topic keeps it, and it is tried again",
            topic=write.assignment.topic,
            partition=write.assignment.partition,
            offset=write.offset,
            reason=write.reason,
            why=why,
        )
        if write.assignment in self._partitions.ours:  # else its next owner finds it in the delay topic
            for put in self._refused.refused(write, why, self._clock()):
                self._outbox.add(put)
        self._tick_soon()
