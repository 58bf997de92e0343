"""Deliberate errors about events that are several actions (a route's `each`). Schedules of items notice them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from consumer.core.effects import GiveUp
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.places import MAX_ITEMS, place_of
from consumer.events import deciding
from consumer.events.deciding import Decided, Decision
from consumer.events.routing.results import Several
from consumer.kafka import records
from consumer.kafka.journal.writes import DeadLetter, Item, Put
from consumer.kafka.records import SourceEvent
from consumer.relay import outbox
from consumer.relay.outbox import Outbox
from schemas.dead_letter import ITEM
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def the_first_item_settles_the_offset_and_the_others_follow(patch: Patch) -> None:
    """They are written in the next transaction, which a crash, or a hand-over, may prevent."""
    taken, submit = Outbox._taken, Outbox.submit
    later: dict[Outbox, list[Item]] = {}

    def first_alone(
        self: Outbox, assignment: Assignment, event: SourceEvent, decision: Decided, now: float
    ) -> list[Item]:
        writes = taken(self, assignment, event, decision, now)
        puts = [write for write in writes if isinstance(write, Put)]
        if len(puts) < 2 or len(puts) != len(writes):
            return writes
        later.setdefault(self, []).extend(replace(each, with_next=False, next_offset=None) for each in puts[1:])
        return [replace(puts[0], with_next=False, next_offset=event.offset + 1)]

    def submit_and_keep(self: Outbox) -> None:
        submit(self)
        self._writes = later.pop(self, [])

    patch.setattr(Outbox, "_taken", first_alone)
    patch.setattr(Outbox, "submit", submit_and_keep)


@mutation
def items_may_be_in_transactions_of_their_own(patch: Patch) -> None:
    """One that the delay topic refuses parts them: the others are written, and the offset is not."""
    taken = Outbox._taken

    def apart(self: Outbox, assignment: Assignment, event: SourceEvent, decision: Decided, now: float) -> list[Item]:
        writes = taken(self, assignment, event, decision, now)
        return [replace(each, with_next=False) if isinstance(each, Put | DeadLetter) else each for each in writes]

    patch.setattr(Outbox, "_taken", apart)


@mutation
def items_have_the_place_of_their_event(patch: Patch) -> None:
    patch.setattr(outbox, "place_of", lambda incarnation, offset, item: place_of(incarnation, offset))


@mutation
def records_of_items_have_the_key_of_their_event(patch: Patch) -> None:
    original = records.action_key
    patch.setattr(outbox, "action_key", lambda place, route: original(place - place % MAX_ITEMS, route))


@mutation
def a_restore_takes_all_items_for_the_first(patch: Patch) -> None:
    original = records.place_of_key

    def place_of_key(key: bytes) -> int | None:
        place = original(key)
        return None if place is None else place - place % MAX_ITEMS

    patch.setattr(records, "place_of_key", place_of_key)


@mutation
def items_of_an_order_leave_the_last_one_first(patch: Patch) -> None:
    taken = Outbox._taken

    def reversed_items(
        self: Outbox, assignment: Assignment, event: SourceEvent, decision: Decided, now: float
    ) -> list[Item]:
        if isinstance(decision, Several):
            decision = Several(decision.actions[::-1])
        return taken(self, assignment, event, decision, now)

    patch.setattr(Outbox, "_taken", reversed_items)


@mutation
def a_redriven_item_brings_the_others_along(patch: Patch) -> None:
    original = deciding.decide

    def decide(event: SourceEvent, *others: Any, **named: Any) -> Decision:
        return original(replace(event, headers=[each for each in event.headers if each[0] != ITEM]), *others, **named)

    patch.setattr(outbox, "decide", decide)


@mutation
def a_dead_letter_does_not_say_for_which_item_it_is(patch: Patch) -> None:
    original = records.dead_letter_of_action

    def dead_letter_of_action(given_up: GiveUp, now: float) -> Any:
        record = original(given_up, now)
        return replace(record, headers=[each for each in record.headers if each[0] != ITEM])

    patch.setattr(outbox, "dead_letter_of_action", dead_letter_of_action)


@mutation
def only_the_first_item_of_an_event_is_accepted(patch: Patch) -> None:
    original = Ledger.accept

    def accept(self: Ledger, assignment: Assignment, place: int, *others: Any) -> Any:
        first = place - place % MAX_ITEMS
        return None if place != first and self.holds(assignment, first) else original(self, assignment, place, *others)

    patch.setattr(Ledger, "accept", accept)
