"""A duration is a number with its unit, or of seconds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.events.durations import seconds


@pytest.mark.parametrize(
    ("written", "s"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("2m", 120),
        ("24h", 86_400),
        ("1d", 86_400),
        ("1.5s", 1.5),
        ("1m30s", 90),
        ("1h2m3s", 3723),
        ("1d12h", 129_600),
        ("2s500ms", 2.5),
        ("7", 7),
        (7, 7),
        (0, 0),
    ],
)
def test_a_duration_is_a_number_with_its_unit_or_of_seconds(written: object, s: float) -> None:
    assert seconds(written) == pytest.approx(s)


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none() | st.from_regex(r"\d+[dhms]+"))
@example("10 s")
@example("-1s")
@example("1e3")
@example("1m30")
@example("1m 30s")
@example("m")
@example(float("nan"))
@example("9" * 400 + "d")
@example(10**400)
def test_a_duration_is_bounded_or_refused(written: object) -> None:
    try:
        s = seconds(written)
    except ValueError:
        return
    assert 0 <= s <= 365 * 86_400
