"""The outbox: events and effects become writes, which wait here for the next tick's submission to the journal.

Rules:
 1. An event's position is submitted together with its record, so one transaction settles both or neither.
 2. Nothing piles up without bound: the source is paused while too much is pending or waits for the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from consumer.core.clock import Clock
from consumer.core.effects import ActionId, Close, Effect, GiveUp, RestoredAction, Save
from consumer.core.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.events.decoding import Undecodable, decode
from consumer.events.routing import Misrouted, Routed, Router
from consumer.kafka.membership import MAX_RECORDS
from consumer.kafka.records import (
    SourceEvent,
    Unreadable,
    action_key,
    dead_letter_of_action,
    dead_letter_of_event,
    dead_letter_of_unreadable,
    new_action,
    offset_of_key,
    pending_value,
    restored_action,
    without_value,
)
from consumer.kafka.writes import Adoption, Write
from consumer.relay.edges import Journal, Source
from consumer.telemetry.metrics import Metrics
from schemas.dead_letter import Reason

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

# Writes that wait for a transaction before the source is paused: ten of the largest, a second's worth at full speed.
MAX_BACKLOG = 20_000
# `limits.pending` counts actions of up to so many bytes (packed; an ordinary one has 300): large ones count for more.
BYTES_OF_PENDING = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait before the source is paused: `pending` actions (of 4 KiB each), `backlog` writes."""

    pending: int
    backlog: int = MAX_BACKLOG


@dataclass(frozen=True, slots=True)
class IntentTicket:
    """The ticket of an intent: which one of the action's it is."""

    action_id: ActionId
    sends: int
    doubt: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetterTicket:
    """The ticket of a dead letter: why, and its event's offset."""

    reason: Reason
    offset: int | None


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
        metrics: Metrics,
        tracing: Tracing | None,
    ) -> None:
        self._ledger = ledger
        self._router = router
        self._source = source
        self._journal = journal
        self._limits = limits
        self._metrics = metrics
        self._tracing = tracing
        self._writes: list[Write | Adoption] = []
        self.paused = False

    @property
    def empty(self) -> bool:
        """Whether nothing waits here."""
        return not self._writes

    # -- in -----------------------------------------------------------------------------------------------------

    def add(self, item: Write | Adoption) -> None:
        """Submit this next."""
        self._writes.append(item)

    def apply(self, effects: Iterable[Effect], now: float) -> None:
        """Submit what the ledger wants written."""
        for effect in effects:
            self._writes.append(self._write(effect, now))

    def write_again(self, effects: Iterable[Effect], now: float) -> None:
        """Submit records that were written before.

        No ticket: it is no new intent, and a later one, of the same count of sends, may be on its way.
        """
        for effect in effects:
            write = self._write(effect, now)
            write.ticket = None
            self._writes.append(write)

    def take(self, assignment: Assignment, events: Sequence[SourceEvent], now: float) -> None:
        """Take consumed events in: decode and route each, and tell the ledger."""
        self._metrics.events_consumed(assignment.topic, len(events))
        for event in events:
            writes = self._taken(assignment, event, now) or [Write(assignment)]
            writes[-1].next_offset = event.offset + 1  # rule 1
            self._writes += writes

    def dead_letter_unreadable(
        self, assignment: Assignment, key: bytes, value: bytes, why: Unreadable, now: float
    ) -> None:
        """Submit the dead letter of a delay record that this version cannot read."""
        dead_letter = dead_letter_of_unreadable(assignment[:2], key, value, why, now)
        ticket = DeadLetterTicket(Reason.UNREADABLE_PENDING, offset_of_key(key))
        self._writes.append(Write(assignment, key, dead_letter=dead_letter, ticket=ticket))

    def _taken(self, assignment: Assignment, event: SourceEvent, now: float) -> list[Write]:
        routed = self._routed(event)
        if self._tracing is not None and routed is not None:
            routed = self._tracing.taken(event, routed, now)
        match routed:
            case Routed():
                self._metrics.routed(routed.route, routed.action)
                effects = self._ledger.accept(assignment, event.offset, new_action(routed, event), now)
                return [self._write(effect, now) for effect in effects]
            case Misrouted(reason, detail, route):
                dead_letter = dead_letter_of_event(event, reason, detail, now, route)
                return [Write(assignment, dead_letter=dead_letter, ticket=DeadLetterTicket(reason, event.offset))]
            case None:
                return []

    def _routed(self, event: SourceEvent) -> Routed | Misrouted | None:
        if event.value is None:
            self._metrics.ignored_tombstone(event.topic)
            return None
        decoded = decode(event.value)
        if isinstance(decoded, Undecodable):
            return Misrouted(Reason.UNDECODABLE, decoded.detail, None)
        routed = self._router.route(decoded, event)
        if isinstance(routed, Routed | Misrouted):
            return routed
        self._metrics.unrouted(event.topic)
        return None

    def _write(self, effect: Effect, now: float) -> Write:
        if self._tracing is not None and isinstance(effect, GiveUp):
            self._tracing.set_aside(effect)
        return write_of(effect, now)

    # -- out ----------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """Submit everything to the journal at once."""
        if self._writes:
            self._journal.submit(self._writes)
            self._writes = []

    def apply_backpressure(self) -> None:
        """Rule 2, with slack between pause and resume: a batch, as what is pending may stay for hours."""
        most = self._limits.pending
        slack = min(0.1, MAX_RECORDS / most) if self.paused else 0.0
        backlog = self._journal.backlog + len(self._writes)
        full = (
            self._ledger.open >= (1 - slack) * most
            or self._ledger.open_bytes >= (1 - slack) * most * BYTES_OF_PENDING
            or backlog >= (0.9 if self.paused else 1.0) * self._limits.backlog
        )
        if full != self.paused:
            self.paused = full
            (self._source.pause if full else self._source.resume)()


def write_of(effect: Effect, now: float) -> Write:
    """Return the write of what the ledger wants written. `now` is seconds since 1970."""
    assignment, offset = effect.action_id
    write = Write(assignment, action_key(offset, effect.route))
    match effect:
        case Save():
            write.value = pending_value(effect)
            write.ticket = IntentTicket(effect.action_id, effect.sends, effect.doubt) if effect.sending else None
        case GiveUp():
            write.dead_letter = dead_letter_of_action(effect, now)
            write.ticket = DeadLetterTicket(effect.reason, offset)
        case Close():
            pass
    return write


def given_up(
    assignment: Assignment, restored: RestoredAction, reason: Reason, detail: str, *, in_doubt: bool
) -> GiveUp:
    """Give a restored action up that the ledger does not hold. In doubt it is called so, whatever ended it."""
    action = restored.action
    if in_doubt:
        reason, detail = Reason.OUTCOME_UNKNOWN, f"{reason}: {detail}; an earlier send may have been processed"
    action_id = ActionId(assignment, restored.offset)
    return GiveUp(action_id, action.route, action.payload, reason, detail, None, restored.attempts, restored.sends)


def replace_too_large(write: Write, *, clock: Clock, tracing: Tracing | None) -> Write:
    """Replace what the broker refuses; the same again where it cannot be smaller. Called on the journal's thread."""
    if write.dead_letter is not None:
        smaller = write.dead_letter.value is not None
        return replace(write, dead_letter=without_value(write.dead_letter)) if smaller else write
    restored = restored_action(write.key or b"", write.value or b"")
    assert isinstance(restored, RestoredAction)  # noqa: S101 - we wrote it ourselves a moment ago
    detail = f"the delay topic refuses its record of {len(write.value or b'')} bytes (max.message.bytes)"
    # Without a ticket it was written before. The intent of a first send that is refused was never sent.
    in_doubt = write.ticket.doubt if isinstance(write.ticket, IntentTicket) else restored.sending
    effect = given_up(write.assignment, restored, Reason.TOO_LARGE, detail, in_doubt=in_doubt)
    if tracing is not None:
        tracing.set_aside(effect)
    replacement = write_of(effect, clock())
    replacement.next_offset = write.next_offset
    return replacement
