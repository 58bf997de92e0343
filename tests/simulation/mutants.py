"""Deliberate errors in the production code, each one a rule broken. The simulation must catch every one of them.

A mutation patches the code that production runs; it is given a pytest.MonkeyPatch and says in its name what is wrong.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

import consumer.kafka.journal.commits
import consumer.kafka.restore.restore
import consumer.kafka.source.membership
from consumer.core import clock
from consumer.core.clock import Clock
from consumer.core.effects import Effect, LiveAction, NewAction, Send
from consumer.core.ledger import answers
from consumer.core.ledger.answers import Answers, _Failure
from consumer.core.ledger.entries import Entry, OwnedPartition, State
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Waits
from consumer.core.outcomes import (
    Forbidden,
    Outcome,
    Throttled,
    Unauthorized,
    Unavailable,
)
from consumer.core.ownership import Assignment, Ownership, Partition
from consumer.core.pacing import Pace
from consumer.core.parking import ParkedRecords
from consumer.errors import OffsetOutOfRangeError
from consumer.kafka import clients
from consumer.kafka.journal.batch import Batch
from consumer.kafka.journal.commits import Commits
from consumer.kafka.journal.kept_dead_letters import KeptDeadLetters
from consumer.kafka.journal.low_water_mark import LowWaterMark
from consumer.kafka.journal.meanings import AbortedError, UnknownOutcomeError
from consumer.kafka.journal.partitions import Partitions as JournalPartitions
from consumer.kafka.journal.producers import Producers
from consumer.kafka.journal.refusals import Refusals
from consumer.kafka.journal.too_large import TooLarge
from consumer.kafka.journal.writes import Barrier, DeadLetter, Keyed, Position, Tombstone, Write
from consumer.kafka.outcomes.outcomes import Ended, EndedAction
from consumer.kafka.restore.delay_partitions import DelayPartitions, Reading
from consumer.kafka.restore.restore import Restorer
from consumer.kafka.source.membership import Membership
from consumer.kafka.topics.offsets import Watermarks
from consumer.relay import outbox
from consumer.relay.connections import Connection
from consumer.relay.dispatch import Dispatch
from consumer.relay.partitions import Partitions
from consumer.relay.refused import RefusedDeadLetters
from schemas.dead_letter import Reason

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]
Parked = Mapping[str, ParkedRecords] | None
ALL: dict[str, Mutation] = {}


def noting_in(mutations: dict[str, Mutation]) -> Callable[[Mutation], Mutation]:
    """Return a decorator that notes a mutation there, by its name."""

    def mutation(function: Mutation) -> Mutation:
        mutations[function.__name__] = function
        return function

    return mutation


mutation = noting_in(ALL)


@mutation
def send_before_the_intents_commit(patch: Patch) -> None:
    original = Ledger.save_intents

    def save_intents(self: Ledger, connection: str, ahead: int) -> list[Effect]:
        effects = original(self, connection, ahead)
        for effect in effects:
            before_document = getattr(effect, "before_document", False)
            self.intent_saved(effect.action_id, getattr(effect, "sends", 0), math.inf, before_document=before_document)
        return effects

    patch.setattr(Ledger, "save_intents", save_intents)


@mutation
def stale_ownership_under_a_fresh_generation(patch: Patch) -> None:
    def covered(self: JournalPartitions, writes: list[Write], ownership: Ownership) -> list[Write]:
        return [write for write in writes if write.assignment in self.states]

    patch.setattr(JournalPartitions, "covered", covered)


@mutation
def a_negative_generation_is_published(patch: Patch) -> None:
    def publish(self: Membership, member: Consumer) -> None:
        self._metadata = member.consumer_group_metadata()
        self.ownership = Ownership(self._metadata, dict(self._owned))

    patch.setattr(Membership, "_publish", publish)
    patch.setattr(consumer.kafka.journal.commits, "generation", lambda _: 0)


@mutation
def the_mark_passes_a_live_record(patch: Patch) -> None:
    patch.setattr(LowWaterMark, "after", lambda self, written, end: end)


@mutation
def a_missing_mark_is_read_as_latest(patch: Patch) -> None:
    original = Restorer._committed

    def committed(self: Restorer, wanted: list[Assignment]) -> dict[Partition, int]:
        found = original(self, wanted)
        for each in wanted:
            at = (self._topics[each.topic].delay, each.partition)
            with suppress(KafkaException):  # a partition that is not there yet
                found.setdefault(at, self._reader.watermarks([at])[at][1])
        return found

    patch.setattr(Restorer, "_committed", committed)
    # The search for the position record, at the end of the topic, would find all that a short topic holds.
    patch.setattr(consumer.kafka.restore.restore, "POSITION_BEHIND", 1)


@mutation
def a_restore_ends_at_the_last_stable_offset(patch: Patch) -> None:
    original = DelayPartitions._take

    def take(self: DelayPartitions, record: Message, open_: dict[Partition, Reading]) -> str | None:
        client_error = original(self, record, open_)
        error = record.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            open_.pop((record.topic() or "", record.partition() or 0), None)
        return client_error

    patch.setattr(DelayPartitions, "_take", take)


@mutation
def a_producer_is_used_again_after_an_abort(patch: Patch) -> None:
    original = Producers.replace

    def replace(self: Producers) -> None:
        if self._producer is None or self.one_by_one:
            return original(self)
        try:
            self._producer.abort_transaction(15.0)
        except KafkaException:
            original(self)

    patch.setattr(Producers, "replace", replace)


@mutation
def offsets_are_sent_before_the_records(patch: Patch) -> None:
    def write(self: Commits, batches: list[Batch], ownership: Ownership, transaction: str) -> None:
        assert ownership.group_metadata is not None
        self._producers.begin_transaction()
        offsets = []
        for batch in batches:
            topic, partition, _ = batch.assignment
            offsets.append(TopicPartition(topic, partition, batch.next_offset, metadata=transaction))
        self._producers.send_offsets(offsets, ownership.group_metadata)
        for batch in batches:
            self._produce(batch)
        self._producers.flush()
        with suppress(UnknownOutcomeError):
            return self._producers.commit()
        raise AbortedError

    patch.setattr(Commits, "_write", write)


@mutation
def a_tombstone_is_lost_with_an_abort(patch: Patch) -> None:
    replace, batches = Producers.replace, Commits._batches
    aborted: set[int] = set()

    def replaced(self: Producers) -> None:
        aborted.add(id(self))
        replace(self)

    def without(self: Commits, writes: list[Write]) -> list[Batch]:
        if id(self._producers) in aborted:
            aborted.discard(id(self._producers))
            writes = [Barrier(each.assignment) if isinstance(each, Tombstone) else each for each in writes]
        return batches(self, writes)

    patch.setattr(Producers, "replace", replaced)
    patch.setattr(Commits, "_batches", without)


@mutation
def a_stale_entry_shadows_the_same_offset(patch: Patch) -> None:
    original = Membership._on_assign

    def on_assign(self: Membership, member: Consumer, partitions: list[TopicPartition]) -> None:
        self._epoch = 0
        original(self, member, sorted(partitions, key=lambda each: each.partition)[:1])
        for each in partitions[1:]:
            self._epoch = 0
            original(self, member, [each])

    patch.setattr(Membership, "_on_assign", on_assign)


@mutation
def a_partition_is_resumed_that_was_not_paused(patch: Patch) -> None:
    def resume(self: Membership, member: Consumer) -> None:
        self._paused = False
        member.resume([TopicPartition(*at) for at in self._owned])

    patch.setattr(Membership, "resume", resume)


@mutation
def a_fatal_error_is_logged_and_forgotten(patch: Patch) -> None:
    patch.setattr(consumer.kafka.source.membership, "is_fatal", lambda error: False)


@mutation
def a_member_is_ready_before_the_group_let_it_in(patch: Patch) -> None:
    patch.setattr(consumer.kafka.source.membership, "FIRST_GENERATION", 0)


@mutation
def an_offset_out_of_range_is_reset_silently(patch: Patch) -> None:
    original, member = Restorer._next_offset, clients.member

    def next_offset(
        self: Restorer, a: Assignment, committed: int | None, recorded: int | None, marks: Watermarks
    ) -> int:
        try:
            return original(self, a, committed, recorded, marks)
        except OffsetOutOfRangeError:
            return marks[0]

    patch.setattr(Restorer, "_next_offset", next_offset)
    patch.setattr(clients, "member", lambda properties: {**member(properties), "auto.offset.reset": "earliest"})


# -- beyond the rules that the design names ----------------------------------------------------------------------


@mutation
def a_zombie_trusts_its_old_proof(patch: Patch) -> None:
    def may_send(self: Dispatch, send: Send) -> bool:
        return self._source.owns(send.action_id.assignment)

    patch.setattr(Dispatch, "_may_send", may_send)


@mutation
def an_overrun_hand_over_is_never_over(patch: Patch) -> None:
    original = Partitions.settle_hand_overs

    def settle_hand_overs(self: Partitions) -> None:
        source = self._source
        vars(self)["_source"] = SimpleNamespace(owns=lambda _: True)
        try:
            original(self)
        finally:
            vars(self)["_source"] = source

    patch.setattr(Partitions, "settle_hand_overs", settle_hand_overs)


@mutation
def a_record_that_is_too_large_is_dead_lettered_twice(patch: Patch) -> None:
    patch.setattr(TooLarge, "without_refused", lambda self, write: write)


@mutation
def an_unknown_commit_is_taken_for_an_abort(patch: Patch) -> None:
    original = Commits._was_committed

    def was_committed(self: Commits, batches: list[Batch], transaction: str, error: Exception) -> bool:
        original(self, batches, transaction, error)
        return False

    patch.setattr(Commits, "_was_committed", was_committed)


@mutation
def an_order_is_no_queue(patch: Patch) -> None:
    patch.setattr(Entry, "is_head", True)


@mutation
def an_action_in_doubt_is_sent_again_at_once(patch: Patch) -> None:
    patch.setattr(Waits, "backoff_s", lambda self, failures: 0.0)


@mutation
def doubt_is_forgotten_where_a_route_dead_letters(patch: Patch) -> None:
    original = Ledger._add

    def add(self: Ledger, partition: OwnedPartition, offset: int, action: NewAction, first_seen: float) -> Entry:
        entry = original(self, partition, offset, action, first_seen)
        entry.resend = True
        return entry

    patch.setattr(Ledger, "_add", add)


@mutation
def a_process_takes_the_whole_rate_limit(patch: Patch) -> None:
    original = Pace.set_share

    def set_share(self: Pace, share: float, now: float) -> None:
        original(self, 4.0 if share > 0 else 0.0, now)

    patch.setattr(Pace, "set_share", set_share)


@mutation
def the_mark_outlives_the_delay_topic(patch: Patch) -> None:
    original = Commits._delivered

    def delivered(self: Commits, batch: Batch, write: Keyed | None, record: Message) -> None:
        before = batch.start, batch.end
        original(self, batch, write, record)
        if batch.recreated:
            batch.recreated = False
            batch.start, batch.end = before

    patch.setattr(Commits, "_delivered", delivered)


@mutation
def what_is_pending_is_not_written_again(patch: Patch) -> None:
    patch.setattr(Ledger, "rewrite", lambda self, assignment: [])


@mutation
def a_new_partition_starts_at_its_end(patch: Patch) -> None:
    original = Restorer._next_offset

    def next_offset(
        self: Restorer, a: Assignment, committed: int | None, recorded: int | None, marks: Watermarks
    ) -> int:
        unknown = committed is None and recorded is None
        return marks[1] if unknown else original(self, a, committed, recorded, marks)

    patch.setattr(Restorer, "_next_offset", next_offset)


@mutation
def an_older_offset_counts_before_a_later_position(patch: Patch) -> None:
    patch.setattr(Restorer, "_committed_by_relays", lambda self, wanted, source: {})


@mutation
def another_clocks_due_times_are_trusted(patch: Patch) -> None:
    original = Ledger.assign

    def assign(
        self: Ledger, assignment: Assignment, restored: Iterable[LiveAction], now: float, *parked: Parked
    ) -> list[Effect]:
        records = list(restored)
        due = {record.offset: record.due for record in records}
        effects = original(self, assignment, records, now, *parked)
        for entry in self._book.partitions[assignment].entries.values():
            if entry.state in (State.QUEUED, State.WAITING):
                entry.due = due[entry.offset]
        heapq.heapify(self._agenda._heap)
        return effects

    patch.setattr(Ledger, "assign", assign)


@mutation
def the_clock_follows_the_wall(patch: Patch) -> None:
    def steady_clock(wall: Clock, since_boot: Clock) -> Clock:
        return wall

    patch.setattr(clock, "steady_clock", steady_clock)


@mutation
def nobody_hears_that_the_source_has_grown(patch: Patch) -> None:
    patch.setattr(Partitions, "counted", lambda self, counts: None)


@mutation
def a_share_that_went_away_is_kept(patch: Patch) -> None:
    original = Pace.set_share

    def set_share(self: Pace, share: float, now: float) -> None:
        if share > self._share:
            original(self, share, now)

    patch.setattr(Pace, "set_share", set_share)


@mutation
def a_follow_up_leaves_without_its_permit(patch: Patch) -> None:
    async def permit_follow_up(self: Dispatch, connection: Connection) -> bool:
        return True

    patch.setattr(Dispatch, "_permit_follow_up", permit_follow_up)


@mutation
def a_connection_is_not_looked_at_although_an_action_of_it_moved(patch: Patch) -> None:
    patch.setattr(Ledger, "moved", lambda self: {})
    patch.setattr(Dispatch, "look_at_all", lambda self: None)


@mutation
def a_dead_letter_that_is_refused_is_skipped(patch: Patch) -> None:
    def kept(self: KeptDeadLetters, writes: Sequence[Write], refused: Sequence[DeadLetter], why: str) -> list[Write]:
        kept: list[Write] = []
        for write in writes:
            if not isinstance(write, DeadLetter) or write not in refused:
                kept.append(write)
            elif write.next_offset is not None:
                kept.append(Position(write.assignment, write.next_offset))
        return kept

    patch.setattr(KeptDeadLetters, "kept", kept)


@mutation
def a_refused_dead_letter_is_not_tried_again(patch: Patch) -> None:
    patch.setattr(RefusedDeadLetters, "take_due", lambda self, now: [])


@mutation
def a_partition_that_takes_nothing_holds_up_all_others(patch: Patch) -> None:
    patch.setattr(Refusals, "_cut_silent", lambda self, writes, error: None)


@mutation
def a_transactional_id_that_cannot_be_used_is_waited_for(patch: Patch) -> None:
    original = Producers.build

    def build(self: Producers, *, suspect: bool = False) -> Producer:
        self._successor = 0
        return original(self, suspect=suspect)

    patch.setattr(Producers, "build", build)


@mutation
def a_partition_that_cannot_be_served_ends_the_process(patch: Patch) -> None:
    patch.setattr(Partitions, "overrun", lambda self, assignment, error: True)


# -- documents ---------------------------------------------------------------------------------------------------


@mutation
def an_action_whose_record_is_refused_is_cut_in_two(patch: Patch) -> None:
    patch.setattr(TooLarge, "without_action", lambda self, writes, refused: list(writes))


# -- outcomes ----------------------------------------------------------------------------------------------------


@mutation
def an_outcome_is_left_out(patch: Patch) -> None:
    original = outbox.tombstone_of
    patch.setattr(outbox, "tombstone_of", lambda closed, now: replace(original(closed, now), outcome=None))


@mutation
def a_dead_letter_has_no_outcome(patch: Patch) -> None:
    original = Batch._note

    def note(self: Batch, outcome: Ended | None) -> None:
        if isinstance(outcome, EndedAction):
            original(self, outcome)

    patch.setattr(Batch, "_note", note)


@mutation
def an_outcome_is_written_in_the_next_transaction(patch: Patch) -> None:
    original = Commits._batches
    late: dict[int, dict[Assignment, list[Ended]]] = {}

    def batches(self: Commits, writes: list[Write]) -> list[Batch]:
        found = original(self, writes)
        mine = late.setdefault(id(self), {})
        for batch in found:
            batch.outcomes, mine[batch.assignment] = mine.get(batch.assignment, []), batch.outcomes
        return found

    patch.setattr(Commits, "_batches", batches)


@mutation
def a_transaction_that_is_tried_again_forgets_its_outcomes(patch: Patch) -> None:
    replace_producer, batches = Producers.replace, Commits._batches
    aborted: set[int] = set()

    def replaced(self: Producers) -> None:
        aborted.add(id(self))
        replace_producer(self)

    def without(self: Commits, writes: list[Write]) -> list[Batch]:
        found = batches(self, writes)
        if id(self._producers) in aborted:
            aborted.discard(id(self._producers))
            for batch in found:
                batch.outcomes.clear()
        return found

    patch.setattr(Producers, "replace", replaced)
    patch.setattr(Commits, "_batches", without)


# -- what one action alone meets ---------------------------------------------------------------------------------


@mutation
def a_403_to_one_event_suspends_the_connection_for_ever(patch: Patch) -> None:
    original = Pace.answered

    def answered(self: Pace, outcome: Outcome, now: float, about: Hashable | None = None) -> None:
        original(self, Unauthorized(403) if isinstance(outcome, Forbidden) else outcome, now, about)

    patch.setattr(Pace, "answered", answered)


@mutation
def a_403_to_one_event_has_no_end(patch: Patch) -> None:
    original = answers._failure

    def failure(outcome: Unauthorized | Forbidden | Throttled | Unavailable, elsewhere: bool) -> _Failure:
        found = original(outcome, elsewhere)
        return replace(found, own=None) if isinstance(outcome, Forbidden) else found

    patch.setattr(answers, "_failure", failure)


@mutation
def an_order_without_a_contact_is_given_up_at_once(patch: Patch) -> None:
    def no_contact(self: Answers, entry: Entry, errors: str | None, now: float) -> list[Effect]:
        return self._endings.give_up(entry, Reason.NO_CONTACT, "no contact", now, errors)

    patch.setattr(Answers, "_no_contact", no_contact)


@mutation
def an_order_without_a_contact_is_tried_for_ever(patch: Patch) -> None:
    original = Answers._no_contact

    def no_contact(self: Answers, entry: Entry, errors: str | None, now: float) -> list[Effect]:
        entry.contact_due = None
        return original(self, entry, errors, now)

    patch.setattr(Answers, "_no_contact", no_contact)
