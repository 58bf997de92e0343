"""Figures are written as people say them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.admin.status import ages
from consumer.admin.words import age_label, connections_in_brief, duration, number, rate
from consumer.telemetry.snapshot import ConnectionFigures, Snapshot
from tests.unit.admin.told import NOW, told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"),
        (0, "0 s"),
        (0.035, "35 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (2.44, "2.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (761, "12 min"),
        (7500, "2 h 5 min"),
        (62_000, "17 h"),
        (187_200, "2 d 4 h"),
        (86_400 * 30, "30 d"),
    ],
)
def test_a_duration_is_written_as_people_say_it(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e8))
def test_a_written_duration_is_near_the_true_one(seconds: float) -> None:
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}
    words = duration(seconds).split()
    written = sum(float(count) * units[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(written - seconds) <= max(0.001, 0.1 * seconds)


def test_numbers_have_as_many_digits_as_they_are_worth() -> None:
    assert [number(each) for each in (0, 0.5, 12, 123.4, 1234)] == ["0", "0.5", "12", "123", "1,234"]
    assert [rate(each) for each in (0, 0.42, 12, 99.96, 1234)] == ["0", "0.4", "12.0", "100", "1,234"]


def test_every_age_has_a_name() -> None:
    counted = ages({}, NOW)
    assert [age_label(counted, index) for index in range(len(counted))] == [
        "under 1 min",
        "1 min to 5 min",
        "5 min to 15 min",
        "15 min to 1 h",
        "1 h to 6 h",
        "6 h to 1 d",
        "1 d and older",
    ]


def test_many_connections_are_told_in_a_few_words() -> None:
    refused = ConnectionFigures(suspended=True)
    many = {f"shop-{number}": refused if number < 7 else ConnectionFigures() for number in range(1000)}
    assert connections_in_brief(told(Snapshot(at=NOW, connections=many))) == (
        "993 open, shop-0 suspended, shop-1 suspended, shop-2 suspended, shop-3 suspended, shop-4 suspended, "
        "2 more in trouble"
    )
    assert connections_in_brief(told(Snapshot(at=NOW, connections={"acme": ConnectionFigures()}))) == "1 open"
