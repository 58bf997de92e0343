"""What has the same answer for every event, though it is written as a question.

JMESPath calls it correct. A condition that is always true mails every customer, and one that never is mails nobody:
`status == 'shipped' || 'sent'`, `!type == 'return'`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic_core import to_json

from consumer.events.trees import Node, children, path_of, root_names, written_path

SHOWN_CHARACTERS = 60  # of a value or a name
_LISTS = frozenset({"multi_select_list", "multi_select_dict"})
_PROJECTIONS = frozenset({"projection", "filter_projection", "value_projection", "flatten"})
_YES_OR_NO = frozenset({"contains", "ends_with", "match", "starts_with"})
_TEXTS = frozenset({"base64", "join", "lower", "replace", "time", "to_string", "trim", "type", "upper"})
_NUMBERS = frozenset({"abs", "avg", "ceil", "decimal", "floor", "length", "number", "sum", "to_number"})
_CASES: dict[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper}
_OPERATORS = {"eq": "==", "ne": "!="}


def constant_part(node: Node, *, is_condition: bool) -> str | None:
    """Say which part of an expression has one answer only, and what to write instead; None: there is none.

    `is_condition`: it asks whether it is true. What an expression gives may be a text beside a question:
    `market == 'SE' && 'sv'`.
    """
    return next(_constant_parts(node, is_condition), None)


def _constant_parts(node: Node, asks: bool) -> Iterator[str]:
    match node["type"]:
        case "or_expression" | "and_expression" | "not_expression" if asks:
            yield from (why for part in children(node) if (why := _always_true(part, node)) is not None)
        case "comparator" if node["value"] in _OPERATORS:
            left, right = children(node)
            for one, other in ((left, right), (right, left)):
                if (why := _one_answer(one, other, _OPERATORS[node["value"]])) is not None:
                    yield why
                    break
        case "function_expression" if node["value"] == "contains":
            within, part = children(node)
            if part["type"] == "multi_select_list":
                yield f"contains() takes the list first: contains({_shown(part)}, {_name(within)})"
        case "filter_projection":
            _, behind, question = children(node)
            if _begins_with_index(behind) and next(root_names(question), None) is not None:
                yield "`[…]` behind a filter looks into each item, which is no list: put brackets around (…[?…] | [0])"
        case "pipe":
            before, behind = children(node)
            if _is_yes_or_no(before):
                yield "behind `|` nothing of the event is left: or is `||`"
            elif before["type"] in _PROJECTIONS and (name := next(root_names(behind), None)) is not None:
                yield f"behind `|` stands a list, which has no field {_cut(name)}: put brackets around (… | [0])"
    asked = node["type"] in ("or_expression", "and_expression", "not_expression") and asks
    for number, part in enumerate(children(node)):
        yield from _constant_parts(part, asked or (node["type"] == "filter_projection" and number == 2))


def is_always_list(node: Node) -> bool:
    """Tell whether an expression gives a list or nothing, whatever the event."""
    if node["type"] in ("pipe", "or_expression"):
        parts = children(node)
        return all(map(is_always_list, parts[1:] if node["type"] == "pipe" else parts))
    return node["type"] in _PROJECTIONS or node["type"] == "multi_select_list"


def _begins_with_index(node: Node) -> bool:
    """Tell whether the first that is looked for in each item is one of its own items, by number."""
    while node["type"] in ("subexpression", "index_expression", "projection"):
        first, *rest = children(node)
        if first["type"] == "identity":
            return bool(rest) and rest[0]["type"] in ("index", "slice")
        node = first
    return False


def _always_true(part: Node, within: Node) -> str | None:
    """Judge a value that stands where a question must."""
    is_value = part["type"] == "literal" and bool(part["value"]) and not isinstance(part["value"], bool)
    if not is_value and part["type"] not in _LISTS:
        return None
    compared = [each for each in children(within) if each["type"] == "comparator"]
    field = _name(children(compared[-1])[0]) if compared else "field"
    question = f"contains({_shown(part)}, {field})" if part["type"] in _LISTS else f"{field} == {_shown(part)}"
    return f"{_shown(part)} by itself is true for every event: write {question}"


def _one_answer(one: Node, other: Node, operator: str) -> str | None:
    """Judge a comparison with a value, `other`."""
    if other["type"] == "multi_select_list":
        is_of_values = all(each["type"] == "literal" for each in children(other))
        if not is_of_values or path_of(one) is None:
            return None
        asked = f"{'' if operator == '==' else '!'}contains({_shown(other)}, {_name(one)})"
        return f"a list in brackets is equal to no text: write {asked}, or the list in backticks if one is meant"
    if other["type"] != "literal":
        return None
    if one["type"] == "literal":
        return f"{_shown(one)} and {_shown(other)} are both values: a field stands without quotes"
    if one["type"] == "function_expression" and one["value"] in _CASES and isinstance(other["value"], str):
        written = _CASES[one["value"]](other["value"])
        return None if written == other["value"] else f"{one['value']}() never gives {_shown(other)}: write '{written}'"
    if other["value"] is not None and (what := _gives_another_type(one, other["value"])) is not None:
        return f"{what} is never equal to {_shown(other)}"
    if isinstance(other["value"], bool) or not _is_yes_or_no(one):
        return None
    if one["type"] == "not_expression":
        opposite = "!=" if operator == "==" else "=="
        (denied,) = children(one)
        return f"`!` comes before `{operator}`: write {_name(denied)} {opposite} {_shown(other)}"
    return f"true or false is compared with {_shown(other)}, and never equal to it"


def _gives_another_type(node: Node, value: object) -> str | None:
    """Say what a list or a function gives that a value cannot be."""
    if node["type"] in _PROJECTIONS and not isinstance(value, list):
        return "a list (`(… | [0])` is its first item, contains() asks for any)"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    name = node["value"] if node["type"] == "function_expression" else None
    if name in _TEXTS and not isinstance(value, str):
        return f"the text of {name}()"
    return f"the number of {name}()" if name in _NUMBERS and not is_number else None


def _is_yes_or_no(node: Node) -> bool:
    is_function = node["type"] == "function_expression" and node["value"] in _YES_OR_NO
    return (
        is_function
        or node["type"] in ("not_expression", "comparator")
        or (node["type"] in ("or_expression", "and_expression") and all(map(_is_yes_or_no, children(node))))
    )


def _shown(node: Node) -> str:
    """Return a value as it is written in an expression."""
    if node["type"] == "multi_select_list":
        return f"[{', '.join(_shown(each) for each in children(node))}]"
    if node["type"] != "literal":
        return _name(node)
    value: object = node["value"]
    return _cut(f"'{value}'" if isinstance(value, str) else f"`{to_json(value).decode()}`")


def _name(node: Node) -> str:
    return _cut(written_path(path_of(node) or ("field",)))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
