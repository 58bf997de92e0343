"""Places: one number that orders the events of a source partition, also over the topics that had its name before.

An offset says nothing without its topic. When a source is deleted and recreated, its offsets begin at 0 again, while
actions of the former topic are still pending. So each topic that followed another one has an incarnation, counted from
0. A place is the incarnation and the offset in one number: the events of an earlier topic come first, and two events
never have the same place. In the first topic, a place is the offset itself.
"""

from __future__ import annotations

MAX_OFFSET = 1 << 63  # Kafka's own limit


def place_of(incarnation: int, offset: int) -> int:
    """Return the place of an event."""
    return incarnation * MAX_OFFSET + offset


def incarnation_at(place: int) -> int:
    """Return which of the topics the place is in."""
    return place // MAX_OFFSET


def offset_at(place: int) -> int:
    """Return the offset of a place."""
    return place % MAX_OFFSET
