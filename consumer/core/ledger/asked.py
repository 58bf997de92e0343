"""Asked: what a person asks for one action that is held (rule 13, requests.py)."""

from __future__ import annotations

from consumer.core.effects import Effect
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.endings import Endings
from consumer.core.ledger.entries import IN_FLIGHT, Entry, State
from consumer.core.requests import Answer, NotYet, done, refused
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName

HELD_BACK_S = 5.0  # a document whose action is to be dropped: somebody looks several times a second


class Asked:
    """Whether that can be done, and doing it."""

    def __init__(self, agenda: Agenda, endings: Endings, *, shadow: bool) -> None:
        """`shadow`: rule 9."""
        self._agenda = agenda
        self._endings = endings
        self._shadow = shadow

    def retry_now(self, entry: Entry, now: float) -> Answer:
        """Let an action's next step be due now, where that repeats nothing that may be processed."""
        if entry.state is State.QUEUED:
            return refused("it waits for the order's earlier action")
        if entry.state is State.PAUSED:
            return refused("a pause holds it; `engage-relay pauses` lists them")
        if entry.state not in (State.WAITING, State.HOLDING):
            return done("it is due already, and leaves when its connection may be asked (`engage-relay status`)")
        if self._shadow and not entry.shadow:
            return refused("a shadow run sends nothing")
        is_unsettled = entry.partition.unsettled_until(entry, now) > now
        if entry.ending is not None or entry.doubt or entry.is_document or is_unsettled:
            return refused("Engage may be at work on it, or on what its order sent before; that is waited for")
        if entry.is_taken:
            self._agenda.check_at(entry, now)
            return done("its job is polled now")
        self._agenda.take_out(entry)
        entry.due, entry.spare = now, False
        if entry.state is State.HOLDING:
            self._agenda.tagged(entry, now)
            return done("it is sent now")
        self._agenda.due(entry)
        return done("its versionTag is polled for now")

    def drop(self, entry: Entry, why: str, now: float) -> tuple[Answer | NotYet, list[Effect]]:
        """End an action, and return what is to be written of it."""
        if entry.state in IN_FLIGHT:
            return NotYet("it is under way"), []
        if entry.ending is not None:
            return NotYet("Engage may have it: it ends when Engage cannot be at work on it any more", ends=True), []
        if self._document_may_be_under_way(entry, now):
            return NotYet("Engage may be at work on its document"), []
        if entry.state in (State.WAITING, State.HOLDING) and not entry.is_taken:
            self._agenda.take_out(entry)
        if entry.doubt or entry.is_taken:
            effects = self._endings.give_up(entry, Reason.OUTCOME_UNKNOWN, f"dropped, {why}", now)
            return NotYet("Engage may have it", ends=True), effects
        entry.sends -= entry.state is State.READY and not entry.is_document
        ended = self._endings.close(entry, now, OutcomeName.DROPPED, why)
        self._agenda.left_behind(1)
        return done("it was dropped, and nothing is sent"), [ended]

    def _document_may_be_under_way(self, entry: Entry, now: float) -> bool:
        """Whether Engage may be at work on its document (rule 7). Then it is held back, so that it can be dropped.

        An action that is gone keeps no record, so the partition's next owner would not wait for its document.
        """
        if entry.over_at <= now:
            return False
        if entry.state is State.WAITING and entry.due < entry.over_at + HELD_BACK_S:
            self._agenda.take_out(entry)
            self._agenda.wait(entry, State.WAITING, entry.over_at + HELD_BACK_S)
        return True
