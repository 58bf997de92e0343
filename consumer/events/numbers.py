"""Numbers that leave as they came: 199.00 stays 199.00, and 1E3 is not written as 1000.0.

A double holds a number's value, not how it was written. A price that came as 199.00 is meant to be shown so, and a
reader of `-0.0` or of 30 digits may care. So a number that a double would write otherwise is a `Number`: a float that
remembers its text. An integer has any length in Python, and needs no help.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_core import to_json


class Number(float):
    """A float that remembers how it was written."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Number:
        """Read `text`, which is a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[Number], tuple[str]]:
        """Copy and pickle it with its text."""
        return Number, (self.text,)


# JMESPath's functions tell a number by the name of its class: `float` and `int` are numbers.
Number.__name__ = "float"


def _integer(text: str) -> object:
    return Number(text) if text == "-0" else int(text)


def _no_number(name: str) -> object:
    raise ValueError(name)


_EXACT = json.JSONDecoder(parse_float=Number, parse_int=cast("type[int]", _integer), parse_constant=_no_number)


def read_exactly(text: bytes) -> object:
    """Parse JSON whose numbers can be written as they came. Raises ValueError where it is none."""
    parsed: object = _EXACT.decode(text.decode())
    return parsed


_PLAIN = (str, int, type(None))  # most of what an event holds: not worth a call


def written(value: object) -> bytes:
    """Return a value as compact JSON, its numbers as they came. Models in it leave out what is null."""
    return _written(value) if _holds_number(value) else to_json(value, exclude_none=True)


def _holds_number(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return isinstance(value, Number)
    for each in value:  # noqa: SIM110 - for so few, `any` takes longer
        if not isinstance(each, _PLAIN) and _holds_number(each):
            return True
    return False


def _written(value: object) -> bytes:
    if isinstance(value, Number):
        return value.text.encode()
    if isinstance(value, dict):
        return b"{%b}" % b",".join(b"%b:%b" % (to_json(key), _written(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return b"[%b]" % b",".join(map(_written, value))
    return to_json(value, exclude_none=True)
