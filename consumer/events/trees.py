"""What can be known of an expression before any event: where it reads from, and whether it says what is meant.

A node is the library's: type, value, children. Its root is the event. A filter's condition and whatever stands behind
a dot or a pipe have another: an element, or what was found.

Names of the record stand beside the event's fields: `headers`, `key`, `meta`, and `event` for the event itself; with
`each`, `item` is the item. A field of the event with such a name is reached by `event.`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from pydantic_core import to_json

Node = dict[str, Any]

META = ("topic", "partition", "offset", "timestamp", "record_name")
RECORD_NAMES = frozenset({"event", "headers", "key", "meta"})
ITEM = "item"
_WHOLE = {
    "event": "the whole event",
    "headers": "all headers",
    "meta": f"{', '.join(META[:-1])} and {META[-1]}",
}
# Nodes of which only the first child has the node's own root.
_BEGINNING = frozenset(
    {
        *("subexpression", "index_expression", "pipe", "flatten"),
        *("projection", "value_projection", "filter_projection"),
    }
)
_PATHS = _BEGINNING - {"pipe"}
_PROJECTIONS = frozenset({"projection", "filter_projection", "flatten"})
_ALTERNATIVES = frozenset({"or_expression"})
# Nodes in which a text may stand beside a field.
_OF_VALUES = frozenset({"function_expression", "multi_select_list", "key_val_pair", "or_expression", "and_expression"})
_PLAIN_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"\s*[+-]?[0-9]+([.,][0-9]+)?\s*")


def children(node: Node) -> list[Node]:
    """Return the nodes below this one."""
    return [child for child in node.get("children") or () if isinstance(child, dict)]


def _with_roots(node: Node, at_root: bool) -> Iterator[tuple[Node, bool]]:
    begins = node["type"] in _BEGINNING
    for index, child in enumerate(children(node)):
        yield child, at_root and not (begins and index) and node["type"] != "expref"


def compares_order(node: Node) -> bool:
    """Tell whether it asks which of two values is greater."""
    is_order = node["type"] == "comparator" and node["value"] not in ("eq", "ne")
    return is_order or any(map(compares_order, children(node)))


def root_names(node: Node, at_root: bool = True) -> Iterator[str]:
    """Yield the names that an expression reads at its root."""
    if node["type"] == "field" and at_root:
        yield str(node["value"])
    for child, is_root in _with_roots(node, at_root):
        yield from root_names(child, is_root)


def paths(node: Node, at_root: bool = True, optional: bool = False) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the paths that an expression reads from its root, and whether another may stand in for each (`||`)."""
    if at_root and (path := path_of(node)) is not None:
        yield path, optional
        return
    for index, (child, is_root) in enumerate(_with_roots(node, at_root)):
        beginning = node["type"] in _BEGINNING and index == 0
        yield from paths(child, is_root, optional or (node["type"] in _ALTERNATIVES and not beginning))


def path_of(node: Node) -> tuple[str, ...] | None:
    """Return the names of a plain path, `a.b.c`; None: it is something else."""
    if node["type"] == "field":
        return (str(node["value"]),)
    if node["type"] != "subexpression":
        return None
    names: list[str] = []
    for child in children(node):
        path = path_of(child)
        if path is None:
            return None
        names += path
    return tuple(names)


def written_path(path: tuple[str, ...]) -> str:
    """Return a path as it is written in an expression."""
    return ".".join(name if _PLAIN_NAME.fullmatch(name) else to_json(name).decode() for name in path)


def value_at(value: object, path: tuple[str, ...]) -> object:
    """Return what stands at a path; None: nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def list_of(node: Node) -> Node | None:
    """Return what must be a list for an expression to find anything: what its first projection begins with."""
    projects = False
    while node["type"] in _PROJECTIONS or node["type"] == "pipe":
        projects = projects or node["type"] in _PROJECTIONS
        node = children(node)[0]
    return node if projects else None


def at_event(node: Node, at_root: bool = True) -> Node:
    """Return the tree for a root that holds the record's names, too: `@` and what begins with nothing is the event."""
    if node["type"] in ("current", "identity"):
        return {"type": "field", "children": [], "value": "event"} if at_root else node
    changed = [at_event(child, is_root) for child, is_root in _with_roots(node, at_root)]
    return _with_children(node, changed)


def with_null(node: Node) -> Node:
    """Return the tree with JSON's null where a bare `null` is compared: to JMESPath it is a field of that name."""
    changed = [with_null(child) for child in children(node)]
    if node["type"] == "comparator":
        changed = [_NULL if child["type"] == "field" and child["value"] == "null" else child for child in changed]
    return _with_children(node, changed)


def with_not_last(node: Node) -> Node:
    """Return the tree in which `!a.b` asks for `a.b`: JMESPath takes it for `(!a).b`, which is null for every event."""
    changed = [with_not_last(child) for child in children(node)]
    if node["type"] in _PATHS and changed and changed[0]["type"] == "not_expression":
        asked = _with_children(node, [*children(changed[0]), *changed[1:]])
        return {"type": "not_expression", "children": [with_not_last(asked)]}
    return _with_children(node, changed)


def never_by_absence(node: Node, negated: bool = False) -> Node:
    """Return the tree of a condition for which two absent fields are neither equal nor different.

    To JMESPath null equals null, so a comparison of two fields that an event has not got would take it.
    """
    kind = node["type"]
    if kind == "comparator" and not any(child["type"] == "literal" for child in children(node)):
        absent = {"type": "comparator", "children": [children(node)[0], _NULL], "value": "eq"}
        present = {**absent, "value": "ne"}
        if node["value"] == "eq" and not negated:
            return {"type": "and_expression", "children": [present, node]}
        if node["value"] == "ne" and negated:
            return {"type": "or_expression", "children": [absent, node]}
        return node
    if kind == "not_expression":
        return _with_children(node, [never_by_absence(child, not negated) for child in children(node)])
    if kind in ("and_expression", "or_expression"):
        return _with_children(node, [never_by_absence(child, negated) for child in children(node)])
    return _with_children(node, [never_by_absence(child) for child in children(node)])


def compared_paths(node: Node) -> Iterator[tuple[str, str]]:
    """Yield the two sides of each comparison of an event's field with a path that begins elsewhere in it."""
    sides = [path_of(child) for child in children(node)] if node["type"] == "comparator" else []
    if len(sides) == 2 and (left := sides[0]) and (right := sides[1]) and len(right) > 1:
        begin = {left[0], right[0]}
        if len(begin) == 2 and begin.isdisjoint(RECORD_NAMES | {ITEM}):
            yield ".".join(left), ".".join(right)
    for child in children(node):
        yield from compared_paths(child)


def compared_values(node: Node, at_root: bool = True) -> Iterator[tuple[tuple[str, ...], list[object], bool]]:
    """Yield each path from the root that is compared with values, these values, and whether it shall be one of them."""
    sides = children(node)
    if node["type"] == "comparator" and node["value"] in ("eq", "ne") and at_root:
        for one, other in (sides, sides[::-1]):
            if other["type"] == "literal" and other["value"] is not None and (path := path_of(one)) is not None:
                yield path, [other["value"]], node["value"] == "eq"
    if node["type"] == "function_expression" and node["value"] == "contains" and at_root:
        values = [each["value"] for each in children(sides[0]) if each["type"] == "literal"]
        if sides[0]["type"] == "multi_select_list" and (path := path_of(sides[1])) is not None:
            yield path, values, True
    for child, is_root in _with_roots(node, at_root):
        yield from compared_values(child, is_root)


def asked_paths(node: Node) -> Iterator[tuple[str, ...]]:
    """Yield each path of which a condition asks whether it is true."""
    if (path := path_of(node)) is not None:
        yield path
    elif node["type"] in ("or_expression", "and_expression", "not_expression"):
        for child in children(node):
            yield from asked_paths(child)


_NULL: Node = {"type": "literal", "value": None, "children": []}


def _with_children(node: Node, changed: list[Node]) -> Node:
    following = iter(changed)
    given = node.get("children") or []
    return {**node, "children": [next(following) if isinstance(child, dict) else child for child in given]}


def trap(node: Node, quoted: Collection[str], at_root: bool = True) -> tuple[str, str] | None:
    """Find a field where a text or a number must be meant. Returns its name and what is wrong.

    `quoted`: names in double quotes.
    """
    found = None
    if node["type"] == "comparator":
        trap_in = _trap_in_comparison if node["value"] in ("eq", "ne") else _trap_in_order
        found = trap_in(children(node), quoted, at_root)
    elif node["type"] in _OF_VALUES:
        found = _needless_quotes(children(node), quoted, at_root)
    for child, is_root in _with_roots(node, at_root):
        found = found or trap(child, quoted, is_root)
    return found


def needless_quotes(node: Node, quoted: Collection[str]) -> tuple[str, str] | None:
    """Find a text in double quotes that is the whole expression. Returns its name and what is wrong."""
    return _needless_quotes([node], quoted, at_root=True)


def _needless_quotes(nodes: list[Node], quoted: Collection[str], at_root: bool) -> tuple[str, str] | None:
    """Find a name whose quotes change nothing, and that stands where a text may: no path, no comparison."""
    for node in nodes:
        if node["type"] == "field" and node["value"] in quoted and _PLAIN_NAME.fullmatch(str(node["value"])):
            return str(node["value"]), meant_as_text(str(node["value"]), at_root)
    return None


def _trap_in_order(sides: list[Node], quoted: Collection[str], _: bool) -> tuple[str, str] | None:
    """Find a number that is written as a text, where `<` and `>` compare: texts are compared letter by letter."""
    for side in sides:
        value = side["value"] if side["type"] in ("field", "literal") else None
        if isinstance(value, str) and (side["type"] == "literal" or value in quoted) and _NUMBER.fullmatch(value):
            number = value.strip().replace(",", ".")
            return value, f"{value} is no number here: a number stands in backticks, `{number}`, and number() makes one"
    return None


def _trap_in_comparison(sides: list[Node], quoted: Collection[str], at_root: bool) -> tuple[str, str] | None:
    left, right = sides
    for side, other in ((left, right), (right, left)):
        is_value = other["type"] == "literal" and other["value"] is not None
        if is_value and at_root and side["type"] == "field" and side["value"] in _WHOLE:
            name = str(side["value"])
            return name, f"`{name}` is {_WHOLE[name]}, and equal to no value: the event's own field is event.{name}"
    if any(side["type"] == "literal" for side in sides):
        return None
    names = [side for side in sides if side["type"] == "field" and side["value"] not in (ITEM, "key")]
    # A quoted name first: nobody quotes a name that needs no quotes.
    for side in sorted(names, key=lambda each: each["value"] not in quoted):
        name = str(side["value"])
        if side is right or name in quoted:
            return name, meant_as_text(name, at_root)
    return None


def meant_as_text(name: str, at_root: bool) -> str:
    """Say what to write instead of a name that must be meant as a text."""
    if (word := name.lower()) in ("true", "false"):
        return f"`{name}` names a field here: JSON stands in backticks, `{word}`"
    if word in ("none", "nil", "undefined"):
        return f"`{name}` names a field here: what is not there is `null`"
    field = f"{'event' if at_root else '@'}.{name if name.isidentifier() else chr(34) + name + chr(34)}"
    return f"`{name}` names a field here: a text stands in single quotes, '{name}' (the field is {field})"
