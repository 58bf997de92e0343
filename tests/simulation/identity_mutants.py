"""Deliberate errors about whose offsets these are (consumer/kafka/identity): rule 14 of the oracle."""

from __future__ import annotations

import consumer.kafka.restore.restored
from consumer.core.places import place_of
from consumer.kafka.identity import adoption
from consumer.kafka.identity.adoption import AdoptFrom
from consumer.kafka.source import membership
from consumer.kafka.source.membership import Membership
from consumer.relay import outbox
from schemas.pending_action import SourceIdentity
from tests.simulation.mutants import Mutation, Patch, noting_in

ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)


@mutation
def what_has_just_come_is_taken_for_the_sources_without_a_look(patch: Patch) -> None:
    def is_news(self: Membership, record: object) -> bool:
        return False

    patch.setattr(Membership, "_is_news", is_news)


@mutation
def an_actions_key_does_not_say_of_which_topic_its_offset_is(patch: Patch) -> None:
    patch.setattr(outbox, "place_of", lambda _, offset, item=0: place_of(0, offset, item))


@mutation
def a_restore_takes_what_a_former_topic_left_for_what_comes_again(patch: Patch) -> None:
    """Its event lies at an offset that is still to be read, so its record goes."""
    patch.setattr(consumer.kafka.restore.restored, "place_of", lambda _, offset: place_of(0, offset))


@mutation
def an_adopted_source_keeps_the_incarnation_of_the_former_one(patch: Patch) -> None:
    original = adoption._adopted

    def adopted(
        recorded: SourceIdentity, present: SourceIdentity, start: AdoptFrom, delay_count: int, count: int
    ) -> SourceIdentity:
        found = original(recorded, present, start, delay_count, count)
        return found.model_copy(update={"incarnation": recorded.incarnation})

    patch.setattr(adoption, "_adopted", adopted)


@mutation
def an_event_does_not_say_of_which_topic_its_offset_is(patch: Patch) -> None:
    original = membership.event_of
    patch.setattr(membership, "event_of", lambda record, at, offset, _=0: original(record, at, offset))
