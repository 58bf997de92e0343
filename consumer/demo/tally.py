"""The tally: what became of each event, judged from outside the relay. PURE.

Its sources are what the demo itself wrote to Kafka, the account of the Engage simulator, and the dead-letter topic;
never what the relay says of itself. Only where Engage has no account to show (`of_metrics`) the relay is believed.

It adds up when every event came to exactly one end:
 1. It was accepted, became a dead letter, or was ignored (unrouted, or a tombstone). Otherwise it is *lost*, or
    ended *twice*.
 2. It was accepted once. It may be accepted again only where an answer was lost and the relay, in doubt, sent the
    action again: not before RESENT_AFTER_S, and not more often than answers were lost. Otherwise it is *doubled*.
 3. Within an order, actions were accepted in the order of the events. Otherwise one came *out of order*.
 4. Engage accepted nothing for which there was no event.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from consumer.demo.story import Event
from schemas.dead_letter import Reason
from schemas.engage import ActionName

# Engage asks for 10 s before the first retry of a failed call; the relay spreads that by 20 % (pacing.py).
RESENT_AFTER_S = 7.5


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An action that Engage accepted. `event` is the number that it carried. Seconds since 1970.

    `with_document`: it came in the order's document. `after_no_contact`: Engage refused it before, as the order had no
    contact yet.
    """

    event: int | None
    order_id: str
    action: str
    tag_ready_at: float
    accepted_at: float
    with_document: bool = False
    after_no_contact: bool = False


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A dead letter; `event` None where its headers name no event of ours."""

    event: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Requests:
    """What Engage was asked: how often for a tag (jobs and orders), and how often in all."""

    polls: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The result. What could not be seen is None."""

    by_account: bool
    events: int
    accepted: Mapping[ActionName | str, int]
    dead_letters: Mapping[Reason, int]
    unrouted: int
    tombstones: int
    requests: Requests
    with_document: int | None
    after_no_contact: int | None
    resent: int | None
    lost: int
    doubled: int | None
    out_of_order: int | None
    ended_twice: int | None
    unasked: int | None
    ready_to_accepted_s: tuple[float, float] | None
    """p50 and p95, of the first acceptances; from the tag's being ready or the event's being written, if later.

    Without those that needed no tag.
    """

    @property
    def actions(self) -> int:
        """How many actions were accepted, resends not counted."""
        return sum(self.accepted.values())

    @property
    def adds_up(self) -> bool:
        """Tell whether every event came to exactly one end, as the module's rules say."""
        ends = self.actions + sum(self.dead_letters.values()) + self.unrouted + self.tombstones
        faults = (self.lost, self.doubled, self.out_of_order, self.ended_twice, self.unasked)
        return ends == self.events and not any(faults)

    def lines(self) -> list[tuple[str, str]]:
        """Return it as text: what, and how much."""
        lines = [("events in", str(self.events)), ("actions accepted", str(self.actions))]
        lines += [(f"  {action}", str(count)) for action, count in self.accepted.items()]
        if self.with_document is not None:
            lines.append(("  of these in the order's document", str(self.with_document)))
        if self.after_no_contact is not None:
            lines.append(("  of these once a late contact came", str(self.after_no_contact)))
        lines.append(("dead letters", str(sum(self.dead_letters.values()))))
        lines += [(f"  {reason.value}", str(count)) for reason, count in self.dead_letters.items()]
        lines.append(("ignored: no route takes it", str(self.unrouted)))
        lines.append(("ignored: tombstones", str(self.tombstones)))
        lines.append(("polls per accepted action", _ratio(self.requests.polls, self.actions)))
        lines.append(("requests per accepted action", _ratio(self.requests.total, self.actions)))
        if self.ready_to_accepted_s is not None:
            p50_s, p95_s = self.ready_to_accepted_s
            lines.append(("tag ready to accepted, p50", f"{p50_s:.2f} s"))
            lines.append(("tag ready to accepted, p95", f"{p95_s:.2f} s"))
        lines.append(("sent again after a lost answer", _seen(self.resent)))
        lines.append(("lost", str(self.lost)))
        lines.append(("doubled without doubt", _seen(self.doubled)))
        lines.append(("out of order within an order", _seen(self.out_of_order)))
        lines += [(what, str(n)) for what, n in (("ended twice", self.ended_twice), ("unasked", self.unasked)) if n]
        return lines


def of_account(
    events: Sequence[Event],
    written_at: Mapping[int, float],
    acceptances: Sequence[Acceptance],
    dead_lettered: Sequence[DeadLettered],
    *,
    requests: Requests,
    answers_lost: int,
) -> Tally:
    """Judge by Engage's account.

    `events` are those that were written, `written_at` when, by number (seconds since 1970); `acceptances` in the order
    in which Engage accepted; `answers_lost`: how many answers to actions never arrived, as far as Engage knows.
    """
    known = {event.number: event for event in events}
    of_event: dict[int, list[Acceptance]] = {}
    for each in acceptances:
        event = known.get(-1 if each.event is None else each.event)
        if event is not None and (event.order_id, event.action) == (each.order_id, each.action):
            of_event.setdefault(event.number, []).append(each)
    dead_letters = Counter(each.event for each in dead_lettered if each.event in known)
    resent, doubled = _repeats(of_event, answers_lost)
    accepted = Counter(each[0].action for each in of_event.values())
    reasons = Counter(each.reason for each in dead_lettered)
    ended = of_event.keys() | dead_letters.keys()
    return Tally(
        by_account=True,
        events=len(events),
        accepted={action: accepted[action] for action in sorted(accepted)},
        dead_letters={reason: reasons[reason] for reason in Reason if reasons[reason]},
        unrouted=sum(event.kind == "unrouted" and event.number not in ended for event in events),
        tombstones=sum(event.kind == "tombstone" and event.number not in ended for event in events),
        requests=requests,
        with_document=sum(each[0].with_document for each in of_event.values()),
        after_no_contact=sum(each[0].after_no_contact for each in of_event.values()),
        resent=resent,
        lost=sum(event.kind in ("action", "unusable") and event.number not in ended for event in events),
        doubled=doubled,
        out_of_order=_out_of_order(acceptances),
        ended_twice=len(of_event.keys() & dead_letters.keys()) + sum(count - 1 for count in dead_letters.values()),
        unasked=len(acceptances)
        - sum(map(len, of_event.values()))
        + sum(each.event not in known for each in dead_lettered),
        ready_to_accepted_s=_latencies(of_event, written_at),
    )


def of_metrics(
    events: Sequence[Event], accepted: Mapping[str, int], dead_lettered: Sequence[DeadLettered], requests: Requests
) -> Tally:
    """Judge by the relay's own counters and the dead-letter topic: nobody else saw anything."""
    reasons = Counter(each.reason for each in dead_lettered)
    kinds = Counter(event.kind for event in events)
    expected = kinds["action"] + kinds["unusable"]
    return Tally(
        by_account=False,
        events=len(events),
        accepted={action: count for action, count in sorted(accepted.items()) if count},
        dead_letters={reason: reasons[reason] for reason in Reason if reasons[reason]},
        unrouted=kinds["unrouted"],
        tombstones=kinds["tombstone"],
        requests=requests,
        with_document=None,
        after_no_contact=None,
        resent=None,
        lost=max(0, expected - sum(accepted.values()) - len(dead_lettered)),
        doubled=None,
        out_of_order=None,
        ended_twice=None,
        unasked=None,
        ready_to_accepted_s=None,
    )


def _repeats(of_event: Mapping[int, Sequence[Acceptance]], answers_lost: int) -> tuple[int, int]:
    """Count resends after a lost answer, and what was doubled without one (rule 2)."""
    late = early = 0
    for accepted in of_event.values():
        for before, after in pairwise(accepted):
            if after.accepted_at - before.accepted_at >= RESENT_AFTER_S:
                late += 1
            else:
                early += 1
    resent = min(late, answers_lost)
    return resent, early + late - resent


def _out_of_order(acceptances: Sequence[Acceptance]) -> int:
    """Count acceptances behind one of a later event of the same order (rule 3)."""
    latest: dict[str, int] = {}
    wrong = 0
    for each in acceptances:
        if each.event is None:
            continue
        wrong += each.event < latest.get(each.order_id, each.event)
        latest[each.order_id] = max(each.event, latest.get(each.order_id, each.event))
    return wrong


def _latencies(
    of_event: Mapping[int, Sequence[Acceptance]], written_at: Mapping[int, float]
) -> tuple[float, float] | None:
    took = sorted(
        max(0.0, accepted[0].accepted_at - max(accepted[0].tag_ready_at, written_at.get(number, 0.0)))
        for number, accepted in of_event.items()
        if not accepted[0].with_document
    )
    if not took:
        return None
    p50_s, p95_s = (took[math.ceil(share * len(took)) - 1] for share in (0.5, 0.95))
    return p50_s, p95_s


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "-"


def _seen(count: int | None) -> str:
    return "not seen: Engage shows no account" if count is None else str(count)
