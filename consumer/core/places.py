"""Places: one number that orders the events of a source partition, also over the topics that had its name before.

An offset says nothing without its topic. When a source is deleted and recreated, its offsets begin at 0 again, while
actions of the former topic are still pending. So each topic that followed another one has an incarnation, counted from
0. An event may be several actions, one for each of its items (a route's `each`), counted from 0.

A place is incarnation, offset and item in one number: the events of an earlier topic come first, and two actions never
have the same place.
"""

from __future__ import annotations

MAX_OFFSET = 1 << 63  # Kafka's own limit
MAX_ITEMS = 1 << 12
"""Of one event. A parcel list has a few, a warehouse's file some hundred."""


def place_of(incarnation: int, offset: int, item: int = 0) -> int:
    """Return the place of an event, or of one of its items."""
    return (incarnation * MAX_OFFSET + offset) * MAX_ITEMS + item


def incarnation_at(place: int) -> int:
    """Return which of the topics the place is in."""
    return place // MAX_ITEMS // MAX_OFFSET


def offset_at(place: int) -> int:
    """Return the offset of a place."""
    return place // MAX_ITEMS % MAX_OFFSET


def item_at(place: int) -> int:
    """Return which of its event's items the place is."""
    return place % MAX_ITEMS
