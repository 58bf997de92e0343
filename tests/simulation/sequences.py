"""The oracle's view of an order's sequence: what supersedes what, and which step comes back too late.

What must hold (mutations of the production code that break it: sequence_mutants.py):
 1. Once the record of an action that supersedes an earlier one of its order is committed, no intent of the earlier one
    is committed any more, and its document does not leave under a record that was written later. Excused is one that
    may have been sent: an intent of it was the last that was written. And one whose later action was parked when
    parked actions were found to be gone: with their marks.
 2. An action is superseded only by a later one of its order that is pending then, and only if it was surely not sent.
 3. Once it is committed that a step of an order was sent, no intent of an earlier step that came after it is committed
    within the window. Excused is what may have been sent, and what nobody can know: where a restore could not read the
    outcomes.
 4. An action is out of sequence only where a later step of its order was sent before, within the window.
 5. What a person had sent again is neither superseded nor out of sequence, and supersedes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING

from consumer.core.sequences import Sequences
from schemas.dead_letter import Reason
from schemas.outcome import Outcome, OutcomeName
from tests.simulation.control import scope_of
from tests.simulation.workload import WINDOW_S, Event

if TYPE_CHECKING:
    from tests.simulation.kafka_model import Record

SUPERSEDED_BY = {"resend": ("dead_letter", "with_document"), "with_document": ("dead_letter",)}
STEPS = ("ConfirmOrder", "ConfirmShipment")
SLACK_S = 0.002  # records hold milliseconds
Live = Mapping[bytes, "Record"]


def sequences_of(*, supersedes: bool, steps: bool) -> Sequences:
    """Return the rules of a schedule."""
    return Sequences(SUPERSEDED_BY if supersedes else {}, STEPS if steps else (), WINDOW_S)


class SequencesOracle:
    """What became of the actions of each order."""

    def __init__(self, rules: Sequences, reach: Callable[[str], None], *, exact_clocks: bool) -> None:
        """`exact_clocks`: no clock was set, so that all instances agree on the window."""
        self._rules = rules
        self._reach = reach
        self._exact_clocks = exact_clocks
        self._lost_at: dict[int, float] = {}  # by partition, when a restore last knew nothing of what was sent before
        self._gone_at: dict[int, float] = {}  # and when parked actions were last found to be gone

    def are_lost(self, partition: int, now: float) -> None:
        """Note that a restore does not know what was sent before."""
        self._lost_at[partition] = now

    def parked_are_gone(self, partition: int, now: float) -> None:
        """Note that a process found parked actions to be gone."""
        self._gone_at[partition] = now

    # -- what supersedes ----------------------------------------------------------------------------------------

    def saved_superseder(self, event: Event, events: list[Event], live: Live, before: int, read: int) -> Event | None:
        """Return what supersedes an event's action, by a record that lies before this offset; None: nothing does.

        `read`: the place up to which the source was read.
        """
        for later in self._later_of_order(event, events):
            record = live.get(later.key)  # a dead letter that its topic refused is none of an action
            is_pending = record is not None and b'"state":"refused"' not in (record.value or b"")[:40]
            if (
                record is not None
                and is_pending
                and record.offset < before
                and later.place < read
                and self._supersedes(later, event)
            ):
                gone_at = self._gone_at.get(event.partition, -math.inf)
                return None if later.first_seen <= gone_at + SLACK_S else later
        return None

    def _supersedes(self, later: Event, earlier: Event) -> bool:
        by = self._rules.superseded_by.get(scope_of(earlier).route or "", ())
        return scope_of(later).route in by and later.first is None and earlier.first is None

    def _later_of_order(self, event: Event, events: list[Event]) -> Iterator[Event]:
        return (each for each in events[event.index + 1 :] if each.order == event.order and each.payload)

    # -- steps --------------------------------------------------------------------------------------------------

    def later_step_sent(self, event: Event, events: list[Event], now: float) -> Event | None:
        """Return the later step of the event's order that was sent before it, within the window; None: none was."""
        for earlier in events[: event.index]:
            ended = earlier.sent_and_ended_at
            if ended is None or earlier.order != event.order or not self._is_later_step(earlier, event):
                continue
            is_lost = self._lost_at.get(event.partition, -math.inf) >= ended - SLACK_S
            if self._exact_clocks and now - ended < WINDOW_S - SLACK_S and not is_lost and event.first is None:
                return earlier
        return None

    def leaves_steps_behind(self, event: Event, events: list[Event]) -> bool:
        """Whether an earlier step of an order that was sent waits behind it."""
        if event.sent_and_ended_at is None:
            return False
        return any(self._is_later_step(event, later) for later in self._later_of_order(event, events))

    def _is_later_step(self, one: Event, other: Event) -> bool:
        steps = self._rules.steps
        first, second = (steps.get(scope_of(each).action or "", -1) for each in (one, other))
        return first > second >= 0

    # -- outcomes -----------------------------------------------------------------------------------------------

    def may_be_stopped(self, event: Event, events: list[Event]) -> bool:
        """Whether there is an event that could stop it."""
        stepped = any(self._is_later_step(each, event) for each in events[: event.index] if each.order == event.order)
        return stepped or any(self._supersedes(each, event) for each in self._later_of_order(event, events))

    def sent(self, event: Event, outcome: Outcome) -> None:
        """Note which actions were sent."""
        if outcome.outcome is OutcomeName.ACCEPTED or outcome.reason == Reason.OUTCOME_UNKNOWN:
            event.sent_and_ended_at = outcome.ended_ms / 1000

    def ended(
        self, event: Event, outcome: Outcome, events: list[Event], there: Container[bytes | None], *, torn: bool
    ) -> str | None:
        """Say what is wrong with an event's outcome. `there`: the keys of what is pending, or was until now."""
        if outcome.outcome not in (OutcomeName.SUPERSEDED, OutcomeName.OUT_OF_SEQUENCE):
            return None
        if event.first is not None:
            return f"event {event.number} was redriven, and is {outcome.outcome}"
        if outcome.outcome is OutcomeName.SUPERSEDED:
            return self._superseded(event, outcome, events, there, torn=torn)
        self._reach("a step backwards was withdrawn" if event.key in there else "a step backwards was not taken")
        ended = outcome.ended_ms / 1000
        for earlier in events[: event.index]:
            if earlier.order == event.order and self._is_later_step(earlier, event):
                at = earlier.sent_and_ended_at
                if at is not None and (ended - at < WINDOW_S + SLACK_S or not self._exact_clocks):
                    return None
        return None if torn else f"event {event.number} is out of sequence, and no later step was sent before"

    def _superseded(
        self, event: Event, outcome: Outcome, events: list[Event], there: Container[bytes | None], *, torn: bool
    ) -> str | None:
        self._reach("an action was superseded")
        if outcome.sends:
            self._reach("an action that was not processed was superseded")
        if event.says_sending:
            self._reach("an action whose intent was saved was superseded")
        if "offset" not in (outcome.reason or ""):
            self._reach("an action was superseded by one that is parked")
        for later in self._later_of_order(event, events):
            # A record that is too large for its topic becomes a dead letter.
            is_there = later.key in there or later.bereft or later.ever_bereft or later.torn or later.kind == "huge"
            if self._supersedes(later, event) and is_there:
                return None
        return None if torn else f"event {event.number} is superseded, and nothing supersedes it"
