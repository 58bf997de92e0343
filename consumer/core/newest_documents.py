"""Which document of an order is the newest that was sent, so that an older one never replaces it. Pure.

A change of an order counts as a document here. The version is the source offset of the event. A redriven event has a
new offset, but the version of the event that it repeats.

Rules:
 1. A document of an event that comes for the first time is newer than all that were sent before: the source has them
    in their order, and so has the lane.
 2. A redriven document replaces an order only if the newest one that was sent is known and is not newer. Where a
    newer one was taken, it is not sent at all. Where nothing is known, it may create the order, but not replace it.
 3. Whatever was sent counts, also where its answer never came. Only the order's own lane sends its documents, one at
    a time. So nothing is sent between the question and the answer.
 4. What is known belongs to one assignment of the partition: meanwhile another owner may have sent newer ones. It is
    bounded. What is forgotten is unknown, and rule 2 is safe then. So a restart loses no promise: a redriven document
    that could have replaced an older one leaves the order as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from consumer.core.effects import UNKNOWN, Document
from consumer.core.ownership import Assignment

MAX_KNOWN = 10_000  # orders whose newest document is known, per instance: about 4 MB

Lane = tuple[Assignment, str, str]  # partition, connection, order id


@dataclass(slots=True)
class _Newest:
    sent: int = UNKNOWN
    taken: int = UNKNOWN


class NewestDocuments:
    """The newest document that was sent of each order, as far as it is known."""

    def __init__(self, max_known: int = MAX_KNOWN) -> None:
        self._max_known = max_known
        self._newest: OrderedDict[Lane, _Newest] = OrderedDict()

    def __len__(self) -> int:
        return len(self._newest)

    def how_to_send(self, lane: Lane, version: int, *, is_first: bool) -> Document | None:
        """Return how a document may be sent; None: not at all, as a newer one was taken.

        `version`: UNKNOWN where a redriven event does not say what it repeats. `is_first`: it was not redriven.
        """
        newest = self._newest.get(lane)
        if newest is None:
            return Document(replaces=is_first)
        if newest.taken > version:
            return None
        return Document(replaces=newest.sent <= version)

    def sent(self, lane: Lane, version: int) -> None:
        """Note that this version leaves now, and may replace what is there."""
        newest = self._known(lane)
        newest.sent = max(newest.sent, version)

    def taken(self, lane: Lane, version: int) -> None:
        """Note that Engage took this version."""
        newest = self._known(lane)
        newest.sent, newest.taken = max(newest.sent, version), max(newest.taken, version)

    def _known(self, lane: Lane) -> _Newest:
        newest = self._newest.setdefault(lane, _Newest())
        self._newest.move_to_end(lane)
        if len(self._newest) > self._max_known:
            self._newest.popitem(last=False)
        return newest
