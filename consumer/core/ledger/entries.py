"""Entries: what is known of an open action, of its partition, and of its connection.

What is known changes elsewhere: the book moves an entry from one state to the next (book.py), the agenda says when
(agenda.py). Here is only what can be told from an entry by itself, and its records.
"""

from __future__ import annotations

import sys
from collections import deque
from enum import IntEnum
from typing import NamedTuple

from consumer.core.effects import (
    THE_ORDER,
    UNKNOWN,
    ActionId,
    Change,
    Close,
    Document,
    GiveUp,
    Job,
    NewAction,
    Order,
    PollTarget,
    Save,
    Times,
)
from consumer.core.newest_documents import Lane
from consumer.core.ownership import Assignment
from consumer.core.pauses import Scope
from consumer.core.places import incarnation_at, offset_at, place_of
from consumer.core.poll_plan import PollPlan
from consumer.core.sequences import SentSteps
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName


class State(IntEnum):
    """See the diagram in ledger.py."""

    QUEUED = 0
    WAITING = 1
    DUE = 2
    POLLING = 3
    TAGGED = 4
    SAVING = 5
    READY = 6
    SENDING = 7
    HOLDING = 8
    PAUSED = 9
    GONE = 10


AHEAD = (State.SAVING, State.READY)  # an intent that is saved ahead of its sending
IN_FLIGHT = (State.SAVING, State.SENDING)  # a hand-over waits for these; the next owner repeats a poll
SENT_SOON = (State.SAVING, State.READY, State.SENDING)  # its newest record was written just now

REQUESTS_BEFORE_SPARE = 7  # then a spare one has its turn
TRIES_BEFORE_SPARE = 3  # of an order without a contact, over 40 s: contacts mostly come within a minute

BEFORE = (Document, Change)  # what is sent before the action


class Ending(NamedTuple):
    """Why an action becomes a dead letter as soon as Engage cannot be at work any more on what was sent of it."""

    reason: Reason
    detail: str
    errors: str | None = None


class Entry:
    """One open action. Slots and shared strings keep it near 400 bytes with all references to it, without `payload`."""

    __slots__ = (
        "action",
        "answered",
        "asked_at",
        "attempts",
        "contact_due",
        "document",
        "doubt",
        "due",
        "ending",
        "fact",
        "failed",
        "failed_at",
        "first_offset",
        "first_seen",
        "job_is_gone",
        "missing_since",
        "next",
        "offset",
        "order_id",
        "over_at",
        "partition",
        "payload",
        "queue",
        "resend",
        "route",
        "sends",
        "sent_at",
        "shadow",
        "since",
        "source",
        "spare",
        "stale",
        "state",
        "tag",
        "tagged_at",
        "with_document",
    )  # fmt: skip

    def __init__(
        self, partition: OwnedPartition, queue: Queue, offset: int, action: NewAction, first_seen: float
    ) -> None:
        """It is no part of its lane yet (book.py)."""
        self.partition = partition
        self.queue = queue
        self.offset = offset
        self.route = sys.intern(action.route)
        self.action = sys.intern(action.action)
        self.order_id = action.order_id
        self.payload = action.payload
        self.resend = action.resend
        self.tag = action.version_tag
        self.source = _kept(action.target)  # where its tag comes from
        self.state = State.QUEUED
        self.first_seen = first_seen
        # From when Engage's time for it counts, and when it last answered a poll (the same before the first one).
        self.since = self.asked_at = min(first_seen if action.event_time is None else action.event_time, first_seen)
        self.due = first_seen  # when its next step is; never changed while the entry lies in the heap
        self.tagged_at = first_seen
        self.document = action.document
        self.with_document = action.with_document
        self.first_offset = action.first_offset
        self.shadow = action.shadow
        self.fact = action.fact
        self.missing_since: float | None = None  # the first 404 of those that came in a row
        self.contact_due: float | None = None  # by when its order must have a contact; None before its first 422
        self.failed_at: float | None = None  # when it last met a failure; None after an answer of use
        self.ending: Ending | None = None
        self.over_at = first_seen  # until then Engage may be at work on its document or change (rule 7)
        self.spare = False  # its next poll is (rule 14)
        self.attempts = 0
        self.answered = 0  # polls in a row that Engage answered without a tag
        self.failed = 0  # polls in a row that failed
        self.sends = 0
        self.sent_at: float | None = None  # when it last left, as far as this assignment knows
        self.stale = 0
        self.job_is_gone = False  # Engage does not know it: the order is asked instead
        self.doubt = False
        self.next = self  # in its lane; the last one's is the head

    def __lt__(self, other: Entry) -> bool:
        return self.due < other.due or (self.due == other.due and self.offset < other.offset)

    @property
    def id(self) -> ActionId:
        """Which action it is."""
        return ActionId(self.partition.assignment, self.offset)

    @property
    def scope(self) -> Scope:
        """What pauses tell it apart by."""
        return Scope(self.queue.connection, self.route, self.action)

    @property
    def lane(self) -> Lane:
        """Whose lane it is in."""
        return self.partition.assignment, self.queue.connection, self.order_id

    @property
    def head(self) -> Entry:
        """The first of its lane: itself, or what it waits behind."""
        return self.partition.lanes[self.queue.connection][self.order_id].next

    @property
    def is_head(self) -> bool:
        """Whether it is the first of its lane."""
        return self.head is self

    @property
    def job_id(self) -> str | None:
        """The job that is polled for it; None where the order is, or a document or change is sent first."""
        return self.source if isinstance(self.source, str) else None

    @property
    def is_document(self) -> bool:
        """Whether its next request sends the order's document, or a change, without the action."""
        return self.tag is None and not self.stale and isinstance(self.source, BEFORE) and not self.with_document

    @property
    def needs_no_tag(self) -> bool:
        """Whether its next request sends the order's document with the action in it (rule 8)."""
        return self.with_document and self.tag is None and not self.stale and isinstance(self.source, Document)

    @property
    def is_taken(self) -> bool:
        """Whether Engage took the document with the action in it, and its job is polled (rule 8)."""
        return self.with_document and isinstance(self.source, str)

    @property
    def version(self) -> int:
        """Its document's or change's (newest_documents.py)."""
        if self.first_offset is None:
            return self.offset
        if not 0 <= self.first_offset <= offset_at(self.offset):
            return UNKNOWN
        return place_of(incarnation_at(self.offset), self.first_offset)

    @property
    def asks_job(self) -> bool:
        """Whether a job is asked for its tag. After a stale tag it would answer with the same one again."""
        return self.job_id is not None and not (self.stale or self.job_is_gone)

    @property
    def target(self) -> PollTarget:
        """What is asked for its tag."""
        if self.stale or self.job_is_gone:
            return THE_ORDER
        return Job(self.source) if isinstance(self.source, str) else self.source

    @property
    def is_without_contact(self) -> bool:
        """Whether its order has had no contact for long: then all requests for it are spare (rule 14)."""
        return self.contact_due is not None and self.failed_sends >= TRIES_BEFORE_SPARE

    @property
    def failed_sends(self) -> int:
        """How often it was sent in vain: a stale tag was an answer."""
        return self.sends - self.stale

    # -- its records ----------------------------------------------------------------------------------------------

    def record(self) -> Save:
        """Return the record with which it waits."""
        return self._save(sending=self.doubt)

    def record_alone(self) -> Save:
        """Return the record with which it waits where it is not held. It can be asked nothing more.

        It refers to itself, so it would stay, with its payload, until the garbage collector comes.
        """
        record = self.record()
        del self.next
        return record

    def intent(self) -> Save:
        """Return the record that must be committed before it is sent (rule 1)."""
        return self._save(sending=True)

    def record_before_document(self) -> Save:
        """Return the record that must be committed before its document or change is sent (rule 7)."""
        return self._save(sending=self.doubt, before_document=True)

    def newest_record(self) -> Save:
        """Return its newest record again."""
        if self.state not in SENT_SOON:
            return self.record()
        return self.record_before_document() if self.is_document else self.intent()

    def _save(self, *, sending: bool, before_document: bool = False) -> Save:
        return Save(
            action_id=self.id,
            route=self.route,
            payload=self.payload,
            sending=sending,
            first_seen=self.first_seen,
            due=self.due,
            attempts=self.attempts,
            sends=self.sends,
            version_tag=self.tag,
            job_id=self.job_id,
            contact_due=self.contact_due,
            doubt=self.doubt,
            before_document=before_document,
            document_sent=before_document or (self.is_document and self.failed > 0),
        )

    def tombstone(self, outcome: OutcomeName, reason: str | None = None) -> Close:
        """Return what is written where it ends without a dead letter."""
        return Close(
            action_id=self.id,
            route=self.route,
            payload=self.payload,
            times=self._times,
            attempts=self.attempts,
            sends=self.sends,
            outcome=outcome,
            fact=self.fact,
            reason=reason,
        )

    def dead_letter(self, reason: Reason, detail: str, errors: str | None) -> GiveUp:
        """Return what is written where it becomes a dead letter."""
        return GiveUp(
            action_id=self.id,
            route=self.route,
            payload=self.payload,
            reason=reason,
            detail=detail,
            errors=errors,
            attempts=self.attempts,
            sends=self.sends,
            times=self._times,
            fact=self.fact,
        )

    @property
    def _times(self) -> Times:
        is_ready = self.tag is not None or self.with_document
        return Times(self.first_seen, self.tagged_at if is_ready else None, self.sent_at if self.sends else None)


def _kept(target: PollTarget) -> str | Order | Document | Change:
    """A job is kept as its id alone: most targets are jobs, and an object for each would be 48 bytes more."""
    return target.job_id if isinstance(target, Job) else target


class OwnedPartition:
    """A partition that is ours: its open actions, and what is remembered of those that ended."""

    __slots__ = (
        "assignment",
        "entries",
        "in_flight",
        "lanes",
        "steps",
        "stopping",
        "superseding",
        "unanswered",
        "unsettled",
    )

    def __init__(self, assignment: Assignment, steps: SentSteps) -> None:
        """`steps`: which were sent (rule 12)."""
        self.assignment = assignment
        self.steps = steps
        # Where the order's latest action of each route lies that supersedes others. By connection, order and `shadow`.
        self.superseding: dict[tuple[str, str, bool], dict[str, int]] = {}
        self.entries: dict[int, Entry] = {}
        self.lanes: dict[str, dict[str, Entry]] = {}  # connection -> order id -> the lane's last entry
        self.in_flight = 0  # actions under way, to the journal or to Engage
        self.unsettled: dict[tuple[str, str], float] = {}  # lanes for which Engage may still be at work -> until when
        self.stopping = False
        self.unanswered: set[int] = set()  # places of actions that ended while they were polled for

    def unsettle(self, entry: Entry, now: float, until: float) -> None:
        """Let the order's next action wait until Engage cannot be at work on this one any more."""
        for lane, over in list(self.unsettled.items()):  # all wait equally long, so the oldest come first
            if over > now:
                break
            del self.unsettled[lane]
        self.unsettled.pop((entry.queue.connection, entry.order_id), None)
        self.unsettled[entry.queue.connection, entry.order_id] = until

    def unsettled_until(self, entry: Entry, now: float) -> float:
        """Return until when Engage may be at work on what an action's order sent before."""
        return self.unsettled.get((entry.queue.connection, entry.order_id), now)


class Queue:
    """What one connection may be asked next: actions before polls. `plan`: when to poll, where that is learnt."""

    __slots__ = (
        "ahead",
        "connection",
        "plan",
        "polls",
        "sends",
        "served_at",
        "since_spare",
        "spare_polls",
        "spare_sends",
        "spare_taken",
        "tagged",
    )

    def __init__(self, connection: str, plan: PollPlan | None) -> None:
        """Begin with nothing to ask."""
        self.connection = connection
        self.plan = plan
        self.ahead = 0  # intents on their way to the journal or waiting to be sent
        self.served_at = 0.0  # when Engage last gave an answer of use
        self.tagged: deque[Entry] = deque()
        self.sends: deque[tuple[Entry, float]] = deque()  # with the time of the ownership that its commit proved
        self.polls: deque[Entry] = deque()
        self.spare_polls: deque[Entry] = deque()  # what leaves requests to the others (rule 14)
        self.spare_sends: deque[Entry] = deque()  # the same of `tagged`
        self.since_spare = 0  # polls that were taken since the last one of those
        self.spare_taken = 0  # of those, since the polls were planned last

    @property
    def has_spare_turn(self) -> bool:
        """Whether the next request may be one that leaves requests to the others (rule 14)."""
        return self.since_spare >= REQUESTS_BEFORE_SPARE or not (self.polls or self.tagged)

    def take_spare_turn(self) -> None:
        """Count such a request."""
        self.since_spare = 0
        self.spare_taken += 1
