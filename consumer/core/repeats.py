"""Which facts were sent within the window, so that none is sent twice. PURE.

Rules:
 1. A fact is open from when its event is read until its action ends. Meanwhile it is a repeat, however long that takes.
 2. An action that Engage accepted, or that ended in doubt, keeps its fact from being sent for the window. So does one
    that was superseded: it is no news any more. One that ended otherwise frees it: nobody was told.
 3. Facts belong to a partition, as their orders do: whoever owns it knows them. They are bounded by the window.
 4. Nobody remembers which of the open facts belongs to which parked action. Where parked actions are gone, all that
    were parked are forgotten: a fact that stays open for ever would cost an e-mail, a repeat is one too many.

A fact that was sent costs 47 to 76 bytes (sent_facts.py), one that is open 19 to 37 (open_facts.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from consumer.core.open_facts import OpenFacts
from consumer.core.ownership import Assignment
from consumer.core.sent_facts import SentFacts


class _Facts:
    __slots__ = ("open", "sent")

    def __init__(self, window_s: float) -> None:
        self.open = OpenFacts()
        self.sent = SentFacts(window_s)


class Repeats:
    """The facts of the owned partitions. Times are seconds since 1970."""

    def __init__(self, window_s: float) -> None:
        """`window_s`: the longest that a route asks for."""
        self._window_s = window_s
        self._partitions: dict[Assignment, _Facts] = {}

    def __len__(self) -> int:
        return sum(len(each.open) + len(each.sent) for each in self._partitions.values())

    def assign(self, assignment: Assignment, pending: Iterable[bytes], parked: Iterable[bytearray] = ()) -> None:
        """Add a partition, with the facts of its pending actions: `parked` are many at once (open_facts.py)."""
        facts = self._partitions[assignment] = _Facts(self._window_s)
        for fact in pending:
            facts.open.add(fact)
        for packed in parked:
            facts.open.extend(packed)

    def restore(self, assignment: Assignment, sent: Iterable[tuple[bytes, float]]) -> None:
        """Add what was sent before this assignment, in whatever order."""
        facts = self._partitions.get(assignment)
        if facts is not None:
            facts.sent = SentFacts(self._window_s, chain(sent, facts.sent))

    def drop(self, assignment: Assignment) -> None:
        """Forget a partition that is another instance's now."""
        self._partitions.pop(assignment, None)

    def is_repeat(self, assignment: Assignment, fact: bytes, window_s: float, now: float) -> bool:
        """Tell whether a fact is open, or was sent within the window."""
        facts = self._partitions.get(assignment)
        if facts is None:
            return False
        sent_at = facts.sent.sent_at(fact)
        return fact in facts.open or (sent_at is not None and now - sent_at < window_s)

    def opened(self, assignment: Assignment, fact: bytes) -> None:
        """Note that an action of this fact is pending."""
        facts = self._partitions.get(assignment)
        if facts is not None:
            facts.open.add(fact)

    def parked_are_gone(self, assignment: Assignment, held: Iterable[bytes]) -> None:
        """Note that parked actions will never end: only these facts, of what the ledger holds, are open (rule 4)."""
        facts = self._partitions.get(assignment)
        if facts is not None:
            facts.open = OpenFacts()
            for fact in held:
                facts.open.add(fact)

    def ended(self, assignment: Assignment, fact: bytes, now: float, *, sent: bool) -> None:
        """Note that an action of this fact has ended: sent, perhaps in doubt, or not (rule 2)."""
        facts = self._partitions.get(assignment)
        if facts is None:
            return
        facts.open.discard(fact)
        if sent:
            facts.sent.sent(fact, now)
