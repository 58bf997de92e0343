"""Functions that expressions have beside JMESPath's own: texts, JSON in texts, tables, times.

A null argument gives null, as a field does that is not there. So does a blank text where JSON, base64, a number or a
time is to be read from it: many programs write what is not there so. What cannot be done raises `FunctionError`.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar, cast

from jmespath.functions import Functions, signature
from pydantic_core import SchemaError, SchemaValidator, core_schema

from consumer.events.decoding import Undecodable, decode, kind
from consumer.events.formats.values import base64_number, decimal_number
from consumer.events.numbers import Number, read_exactly, written
from consumer.events.times import NANOSECONDS, Unit, Unreadable, read_time, zone_of

F = TypeVar("F", bound=Callable[..., object])

TEXT_ARGUMENTS = {
    "contains": (1,),
    "ends_with": (1,),
    "join": (0,),
    "lookup": (0,),
    "match": (1,),
    "replace": (1, 2),
    "split": (1,),
    "starts_with": (1,),
}
"""Which arguments are meant to be texts, by function."""
LITERAL_ARGUMENTS = {"lookup": (0,), "match": (1,), "time": (1, 2)}
"""Which arguments must be texts in the expression itself, so that they are checked when it is compiled."""


class FunctionError(ValueError):
    """A function cannot do what it was asked; the text names it, and holds no contents."""


def _takes(*types: str) -> Callable[[F], F]:
    """Declare a function's arguments, each of which may be null."""
    declared = [{"types": [*each.split("|"), "null"]} for each in types]
    return cast("Callable[[F], F]", cast("Any", signature)(*declared))


def _takes_anything(*, several: bool = False) -> Callable[[F], F]:
    argument = {"types": [], "variadic": True} if several else {"types": []}
    return cast("Callable[[F], F]", cast("Any", signature)(argument))


def _takes_numbers() -> Callable[[F], F]:
    """Declare a list of numbers as the only argument."""
    return cast("Callable[[F], F]", cast("Any", signature)({"types": ["array-number"]}))


class RouteFunctions(Functions):
    """JMESPath's functions and those for routes, by the library's own way to add some."""

    @_takes("string", "string")
    def _func_split(self, text: str | None, separator: str | None) -> list[str] | None:
        if not separator:
            raise FunctionError("split() needs a separator")
        return None if text is None else text.split(separator)

    @_takes("string", "string", "string")
    def _func_replace(self, text: str | None, old: str | None, new: str | None) -> str | None:
        return None if text is None or old is None or new is None else text.replace(old, new)

    @_takes("string")
    def _func_trim(self, text: str | None) -> str | None:
        return None if text is None else text.strip()

    @_takes("string")
    def _func_lower(self, text: str | None) -> str | None:
        return None if text is None else text.lower()

    @_takes("string")
    def _func_upper(self, text: str | None) -> str | None:
        return None if text is None else text.upper()

    @_takes("string", "string")
    def _func_match(self, text: str | None, pattern: str | None) -> bool:
        return text is not None and _matches(str(pattern), text)

    @_takes_anything()
    def _func_json(self, text: object) -> object:
        if not isinstance(text, str):
            return text
        if not text.strip():
            return None
        parsed = decode(text.encode())
        if isinstance(parsed, Undecodable):
            raise FunctionError("json() was given a text that is not JSON")
        return parsed

    @_takes("string|number")
    def _func_number(self, value: str | float | None) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        if (number := _number_in(value)) is None or not math.isfinite(number):
            raise FunctionError("number() was given a text that is not a number")
        return number

    @_takes_numbers()
    def _func_sum(self, numbers: list[float]) -> Number | int | None:
        return decimal_number(sum((Decimal(written(each).decode()) for each in numbers), Decimal(0)))

    @_takes("string")
    def _func_base64(self, text: str | None) -> str | None:
        if text is None or not text.strip():
            return None
        try:
            return _bytes_in(text).decode()
        except ValueError:
            raise FunctionError("base64() was given a text that is not a text in base64") from None

    @_takes("string", "number")
    def _func_decimal(self, unscaled: str | None, scale: float | None) -> Number | int | None:
        if not unscaled or scale is None:
            return None
        number = base64_number(unscaled, int(scale)) if isinstance(scale, int) else None
        if number is None:
            raise FunctionError("decimal() was given no base64 of a decimal's digits, or no whole number as its scale")
        return number

    @_takes("object", "string|number|boolean")
    def _func_lookup(self, table: dict[str, str], key: object) -> str | None:
        return None if key is None else table.get(key if isinstance(key, str) else written(key).decode())

    @_takes_anything(several=True)
    def _func_time(self, value: object, *how: str) -> str | None:
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        unit = next((cast("Unit", each) for each in how if each in NANOSECONDS), None)
        zone = next((zone_of(each) for each in how if each not in NANOSECONDS), None)
        moment = read_time(value, zone, unit)
        if isinstance(moment, Unreadable):
            raise FunctionError(f"time() was given {kind(value)} that {moment.why}")
        return _rfc_3339(moment)

    @_takes_anything()
    def _func_to_string(self, value: object) -> str:
        return value if isinstance(value, str) else written(value).decode()

    @_takes_anything()
    def _func_to_number(self, value: object) -> object:
        """Give JMESPath's result, but a number's text is kept."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        return _number_in(value) if isinstance(value, str) else value


# A number as other programs write it: with a plus, and with zeros before it, as SAP's numbers have.
_PADDED = re.compile(r"(?:\+|(-))?0*([0-9].*)", re.ASCII)


def _number_in(text: str) -> int | float | None:
    """Read a number as it is written, without what JSON does not write. None: it is none."""
    match = _PADDED.fullmatch(text.strip())
    try:
        number = None if match is None else read_exactly(f"{match[1] or ''}{match[2]}".encode())
    except ValueError:
        return None
    return number if isinstance(number, int | float) else None


def _bytes_in(base64: str) -> bytes:
    """Return what is written in base64, in either alphabet, with line breaks and padding or without."""
    letters = "".join(base64.split()).translate(_URL_SAFE).rstrip("=")
    return b64decode(letters + "=" * (-len(letters) % 4), validate=True)


_URL_SAFE = str.maketrans("-_", "+/")


def _rfc_3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True))


def _matches(pattern: str, text: str) -> bool:
    """Search the pattern by Rust's engine, whose time grows with the text's length only, whatever the pattern."""
    return _pattern(pattern).isinstance_python(text)


def why_no_pattern(pattern: str) -> str | None:
    """Say why a text is no pattern; None: it is one."""
    try:
        _pattern(pattern)
    except SchemaError:
        return "is no regular expression (without look-around and references)"
    return None
