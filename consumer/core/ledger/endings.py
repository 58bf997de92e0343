"""Endings: how an action ends, and what follows for its lane and its order."""

from __future__ import annotations

from consumer.core.effects import Close, Effect, GiveUp
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.book import Book
from consumer.core.ledger.entries import Entry, State
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
        """Let an action become a dead letter: at once, or, in doubt, when Engage cannot be at work on it any more."""
        may_be_processed = entry.is_taken and reason is not Reason.JOB_FAILED  # rule 8
        if (entry.doubt or may_be_processed) and reason is not Reason.OUTCOME_UNKNOWN:
            detail = f"{reason}: {detail}; {'an earlier send' if entry.doubt else 'it'} may have been processed"
            reason = Reason.OUTCOME_UNKNOWN
        if reason is Reason.OUTCOME_UNKNOWN:
            self._book.doubt(entry, True)
            entry.ending = (detail, errors)
            self._agenda.wait(entry, State.HOLDING, now + self._policy.processing_s)
            return []
        self.remove(entry, now)
        return [entry.dead_letter(reason, detail, errors)]

    def end_in_doubt(self, entry: Entry, detail: str, errors: str | None, *, now: float) -> GiveUp:
        """End an action that was given up in doubt: Engage cannot be at work on it any more (rule 3)."""
        self._withdrawals.note_step(entry, now)
        self.remove(entry, now)
        return entry.dead_letter(Reason.OUTCOME_UNKNOWN, detail, errors)

    def end_unwritten(self, entry: Entry, now: float) -> None:
        """End an action that the journal dead-lettered, as no record of it can be kept."""
        if entry.doubt:
            self.unsettle(entry, now)
            self._withdrawals.note_step(entry, now)
        self.remove(entry, now)

    def unsettle(self, entry: Entry, now: float) -> None:
        """Let the order's next action wait until Engage cannot be at work on this one any more."""
        entry.partition.unsettle(entry, now, now + self._policy.processing_s)

    def remove(self, entry: Entry, now: float) -> None:
        """Take an ended action out of its lane. If it was the head, its successor starts."""
        successor = self._book.remove(entry)
        self._withdrawals.removed(entry)
        if successor is not None and not entry.partition.stopping:
            self._agenda.start(successor, now)
