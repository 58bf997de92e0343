"""Deliberate errors about another group's relay beside this one: the rules of neighbour.py."""

from __future__ import annotations

from collections.abc import Collection

from consumer.events import deciding
from consumer.events.deciding import Headers, redrive_of
from consumer.kafka.identity import identity
from schemas.pending_action import SourceIdentity
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def the_group_that_a_position_record_names_is_not_compared(patch: Patch) -> None:
    original = identity.differences

    def differences(recorded: SourceIdentity, present: SourceIdentity) -> list[str]:
        return original(recorded, present.model_copy(update={"group": recorded.group}))

    patch.setattr(identity, "differences", differences)


@mutation
def what_another_relays_dead_letters_redrove_is_taken(patch: Patch) -> None:
    patch.setattr(deciding, "redriven_elsewhere", lambda *_: False)


@mutation
def what_its_own_dead_letters_redrove_is_ignored_too(patch: Patch) -> None:
    patch.setattr(deciding, "redriven_elsewhere", lambda headers, _: redrive_of(headers) is not None)


@mutation
def dead_letter_topics_are_told_apart_by_how_their_names_begin(patch: Patch) -> None:
    def elsewhere(headers: Headers, dead_letter_topics: Collection[str]) -> bool:
        named = redrive_of(headers)
        return named is not None and not named.startswith(tuple(each.encode() for each in dead_letter_topics))

    patch.setattr(deciding, "redriven_elsewhere", elsewhere)
