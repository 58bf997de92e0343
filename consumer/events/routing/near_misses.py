"""What an event nearly is that no route takes: `route` says so, and nothing else would.

Rules:
 1. A note changes nothing. What is nearly equal is not equal, and no event is sent by it.
 2. It names fields and what the configuration says, and never what the event holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from pydantic_core import to_json

from consumer.events.expressions import (
    EvaluationError,
    Expression,
    asked_paths,
    compared_values,
    compile_expression,
    paths_of,
    record_paths,
)
from consumer.events.routing.elsewhere import read_instead
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.routing.scope import RecordFacts, Scope
from consumer.events.trees import RECORD_NAMES, value_at, written_path


def own_field(path: tuple[str, ...], event: object, record: RecordFacts) -> str | None:
    """Return how to read what an expression looks for in the record, where only the event has it; None: it has not.

    What takes webhooks writes their headers beside their body: `headers` is a field of the event then.
    """
    if value_at(event, path) is None or value_at(Scope(event, record).root, path) is not None:
        return None
    return written_path(("event", *path))


def notes_on_event(rule: RouteRule, event: object, record: RecordFacts, *, is_taken: bool = False) -> Iterator[str]:
    """Note what a route reads of the record, and finds in the event only; and what is nearly equal to what it asks.

    `is_taken`: it takes the event, or would if it could use it. Then what may have been meant to keep the event from it
    is noted, and what it reads otherwise than the event has it.
    """
    for key, text in () if is_taken else expressions_of(rule).items():
        for path, _ in record_paths(text):
            if (own := own_field(path, event, record)) is not None:
                yield f"{key}: {written_path(path)} finds nothing; the event's own field is {own}"
    scope = Scope(event, record)
    if rule.each is not None and not is_taken:
        yield from _read_otherwise({"each": rule.each}, scope)
    for each in [scope] if rule.each is None else map(scope.of_item, _items(rule.each, scope)):
        found = [] if rule.when is None else [*_odd_truths(rule.when, each), *_nearly_equal(rule.when, each, is_taken)]
        if is_taken:
            found += [] if rule.when is None else _without_what_was_before(rule.when, each)
            found += _read_otherwise(expressions_of(rule), each)
        if found:
            yield found[0]
            return


def _read_otherwise(expressions: Mapping[str, str], scope: Scope) -> Iterator[str]:
    """Note what expressions, by their keys, look for, and the event has in another spelling or shape."""
    for key, text in expressions.items():
        of_record = [path for path, is_optional in record_paths(text) if not is_optional and path[0] in _OF_RECORD]
        for path in (*_needed_paths(text), *of_record):
            if value_at(scope.root, path) is not None:
                continue
            instead = read_instead(path, scope.root)
            if instead is not None and instead not in RECORD_NAMES:
                yield f"{key}: {_not_there(path, instead)}"


_OF_RECORD = ("headers", "key")


def _needed_paths(text: str) -> list[tuple[str, ...]]:
    """Return the event's paths for which no other one stands in."""
    return [path for path, is_optional in paths_of(text) if not is_optional and path[0] not in RECORD_NAMES]


def _without_what_was_before(when: str, scope: Scope) -> Iterator[str]:
    """Note that a condition compares with what was before, and the event has nothing of that.

    PostgreSQL gives Debezium no `before` unless the table says REPLICA IDENTITY FULL. Then `before.status != 'sent'`
    is true for each later change of a row that was sent. A row that was created (`c`) had nothing before.
    """
    if value_at(scope.event, ("op",)) == "c":
        return
    paths = _needed_paths(when)
    now = {path[-1] for path in paths if value_at(scope.root, path) is not None}
    for path in paths:
        if len(path) > 1 and path[-1] in now and value_at(scope.root, path[:-1]) is None:
            yield _no_change(path[:-1], path[-1])
    compared = compared_values(when)
    for path, wanted, shall_be in compared:
        changed = [other for other, values, shall in compared if shall and values == wanted and other != path]
        beside = value_at(scope.root, path[:-1])
        if not shall_be and changed and isinstance(beside, dict) and path[-1] not in beside:
            yield _no_change(path, written_path(changed[0]))


def _no_change(before: tuple[str, ...], changed: str) -> str:
    name = written_path(before)
    return f"when: {name} is not there: nothing tells a change of {changed} from any later one of the order"


def _items(each: str, scope: Scope) -> list[object]:
    try:
        found = _compiled(each).search(scope.root)
    except EvaluationError:
        return []
    return found if isinstance(found, list) else []


@lru_cache(maxsize=256)
def _compiled(text: str) -> Expression:
    return compile_expression(text)


def _odd_truths(when: str, scope: Scope) -> Iterator[str]:
    """Note what JMESPath calls true or false, and the event's program the opposite."""
    for path in asked_paths(when):
        found, name = value_at(scope.root, path), written_path(path)
        if found == {}:
            yield f"when: {name} is there, and empty: that is not true, but `{name} != null` is"
        elif isinstance(found, str | int) and not isinstance(found, bool) and _plainly(found) in _NO:
            yield f"when: {name} is a number or text that means no, and is true to JMESPath: compare it with a value"


def _nearly_equal(when: str, scope: Scope, is_taken: bool) -> Iterator[str]:
    for path, wanted, shall_be in compared_values(when):
        if is_taken and shall_be:
            continue
        found = value_at(scope.root, path)
        if found is None and (instead := read_instead(path, scope.root)) is not None:
            yield f"when: {_not_there(path, instead)}"
        if isinstance(found, dict) and (inner := _equal_inside(found, wanted)) is not None:
            name = written_path(path)
            yield f"when: {name} is an object, and equal to no text; {written_path((*path, inner))} is what it has"
        if found is None or isinstance(found, dict | list) or any(_is_same(found, each) for each in wanted):
            continue
        if any(_are_alike(found, each) for each in wanted):
            yield f"when: {written_path(path)} {_DIFFERS}"


def _equal_inside(found: dict[str, object], wanted: list[object]) -> str | None:
    """Return the field of an object that is equal to what the object is compared with."""
    return next((name for name, held in found.items() if any(_is_same(held, each) for each in wanted)), None)


_DIFFERS = "differs from what it is compared with by case, type, blanks or quotes only"
_NO = frozenset({"0", "false", "n", "no"})
_YES = frozenset({"1", "true", "y", "yes"})


def _are_alike(found: object, wanted: object) -> bool:
    if isinstance(wanted, bool):
        return _plainly(found) in (_YES if wanted else _NO)
    return _plainly(found) == _plainly(wanted)


def _not_there(path: tuple[str, ...], instead: str) -> str:
    return f"{written_path(path)} is not there, but {instead} is"


def _is_same(found: object, wanted: object) -> bool:
    return found == wanted and isinstance(found, bool) is isinstance(wanted, bool)


def _plainly(value: object) -> str:
    return (value if isinstance(value, str) else to_json(value).decode()).strip().strip('"').casefold()
