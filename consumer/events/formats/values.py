"""Typed values, as Avro, Protobuf and Kafka Connect have them, in the terms of JSON.

Decimals are numbers with all their digits, bytes are base64, times are ISO 8601. A time that names no zone gets none:
the route must say which it is (`time_zone`).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from consumer.events.decoding import MAX_NESTING
from consumer.events.numbers import Number

MAX_WRITTEN_EXPONENT = 100
"""Beyond it a decimal is written with its exponent: a scale of a billion would make a billion digits."""


class TooDeepError(ValueError):
    """Nested deeper than an event may be."""


def as_json(value: object, depth: int = 0) -> object:
    """Return a typed value as JSON has it. Raises TooDeepError."""
    if value is None or type(value) in _JSON:
        return value
    if isinstance(value, dict | list):
        if depth >= MAX_NESTING:
            raise TooDeepError
        if isinstance(value, dict):
            return {str(key): as_json(inner, depth + 1) for key, inner in value.items()}
        return [as_json(inner, depth + 1) for inner in value]
    written = _TYPES.get(type(value))
    return str(value) if written is None else written(value)


_JSON = frozenset({str, int, bool})


def decimal_number(value: Decimal) -> Number | int | None:
    """Return a decimal as a number that is written with all its digits, 199.00 say. None: it is beyond a double.

    One without decimals is an integer: it may be an id (Oracle's keys are decimals).
    """
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        return None
    number = Number(format(value, "f") if abs(exponent) <= MAX_WRITTEN_EXPONENT else str(value))
    if not math.isfinite(number):
        return None
    return int(number.text) if number.text.removeprefix("-").isdigit() and number.text != "-0" else number


def base64_number(text: str, scale: int) -> Number | int | None:
    """Return a decimal whose unscaled digits are bytes in base64, as Debezium writes it. None: it is none."""
    try:
        unscaled = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return unscaled_number(unscaled, scale)


def unscaled_number(unscaled: bytes, scale: int) -> Number | int | None:
    """Return a decimal that is written as its digits (two's complement, big-endian) and where its point is."""
    if len(unscaled) > MAX_UNSCALED_BYTES or abs(scale) > MAX_SCALE:  # before any digit is made
        return None
    digits = int.from_bytes(unscaled, "big", signed=True)
    sign, magnitude = int(digits < 0), str(abs(digits))
    return decimal_number(Decimal((sign, tuple(map(int, magnitude)), -scale)))


MAX_UNSCALED_BYTES = 256  # 616 digits; the widest column of a database has 131
MAX_SCALE = 10_000


def single(value: float) -> float:
    """Return a number of single precision as its writer saw it: 199.99, not 199.99000549316406."""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= MAX_SINGLE and struct.unpack("f", struct.pack("f", short))[0] == value:
            return short
    return value


MAX_SINGLE = 3.4028235e38  # what is larger cannot be packed


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _moment(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


_TYPES: dict[type, Callable[..., object]] = {
    float: _finite,
    Number: lambda number: number,
    Decimal: decimal_number,
    bytes: lambda raw: base64.b64encode(raw).decode(),
    datetime: _moment,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: lambda span: span / timedelta(milliseconds=1),
    UUID: str,
    tuple: lambda found: [as_json(each) for each in found],
}
