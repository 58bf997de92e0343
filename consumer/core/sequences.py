"""What a later action of an order does to an earlier one that waits, and which step of an order was sent last. Pure.

Rules:
 1. An action is superseded while a later one of its order, of a route that supersedes its own, is pending. Within an
    order actions end in their sequence, so nobody has to remember it: the later one is there as long as the earlier.
 2. What is parked is later than what is held (parking.py). So of a parked action that supersedes, a mark is enough: it
    says the order and the route, and is there until the action is read back.
 3. What a person had sent again neither supersedes nor is superseded, and is in sequence. An action that was read in a
    shadow run supersedes only such actions.
 4. Of an order the furthest step is kept that was sent, perhaps in doubt: accepted, or ended as `outcome_unknown`. An
    earlier step is out of sequence for the window after that.
 5. It is the sequence in which the customer is told that counts, so that of the events in their partition, not their
    times: these come from different clocks, and may be dates.

A mark costs 19 to 37 bytes, as an open fact does (open_facts.py), an order whose step was sent 180.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.effects import NewAction


class SentStep(NamedTuple):
    """A step of an order that was sent, and when it ended, in seconds since 1970."""

    connection: str
    order_id: str
    action: str
    at: float


class Sequences:
    """The rules of a configuration. `window_s`: how long a step that was sent is kept."""

    def __init__(
        self,
        superseded_by: Mapping[str, Collection[str]] | None = None,
        steps: Sequence[str] = (),
        window_s: float = 0.0,
    ) -> None:
        """`superseded_by`: by route. `steps`: actions, in their order."""
        self.superseded_by = {route: frozenset(by) for route, by in (superseded_by or {}).items() if by}
        self.superseding = frozenset(route for by in self.superseded_by.values() for route in by)
        self.steps = {action: number for number, action in enumerate(steps)}
        self.names = tuple(steps)
        self.window_s = window_s

    def supersedes(self, action: NewAction) -> bool:
        """Tell whether an action may supersede another one (rule 3)."""
        return action.route in self.superseding and action.first_offset is None

    def has_later(self, action: str) -> bool:
        """Tell whether an action is a step, and not the last."""
        step = self.steps.get(action)
        return step is not None and step + 1 < len(self.steps)


NO_SEQUENCES = Sequences()


def mark_of(connection: str, order_id: str, route: str, *, shadow: bool) -> bytes:
    """Return what is kept of a parked action that supersedes others (rule 2)."""
    return _digest(connection, order_id, route, "shadow" if shadow else "")


def mark_of_action(action: NewAction) -> bytes:
    """Return an action's mark."""
    return mark_of(action.connection, action.order_id, action.route, shadow=action.shadow)


def _digest(*parts: str) -> bytes:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


class SentSteps:
    """The furthest steps that were sent, of the orders of one partition (rule 4)."""

    def __init__(self, sequences: Sequences, *, known: bool) -> None:
        """`known`: whether all is known that was sent before."""
        self._sequences = sequences
        self._sent: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # the oldest first
        self.known = known

    def __len__(self) -> int:
        return len(self._sent)

    def restore(self, sent: Iterable[SentStep]) -> None:
        """Add what was sent before, in whatever order. Then all is known, as far as it can be."""
        now_known = list(self._sent.items())
        self._sent.clear()
        for each in sorted(sent, key=lambda step: step.at):
            self.sent(each)
        for order, (at, step) in now_known:
            self._note(order, at, step)
        self._sent = OrderedDict(sorted(self._sent.items(), key=lambda each: each[1][0]))
        self.known = True

    def sent(self, sent: SentStep) -> None:
        """Note that an action was sent, perhaps in doubt, and has ended."""
        step = self._sequences.steps.get(sent.action)
        if step is not None:
            self._note(_digest(sent.connection, sent.order_id), sent.at, step)
            self._forget_old(sent.at)

    def later(self, connection: str, order_id: str, action: str, now: float) -> str | None:
        """Return the later step of the order that was sent within the window; None: none was."""
        step = self._sequences.steps.get(action)
        if step is None or not self._sent:
            return None
        at, furthest = self._sent.get(_digest(connection, order_id), (now, -1))
        return self._sequences.names[furthest] if furthest > step and now - at < self._sequences.window_s else None

    def _note(self, order: bytes, at: float, step: int) -> None:
        known = self._sent.get(order)
        if known is None or step >= known[1] or at - known[0] >= self._sequences.window_s:
            self._sent[order] = (at, step)
            self._sent.move_to_end(order)

    def _forget_old(self, now: float) -> None:
        while self._sent:
            order, (at, _) = next(iter(self._sent.items()))
            if now - at < self._sequences.window_s:
                break
            del self._sent[order]
