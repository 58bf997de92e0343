"""JMESPath for routes. Errors in an expression are found when it is compiled, and its result is always JSON.

The library (jmespath.py) finds unknown functions and wrong numbers of arguments only when they run, and its error texts
contain parts of the event. So here
 1. names and arguments of functions are checked when an expression is compiled, nesting is limited;
 2. an expression that fails at run time raises `EvaluationError`, which never repeats contents;
 3. a name where a text must be meant is refused (trees.py), and so is what no record has (`meta.x`), and a question
    that has one answer only (conditions.py);
 4. what most routes consist of (paths, comparisons with a text, `||`, `&&`) is closures, which take a tenth of the
    interpreter's time. Everything else is the library's interpreter.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from jmespath.exceptions import IncompleteExpressionError, JMESPathError, JMESPathTypeError, LexerError, ParseError
from jmespath.lexer import Lexer
from jmespath.parser import Parser
from jmespath.visitor import Options, TreeInterpreter
from pydantic_core import from_json, to_json

from consumer.events import conditions, trees
from consumer.events.functions import (
    LITERAL_ARGUMENTS,
    TEXT_ARGUMENTS,
    FunctionError,
    RouteFunctions,
    why_no_pattern,
)
from consumer.events.other_languages import instead_of_function, instead_of_sign
from consumer.events.times import NANOSECONDS, zone_of

Search = Callable[[object], object]
Tables = Mapping[str, Mapping[str, str]]
_Node = trees.Node

MAX_NESTING = 32  # adds to the event's own nesting (decoding.MAX_NESTING): together far below the JSON parser's 200
SHOWN_CHARACTERS = 80

_INTERPRETER = TreeInterpreter(Options(custom_functions=RouteFunctions()))
# What the library lets through when a value is of a type that an operation cannot take.
_FAILURES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)


# What JMESPath, and Python where JMESPath looks into a list, calls the type of a value.
_GIVEN = {
    **dict.fromkeys(("null", "NoneType"), "null"),
    **dict.fromkeys(("number", "int", "float"), "a number"),
    **dict.fromkeys(("string", "str"), "a text"),
    **dict.fromkeys(("array", "list"), "a list"),
    **dict.fromkeys(("object", "dict"), "an object"),
    **dict.fromkeys(("boolean", "bool"), "a boolean"),
}


class ExpressionError(ValueError):
    """It is not an expression; the text says why and where (columns count from 1)."""


class EvaluationError(ValueError):
    """It failed on this event; the text follows "expression `…`" and holds no contents."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `search` gives a JSON value; it raises EvaluationError.

    It searches the event; where `reads_record` is true, the event's fields with the record's names beside them.
    """

    text: str
    search: Search
    reads_record: bool = False

    def __str__(self) -> str:
        return f"expression `{shown(self.text)}`"


def compile_expression(
    text: str, tables: Tables | None = None, *, is_condition: bool = False, with_item: bool = False
) -> Expression:
    """Compile JMESPath. Raises ExpressionError.

    `tables`: those of `lookup()`; None leaves their names unchecked. `is_condition`: two absent fields are not equal.
    `with_item`: `item` is a name of its own.
    """
    tree = _parse(text)
    _check(tree, text, 0)
    tree = trees.with_null(tree)
    _check_traps(tree, text)
    if (why := conditions.constant_part(tree, is_condition=is_condition)) is not None:
        raise ExpressionError(f"{why}: `{shown(text)}`")
    tree = _with_tables(tree, text, tables)
    if is_condition:
        tree = trees.never_by_absence(tree)
    return _expression(text, tree, trees.RECORD_NAMES | {trees.ITEM} if with_item else trees.RECORD_NAMES)


def compile_list(text: str, tables: Tables | None = None) -> Expression | None:
    """Compile what an expression goes through as a list: `parcels` of `parcels[]`. None: it goes through none.

    JMESPath gives null where that is no list, as if it were not there. The expression must be one that compiles.
    """
    tree = trees.list_of(_parse(text))
    return None if tree is None else _expression(text, _with_tables(trees.with_null(tree), text, tables))


def _expression(text: str, tree: _Node, names: Collection[str] = trees.RECORD_NAMES) -> Expression:
    reads_record = any(name in names for name in trees.root_names(tree))
    return Expression(text, _search(trees.at_event(tree) if reads_record else tree), reads_record)


@lru_cache(maxsize=1024)
def paths_of(text: str) -> tuple[tuple[tuple[str, ...], bool], ...]:
    """Return the event's paths that an expression reads, and whether another may stand in for each (`||`)."""
    found: list[tuple[tuple[str, ...], bool]] = []
    for path, optional in trees.paths(trees.with_null(_parse(text))):
        if path[0] not in trees.RECORD_NAMES:
            found.append((path, optional))
        elif path[0] == "event" and len(path) > 1:
            found.append((path[1:], optional))
    return tuple(found)


@lru_cache(maxsize=1024)
def record_paths(text: str) -> tuple[tuple[tuple[str, ...], bool], ...]:
    """Return the paths that an expression reads of the record, `event.a` included, and whether another may stand in."""
    return tuple(each for each in trees.paths(trees.with_null(_parse(text))) if each[0][0] in trees.RECORD_NAMES)


def compared_paths(text: str) -> list[tuple[str, str]]:
    """Return the fields that an expression compares with each other: one of the two may be meant as a text."""
    return list(trees.compared_paths(_parse(text)))


@lru_cache(maxsize=1024)
def compared_values(text: str) -> tuple[tuple[tuple[str, ...], list[object], bool], ...]:
    """Return each path that an expression compares with values, these, and whether it shall be one of them."""
    return tuple(trees.compared_values(_parse(text)))


@lru_cache(maxsize=1024)
def asked_paths(text: str) -> tuple[tuple[str, ...], ...]:
    """Return each path of which a condition asks whether it is true."""
    return tuple(trees.asked_paths(_parse(text)))


def written_keys(text: str) -> frozenset[str]:
    """Return the keys of the object that an expression gives, as far as it writes them itself.

    An object that comes whole from the event shows none. The expression must be one that compiles.
    """
    return frozenset(_written(_parse(text)))


def is_true(value: object) -> bool:
    """Tell JMESPath's truth: false are false, null and an empty text, list or object; 0 is true."""
    if value is True or value is False:
        return value is True
    return not (value is None or value is False or value in ("", [], {}))


def shown(text: str) -> str:
    """Return the text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def _parse(text: str) -> _Node:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # `text` for `"text"`: the library would take it, and take a typo as text
            return trees.with_not_last(cast("_Node", Parser().parse(text).parsed))
    except Warning:
        raise ExpressionError("text between backticks is JSON; write a string in single quotes") from None
    except IncompleteExpressionError:
        raise ExpressionError(f"ends too early: `{shown(text)}`") from None
    except LexerError as error:
        why = f"{shown(error.message)} at column {error.lexer_position + 1}: `{shown(text)}`"
        raise ExpressionError(why + instead_of_sign(str(error.token_value)[:1], text, error.lexer_position)) from None
    except ParseError as error:
        why = f"unexpected {shown(str(error.token_value))} at column {error.lex_position + 1}: `{shown(text)}`"
        raise ExpressionError(why + instead_of_sign(str(error.token_value), text, error.lex_position)) from None
    except JMESPathError:
        raise ExpressionError("is empty") from None
    except RecursionError:
        raise ExpressionError("is nested too deep") from None


def wrong_use(key: str, text: str, connections: Collection[str]) -> str | None:
    """Say why an expression cannot be meant in a route's `key`, whatever the event; None: it can be.

    `connections`: the names of those that are configured.
    """
    tree = _parse(text)
    value, kind = tree.get("value"), tree["type"]
    if key == "when" and kind == "literal" and isinstance(value, str):
        return f"takes every event: a text by itself is true. Compare it with a field, type == '{shown(value)}'"
    if key == "when" and kind == "field" and value in ("true", "false"):
        return trees.meant_as_text(str(value), at_root=True)
    if key == "order_id" and kind == "literal":
        return "is the same order for every event: a field stands without quotes"
    if key == "connection" and kind == "field" and value in connections:
        return trees.meant_as_text(str(value), at_root=True)
    if key == "connection" and kind == "literal" and value not in connections:
        return f"{text} is not configured; there are {', '.join(connections)}"
    if key in _NO_LISTS and conditions.is_always_list(tree):
        return f"gives a list, never {_NO_LISTS[key]}: put brackets around (… | [0])"
    return None


_NO_LISTS = {
    **dict.fromkeys(("order_id", "version_tag", "job_id", "action_name", "connection", "language"), "a text"),
    **dict.fromkeys(("order", "change_delivery", "change_status"), "an object"),
}


def _check(node: _Node, text: str, depth: int) -> None:
    if depth > MAX_NESTING:
        raise ExpressionError(f"is nested deeper than {MAX_NESTING} levels")
    children = _children(node)
    _check_literal(node.get("value"))
    match node["type"]:
        case "function_expression":
            _check_call(str(node["value"]), len(children), text)
            _check_texts(str(node["value"]), trees.children(node), text)
        case "slice" if children[2:] == [0]:
            raise ExpressionError(f"a slice's step cannot be 0: `{shown(text)}`")
    for child in children:
        if isinstance(child, dict):
            _check(child, text, depth + 1)


def _check_call(name: str, given: int, text: str) -> None:
    column = text.find(name) + 1
    function = RouteFunctions.FUNCTION_TABLE.get(name)
    if function is None:
        meant = instead_of_function(name, RouteFunctions.FUNCTION_TABLE)
        raise ExpressionError(f"there is no function {shown(name)}(){meant} (column {column}): `{shown(text)}`")
    signature = function["signature"]
    variadic = bool(signature) and bool(signature[-1].get("variadic"))
    if given < len(signature) or (given > len(signature) and not variadic):
        wanted = f"{'at least ' if variadic else ''}{len(signature)}"
        raise ExpressionError(f"{name}() takes {wanted} arguments (column {column}): `{shown(text)}`")


def _check_texts(name: str, arguments: list[_Node], text: str) -> None:
    """Check the arguments that must be texts in the expression itself, and names in the place of a text."""
    quoted = _quoted_names(text)
    for index in TEXT_ARGUMENTS.get(name, ()):
        argument = arguments[index]
        if argument["type"] == "field" and argument["value"] in quoted:
            raise ExpressionError(f"{trees.meant_as_text(str(argument['value']), at_root=True)}: `{shown(text)}`")
    separator = arguments[1].get("value") if name == "split" and arguments[1]["type"] == "literal" else None
    if isinstance(separator, str) and (escape := next((each for each in _ESCAPES if each in separator), None)):
        meant = f'in single quotes {escape} is a backslash and a letter; write it in backticks, `"{escape}"`'
        raise ExpressionError(f"split(): {meant}: `{shown(text)}`")
    for index in LITERAL_ARGUMENTS.get(name, ()):
        if index >= len(arguments):
            break
        value = arguments[index].get("value") if arguments[index]["type"] == "literal" else None
        why = "must be a text in single quotes" if not isinstance(value, str) else _why_no_argument(name, value)
        if why is not None:
            raise ExpressionError(f"argument {index + 1} of {name}() {why}: `{shown(text)}`")


_ESCAPES = ("\\t", "\\n", "\\r")


def _why_no_argument(name: str, value: str) -> str | None:
    if name == "match":
        return why_no_pattern(value)
    if name == "time" and value not in NANOSECONDS and zone_of(value) is None:
        return f"must be a unit ({', '.join(NANOSECONDS)}) or a time zone, such as Europe/Stockholm"
    return None


def _check_traps(tree: _Node, text: str) -> None:
    quoted = _quoted_names(text)
    found = trees.needless_quotes(tree, quoted) or trees.trap(tree, quoted)
    if found is not None:
        name, why = found
        raise ExpressionError(f"{why} (column {max(text.rfind(name), 0) + 1}): `{shown(text)}`")
    for path, _ in trees.paths(tree):
        if path[0] == "meta" and len(path) > 1 and path[1] not in trees.META:
            own = f"a field of the event itself is {trees.written_path(('event', *path))}"
            raise ExpressionError(
                f"`meta` has {', '.join(trees.META)}, and no {shown(path[1])}; {own}: `{shown(text)}`"
            )


def _quoted_names(text: str) -> frozenset[str]:
    """Return the names in double quotes."""
    tokens = cast("Iterator[dict[str, Any]]", Lexer().tokenize(text))
    return frozenset(str(token["value"]) for token in tokens if token["type"] == "quoted_identifier")


def _with_tables(node: _Node, text: str, tables: Tables | None) -> _Node:
    """Put the table itself into each `lookup()`."""
    changed = {
        **node,
        "children": [
            _with_tables(child, text, tables) if isinstance(child, dict) else child for child in _children(node)
        ],
    }
    if node["type"] == "function_expression" and node["value"] == "lookup":
        name = changed["children"][0]["value"]
        if tables is not None and name not in tables:
            known = f"there are {', '.join(sorted(tables))}" if tables else "there is none: write `tables`"
            raise ExpressionError(f"lookup(): there is no table {shown(name)}; {known}: `{shown(text)}`")
        table = dict(tables[name]) if tables is not None else {}
        changed["children"][0] = {"type": "literal", "value": table, "children": []}
    return changed


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
    found = _closure(tree)
    if found is not None:
        return found
    run, compares_order = _part(tree), trees.compares_order(tree)

    def search(event: object) -> object:
        try:
            found = run(event)
        except FunctionError as error:
            raise EvaluationError(f"failed: {error}") from None
        except JMESPathTypeError as error:  # its own text repeats the value
            given = _GIVEN.get(str(error.actual_type), "a value that it cannot take")
            raise EvaluationError(f"failed: {error.function_name}() was given {given}") from None
        except _FAILURES as error:
            if compares_order and isinstance(error, TypeError):
                raise EvaluationError(
                    "failed: it compares a text with a number; number() makes one of a text"
                ) from None
            raise EvaluationError(f"failed ({type(error).__name__})") from None
        if not _is_json(found):
            raise EvaluationError("gave something that is not JSON")
        return found

    return search


def _part(node: _Node) -> Search:
    """Return a node as a closure, or what runs the interpreter on it."""
    found = _closure(node)
    if found is not None:
        return found
    visit: Callable[..., object] = _INTERPRETER.visit
    match node["type"]:
        case "or_expression":
            return _either(*map(_part, trees.children(node)))
        case "and_expression":
            return _both(*map(_part, trees.children(node)))
    return lambda value: visit(node, value)


def _closure(node: _Node) -> Search | None:
    """Return what gives the node's value, and never fails; None: the interpreter must."""
    path = trees.path_of(node)
    if path is not None:
        return _path(path)
    parts = trees.children(node)
    match node["type"]:
        case "literal":
            value: object = node["value"]
            return lambda _: value
        case "comparator" if node["value"] in ("eq", "ne"):
            return _comparison(parts, is_equal=node["value"] == "eq")
        case "or_expression" | "and_expression":
            first, second = map(_closure, parts)
            if first is not None and second is not None:
                return (_either if node["type"] == "or_expression" else _both)(first, second)
    return None


def _path(path: tuple[str, ...]) -> Search:
    if len(path) == 1:
        (name,) = path
        return lambda value: value.get(name) if isinstance(value, dict) else None

    def search(value: object) -> object:
        for name in path:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return search


def _comparison(sides: list[_Node], *, is_equal: bool) -> Search | None:
    """Compare with a text or null: what else JMESPath calls equal, its interpreter knows."""
    for side, other in (sides, sides[::-1]):
        if other["type"] == "literal" and (other["value"] is None or isinstance(other["value"], str)):
            found = _closure(side)
            return None if found is None else _compared(found, other["value"], is_equal=is_equal)
    return None


def _compared(found: Search, wanted: object, *, is_equal: bool) -> Search:
    if is_equal:
        return lambda value: found(value) == wanted
    return lambda value: found(value) != wanted


def _either(first: Search, second: Search) -> Search:
    def search(value: object) -> object:
        found = first(value)
        return found if is_true(found) else second(value)

    return search


def _both(first: Search, second: Search) -> Search:
    def search(value: object) -> object:
        found = first(value)
        return second(value) if is_true(found) else found

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
