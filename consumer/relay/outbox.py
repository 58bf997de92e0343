"""The outbox: events and effects become writes, which wait here for the next tick's submission to the journal.

Rules:
 1. An event's position is submitted together with its record, so one transaction settles both or neither.
 2. Nothing grows without bound: what a connection has pending beyond its share is parked (core/parking.py). The source
    is paused while too much waits for the journal, or where no more can be parked.
 3. A transaction's marker behind the last event is read, too: without a position of its own, the group's lag would
    never be 0. It may wait for the next event's position, so it costs at most one transaction a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from consumer.core.clock import Clock
from consumer.core.effects import ActionId, Close, Effect, GiveUp, LiveAction, Save, Times
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.parking import BYTES_OF_PENDING
from consumer.core.places import offset_at, place_of
from consumer.core.repeats import Repeats
from consumer.events.deciding import Decided, Ignored, decide, redrive_of
from consumer.events.formats.formats import JSON, Awaiting, Formats
from consumer.events.guards import StoppedBy
from consumer.events.routing.results import Misrouted, Routed, Several
from consumer.events.routing.router import Router
from consumer.kafka.facts import Read
from consumer.kafka.journal.writes import DeadLetter, Intent, Item, Position, Put, Tombstone, Write
from consumer.kafka.outcomes.outcomes import EndedAction, EndedEvent
from consumer.kafka.records.dead_letters import (
    dead_letter_of_action,
    dead_letter_of_event,
    dead_letter_of_stopped,
    dead_letter_of_unreadable,
    event_of_unreadable_record,
    without_value,
)
from consumer.kafka.records.keys import action_key, place_of_key
from consumer.kafka.records.pending import live_action, new_action, pending_value
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.restore.restored import UnreadableRecord
from consumer.relay.edges import Journal, Source
from consumer.relay.refused import RefusedDeadLetters
from consumer.telemetry.metrics import Metrics
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

# Writes that wait for a transaction before the source is paused: ten of the largest, a second's worth at full speed.
MAX_BACKLOG = 20_000
_STOPPED_BY: Mapping[OutcomeName, StoppedBy] = {
    OutcomeName.SHADOW: "shadow",
    OutcomeName.WITHHELD: "withheld",
    OutcomeName.SUPERSEDED: "superseded",
    OutcomeName.OUT_OF_SEQUENCE: "out_of_sequence",
}
MAX_BACKLOG_BYTES = 32 * 1024 * 1024  # two of the largest transactions


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be held and parked (core/parking.py), and how many writes may wait before the source is paused."""

    pending: int
    parked: int | None = None
    backlog: int = MAX_BACKLOG
    backlog_bytes: int = MAX_BACKLOG_BYTES


class Outbox:
    """What is to be submitted to the journal at the end of this tick."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        router: Router,
        source: Source,
        journal: Journal,
        limits: Limits,
        refused: RefusedDeadLetters,
        dead_letter_topics: Collection[str],
        repeats: Repeats | None = None,
        metrics: Metrics,
        tracing: Tracing | None,
        formats: Formats = JSON,
    ) -> None:
        """`dead_letter_topics`: ours. An event that was redriven from another topic is another relay's.

        `repeats`: None: each event is sent.
        """
        self._ledger = ledger
        self._router = router
        self._source = source
        self._journal = journal
        self._limits = limits
        self._refused = refused
        self._dead_letter_topics = dead_letter_topics
        self._repeats = repeats
        self._metrics = metrics
        self._tracing = tracing
        self._formats = formats
        self._writes: list[Item] = []
        self._ends: dict[Assignment, int] = {}
        self._read_to: dict[Assignment, int] = {}
        self._superseded: list[Effect] = []  # by the event that is taken just now
        self.paused = False
        self.journal_is_full = False

    @property
    def empty(self) -> bool:
        """Whether nothing waits here."""
        return not self._writes

    # -- in -----------------------------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        """Submit this next."""
        self._writes.append(item)

    def apply(self, effects: Iterable[Effect], now: float) -> None:
        """Submit what the ledger wants written."""
        for effect in effects:
            self._writes.append(self._write(effect, now))
            if isinstance(effect, Close | GiveUp) and effect.fact is not None:
                self.fact_ended(effect.action_id.assignment, effect.fact, now, sent=_was_sent(effect))

    def fact_ended(self, assignment: Assignment, fact: bytes, now: float, *, sent: bool) -> None:
        """Note that an action of this fact has ended. `sent`: perhaps it was."""
        if self._repeats is not None:
            self._repeats.ended(assignment, fact, now, sent=sent)

    def parked_are_gone(self, assignment: Assignment) -> None:
        """Note that parked actions are gone from the delay topic. Call it when the ledger holds what was read back."""
        self._ledger.parking.forget_marks(assignment)
        if self._repeats is not None:
            self._repeats.parked_are_gone(assignment, self._ledger.facts(assignment))
            self._metrics.facts_lost()

    def begun(self, assignment: Assignment, next_offset: int) -> None:
        """Note where the source of a restored partition continues."""
        self._read_to[assignment] = next_offset

    def forget(self, assignment: Assignment) -> None:
        """Forget a partition that is another instance's now."""
        self._read_to.pop(assignment, None)

    def has_read(self, assignment: Assignment, offset: int) -> bool:
        """Whether the event at this offset was read and decided on."""
        return offset < self._read_to.get(assignment, 0)

    def write_again(self, saves: Iterable[Save]) -> None:
        """Submit records that were written before.

        They are not new intents: a newer intent with the same count of sends may be on its way.
        """
        for save in saves:
            self._writes.append(put_of(save, is_intent=False))

    def take(self, read: Read, now: float) -> tuple[Read, Awaiting] | None:
        """Decode and route each consumed event, and give its action to the ledger.

        Returns what is left where an event's schema must be fetched first: it is to be taken again.
        """
        assignment, events = read.assignment, read.events
        for taken, event in enumerate(events):
            decision = decide(event, self._router, self._dead_letter_topics, now=now, formats=self._formats)
            if isinstance(decision, Awaiting):
                if taken:
                    self._ends.pop(assignment, None)  # it lies before the events that were settled now
                self._read_to[assignment] = event.offset
                self._metrics.events_consumed(assignment.topic, taken)
                return Read(assignment, events[taken:], read.next_offset), decision
            self._writes += self._taken(assignment, event, decision, now)
            if self._superseded:  # behind the record of what supersedes it
                self.apply(self._superseded, now)
                self._superseded = []
        self._metrics.events_consumed(assignment.topic, len(events))
        self._read_to[assignment] = read.next_offset
        self._ends.pop(assignment, None)
        if not events or events[-1].offset + 1 < read.next_offset:
            self._ends[assignment] = read.next_offset
        return None

    def settle_ends(self) -> None:
        """Move the positions of partitions whose end holds no events (rule 3)."""
        self._writes += [Position(assignment, next_offset) for assignment, next_offset in self._ends.items()]
        self._ends.clear()

    def dead_letter_unreadable(self, assignment: Assignment, record: UnreadableRecord, now: float) -> None:
        """Submit the dead letter of a delay record that this version cannot read."""
        dead_letter = dead_letter_of_unreadable(assignment[:2], record.key, record.value, record.why, now)
        self._writes.append(
            DeadLetter(
                assignment=assignment,
                record=dead_letter,
                reason=Reason.UNREADABLE_PENDING,
                offset=None if (place := place_of_key(record.key)) is None else offset_at(place),
                key=record.key,
                outcome=EndedEvent(
                    event=event_of_unreadable_record(assignment[:2], record.key, record.value),
                    reason=Reason.UNREADABLE_PENDING,
                    ended=now,
                ),
            )
        )

    def _taken(self, assignment: Assignment, event: SourceEvent, decision: Decided, now: float) -> list[Item]:
        """Return the writes that settle an event, its position with the last (rule 1)."""
        next_offset = event.offset + 1
        match decision:
            case Ignored(why):
                self._metrics.ignored(event.topic, why)
                return [Position(assignment, next_offset)]
            case Misrouted(reason, detail, route, connection, order_id):
                if self._tracing is not None:
                    self._tracing.taken(event, decision, now)
                record = dead_letter_of_event(event, reason, detail, now, route)
                return [
                    DeadLetter(
                        assignment=assignment,
                        record=record,
                        reason=reason,
                        offset=event.offset,
                        next_offset=next_offset,
                        outcome=EndedEvent(
                            event=event, reason=reason, ended=now, route=route, connection=connection, order_id=order_id
                        ),
                    )
                ]
            case Several(actions):
                settled = [self._settled(assignment, event, action, now) for action in actions]
            case Routed():
                settled = [self._settled(assignment, event, decision, now)]
        new = [write for write in settled if isinstance(write, Put | DeadLetter)]
        outcomes = tuple(each for each in settled if isinstance(each, EndedAction))
        if outcomes or not new:
            position = Position(assignment, next_offset, outcomes)
            return [*(replace(write, with_next=True) for write in new), position]
        return [*(replace(write, with_next=True) for write in new[:-1]), replace(new[-1], next_offset=next_offset)]

    def _settled(
        self, assignment: Assignment, event: SourceEvent, action: Routed, now: float
    ) -> Put | DeadLetter | EndedAction | None:
        """Return what is to be written of an action, or of what a guard makes of it; None: the ledger has it."""
        if (stopped := action.stopped) is None:
            return self._accepted(assignment, event, action, now)
        self._metrics.stopped(action.route, stopped.by)
        outcome = EndedAction(
            outcome=OutcomeName.DEAD_LETTER if stopped.is_dead_letter else OutcomeName(stopped.by),
            payload=new_action(action, event).payload,
            ended=now,
            times=Times(now),
            reason=Reason.TOO_OLD if stopped.is_dead_letter else None,
        )
        if not stopped.is_dead_letter:
            return outcome
        return DeadLetter(
            assignment=assignment,
            record=dead_letter_of_stopped(action, event, stopped.detail, now),
            reason=Reason.TOO_OLD,
            offset=event.offset,
            outcome=outcome,
        )

    def _accepted(
        self, assignment: Assignment, event: SourceEvent, action: Routed, now: float
    ) -> Put | EndedAction | None:
        """Give an action to the ledger, if it is no repeat; None where the ledger has it."""
        if self._tracing is not None:
            traced = self._tracing.taken(event, action, now)
            action = traced if isinstance(traced, Routed) else action
        self._metrics.routed(action.route, action.action)
        for each in action.dropped:
            self._metrics.field_dropped(action.route, each.key)
        place = place_of(event.incarnation, event.offset, action.item or 0)
        new = new_action(action, event, shadow=self._router.shadow is not None)
        is_held = self._ledger.holds(assignment, place)
        if new.fact is not None and not is_held and self._is_repeat(assignment, action, event, new.fact, now):
            self._metrics.stopped(action.route, "repeat")
            return EndedAction(outcome=OutcomeName.REPEAT, payload=new.payload, ended=now, times=Times(now))
        if not is_held and (later := self._ledger.later_step(assignment, new, now)) is not None:
            self._metrics.stopped(action.route, "out_of_sequence")
            return EndedAction(
                outcome=OutcomeName.OUT_OF_SEQUENCE,
                payload=new.payload,
                ended=now,
                times=Times(now),
                reason=f"{later} was sent before",
            )
        save = self._ledger.accept(assignment, place, new, now)
        if save is not None and self._repeats is not None and new.fact is not None:
            self._repeats.opened(assignment, new.fact)
        if save is not None:
            self._superseded += self._ledger.supersede(assignment, new, now)
        return None if save is None else put_of(save)

    def _is_repeat(self, assignment: Assignment, action: Routed, event: SourceEvent, fact: bytes, now: float) -> bool:
        """Tell whether the same was sent, or is pending. What a person redrives is sent all the same."""
        if self._repeats is None or action.repeats_s is None or redrive_of(event.headers) is not None:
            return False
        return self._repeats.is_repeat(assignment, fact, action.repeats_s, now)

    def _write(self, effect: Effect, now: float) -> Write:
        match effect:
            case Save():
                return put_of(effect)
            case Close():
                if (stopped_by := _STOPPED_BY.get(effect.outcome)) is not None:
                    self._metrics.stopped(effect.route, stopped_by)
                return tombstone_of(effect, now)
            case GiveUp():
                if self._tracing is not None:
                    self._tracing.dead_lettered(effect)
                return dead_letter_of(effect, now)

    # -- out ----------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """Submit everything to the journal at once."""
        if self._writes:
            self._journal.submit(self._writes)
            self._writes = []

    def apply_backpressure(self) -> None:
        """Pause or resume the source (rule 2).

        It resumes when there is room for a batch, not for less: what is pending may stay for hours.
        """
        slack = 0.9 if self.paused else 1.0
        backlog = self._journal.backlog + len(self._writes)
        self.journal_is_full = (
            backlog >= slack * self._limits.backlog or self._journal.backlog_bytes >= slack * self._limits.backlog_bytes
        )
        most = slack * self._limits.pending
        full = (
            self.journal_is_full
            or self._ledger.parking.is_full(self.paused)
            or self._refused.count >= most
            or self._refused.bytes >= most * BYTES_OF_PENDING
        )
        if full != self.paused:
            self.paused = full
            (self._source.pause if full else self._source.resume)()


def put_of(save: Save, *, is_intent: bool = True) -> Put:
    """Return the write of an action's record. `is_intent`: with `sending` it is a new intent.

    A document waits for its record's commit as an action does for its intent's.
    """
    assignment, place = save.action_id
    may_follow = save.sending or save.before_document
    intent = Intent(save.action_id, save.sends, save.doubt, save.before_document) if may_follow and is_intent else None
    key, value = action_key(place, save.route), pending_value(save)
    return Put(assignment, key, value, intent=intent, parked_for=save.parked_for)


def _was_sent(ended: Close | GiveUp) -> bool:
    """Tell whether the customer was told, perhaps, or needs to be told no more."""
    if isinstance(ended, Close):
        return ended.outcome in (OutcomeName.ACCEPTED, OutcomeName.SUPERSEDED)
    return ended.reason is Reason.OUTCOME_UNKNOWN


def tombstone_of(closed: Close, now: float) -> Tombstone:
    """Return the write that ends an action, with its outcome. `now` is seconds since 1970."""
    assignment, place = closed.action_id
    outcome = None
    if closed.payload is not None and closed.times is not None:
        outcome = EndedAction(
            outcome=closed.outcome,
            payload=closed.payload,
            ended=now,
            times=closed.times,
            attempts=closed.attempts,
            sends=closed.sends,
            reason=closed.reason,
        )
    return Tombstone(assignment, action_key(place, closed.route), outcome)


def dead_letter_of(given_up: GiveUp, now: float, next_offset: int | None = None) -> DeadLetter:
    """Return the write of an action that was given up. `now` is seconds since 1970."""
    assignment, place = given_up.action_id
    return DeadLetter(
        assignment=assignment,
        record=dead_letter_of_action(given_up, now),
        reason=given_up.reason,
        offset=offset_at(place),
        key=action_key(place, given_up.route),
        next_offset=next_offset,
        outcome=EndedAction(
            outcome=OutcomeName.DEAD_LETTER,
            payload=given_up.payload,
            ended=now,
            times=given_up.times,
            attempts=given_up.attempts,
            sends=given_up.sends,
            reason=given_up.reason,
        ),
    )


def given_up(assignment: Assignment, live: LiveAction, reason: Reason, detail: str, *, in_doubt: bool) -> GiveUp:
    """Give up an action that the ledger does not hold. In doubt, its reason is always `outcome_unknown`."""
    if in_doubt:
        reason, detail = Reason.OUTCOME_UNKNOWN, f"{reason}: {detail}; an earlier send may have been processed"
    return GiveUp(
        action_id=ActionId(assignment, live.offset),
        route=live.action.route,
        payload=live.action.payload,
        reason=reason,
        detail=detail,
        errors=None,
        attempts=live.attempts,
        sends=live.sends,
        times=Times(live.first_seen),
        fact=live.action.fact,
    )


def replace_too_large(write: Put | DeadLetter, *, clock: Clock, tracing: Tracing | None) -> DeadLetter:
    """Replace a record that the broker refuses; return the same one if it cannot shrink. For the journal's thread."""
    if isinstance(write, DeadLetter):
        return write if write.record.value is None else replace(write, record=without_value(write.record))
    live = live_action(write.key, write.value)
    assert isinstance(live, LiveAction)  # noqa: S101 - we wrote it ourselves a moment ago
    detail = f"the delay topic refuses its record of {len(write.value)} bytes (max.message.bytes)"
    # A write that is not a new intent repeats an older record. If a first send's intent is refused, it was not sent.
    in_doubt = live.sending if write.intent is None else write.intent.doubt
    effect = given_up(write.assignment, live, Reason.TOO_LARGE, detail, in_doubt=in_doubt)
    if tracing is not None:
        tracing.dead_lettered(effect)
    return dead_letter_of(effect, clock(), write.next_offset)
