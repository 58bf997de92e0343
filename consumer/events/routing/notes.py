"""What is probably an error in a route, though it can be used as it stands: `check-config` says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from consumer.events import facts
from consumer.events.expressions import compared_paths, paths_of, record_paths, written_keys
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.routing.tag_sources import ORDER_ACTION, names_order_action
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


def note_on(action: str) -> str | None:
    """Note an action that Engage's documentation does not list: it is the merchant's own, or misspelt."""
    if action in DOCUMENTED_ACTIONS:
        return None
    return f"Engage's documentation does not list the action {action}: it must be set up in Engage by this name"


def note_on_language(language: str | None) -> str | None:
    """Note a language that is not written as a tag of RFC 5646 (2.1), as Engage's own examples are; None: it is one."""
    if language is None or _LANGUAGE_TAG.fullmatch(language):
        return None
    return "the language is not written as in Engage's documentation, such as sv-SE: replace(…, '_', '-') and the like"


_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-[A-Za-z0-9]{1,8})*")


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
