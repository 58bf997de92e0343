"""An order's history in words: for each event what became of it, step by step. Pure.

A step is told once, by the record that knows it best: the outcome where there is one, else the delay topic's records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from consumer.core.pauses import Pause, Scope
from consumer.events.deciding import Ignored
from consumer.events.routing.results import Misrouted
from consumer.kafka.orders.history import FoundDeadLetter, FoundRecord, History
from consumer.kafka.orders.matching import actions_of
from consumer.kafka.topics.topics import RelayTopics
from schemas.outcome import Outcome, OutcomeName

IsPaused = Callable[[Scope], Pause | None]
"""Returns what holds such actions now; None: nothing does."""
PENDING, UNREAD, IGNORED, UNTOLD = "pending", "unread", "ignored", "untold"


class At(NamedTuple):
    """Where an event lies, and which of its items is meant. `incarnation`: of its topic (core/places.py)."""

    topic: str
    partition: int
    offset: int
    item: int | None = None
    incarnation: int = 0

    def __str__(self) -> str:
        item = "" if self.item is None else f", item {self.item}"
        incarnation = f", incarnation {self.incarnation}" if self.incarnation else ""
        return f"{self.topic}[{self.partition}] {self.offset}{item}{incarnation}"


@dataclass(frozen=True, slots=True)
class Step:
    """What happened at a time (ms since 1970), in words. `at_ms`: None where nobody knows when."""

    at_ms: int | None
    text: str


@dataclass(slots=True)
class Entry:
    """An event, or one of its items, and what became of it.

    `state`: an outcome's name, or PENDING, UNREAD, IGNORED; UNTOLD where no record tells. `in_source`: its event is
    still there. `redriven`: its dead letter was, or is marked as dealt with.
    """

    at: At
    state: str = UNTOLD
    route: str | None = None
    action: str | None = None
    connection: str | None = None
    reason: str | None = None
    next_due_ms: int | None = None
    in_source: bool = False
    redriven: bool = False
    steps: list[Step] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is: `ConfirmShipment (route shipped, connection default)`."""
        if self.action is None:
            return "no action" if self.route is None else f"no action (route {self.route})"
        return f"{self.action} (route {self.route}, connection {self.connection})"


@dataclass(frozen=True, slots=True)
class Searched:
    """What was searched of a partition. `since_ms`: the time of its first record."""

    topic: str
    partition: int
    records: int
    since_ms: int | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """An order's entries, in the order of their events, what was searched, and what could not be."""

    order_id: str
    entries: list[Entry]
    searched: list[Searched]
    gaps: list[str]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        entries = [{"place": each.at._asdict(), **asdict(each)} for each in self.entries]
        for entry in entries:
            del entry["at"]
        return {**asdict(self), "entries": entries}

    @property
    def connections(self) -> list[str]:
        """The connections that the order's actions are for."""
        return sorted({each.connection for each in self.entries if each.connection is not None and each.action})


def timeline_of(
    history: History, topics: Iterable[RelayTopics], connection: str | None = None, paused: IsPaused = lambda _: None
) -> Timeline:
    """Tell a history. `connection`: only what is for this one, or for none. `paused`: what holds such actions now."""
    entries: dict[At, Entry] = {}
    _take_events(history, entries)
    pending_since = _take_records(history, entries)
    _take_outcomes(history, entries, pending_since)
    _take_dead_letters(history, entries)
    with_outcomes = {each.source for each in topics if each.outcomes is not None}
    for entry in entries.values():
        if entry.state == UNTOLD:
            entry.steps.append(Step(None, _why_untold(entry, history, with_outcomes)))
        entry.steps.sort(key=lambda step: (step.at_ms is None, step.at_ms or 0))
    told = [each for each in entries.values() if connection is None or each.connection in (None, connection)]
    told.sort(key=lambda each: (_begin(each), each.at[:3], each.at.item or 0))
    _say_who_waits(told)
    for entry in told:
        _say_what_is_paused(entry, paused)
    searched = [Searched(*at, span.records, span.since_ms) for at, span in history.spans.items()]
    return Timeline(history.order_id, told, searched, history.gaps)


def _begin(entry: Entry) -> int:
    return min((step.at_ms for step in entry.steps if step.at_ms is not None), default=0)


def _take_events(history: History, entries: dict[At, Entry]) -> None:
    for found in history.events:
        event, decision = found.event, found.decision
        partition = (event.topic, event.partition)
        at = At(*partition, event.offset, incarnation=history.incarnations.get(partition, 0))
        position = history.positions.get(partition)
        is_unread = position is not None and event.offset >= position
        arrived = Step(found.at_ms, "the event is in the source")
        actions = [each for each in actions_of(decision) if each.order_id == history.order_id]
        for action in actions:
            entries[at._replace(item=action.item)] = Entry(
                at=at._replace(item=action.item),
                state=UNREAD if is_unread else UNTOLD,
                route=action.route,
                action=action.action,
                connection=action.connection,
                in_source=True,
                steps=[arrived],
            )
        if actions:
            continue
        entry = entries[at] = Entry(at=at, state=UNREAD if is_unread else UNTOLD, in_source=True, steps=[arrived])
        if isinstance(decision, Ignored):
            entry.state = IGNORED
            entry.steps.append(Step(None, _IGNORED.get(decision.why, decision.why)))
        elif isinstance(decision, Misrouted):
            entry.route, entry.reason, entry.connection = decision.route, decision.reason, decision.connection
            entry.steps.append(Step(None, f"no action can be made of it: {decision.detail}"))


_IGNORED = {
    "tombstone": "it is ignored: it has no value, which stands for a deletion",
    "foreign_redrive": "it is ignored: it is a redrive for another relay",
    "unrouted": "it is ignored: no route takes it",
}


def _take_records(history: History, entries: dict[At, Entry]) -> dict[At, int]:
    """Take the delay topic's records; returns since when (ms since 1970) what is pending is so."""
    pending_since: dict[At, int] = {}
    by_key: dict[bytes, list[FoundRecord]] = {}
    for record in history.records:
        by_key.setdefault(record.key, []).append(record)
    for records in by_key.values():
        first = next((each.pending for each in records if each.pending is not None), None)
        if first is None:
            continue
        payload = first.payload
        source = payload.source
        at = At(source.topic, source.partition, source.offset, payload.item, source.incarnation)
        entry = entries.setdefault(at, Entry(at))
        entry.route, entry.action, entry.connection = payload.route, payload.action, payload.connection
        for life in _lives(records):
            _take_life(life, entry)
        if (last := records[-1].pending) is not None:
            entry.state, entry.next_due_ms = PENDING, last.due_ms
            pending_since[at] = last.first_seen_ms
            polls = f"{last.attempts} {'poll' if last.attempts == 1 else 'polls'} answered, sent {_times(last.sends)}"
            doubt = "; the last send has no known outcome yet" if last.state == "sending" else ""
            entry.steps.append(Step(records[-1].at_ms, f"it is pending: {polls}{doubt}"))
            if last.contact_until_ms is not None:
                entry.steps.append(Step(last.contact_until_ms, "until then its order must have a contact"))
    return pending_since


def _lives(records: list[FoundRecord]) -> Iterator[list[FoundRecord]]:
    """Yield what a key's records say of each time that the action was pending: a person may have it sent again."""
    life: list[FoundRecord] = []
    for each in records:
        begins_again = bool(life) and each.pending is not None and life[-1].pending is None
        if begins_again or (life and _asker(each) not in (None, _asker(life[0]))):
            yield life
            life = []
        life.append(each)
    yield life


def _asker(record: FoundRecord) -> str | None:
    return None if record.pending is None else record.pending.payload.asked_by or "event"


def _take_life(records: list[FoundRecord], entry: Entry) -> None:
    first = next((each.pending for each in records if each.pending is not None), None)
    if first is None:
        return
    asked_by, why = first.payload.asked_by, first.payload.why_asked
    begun = "the relay read the event and saved the action as pending"
    if asked_by is not None:
        begun = f"{asked_by} was asked for ({why}), and the action is saved as pending"
    entry.steps.append(Step(first.first_seen_ms, begun))
    sends = 0
    for each in records:
        if each.pending is not None and each.pending.state == "sending" and each.pending.sends > sends:
            sends = each.pending.sends
            entry.steps.append(Step(each.at_ms, f"the intent of send {sends} is saved"))


def _take_outcomes(history: History, entries: dict[At, Entry], pending_since: Mapping[At, int]) -> None:
    told: set[tuple[At, str, str]] = set()
    for outcome in history.outcomes:
        place = outcome.place
        at = At(place.topic, place.partition, place.offset, place.item, place.incarnation)
        if (at, outcome.outcome, outcome.asked_by) in told:
            continue
        told.add((at, outcome.outcome, outcome.asked_by))
        entry = entries.setdefault(at, Entry(at))
        if pending_since.get(at, 0) > outcome.ended_ms:
            entry.steps += _steps_of(outcome)  # it is pending again
            continue
        entry.state, entry.reason, entry.next_due_ms = outcome.outcome, outcome.reason, None
        entry.route, entry.action = outcome.route or entry.route, outcome.action or entry.action
        entry.connection = outcome.connection or entry.connection
        begun = ("it is pending", "the relay read", f"{outcome.asked_by} was")
        entry.steps = [step for step in entry.steps if not step.text.startswith(begun) or _is_former(step, outcome)]
        entry.steps += [step for step in _steps_of(outcome) if step not in entry.steps]  # it happened once


def _is_former(step: Step, outcome: Outcome) -> bool:
    """Whether a step belongs to what the action was before a person had it sent again."""
    return step.at_ms is not None and step.at_ms < outcome.first_seen_ms


def _steps_of(outcome: Outcome) -> list[Step]:
    by = "" if outcome.asked_by == "event" else f", asked for by {outcome.asked_by}"
    why = "" if outcome.why_asked is None else f" ({outcome.why_asked})"
    steps = [Step(outcome.first_seen_ms, f"the relay read the event{by}{why}")]
    if outcome.event_ms is not None:
        steps.append(Step(outcome.event_ms, "it happened, says the event"))
    if outcome.tag_ready_ms is not None:
        polls = f" after {outcome.attempts} {'poll' if outcome.attempts == 1 else 'polls'}" if outcome.attempts else ""
        steps.append(Step(outcome.tag_ready_ms, f"its versionTag was known{polls}"))
    if outcome.sent_ms is not None:
        steps.append(Step(outcome.sent_ms, f"it was sent{'' if outcome.sends == 1 else ', for the last time'}"))
    trace = "" if outcome.trace_id is None else f" (trace {outcome.trace_id})"
    steps.append(Step(outcome.ended_ms, f"{_end(outcome)}{trace}"))
    return steps


def _end(outcome: Outcome) -> str:
    sent = f"sent {_times(outcome.sends)}"
    if outcome.outcome is OutcomeName.ACCEPTED:
        return f"Engage accepted it; {sent}"
    if outcome.outcome is OutcomeName.DEAD_LETTER:
        polls = f"{outcome.attempts} {'poll' if outcome.attempts == 1 else 'polls'} answered"
        return f"it became a dead letter: {outcome.reason}; {polls}, {sent}"
    reason = "" if outcome.reason is None else f" ({outcome.reason})"
    return f"nothing was sent: {outcome.outcome.replace('_', ' ')}{reason}"


def _take_dead_letters(history: History, entries: dict[At, Entry]) -> None:
    for found in history.dead_letters:
        why = found.why
        at = At(why.source_topic, why.source_partition, why.source_offset, why.item, why.source_incarnation or 0)
        entry = entries.setdefault(at, Entry(at))
        is_redriven = (found.topic, found.partition, found.offset) in history.redriven
        if entry.state in (UNTOLD, UNREAD) or (entry.state == PENDING and not is_redriven):
            entry.state = OutcomeName.DEAD_LETTER
        if entry.state == OutcomeName.DEAD_LETTER:
            entry.reason = entry.reason or why.reason
        entry.route, entry.action = entry.route or why.route, entry.action or why.action
        entry.connection = entry.connection or why.connection
        entry.steps.append(Step(found.at_ms, f"dead letter {_where(found)}: {why.reason}: {why.detail}"))
        if is_redriven:
            entry.redriven = True
            entry.steps.append(Step(None, "the dead letter was redriven, or marked as dealt with"))


def _where(found: FoundDeadLetter) -> str:
    return f"{found.topic}[{found.partition}] {found.offset}"


def _why_untold(entry: Entry, history: History, with_outcomes: set[str]) -> str:
    if entry.at.topic not in with_outcomes:
        return "nothing tells what became of it: no outcomes are written for this source (outcomes.topic)"
    if (entry.at.topic, entry.at.partition) not in history.positions:
        return "nothing tells what became of it, nor up to where the source was read"
    return (
        "the source was read further, and nothing tells what became of it: it ended before outcomes were kept, or the "
        "group skipped it"
    )


def _say_who_waits(entries: list[Entry]) -> None:
    """Say which pending action waits for an earlier one of its order."""
    ahead: dict[str | None, Entry] = {}
    for entry in entries:
        if entry.state == PENDING:
            if (first := ahead.get(entry.connection)) is not None:
                entry.steps.append(Step(None, f"it waits for the order's earlier action, that of {first.at}"))
                entry.next_due_ms = None
            ahead[entry.connection] = entry


def _say_what_is_paused(entry: Entry, paused: IsPaused) -> None:
    if entry.state != PENDING or entry.connection is None or entry.route is None or entry.action is None:
        return
    pause = paused(Scope(entry.connection, entry.route, entry.action))
    if pause is not None:
        does = "it is to be discarded" if pause.discard else "it is on hold"
        entry.steps.append(Step(None, f"{does} by pause {pause.id}: {pause.reason}"))
        entry.next_due_ms = None


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
