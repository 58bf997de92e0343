"""The one reader of times: what platforms write for a moment, as a moment, or that it is none.

A text may be RFC 3339 or one of its relatives (no seconds, a comma, seven or nine digits, `+0100`, a zone's name in
brackets or behind a space, ISO 8601's basic form, also without its T), an e-mail's date, .NET's `/Date(…)/`, or a
number in quotes. A number counts seconds, milliseconds, microseconds or nanoseconds since 1970: its size tells which.
Protobuf's `{seconds, nanos}`, Firestore's and PHP's objects, and Java's `[year, month, day, hour, minute, second,
nanosecond]` are moments, too.

Rules:
 1. A time without a zone is no moment yet. It becomes one by the zone that the route names, and nothing guesses it.
 2. A time that only measures is checked against its record's own time: a date of 1970 or of the year 55535 is a unit
    that was read wrongly, or a default that nobody set. So is such a record's time: then the record has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
_DAY_MS = 86_400_000
EARLIEST_PLAUSIBLE_MS = 946_684_800_000
"""2000-01-01: before it a unit was read wrongly, or the time was never set."""
MAX_AHEAD_MS = _DAY_MS
"""How far an event's time may lie after its record's: clocks differ, but not by days."""
LATEST_PLAUSIBLE_MS = 4_102_444_800_000
"""2100-01-01: where the record has no time to compare with."""

Unit = Literal["s", "ms", "us", "ns", "d"]
NANOSECONDS: dict[str, int] = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "d": 86_400 * 10**9}
# Up to which size a number counts this unit. 2e10 seconds are the year 2603; as milliseconds they are August 1970.
_UNITS_BY_SIZE: tuple[tuple[float, Unit], ...] = ((2e10, "s"), (2e13, "ms"), (2e16, "us"), (2e19, "ns"))

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONE = r"(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?(?::?[0-9]{2})?)?"
_ISO = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:(?:[Tt]| )(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?)?"
    # Go's own form has the zone's letters behind its offset, `+0100 CET`,
    # and how long the machine was up, `m=+0.01`.
    rf" ?{_ZONE}(?:(?<=[+-][0-9]{{4}}) [A-Z]{{3,4}}(?: m=[+-][0-9.]+)?)?"
    r"(?:(?:\[| (?=[A-Za-z]+/))(?P<name>[A-Za-z][A-Za-z0-9_+/-]*)\]?)?",
    re.ASCII,
)
# RFC 3339, as most platforms write it: for this, Python's own reader says the same, in a third of the time.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT[0-2]\d:\d\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-][0-2]\d:[0-5]\d)", re.ASCII)
_BASIC = re.compile(
    r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
    r"[Tt]?(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?:(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    rf" ?{_ZONE}(?P<name>(?!))?",
    re.ASCII,
)
_MAIL = re.compile(
    r"(?:[A-Za-z]{3}, )?(?P<day>[0-9]{1,2}) (?P<month>[A-Za-z]{3}) (?P<year>[0-9]{4})"
    r" (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<fraction>(?!))?)?"
    rf" ?{_ZONE}(?P<name>(?!))?",
    re.ASCII,
)
_FORMS = (_ISO, _BASIC, _MAIL)
_DOTNET = re.compile(r"/Date\((-?[0-9]{1,19})(?:[+-][0-9]{4})?\)/")
_COUNT = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,30})?")
MAX_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a value is no moment; the text follows "gave a text that"."""

    why: str


NO_TIME = Unreadable("is not a time")
NO_ZONE = Unreadable("is a time without a zone: name its zone with `time_zone` in the route")


def read_time(value: object, zone: tzinfo | None = None, unit: Unit | None = None) -> datetime | Unreadable:
    """Read a moment, in UTC; `zone` is that of a time which names none, `unit` that of a number. Never raises."""
    try:
        match value:
            case bool():
                return NO_TIME
            case int() | float():
                return _counted(value, unit)
            case str():
                return _read_text(value, zone, unit)
            case dict():
                return _read_object(value, zone)
            case list():
                return _read_list(value, zone)
    except (ValueError, ArithmeticError):
        # No such day or hour; or in UTC it lies before year 1, or after 9999.
        return NO_TIME
    return NO_TIME


def plausible(moment: datetime, record_ms: int | None) -> bool:
    """Tell whether an event may have this time, by its record's (milliseconds since 1970)."""
    latest = LATEST_PLAUSIBLE_MS if record_ms is None else record_ms + MAX_AHEAD_MS
    return EARLIEST_PLAUSIBLE_MS <= milliseconds(moment) <= latest


def plausible_ms(record_ms: int | None) -> int | None:
    """Return a record's time, which its producer sets; None where it has none, or none that can be meant."""
    if record_ms is None or not EARLIEST_PLAUSIBLE_MS <= record_ms <= LATEST_PLAUSIBLE_MS:
        return None
    return record_ms


def milliseconds(moment: datetime) -> int:
    """Return milliseconds since 1970 (UTC), rounded down."""
    return (moment - EPOCH) // MILLISECOND


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo | None:
    """Return a time zone by its name in the IANA database; None where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a name; a folder of the database
        return None


def _counted(count: float, unit: Unit | None) -> datetime | Unreadable:
    if not math.isfinite(count):
        return NO_TIME
    unit = unit or next((name for most, name in _UNITS_BY_SIZE if abs(count) <= most), None)
    if unit is None:
        return NO_TIME
    if isinstance(count, int):
        return EPOCH + timedelta(microseconds=count * NANOSECONDS[unit] // 1000)
    # A double of this size is a hair off: rounded down, .123 seconds would be .122999.
    return EPOCH + timedelta(microseconds=round(count * NANOSECONDS[unit] / 1000))


def _read_text(text: str, zone: tzinfo | None, unit: Unit | None) -> datetime | Unreadable:
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        return NO_TIME
    if _RFC_3339.fullmatch(text) is not None and text[11:13] != "24":
        return datetime.fromisoformat(text).astimezone(UTC)
    for form in _FORMS:
        if (match := form.fullmatch(text)) is not None:
            return _read_match(match, zone)
    if (match := _DOTNET.fullmatch(text)) is not None:
        return _counted(int(match[1]), "ms")
    if _COUNT.fullmatch(text):
        return _counted(float(text) if "." in text else int(text), unit)
    return NO_TIME


def _read_match(match: re.Match[str], zone: tzinfo | None) -> datetime | Unreadable:
    month = match["month"]
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    # Midnight may be written as the end of a day, and a leap second is the second after 59.
    midnight = hour == 24 and minute == second == 0
    leap = second == 60
    local = (
        datetime(  # noqa: DTZ001 - its zone follows
            int(match["year"]),
            int(month) if month.isdigit() else _MONTHS.index(month.lower()) + 1,
            int(match["day"]),
            0 if midnight else hour,
            minute,
            59 if leap else second,
            int((match["fraction"] or "")[:6].ljust(6, "0")),
        )
        + timedelta(days=int(midnight), seconds=int(leap))
    )
    its_own = _zone(match["zone"], match["name"])
    return its_own if isinstance(its_own, Unreadable) else _placed(local, its_own or zone)


def _zone(offset: str | None, name: str | None) -> tzinfo | Unreadable | None:
    if offset is None:
        return None if name is None else zone_of(name) or NO_TIME
    if offset[0] not in "+-":
        return UTC
    hours, minutes, seconds = (int(part or 0) for part in (offset[1:3], *_pairs(offset[3:].replace(":", ""))))
    span = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(-span if offset[0] == "-" else span)


def _pairs(digits: str) -> tuple[str, str]:
    return digits[:2], digits[2:4]


def _placed(local: datetime, zone: tzinfo | None) -> datetime | Unreadable:
    return NO_ZONE if zone is None else local.replace(tzinfo=zone).astimezone(UTC)


def _read_object(value: dict[str, object], zone: tzinfo | None) -> datetime | Unreadable:
    if "$date" in value:  # MongoDB's
        return read_time(value["$date"], zone, "ms" if isinstance(value["$date"], int) else None)
    if isinstance(value.get("$numberLong"), str):
        return _counted(int(str(value["$numberLong"])), "ms")
    if isinstance(value.get("timezone"), str) and isinstance(value.get("date"), str):  # PHP's
        return read_time(f"{value['date']} {value['timezone']}", zone)
    seconds = value.get("seconds", value.get("_seconds"))  # Protobuf's; Firestore's
    nanoseconds = value.get("nanos", value.get("_nanoseconds", 0))
    if isinstance(seconds, str) and _COUNT.fullmatch(seconds):
        seconds = int(seconds)  # Protobuf's JSON writes 64 bits in quotes
    if not (_is_integer(seconds) and _is_integer(nanoseconds)):
        return NO_TIME
    return _counted(int(str(seconds)) * 10**9 + int(str(nanoseconds)), "ns")


def _read_list(value: Sequence[object], zone: tzinfo | None) -> datetime | Unreadable:
    if not (3 <= len(value) <= 7 and all(map(_is_integer, value))):
        return NO_TIME
    year, month, day, hour, minute, second, nanosecond = (int(str(part)) for part in [*value, 0, 0, 0, 0][:7])
    local = datetime(year, month, day, hour, minute, second, nanosecond // 1000)  # noqa: DTZ001 - its zone follows
    return _placed(local, zone)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
