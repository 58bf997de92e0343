"""A multiset of digests: as Counter is one, in a tenth of the memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.open_facts import OpenFacts

# So few firsts that they lie in each other's way, also around the end of the table. b"" looks like an empty slot.
FACTS = st.builds(
    lambda first, rest: first.to_bytes(8) + rest.to_bytes(4),
    st.sampled_from([0, 1, 2, 61, 62, 63, 64, 127, 128, (1 << 64) - 1]),
    st.integers(0, 3),
) | st.just(b"")


def digest(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=DIGEST_BYTES).digest()


@given(st.lists(st.tuples(st.booleans(), FACTS), max_size=200))
def test_it_knows_what_was_added_as_often_as_it_was(changes: list[tuple[bool, bytes]]) -> None:
    facts, model = OpenFacts(), Counter[bytes]()
    for is_added, fact in changes:
        # The empty slot's own bytes stand for those of 1, a digest that no event has.
        same = fact.ljust(DIGEST_BYTES, b"\0")
        same = (1).to_bytes(8) + same[8:] if same[:8] == bytes(8) else same
        if is_added:
            facts.add(fact)
            model[same] += 1
        else:
            facts.discard(fact)
            model[same] = max(0, model[same] - 1)
        assert len(facts) == model.total()
        for each, count in model.items():
            assert (each in facts) == (count > 0)


@given(st.lists(FACTS, max_size=100), st.lists(st.binary(min_size=12, max_size=12), max_size=200))
def test_many_added_at_once_are_those_added_one_by_one(before: list[bytes], facts: list[bytes]) -> None:
    at_once, one_by_one = OpenFacts(), OpenFacts()
    for each in before:
        at_once.add(each)
        one_by_one.add(each)
    at_once.extend(bytearray().join(facts))
    for each in facts:
        one_by_one.add(each)
    assert len(at_once) == len(one_by_one)
    for each in (*before, *facts):
        assert each in at_once
        at_once.discard(each)
    assert len(at_once) == 0


@pytest.mark.slow
def test_a_fact_costs_a_tenth_of_a_dicts_entry_and_nothing_once_it_ended() -> None:
    """A connection that hung with 200,000 parked actions took 150 bytes for each."""
    count = 50_000
    digests = [digest(number) for number in range(count)]
    tracemalloc.start()
    facts = OpenFacts()
    for each in digests:
        facts.add(each)
    used, _ = tracemalloc.get_traced_memory()
    assert used / count < 40
    assert all(each in facts for each in digests)
    assert digest(count) not in facts
    for each in digests:
        facts.discard(each)
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(facts) == 0
    assert left < used / 100
