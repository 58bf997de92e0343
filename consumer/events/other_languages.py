"""What people write who know another language than JMESPath, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

_CUTOFF = 0.7  # below it regex() is taken for merge(), and int() for min()


def instead_of_sign(sign: str, text: str, position: int) -> str:
    """Return advice that follows an error about a sign or a word at a text's position; empty: there is none."""
    before = text[:position].rstrip()
    if (number := _NUMBER.match(text, position)) is not None and not before.endswith("["):
        return f"; a number stands in backticks, `{number[0]}`"
    is_word = sign[:1].isalnum()
    behind = next((advice for end, advice in _BEHIND.items() if is_word and before.lower().endswith(end)), None)
    other_letter = sign.isalpha() and not sign.isascii()
    advice = _SIGNS["@"] if other_letter else _SIGNS.get(sign.lower(), behind)
    return "" if advice is None else f"; {advice}"


def instead_of_function(name: str, known: Collection[str]) -> str:
    """Return advice that follows an error about a function that there is not; empty: there is none."""
    if (advice := _FUNCTIONS.get(name.lower().replace("_", ""))) is not None:
        return f", write {advice}"
    near = get_close_matches(name, known, n=1, cutoff=_CUTOFF)
    return f", did you mean {near[0]}()?" if near else ""


_SIGNS = {
    "-": "a name with it stands in double quotes, a text in single quotes",
    "=": "equal is `==`",
    **dict.fromkeys("‘’“”", "a text stands in straight single quotes"),  # noqa: RUF001 - as a word processor writes them
    "$": "a field stands without it, a name that has one in double quotes",
    **dict.fromkeys("@:#%", "a name with it stands in double quotes"),
    "/": "a path is written order.id, and a name with it stands in double quotes",
    "+": "join('', [a, b]) joins texts",
    "?": "write a && b || c",
    ">": "not equal is `!=`",
    "is": "write `== null`",
    **dict.fromkeys(("and", "&"), "write `&&`"),
    "or": "write `||`",
    "not": "write `!`",
    "in": "write contains(['a', 'b'], field)",
}
_BEHIND = {
    "[": "a field of an object stands behind a dot, data.type",
    ".": "behind a dot a name stands in double quotes or in none",
    "@": _SIGNS["@"],
    "not": _SIGNS["not"],
}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_OR = "a || b, which takes the first that is there"
_WHETHER = "field != null"
_FUNCTIONS = {
    **dict.fromkeys(("coalesce", "default", "ifnull", "nvl", "firstnonnull"), _OR),
    **dict.fromkeys(("exists", "defined", "isdefined", "has", "isset", "isnotnull"), _WHETHER),
    **dict.fromkeys(("isnull", "isempty", "empty"), "field == null, or !field where it may be empty, too"),
    **dict.fromkeys(("regex", "test", "regexp", "regexmatch", "like", "ismatch"), "match(text, 'pattern')"),
    **dict.fromkeys(("concat", "concatenate"), "join('', [a, b])"),
    **dict.fromkeys(
        ("substring", "substr", "slice", "mid", "left", "right"), "split(text, '-')[0]: only lists are cut"
    ),
    **dict.fromkeys(("strip", "trimspace"), "trim(text)"),
    **dict.fromkeys(("fromjson", "parsejson", "jsonparse", "parse", "jsondecode"), "json(text)"),
    **dict.fromkeys(("b64decode", "base64decode", "frombase64", "atob", "decodebase64"), "base64(text)"),
    **dict.fromkeys(("int", "toint", "float", "decimalof", "parseint"), "number(text)"),
    **dict.fromkeys(("string", "str", "tostr", "text"), "to_string(value)"),
    **dict.fromkeys(("len", "size", "count"), "length(list)"),
    **dict.fromkeys(("date", "todate", "parsedate", "timestamp", "datetime", "parsetime"), "time(value)"),
    **dict.fromkeys(("if", "iif", "case", "cond", "ifelse"), "condition && a || b"),
    "not": "!field",
    "and": "a && b",
    "or": "a || b",
    **dict.fromkeys(("in", "includes", "anyof", "oneof"), "contains(['a', 'b'], field)"),
    "first": "list[0]",
    "last": "list[-1]",
    **dict.fromkeys(("filter", "any", "where", "select"), "list[?field == 'text']"),
}
