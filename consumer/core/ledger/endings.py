"""Endings: how an action ends, and what follows for its lane and its order."""

from __future__ import annotations

from consumer.core.effects import Close, Effect, GiveUp
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.book import Book
from consumer.core.ledger.entries import Ending, Entry, State
from consumer.core.ledger.waits import Policy
from consumer.core.ledger.withdrawals import Withdrawal, Withdrawals
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName


class Endings:
    """Every action that ends is removed from the book here, and the next one of its order starts."""

    def __init__(self, policy: Policy, *, book: Book, withdrawals: Withdrawals, agenda: Agenda) -> None:
        """Nothing is remembered here."""
        self._policy = policy
        self._book = book
        self._withdrawals = withdrawals
        self._agenda = agenda

    def close(
        self, entry: Entry, now: float, outcome: OutcomeName = OutcomeName.ACCEPTED, reason: str | None = None
    ) -> Close:
        """End an action without a dead letter. `reason`: why nothing was sent."""
        if outcome is OutcomeName.ACCEPTED:
            self._withdrawals.note_step(entry, now)
        self.remove(entry, now)
        return entry.tombstone(outcome, reason)

    def withdraw(self, entry: Entry, withdrawal: Withdrawal, now: float) -> Close:
        """End an action that is not sent any more (rule 12)."""
        if entry.state is State.READY and not entry.is_document:
            entry.sends -= 1  # its intent was not used
        return self.close(entry, now, withdrawal.outcome, withdrawal.reason)

    def give_up(self, entry: Entry, reason: Reason, detail: str, now: float, errors: str | None = None) -> list[Effect]:
        """Let an action become a dead letter: at once, or when Engage cannot be at work on it or its document any more.

        Until then its record stays: it keeps the order's next action waiting, over a restart, too.
        """
        may_be_processed = entry.is_taken and reason is not Reason.JOB_FAILED  # rule 8
        if (entry.doubt or may_be_processed) and reason is not Reason.OUTCOME_UNKNOWN:
            detail = f"{reason}: {detail}; {'an earlier send' if entry.doubt else 'it'} may have been processed"
            reason = Reason.OUTCOME_UNKNOWN
        if reason is not Reason.OUTCOME_UNKNOWN and entry.over_at <= now:
            self.remove(entry, now)
            return [entry.dead_letter(reason, detail, errors)]
        until = entry.over_at
        if reason is Reason.OUTCOME_UNKNOWN:
            self._book.doubt(entry, True)
            until = max(until, now + self._policy.processing_s)
        entry.ending = Ending(reason, detail, errors)
        self._agenda.wait(entry, State.HOLDING, until)
        return []

    def end(self, entry: Entry, ending: Ending, now: float) -> GiveUp:
        """End an action that was given up before: Engage cannot be at work on it any more (rules 3 and 7)."""
        if ending.reason is Reason.OUTCOME_UNKNOWN:
            self._withdrawals.note_step(entry, now)
        self.remove(entry, now)
        return entry.dead_letter(ending.reason, ending.detail, ending.errors)

    def end_unwritten(self, entry: Entry, now: float) -> bool:
        """End an action that the journal dead-lettered, as no record of it can be kept. Returns whether it is in doubt.

        So it is only remembered here that Engage may be at work on it, or on its document, and the order's next action
        waits.
        """
        is_under_way = entry.state is State.SENDING
        is_in_doubt = entry.doubt or (is_under_way and not entry.is_document)
        if is_in_doubt or is_under_way or entry.over_at > now:
            entry.partition.unsettle(entry, now, now + self._policy.processing_s)
        if is_in_doubt:
            self._withdrawals.note_step(entry, now)
        self.remove(entry, now)
        return is_in_doubt

    def remove(self, entry: Entry, now: float) -> None:
        """Take an ended action out of its lane. If it was the head, its successor starts."""
        successor = self._book.remove(entry)
        self._withdrawals.removed(entry)
        if successor is not None and not entry.partition.stopping:
            self._agenda.start(successor, now)
