"""JMESPath for routes. Errors in an expression are found when it is compiled, and its result is always JSON.

The library (jmespath.py) finds unknown functions and wrong numbers of arguments only when they run, and its error texts
contain parts of the event. So here
 1. names and arguments of functions are checked when an expression is compiled, nesting is limited;
 2. an expression that fails at run time raises `EvaluationError`, which never repeats contents.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from jmespath.exceptions import IncompleteExpressionError, JMESPathError, JMESPathTypeError, LexerError, ParseError
from jmespath.functions import Functions
from jmespath.parser import Parser
from jmespath.visitor import TreeInterpreter
from pydantic_core import from_json, to_json

Search = Callable[[object], object]
_Node = dict[str, Any]  # the library's tree: type, value, children

MAX_NESTING = 32  # adds to the event's own nesting (decoding.MAX_NESTING): together far below the JSON parser's 200
SHOWN_CHARACTERS = 80

_INTERPRETER = TreeInterpreter()
# What the library lets through when a value is of a type that an operation cannot take.
_FAILURES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)


class ExpressionError(ValueError):
    """It is not an expression; the text says why and where (columns count from 1)."""


class EvaluationError(ValueError):
    """It failed on this event; the text follows "expression `…`" and holds no contents."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `search` gives a JSON value; it raises EvaluationError."""

    text: str
    search: Search

    def __str__(self) -> str:
        return f"expression `{shown(self.text)}`"


def compile_expression(text: str) -> Expression:
    """Compile JMESPath. Raises ExpressionError."""
    tree = _parse(text)
    _check(tree, text, 0)
    return Expression(text, _search(tree))


def written_keys(text: str) -> frozenset[str]:
    """Return the keys of the object that an expression gives, as far as it writes them itself.

    An object that comes whole from the event shows none. The expression must be one that compiles.
    """
    return frozenset(_written(_parse(text)))


def is_true(value: object) -> bool:
    """Tell JMESPath's truth: false are false, null and an empty text, list or object; 0 is true."""
    return not (value is None or value is False or value in ("", [], {}))


def shown(text: str) -> str:
    """Return the text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def _parse(text: str) -> _Node:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # `text` for `"text"`: the library would take it, and take a typo as text
            return cast("_Node", Parser().parse(text).parsed)
    except Warning:
        raise ExpressionError("text between backticks is JSON; write a string in single quotes") from None
    except IncompleteExpressionError:
        raise ExpressionError(f"ends too early: `{shown(text)}`") from None
    except LexerError as error:
        raise ExpressionError(f"{shown(error.message)} at column {error.lexer_position + 1}: `{shown(text)}`") from None
    except ParseError as error:
        raise ExpressionError(
            f"unexpected {shown(str(error.token_value))} at column {error.lex_position + 1}: `{shown(text)}`"
        ) from None
    except JMESPathError:
        raise ExpressionError("is empty") from None
    except RecursionError:
        raise ExpressionError("is nested too deep") from None


def _check(node: _Node, text: str, depth: int) -> None:
    if depth > MAX_NESTING:
        raise ExpressionError(f"is nested deeper than {MAX_NESTING} levels")
    children = _children(node)
    _check_literal(node.get("value"))
    match node["type"]:
        case "function_expression":
            _check_call(str(node["value"]), len(children), text)
        case "slice" if children[2:] == [0]:
            raise ExpressionError(f"a slice's step cannot be 0: `{shown(text)}`")
    for child in children:
        if isinstance(child, dict):
            _check(child, text, depth + 1)


def _check_call(name: str, given: int, text: str) -> None:
    column = text.find(name) + 1
    function = Functions.FUNCTION_TABLE.get(name)
    if function is None:
        raise ExpressionError(f"there is no function {shown(name)}() (column {column}): `{shown(text)}`")
    signature = function["signature"]
    variadic = bool(signature) and bool(signature[-1].get("variadic"))
    if given < len(signature) or (given > len(signature) and not variadic):
        wanted = f"{'at least ' if variadic else ''}{len(signature)}"
        raise ExpressionError(f"{name}() takes {wanted} arguments (column {column}): `{shown(text)}`")


def _check_literal(value: object) -> None:
    """Literals and names become part of what is sent."""
    try:
        from_json(to_json(value), allow_inf_nan=False)
    except ValueError:
        raise ExpressionError("a literal is not JSON (half a surrogate pair, NaN, or nested too deep)") from None


def _written(node: _Node) -> Iterator[str]:
    """Walk to what the expression may give: either side of `||`, the last of `&&` and of a pipe, each of merge()."""
    children = [child for child in _children(node) if isinstance(child, dict)]
    match node["type"]:
        case "multi_select_dict":
            yield from (str(pair["value"]) for pair in children)
        case "literal" if isinstance(node["value"], dict):
            yield from node["value"]
        case "or_expression" | "function_expression":
            for child in children:
                yield from _written(child)
        case "and_expression" | "pipe" | "subexpression":
            yield from _written(children[-1])


def _children(node: _Node) -> list[object]:
    return cast("list[object]", node.get("children") or [])


def _search(tree: _Node) -> Search:
    def search(event: object) -> object:
        try:
            found: object = _INTERPRETER.visit(cast("Any", tree), event)
        except JMESPathTypeError as error:  # its own text repeats the value
            raise EvaluationError(f"failed: {error.function_name}() was given a wrong {error.actual_type}") from None
        except _FAILURES as error:
            raise EvaluationError(f"failed ({type(error).__name__})") from None
        if not _is_json(found):
            raise EvaluationError("gave something that is not JSON")
        return found

    return search


def _is_json(found: object) -> bool:
    """A function can give infinity or NaN, and `&name` gives an expression."""
    if found is None or isinstance(found, (str, int)):
        return True
    if isinstance(found, float):
        return math.isfinite(found)
    try:
        from_json(to_json(found), allow_inf_nan=False)
    except ValueError:
        return False
    return True
