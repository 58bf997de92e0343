"""Answers: what follows from each answer to a poll, to a document or change, and to an action."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.core.effects import THE_DOCUMENT, THE_ORDER, Document, Effect
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.book import Book
from consumer.core.ledger.endings import Endings
from consumer.core.ledger.entries import Entry, State
from consumer.core.ledger.waits import Policy, Waits
from consumer.core.newest_documents import NewestDocuments
from consumer.core.outcomes import (
    Accepted,
    DocumentOutcome,
    DocumentTaken,
    Forbidden,
    InDoubt,
    JobFailed,
    NoContact,
    NotFound,
    NotReady,
    OrderExists,
    OrderKept,
    Outcome,
    PollOutcome,
    Ready,
    Rejected,
    SendOutcome,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Undated,
    Withdrawn,
    was_asked,
)
from schemas.dead_letter import Reason

MAX_STALE = 5  # how often the order is polled for a newer tag before the action's 404 counts as final
MIN_TRIES = 3  # answered polls in a row, or sends, that an action gets before time ends it, even after an outage
SUSPENDED_WAIT_S = 1.0  # until an action whose key was refused is due again; then its connection decides


class Answers:
    """The two tables, of polls and of actions, and what their lines say."""

    def __init__(
        self,
        policy: Policy,
        *,
        book: Book,
        waits: Waits,
        agenda: Agenda,
        endings: Endings,
        documents: NewestDocuments,
    ) -> None:
        """Notes in `documents` which ones Engage took."""
        self._policy = policy
        self._book = book
        self._waits = waits
        self._agenda = agenda
        self._endings = endings
        self._documents = documents

    def to_poll(self, entry: Entry, outcome: PollOutcome | DocumentOutcome, now: float) -> list[Effect]:
        """Take the answer to a poll, or to a document or change."""
        if entry.state is not (State.SENDING if entry.is_document else State.POLLING):
            return []
        if isinstance(outcome, Withdrawn | OrderExists):
            return self._not_sent(entry, outcome)
        entry.attempts += 1
        entry.spare = False
        elsewhere = self._note(entry, outcome, now)
        match outcome:
            case Ready(tag):
                return self._tag_found(entry, tag, now)
            case DocumentTaken() | OrderKept():
                return self._poll_after_document(entry, outcome, now)
            case NotReady(status, why):
                entry.missing_since = None
                return self._not_yet(entry, why if status is None else f"{why}, its job says {status}", now)
            case NotFound():
                if entry.missing_since is None:
                    entry.missing_since = now
                return self._not_yet(entry, "not found", now)
            case JobFailed(why, errors):
                return self._endings.give_up(entry, Reason.JOB_FAILED, why, now, errors)
            case Rejected(_, why, errors):
                return self._endings.give_up(entry, Reason.POLL_REJECTED, why, now, errors)
            case Undated():
                detail = "the order has no readable lastChangedAt, so nobody knows whether it is newer_than"
                return self._endings.give_up(entry, Reason.UNDATED_ORDER, detail, now)
            case Unauthorized() | Forbidden() | Throttled() | Unavailable():
                return self._failed(entry, _failure(outcome, elsewhere), now)

    def to_action(self, entry: Entry, outcome: SendOutcome, now: float) -> list[Effect]:
        """Take the answer to an action, or to a document with the action in it."""
        if entry.state is not State.SENDING:
            return []
        elsewhere = self._note(entry, outcome, now)
        match outcome:
            case DocumentTaken(str(job_id)):
                entry.source = job_id
                entry.answered = entry.failed = 0
                self._agenda.wait(entry, State.WAITING, now + self._waits.before_check_s(entry))
                return [entry.record()]
            case Accepted() | DocumentTaken():
                _pass_on_tag(entry)
                return [self._endings.close(entry, now)]
            case StaleTag() | OrderKept():
                return self._refresh_tag(entry, now)
            case JobFailed(why, errors):
                return self._endings.give_up(entry, Reason.JOB_FAILED, why, now, errors)
            case Rejected(_, why, errors):
                return self._endings.give_up(entry, Reason.REJECTED, why, now, errors)
            case NoContact(errors):
                return self._no_contact(entry, errors, now)
            case InDoubt(why, retry_after):
                return self._in_doubt_now(entry, why, retry_after, now)
            case Unauthorized() | Forbidden() | Throttled() | Unavailable():
                return self._not_processed(entry, _failure(outcome, elsewhere), now)
            case OrderExists() | Withdrawn():
                return self._not_sent(entry, outcome)

    def _note(self, entry: Entry, outcome: Outcome, now: float) -> bool:
        """Note whether Engage served this action. Returns whether it served others since this one last failed."""
        if isinstance(outcome, DocumentTaken):
            self._documents.taken(entry.lane, entry.version)
        if isinstance(outcome, _NO_SERVICE):
            failed_at, entry.failed_at = entry.failed_at, now
            return failed_at is not None and entry.queue.served_at > failed_at
        entry.failed_at = None
        if was_asked(outcome):
            entry.queue.served_at = now
        return False

    # -- to a poll, or to a document or change --------------------------------------------------------------------

    def _tag_found(self, entry: Entry, tag: str, now: float) -> list[Effect]:
        """Send the action next, or end it where it went with the document that the job processed."""
        if entry.job_id is not None:
            self._agenda.learn(entry.queue.connection, entry.job_id, tag)
        if entry.is_taken:
            return [self._endings.close(entry, now)]
        self._waits.learn(entry, now)
        entry.asked_at = now
        entry.tag, entry.tagged_at = tag, now
        entry.missing_since = None
        self._agenda.tagged(entry, now)
        # During a hand-over of the partition, save the tag for the next owner.
        return [entry.record()] if entry.partition.stopping else []

    def _not_yet(self, entry: Entry, why: str, now: float) -> list[Effect]:
        """Poll again after Engage answered that there is no tag, unless the action's time is over."""
        entry.answered, entry.failed = entry.answered + 1, 0
        if entry.answered >= MIN_TRIES:
            if self._waits.is_missing_too_long(entry, now):
                if entry.asks_job and not entry.is_taken:  # Engage may have forgotten a job whose order it has
                    entry.job_is_gone = True
                    self._agenda.wait(entry, State.WAITING, now)
                    return []
                detail = f"Engage did not know it for {self._policy.not_found_grace_s:g} s"
                return self._endings.give_up(entry, Reason.NOT_FOUND, detail, now)
            if self._waits.overran(entry, now):
                return self._too_late(entry, now, why)
        at = now + self._waits.before_check_s(entry) if entry.is_taken else self._waits.next_poll(entry, now)
        self._agenda.wait(entry, State.WAITING, at)
        return []

    def _poll_after_document(self, entry: Entry, outcome: DocumentTaken | OrderKept, now: float) -> list[Effect]:
        """Poll the job that the document was given, or the order."""
        entry.answered = entry.failed = 0
        job_id = outcome.job_id if isinstance(outcome, DocumentTaken) else None
        entry.source, entry.job_is_gone = THE_ORDER if job_id is None else job_id, False
        entry.since = entry.asked_at = now
        self._agenda.wait(entry, State.WAITING, self._waits.first_poll(entry, now))
        return [entry.record()]

    def _failed(self, entry: Entry, failure: _Failure, now: float) -> list[Effect]:
        """Wait after a failed poll: as long as Engage said, or longer after each failure in a row.

        The deadline ends the action only where the failure is its own (rule 6), not during an outage.
        """
        _forget_order(entry)
        entry.answered, entry.failed = 0, entry.failed + 1
        if failure.may_be_processed:
            entry.over_at = now + self._policy.processing_s
        if failure.own is not None and entry.failed >= MIN_TRIES and self._waits.overran(entry, now):
            return self._too_late(entry, now, failure.own, failure.reason)
        self._agenda.wait(entry, State.WAITING, max(now + self._wait_s(failure, entry.failed), entry.over_at))
        return []

    # -- to an action ---------------------------------------------------------------------------------------------

    def _refresh_tag(self, entry: Entry, now: float) -> list[Effect]:
        """Ask the order for a newer tag. Where Engage refuses one after the other, they are not the reason."""
        entry.stale += 1
        if entry.stale > MAX_STALE:
            detail = f"Engage answered 404 to {entry.stale} versionTags"
            return self._endings.give_up(entry, Reason.STALE_TAG, detail, now)
        entry.tag = None
        self._agenda.wait(entry, State.WAITING, now + self._waits.after_stale_tag_s(entry))
        return [entry.record()]

    def _no_contact(self, entry: Entry, errors: str | None, now: float) -> list[Effect]:
        """Try again while the order has no contact, until its grace is over. The last try is at its end.

        Engage's advice is to send the order again, which links it to the contact. We do so where the event has it.
        """
        until = self._waits.contact_until(entry, now)
        if now >= until or (entry.sends >= MIN_TRIES and self._waits.overran(entry, now)):
            detail = "the order had no contact within contact_grace"
            return self._endings.give_up(entry, Reason.NO_CONTACT, detail, now, errors)
        wait_s = self._waits.without_contact_s(entry)
        state = State.HOLDING
        if entry.document:
            entry.tag, entry.source, entry.stale, entry.job_is_gone = None, entry.document, 0, False
            state = State.HOLDING if entry.with_document else State.WAITING
        self._agenda.wait(entry, state, min(now + wait_s, until))
        return [entry.record()]

    def _in_doubt_now(self, entry: Entry, why: str, retry_after_s: float | None, now: float) -> list[Effect]:
        """Do with an action that may have been processed as its route says."""
        if not entry.resend:
            return self._endings.give_up(entry, Reason.OUTCOME_UNKNOWN, why, now)
        self._book.doubt(entry, True)
        if self._waits.overran(entry, now) and entry.sends >= MIN_TRIES:
            return self._too_late(entry, now, why)
        processing_s = self._policy.processing_s if entry.needs_no_tag else 0.0
        wait_s = max(self._waits.in_doubt_s(entry, now), retry_after_s or 0.0, processing_s)
        self._agenda.wait(entry, State.HOLDING, now + wait_s)
        return []

    def _not_processed(self, entry: Entry, failure: _Failure, now: float) -> list[Effect]:
        """Hold an action that was certainly not processed. The delay topic must know it in case we end meanwhile.

        The deadline ends it as it does a poll (`_failed`).
        """
        if failure.own is not None and entry.sends >= MIN_TRIES and self._waits.overran(entry, now):
            return self._too_late(entry, now, failure.own, failure.reason)
        _forget_order(entry)
        self._agenda.wait(entry, State.HOLDING, now + self._wait_s(failure, entry.failed_sends))
        return [] if entry.doubt else [entry.record()]

    def _wait_s(self, failure: _Failure, failures: int) -> float:
        if failure.is_suspended:
            return SUSPENDED_WAIT_S
        return self._waits.retry_after_or_backoff_s(failure.retry_after_s, failures)

    def _not_sent(self, entry: Entry, outcome: Withdrawn | OrderExists) -> list[Effect]:
        """Put back what was not sent. It may have learnt that the order exists, which it then replaces."""
        if isinstance(outcome, OrderExists):
            entry.source = Document(exists=True)
        return [self._agenda.put_back(entry)]

    def _too_late(self, entry: Entry, now: float, why: str, reason: Reason = Reason.DEADLINE) -> list[Effect]:
        detail = f"not delivered within {self._policy.deadline_s:g} s: {why}"
        return self._endings.give_up(entry, reason, detail, now)


def _pass_on_tag(entry: Entry) -> None:
    """Give the tag that the order had when it was polled to the order's next action, if that waited then already.

    Asked once more, the order would answer with the same tag: an action does not change it.
    """
    follower = entry.next
    if (
        follower is not entry
        and follower.tag is None
        and follower.target == entry.target == THE_ORDER
        and follower.first_seen < entry.asked_at
    ):
        follower.tag, follower.asked_at = entry.tag, entry.asked_at


def _forget_order(entry: Entry) -> None:
    """Find out again whether the order exists, before its document is sent again."""
    if isinstance(entry.source, Document):
        entry.source = entry.document or THE_DOCUMENT


_NO_SERVICE = (Throttled, Unavailable, InDoubt, Unauthorized, Forbidden)


@dataclass(frozen=True, slots=True)
class _Failure:
    """A call that failed. `own` says why the failure is the action's own; None where it is not (rule 6).

    `may_be_processed`: see Unavailable. `is_suspended`: the key was refused, so its connection decides.
    """

    retry_after_s: float | None
    own: str | None
    reason: Reason = Reason.DEADLINE
    may_be_processed: bool = False
    is_suspended: bool = False


def _failure(outcome: Unauthorized | Forbidden | Throttled | Unavailable, elsewhere: bool) -> _Failure:
    match outcome:
        case Unauthorized():
            return _Failure(None, None, is_suspended=True)
        case Forbidden(status):
            return _Failure(None, f"Engage answered {status}", Reason.FORBIDDEN)
        case Throttled(retry_after_s, answered):
            return _Failure(retry_after_s, "Engage asked to come back later" if answered or elsewhere else None)
        case Unavailable(why, retry_after_s, answered, may_be_processed):
            own = why if answered or elsewhere else None
            return _Failure(retry_after_s, own, may_be_processed=may_be_processed)
