"""Which records are about an order: a search over raw bytes first, as only few are read at all. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable

from consumer.events.deciding import Decision
from consumer.events.decoding import Undecodable, decode
from consumer.events.routing.results import Misrouted, Routed, Several
from consumer.kafka.records import SourceEvent

Contains = Callable[[bytes | None], bool]


def holder_of(order_id: str) -> Contains:
    """Return what tells whether bytes may name the order: as text, or as JSON writes it."""
    written = json.dumps(order_id, ensure_ascii=False)[1:-1]
    needles = {order_id.encode(), written.encode(), json.dumps(order_id)[1:-1].encode()}
    needles |= {each.replace(b"/", rb"\/") for each in needles}
    if len(needles) == 1:
        (needle,) = needles
        return lambda text: text is not None and needle in text
    return lambda text: text is not None and any(needle in text for needle in needles)


def actions_of(decision: Decision) -> tuple[Routed, ...]:
    """Return the actions that an event becomes."""
    if isinstance(decision, Routed):
        return (decision,)
    return decision.actions if isinstance(decision, Several) else ()


def is_about(order_id: str, event: SourceEvent, decision: Decision) -> bool:
    """Tell whether an event is the order's: by its route, else by its key or a value in it."""
    if actions := actions_of(decision):
        return any(each.order_id == order_id for each in actions)
    if isinstance(decision, Misrouted) and decision.order_id is not None:
        return decision.order_id == order_id
    if event.key == order_id.encode():
        return True
    value = None if event.value is None else decode(event.value)
    if isinstance(value, Undecodable):
        return holder_of(order_id)(event.value)
    return _names(value, order_id)


def _names(value: object, order_id: str) -> bool:
    """Tell whether a value, or one in it, is this id. Decoded values are not deep."""
    match value:
        case dict():
            return any(_names(each, order_id) for each in value.values())
        case list():
            return any(_names(each, order_id) for each in value)
        case bool() | None:
            return False
    return str(value) == order_id
