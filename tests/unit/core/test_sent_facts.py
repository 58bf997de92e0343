"""When each fact was sent: as a dict knows it, in less than half of the memory."""

from __future__ import annotations

import tracemalloc
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.sent_facts import MOST_AT_ONCE, SentFacts

WINDOW_S = 100.0
FACTS = [blake2b(bytes([n]), digest_size=DIGEST_BYTES).digest() for n in range(5)]


@given(
    st.lists(st.tuples(st.sampled_from(FACTS), st.floats(0, 1000)), max_size=20),
    st.lists(st.tuples(st.sampled_from(FACTS), st.floats(0, 150)), max_size=60),
)
def test_it_knows_when_each_was_sent_last_within_the_window(
    before: list[tuple[bytes, float]], sendings: list[tuple[bytes, float]]
) -> None:
    facts, model, now = SentFacts(WINDOW_S, before), dict[bytes, float](), 1000.0
    for fact, at in sorted(before, key=lambda each: each[1]):
        model[fact] = at
    for fact, waited in sendings:
        now += waited
        facts.sent(fact, now)
        model[fact] = now
        model = {each: at for each, at in model.items() if now - at < WINDOW_S}
        assert {each: facts.sent_at(each) for each in FACTS} == {each: model.get(each) for each in FACTS}
        assert len(facts) == len(model)
        assert dict(facts) == model


def test_a_fact_that_was_sent_again_is_known_from_then_on() -> None:
    facts = SentFacts(WINDOW_S)
    facts.sent(FACTS[0], 0.0)
    facts.sent(FACTS[0], 60.0)
    facts.sent(FACTS[1], 120.0)
    assert facts.sent_at(FACTS[0]) == 60
    assert list(facts) == [(FACTS[0], 60), (FACTS[1], 120)]


@pytest.mark.slow
def test_a_fact_costs_less_than_half_of_a_dicts_entry_and_nothing_once_it_is_old() -> None:
    """At the recommended rate limit a day's facts took 370 MB: more than the chart's memory limit leaves."""
    count = 100_000
    digests = [blake2b(str(n).encode(), digest_size=DIGEST_BYTES).digest() for n in range(count)]
    tracemalloc.start()
    facts = SentFacts(WINDOW_S)
    for each in digests:
        facts.sent(each, 1.0)
    held = tracemalloc.get_traced_memory()[0]
    for _ in range(count // MOST_AT_ONCE + 1):
        facts.sent(digests[0], 1000.0)
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / count < 80
    assert left < held / 50
    assert len(facts) == 1
