"""Within the window a fact is sent once; a dead letter frees it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.ownership import Assignment
from consumer.core.repeats import Repeats

OURS, OTHER = Assignment("orders", 0, 1), Assignment("orders", 1, 1)
DAY = 86_400.0
FACT, ANOTHER = b"fact", b"another"


def repeats(*pending: bytes) -> Repeats:
    found = Repeats(DAY)
    found.assign(OURS, pending)
    found.assign(OTHER, [])
    return found


def test_a_pending_fact_is_a_repeat_however_long_it_waits() -> None:
    found = repeats(FACT)
    assert found.is_repeat(OURS, FACT, DAY, now=10 * DAY)
    assert not found.is_repeat(OURS, ANOTHER, DAY, now=0)
    assert not found.is_repeat(OTHER, FACT, DAY, now=0)


def test_the_window_counts_from_when_it_was_sent() -> None:
    found = repeats(FACT)
    found.ended(OURS, FACT, 2 * DAY, sent=True)
    assert found.is_repeat(OURS, FACT, DAY, now=3 * DAY - 1)
    assert not found.is_repeat(OURS, FACT, DAY, now=3 * DAY)
    assert not found.is_repeat(OURS, FACT, 60.0, now=2 * DAY + 60)


def test_the_window_is_as_long_as_it_is_called_to_the_fraction_of_a_second() -> None:
    found = repeats(FACT)
    found.ended(OURS, FACT, 441.001, sent=True)
    assert found.is_repeat(OURS, FACT, 100.0, now=540.999)
    assert not found.is_repeat(OURS, FACT, 100.0, now=541.101)


def test_a_dead_letter_frees_the_fact() -> None:
    found = repeats(FACT)
    found.ended(OURS, FACT, 1, sent=False)
    assert not found.is_repeat(OURS, FACT, DAY, now=1)


def test_parked_actions_that_are_gone_do_not_keep_their_facts_open_for_ever() -> None:
    found = Repeats(DAY)
    found.assign(OURS, [FACT], [bytearray(b"parked and g")])
    found.parked_are_gone(OURS, [FACT])
    assert not found.is_repeat(OURS, b"parked and g", DAY, now=1)
    assert found.is_repeat(OURS, FACT, DAY, now=1)


def test_a_redriven_one_that_fails_does_not_free_what_was_sent_before() -> None:
    found = repeats(FACT)
    found.ended(OURS, FACT, 1, sent=True)
    found.opened(OURS, FACT)
    found.ended(OURS, FACT, 2, sent=False)
    assert found.is_repeat(OURS, FACT, DAY, now=3)


def test_what_was_read_back_is_known_and_never_hides_something_newer() -> None:
    found = repeats(FACT)
    found.ended(OURS, FACT, 100, sent=True)
    found.restore(OURS, [(FACT, 50), (ANOTHER, 60), (ANOTHER, 40)])
    assert found.is_repeat(OURS, FACT, 10, now=109)
    assert found.is_repeat(OURS, ANOTHER, 10, now=69)
    assert not found.is_repeat(OURS, ANOTHER, 10, now=70)


def test_a_partition_that_is_gone_is_forgotten() -> None:
    found = repeats(FACT)
    found.drop(OURS)
    found.opened(OURS, FACT)
    found.ended(OURS, FACT, 1, sent=True)
    found.restore(OURS, [(FACT, 1)])
    assert len(found) == 0
    assert not found.is_repeat(OURS, FACT, DAY, now=0)


@given(st.lists(st.tuples(st.sampled_from([FACT, ANOTHER, b"third"]), st.floats(0, 2 * DAY)), max_size=50))
def test_memory_is_bounded_by_the_window(ends: list[tuple[bytes, float]]) -> None:
    found = repeats()
    now = 0.0
    for fact, waited in ends:
        now += waited
        found.opened(OURS, fact)
        found.ended(OURS, fact, now, sent=True)
        assert len(found) == sum(found.is_repeat(OURS, each, DAY, now) for each in (FACT, ANOTHER, b"third"))


def test_what_waits_parked_is_a_repeat_until_it_ended() -> None:
    parked = b"a fact that is parked"[:DIGEST_BYTES]
    found = Repeats(DAY)
    found.assign(OURS, [FACT], [bytearray(parked)])
    assert found.is_repeat(OURS, FACT, DAY, now=0)
    assert found.is_repeat(OURS, parked, DAY, now=10 * DAY)
    found.ended(OURS, parked, 10 * DAY, sent=False)
    assert not found.is_repeat(OURS, parked, DAY, now=10 * DAY)
