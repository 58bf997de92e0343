"""Deliberate errors in how actions are parked (core/parking.py). As in mutants.py; schedules of parking notice them."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace

from consumer.core.effects import Effect, LiveAction
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.parking import ParkedRange, ParkedRecords, Parking, ToRead
from consumer.kafka.journal.low_water_mark import LowWaterMark
from consumer.kafka.parking.live_records import Kept, LiveRecords
from consumer.kafka.parking.read_back import ParkedRecord
from consumer.relay.reading_back import ReadingBack
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def a_later_action_overtakes_a_parked_one(patch: Patch) -> None:
    def must_park(self: Parking, assignment: Assignment, connection: str, cost: int) -> bool:
        return not self.has_room(connection, cost)

    patch.setattr(Parking, "must_park", must_park)


@mutation
def parked_actions_come_back_in_the_order_of_their_commits(patch: Patch) -> None:
    def save(self: ParkedRange, place: int, offset: int, size: int) -> None:
        if self._submitted.pop(place, 1) is None:
            self.append([offset])

    patch.setattr(ParkedRange, "save", save)


@mutation
def a_restore_parks_the_earlier_ones_and_holds_the_later(patch: Patch) -> None:
    original = LiveRecords.finish

    def finish(self: LiveRecords, next_place: int, end_place: int) -> Kept:
        kept = original(self, next_place, end_place)
        parked = {
            name: ParkedRecords(offsets=array("q", reversed(each.offsets)), bytes=each.bytes, oldest=each.oldest)
            for name, each in kept.parked.items()
        }
        return replace(kept, parked=parked)

    patch.setattr(LiveRecords, "finish", finish)


@mutation
def the_mark_passes_what_was_just_parked(patch: Patch) -> None:
    original = LowWaterMark.apply

    def apply(
        self: LowWaterMark, written: Mapping[Hashable, int | None], end: int, parked: Collection[Hashable] = ()
    ) -> None:
        original(self, {key: offset for key, offset in written.items() if key not in parked}, end)

    patch.setattr(LowWaterMark, "apply", apply)


@mutation
def the_mark_passes_what_is_still_parked(patch: Patch) -> None:
    original = Parking.lowest

    def lowest(self: Parking, assignment: Assignment) -> tuple[int | None, int]:
        return None, original(self, assignment)[1]

    patch.setattr(Parking, "lowest", lowest)


@mutation
def the_mark_passes_what_was_read_back(patch: Patch) -> None:
    patch.setattr(LowWaterMark, "_oldest_returned", lambda self, written: None)


@mutation
def parked_actions_are_forgotten_by_the_next_owner(patch: Patch) -> None:
    original = LiveRecords.finish

    def finish(self: LiveRecords, next_place: int, end_place: int) -> Kept:
        return replace(original(self, next_place, end_place), parked={})

    patch.setattr(LiveRecords, "finish", finish)


@mutation
def parked_actions_are_never_read_back(patch: Patch) -> None:
    patch.setattr(ReadingBack, "look", lambda self, now: None)


@mutation
def what_was_read_back_is_dropped(patch: Patch) -> None:
    original = ReadingBack._take

    def take(self: ReadingBack, read: ToRead, records: list[ParkedRecord], now: float) -> None:
        original(self, read, records[1:], now)

    patch.setattr(ReadingBack, "_take", take)


@mutation
def the_deadline_of_a_parked_action_begins_when_it_is_read_back(patch: Patch) -> None:
    original = Ledger.take_back

    def take_back(self: Ledger, assignment: Assignment, actions: Iterable[LiveAction], now: float) -> list[Effect]:
        return original(self, assignment, [replace(each, first_seen=now) for each in actions], now)

    patch.setattr(Ledger, "take_back", take_back)


@mutation
def an_intent_that_was_read_back_counts_as_not_sent(patch: Patch) -> None:
    original = Ledger.take_back

    def take_back(self: Ledger, assignment: Assignment, actions: Iterable[LiveAction], now: float) -> list[Effect]:
        return original(self, assignment, [replace(each, sending=False) for each in actions], now)

    patch.setattr(Ledger, "take_back", take_back)
