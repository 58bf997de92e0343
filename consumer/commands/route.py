"""What would become of events, for `route`: decoded and routed as `run` does it, without Kafka or Engage.

The text may be an event per line (JSON Lines), one event over many lines, or a JSON array of events. An event's bytes
are handed on as they stand: what JSON readers disagree about (decoding.py) must be met here too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from consumer.events.decoding import Undecodable, decode
from consumer.events.routing import Decision, Misrouted, Routed, Router, is_documented
from consumer.kafka.records import SourceEvent
from schemas.dead_letter import Reason

Fate = Literal["routed", "passed", "dead_letter"]

_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of one event. `number` counts from 1; `reason` and `detail` are those of the dead letter."""

    number: int
    fate: Fate
    action: Routed | None = field(default=None, repr=False)
    reason: Reason | None = None
    detail: str | None = None
    decisions: tuple[Decision, ...] = field(default=(), repr=False)

    @property
    def note(self) -> str | None:
        """What may be an error in an action that would be sent."""
        if self.action is None or is_documented(self.action.action):
            return None
        return not_documented(self.action.action)


def not_documented(action: str) -> str:
    """Say that an action's name is not one of the documented ones."""
    return f"Engage's documentation does not list the action {action}: it must be set up in Engage by this name"


def judged(events: Iterable[bytes], router: Router) -> Iterator[Verdict]:
    """Say of each event what would become of it. Never raises for what it holds."""
    for number, value in enumerate(events, 1):
        event = decode(value)
        if isinstance(event, Undecodable):
            yield Verdict(number, "dead_letter", reason=Reason.UNDECODABLE, detail=event.detail)
            continue
        decisions = tuple(router.explain(event, SourceEvent("", 0, number, None, None, value)))
        match next((each.result for each in decisions if each.result is not None), None):
            case Routed() as action:
                yield Verdict(number, "routed", action, decisions=decisions)
            case Misrouted(reason, detail):
                yield Verdict(number, "dead_letter", None, reason, detail, decisions)
            case None:
                yield Verdict(number, "passed", decisions=decisions)


def events_in(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each event's bytes; line by line as they come, where the first line is an event by itself."""
    text = (line.strip(b" \t\r\n") for line in lines)
    filled = (line for line in text if line)
    first = next(filled, None)
    if first is None:
        return
    if isinstance(_parsed(first), dict):
        yield first
        yield from filled
        return
    rest = list(filled)
    document = b"\n".join([first, *rest])
    match _parsed(document):
        case None:
            yield from [first, *rest]
        case list():
            yield from _elements(document)
        case _:
            yield document


def _parsed(text: bytes) -> object:
    try:
        parsed: object = json.loads(text.removeprefix(_BOM).decode())  # of bytes it would guess the encoding
    except (ValueError, RecursionError):
        return None
    return parsed


def _elements(array: bytes) -> Iterator[bytes]:
    """Cut a valid array's elements out of its text, as they stand."""
    text = array.removeprefix(_BOM).decode()
    decoder = json.JSONDecoder()
    at = _skipped(text, 1, _SPACE)
    while text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        yield text[at:end].encode()
        at = _skipped(text, end, _SPACE + ",")


def _skipped(text: str, at: int, characters: str) -> int:
    while text[at] in characters:
        at += 1
    return at
