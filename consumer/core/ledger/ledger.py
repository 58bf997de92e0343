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
    again only when that cannot be any more, and the order's next document comes after that. Nothing ends its action
    before: until then its record stays, and keeps the next one waiting over a restart, too. An older one never replaces
    a newer one: newest_documents.py.
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
14. A request that seldom helps is spare: it leaves its turn to others of the connection. It is made where none of them
    waits, and after seven of their polls (SPARE_SHARE). Spare are polls that come only because `max_interval` is over,
    where the plan would wait longer, and all requests for an order that has had no contact for long. Otherwise a
    thousand orders that Engage never processes, or a shop's guests, would make all others late.
15. Nothing here waits, reads a clock, draws a random number or does I/O. The caller says what happened and when,
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

The files of this folder. Each knows only those below it, and `make lint` holds that.

    ledger       all that happens comes in here: partitions, events, commits, answers, what people ask, time
    answers      what follows from each answer of Engage
    leaving      which intents are saved next, and which request leaves next
    asked        what a person asks for one action
    endings      how an action ends, and what follows for its order
    agenda       what the next step of each action is, and when: the heap, the queues, the arrows above
    waits        how long an action waits, and for how long it may try
    withdrawals  what is not sent any more, because of another action of its order
    paused       whether a pause holds an action, and for how long one did
    book         which actions are open, in which lane and state, and how many
    entries      what is known of an action, of its partition, and of its connection; its records
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from consumer.core.effects import ActionId, Close, Effect, LiveAction, NewAction, Request, Save
from consumer.core.ledger.agenda import Agenda
from consumer.core.ledger.answers import Answers
from consumer.core.ledger.asked import Asked
from consumer.core.ledger.book import AGE_SLOT_S, Book
from consumer.core.ledger.endings import Endings
from consumer.core.ledger.entries import (
    BEFORE,
    IN_FLIGHT,
    REQUESTS_BEFORE_SPARE,
    SENT_SOON,
    Ending,
    Entry,
    OwnedPartition,
    State,
)
from consumer.core.ledger.leaving import Leaving
from consumer.core.ledger.paused import Paused
from consumer.core.ledger.waits import Policy, Waits
from consumer.core.ledger.withdrawals import Withdrawals
from consumer.core.newest_documents import NewestDocuments
from consumer.core.outcomes import DocumentOutcome, PollOutcome, SendOutcome
from consumer.core.ownership import Assignment
from consumer.core.parking import Memory, ParkedRecords, Parking, ToRead, cost_of
from consumer.core.pauses import NO_PAUSES, Pauses
from consumer.core.poll_plan import Figures as PollFigures
from consumer.core.requests import Answer, NotYet, refused
from consumer.core.sequences import NO_SEQUENCES, SentStep, Sequences
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName

SPARE_SHARE = 1 / (REQUESTS_BEFORE_SPARE + 1)


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
        self.parking = Parking(memory)
        self._book = book = Book(self.parking)
        self._paused = paused = Paused(pauses)
        self._waits = waits = Waits(policy, paused, jitter)
        self._withdrawals = withdrawals = Withdrawals(sequences, self.parking, shadow=policy.shadow)
        self._agenda = agenda = Agenda(policy, book=book, paused=paused, waits=waits, withdrawals=withdrawals)
        self._endings = endings = Endings(policy, book=book, withdrawals=withdrawals, agenda=agenda)
        documents = NewestDocuments()
        self._leaving = Leaving(
            book=book, paused=paused, withdrawals=withdrawals, agenda=agenda, endings=endings, documents=documents
        )
        self._answers = Answers(policy, book=book, waits=waits, agenda=agenda, endings=endings, documents=documents)
        self._asked = Asked(agenda, endings, shadow=policy.shadow)

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
        partition = self._book.partitions[assignment] = OwnedPartition(assignment, self._withdrawals.no_steps())
        self.parking.begin(assignment, parked or {})
        return self._restore(partition, restored, now)

    def _restore(
        self, partition: OwnedPartition, restored: Iterable[LiveAction], now: float, *, were_parked: bool = False
    ) -> list[Effect]:
        effects: list[Effect] = []
        for record in sorted(restored, key=_sequence):
            if were_parked:
                self._withdrawals.unmark(partition.assignment, record.action)
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
            # It was polled for all along, so far in vain, as far as anybody knows. What was parked was not.
            entry.spare = not (were_parked or entry.is_document) and self._waits.is_old(entry, now)
            if record.document_sent:
                entry.failed = 1  # as far as anybody knows
                entry.over_at = now + self._policy.processing_s
                entry.due = max(entry.due, entry.over_at)
            if record.contact_due is not None:
                entry.contact_due = min(record.contact_due, now + self._policy.contact_grace_s)
            self._book.doubt(entry, record.sending)
            if record.sending and not entry.resend:
                entry.ending = Ending(Reason.OUTCOME_UNKNOWN, "the relay ended before the answer came")
            self._agenda.begin(entry, now)
            effects += self.supersede(partition.assignment, record.action, now)
        return effects

    def _add(self, partition: OwnedPartition, offset: int, action: NewAction, first_seen: float) -> Entry:
        entry = self._book.add(partition, self._agenda.queue(action.connection), offset, action, first_seen)
        self._withdrawals.added(entry, action)
        return entry

    def stop(self, assignment: Assignment) -> list[Effect]:
        """Start nothing more for this partition: it is being handed over, and `drop` follows.

        Intents that were saved and not sent are taken back, so that the next owner does not hold them in doubt.
        """
        partition = self._book.partitions.get(assignment)
        if partition is None:
            return []
        partition.stopping = True
        ready = [entry for entry in partition.entries.values() if entry.state is State.READY]
        return [self._agenda.put_back(entry) for entry in ready]

    def drop(self, assignment: Assignment) -> int:
        """Forget a partition at once (lost, or handed over); returns how many actions it held."""
        if assignment not in self._book.partitions:
            return 0
        self.parking.end(assignment)
        dropped = self._book.drop(assignment)
        self._agenda.left_behind(dropped)
        return dropped

    def in_flight(self, assignment: Assignment) -> int:
        """Actions on their way to the journal or to Engage: a hand-over waits until there are none."""
        partition = self._book.partitions.get(assignment)
        return partition.in_flight if partition else 0

    def serves(self, assignment: Assignment) -> bool:
        """Whether a partition is restored, and not in a hand-over."""
        return self._book.served(assignment) is not None

    # -- an event's action ----------------------------------------------------------------------------------------

    def accept(self, assignment: Assignment, offset: int, action: NewAction, now: float) -> Save | None:
        """Take an event's action. Returns its record, with which the event's offset may be settled.

        None where the delay topic held it already, or the partition is gone. Where it says `parked_for`, the action
        is not held (rule 10). Call `supersede` next.
        """
        partition = self._book.partitions.get(assignment)
        connection = action.connection
        if partition is None or offset in partition.entries or self.parking.knows(assignment, connection, offset):
            return None
        if self.parking.must_park(assignment, connection, cost_of(action.payload)):
            self.parking.park(assignment, connection, offset, now, self._withdrawals.mark(action))
            entry = Entry(partition, self._agenda.queue(connection), offset, action, now)
            entry.due = self._waits.first_poll(entry, now)
            return replace(entry.record_alone(), parked_for=connection)
        entry = self._add(partition, offset, action, now)
        entry.due = self._waits.first_poll(entry, now)
        self._agenda.begin(entry, now)
        return entry.record()

    def supersede(self, assignment: Assignment, action: NewAction, now: float) -> list[Effect]:
        """Withdraw what this action supersedes, which was accepted just now (rule 12).

        What is not the next of its order ends when it would be.
        """
        partition = self._book.served(assignment)
        if partition is None or not self._withdrawals.supersedes(action):
            return []
        effects: list[Effect] = []
        while (last := partition.lanes.get(action.connection, {}).get(action.order_id)) is not None:
            head = last.next
            is_sent_first = isinstance(head.source, BEFORE) and head.state in (State.WAITING, State.HOLDING)
            if head.state in IN_FLIGHT or is_sent_first:
                break
            if (withdrawal := self._withdrawals.superseded_by(head)) is None:
                break
            effects.append(self._endings.withdraw(head, withdrawal, now))
        self._agenda.left_behind(len(effects))
        return effects

    def later_step(self, assignment: Assignment, action: NewAction, now: float) -> str | None:
        """Return the later step of an action's order that was sent before it; None: none was, or it does not count."""
        partition = self._book.partitions.get(assignment)
        if partition is None or action.first_offset is not None:
            return None
        return partition.steps.later(action.connection, action.order_id, action.action, now)

    def steps_sent(self, assignment: Assignment, sent: Iterable[SentStep]) -> None:
        """Learn which steps were sent before this assignment: from then on what could be out of sequence is sent."""
        partition = self._book.partitions.get(assignment)
        if partition is not None:
            partition.steps.restore(sent)

    def holds(self, assignment: Assignment, offset: int) -> bool:
        """Tell whether an event's action is pending here."""
        partition = self._book.partitions.get(assignment)
        return partition is not None and offset in partition.entries

    def facts(self, assignment: Assignment) -> list[bytes]:
        """Return the facts of a partition's actions that are held."""
        partition = self._book.partitions.get(assignment)
        entries = partition.entries.values() if partition else ()
        return [entry.fact for entry in entries if entry.fact is not None]

    # -- requests to Engage ---------------------------------------------------------------------------------------

    def save_intents(self, connection: str, ahead: int, now: float | None = None) -> list[Effect]:
        """Save the intents of the oldest TAGGED actions until `ahead` of the connection wait to be sent (rule 2).

        Then the records of the documents and changes that are the next of its polls (rule 7). `now`: None where no
        steps are configured.
        """
        return self._leaving.save_intents(connection, ahead, now)

    def wants_intents(self, connection: str) -> bool:
        """Whether `save_intents` may have something."""
        return self._leaving.wants_intents(connection)

    def intent_saved(
        self, action_id: ActionId, sends: int, ownership_confirmed_at: float, *, before_document: bool = False
    ) -> list[Effect]:
        """Note that its intent, the one with this count of sends, is committed: it may be sent (rule 1).

        `before_document`: that the record of its document or change is committed, which may leave then (rule 7).
        An older record of an action in doubt says `sending`, too. Its commit does not allow a send, and no document.
        `ownership_confirmed_at` is when the ownership was read that this commit proved.
        """
        entry = self._book.find(action_id)
        if entry is None:
            return []
        return self._leaving.intent_saved(entry, sends, ownership_confirmed_at, before_document=before_document)

    def take(
        self, connection: str, other_than: object = None, now: float | None = None, *, poll_first: bool = False
    ) -> Request | None:
        """Take the next request of a connection: the oldest READY action or document, else the oldest DUE poll.

        `other_than`: the id of an action that must not be taken now. `now`: for the outcome's times. `poll_first`: a
        poll, if there is one: it is harmless where nobody answers.
        """
        return self._leaving.take(connection, other_than, now, poll_first=poll_first)

    def has_request(self, connection: str) -> bool:
        """Whether `take` may have something (it may still find that all of it went away)."""
        return self._leaving.has_request(connection)

    def moved(self) -> Mapping[str, None]:
        """Return the connections of which an action moved since the last call: only they may have something new."""
        moved, self._book.moved = self._book.moved, {}
        return moved

    def poll_answered(self, action_id: ActionId, outcome: PollOutcome | DocumentOutcome, now: float) -> list[Effect]:
        """Take the answer to a poll (or to a document or change). A tag learnt for a job is remembered."""
        entry = self._book.find(action_id)
        effects = [] if entry is None else self._answers.to_poll(entry, outcome, now)
        partition = self._book.partitions.get(action_id.assignment)
        if partition is not None and partition.unanswered:
            partition.unanswered.discard(action_id.offset)
        return effects

    def action_answered(self, action_id: ActionId, outcome: SendOutcome, now: float) -> list[Effect]:
        """Take the answer to an action, or to a document with the action in it."""
        entry = self._book.find(action_id)
        return [] if entry is None else self._answers.to_action(entry, outcome, now)

    # -- records --------------------------------------------------------------------------------------------------

    def refresh(self, action_id: ActionId) -> list[Effect]:
        """Write an old live record again as it is, so that it no longer holds the low-water mark back.

        Returns nothing for an action that is sent just now: its record is young.
        """
        entry = self._book.find(action_id)
        return [] if entry is None or entry.state in SENT_SOON else [entry.record()]

    def rewrite(self, assignment: Assignment) -> list[Save]:
        """Write all that is pending again: the delay topic was recreated."""
        partition = self._book.partitions.get(assignment)
        return [entry.newest_record() for entry in partition.entries.values()] if partition else []

    def record_too_large(self, action_id: ActionId, now: float) -> tuple[bytes | None, bool]:
        """Note that the journal dead-lettered it: the broker refuses its record as too large, so it cannot be kept.

        Returns its fact, and whether it is in doubt.
        """
        entry = self._book.find(action_id)
        if entry is None:
            return None, False
        is_in_doubt = self._endings.end_unwritten(entry, now)
        self._agenda.left_behind(1)
        return entry.fact, is_in_doubt

    def parked_too_large(self, assignment: Assignment, action: NewAction, place: int) -> None:
        """Note that the journal dead-lettered an action that is parked."""
        if self.parking.refused(assignment, action.connection, place):
            self._withdrawals.unmark(assignment, action)

    # -- parking (rule 10) ----------------------------------------------------------------------------------------

    def to_read_back(
        self, now: float, connections: Collection[str], waiting: Collection[Assignment] = ()
    ) -> ToRead | None:
        """Return which parked records are to be read now; None: no more fits in.

        Those of a connection that is not one of `connections` need no room: they end at once. Nothing is read of the
        partitions that are `waiting`: they could not be read a moment ago.
        """

        def wanted(assignment: Assignment, connection: str) -> bool | None:
            if assignment in waiting or not self.serves(assignment):
                return False
            return True if connection in connections else None

        return self.parking.to_read(now, self._policy.deadline_s, wanted)

    def may_take_back(self, read: ToRead) -> bool:
        """Whether what was read is still ours to hold, and not in a hand-over."""
        return self.serves(read.assignment) and self.parking.is_current(read)

    def take_back(self, assignment: Assignment, actions: Iterable[LiveAction], now: float) -> list[Effect]:
        """Hold these again: they were read back. Returns what ends at once."""
        return self._restore(self._book.partitions[assignment], actions, now, were_parked=True)

    # -- pauses (rule 11) -----------------------------------------------------------------------------------------

    @property
    def pauses(self) -> Pauses:
        """Which there are, as far as is known."""
        return self._paused.pauses

    def pause(self, pauses: Pauses, now: float) -> list[Effect]:
        """Take which pauses there are. Paused what they cover, resumes what they do not, and withdraws intents."""
        return self._agenda.pause(pauses, now)

    def is_paused(self, action_id: ActionId) -> bool:
        """Whether an action that was taken may not leave after all."""
        entry = self._book.find(action_id)
        return entry is not None and self._paused.pause_of(entry) is not None

    # -- what a person asks for (rule 13) -------------------------------------------------------------------------

    def has_room_for(self, assignment: Assignment, place: int, action: NewAction, now: float) -> bool:
        """Whether an action that a person asks for may begin: it waits for whatever came with events.

        And for the answer to what was asked when it ended, which would be taken for an answer to it.
        """
        connection, parking = action.connection, self.parking
        partition = self._book.partitions.get(assignment)
        if partition is None or place in partition.unanswered:
            return False
        if parking.count_of(assignment) or parking.must_park(assignment, connection, cost_of(action.payload)):
            return False
        return not self.is_behind(connection, now)

    def is_behind(self, connection: str, now: float) -> bool:
        """Whether a connection does not get to what is due: then it has no room for what a person asks for."""
        return self._leaving.is_behind(connection, now)

    def record_of(self, assignment: Assignment, place: int, action: NewAction, now: float) -> Save:
        """Return the record with which an action begins that a person asks for. It is held once that is committed."""
        queue = self._agenda.queue(action.connection)
        return Entry(self._book.partitions[assignment], queue, place, action, now).record_alone()

    def retry_now(self, action_id: ActionId, now: float) -> Answer | NotYet:
        """Let an action's next step be due now, where that repeats nothing that may be processed."""
        entry = self._book.find(action_id)
        return self._not_held(action_id) if entry is None else self._asked.retry_now(entry, now)

    def drop_action(self, action_id: ActionId, why: str, now: float) -> tuple[Answer | NotYet, list[Effect]]:
        """End an action because a person wants that, and return what is to be written of it."""
        entry = self._book.find(action_id)
        return (self._not_held(action_id), []) if entry is None else self._asked.drop(entry, why, now)

    def _not_held(self, action_id: ActionId) -> Answer | NotYet:
        if self.parking.count_of(action_id.assignment):
            return NotYet("it may be one of the actions that are parked: it is looked for when all are read back")
        return refused("it is not pending: it has ended, or it never was")

    # -- time passes ----------------------------------------------------------------------------------------------

    def wake(self, now: float, most: int = 1000) -> list[Effect]:
        """Move up to `most` actions whose time has come: polls become DUE, held actions may be sent again, or end."""
        effects = self.pause(self.pauses, now) if now >= self._paused.resume_at else []
        for _ in range(min(most, self._paused.discarded)):
            effects += self._discard(self._paused.next_discarded(), now)
        most -= self._agenda.start_checks(now, most)
        while most and (entry := self._agenda.next_wait_over(now)) is not None:
            most -= 1
            if entry.ending is not None:
                effects.append(self._endings.end(entry, entry.ending, now))
            elif (withdrawal := self._withdrawals.of(entry, now)) is not None:
                effects.append(self._endings.withdraw(entry, withdrawal, now))
            elif entry.state is State.HOLDING:
                self._agenda.tagged(entry, now)
            else:
                self._agenda.due(entry)
        return effects

    def _discard(self, entry: Entry, now: float) -> list[Effect]:
        """End an action as withheld, if it is still to be discarded."""
        if entry.state is not State.PAUSED or entry.partition.stopping:
            return []
        pause = self._paused.pause_of(entry)
        if pause is None or not pause.discard:
            self._agenda.resume(entry, now)
            return []
        why = f"pause {pause.id}: {pause.reason}"
        if entry.doubt:
            return self._endings.give_up(entry, Reason.OUTCOME_UNKNOWN, f"discarded, {why}", now)
        return [self._endings.close(entry, now, OutcomeName.WITHHELD, why)]

    def next_wake(self) -> float | None:
        """When `wake` has something to do next."""
        if self._paused.discarded:
            return 0.0  # at once
        first = min(self._agenda.next_time(), self._paused.resume_at)
        return None if first == math.inf else first

    # -- figures --------------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many actions are open, those included that are parked."""
        return self._book.open + self.parking.count

    @property
    def in_doubt(self) -> int:
        """How many open actions may have been processed already."""
        return self._book.in_doubt

    def counts(self) -> dict[str, int]:
        """Open actions by state."""
        return {state.name.lower(): self._book.states[state] for state in State if state is not State.GONE}

    def first_seen(self) -> dict[int, int]:
        """Open actions by when their events were first read: how many in which slot of AGE_SLOT_S since 1970.

        Those that are parked count as old as the oldest of them.
        """
        found = self._book.first_seen.copy()
        for first_seen, count in self.parking.oldest():
            slot = int(first_seen // AGE_SLOT_S)
            found[slot] = found.get(slot, 0) + count
        return found

    def open_of(self, assignment: Assignment) -> int | None:
        """Return how many actions of a partition are open; None while it is not ours, or not restored yet."""
        partition = self._book.partitions.get(assignment)
        return None if partition is None else len(partition.entries) + self.parking.count_of(assignment)

    def overdue(self, now: float, tolerance_s: float = 1.0) -> int:
        """DUE polls and TAGGED actions that nobody has taken; 0 while the oldest is within the tolerance.

        What leaves requests to others is not counted (rule 14).
        """
        if now - self._agenda.oldest_due(now) <= tolerance_s:
            return 0
        spare_polls = sum(len(queue.spare_polls) for queue in self._agenda.queues)
        spare_sends = sum(len(queue.spare_sends) for queue in self._agenda.queues)
        states = self._book.states
        return max(0, states[State.DUE] - spare_polls) + max(0, states[State.TAGGED] - spare_sends)

    def plan_polls(self, connection: str, requests: int, allowed: float) -> None:
        """Plan a connection's polls again, where that is learnt (poll_plan.py). Call it every PLAN_INTERVAL_S.

        `requests` were made since the last time, and `allowed` would have been.
        """
        queue = self._agenda.queue(connection)
        waiting = len(queue.tagged) + len(queue.sends) + len(queue.polls)
        spare, queue.spare_taken = queue.spare_taken, 0
        # What leaves requests to others has what is left, and only a share of it where it would want more.
        wanted, available = requests - spare + waiting, allowed - min(spare, SPARE_SHARE * allowed)
        if queue.plan is not None and wanted > 0 and available > 0:
            queue.plan.steer(wanted / available)

    def poll_figures(self, connection: str) -> PollFigures | None:
        """Return what was learnt of a connection's processing times; None where nothing is to be learnt."""
        plan = self._agenda.queue(connection).plan
        return None if plan is None else plan.figures()


def _sequence(record: LiveAction) -> tuple[bool, float, int, bool]:
    """Return what restored records are sorted by: the events' order, then what people asked for, as they did.

    In its place, an action that is sent again would overtake what its order had pending when it was asked for. But what
    Engage may be at work on was the first of its order, and is again: the others wait for it.
    """
    is_settled = not (record.sending or record.document_sent)
    asked = record.action.asked and is_settled
    return asked, record.first_seen if asked else 0.0, record.offset, is_settled
