"""Deliberate errors about what people ask for: the simulation must notice each."""

from __future__ import annotations

from dataclasses import replace

from consumer.core.effects import THE_DOCUMENT, ActionId, Document, Effect, LiveAction
from consumer.core.ledger.book import Book
from consumer.core.ledger.entries import Entry, State
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.requests import Answer, NotYet, Request, done
from consumer.kafka.control import asked_for
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.commits import Commits
from consumer.kafka.journal.writes import PutAnswer
from consumer.kafka.records.pending import live_action
from consumer.kafka.records.unreadable import Unreadable
from consumer.relay import requests
from consumer.relay.outbox import Outbox
from consumer.relay.requests import Requests
from schemas.outcome import OutcomeName
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def a_new_owner_does_not_wait_for_what_the_former_one_answered(patch: Patch) -> None:
    patch.setattr(Requests, "_is_current", lambda self, assignment: True)


@mutation
def what_was_answered_is_done_again_before_that_is_heard(patch: Patch) -> None:
    def committed(self: Requests, answer: PutAnswer) -> None:
        self._under_way.pop(answer.request_id, None)

    patch.setattr(Requests, "committed", committed)


@mutation
def an_answer_is_committed_apart_from_what_it_says(patch: Patch) -> None:
    original = Outbox.add

    def add(self: Outbox, item: object) -> None:
        if isinstance(item, PutAnswer):
            original(self, replace(item, with_next=False))
            self.submit()
            return
        original(self, item)  # type: ignore[arg-type]

    patch.setattr(Outbox, "add", add)


@mutation
def an_answer_is_written_before_what_it_says(patch: Patch) -> None:
    """A late commit of an earlier transaction makes it visible alone, and what it says is never done."""
    original = Commits._produce

    def produce(self: Commits, batch: Batch) -> None:
        self._produce_answers(batch)
        original(self, replace(batch, answers=[]))

    patch.setattr(Commits, "_produce", produce)


@mutation
def what_a_late_commit_made_visible_of_a_refused_answer_is_not_carried_out(patch: Patch) -> None:
    patch.setattr(Requests, "_catch_up", lambda self: None)


@mutation
def an_answer_that_the_journal_dropped_is_taken_for_written(patch: Patch) -> None:
    patch.setattr(Requests, "dropped", lambda self, answer: None)


@mutation
def what_is_pending_is_sent_again(patch: Patch) -> None:
    patch.setattr(Requests, "_if_free", lambda self, request, assignment, actions: actions)


@mutation
def what_just_ended_is_sent_again_before_its_dead_letter_is_written(patch: Patch) -> None:
    async def at_once(self: Requests, assignment: Assignment) -> None: ...

    patch.setattr(Requests, "_all_before_is_safe", at_once)


@mutation
def a_dead_letter_is_redriven_again(patch: Patch) -> None:
    patch.setattr(asked_for, "mark_in", lambda record: None)


@mutation
def a_redrive_leaves_no_mark(patch: Patch) -> None:
    original = Outbox.add

    def add(self: Outbox, item: object) -> None:
        original(self, replace(item, redriven=None) if isinstance(item, PutAnswer) else item)  # type: ignore[arg-type]

    patch.setattr(Outbox, "add", add)


@mutation
def what_waits_for_room_is_forgotten(patch: Patch) -> None:
    def wait(self: Requests, request: Request, seconds: float, now: float) -> None:
        self._turns.wait(request.id, now + 1e9)

    patch.setattr(Requests, "_wait", wait)


@mutation
def what_is_in_doubt_is_sent_again_at_once(patch: Patch) -> None:
    original = Ledger.retry_now

    def retry_now(self: Ledger, action_id: ActionId, now: float) -> Answer | NotYet:
        entry = self._book.find(action_id)
        if entry is None or entry.state is not State.HOLDING or entry.ending is not None:
            return original(self, action_id, now)
        self._agenda.take_out(entry)
        self._agenda.tagged(entry, now)
        return done("it is sent now")

    patch.setattr(Ledger, "retry_now", retry_now)


@mutation
def what_may_have_been_processed_is_dropped(patch: Patch) -> None:
    original = Ledger.drop_action

    def drop_action(self: Ledger, action_id: ActionId, why: str, now: float) -> tuple[Answer | NotYet, list[Effect]]:
        entry = self._book.find(action_id)
        if entry is not None and entry.ending is None:
            self._book.doubt(entry, False)
        return original(self, action_id, why, now)

    patch.setattr(Ledger, "drop_action", drop_action)


@mutation
def what_is_under_way_is_dropped(patch: Patch) -> None:
    original = Ledger.drop_action

    def drop_action(self: Ledger, action_id: ActionId, why: str, now: float) -> tuple[Answer | NotYet, list[Effect]]:
        entry = self._book.find(action_id)
        if entry is None or entry.state is not State.SENDING:
            return original(self, action_id, why, now)
        return done("it was dropped"), [self._endings.close(entry, now, OutcomeName.DROPPED, why)]

    patch.setattr(Ledger, "drop_action", drop_action)


@mutation
def a_document_that_is_sent_again_counts_as_new(patch: Patch) -> None:
    def as_new(key: bytes, value: bytes) -> LiveAction | Unreadable:
        live = live_action(key, value)
        assert isinstance(live, LiveAction)
        document = live.action.document and THE_DOCUMENT
        target = document if isinstance(live.action.target, Document) and document else live.action.target
        return replace(live, action=replace(live.action, first_offset=None, document=document, target=target))

    patch.setattr(requests, "live_action", as_new)


@mutation
def an_answer_to_what_was_asked_before_counts_for_what_is_sent_again(patch: Patch) -> None:
    original = Book.remove

    def remove(self: Book, entry: Entry) -> Entry | None:
        successor = original(self, entry)
        entry.partition.unanswered.clear()
        return successor

    patch.setattr(Book, "remove", remove)


@mutation
def what_is_sent_again_is_not_held(patch: Patch) -> None:
    patch.setattr(Requests, "saved", lambda self, put, now: None)
