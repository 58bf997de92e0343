"""What an event nearly is that no route takes: `route` says so, and nothing else would.

Rules:
 1. A note changes nothing. What is nearly equal is not equal, and no event is sent by it.
 2. It names fields and what the configuration says, and never what the event holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from pydantic_core import to_json

from consumer.events.expressions import (
    EvaluationError,
    Expression,
    asked_paths,
    compared_values,
    compile_expression,
    record_paths,
)
from consumer.events.field_names import plain
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.routing.scope import RecordFacts, Scope
from consumer.events.trees import value_at, written_path


def own_field(path: tuple[str, ...], event: object, record: RecordFacts) -> str | None:
    """Return how to read what an expression looks for in the record, where only the event has it; None: it has not.

    What takes webhooks writes their headers beside their body: `headers` is a field of the event then.
    """
    if value_at(event, path) is None or value_at(Scope(event, record).root, path) is not None:
        return None
    return written_path(("event", *path))


def notes_on_event(rule: RouteRule, event: object, record: RecordFacts, *, is_taken: bool = False) -> Iterator[str]:
    """Note what a route reads of the record, and finds in the event only; and what is nearly equal to what it asks.

    `is_taken`: it takes the event. Then only what may have been meant to keep the event from it is noted.
    """
    for key, text in () if is_taken else expressions_of(rule).items():
        for path, _ in record_paths(text):
            if (own := own_field(path, event, record)) is not None:
                yield f"{key}: {written_path(path)} finds nothing; the event's own field is {own}"
    scope = Scope(event, record)
    for each in [scope] if rule.each is None else map(scope.of_item, _items(rule.each, scope)):
        if rule.when is None:
            return
        found = (*_odd_truths(rule.when, each), *_nearly_equal(rule.when, each, is_taken))
        if found:
            yield found[0]
            return


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
        if found is None and (other := _other_spelling(path, scope.root)) is not None:
            yield f"when: {written_path(path)} is not there, but {written_path(other)} is"
        if found is None or isinstance(found, dict | list) or any(_is_same(found, each) for each in wanted):
            continue
        if any(_are_alike(found, each) for each in wanted):
            yield f"when: {written_path(path)} {_DIFFERS}"


_DIFFERS = "differs from what it is compared with by case, type, blanks or quotes only"
_NO = frozenset({"0", "false", "n", "no"})
_YES = frozenset({"1", "true", "y", "yes"})


def _are_alike(found: object, wanted: object) -> bool:
    if isinstance(wanted, bool):
        return _plainly(found) in (_YES if wanted else _NO)
    return _plainly(found) == _plainly(wanted)


def _other_spelling(path: tuple[str, ...], value: object) -> tuple[str, ...] | None:
    """Return the path that differs in the case of its names, `_` or `-` alone, and is there."""
    other: list[str] = []
    for name in path:
        names = list(value) if isinstance(value, dict) else []
        found = name if name in names else next((each for each in names if plain(each) == plain(name)), "")
        value = value.get(found) if isinstance(value, dict) else None
        other.append(found)
    return None if value is None or tuple(other) == path else tuple(other)


def _is_same(found: object, wanted: object) -> bool:
    return found == wanted and isinstance(found, bool) is isinstance(wanted, bool)


def _plainly(value: object) -> str:
    return (value if isinstance(value, str) else to_json(value).decode()).strip().strip('"').casefold()
