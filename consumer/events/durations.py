"""Durations as a user writes them: `500ms`, `10s`, `2m`, `1m30s`, `24h`, `1d`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MAX_SECONDS = 365 * UNITS_S["d"]
_PART = r"[0-9]+(?:\.[0-9]+)?"
_UNIT = "ms|s|m|h|d"
_DURATION = re.compile(f"{_PART}|(?:{_PART}(?:{_UNIT}))+")
_PARTS = re.compile(f"({_PART})({_UNIT})")
OFF: Literal["off"] = "off"


def seconds(value: object) -> float:
    """Read a duration: `500ms`, `10s`, `2m`, `1m30s`, `24h`, `1d`; a plain number is seconds. Raises ValueError."""
    found: float = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and _DURATION.fullmatch(text := value.strip()):
        parts = _PARTS.findall(text)
        found = sum(float(number) * UNITS_S[unit] for number, unit in parts) if parts else float(text)
    if not found >= 0:
        raise ValueError("must be a duration: 500ms, 10s, 2m, 1m30s, 24h or 1d (a plain number is seconds)")
    if found > MAX_SECONDS:
        raise ValueError("must be at most 365d")
    return float(found)


def positive(value: float) -> float:
    """Refuse a duration of nothing. Raises ValueError."""
    if value <= 0:
        raise ValueError("must be longer than 0s")
    return value


def _or_off(value: object) -> object:
    """Read a duration or `off`, which YAML 1.1 (Helm's) reads as false."""
    return OFF if value is False or value == OFF else positive(seconds(value))


AS_DURATION = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^(?:{_DURATION.pattern})$"}]
Seconds = Annotated[float, BeforeValidator(seconds), WithJsonSchema({"anyOf": AS_DURATION})]
PositiveSeconds = Annotated[Seconds, AfterValidator(positive)]
SecondsOrOff = Annotated[
    float | Literal["off"],
    BeforeValidator(_or_off),
    WithJsonSchema({"anyOf": [{"const": OFF}, {"const": False}, *AS_DURATION]}),
]


def written(duration_s: float) -> str:
    """Write a duration with its largest unit that divides it: `1d`, `36h`, `90s`, `1.5s`."""
    for unit in ("d", "h", "m", "s"):
        if duration_s >= UNITS_S[unit] and duration_s % UNITS_S[unit] == 0:
            return f"{duration_s / UNITS_S[unit]:.0f}{unit}"
    return f"{duration_s:g}s"
