"""Times as platforms write them: a moment, a time that needs a zone, or none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.events.times import NO_TIME, NO_ZONE, Unreadable, plausible, read_time

MOMENT = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
SECONDS = int(MOMENT.timestamp())


@pytest.mark.parametrize(
    "value",
    [
        *("2026-11-03T09:30:00Z", "2026-11-03t09:30:00z", "2026-11-03 09:30:00Z", "2026-11-03T09:30Z"),
        *("2026-11-03T10:30:00+01:00", "2026-11-03T10:30:00+0100", "2026-11-03T10:30:00+01", "2026-11-03T10:30+01:00"),
        *("2026-11-03 10:30:00 +0100", "2026-11-03 09:30:00 UTC", "2026-11-03 09:30:00 GMT", "20261103T093000Z"),
        *("2026-11-03T10:30:00+01:00[Europe/Stockholm]", "2026-11-03T10:30:00[Europe/Stockholm]"),
        *("Tue, 03 Nov 2026 09:30:00 GMT", "3 Nov 2026 10:30:00 +0100", " 2026-11-03T09:30:00Z "),
        *("2026-11-03T09:30:00,000Z", "2026-11-03T09:30:00.0000000Z", "2026-11-03T09:30:00.0000000009Z"),
        *(SECONDS, SECONDS * 10**3, SECONDS * 10**6, SECONDS * 10**9, float(SECONDS)),
        *(str(SECONDS), str(SECONDS * 10**3), str(SECONDS * 10**6), f"{SECONDS}.0"),
        *(f"/Date({SECONDS * 1000})/", f"/Date({SECONDS * 1000}+0100)/"),
        *("2026-11-03 09:30:00 +0000 UTC", "2026-11-03 10:30:00 +0100 CET", "2026-11-03T10:30:00 Europe/Stockholm"),
        "2026-11-03 10:30:00.0000001 +0100 CET m=+0.001234",
        *("20261103093000Z", "20261103103000+0100", {"_seconds": SECONDS, "_nanoseconds": 0}),
        {"date": "2026-11-03 10:30:00.000000", "timezone_type": 3, "timezone": "Europe/Stockholm"},
        {"date": "2026-11-03 10:30:00.000000", "timezone_type": 1, "timezone": "+01:00"},
        *({"seconds": SECONDS, "nanos": 0}, {"seconds": str(SECONDS)}, {"$date": "2026-11-03T09:30:00Z"}),
        *({"$date": SECONDS * 1000}, {"$date": {"$numberLong": str(SECONDS * 1000)}}),
    ],
)
def test_one_moment_in_every_form(value: object) -> None:
    assert read_time(value) == MOMENT


@pytest.mark.parametrize(
    "value",
    [
        *("2026-11-03T10:30:00", "2026-11-03 10:30:00", "2026-11-03T10:30", "20261103T103000"),
        "20261103103000",
        [2026, 11, 3, 10, 30],
        [2026, 11, 3, 10, 30, 0, 0],
    ],
)
def test_a_time_without_a_zone_is_a_moment_only_with_one(value: object) -> None:
    assert read_time(value) == NO_ZONE
    assert read_time(value, ZoneInfo("Europe/Stockholm")) == MOMENT


def test_a_date_is_midnight_in_its_zone() -> None:
    assert read_time("2026-11-03") == NO_ZONE
    assert read_time("2026-11-03", ZoneInfo("Europe/Stockholm")) == datetime(2026, 11, 2, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-03T24:00:00Z", datetime(2026, 11, 4, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2026-11-03T09:30:00.123456789Z", MOMENT + timedelta(microseconds=123456)),
        (SECONDS + 0.123, MOMENT + timedelta(milliseconds=123)),  # as a double it is a hair less
        (f"{SECONDS}.123", MOMENT + timedelta(milliseconds=123)),
    ],
)
def test_the_edges_of_a_clock(value: object, moment: datetime) -> None:
    assert read_time(value) == moment


@pytest.mark.parametrize(
    "value",
    [
        *("2026-11-03 10:30:00 CET", {"date": "2026-11-03", "timezone": "Nowhere/Land"}),  # letters are no zone
        *(None, True, "", " ", "soon", "2026-13-03T09:30:00Z", "2026-02-30T09:30:00Z", "2026-11-03T25:00:00Z"),
        *("-999999999-01-01T00:00:00Z", "99999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2026-11-03T09:30:00+99"),
        *("2026-11-03T09:30:00[Europe/Nowhere]", "2026-11-03T09:30:00[../../etc/passwd]", "9" * 10_000, "3" * 20),
        *(
            1e30,
            10**400,
            [],
            [2026],
            [2026, 11, "3"],
            [2026, 11, 31],
            {},
            {"seconds": "x"},
            {"seconds": 1.5},
            {"$date": {}},
        ),
    ],
)
def test_what_is_no_time(value: object) -> None:
    assert read_time(value) == NO_TIME


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.sampled_from("0123456789-:TZ+. []/Date()UC"), max_size=30)
    | st.lists(st.integers(-1, 3000) | st.integers(), max_size=8)
    | st.dictionaries(
        st.sampled_from(["seconds", "nanos", "$date", "$numberLong"]), st.integers() | st.text(), max_size=2
    )
)
def test_no_value_crashes_it(value: object) -> None:
    for zone in (None, ZoneInfo("Europe/Stockholm")):
        moment = read_time(value, zone)
        assert isinstance(moment, Unreadable) or moment.tzinfo is UTC


@given(st.datetimes(timezones=st.timezones()))
def test_what_a_moment_is_written_as_is_read(moment: datetime) -> None:
    read = read_time(moment.isoformat())
    assert isinstance(read, Unreadable) or read == moment.astimezone(UTC)


@pytest.mark.parametrize(
    ("moment", "record_ms", "is_plausible"),
    [
        (MOMENT, SECONDS * 1000, True),
        (MOMENT + timedelta(hours=23), SECONDS * 1000, True),
        (MOMENT + timedelta(hours=25), SECONDS * 1000, False),
        (MOMENT, None, True),
        (datetime(1999, 12, 31, tzinfo=UTC), None, False),
        (datetime(2100, 1, 2, tzinfo=UTC), None, False),
    ],
)
def test_a_time_is_plausible_beside_its_records(moment: datetime, record_ms: int | None, is_plausible: bool) -> None:
    assert plausible(moment, record_ms) is is_plausible


@given(
    st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-9]{2})",
        fullmatch=True,
    )
)
def test_rfc_3339_is_read_as_its_relatives_are(text: str) -> None:
    assert read_time(text) == read_time(text.replace("T", " "))
