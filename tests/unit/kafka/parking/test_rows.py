"""The rows of a restore's records: which of them are live, and whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.places import MAX_ITEMS, MAX_OFFSET, place_of
from consumer.kafka.parking import rows
from consumer.kafka.parking.rows import Rows
from consumer.kafka.records.keys import action_key, place_of_key

KEYS = st.builds(
    lambda incarnation, offset, item, route: action_key(place_of(incarnation, offset, item), route),
    st.sampled_from([0, 1, 7]),
    st.one_of(st.integers(0, 5), st.integers(0, MAX_OFFSET - 1)),
    st.sampled_from([0, 1, MAX_ITEMS - 1]),
    st.sampled_from(["r", "other", "with:colon", "\n", ""]),
)


@given(KEYS)
def test_a_row_knows_its_key_and_its_place(key: bytes) -> None:
    of = Rows()
    name = of.name(key)
    assert name is not None
    of.add(name, 1, 2, 3, is_intent=False, fact=None)
    assert [(place, [of.key(row) for row in live]) for place, live in of.live()] == [(place_of_key(key), [key])]


@pytest.mark.parametrize(
    "key", [b"", b"odd", b"0:1", b"00:1:r", b"0:01:r", b"0:1.0:r", b"0:1.4096:r", b"0:%d:r" % (1 << 63)]
)
def test_a_key_that_is_not_written_as_ours_are_has_no_row(key: bytes) -> None:
    assert Rows().name(key) is None


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["r", "s"]), st.booleans(), st.booleans()), max_size=80))
def test_the_latest_row_of_a_key_wins_whenever_the_others_were_forgotten(
    written: list[tuple[int, str, bool, bool]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_MIN_SETTLED", 5)
        of, expected = Rows(), dict[bytes, tuple[int, bool]]()
        for at, (offset, route, is_live, is_intent) in enumerate(written):
            key = action_key(place_of(0, offset), route)
            name = of.name(key)
            assert name is not None
            if is_live:
                of.add(name, at, 10 + at, 1, is_intent=is_intent, fact=b"%012d" % at if at % 2 else None)
                expected[key] = at, is_intent
            else:
                of.end(name)
                expected.pop(key, None)
    live = [row for _, those in of.live() for row in those]
    assert {of.key(row): (of.offsets[row], of.is_intent(row)) for row in live} == expected
    assert [of.sizes[row] for row in live] == [10 + of.offsets[row] for row in live]
    assert [of.connection(row) for row in live] == [1] * len(live)
    assert of.facts(live) == b"".join(b"%012d" % of.offsets[row] for row in live if of.offsets[row] % 2)


@pytest.mark.slow
def test_rows_that_are_live_no_more_take_no_memory_for_good() -> None:
    """The space between the low-water mark and the end holds a dozen records of each action."""
    of = Rows()
    for at in range(rows._MIN_SETTLED * 3):
        name = of.name(b"0:%d:r" % (at // 2))
        assert name is not None
        if at % 2:
            of.end(name)
        else:
            of.add(name, at, 1, 0, is_intent=False, fact=None)
    assert len(of.offsets) <= rows._MIN_SETTLED
    assert list(of.live()) == []
