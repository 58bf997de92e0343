"""The ledger: which actions are pending, and which of them is next. Read this file first.

Every routed action lives here from the moment its event is read until it is accepted or dead-lettered.

Rules:
 1. An action may be sent only after its intent was saved. After a crash, the actions in doubt are exactly the
    saved intents without an outcome.
 2. Intents are saved just in time. The caller says how many may wait for their sending. So a crash leaves few
    actions in doubt, and each is sent soon after its commit proved that we owned its partition.
 3. In a lane (one order on one connection) actions leave in the order of their events. Lanes never wait for each
    other. An action that becomes a dead letter frees its successor at once. If it is in doubt, it becomes one
    only when Engage can no longer be at work on it: until then its record stays, and keeps its successor waiting
    over a restart, too.
 4. Every key contains the assignment's epoch. So an answer that belongs to an earlier assignment of a partition
    never touches the actions of the present one.
 5. An action stays in doubt until it ends: no later answer tells what became of an earlier send. So an action in
    doubt always becomes a dead letter with the reason `outcome_unknown`, whatever ended it.
 6. Every action ends, by an answer or by its deadline. The deadline ends no action while Engage as a whole is out
    of reach or refuses the key. So a failure counts only where it is the action's own, or where Engage served
    other actions meanwhile.
 7. A document or a change of the order is sent as an action is: its record is committed again, which proves that we
    own its partition, it leaves soon after that, and a hand-over waits for it. Otherwise its former owner could
    replace the order after the next owner sent a newer document. It is never in doubt: sent again, it does no harm.
    But where its answer never came, or its owner died meanwhile, Engage may still be at work on it. So it is sent
    again only when that cannot be any more, and the order's next document comes after that. An older one never
    replaces a newer one: newest_documents.py.
 8. An action that travels in a document needs no tag. It is sent as any action is, under an intent, and may be in
    doubt. Once Engage took it, it keeps its place in the lane, and its job is polled only to learn whether it failed.
    Any other end than the job's leaves it in doubt.
 9. An action that was read in a shadow run never leaves: it ends where its intent, or its document's record, would
    be saved, also in a later run. And a shadow run leaves the actions of other runs alone: they stay pending.
10. Beyond a connection's share of the memory, its new actions are parked: they are saved, and not held here. They
    come back later, in the order of their events: parking.py.
11. What a pause holds is not polled and not sent (pauses.py). An intent that is saved ahead is withdrawn. What is
    SENDING goes its way, and so does the poll of a job that has the action already. An action on hold keeps its place
    in its lane, so the order's next one waits behind it. Time on hold counts for no deadline and no grace. Where the
    pause discards, an action ends as `withheld`; in doubt it ends as rule 5 says.
12. What waits and was surely not sent is withdrawn once a later action of its order supersedes it, and ends as
    `out_of_sequence` where a later step of its order was sent before it (sequences.py). It ends where it is next to
    leave, at the latest: its intent is not saved, and an intent that is saved ahead is not used. What is in doubt goes
    its way. Where a document of its own may be under way, it waits first until Engage must be done with that.
13. What a person asks for one action (requests.py): its next step is due now, but nothing that may be processed is
    repeated any sooner (rules 5 and 7). It is dropped, where it is not under way; in doubt it ends as rule 5 says. An
    action that is sent again begins as a new one, in its former place, when its record is committed.
14. Nothing here waits, reads a clock, draws a random number or does I/O. The caller says what happened and when,
    and gets back what to do next. `now` and all times are seconds since 1970 on a clock that never jumps (clock.py).

States (an action behind another one of its lane is QUEUED):

    QUEUED --first-> WAITING --due--> DUE --take--> POLLING
      | |              ^ ^                            | |
      | |              | +-- not yet, not found, -----+ | tag
      | |              |     failed call                v
      | +-- first, ----|-- tag known -------------> TAGGED --room ahead--> SAVING --saved--> READY --take--> SENDING
      |                |                             ^  ^                    |                |              | | | |
      |                |                   wait over |  +---- withdrawn, ----+----------------+--------------+ | | |
      |                |                             |        handed over                                      | | |
      +-- first, ------|-- tag known, in doubt --> HOLDING <------------- not processed, in doubt --------------+ | |
                       |                                                                                          | |
                       +-------------------------- stale tag: ask the order --------------------------------------+ |
                                                                                           (gone) <-- accepted -----+
    DUE --document, change--> SAVING --saved--> READY --take--> SENDING --sent--> WAITING, to poll its job
                     withdrawn: DUE
    DUE --document, change, an older one--> DUE, to poll the order
    SENDING, with the document, --sent--> WAITING, to poll its job --done--> (gone)
    SENDING --no contact--> HOLDING; with the event's own document: WAITING, to send it again
    any --gave up--> (dead letter); in doubt: HOLDING --wait over--> (dead letter)
    any but SAVING and SENDING --dropped--> (gone); in doubt: as given up
    what would be DUE or TAGGED: PAUSED --resumed--> DUE, TAGGED
                                        --discarded--> (gone); in doubt: as given up
    what was surely not sent, and is not SAVING or SENDING: --superseded, out of sequence--> (gone)

Effects (effects.py) go to the journal, in the order in which they are returned; requests are fetched with `take`.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeVar

from consumer.core.effects import (
    THE_DOCUMENT,
    THE_ORDER,
    THE_REDRIVEN_DOCUMENT,
    UNKNOWN,
    ActionId,
    Change,
    Close,
    Document,
    Effect,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Order,
    Poll,
    PollTarget,
    Request,
    Save,
    Send,
    Times,
)
from consumer.core.newest_documents import Lane, NewestDocuments
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
from consumer.core.ownership import Assignment
from consumer.core.pacing import PollSchedule, spread
from consumer.core.parking import Memory, ParkedRecords, Parking, ToRead, cost_of
from consumer.core.pauses import NO_PAUSES, Pause, Pauses, Scope
from consumer.core.places import incarnation_at, offset_at, place_of
from consumer.core.poll_plan import Figures as PollFigures
from consumer.core.poll_plan import PollPlan
from consumer.core.requests import Answer, NotYet, done, refused
from consumer.core.sequences import NO_SEQUENCES, SentStep, SentSteps, Sequences, mark_of, mark_of_action
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName

LEARNT_TAGS = 10_000  # jobs whose tag is remembered for the order's next action: about 3 MB
MAX_STALE = 5  # how often the order is polled for a newer tag before the action's 404 counts as final
MIN_TRIES = 3  # answered polls in a row, or sends, that an action gets before time ends it, even after an outage
AGE_SLOT_S = 10  # how exactly `first_seen` is told: a day of deadline is 8640 slots at the most
CONTACT_WAITS_S = (10.0, 30.0, 60.0, 120.0)  # contacts are synchronised apart from orders, mostly within a minute
BEHIND_S = 1.0  # for so long a connection's next step is due, and not taken: then it has no room for more
UNKNOWN_STEPS_WAIT_S = 1.0  # until it is looked again whether it is known which steps were sent before a restart
SUSPENDED_WAIT_S = 1.0  # until an action whose key was refused is due again; then its connection decides


NEVER_S = 10 * 365 * 86_400.0  # a run ends before; the next one looks again

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    """The waits and limits that decide when the ledger tries again and when it gives up. Seconds.

    `deadline_s` counts from when the event was first read, `not_found_grace_s` from the first 404 in a row,
    `contact_grace_s` from the first 422. `processing_s` is the longest time that Engage may still work on an action
    in doubt, or on a document without an answer. If that action becomes a dead letter, the order's next action waits so
    long. So does the document, until it is sent again. `shadow`: this run sends nothing (rule 9).
    """

    schedule: PollSchedule = field(default_factory=PollSchedule)
    deadline_s: float = 24 * 3600.0
    not_found_grace_s: float = 600.0
    contact_grace_s: float = 600.0
    processing_s: float = 30.0
    shadow: bool = False


class State(IntEnum):
    """See the diagram above."""

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


_AHEAD = (State.SAVING, State.READY)  # an intent that is saved ahead of its sending
_IN_FLIGHT = (State.SAVING, State.SENDING)  # a hand-over waits for these; the next owner repeats a poll
_SENT_SOON = (State.SAVING, State.READY, State.SENDING)  # its newest record was written just now


class _Entry:
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
        "missing_since",
        "next",
        "offset",
        "order_id",
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
        "stale",
        "state",
        "tag",
        "tagged_at",
        "with_document",
    )  # fmt: skip

    def __init__(self, partition: _Partition, queue: _Queue, offset: int, action: NewAction, first_seen: float) -> None:
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
        self.ending: tuple[str, str | None] | None = None  # it is given up in doubt: detail and errors
        self.attempts = 0
        self.answered = 0  # polls in a row that Engage answered without a tag
        self.failed = 0  # polls in a row that failed
        self.sends = 0
        self.sent_at: float | None = None  # when it last left, as far as this assignment knows
        self.stale = 0
        self.doubt = False
        self.next = self  # in its lane; the last one's is the head

    def __lt__(self, other: _Entry) -> bool:
        return self.due < other.due or (self.due == other.due and self.offset < other.offset)

    @property
    def id(self) -> ActionId:
        return ActionId(self.partition.assignment, self.offset)

    @property
    def scope(self) -> Scope:
        return Scope(self.queue.connection, self.route, self.action)

    @property
    def job_id(self) -> str | None:
        return self.source if isinstance(self.source, str) else None

    @property
    def is_document(self) -> bool:
        """Whether its next request sends the order's document, or a change, without the action."""
        return self.tag is None and not self.stale and isinstance(self.source, _BEFORE) and not self.with_document

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
    def target(self) -> PollTarget:
        if self.stale:
            return THE_ORDER  # a job would answer with the same tag again
        return Job(self.source) if isinstance(self.source, str) else self.source


_BEFORE = (Document, Change)  # what is sent before the action


def _sequence(record: LiveAction) -> tuple[bool, float, int, bool]:
    """Return what restored records are sorted by: the events' order, then what people asked for, as they did.

    In its place, an action that is sent again would overtake what its order had pending when it was asked for.
    """
    asked = record.action.asked
    return asked, record.first_seen if asked else 0.0, record.offset, not record.sending


def _pass_on_tag(entry: _Entry) -> None:
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


def _kept(target: PollTarget) -> str | Order | Document | Change:
    """A job is kept as its id alone: most targets are jobs, and an object for each would be 48 bytes more."""
    return target.job_id if isinstance(target, Job) else target


class _Partition:
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
        self.assignment = assignment
        self.steps = steps
        # Where the order's latest action of each route lies that supersedes others. By connection, order and `shadow`.
        self.superseding: dict[tuple[str, str, bool], dict[str, int]] = {}
        self.entries: dict[int, _Entry] = {}
        self.lanes: dict[str, dict[str, _Entry]] = {}  # connection -> order id -> the lane's last entry
        self.in_flight = 0  # actions under way, to the journal or to Engage
        self.unsettled: dict[tuple[str, str], float] = {}  # lanes for which Engage may still be at work -> until when
        self.stopping = False
        self.unanswered: set[int] = set()  # places of actions that ended while they were polled for


class _Queue:
    """What one connection may be asked next: actions before polls. `plan`: when to poll, where that is learnt."""

    __slots__ = ("ahead", "connection", "plan", "polls", "sends", "served_at", "tagged")

    def __init__(self, connection: str, plan: PollPlan | None) -> None:
        self.connection = connection
        self.plan = plan
        self.ahead = 0  # intents on their way to the journal or waiting to be sent
        self.served_at = 0.0  # when Engage last gave an answer of use
        self.tagged: deque[_Entry] = deque()
        self.sends: deque[tuple[_Entry, float]] = deque()  # with the time of the ownership that its commit proved
        self.polls: deque[_Entry] = deque()


class Ledger:
    """Every open action of the owned partitions. See the module's rules and states."""

    def __init__(
        self,
        policy: Policy,
        jitter: Callable[[], float],
        memory: Memory | None = None,
        pauses: Pauses = NO_PAUSES,
        sequences: Sequences = NO_SEQUENCES,
    ) -> None:
        """`jitter` draws from [0, 1): growing waits are spread by it. `memory`: how much may be held (rule 10).

        `pauses`: which there are, as far as is known (rule 11). `sequences`: what rule 12 asks.
        """
        self._policy = policy
        self._sequences = sequences
        self.pauses = pauses
        self._paused: deque[_Entry] = deque()  # PAUSED; GONE ones are skipped
        self._discarded: deque[_Entry] = deque()  # PAUSED, to be ended; GONE ones are skipped
        self._resume_at = math.inf  # when the next pause ends by itself
        self._holding: dict[Scope, Pause | None] = {}  # what is known of each scope until then
        self._now = 0.0  # when that was found out
        self._may_hold = pauses.may_hold(0.0)
        self._jitter = jitter
        self._partitions: dict[Assignment, _Partition] = {}
        self._heap: list[_Entry] = []  # WAITING and HOLDING, the next due first; GONE ones are skipped
        self._checks: list[tuple[float, _Entry]] = []  # of actions that Engage took; one whose time changed has two
        self._queues: dict[str, _Queue] = {}
        self._tags: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._documents = NewestDocuments()
        self.parking = Parking(memory)
        self._open = 0
        self._in_doubt = 0
        self._states = [0] * len(State)
        self._first_seen: dict[int, int] = {}
        self._litter = 0  # at most so many GONE entries lie in the heap and the queues

    # -- partitions ---------------------------------------------------------------------------------------------

    def assign(
        self,
        assignment: Assignment,
        restored: Iterable[LiveAction],
        now: float,
        parked: Mapping[str, ParkedRecords] | None = None,
    ) -> list[Effect]:
        """Add an assigned partition, with the live records of its delay topic in any order, and what is parked there.

        Returns what ends at once: second records of one event.
        (An event has two where it was read twice, and its route was renamed in between. The one in doubt stays.)
        """
        steps = SentSteps(self._sequences, known=not self._sequences.steps)
        partition = self._partitions[assignment] = _Partition(assignment, steps)
        self.parking.begin(assignment, parked or {})
        return self._restore(partition, restored, now)

    def _restore(
        self, partition: _Partition, restored: Iterable[LiveAction], now: float, *, were_parked: bool = False
    ) -> list[Effect]:
        effects: list[Effect] = []
        for record in sorted(restored, key=_sequence):
            if were_parked and self._sequences.supersedes(record.action):
                self.parking.unmark(partition.assignment, mark_of_action(record.action))
            held = partition.entries.get(record.offset)
            if held is not None:
                if held.route == record.action.route:
                    continue  # its record was written again since it was parked
                effects.append(Close(ActionId(partition.assignment, record.offset), record.action.route))
                continue
            # Another instance's clock may have been ahead: do not wait until ours gets there.
            entry = self._add(partition, record.offset, record.action, min(record.first_seen, now))
            entry.due = min(record.due, now + self._policy.schedule.max_interval_s)
            entry.attempts, entry.sends = record.attempts, record.sends
            if record.document_sent:
                entry.failed = 1  # as far as anybody knows
                entry.due = max(entry.due, now + self._policy.processing_s)
            if record.contact_due is not None:
                entry.contact_due = min(record.contact_due, now + self._policy.contact_grace_s)
            self._doubt(entry, record.sending)
            if record.sending and not entry.resend:
                entry.ending = ("the relay ended before the answer came", None)
            if self._is_head(entry):
                self._start(entry, now)
            else:
                self._hasten_check(entry, now)
            effects += self.supersede(partition.assignment, record.action, now)
        return effects

    def stop(self, assignment: Assignment) -> list[Effect]:
        """Start nothing more for this partition: it is being handed over, and `drop` follows.

        Intents that were saved and not sent are taken back, so that the next owner does not hold them in doubt.
        """
        partition = self._partitions.get(assignment)
        if partition is None:
            return []
        partition.stopping = True
        ready = [entry for entry in partition.entries.values() if entry.state is State.READY]
        return [effect for entry in ready for effect in self._take_back(entry)]

    def drop(self, assignment: Assignment) -> int:
        """Forget a partition at once (lost, or handed over); returns how many actions it held."""
        partition = self._partitions.pop(assignment, None)
        if partition is None:
            return 0
        self.parking.end(assignment)
        dropped = len(partition.entries)
        for entry in partition.entries.values():
            self._doubt(entry, False)
            self._to(entry, State.GONE)
            del entry.next
        partition.entries.clear()
        partition.lanes.clear()
        self._open -= dropped
        self._litter += dropped
        if self._litter > self._open:
            self._sweep()
        return dropped

    def in_flight(self, assignment: Assignment) -> int:
        """Actions on their way to the journal or to Engage: a hand-over waits until there are none."""
        partition = self._partitions.get(assignment)
        return partition.in_flight if partition else 0

    # -- what happened ------------------------------------------------------------------------------------------

    def accept(self, assignment: Assignment, offset: int, action: NewAction, now: float) -> Save | None:
        """Take an event's action. Returns its record, with which the event's offset may be settled.

        None where the delay topic held it already, or the partition is gone. Where it says `parked_for`, the action
        is not held (rule 10). Call `supersede` next.
        """
        partition = self._partitions.get(assignment)
        connection = action.connection
        if partition is None or offset in partition.entries or self.parking.knows(assignment, connection, offset):
            return None
        if self.parking.must_park(assignment, connection, cost_of(action.payload)):
            mark = mark_of_action(action) if self._sequences.supersedes(action) else None
            self.parking.park(assignment, connection, offset, now, mark)
            entry = _Entry(partition, self._queue(connection), offset, action, now)
            entry.due = self._first_poll(entry, now)
            return replace(self._save(entry, sending=False), parked_for=connection)
        entry = self._add(partition, offset, action, now)
        entry.due = self._first_poll(entry, now)
        if self._is_head(entry):
            self._start(entry, now)
        else:
            self._hasten_check(entry, now)
        return self._save(entry, sending=False)

    def supersede(self, assignment: Assignment, action: NewAction, now: float) -> list[Effect]:
        """Withdraw what this action supersedes, which was accepted just now (rule 12).

        What is not the next of its order ends when it would be.
        """
        partition = self._partitions.get(assignment)
        if partition is None or partition.stopping or not self._sequences.supersedes(action):
            return []
        effects: list[Effect] = []
        while (last := partition.lanes.get(action.connection, {}).get(action.order_id)) is not None:
            head = last.next
            is_sent_first = isinstance(head.source, _BEFORE) and head.state in (State.WAITING, State.HOLDING)
            if head.state in _IN_FLIGHT or is_sent_first or not self._superseded_by(head):
                break
            effects.append(self._withdraw(head, OutcomeName.SUPERSEDED, now))
            self._litter += 1
        if self._litter > self._open:
            self._sweep()
        return effects

    def later_step(self, assignment: Assignment, action: NewAction, now: float) -> str | None:
        """Return the later step of an action's order that was sent before it; None: none was, or it does not count."""
        partition = self._partitions.get(assignment)
        if partition is None or action.first_offset is not None:
            return None
        return partition.steps.later(action.connection, action.order_id, action.action, now)

    def steps_sent(self, assignment: Assignment, sent: Iterable[SentStep]) -> None:
        """Learn which steps were sent before this assignment: from then on what could be out of sequence is sent."""
        partition = self._partitions.get(assignment)
        if partition is not None:
            partition.steps.restore(sent)

    def intent_saved(
        self, action_id: ActionId, sends: int, ownership_confirmed_at: float, *, before_document: bool = False
    ) -> list[Effect]:
        """Note that its intent, the one with this count of sends, is committed: it may be sent (rule 1).

        `before_document`: that the record of its document or change is committed, which may leave then (rule 7).
        An older record of an action in doubt says `sending`, too. Its commit does not allow a send, and no document.
        `ownership_confirmed_at` is when the ownership was read that this commit proved.
        """
        entry = self._find(action_id)
        if entry is None or entry.state is not State.SAVING or entry.sends != sends:
            return []
        if entry.is_document != before_document:
            return []
        self._to(entry, State.READY)
        if entry.partition.stopping or self._pause_of(entry) is not None or self._superseded_by(entry):
            return self._take_back(entry)
        entry.queue.sends.append((entry, ownership_confirmed_at))
        return []

    def record_too_large(self, action_id: ActionId, now: float) -> tuple[bytes | None, bool]:
        """Note that the journal dead-lettered it: the broker refuses its record as too large, so it cannot be kept.

        Returns its fact, and whether it is in doubt.
        """
        entry = self._find(action_id)
        ended = (None, False) if entry is None else (entry.fact, entry.doubt)
        if entry is not None:
            self._litter += 1
            if entry.doubt:
                self._unsettle(entry, now)
                self._note_step(entry, now)
            self._remove(entry, now)
        return ended

    def parked_too_large(self, assignment: Assignment, action: NewAction, place: int) -> None:
        """Note that the journal dead-lettered an action that is parked."""
        was_parked = self.parking.refused(assignment, action.connection, place)
        if was_parked and self._sequences.supersedes(action):
            self.parking.unmark(assignment, mark_of_action(action))

    def holds(self, assignment: Assignment, offset: int) -> bool:
        """Tell whether an event's action is pending here."""
        partition = self._partitions.get(assignment)
        return partition is not None and offset in partition.entries

    def facts(self, assignment: Assignment) -> list[bytes]:
        """Return the facts of a partition's actions that are held."""
        partition = self._partitions.get(assignment)
        entries = partition.entries.values() if partition else ()
        return [entry.fact for entry in entries if entry.fact is not None]

    def poll_answered(self, action_id: ActionId, outcome: PollOutcome | DocumentOutcome, now: float) -> list[Effect]:
        """Take the answer to a poll (or to a document or change). A tag learnt for a job is remembered."""
        effects = self._take_poll_answer(action_id, outcome, now)
        partition = self._partitions.get(action_id.assignment)
        if partition is not None and partition.unanswered:
            partition.unanswered.discard(action_id.offset)
        return effects

    def _take_poll_answer(
        self, action_id: ActionId, outcome: PollOutcome | DocumentOutcome, now: float
    ) -> list[Effect]:
        entry = self._find(action_id)
        if entry is None or entry.state is not (State.SENDING if entry.is_document else State.POLLING):
            return []
        if isinstance(outcome, Withdrawn | OrderExists):
            return self._not_sent(entry, outcome)
        entry.attempts += 1
        elsewhere = self._note(entry, outcome, now)
        match outcome:
            case Ready(tag):
                return self._tag_found(entry, tag, now)
            case DocumentTaken() | OrderKept():
                return self._poll_after_document(entry, outcome, now)
            case NotReady():
                entry.missing_since = None
                return self._not_yet(entry, "not processed", now)
            case NotFound():
                if entry.missing_since is None:
                    entry.missing_since = now
                return self._not_yet(entry, "not found", now)
            case JobFailed(why, errors):
                return self._give_up(entry, Reason.JOB_FAILED, why, now, errors)
            case Rejected(_, why, errors):
                return self._give_up(entry, Reason.POLL_REJECTED, why, now, errors)
            case Undated():
                detail = "the order has no readable lastChangedAt, so nobody knows whether it is newer_than"
                return self._give_up(entry, Reason.UNDATED_ORDER, detail, now)
            case Unauthorized() | Forbidden() | Throttled() | Unavailable():
                return self._failed(entry, _failure(outcome, elsewhere), now)

    def action_answered(self, action_id: ActionId, outcome: SendOutcome, now: float) -> list[Effect]:
        """Take the answer to an action, or to a document with the action in it."""
        entry = self._find(action_id)
        if entry is None or entry.state is not State.SENDING:
            return []
        elsewhere = self._note(entry, outcome, now)
        match outcome:
            case DocumentTaken(str(job_id)):
                entry.source = job_id
                entry.answered = entry.failed = 0
                self._wait(entry, State.WAITING, now + self._check_interval(entry))
                return [self._save(entry, sending=entry.doubt)]
            case Accepted() | DocumentTaken():
                _pass_on_tag(entry)
                return [self._closed(entry, now)]
            case StaleTag() | OrderKept():
                return self._refresh_tag(entry, now)
            case JobFailed(why, errors):
                return self._give_up(entry, Reason.JOB_FAILED, why, now, errors)
            case Rejected(_, why, errors):
                return self._give_up(entry, Reason.REJECTED, why, now, errors)
            case NoContact(errors):
                return self._no_contact(entry, errors, now)
            case InDoubt(why, retry_after):
                return self._in_doubt_now(entry, why, retry_after, now)
            case Unauthorized() | Forbidden() | Throttled() | Unavailable():
                return self._not_processed(entry, _failure(outcome, elsewhere), now)
            case OrderExists() | Withdrawn():
                return self._not_sent(entry, outcome)

    def refresh(self, action_id: ActionId) -> list[Effect]:
        """Write an old live record again as it is, so that it no longer holds the low-water mark back.

        Returns nothing for an action that is sent just now: its record is young.
        """
        entry = self._find(action_id)
        if entry is None or entry.state in _SENT_SOON:
            return []
        return [self._save(entry, sending=entry.doubt)]

    def rewrite(self, assignment: Assignment) -> list[Save]:
        """Write all that is pending again: the delay topic was recreated."""
        partition = self._partitions.get(assignment)
        entries = partition.entries.values() if partition else ()
        return [
            self._save(entry, sending=entry.doubt or _is_intent(entry), before_document=_is_sent_document(entry))
            for entry in entries
        ]

    # -- parking (rule 10) ---------------------------------------------------------------------------------------

    def to_read_back(
        self, now: float, connections: Collection[str], waiting: Collection[Assignment] = ()
    ) -> ToRead | None:
        """Return which parked records are to be read now; None: no more fits in.

        Those of a connection that is not one of `connections` need no room: they end at once. Nothing is read of the
        partitions that are `waiting`: they could not be read a moment ago.
        """

        def wanted(assignment: Assignment, connection: str) -> bool | None:
            partition = self._partitions.get(assignment)
            if partition is None or partition.stopping or assignment in waiting:
                return False
            return True if connection in connections else None

        return self.parking.to_read(now, self._policy.deadline_s, wanted)

    def may_take_back(self, read: ToRead) -> bool:
        """Whether what was read is still ours to hold, and not in a hand-over."""
        partition = self._partitions.get(read.assignment)
        return partition is not None and not partition.stopping and self.parking.is_current(read)

    def take_back(self, assignment: Assignment, actions: Iterable[LiveAction], now: float) -> list[Effect]:
        """Hold these again: they were read back. Returns what ends at once."""
        return self._restore(self._partitions[assignment], actions, now, were_parked=True)

    # -- requests (rule 13) --------------------------------------------------------------------------------------

    def serves(self, assignment: Assignment) -> bool:
        """Whether a partition is restored, and not in a hand-over."""
        partition = self._partitions.get(assignment)
        return partition is not None and not partition.stopping

    def has_room_for(self, assignment: Assignment, place: int, action: NewAction, now: float) -> bool:
        """Whether an action that a person asks for may begin: it waits for whatever came with events.

        And for the answer to what was asked when it ended, which would be taken for an answer to it.
        """
        connection, parking = action.connection, self.parking
        partition = self._partitions.get(assignment)
        if partition is None or place in partition.unanswered:
            return False
        if parking.count_of(assignment) or parking.must_park(assignment, connection, cost_of(action.payload)):
            return False
        queue = self._queue(connection)
        first = [each[0] for each in (queue.tagged, queue.polls) if each]
        return not any(each.state in (State.TAGGED, State.DUE) and each.due < now - BEHIND_S for each in first)

    def record_of(self, assignment: Assignment, place: int, action: NewAction, now: float) -> Save:
        """Return the record with which an action begins that a person asks for. It is held once that is committed."""
        entry = _Entry(self._partitions[assignment], self._queue(action.connection), place, action, now)
        return self._save(entry, sending=False)

    def retry_now(self, action_id: ActionId, now: float) -> Answer | NotYet:
        """Let an action's next step be due now, where that repeats nothing that may be processed."""
        entry = self._find(action_id)
        if entry is None:
            return self._not_held(action_id)
        if entry.state is State.QUEUED:
            return refused("it waits for the order's earlier action")
        if entry.state is State.PAUSED:
            return refused("a pause holds it; `engage-relay pauses` lists them")
        if entry.state not in (State.WAITING, State.HOLDING):
            return done("it is due already")
        if self._policy.shadow and not entry.shadow:
            return refused("a shadow run sends nothing")
        unsettled_until = entry.partition.unsettled.get((entry.queue.connection, entry.order_id), 0.0)
        if entry.ending is not None or entry.doubt or entry.is_document or unsettled_until > now:
            return refused("Engage may be at work on it, or on what its order sent before; that is waited for")
        if entry.is_taken:
            entry.due = now
            heapq.heappush(self._checks, (now, entry))
            return done("its job is polled now")
        self._take_from_heap(entry)
        entry.due = now
        if entry.state is State.HOLDING:
            self._tagged(entry, now)
            return done("it is sent now")
        self._due(entry)
        return done("its versionTag is polled for now")

    def drop_action(self, action_id: ActionId, why: str, now: float) -> tuple[Answer | NotYet, list[Effect]]:
        """End an action because a person wants that, and return what is to be written of it."""
        entry = self._find(action_id)
        if entry is None:
            return self._not_held(action_id), []
        if entry.state in _IN_FLIGHT:
            return NotYet("it is under way"), []
        if entry.ending is not None:
            return NotYet("Engage may have it: it ends when Engage cannot be at work on it any more"), []
        if entry.state in (State.WAITING, State.HOLDING) and not entry.is_taken:
            self._take_from_heap(entry)
        if entry.doubt or entry.is_taken:
            return NotYet("Engage may have it"), self._give_up(entry, Reason.OUTCOME_UNKNOWN, f"dropped, {why}", now)
        if entry.is_document and entry.failed:
            self._unsettle(entry, now)
        entry.sends -= entry.state is State.READY and not entry.is_document
        self._litter += 1
        ended = self._closed(entry, now, OutcomeName.DROPPED)
        return done("it was dropped, and nothing is sent"), [replace(ended, reason=why)]

    def _not_held(self, action_id: ActionId) -> Answer | NotYet:
        if self.parking.count_of(action_id.assignment):
            return NotYet("it may be one of the actions that are parked: it is looked for when all are read back")
        return refused("it is not pending: it has ended, or it never was")

    def _take_from_heap(self, entry: _Entry) -> None:
        """Take an entry out whose time is to change. That looks at all entries: it is for what a person asks."""
        self._heap.remove(entry)
        heapq.heapify(self._heap)

    # -- pauses (rule 11) ---------------------------------------------------------------------------------------

    def pause(self, pauses: Pauses, now: float) -> list[Effect]:
        """Take which pauses there are. Holds what they cover, resumes what they do not, and withdraws intents."""
        self.pauses, self._resume_at = pauses, pauses.next_end(now)
        self._holding, self._now = {}, now
        self._may_hold = pauses.may_hold(now)
        resumed = [*self._paused, *self._discarded]
        self._paused.clear()
        self._discarded.clear()
        effects: list[Effect] = []
        for queue in self._queues.values():
            tagged, sends, polls = queue.tagged, queue.sends, queue.polls
            queue.tagged, queue.sends, queue.polls = deque(), deque(), deque()
            for entry in tagged:
                self._hold_or_keep(entry, State.TAGGED, queue.tagged)
            for entry in polls:
                self._hold_or_keep(entry, State.DUE, queue.polls)
            for each in sends:
                entry = each[0]
                if entry.state is State.READY and self._pause_of(entry) is not None:
                    effects += self._take_back(entry)
                else:
                    queue.sends.append(each)
        for entry in resumed:
            if entry.state is State.PAUSED:
                self._resume(entry, now)
        return effects

    def is_paused(self, action_id: ActionId) -> bool:
        """Whether an action that was taken may not leave after all."""
        entry = self._find(action_id)
        return entry is not None and self._pause_of(entry) is not None

    def _hold_or_keep(self, entry: _Entry, state: State, queue: deque[_Entry]) -> None:
        if entry.state is state and self._pause_of(entry) is not None:
            self._hold(entry)
        elif entry.state is not State.GONE:
            queue.append(entry)

    def _pause_of(self, entry: _Entry) -> Pause | None:
        """Return what holds an action. The poll of a job that has the action already goes its way."""
        if not self._may_hold or entry.is_taken:
            return None
        scope = entry.scope
        if scope not in self._holding:
            self._holding[scope] = self.pauses.holding(scope, self._now)
        return self._holding[scope]

    def _hold(self, entry: _Entry) -> None:
        self._to(entry, State.PAUSED)
        pause = self._pause_of(entry)
        (self._discarded if pause is not None and pause.discard else self._paused).append(entry)

    def _resume(self, entry: _Entry, now: float) -> None:
        """Continue with an action that was on hold, or hold it on."""
        entry.due = now
        if entry.tag is None and not entry.needs_no_tag:
            self._due(entry)
        else:
            self._tagged(entry, now)

    def _discard(self, entry: _Entry, now: float) -> list[Effect]:
        """End an action as withheld, if it is still to be discarded."""
        if entry.state is not State.PAUSED or entry.partition.stopping:
            return []
        pause = self._pause_of(entry)
        if pause is None or not pause.discard:
            self._resume(entry, now)
            return []
        why = f"pause {pause.id}: {pause.reason}"
        if entry.doubt:
            return self._give_up(entry, Reason.OUTCOME_UNKNOWN, f"discarded, {why}", now)
        return [replace(self._closed(entry, now, OutcomeName.WITHHELD), reason=why)]

    def _elapsed_s(self, entry: _Entry, since: float, now: float) -> float:
        """Return the seconds since then, without those on hold."""
        return now - since - self.pauses.held_s(entry.scope, since, now)

    # -- what to do next ----------------------------------------------------------------------------------------

    def wake(self, now: float, most: int = 1000) -> list[Effect]:
        """Move up to `most` actions whose time has come: polls become DUE, held actions may be sent again, or end."""
        effects = self.pause(self.pauses, now) if now >= self._resume_at else []
        for _ in range(min(most, len(self._discarded))):
            effects += self._discard(self._discarded.popleft(), now)
        while most and self._checks and self._checks[0][0] <= now:
            due, entry = heapq.heappop(self._checks)
            if entry.state is State.WAITING and entry.due == due and not entry.partition.stopping:
                most -= 1
                self._to(entry, State.DUE)
                entry.queue.polls.append(entry)
        while most and self._heap and self._heap[0].due <= now:
            entry = heapq.heappop(self._heap)
            if entry.partition.stopping or entry.state is State.GONE:
                continue
            most -= 1
            if entry.ending is not None:
                effects.append(self._end(entry, Reason.OUTCOME_UNKNOWN, *entry.ending, now=now))
            elif (stopped_by := self._stopped_by(entry, now)) is not None:
                effects.append(self._withdraw(entry, stopped_by, now))
            elif entry.state is State.HOLDING:
                self._tagged(entry, now)
            else:
                self._due(entry)
        return effects

    def next_wake(self) -> float | None:
        """When `wake` has something to do next."""
        first = [self._heap[0].due] if self._heap else []
        if self._discarded:
            first.append(0.0)  # at once
        if self._resume_at < math.inf:
            first.append(self._resume_at)
        if self._checks:
            first.append(self._checks[0][0])
        return min(first, default=None)

    def save_intents(self, connection: str, ahead: int, now: float | None = None) -> list[Effect]:
        """Save the intents of the oldest TAGGED actions until `ahead` of the connection wait to be sent (rule 2).

        Then the records of the documents and changes that are the next of its polls (rule 7). `now`: None where no
        steps are configured.
        """
        queue = self._queue(connection)
        effects: list[Effect] = []
        while queue.tagged and queue.ahead < ahead:
            entry = queue.tagged.popleft()
            if entry.state is State.TAGGED and not entry.partition.stopping:
                if entry.shadow:
                    effects.append(self._closed(entry, entry.due, OutcomeName.SHADOW))
                    continue
                if self._is_out_of_turn(entry, entry.due if now is None else now, effects):
                    continue
                if entry.needs_no_tag and not self._may_send_document(entry):
                    self._wait(entry, State.WAITING, entry.due)
                    continue
                entry.sends += 1
                self._to(entry, State.SAVING)
                effects.append(self._save(entry, sending=True))
        while queue.ahead < ahead and (document := _document_first(queue.polls)) is not None:
            if document.shadow:
                queue.polls.popleft()
                effects.append(self._closed(document, document.due, OutcomeName.SHADOW))
                continue
            if self._is_out_of_turn(document, document.due if now is None else now, effects):
                queue.polls.popleft()
                continue
            if not self._may_send_document(document):
                continue
            queue.polls.popleft()
            self._to(document, State.SAVING)
            effects.append(self._save(document, sending=document.doubt, before_document=True))
        return effects

    def wants_intents(self, connection: str) -> bool:
        """Whether `save_intents` may have something."""
        queue = self._queue(connection)
        return bool(queue.tagged) or _document_first(queue.polls) is not None

    def take(self, connection: str, other_than: object = None, now: float | None = None) -> Request | None:
        """Take the next request of a connection: the oldest READY action or document, else the oldest DUE poll.

        `other_than`: the id of an action that must not be taken now. `now`: for the outcome's times.
        """
        queue = self._queue(connection)
        ready = _next(queue.sends, lambda each: each[0], State.READY, other_than)
        if ready is not None:
            entry, ownership_confirmed_at = ready
            self._to(entry, State.SENDING)
            self._note_sent(entry)
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
        if _document_first(queue.polls) is not None:
            return None  # its record is saved first
        due = _next(queue.polls, lambda each: each, State.DUE, other_than)
        if due is not None and due.is_document:
            queue.polls.appendleft(due)  # it waited behind `other_than`; its record is saved first, too
            return None
        if due is not None:
            self._to(due, State.POLLING)
            return Poll(action_id=due.id, order_id=due.order_id, payload=due.payload, target=due.target, due=due.due)
        return None

    def has_request(self, connection: str) -> bool:
        """Whether `take` may have something (it may still find that all of it went away)."""
        queue = self._queue(connection)
        return bool(queue.sends or queue.polls)

    def plan_polls(self, connection: str, requests: int, allowed: float) -> None:
        """Plan a connection's polls again, where that is learnt (poll_plan.py). Call it every PLAN_INTERVAL_S.

        `requests` were made since the last time, and `allowed` would have been.
        """
        queue = self._queue(connection)
        waiting = len(queue.tagged) + len(queue.sends) + len(queue.polls)
        if queue.plan is not None and requests + waiting and allowed:
            queue.plan.steer((requests + waiting) / allowed)

    # -- figures ------------------------------------------------------------------------------------------------

    def poll_figures(self, connection: str) -> PollFigures | None:
        """Return what was learnt of a connection's processing times; None where nothing is to be learnt."""
        plan = self._queue(connection).plan
        return None if plan is None else plan.figures()

    @property
    def open(self) -> int:
        """How many actions are open, those included that are parked."""
        return self._open + self.parking.count

    @property
    def in_doubt(self) -> int:
        """How many open actions may have been processed already."""
        return self._in_doubt

    def counts(self) -> dict[str, int]:
        """Open actions by state."""
        return {state.name.lower(): self._states[state] for state in State if state is not State.GONE}

    def first_seen(self) -> dict[int, int]:
        """Open actions by when their events were first read: how many in which slot of AGE_SLOT_S since 1970.

        Those that are parked count as old as the oldest of them.
        """
        found = self._first_seen.copy()
        for first_seen, count in self.parking.oldest():
            slot = int(first_seen // AGE_SLOT_S)
            found[slot] = found.get(slot, 0) + count
        return found

    def open_of(self, assignment: Assignment) -> int | None:
        """Return how many actions of a partition are open; None while it is not ours, or not restored yet."""
        partition = self._partitions.get(assignment)
        return None if partition is None else len(partition.entries) + self.parking.count_of(assignment)

    def overdue(self, now: float, tolerance_s: float = 1.0) -> int:
        """DUE polls and TAGGED actions that nobody has taken; 0 while the oldest is within the tolerance."""
        oldest = now
        for queue in self._queues.values():
            for waiting in (queue.tagged, queue.polls):
                while waiting and waiting[0].state is State.GONE:
                    waiting.popleft()
                if waiting:
                    oldest = min(oldest, waiting[0].due)
        return self._states[State.DUE] + self._states[State.TAGGED] if now - oldest > tolerance_s else 0

    # -- inside: the book ---------------------------------------------------------------------------------------

    def _find(self, action_id: ActionId) -> _Entry | None:
        partition = self._partitions.get(action_id.assignment)
        return partition.entries.get(action_id.offset) if partition else None

    def _queue(self, connection: str) -> _Queue:
        queue = self._queues.get(connection)
        if queue is None:
            schedule = self._policy.schedule
            plan = PollPlan(schedule.max_interval_s) if schedule.learns else None
            queue = self._queues[connection] = _Queue(connection, plan)
        return queue

    def _to(self, entry: _Entry, state: State) -> None:
        self._states[entry.state] -= 1
        self._states[state] += 1
        entry.partition.in_flight += (state in _IN_FLIGHT) - (entry.state in _IN_FLIGHT)
        entry.queue.ahead += (state in _AHEAD) - (entry.state in _AHEAD)
        if state is State.GONE:
            self.parking.hold(entry.queue.connection, -cost_of(entry.payload))
            self._count_age(entry, -1)
        entry.state = state

    def _count_age(self, entry: _Entry, change: int) -> None:
        slot = int(entry.first_seen // AGE_SLOT_S)
        count = self._first_seen.get(slot, 0) + change
        if count:
            self._first_seen[slot] = count
        else:
            del self._first_seen[slot]

    def _doubt(self, entry: _Entry, doubt: bool) -> None:
        self._in_doubt += doubt - entry.doubt
        entry.doubt = doubt

    def _add(self, partition: _Partition, offset: int, action: NewAction, first_seen: float) -> _Entry:
        queue = self._queue(action.connection)
        entry = _Entry(partition, queue, offset, action, first_seen)
        partition.entries[offset] = entry
        self._open += 1
        self.parking.hold(queue.connection, cost_of(entry.payload))
        self._states[State.QUEUED] += 1
        self._count_age(entry, 1)
        lane = partition.lanes.setdefault(queue.connection, {})
        last = lane.get(entry.order_id)
        if last is not None:
            entry.next, last.next = last.next, entry
        lane[entry.order_id] = entry
        if self._sequences.supersedes(action):
            order = (queue.connection, entry.order_id, entry.shadow)
            partition.superseding.setdefault(order, {})[entry.route] = offset
        return entry

    def _is_head(self, entry: _Entry) -> bool:
        return entry.partition.lanes[entry.queue.connection][entry.order_id].next is entry

    def _remove(self, entry: _Entry, now: float) -> None:
        """Take an ended action out of its lane. If it was the head, its successor starts."""
        partition = entry.partition
        if entry.state is State.POLLING:
            partition.unanswered.add(entry.offset)
        self._doubt(entry, False)
        self._to(entry, State.GONE)
        self._open -= 1
        del partition.entries[entry.offset]
        lane = partition.lanes[entry.queue.connection]
        last = before = lane[entry.order_id]
        while before.next is not entry:  # ends at once, unless the action is not the head: rare
            before = before.next
        if before is entry:
            del lane[entry.order_id]
        else:
            before.next = entry.next
            if last is entry:
                lane[entry.order_id] = before
        if entry.route in self._sequences.superseding:
            self._supersedes_no_more(entry)
        if before is last and before is not entry and not partition.stopping:
            self._start(before.next, now)
        del entry.next  # it would keep others alive, and itself

    def _supersedes_no_more(self, entry: _Entry) -> None:
        """Let an earlier action of its order and route, if there is one, stand where one lay that was removed."""
        order = (entry.queue.connection, entry.order_id, entry.shadow)
        latest = entry.partition.superseding.get(order, {})
        if latest.get(entry.route) != entry.offset:
            return
        del latest[entry.route]
        last = entry.partition.lanes[entry.queue.connection].get(entry.order_id)
        each = last
        while last is not None and each is not None:  # ends at once, unless the action was not the head: rare
            each = each.next
            if each.first_offset is None:
                if each.offset > entry.offset:
                    break
                if each.route == entry.route and each.shadow == entry.shadow:
                    latest[each.route] = each.offset
            if each is last:
                break
        if not latest:
            del entry.partition.superseding[order]

    def _sweep(self) -> None:
        """Forget what is GONE. `drop` calls it when more is GONE than open: O(1) per dropped action."""
        self._heap = [entry for entry in self._heap if entry.state is not State.GONE]
        heapq.heapify(self._heap)
        self._checks = [(due, entry) for due, entry in self._checks if entry.state is not State.GONE]
        heapq.heapify(self._checks)
        self._paused, self._discarded = _live(self._paused), _live(self._discarded)
        for queue in self._queues.values():
            queue.tagged = _live(queue.tagged)
            queue.sends = deque(each for each in queue.sends if each[0].state is not State.GONE)
            queue.polls = _live(queue.polls)
        self._litter = 0

    def _learn(self, connection: str, job_id: str, tag: str) -> None:
        self._tags[connection, job_id] = tag
        self._tags.move_to_end((connection, job_id))
        if len(self._tags) > LEARNT_TAGS:
            self._tags.popitem(last=False)

    # -- inside: the steps --------------------------------------------------------------------------------------

    def _start(self, entry: _Entry, now: float) -> None:
        """Start an action that is the head of its lane now. If it was restored in doubt, it waits before it is sent."""
        if entry.state is State.HOLDING:
            return  # it was dropped before its turn came, and ends soon
        if self._policy.shadow and not entry.shadow:
            self._wait(entry, State.HOLDING, now + NEVER_S)
            return
        if entry.ending is not None:
            self._wait(entry, State.HOLDING, now + self._policy.processing_s)
            return
        if entry.tag is None and entry.job_id is not None and not entry.is_taken:
            entry.tag = self._tags.get((entry.queue.connection, entry.job_id))
        unsettled_until = entry.partition.unsettled.get((entry.queue.connection, entry.order_id), now)
        earliest = max(now + self._doubt_wait(entry, now) if entry.doubt else now, unsettled_until)
        if entry.doubt and entry.needs_no_tag:
            earliest = max(earliest, now + self._policy.processing_s)
        is_stopped = self._stopped_by(entry, now) is not None  # then `wake` ends it
        if entry.tag is None and not entry.needs_no_tag:
            ends_now = is_stopped and not entry.is_document
            self._wait(entry, State.WAITING, earliest if ends_now else max(entry.due, earliest))
            return
        entry.tagged_at = now
        if earliest > now or is_stopped:
            self._wait(entry, State.HOLDING, earliest)
        else:
            self._tagged(entry, now)

    def _stopped_by(self, entry: _Entry, now: float) -> OutcomeName | None:
        """Return why an action that is next is not to be sent (rule 12); None: it is."""
        if self._superseded_by(entry) is not None:
            return OutcomeName.SUPERSEDED
        return OutcomeName.OUT_OF_SEQUENCE if self._later_step(entry, now) is not None else None

    def _superseded_by(self, entry: _Entry) -> str | None:
        """Return, in words, what supersedes an action; None: nothing does, or it goes its way all the same."""
        by = self._sequences.superseded_by.get(entry.route)
        if by is None or not self._may_be_stopped(entry):
            return None
        partition, connection = entry.partition, entry.queue.connection
        for route, place in partition.superseding.get((connection, entry.order_id, entry.shadow), {}).items():
            if route in by and place > entry.offset:
                return f"by route {route}, offset {offset_at(place)}"
        if self.parking.marks:
            for route in by:
                mark = mark_of(connection, entry.order_id, route, shadow=entry.shadow)
                if self.parking.is_marked(partition.assignment, mark):
                    return f"by route {route}"
        return None

    def _later_step(self, entry: _Entry, now: float) -> str | None:
        if not self._sequences.has_later(entry.action) or not self._may_be_stopped(entry):
            return None
        return entry.partition.steps.later(entry.queue.connection, entry.order_id, entry.action, now)

    def _may_be_stopped(self, entry: _Entry) -> bool:
        """Whether an action was surely not sent, and nobody asked for it, and it is not another run's (rule 9)."""
        others = self._policy.shadow and not entry.shadow
        return not (entry.doubt or entry.is_taken or entry.first_offset is not None or others)

    def _is_out_of_turn(self, entry: _Entry, now: float, effects: list[Effect]) -> bool:
        """End an action that is next to be sent and is not to be, or let it wait until that is known."""
        if (stopped_by := self._stopped_by(entry, now)) is not None:
            effects.append(self._withdraw(entry, stopped_by, now))
            return True
        if entry.partition.steps.known or not self._sequences.has_later(entry.action):
            return False
        if not self._may_be_stopped(entry):
            return False
        self._wait(entry, State.WAITING if entry.is_document else State.HOLDING, now + UNKNOWN_STEPS_WAIT_S)
        return True

    def _withdraw(self, entry: _Entry, stopped_by: OutcomeName, now: float) -> Close:
        """End an action that is not sent (rule 12)."""
        if entry.state is State.READY and not entry.is_document:
            entry.sends -= 1  # its intent was not used
        why = self._superseded_by(entry) or f"{self._later_step(entry, now)} was sent before"
        return replace(self._closed(entry, now, stopped_by), reason=why)

    def _note_step(self, entry: _Entry, now: float) -> None:
        """Note that an action was sent, perhaps in doubt, and ends."""
        if entry.action in self._sequences.steps:
            entry.partition.steps.sent(SentStep(entry.queue.connection, entry.order_id, entry.action, now))

    def _wait(self, entry: _Entry, state: State, due: float) -> None:
        self._to(entry, state)
        entry.due = due
        if entry.is_taken and state is State.WAITING:
            heapq.heappush(self._checks, (due, entry))
        else:
            heapq.heappush(self._heap, entry)

    def _due(self, entry: _Entry) -> None:
        if self._pause_of(entry) is not None:
            self._hold(entry)
            return
        self._to(entry, State.DUE)
        entry.queue.polls.append(entry)

    def _tagged(self, entry: _Entry, now: float) -> None:
        if self._pause_of(entry) is not None:
            self._hold(entry)
            return
        self._to(entry, State.TAGGED)
        entry.due = now
        entry.queue.tagged.append(entry)

    def _tag_found(self, entry: _Entry, tag: str, now: float) -> list[Effect]:
        """Send the action next, or end it where it went with the document that the job processed."""
        if entry.job_id is not None:
            self._learn(entry.queue.connection, entry.job_id, tag)
        if entry.is_taken:
            return [self._closed(entry, now)]
        if entry.queue.plan is not None and not entry.stale and not self.pauses.held_s(entry.scope, entry.since, now):
            entry.queue.plan.found(entry.asked_at - entry.since, now - entry.since)
        entry.asked_at = now
        entry.tag, entry.tagged_at = tag, now
        entry.missing_since = None
        self._tagged(entry, now)
        # During a hand-over of the partition, save the tag for the next owner.
        return [self._save(entry, sending=entry.doubt)] if entry.partition.stopping else []

    def _not_yet(self, entry: _Entry, why: str, now: float) -> list[Effect]:
        """Poll again after Engage answered that there is no tag, unless the action's time is over."""
        entry.answered, entry.failed = entry.answered + 1, 0
        if entry.answered >= MIN_TRIES:
            grace_s = self._policy.not_found_grace_s
            if entry.missing_since is not None and self._elapsed_s(entry, entry.missing_since, now) >= grace_s:
                return self._give_up(entry, Reason.NOT_FOUND, f"Engage did not know it for {grace_s:g} s", now)
            if self._overran(entry, now):
                return self._too_late(entry, now, why)
        at = now + self._check_interval(entry) if entry.is_taken else self._next_poll(entry, now)
        self._wait(entry, State.WAITING, at)
        return []

    def _first_poll(self, entry: _Entry, now: float) -> float:
        plan = entry.queue.plan
        return self._policy.schedule.first_poll(now) if plan is None else max(now, entry.since + plan.next_age(0.0))

    def _next_poll(self, entry: _Entry, now: float) -> float:
        """Return when to poll again after a poll that found no tag."""
        plan = entry.queue.plan
        if plan is None:
            return now + self._policy.schedule.interval(entry.attempts, self._jitter())
        if entry.asked_at == entry.since < entry.first_seen - plan.next_age(0.0):
            # By its event's time the tag should have been there when the event was read. So that time tells nothing:
            # an old event that was published again, or a time of day that is a date.
            entry.since = entry.first_seen
        entry.asked_at = now
        return entry.since + plan.next_age(now - entry.since)

    def _poll_after_document(self, entry: _Entry, outcome: DocumentTaken | OrderKept, now: float) -> list[Effect]:
        """Poll the job that the document was given, or the order."""
        entry.answered = entry.failed = 0
        job_id = outcome.job_id if isinstance(outcome, DocumentTaken) else None
        entry.source = THE_ORDER if job_id is None else job_id
        entry.since = entry.asked_at = now
        self._wait(entry, State.WAITING, self._first_poll(entry, now))
        return [self._save(entry, sending=entry.doubt)]

    def _failed(self, entry: _Entry, failure: _Failure, now: float) -> list[Effect]:
        """Wait after a failed poll: as long as Engage said, or longer after each failure in a row.

        The deadline ends the action only where the failure is its own (rule 6), not during an outage.
        """
        self._forget_order(entry)
        entry.answered, entry.failed = 0, entry.failed + 1
        if failure.own is not None and entry.failed >= MIN_TRIES and self._overran(entry, now):
            if failure.may_be_processed:
                self._unsettle(entry, now)
            return self._too_late(entry, now, failure.own, failure.reason)
        wait_s = self._retry_after_or_backoff(failure.retry_after_s, entry.failed)
        if failure.may_be_processed:
            wait_s = max(wait_s, self._policy.processing_s)
        self._wait(entry, State.WAITING, now + wait_s)
        return []

    def _not_processed(self, entry: _Entry, failure: _Failure, now: float) -> list[Effect]:
        """Hold an action that was certainly not processed. The delay topic must know it in case we end meanwhile.

        The deadline ends it as it does a poll (`_failed`).
        """
        if failure.own is not None and entry.sends >= MIN_TRIES and self._overran(entry, now):
            return self._too_late(entry, now, failure.own, failure.reason)
        self._forget_order(entry)
        wait_s = self._retry_after_or_backoff(failure.retry_after_s, _failed_sends(entry))
        self._wait(entry, State.HOLDING, now + wait_s)
        return [] if entry.doubt else [self._save(entry, sending=False)]

    def _in_doubt_now(self, entry: _Entry, why: str, retry_after_s: float | None, now: float) -> list[Effect]:
        """Do with an action that may have been processed as its route says."""
        if not entry.resend:
            return self._give_up(entry, Reason.OUTCOME_UNKNOWN, why, now)
        self._doubt(entry, True)
        if self._overran(entry, now) and entry.sends >= MIN_TRIES:
            return self._too_late(entry, now, why)
        processing_s = self._policy.processing_s if entry.needs_no_tag else 0.0
        self._wait(entry, State.HOLDING, now + max(self._doubt_wait(entry, now), retry_after_s or 0.0, processing_s))
        return []

    def _no_contact(self, entry: _Entry, errors: str | None, now: float) -> list[Effect]:
        """Try again while the order has no contact, until its grace is over. The last try is at its end.

        Engage's advice is to send the order again, which links it to the contact. We do so where the event has it.
        """
        if entry.contact_due is None:
            entry.contact_due = now + self._policy.contact_grace_s
        until = entry.contact_due
        until += self.pauses.held_s(entry.scope, until - self._policy.contact_grace_s, now)
        if now >= until or (entry.sends >= MIN_TRIES and self._overran(entry, now)):
            return self._give_up(entry, Reason.NO_CONTACT, "the order had no contact within contact_grace", now, errors)
        wait_s = spread(CONTACT_WAITS_S[min(_failed_sends(entry), len(CONTACT_WAITS_S)) - 1], self._jitter())
        state = State.HOLDING
        if entry.document:
            entry.tag, entry.source, entry.stale = None, entry.document, 0
            state = State.HOLDING if entry.with_document else State.WAITING
        self._wait(entry, state, min(now + wait_s, until))
        return [self._save(entry, sending=entry.doubt)]

    def _forget_order(self, entry: _Entry) -> None:
        """Find out again whether the order exists, before its document is sent again."""
        if isinstance(entry.source, Document):
            entry.source = entry.document or THE_DOCUMENT

    def _check_interval(self, entry: _Entry) -> float:
        """Return how long to wait before the job of an action that Engage took is polled: once in a while.

        More often where the order's next action waits for it.
        """
        if entry.next is not entry:
            return self._policy.schedule.interval(entry.answered, self._jitter())
        return self._backoff(entry.answered + 1)

    def _hasten_check(self, successor: _Entry, now: float) -> None:
        """Poll the job soon where an action that Engage took has got its first successor."""
        head = successor.partition.lanes[successor.queue.connection][successor.order_id].next
        soon = self._policy.schedule.first_poll(now)
        if head.is_taken and head.state is State.WAITING and head.next is successor and soon < head.due:
            head.due = soon
            heapq.heappush(self._checks, (soon, head))

    def _note(self, entry: _Entry, outcome: Outcome, now: float) -> bool:
        """Note whether Engage served this action. Returns whether it served others since this one last failed."""
        if isinstance(outcome, DocumentTaken):
            self._documents.taken(_lane(entry), entry.version)
        if isinstance(outcome, _NO_SERVICE):
            failed_at, entry.failed_at = entry.failed_at, now
            return failed_at is not None and entry.queue.served_at > failed_at
        entry.failed_at = None
        if was_asked(outcome):
            entry.queue.served_at = now
        return False

    def _unsettle(self, entry: _Entry, now: float) -> None:
        """Let the order's next action wait until Engage cannot be at work on this one any more."""
        unsettled = entry.partition.unsettled
        for lane, until in list(unsettled.items()):  # all wait equally long, so the oldest come first
            if until > now:
                break
            del unsettled[lane]
        unsettled.pop((entry.queue.connection, entry.order_id), None)
        unsettled[entry.queue.connection, entry.order_id] = now + self._policy.processing_s

    def _refresh_tag(self, entry: _Entry, now: float) -> list[Effect]:
        entry.stale += 1
        if entry.stale > MAX_STALE:
            detail = f"Engage answered 404 to {entry.stale} versionTags"
            return self._give_up(entry, Reason.STALE_TAG, detail, now)
        entry.tag = None
        wait_s = 0.0 if entry.stale == 1 else self._policy.schedule.interval(entry.stale - 1, self._jitter())
        self._wait(entry, State.WAITING, now + wait_s)
        return [self._save(entry, sending=entry.doubt)]

    def _not_sent(self, entry: _Entry, outcome: Withdrawn | OrderExists) -> list[Effect]:
        """Put back what was not sent. It may have learnt that the order exists, which it then replaces."""
        if isinstance(outcome, OrderExists):
            entry.source = Document(exists=True)
        return self._take_back(entry)

    def _take_back(self, entry: _Entry) -> list[Effect]:
        """Put an action back whose intent was saved, but which was certainly not sent. It is the next to be sent.

        A document, too.
        """
        is_document = entry.is_document
        if not is_document:
            entry.sends -= 1
        if self._pause_of(entry) is not None:
            self._hold(entry)
        elif is_document:
            self._to(entry, State.DUE)
            entry.queue.polls.appendleft(entry)
        else:
            self._to(entry, State.TAGGED)
            entry.queue.tagged.appendleft(entry)
        return [self._save(entry, sending=entry.doubt)]

    def _may_send_document(self, entry: _Entry) -> bool:
        """Decide how the next of an order's documents and changes leaves. An older one does not.

        Then its action is sent by itself, with a tag of the order. A change always replaces, so it leaves only where a
        document could replace the order.
        """
        how = self._documents.how_to_send(_lane(entry), entry.version, is_first=entry.first_offset is None)
        is_change = isinstance(entry.source, Change)
        if how is None or (is_change and not how.replaces):
            entry.source = THE_ORDER
            return False
        if not (is_change or (how.replaces and entry.source == Document(exists=True))):
            entry.source = how
        return True

    def _note_sent(self, entry: _Entry) -> None:
        """Note that its document or change leaves, if it may replace another one."""
        if (entry.is_document or entry.needs_no_tag) and entry.source != THE_REDRIVEN_DOCUMENT:
            self._documents.sent(_lane(entry), entry.version)

    def _overran(self, entry: _Entry, now: float) -> bool:
        deadline_s = self._policy.deadline_s
        return now - entry.first_seen > deadline_s and self._elapsed_s(entry, entry.first_seen, now) > deadline_s

    def _too_late(self, entry: _Entry, now: float, why: str, reason: Reason = Reason.DEADLINE) -> list[Effect]:
        return self._give_up(entry, reason, f"not delivered within {self._policy.deadline_s:g} s: {why}", now)

    def _give_up(
        self, entry: _Entry, reason: Reason, detail: str, now: float, errors: str | None = None
    ) -> list[Effect]:
        may_be_processed = entry.is_taken and reason is not Reason.JOB_FAILED  # rule 8
        if (entry.doubt or may_be_processed) and reason is not Reason.OUTCOME_UNKNOWN:
            detail = f"{reason}: {detail}; {'an earlier send' if entry.doubt else 'it'} may have been processed"
            reason = Reason.OUTCOME_UNKNOWN
        if reason is Reason.OUTCOME_UNKNOWN:
            self._doubt(entry, True)
            entry.ending = (detail, errors)
            self._wait(entry, State.HOLDING, now + self._policy.processing_s)
            return []
        return [self._end(entry, reason, detail, errors, now=now)]

    def _closed(self, entry: _Entry, now: float, outcome: OutcomeName = OutcomeName.ACCEPTED) -> Close:
        if outcome is OutcomeName.ACCEPTED:
            self._note_step(entry, now)
        self._remove(entry, now)
        return Close(
            action_id=entry.id,
            route=entry.route,
            payload=entry.payload,
            times=_times(entry),
            attempts=entry.attempts,
            sends=entry.sends,
            outcome=outcome,
            fact=entry.fact,
        )

    def _end(self, entry: _Entry, reason: Reason, detail: str, errors: str | None, *, now: float) -> GiveUp:
        if reason is Reason.OUTCOME_UNKNOWN:
            self._note_step(entry, now)
        self._remove(entry, now)
        return GiveUp(
            action_id=entry.id,
            route=entry.route,
            payload=entry.payload,
            reason=reason,
            detail=detail,
            errors=errors,
            attempts=entry.attempts,
            sends=entry.sends,
            times=_times(entry),
            fact=entry.fact,
        )

    def _save(self, entry: _Entry, *, sending: bool, before_document: bool = False) -> Save:
        return Save(
            action_id=entry.id,
            route=entry.route,
            payload=entry.payload,
            sending=sending,
            first_seen=entry.first_seen,
            due=entry.due,
            attempts=entry.attempts,
            sends=entry.sends,
            version_tag=entry.tag,
            job_id=entry.job_id,
            contact_due=entry.contact_due,
            doubt=entry.doubt,
            before_document=before_document,
            document_sent=before_document or (entry.is_document and entry.failed > 0),
        )

    def _backoff(self, failures: int) -> float:
        return self._policy.schedule.backoff(failures, self._jitter())

    def _doubt_wait(self, entry: _Entry, now: float) -> float:
        """Return how long an action in doubt waits. Each send may cause a duplicate, so its waits keep doubling."""
        sends = _failed_sends(entry)
        longest = self._backoff(sends)
        time_left = entry.first_seen + self._policy.deadline_s - now
        return min(longest * 2.0 ** max(0, sends - len(self._policy.schedule.backoff_s)), max(longest, time_left))

    def _retry_after_or_backoff(self, retry_after_s: float | None, failures: int) -> float:
        return self._backoff(failures) if retry_after_s is None else retry_after_s


@dataclass(frozen=True, slots=True)
class _Failure:
    """A call that failed. `own` says why the failure is the action's own; None where it is not (rule 6).

    `may_be_processed`: see Unavailable.
    """

    retry_after_s: float | None
    own: str | None
    reason: Reason = Reason.DEADLINE
    may_be_processed: bool = False


def _failure(outcome: Unauthorized | Forbidden | Throttled | Unavailable, elsewhere: bool) -> _Failure:
    match outcome:
        case Unauthorized():
            return _Failure(SUSPENDED_WAIT_S, None)
        case Forbidden():
            return _Failure(None, "Engage answered 403", Reason.FORBIDDEN)
        case Throttled(retry_after_s, answered):
            return _Failure(retry_after_s, "Engage asked to come back later" if answered or elsewhere else None)
        case Unavailable(why, retry_after_s, answered, may_be_processed):
            own = why if answered or elsewhere else None
            return _Failure(retry_after_s, own, may_be_processed=may_be_processed)


_NO_SERVICE = (Throttled, Unavailable, InDoubt, Unauthorized, Forbidden)


def _times(entry: _Entry) -> Times:
    is_ready = entry.tag is not None or entry.with_document
    return Times(entry.first_seen, entry.tagged_at if is_ready else None, entry.sent_at if entry.sends else None)


def _is_intent(entry: _Entry) -> bool:
    """Whether its newest record is an intent."""
    return entry.state in _SENT_SOON and not entry.is_document


def _is_sent_document(entry: _Entry) -> bool:
    """Whether its newest record says that its document may be under way."""
    return entry.state in _SENT_SOON and entry.is_document


def _lane(entry: _Entry) -> Lane:
    return entry.partition.assignment, entry.queue.connection, entry.order_id


def _document_first(polls: deque[_Entry]) -> _Entry | None:
    """Return the document that is the next poll; None where another poll is. Entries that went away are dropped."""
    while polls and (polls[0].state is not State.DUE or polls[0].partition.stopping):
        polls.popleft()
    return polls[0] if polls and polls[0].is_document else None


def _failed_sends(entry: _Entry) -> int:
    return entry.sends - entry.stale  # a stale tag was an answer


def _next(waiting: deque[T], entry_of: Callable[[T], _Entry], state: State, other_than: object) -> T | None:
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


def _live(entries: Iterable[_Entry]) -> deque[_Entry]:
    return deque(entry for entry in entries if entry.state is not State.GONE)
