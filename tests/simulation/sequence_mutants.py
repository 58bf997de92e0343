"""Deliberate errors in what holds an order's sequence (core/sequences.py). Schedules of sequences notice them."""

from __future__ import annotations

from collections.abc import Iterable

from consumer.core.effects import Effect, LiveAction, NewAction
from consumer.core.ledger import withdrawals
from consumer.core.ledger.endings import Endings
from consumer.core.ledger.entries import Entry, State
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.withdrawals import Withdrawal, Withdrawals
from consumer.core.ownership import Assignment
from consumer.core.sequences import SentStep, SentSteps, Sequences
from consumer.kafka.parking.live_records import LiveRecords
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def nothing_is_superseded(patch: Patch) -> None:
    patch.setattr(Withdrawals, "superseded_by", lambda self, entry: None)


@mutation
def only_what_waits_when_it_comes_is_superseded(patch: Patch) -> None:
    """What is in its turn later is sent: after a send that was not processed, after a restart, after parking."""
    original = Ledger.supersede

    def supersede(self: Ledger, assignment: Assignment, action: NewAction, now: float) -> list[Effect]:
        with patch.context() as inner:
            inner.setattr(Withdrawals, "superseded_by", superseded_by)
            return original(self, assignment, action, now)

    superseded_by = Withdrawals.superseded_by
    patch.setattr(Ledger, "supersede", supersede)
    patch.setattr(Withdrawals, "superseded_by", lambda self, entry: None)


@mutation
def what_is_parked_supersedes_nothing(patch: Patch) -> None:
    patch.setattr(withdrawals, "mark_of_action", lambda action: bytes(12))


@mutation
def what_is_parked_supersedes_nothing_after_a_restart(patch: Patch) -> None:
    patch.setattr(LiveRecords, "_mark", lambda self, name, key, value: None)


@mutation
def what_was_read_back_still_has_its_mark(patch: Patch) -> None:
    def take_back(self: Ledger, assignment: Assignment, actions: Iterable[LiveAction], now: float) -> list[Effect]:
        return self._restore(self._book.partitions[assignment], actions, now)

    patch.setattr(Ledger, "take_back", take_back)


@mutation
def what_may_have_been_sent_is_withdrawn(patch: Patch) -> None:
    def may_be_withdrawn(self: Withdrawals, entry: Entry) -> bool:
        return not (entry.is_taken or entry.first_offset is not None)

    patch.setattr(Withdrawals, "_may_be_withdrawn", may_be_withdrawn)


@mutation
def what_a_person_had_sent_again_is_stopped(patch: Patch) -> None:
    patch.setattr(Withdrawals, "_may_be_withdrawn", lambda self, entry: not (entry.doubt or entry.is_taken))


@mutation
def what_a_person_had_sent_again_supersedes(patch: Patch) -> None:
    patch.setattr(Sequences, "supersedes", lambda self, action: action.route in self.superseding)


@mutation
def an_action_supersedes_later_ones(patch: Patch) -> None:
    def superseded_by(self: Withdrawals, entry: Entry) -> Withdrawal | None:
        by = self._sequences.superseded_by.get(entry.route, frozenset())
        order = (entry.queue.connection, entry.order_id, entry.shadow)
        come = entry.partition.superseding.get(order, {}).keys() & by
        return Withdrawal(OutcomeName.SUPERSEDED, "by one") if come and self._may_be_withdrawn(entry) else None

    patch.setattr(Withdrawals, "superseded_by", superseded_by)


@mutation
def the_latest_of_a_route_forgets_the_earlier_ones(patch: Patch) -> None:
    def supersedes_no_more(self: Withdrawals, entry: Entry) -> None:
        entry.partition.superseding.pop((entry.queue.connection, entry.order_id, entry.shadow), None)

    patch.setattr(Withdrawals, "_supersedes_no_more", supersedes_no_more)


@mutation
def what_supersedes_does_not_wait_for_a_document_under_way(patch: Patch) -> None:
    original = Ledger.supersede

    def supersede(self: Ledger, assignment: Assignment, action: NewAction, now: float) -> list[Effect]:
        effects: list[Effect] = []
        partition = self._book.partitions.get(assignment)
        last = None if partition is None else partition.lanes.get(action.connection, {}).get(action.order_id)
        while last is not None and (head := last.next).state is State.WAITING:
            withdrawal = self._withdrawals.superseded_by(head)
            if withdrawal is None:
                break
            effects.append(self._endings.withdraw(head, withdrawal, now))
            assert partition is not None
            last = partition.lanes.get(action.connection, {}).get(action.order_id)
        return effects + original(self, assignment, action, now)

    patch.setattr(Ledger, "supersede", supersede)


@mutation
def a_step_backwards_is_sent(patch: Patch) -> None:
    patch.setattr(SentSteps, "later", lambda self, connection, order_id, action, now: None)


@mutation
def a_step_backwards_that_waits_is_sent(patch: Patch) -> None:
    patch.setattr(Withdrawals, "behind_later_step", lambda self, entry, now: None)


@mutation
def steps_are_forgotten_at_a_restore(patch: Patch) -> None:
    def restore(self: SentSteps, sent: Iterable[SentStep]) -> None:
        self.known = True

    patch.setattr(SentSteps, "restore", restore)


@mutation
def what_is_pending_does_not_wait_for_the_steps(patch: Patch) -> None:
    original = SentSteps.__init__

    def init(self: SentSteps, sequences: Sequences, *, known: bool) -> None:
        original(self, sequences, known=True)

    patch.setattr(SentSteps, "__init__", init)


@mutation
def a_step_that_ended_in_doubt_counts_for_nothing(patch: Patch) -> None:
    original = Withdrawals.note_step

    def note_step(self: Withdrawals, entry: Entry, now: float) -> None:
        if not entry.doubt:
            original(self, entry, now)

    patch.setattr(Withdrawals, "note_step", note_step)


@mutation
def a_step_that_was_given_up_counts(patch: Patch) -> None:
    original = Endings.give_up

    def give_up(
        self: Endings, entry: Entry, reason: Reason, detail: str, now: float, errors: str | None = None
    ) -> list[Effect]:
        self._withdrawals.note_step(entry, now)
        return original(self, entry, reason, detail, now, errors)

    patch.setattr(Endings, "give_up", give_up)


@mutation
def steps_are_kept_beyond_the_window(patch: Patch) -> None:
    original = Sequences.__init__

    def init(self: Sequences, superseded_by: object = None, steps: object = (), window_s: float = 0.0) -> None:
        original(self, superseded_by, steps, 1.2 * window_s)  # type: ignore[arg-type]

    patch.setattr(Sequences, "__init__", init)


@mutation
def the_same_step_again_is_a_step_backwards(patch: Patch) -> None:
    original = SentSteps.sent

    def sent(self: SentSteps, sent: SentStep) -> None:
        step = self._sequences.steps.get(sent.action)
        if step is not None:
            original(self, sent)
            for order, (at, known) in list(self._sent.items()):
                if at == sent.at and known == step:
                    self._sent[order] = (at, min(step + 1, len(self._sequences.names) - 1))

    patch.setattr(SentSteps, "sent", sent)
