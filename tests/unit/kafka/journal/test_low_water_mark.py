"""From where a restart must read: never behind a live record's back."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka.journal.low_water_mark import PINNING, LowWaterMark


def test_the_mark_is_the_oldest_live_record() -> None:
    mark = LowWaterMark([("b", 20), ("a", 10)], end=30)
    assert mark.after({}, 30) == 10


def test_without_a_live_record_the_mark_is_the_end() -> None:
    assert LowWaterMark().after({}, 0) == 0
    assert LowWaterMark(end=30).after({}, 31) == 31


def test_a_tombstone_moves_the_mark_to_the_next_live_record() -> None:
    mark = LowWaterMark([("a", 10), ("b", 20)], end=30)
    assert mark.after({"a": None}, 31) == 20


def test_a_record_that_is_written_again_counts_where_it_lies_now() -> None:
    mark = LowWaterMark([("a", 10), ("b", 20)], end=30)
    assert mark.after({"a": 30}, 31) == 20
    mark.apply({"a": 30}, 31)
    assert mark.after({"b": None}, 32) == 30


def test_what_a_transaction_writes_itself_holds_the_mark() -> None:
    mark = LowWaterMark([("a", 10)], end=30)
    assert mark.after({"a": None, "b": 31, "c": 30}, 33) == 30


def test_a_transaction_that_came_to_nothing_leaves_no_trace() -> None:
    mark = LowWaterMark([("a", 10), ("b", 20)], end=30)
    assert mark.after({"a": None, "b": None}, 32) == 32
    assert mark.after({}, 33) == 10


def test_an_old_record_that_pins_the_mark_far_behind_is_to_be_written_again() -> None:
    mark = LowWaterMark([("old", 0)], end=1)
    mark.apply({"young": PINNING.span}, PINNING.span)
    assert mark.pinned() == []
    mark.apply({}, PINNING.span + 1)
    assert mark.pinned() == ["old", "young"]
    mark.apply({"old": PINNING.span + 1}, PINNING.span + 2)
    assert mark.pinned() == []


def test_many_live_records_may_span_eight_times_their_number() -> None:
    live = {number: number for number in range(PINNING.span)}
    mark = LowWaterMark(live.items(), end=8 * PINNING.span)
    assert mark.pinned() == []
    mark.apply({}, 8 * PINNING.span + 1)
    assert mark.pinned() == list(range(PINNING.rewrites))


writes = st.dictionaries(st.integers(0, 8), st.booleans(), max_size=5)


@given(st.lists(st.tuples(writes, st.booleans()), max_size=30))
def test_the_mark_is_always_the_oldest_live_record_whatever_was_committed(
    transactions: list[tuple[dict[int, bool], bool]],
) -> None:
    mark, live, end = LowWaterMark(), dict[Hashable, int](), 0
    for wanted, committed in transactions:
        written: dict[Hashable, int | None] = {}
        for key, is_live in wanted.items():
            written[key] = end if is_live else None
            end += 1
        after = {k: at for k, at in {**live, **written}.items() if at is not None}
        assert mark.after(written, end) == min(after.values(), default=end)
        if committed:
            mark.apply(written, end)
            live = after
        assert mark.after({}, end) == min(live.values(), default=end)


def test_a_parked_record_holds_the_mark_until_it_was_read_back_and_ended() -> None:
    mark = LowWaterMark(end=10)
    mark.apply({"p": 10, "q": 11, "a": 12}, 13, parked={"p", "q"})
    assert mark.after({"a": None}, 14) == 10
    mark.unparked([("p", 10)], parked_from=11, known=11)
    assert mark.after({}, 14) == 10
    assert mark.after({"p": None}, 14) == 11
    mark.apply({"p": None}, 14)
    mark.unparked([("q", 11)], parked_from=None, known=11)
    assert mark.after({"a": None}, 15) == 11
    mark.apply({"q": 15, "a": None}, 16)
    assert mark.after({}, 16) == 15


def test_what_was_parked_and_is_not_yet_known_holds_the_mark() -> None:
    mark = LowWaterMark(end=10)
    mark.apply({"p": 10}, 11, parked={"p"})
    mark.apply({"q": 11}, 12, parked={"q"})
    mark.unparked([("p", 10)], parked_from=None, known=10)
    assert mark.after({"p": None}, 12) == 11


def test_what_a_restore_left_parked_holds_the_mark() -> None:
    mark = LowWaterMark([("a", 20)], end=30, parked_from=15)
    assert mark.after({}, 30) == 15
    mark.unparked([("p", 15)], parked_from=18, known=25)
    assert mark.after({"p": None}, 31) == 18


def test_a_transaction_that_ended_what_was_read_back_and_came_to_nothing_leaves_no_trace() -> None:
    mark = LowWaterMark(end=30, parked_from=15)
    mark.unparked([("p", 15), ("q", 16)], parked_from=None, known=25)
    assert mark.after({"p": None}, 31) == 16
    assert mark.after({"q": None}, 31) == 15


def test_no_record_is_written_again_where_a_parked_one_holds_the_mark() -> None:
    mark = LowWaterMark([("a", 20)], end=30, parked_from=15)
    mark.apply({"b": 15 + PINNING.span + 30}, 15 + PINNING.span + 31)
    assert mark.pinned() == []
    mark.unparked([("p", 15)], parked_from=None, known=25)
    assert mark.pinned() == ["p", "a", "b"]
