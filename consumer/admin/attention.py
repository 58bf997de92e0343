"""What an operator should look at, in words."""

from __future__ import annotations

from collections.abc import Collection

from consumer.admin.moments import minute
from consumer.admin.words import MAX_OF_A_KIND, duration
from consumer.core.pauses import Pause as Paused
from consumer.core.progress import FAULTS, StallReason
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import Snapshot

OLD_S = 1800.0  # of the oldest pending action, as the alert EngageRelayOldPending
MIN_SILENCE_S = 300.0  # without an accepted action
MIN_GROWTH = 10  # of what is pending meanwhile: one slow order is no outage
# What each reason means to who reads it: the faults first.
_STALLS: dict[StallReason, str] = {
    "unknown": "no reason is known; look at the log, then restart this instance",
    "journal": "what was read waits for a transaction; the log says why none is committed",
    "set_apart": "set apart; the log says why",
    "restoring": "the delay partition is being read; the log says what the restore waits for",
    "foreign_transaction": "a producer's transaction on the source has not ended",
    "suspended": "the source is paused because no more can be parked, and Engage refuses the key of a connection",
    "paused": "the source is paused because no more can be parked",
    "registry": "the Schema Registry cannot be asked for the schema of its next event; the log says why",
    "unknown_schema": "the Schema Registry has no schema of the id that its next event names (yet)",
}


def capitalised(text: str) -> str:
    """Return a text with its first letter as a sentence has it; the rest stays."""
    return text[:1].upper() + text[1:]


def attention(snapshot: Snapshot, flow: Flow) -> list[str]:
    """Say what an operator should look at, the worst first."""
    said = _stalled(snapshot, FAULTS)
    unfit = [
        f"{capitalised('; '.join(why))}; `engage-relay topics check` looks now"
        for _, why in sorted(snapshot.topics_unfit.items())
    ]
    said += _some(unfit, "topics do not fit")
    suspended = [
        f"Connection {name} is suspended: {each.halt.why if each.halt else 'Engage refuses its API key'}; "
        "nothing is lost, give it another key"
        for name, each in sorted(snapshot.connections.items())
        if each.suspended
    ]
    said += _some(suspended, "connections are suspended")
    said += [
        f"Paused since {minute(each.begun)}, {_how(each)}: {each.what} ({each.reason}); `engage-relay resume` ends it"
        for each in snapshot.pauses
    ]
    if snapshot.control_unreadable:
        said.append(
            f"Records of the control topic that cannot be read, and are ignored: {snapshot.control_unreadable}; what "
            "they ask for is not done"
        )
    if snapshot.requests_refused is not None and snapshot.requests_open:
        said.append(
            f"Requests about single actions that cannot be carried out: {snapshot.requests_open}; the control topic "
            f"takes no answers ({snapshot.requests_refused}), see its rights in SECURITY.md"
        )
    set_apart = [
        f"{topic}[{number}] is set apart, the others are served: {each.why}"
        for (topic, number), each in sorted(snapshot.partitions.items())
        if each.holding == "set_apart"
    ]
    said += _some(set_apart, "partitions are set apart")
    said += [
        f"{count} dead letters of {topic} wait in the delay topic, as their own topic refuses them ({why}); nothing is "
        "lost, `engage-relay topics check` may say what is wrong with it"
        for topic, (count, why) in sorted(snapshot.refused_dead_letters.items())
        if count
    ]
    if not snapshot.pauses and (why := _nothing_accepted(flow)) is not None:
        said.append(why)
    if snapshot.oldest_pending_age_s >= OLD_S:
        said.append(
            f"The oldest pending action is {duration(snapshot.oldest_pending_age_s)} old: is its order never ready?"
        )
    if snapshot.in_doubt:
        said.append(f"In doubt: {_actions(snapshot.in_doubt)} Engage may have processed already")
    if snapshot.overdue:
        said.append(
            f"Overdue: {_actions(snapshot.overdue)} whose time has come and whose connection could not take them yet"
        )
    parked = [
        f"Parked: {_actions(each.parked)} of connection {name} wait for room in memory; no other connection waits"
        for name, each in sorted(snapshot.connections.items())
        if each.parked
    ]
    said += _some(parked, "connections have actions parked")
    if snapshot.paused:
        said.append("The source is paused: too much is parked, or waits for a transaction")
    return said + _stalled(snapshot, set(_STALLS) - FAULTS)


def _some(said: list[str], others: str) -> list[str]:
    """Name some of what is said of many, and count the others."""
    more = len(said) - MAX_OF_A_KIND
    return said if more <= 0 else [*said[:MAX_OF_A_KIND], f"{more} more {others}"]


def _stalled(snapshot: Snapshot, reasons: Collection[StallReason]) -> list[str]:
    """Say which partitions stand still for these reasons: one line for each reason."""
    said = []
    for reason, meaning in _STALLS.items():
        stalled = sorted(at for at, stall in snapshot.stalled.items() if stall.reason == reason)
        if stalled and reason in reasons:
            since = min(stall.since for stall in snapshot.stalled.values() if stall.reason == reason)
            (topic, number), others = stalled[0], len(stalled) - 1
            named = f"{topic}[{number}]" + (f" and {others} more" if others else "")
            said.append(f"No progress for {duration(snapshot.at - since)} on {named}: {meaning}")
    return said


def _nothing_accepted(flow: Flow) -> str | None:
    """Say that nothing was accepted in the last minutes, while more and more is pending."""
    slices = flow.slices
    seconds = sum(each.seconds for each in slices)
    # What a restore brings is pending, too, but it is no growth.
    grown = min(slices[-1].pending - slices[0].pending, sum(each.events for each in slices)) if slices else 0
    if seconds < MIN_SILENCE_S or grown < MIN_GROWTH or any(sum(each.accepted.values()) for each in slices):
        return None
    return f"Nothing was accepted for {duration(seconds)}, and {_actions(grown)} more are pending than before"


def _how(pause: Paused) -> str:
    until = "until it is ended" if pause.until is None else f"until {minute(pause.until)}"
    return f"{'what comes is discarded' if pause.discard else 'on hold'} {until}"


def _actions(count: int) -> str:
    return f"{count} action" if count == 1 else f"{count} actions"
