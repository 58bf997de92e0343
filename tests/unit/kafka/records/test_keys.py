"""The key of an action names its place, and no other key names one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.places import MAX_OFFSET, incarnation_at, item_at, offset_at, place_of
from consumer.kafka.records.keys import action_key, place_of_key
from tests.unit.kafka.records.samples import TEXT


@given(st.integers(0, 1000), st.integers(0, MAX_OFFSET - 1), TEXT)
def test_a_key_names_its_place(incarnation: int, offset: int, route: str) -> None:
    place = place_of(incarnation, offset)
    assert place_of_key(action_key(place, route)) == place
    assert (incarnation_at(place), offset_at(place)) == (incarnation, offset)


@pytest.mark.parametrize("item", [0, 1, 4095])
def test_the_items_of_an_event_have_places_and_keys_of_their_own(item: int) -> None:
    place = place_of(1, 17, item)
    assert (incarnation_at(place), offset_at(place), item_at(place)) == (1, 17, item)
    assert action_key(place, "sent:x") == (b"1:17.%d:sent:x" % item if item else b"1:17:sent:x")
    assert place_of_key(action_key(place, "sent:x")) == place
    assert place_of(1, 17, item) < place_of(1, 18)


@given(st.integers(0, 50), st.integers(0, MAX_OFFSET - 1), st.integers(0, MAX_OFFSET - 1))
def test_every_event_of_a_former_topic_comes_before_those_of_the_present_one(n: int, one: int, other: int) -> None:
    assert place_of(n, one) < place_of(n + 1, other)


@given(st.binary(max_size=12))
def test_any_other_key_names_none(key: bytes) -> None:
    place = place_of_key(key)
    assert place is None or [*map(int, key.split(b":", 2)[:2])] == [incarnation_at(place), offset_at(place)]


@pytest.mark.parametrize("key", [b"17:shipped", b"17:5", b"position", b":1:shipped", b"1::shipped", b"-1:2:shipped"])
def test_the_key_of_an_older_version_names_none(key: bytes) -> None:
    assert place_of_key(key) is None
