"""`engage-relay route`: what would become of events, decoded and routed as `run` does it, without Kafka or Engage.

The text may be an event per line (JSON Lines), one event over many lines, or a JSON array of events. Each event's bytes
are decoded unchanged: JSON on which readers disagree (decoding.py) must be refused here, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes
from consumer.commands.options import AsJson, Config, lines_of, loaded

if TYPE_CHECKING:
    from consumer.events.routing import Decision, Routed, Router
    from schemas.dead_letter import Reason
    from schemas.pending_action import TagSource

Fate = Literal["routed", "ignored", "dead_letter"]

_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\r\n"
_TAG_FROM = {
    "event": "the event",
    "job": "job {job_id}",
    "order": "the order itself",
    "document": "the job of its document",
    "change": "the job of its {change}",
}


def route(
    file: Annotated[
        Path,
        typer.Argument(
            help="Events: one per line, one alone, or a JSON array; -: stdin.",
        ),
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say what would become of events, and why. Exit code 1 where one would be dead-lettered."""
    with exit_codes():
        settings = loaded(config)
        from consumer.events.routing import Router, compile_routes

        router = Router(compile_routes(settings.effective_routes), settings.engage.connections)
        dead = False
        for verdict in judged(events_in(lines_of(file)), router):
            dead = dead or verdict.fate == "dead_letter"
            if as_json:
                output.json_line(_verdict_row(verdict))
            else:
                _print_verdict(verdict)
        raise typer.Exit(int(dead))


def _verdict_row(verdict: Verdict) -> dict[str, object]:
    action = verdict.action
    return {
        "event": verdict.number,
        "fate": verdict.fate,
        "action": action and {**asdict(action), "tag_source": action.tag_source.model_dump(mode="json")},
        "reason": verdict.reason,
        "detail": verdict.detail,
        "note": verdict.note,
        "routes": [
            {"route": each.route, "took": each.result is not None, "why": each.why} for each in verdict.decisions
        ],
    }


def _print_verdict(verdict: Verdict) -> None:
    action = verdict.action
    if action is not None:
        said = f"{action.action} of order {action.order_id} on {action.connection}, {_how(action.tag_source)}"
    elif verdict.reason is not None:
        said = f"dead letter, {verdict.reason}: {verdict.detail}"
    else:
        said = "ignored: no route takes it"
    output.data(f"event {verdict.number}: {said}")
    if verdict.note is not None:
        output.data(f"  note: {verdict.note}")
    for each in verdict.decisions:
        output.data(f"  {each.route:<12} {each.why}")


def _how(source: TagSource) -> str:
    """Say where the action's versionTag comes from."""
    if source.kind == "with_document":
        return "in its document"
    return f"versionTag from {_TAG_FROM[source.kind].format(**source.model_dump())}"


# The dry run


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would become of one event. `number` counts from 1; `reason` and `detail` are those of the dead letter.

    `note`: what may be an error in an action that would be sent.
    """

    number: int
    fate: Fate
    action: Routed | None = field(default=None, repr=False)
    reason: Reason | None = None
    detail: str | None = None
    decisions: tuple[Decision, ...] = field(default=(), repr=False)
    note: str | None = None


def judged(events: Iterable[bytes], router: Router) -> Iterator[Verdict]:
    """Say of each event what would become of it. Never raises for what it holds."""
    from consumer.events.decoding import Undecodable, decode
    from consumer.events.routing import Misrouted, Routed, note_on
    from consumer.kafka.records import SourceEvent
    from schemas.dead_letter import Reason

    for number, value in enumerate(events, 1):
        event = decode(value)
        if isinstance(event, Undecodable):
            yield Verdict(number=number, fate="dead_letter", reason=Reason.UNDECODABLE, detail=event.detail)
            continue
        decisions = tuple(
            router.explain(
                event, SourceEvent(topic="", partition=0, offset=number, timestamp_ms=None, key=None, value=value)
            )
        )
        match next((each.result for each in decisions if each.result is not None), None):
            case Routed() as action:
                yield Verdict(
                    number=number, fate="routed", action=action, decisions=decisions, note=note_on(action.action)
                )
            case Misrouted(reason, detail):
                yield Verdict(
                    number=number, fate="dead_letter", action=None, reason=reason, detail=detail, decisions=decisions
                )
            case None:
                yield Verdict(number=number, fate="ignored", decisions=decisions)


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
    others = list(filled)
    document = b"\n".join([first, *others])
    match _parsed(document):
        case None:
            yield from [first, *others]
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
