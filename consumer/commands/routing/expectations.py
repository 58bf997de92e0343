"""`engage-relay route test DIR`: events and the decisions that are expected of them, side by side.

A folder holds `relay.yaml`, events (`events.*`, as `route` reads them, or one value in `value.*`) and `expected.yaml`,
a list with an entry for each record:

    - ignored                                       nothing becomes of it
    - unreadable                                    the export cannot be read
    - {action: ConfirmShipment, order: A-1}         this action; only what is named is compared
    - [{order: A-1}, {order: A-2}]                  these actions, in this order
    - {dead_letter: invalid_event, detail: zone}    a dead letter of this reason; its detail has this text
    - {stopped: withheld}                           a guard stops its action (withheld, too_old)
    - {about: a return, becomes: ignored}           any of them may say what the event is about

Of an action, `route`, `connection`, `language`, `data`, `tag` (event, job, order, document, change, with_document),
`newer_than`, `event_time` and `dropped` may be named, too. In place of the list, `refused: TEXT`: such a configuration
is refused, with this text; or `now: TIME` and the list under `events`: it is decided at this time (`max_age`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path

import yaml

from consumer.commands.routing.exports import Defaults, Unreadable, records_in
from consumer.commands.routing.route import Verdict, judged
from consumer.config.loading import load
from consumer.config.settings import Settings
from consumer.errors import ConfigurationError
from consumer.events.numbers import written
from consumer.events.routing.event_times import UNKNOWN_TIME_MS
from consumer.events.routing.results import Routed
from consumer.events.times import EPOCH, read_time
from consumer.events.times import Unreadable as NoTime
from consumer.kafka.records.source_events import SourceEvent

EXPECTED = "expected.yaml"


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that is another one than was expected. `number`: of the event, None: it is about the folder.

    `about`: what the expectation says of the event.
    """

    folder: Path
    number: int | None
    expected: str
    found: str
    about: str = ""

    def __str__(self) -> str:
        place = str(self.folder) if self.number is None else f"{self.folder} event {self.number}"
        place += f" ({self.about})" if self.about else ""
        return f"{place}: expected {self.expected}, found {self.found}"


def folders_below(folder: Path) -> list[Path]:
    """Return the folders that have expectations: this one, and those below it."""
    return sorted(each.parent for each in folder.rglob(EXPECTED))


def differences(folder: Path) -> Iterator[Difference]:
    """Compare what would become of a folder's events with what is expected. Raises OSError, yaml.YAMLError."""
    expected: object = yaml.safe_load((folder / EXPECTED).read_text("utf-8"))
    refused = expected.get("refused") if isinstance(expected, dict) else None
    try:
        settings = _settings(folder)
    except ConfigurationError as error:
        if refused is None or str(refused) not in str(error):
            yield Difference(folder, None, str(refused or "a configuration without errors"), str(error))
        return
    now = None
    if isinstance(expected, dict) and "events" in expected:
        now, expected = read_time(str(expected.get("now")), UTC), expected["events"]
    if isinstance(now, NoTime):
        yield Difference(folder, None, "now: a time", now.why)
        return
    if not isinstance(expected, list):
        yield Difference(folder, None, f"refused: {refused}", "a configuration without errors")
        return
    at = None if now is None else now.timestamp()
    verdicts = _verdicts(folder, settings, at)
    if len(verdicts) != len(expected):
        yield Difference(folder, None, f"{len(expected)} events", str(len(verdicts)))
    for verdict, entry in zip(verdicts, expected, strict=False):
        found = _decision(verdict)
        about, wanted = about_and_decision(entry)
        if not _agrees(found, wanted):
            yield Difference(folder, verdict.number, written(wanted).decode(), written(found).decode(), about)


def verdicts_of(folder: Path) -> list[Verdict]:
    """Return what would become of a folder's events now. Raises OSError, ConfigurationError."""
    return _verdicts(folder, _settings(folder), None)


def _settings(folder: Path) -> Settings:
    relay = folder / "relay.yaml"
    return load(relay if relay.exists() else None, {}, only_routes=True)


def _verdicts(folder: Path, settings: Settings, now: float | None) -> list[Verdict]:
    return list(judged(_records(folder, Defaults(settings.source.topics[0])), settings, now))


def about_and_decision(entry: object) -> tuple[str, object]:
    """Return what an entry says of its event, and the decision that it expects."""
    if isinstance(entry, list):
        told = [about_and_decision(each) for each in entry]
        return "; ".join(about for about, _ in told if about), [wanted for _, wanted in told]
    if not isinstance(entry, dict):
        return "", entry
    wanted = {key: value for key, value in entry.items() if key != "about"}
    return str(entry.get("about", "")), wanted["becomes"] if [*wanted] == ["becomes"] else wanted


def _records(folder: Path, defaults: Defaults) -> Iterator[SourceEvent | Unreadable]:
    for file in sorted(folder.glob("value.*")):
        yield defaults.record(1, file.read_bytes())
    for file in sorted(folder.glob("events.*")):
        with file.open("rb") as lines:
            yield from records_in(lines, defaults)


def _decision(verdict: Verdict) -> object:
    if verdict.reason is not None:
        return {"dead_letter": verdict.reason.value, "detail": verdict.detail}
    if verdict.stopped is not None:
        return {"stopped": verdict.stopped.by, "detail": verdict.detail}
    if not verdict.actions:
        return verdict.fate
    rows = [_action(each) for each in verdict.actions]
    return rows[0] if verdict.actions[0].item is None else rows


def _action(action: Routed) -> dict[str, object]:
    newer_than = getattr(action.tag_source, "newer_than", None)
    has_time = action.event_time_ms != UNKNOWN_TIME_MS
    return {
        "action": action.action,
        "order": action.order_id,
        "route": action.route,
        "connection": action.connection,
        "language": action.language,
        "data": action.data,
        "tag": action.tag_source.kind,
        "newer_than": newer_than.isoformat() if newer_than else None,
        "event_time": (EPOCH + timedelta(milliseconds=action.event_time_ms)).isoformat() if has_time else None,
        "fact": action.fact,
        "stopped": None if action.stopped is None else action.stopped.by,
        "dropped": [each.key for each in action.dropped],
    }


def _agrees(found: object, expected: object) -> bool:
    """Tell whether a decision is as expected: of an object, what is named; a dead letter's detail has the text."""
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(_agrees, found, expected))
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return found == expected
    return all(
        str(value) in str(found.get(key)) if key == "detail" else found.get(key) == value
        for key, value in expected.items()
    )
