"""Deliberate errors in what sends documents, changes, and actions that travel in them (mutants.py).

They are looked for in the schedules of documents only (profile.py): they need many of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from consumer.core.effects import ActionId, Change, Document, Effect, LiveAction, Poll, Request
from consumer.core.ledger.answers import Answers, _Failure
from consumer.core.ledger.endings import Endings
from consumer.core.ledger.entries import Entry, State
from consumer.core.ledger.leaving import Leaving
from consumer.core.ledger.ledger import Ledger
from consumer.core.newest_documents import Lane, NewestDocuments
from consumer.core.outcomes import (
    Accepted,
    DocumentOutcome,
    DocumentTaken,
    JobFailed,
    PollOutcome,
    Ready,
    SendOutcome,
)
from consumer.core.ownership import Assignment
from consumer.relay.dispatch import Dispatch
from schemas.dead_letter import Reason
from tests.simulation.mutants import Mutation, Parked, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def a_hand_over_does_not_wait_for_a_document(patch: Patch) -> None:
    original = Ledger.in_flight

    def in_flight(self: Ledger, assignment: Assignment) -> int:
        partition = self._book.partitions.get(assignment)
        entries = partition.entries.values() if partition else ()
        documents = sum(entry.state is State.SENDING and entry.is_document for entry in entries)
        return original(self, assignment) - documents

    patch.setattr(Ledger, "in_flight", in_flight)


@mutation
def a_document_leaves_after_its_lease(patch: Patch) -> None:
    original = Dispatch._may_send

    def may_send(self: Dispatch, request: Request) -> bool:
        return isinstance(request, Poll) or original(self, request)

    patch.setattr(Dispatch, "_may_send", may_send)


@mutation
def the_put_after_a_409_is_not_asked_for(patch: Patch) -> None:
    original = Dispatch._may_send
    asked: dict[int, Request] = {}

    def may_send(self: Dispatch, request: Request) -> bool:
        if isinstance(request, Poll):
            if asked.get(id(request)) is request:
                return True
            asked[id(request)] = request
        return original(self, request)

    patch.setattr(Dispatch, "_may_send", may_send)


@mutation
def a_redriven_document_replaces_a_newer_one(patch: Patch) -> None:
    def how_to_send(self: NewestDocuments, lane: Lane, version: int, *, is_first: bool) -> Document:
        return Document()

    patch.setattr(NewestDocuments, "how_to_send", how_to_send)


@mutation
def a_redriven_document_is_as_new_as_its_event(patch: Patch) -> None:
    patch.setattr(Entry, "version", property(lambda self: self.offset))


@mutation
def an_unknown_newest_document_is_taken_for_none(patch: Patch) -> None:
    original = NewestDocuments.how_to_send

    def how_to_send(self: NewestDocuments, lane: Lane, version: int, *, is_first: bool) -> Document | None:
        return original(self, lane, version, is_first=True)

    patch.setattr(NewestDocuments, "how_to_send", how_to_send)


@mutation
def the_newest_document_outlives_its_assignment(patch: Patch) -> None:
    original = NewestDocuments._known
    how = NewestDocuments.how_to_send

    def lane_of(lane: Lane) -> Lane:
        assignment, connection, order = lane
        return assignment._replace(epoch=0), connection, order

    patch.setattr(NewestDocuments, "_known", lambda self, lane: original(self, lane_of(lane)))
    patch.setattr(
        NewestDocuments,
        "how_to_send",
        lambda self, lane, version, is_first: how(self, lane_of(lane), version, is_first=is_first),
    )


@mutation
def a_document_without_an_answer_is_sent_again_at_once(patch: Patch) -> None:
    original = Answers._failed

    def failed(self: Answers, entry: Entry, failure: _Failure, now: float) -> list[Effect]:
        return original(self, entry, replace(failure, may_be_processed=False), now)

    patch.setattr(Answers, "_failed", failed)


@mutation
def the_document_of_a_dead_owner_is_sent_again_at_once(patch: Patch) -> None:
    original = Ledger.assign

    def assign(
        self: Ledger, assignment: Assignment, restored: Iterable[LiveAction], now: float, *parked: Parked
    ) -> list[Effect]:
        return original(self, assignment, [replace(each, document_sent=False) for each in restored], now, *parked)

    patch.setattr(Ledger, "assign", assign)


@mutation
def a_document_without_an_answer_is_forgotten_with_its_action(patch: Patch) -> None:
    """The order's next one waits for it, but only as long as the partition stays."""
    original = Endings.give_up

    def give_up(
        self: Endings, entry: Entry, reason: Reason, detail: str, now: float, errors: str | None = None
    ) -> list[Effect]:
        entry.partition.unsettle(entry, now, entry.over_at)
        entry.over_at = now
        return original(self, entry, reason, detail, now, errors)

    patch.setattr(Endings, "give_up", give_up)


@mutation
def an_action_that_travelled_in_its_document_is_sent_by_itself_as_well(patch: Patch) -> None:
    patch.setattr(Entry, "is_taken", False)


@mutation
def a_restored_document_with_its_action_is_sent_again_though_engage_took_it(patch: Patch) -> None:
    original = Ledger.assign

    def assign(
        self: Ledger, assignment: Assignment, restored: Iterable[LiveAction], now: float, *parked: Parked
    ) -> list[Effect]:
        forgotten = [
            replace(each, action=replace(each.action, target=each.action.document or each.action.target))
            for each in restored
        ]
        return original(self, assignment, forgotten, now, *parked)

    patch.setattr(Ledger, "assign", assign)


@mutation
def a_failed_job_is_taken_for_a_completed_one(patch: Patch) -> None:
    original = Ledger.poll_answered

    def poll_answered(
        self: Ledger, action_id: ActionId, outcome: PollOutcome | DocumentOutcome, now: float
    ) -> list[Effect]:
        return original(self, action_id, Ready("tag") if isinstance(outcome, JobFailed) else outcome, now)

    patch.setattr(Ledger, "poll_answered", poll_answered)


@mutation
def a_document_with_its_action_is_over_once_engage_took_it(patch: Patch) -> None:
    original = Ledger.action_answered

    def action_answered(self: Ledger, action_id: ActionId, outcome: SendOutcome, now: float) -> list[Effect]:
        return original(self, action_id, Accepted() if isinstance(outcome, DocumentTaken) else outcome, now)

    patch.setattr(Ledger, "action_answered", action_answered)


@mutation
def a_change_is_sent_before_its_record_is_committed(patch: Patch) -> None:
    original = Ledger.save_intents

    def save_intents(self: Ledger, connection: str, ahead: int) -> list[Effect]:
        effects = original(self, connection, ahead)
        for effect in effects:
            entry = self._book.find(effect.action_id)
            if entry is not None and isinstance(entry.source, Change):
                self.intent_saved(effect.action_id, entry.sends, math.inf, before_document=True)
        return effects

    patch.setattr(Ledger, "save_intents", save_intents)


@mutation
def a_hand_over_does_not_wait_for_a_change(patch: Patch) -> None:
    original = Ledger.in_flight

    def in_flight(self: Ledger, assignment: Assignment) -> int:
        partition = self._book.partitions.get(assignment)
        entries = partition.entries.values() if partition else ()
        changes = sum(entry.state is State.SENDING and isinstance(entry.source, Change) for entry in entries)
        return original(self, assignment) - changes

    patch.setattr(Ledger, "in_flight", in_flight)


@mutation
def a_hand_over_does_not_wait_for_a_document_with_its_action(patch: Patch) -> None:
    original = Ledger.in_flight

    def in_flight(self: Ledger, assignment: Assignment) -> int:
        partition = self._book.partitions.get(assignment)
        entries = partition.entries.values() if partition else ()
        documents = sum(entry.state is State.SENDING and entry.needs_no_tag for entry in entries)
        return original(self, assignment) - documents

    patch.setattr(Ledger, "in_flight", in_flight)


@mutation
def a_redriven_change_replaces_a_newer_one(patch: Patch) -> None:
    original = Leaving._may_send_document

    def may_send_document(self: Leaving, entry: Entry) -> bool:
        return isinstance(entry.source, Change) or original(self, entry)

    patch.setattr(Leaving, "_may_send_document", may_send_document)
