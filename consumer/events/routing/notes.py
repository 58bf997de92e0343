"""What is probably an error in a route, though it can be used as it stands: `check-config` says so."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from pydantic_core import to_json

from consumer.events import facts
from consumer.events.expressions import compared_paths, compared_values, paths_of, record_paths, written_keys
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.routing.scope import RecordFacts, Scope
from consumer.events.routing.tag_sources import ORDER_ACTION, names_order_action
from consumer.events.trees import value_at, written_path
from schemas.engage import DOCUMENTED_ACTIONS


def notes_on(rule: RouteRule) -> Iterator[str]:
    """Note what is probably an error in a route."""
    if (note := note_on(rule.action)) is not None:
        yield note
    if rule.order is not None and any(map(names_order_action, written_keys(rule.order))):
        yield f"order: the document has an {ORDER_ACTION} of its own: its events become dead letters, not two e-mails"
    if may_swallow_a_parcel(rule):
        yield (
            f"fact: two {rule.action} of one order within `repeats` are one fact, and the second is not sent; if an"
            " order may have several parcels, name the parcel's id (fact: data.parcelId)"
        )
    for one, other in [] if rule.when is None else compared_paths(rule.when):
        yield f"when: it compares {one} with the field {other}; a text stands in single quotes, '{other}'"
    for key, text in expressions_of(rule).items():
        of_the_event = {path[1:] for path, _ in record_paths(text) if path[0] == "event"}  # event.headers is meant
        for path, _ in paths_of(text):
            if path not in of_the_event and (meant := nearly_a_record_name(path[0])) is not None:
                yield f"{key}: {path[0]} is a field of the event; of its record there is `{meant}`"


def own_field(path: tuple[str, ...], event: object, record: RecordFacts) -> str | None:
    """Return how to read what an expression looks for in the record, where only the event has it; None: it has not.

    What takes webhooks writes their headers beside their body: `headers` is a field of the event then.
    """
    if value_at(event, path) is None or value_at(Scope(event, record).root, path) is not None:
        return None
    return written_path(("event", *path))


def notes_on_event(rule: RouteRule, event: object, record: RecordFacts) -> Iterator[str]:
    """Note what a route reads of the record, and finds in the event only; and what is nearly equal to what it asks."""
    for key, text in expressions_of(rule).items():
        for path, _ in record_paths(text):
            if (own := own_field(path, event, record)) is not None:
                yield f"{key}: {written_path(path)} finds nothing; the event's own field is {own}"

    yield from _nearly_equal(rule, Scope(event, record))


def _nearly_equal(rule: RouteRule, scope: Scope) -> Iterator[str]:
    for path, wanted in () if rule.when is None else compared_values(rule.when):
        found = value_at(scope.root, path)
        if found is None or isinstance(found, dict | list) or any(_is_same(found, each) for each in wanted):
            continue
        if any(_plainly(found) == _plainly(each) for each in wanted):
            yield f"when: {written_path(path)} is the same but for its case, its type, blanks or quotes"


def _is_same(found: object, wanted: object) -> bool:
    return found == wanted and isinstance(found, bool) is isinstance(wanted, bool)


def _plainly(value: object) -> str:
    return (value if isinstance(value, str) else to_json(value).decode()).strip().strip('"').casefold()


def note_on(action: str) -> str | None:
    """Note an action that Engage's documentation does not list: it is the merchant's own, or misspelt."""
    if action in DOCUMENTED_ACTIONS:
        return None
    return f"Engage's documentation does not list the action {action}: it must be set up in Engage by this name"


def may_swallow_a_parcel(rule: RouteRule) -> bool:
    """Tell whether a route sends what an order may have several of, and does not tell them apart."""
    is_of_parcels = rule.action in ("ConfirmShipment", "ConfirmDelivery")
    names_one = rule.each is not None or rule.fact is not None or rule.repeats == "off"
    in_data = rule.data is not None and (rule.data == "data" or any(map(facts.names_a_parcel, written_keys(rule.data))))
    return is_of_parcels and not names_one and not in_data


def nearly_a_record_name(name: str) -> str | None:
    """Return the record's name that this one may be an error for: `header` for `headers`, say."""
    if name.lower() in ("header", "headers", "hdrs", "record_headers"):
        return "headers"
    return next(iter(get_close_matches(name.lower(), ("headers", "meta"), n=1, cutoff=0.85)), None)
