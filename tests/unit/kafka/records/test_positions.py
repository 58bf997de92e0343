"""A partition's position says whose it is."""

from __future__ import annotations

import pytest

from consumer.kafka.records.positions import position_value, read_position
from consumer.kafka.records.unreadable import Unreadable
from schemas.pending_action import (
    Position,
    SourceIdentity,
)

SOURCE = SourceIdentity(group="g", cluster_id="c", topic="orders", topic_id="id-1", incarnation=2)


@pytest.mark.parametrize("source", [SOURCE, SourceIdentity(group="g", topic="orders")])
def test_a_position_says_whose_it_is(source: SourceIdentity) -> None:
    assert read_position(position_value(source, 3, 17)) == Position(next_offset=17, partition=3, source=source)


def test_a_position_says_which_outcomes_topic_it_had() -> None:
    position = Position(next_offset=17, partition=3, source=SOURCE, outcomes_topic_id="id-2")
    assert read_position(position_value(SOURCE, 3, 17, "id-2")) == position


def test_the_position_of_an_older_version_is_not_guessed_at() -> None:
    unreadable = read_position(b'{"version":1,"next_offset":17}')
    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail.startswith("version")
