"""Deliberate errors in what keeps a fact from being sent twice (core/repeats.py). Schedules of repeats notice them."""

from __future__ import annotations

from collections.abc import Iterable

from consumer.core.effects import Close, GiveUp
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.repeats import Repeats
from consumer.core.sent_facts import SentFacts
from consumer.events.routing.results import Routed
from consumer.kafka.records.source_events import SourceEvent
from consumer.relay import outbox
from consumer.relay.outbox import Outbox
from schemas.dead_letter import Reason
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def what_was_sent_is_forgotten_at_a_restore(patch: Patch) -> None:
    patch.setattr(Repeats, "restore", lambda self, assignment, sent: None)


@mutation
def what_is_pending_is_forgotten_by_the_next_owner(patch: Patch) -> None:
    patch.setattr(Ledger, "facts", lambda self, assignment: [])


@mutation
def what_is_parked_is_forgotten_by_the_next_owner(patch: Patch) -> None:
    original = Repeats.assign

    def assign(self: Repeats, assignment: Assignment, pending: Iterable[bytes], parked: object = ()) -> None:
        original(self, assignment, pending)

    patch.setattr(Repeats, "assign", assign)


@mutation
def a_dead_letter_keeps_its_fact(patch: Patch) -> None:
    original = outbox._was_sent
    patch.setattr(outbox, "_was_sent", lambda ended: isinstance(ended, GiveUp) or original(ended))


@mutation
def an_action_in_doubt_frees_its_fact(patch: Patch) -> None:
    original = outbox._was_sent

    def was_sent(ended: Close | GiveUp) -> bool:
        return original(ended) and not (isinstance(ended, GiveUp) and ended.reason is Reason.OUTCOME_UNKNOWN)

    patch.setattr(outbox, "_was_sent", was_sent)


@mutation
def a_window_is_too_short(patch: Patch) -> None:
    _stretch_window(patch, 0.5)


@mutation
def a_window_is_too_long(patch: Patch) -> None:
    _stretch_window(patch, 1.2)


@mutation
def an_accepted_action_stays_pending(patch: Patch) -> None:
    """Its fact does: it is a repeat beyond the window, too."""
    original = Repeats.ended

    def ended(self: Repeats, assignment: Assignment, fact: bytes, now: float, *, sent: bool) -> None:
        if not sent:
            original(self, assignment, fact, now, sent=sent)

    patch.setattr(Repeats, "ended", ended)


@mutation
def a_redriven_event_is_a_repeat(patch: Patch) -> None:
    def is_repeat(
        self: Outbox, assignment: Assignment, action: Routed, event: SourceEvent, fact: bytes, now: float
    ) -> bool:
        if self._repeats is None or action.repeats_s is None:
            return False
        return self._repeats.is_repeat(assignment, fact, action.repeats_s, now)

    patch.setattr(Outbox, "_is_repeat", is_repeat)


@mutation
def a_parked_action_that_is_gone_keeps_its_fact(patch: Patch) -> None:
    patch.setattr(Outbox, "parked_are_gone", lambda self, assignment: None)


def _stretch_window(patch: Patch, factor: float) -> None:
    original = Repeats.is_repeat

    def is_repeat(self: Repeats, assignment: Assignment, fact: bytes, window_s: float, now: float) -> bool:
        return original(self, assignment, fact, factor * window_s, now)

    patch.setattr(SentFacts, "_forget_old", lambda self, now: None)
    patch.setattr(Repeats, "is_repeat", is_repeat)
