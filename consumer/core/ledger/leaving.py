"""Leaving: which intents are saved next, and which request leaves next (rules 1, 2 and 7)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from consumer.core.effects import (
    THE_DOCUMENT,
    THE_ORDER,
    THE_REDRIVEN_DOCUMENT,
    Change,
    Document,
    Effect,
    Poll,
    Request,
    Send,
)
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.book import Book
from consumer.core.ledger.endings import Endings
from consumer.core.ledger.entries import Entry, Queue, State
from consumer.core.ledger.paused import Paused
from consumer.core.ledger.withdrawals import Withdrawals
from consumer.core.newest_documents import NewestDocuments
from schemas.outcome import OutcomeName

BEHIND_S = 1.0  # for so long a connection's next step is due, and not taken: then it has no room for more
UNKNOWN_STEPS_WAIT_S = 1.0  # until it is looked again whether it is known which steps were sent before a restart

T = TypeVar("T")


class Leaving:
    """The way of an action, or of a document, from its connection's queue to Engage."""

    def __init__(
        self,
        *,
        book: Book,
        paused: Paused,
        withdrawals: Withdrawals,
        agenda: Agenda,
        endings: Endings,
        documents: NewestDocuments,
    ) -> None:
        """Notes in `documents` which ones leave."""
        self._book = book
        self._paused = paused
        self._withdrawals = withdrawals
        self._agenda = agenda
        self._endings = endings
        self._documents = documents

    # -- intents --------------------------------------------------------------------------------------------------

    def save_intents(self, connection: str, ahead: int, now: float | None) -> list[Effect]:
        """Save intents until `ahead` wait to be sent, then the records of the documents that are next."""
        queue = self._agenda.queue(connection)
        effects: list[Effect] = []
        while (entry := _next_to_send(queue, ahead)) is not None:
            if entry.state is State.TAGGED and not entry.partition.stopping:
                if self._ends_or_waits(entry, entry.due if now is None else now, effects):
                    continue
                if entry.needs_no_tag and not self._may_send_document(entry):
                    self._agenda.wait(entry, State.WAITING, entry.due)
                    continue
                entry.sends += 1
                self._book.move(entry, State.SAVING)
                effects.append(entry.intent())
        while (polls := _led_by_document(queue, ahead)) is not None:
            document = polls[0]
            if self._ends_or_waits(document, document.due if now is None else now, effects):
                polls.popleft()
                continue
            if not self._may_send_document(document):
                continue  # its place in the queue stays: the order is polled instead
            polls.popleft()
            if polls is queue.spare_polls:
                queue.take_spare_turn()
            self._book.move(document, State.SAVING)
            effects.append(document.record_before_document())
        return effects

    def wants_intents(self, connection: str) -> bool:
        """Whether `save_intents` may have something."""
        queue = self._agenda.queue(connection)
        return bool(queue.tagged) or _has_spare_send(queue) or _led_by_document(queue, math.inf) is not None

    def _ends_or_waits(self, entry: Entry, now: float, effects: list[Effect]) -> bool:
        """End an action that is next to be sent and is not to be, or let it wait until that is known."""
        if entry.shadow:
            effects.append(self._endings.close(entry, entry.due, OutcomeName.SHADOW))
            return True
        if (withdrawal := self._withdrawals.of(entry, now)) is not None:
            effects.append(self._endings.withdraw(entry, withdrawal, now))
            return True
        if self._withdrawals.must_wait_for_steps(entry):
            state = State.WAITING if entry.is_document else State.HOLDING
            self._agenda.wait(entry, state, now + UNKNOWN_STEPS_WAIT_S)
            return True
        return False

    def intent_saved(
        self, entry: Entry, sends: int, ownership_confirmed_at: float, *, before_document: bool
    ) -> list[Effect]:
        """Let an action leave whose record is committed, if it still may."""
        if entry.state is not State.SAVING or entry.sends != sends or entry.is_document != before_document:
            return []
        self._book.move(entry, State.READY)
        if entry.partition.stopping or self._paused.pause_of(entry) or self._withdrawals.superseded_by(entry):
            return [self._agenda.put_back(entry)]
        entry.queue.sends.append((entry, ownership_confirmed_at))
        return []

    # -- requests -------------------------------------------------------------------------------------------------

    def take(self, connection: str, other_than: object, now: float | None, *, poll_first: bool) -> Request | None:
        """Take the next request: the oldest READY action or document, else the oldest DUE poll; or the other way."""
        queue = self._agenda.queue(connection)
        if poll_first and (poll := self._take_poll(queue, other_than)) is not None:
            return poll
        ready = _next(queue.sends, lambda each: each[0], State.READY, other_than)
        if ready is not None:
            return self._sent(*ready, now)
        return self._take_poll(queue, other_than)

    def _take_poll(self, queue: Queue, other_than: object) -> Poll | None:
        """Take the oldest DUE poll; a spare one where it is its turn, or there is no other (rule 14).

        None where a document comes before it: its record is saved first.
        """
        if _document_first(queue.polls) is not None:
            return None
        in_turn = (queue.spare_polls, queue.polls) if queue.has_spare_turn else (queue.polls, queue.spare_polls)
        for polls in in_turn:
            if _document_first(polls) is not None:
                continue
            due = _next(polls, _itself, State.DUE, other_than)
            if due is None:
                continue
            if due.is_document:
                polls.appendleft(due)  # it waited behind `other_than`
                continue
            if polls is queue.spare_polls:
                queue.take_spare_turn()
            else:
                queue.since_spare += 1
            self._book.move(due, State.POLLING)
            return Poll(action_id=due.id, order_id=due.order_id, payload=due.payload, target=due.target, due=due.due)
        return None

    def _sent(self, entry: Entry, ownership_confirmed_at: float, now: float | None) -> Request:
        self._book.move(entry, State.SENDING)
        self._note_document(entry)
        if entry.is_document:
            return Poll(
                action_id=entry.id,
                order_id=entry.order_id,
                payload=entry.payload,
                target=entry.target,
                due=entry.due,
                ownership_confirmed_at=ownership_confirmed_at,
            )
        entry.sent_at = now
        return Send(
            action_id=entry.id,
            order_id=entry.order_id,
            payload=entry.payload,
            version_tag=entry.tag,
            ownership_confirmed_at=ownership_confirmed_at,
            tagged_at=entry.tagged_at,
            document=entry.source if isinstance(entry.source, Document) else THE_DOCUMENT,
        )

    def has_request(self, connection: str) -> bool:
        """Whether `take` may have something."""
        queue = self._agenda.queue(connection)
        return bool(queue.sends or queue.polls or queue.spare_polls)

    def is_behind(self, connection: str, now: float) -> bool:
        """Whether a connection's next step has been due for a while, and nobody took it."""
        queue = self._agenda.queue(connection)
        first = [each[0] for each in (queue.tagged, queue.polls) if each]
        return any(each.state in (State.TAGGED, State.DUE) and each.due < now - BEHIND_S for each in first)

    # -- documents and changes (rule 7, newest_documents.py) ------------------------------------------------------

    def _may_send_document(self, entry: Entry) -> bool:
        """Decide how the next of an order's documents and changes leaves. An older one does not.

        Then its action is sent by itself, with a tag of the order. A change always replaces, so it leaves only where a
        document could replace the order.
        """
        how = self._documents.how_to_send(entry.lane, entry.version, is_first=entry.first_offset is None)
        is_change = isinstance(entry.source, Change)
        if how is None or (is_change and not how.replaces):
            entry.source = THE_ORDER
            return False
        if not (is_change or (how.replaces and entry.source == Document(exists=True))):
            entry.source = how
        return True

    def _note_document(self, entry: Entry) -> None:
        """Note that its document or change leaves, if it may replace another one."""
        if (entry.is_document or entry.needs_no_tag) and entry.source != THE_REDRIVEN_DOCUMENT:
            self._documents.sent(entry.lane, entry.version)


def _led_by_document(queue: Queue, ahead: float) -> deque[Entry] | None:
    """Return the polls of which the next one is a document that may be saved: spare ones one at a time (rule 14)."""
    if queue.ahead < ahead and _document_first(queue.polls) is not None:
        return queue.polls
    if not queue.ahead and queue.has_spare_turn and _document_first(queue.spare_polls) is not None:
        return queue.spare_polls
    return None


def _document_first(polls: deque[Entry]) -> Entry | None:
    """Return the document that is the next poll; None where another poll is. Entries that went away are dropped."""
    while polls and (polls[0].state is not State.DUE or polls[0].partition.stopping):
        polls.popleft()
    return polls[0] if polls and polls[0].is_document else None


def _next_to_send(queue: Queue, ahead: int) -> Entry | None:
    """Take the next action to be sent, while fewer than `ahead` wait for it."""
    if queue.tagged and queue.ahead < ahead:
        return queue.tagged.popleft()
    if _has_spare_send(queue):
        queue.take_spare_turn()
        return queue.spare_sends.popleft()
    return None


def _has_spare_send(queue: Queue) -> bool:
    """Whether one may leave that leaves requests to others: one at a time, as those that come meanwhile are first."""
    return bool(queue.spare_sends) and not queue.ahead and queue.has_spare_turn


def _itself(entry: Entry) -> Entry:
    return entry


def _next(waiting: deque[T], entry_of: Callable[[T], Entry], state: State, other_than: object) -> T | None:
    """Take the oldest in this state. Entries in another state, or of a partition in hand-over, are dropped."""
    skipped: T | None = None
    found: T | None = None
    while waiting and found is None:
        each = waiting.popleft()
        entry = entry_of(each)
        if entry.state is not state or (state is State.DUE and entry.partition.stopping):
            continue
        if other_than is not None and entry.id == other_than:
            skipped = each
        else:
            found = each
    if skipped is not None:
        waiting.appendleft(skipped)
    return found
