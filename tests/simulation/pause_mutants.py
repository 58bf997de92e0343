"""Deliberate errors in how a pause holds actions (core/pauses.py). As in mutants.py; schedules of pauses see them."""

from __future__ import annotations

from consumer.core.effects import ActionId, Effect
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.entries import Entry, State
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.paused import Paused
from consumer.core.pauses import NO_PAUSES, Pauses
from consumer.relay import loop
from schemas.outcome import OutcomeName
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def a_pause_holds_nothing(patch: Patch) -> None:
    patch.setattr(Paused, "pause_of", lambda self, entry: None)


@mutation
def a_start_does_not_wait_for_the_control_topic(patch: Patch) -> None:
    patch.setattr(loop, "UNKNOWN_PAUSES", NO_PAUSES)


@mutation
def intents_that_are_saved_leave_in_a_pause(patch: Patch) -> None:
    original = Ledger.pause

    def pause(self: Ledger, pauses: Pauses, now: float) -> list[Effect]:
        ready = [
            each for queue in self._agenda._queues.values() for each in queue.sends if each[0].state is State.READY
        ]
        kept = {id(queue): queue.sends for queue in self._agenda._queues.values()}
        for queue in self._agenda._queues.values():
            queue.sends = type(queue.sends)()
        effects = original(self, pauses, now)
        for queue in self._agenda._queues.values():
            queue.sends = kept[id(queue)]
        assert all(each[0].state is State.READY for each in ready)
        return effects

    patch.setattr(Ledger, "pause", pause)
    patch.setattr(Ledger, "is_paused", lambda self, action_id: False)


@mutation
def intents_that_are_committed_in_a_pause_leave(patch: Patch) -> None:
    original = Ledger.intent_saved

    def intent_saved(
        self: Ledger, action_id: ActionId, sends: int, ownership_confirmed_at: float, *, before_document: bool = False
    ) -> list[Effect]:
        may_hold, self._paused._may_hold = self._paused._may_hold, False
        effects = original(self, action_id, sends, ownership_confirmed_at, before_document=before_document)
        self._paused._may_hold = may_hold
        return effects

    patch.setattr(Ledger, "intent_saved", intent_saved)
    patch.setattr(Ledger, "is_paused", lambda self, action_id: False)


@mutation
def what_was_taken_before_a_pause_leaves_in_it(patch: Patch) -> None:
    patch.setattr(Ledger, "is_paused", lambda self, action_id: False)


@mutation
def what_was_on_hold_is_forgotten_when_it_is_resumed(patch: Patch) -> None:
    patch.setattr(Agenda, "resume", lambda self, entry, now: None)


@mutation
def the_deadline_counts_the_time_on_hold(patch: Patch) -> None:
    patch.setattr(Paused, "elapsed_s", lambda self, entry, since, now: now - since)


@mutation
def what_may_have_been_processed_is_withheld(patch: Patch) -> None:
    def discard(self: Ledger, entry: Entry, now: float) -> list[Effect]:
        if entry.state is not State.PAUSED or entry.partition.stopping:
            return []
        return [self._endings.close(entry, now, OutcomeName.WITHHELD, "discarded")]

    patch.setattr(Ledger, "_discard", discard)


@mutation
def what_is_held_is_withheld(patch: Patch) -> None:
    original = Paused.put

    def put(self: Paused, entry: Entry) -> None:
        original(self, entry)
        if self._held and self.pauses.known:
            self._discarded.append(self._held.pop())

    def discard(self: Ledger, entry: Entry, now: float) -> list[Effect]:
        if entry.state is not State.PAUSED or entry.partition.stopping or entry.doubt:
            return []
        return [self._endings.close(entry, now, OutcomeName.WITHHELD)]

    patch.setattr(Paused, "put", put)
    patch.setattr(Ledger, "_discard", discard)
