"""What the commands have in common that ask the relay for something: a reason, and waiting for the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import refuse

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.core.requests import Request
    from consumer.kafka.control.asking import Told

WAIT_S = 30.0
NOBODY = (
    f"nobody answered for {WAIT_S:g} s: no relay of this version runs, it may not write to the control topic, it waits "
    "until Engage cannot be at work on the action any more, or it has more urgent things to do "
    "(`engage-relay status`); what was asked for stays so"
)

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for everybody who looks at it.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait for the relay's answer: end when the request is written.")
]


def checked_reason(reason: str, option: str = "--reason") -> str:
    """Return the reason as it is written; else ends with exit code 2."""
    from schemas.control import MAX_REASON

    reason = reason.strip()
    if not reason:
        refuse(f"{option}: say why; whoever finds it will ask")
    if len(reason) > MAX_REASON:
        refuse(f"{option}: must be at most {MAX_REASON} characters")
    return reason


def control_topic(settings: Settings) -> str:
    """Return the control topic; else ends with exit code 2."""
    if settings.control_topic is None:
        refuse("control.topic is none: without a control topic nobody can ask the relay for anything")
    return settings.control_topic


def asked(settings: Settings, requests: Sequence[Request], *, no_wait: bool) -> int:
    """Write requests, print what becomes of them, and return the exit code.

    1 where one was refused, or is not answered though it was waited for.
    """
    counts = {"done": 0, "refused": 0, "waiting": 0}
    for told in answers(settings, requests, no_wait=no_wait):
        counts["waiting" if told.answer is None else "done" if told.answer.is_done else "refused"] += 1
        output.data(_line(told, no_wait=no_wait))
    if counts["waiting"] and not no_wait:
        output.notice(NOBODY)
    if len(requests) > 1:
        output.notice(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    return int(bool(counts["refused"] or (counts["waiting"] and not no_wait)))


def answers(settings: Settings, requests: Sequence[Request], *, no_wait: bool) -> Iterator[Told]:
    """Write requests, and yield what becomes of each. Ends with exit code 2 where --no-wait would write too many."""
    from consumer.kafka.control.asking import TooManyOpenError, ask

    try:
        yield from ask(settings.kafka, control_topic(settings), requests, wait_s=0.0 if no_wait else WAIT_S)
    except TooManyOpenError as error:
        refuse(
            f"--no-wait: {error}. Nothing was written. Leave --no-wait out: the command then asks for the next ones as "
            "earlier ones are answered"
        )


def _line(told: Told, *, no_wait: bool) -> str:
    request = told.request
    item = "" if request.item is None else f", item {request.item}"
    at = request.dead_letter or f"{request.topic}/{request.partition}/{request.offset}{item}"
    if told.answer is None:
        return (
            f"{at}: asked for (request {request.id})" if no_wait else f"{at}: not answered yet (request {request.id})"
        )
    return f"{at}: {'' if told.answer.is_done else 'refused: '}{told.answer.detail}"
