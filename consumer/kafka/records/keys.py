"""The delay topic's key of an action: it names the place of the action's event, and the route."""

from __future__ import annotations

from consumer.core.places import MAX_ITEMS, incarnation_at, item_at, offset_at, place_of


def action_key(place: int, route: str) -> bytes:
    """Return the delay topic's key of an action."""
    item = item_at(place)
    event = b"%d:%d" % (incarnation_at(place), offset_at(place))
    return b"%b:%b" % (b"%b.%d" % (event, item) if item else event, route.encode())


def place_of_key(key: bytes) -> int | None:
    """Return the place of the action's event (core/places.py); None where it is no action's key."""
    parts = key.split(b":", 2)
    if len(parts) < 3:
        return None
    offset, dot, item = parts[1].partition(b".")
    numbers = (parts[0], offset, item if dot else b"0")
    if not all(number.isdigit() and len(number) < 20 for number in numbers) or int(numbers[2]) >= MAX_ITEMS:
        return None
    return place_of(*map(int, numbers))
