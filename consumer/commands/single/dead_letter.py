"""`engage-relay dead-letters show`: all that is known of one dead letter, and what a person can do."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config, loaded, reach, without_gaps
from consumer.commands.single.ids import coordinates_of

if TYPE_CHECKING:
    from consumer.kafka.dead_letters.redrive import DeadLetter
    from consumer.kafka.topics.scan import Gap


HINTS = {
    "undecodable": "the sender fixes the event and publishes it again; redriven as it is, it fails again",
    "unknown_schema": "register the schema, or ask the sender which registry it uses; then redrive",
    "invalid_event": "the sender publishes a fixed event, or you fix the route and redrive",
    "unknown_connection": "configure the connection, then redrive",
    "rejected": "read Engage's errors; the sender publishes a fixed event, or you fix the route and redrive",
    "no_contact": "see that contacts are synchronised to Engage, then redrive",
    "forbidden": "ask whoever runs Engage or its firewall what stops the request, then redrive",
    "poll_rejected": "read Engage's errors; the sender publishes a fixed event, or you fix the route and redrive",
    "job_failed": "the order must be put into Engage again; then redrive",
    "not_found": "see that the order is in Engage, then redrive",
    "undated_order": "the order needs `lastChangedAt`, or the route must do without `newer_than`; then redrive",
    "stale_tag": "the order changed all the time; redrive when that has ended",
    "deadline": "see that Engage processes orders and the connection is not suspended, then redrive",
    "outcome_unknown": "find out first whether the customer got the e-mail; redriven, the action is sent again",
    "unreadable_pending": "redrive with a version that can read the record; see first whether it was sent",
    "too_old": "redrive it only if the customer shall get the e-mail all the same",
    "too_large": "raise `max.message.bytes` of the delay topic, then redrive",
}
"""What a person can do, by reason (schemas/dead_letter.py)."""


def dead_letters_show(
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Where it lies in the dead-letter topic: TOPIC/PARTITION/OFFSET or PARTITION:OFFSET."
        ),
    ],
    *,
    config: Config = None,
    value: Annotated[
        bool,
        typer.Option("--value", help="Also the event's value and headers, which may hold personal data."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter, and what to do.

    Its reason, where its event was, and the command that redrives it.
    Exit code 2 where there is none, 1 where not everything could be read.
    """
    with exit_codes():
        settings = loaded(config)
        from consumer.kafka.dead_letters.redrive import Selection, dead_letter_topics, dead_letters, own_headers

        at = coordinates_of(identifier, dead_letter_topics(settings.topics))
        reach(settings)
        gaps: list[Gap] = []
        selection = Selection(coordinates=frozenset([at]))
        letters = without_gaps(dead_letters(settings.kafka, settings.topics, selection), gaps)
        found = next(letters, None)
        if found is None:
            if gaps:
                raise typer.Exit(1)
            refuse(f"{at}: there is no dead letter; `engage-relay dead-letters list` shows those that there are")
        shown = dict(facts_of(found, settings.source.topics))
        if value:
            shown["headers"] = {name: _text(each) for name, each in own_headers(found.headers)}
            shown["value"] = _text(found.value)
        output.facts(shown, as_json=as_json)


def facts_of(found: DeadLetter, sources: Collection[str]) -> Iterator[tuple[str, object]]:
    """Yield what is known of a dead letter, by name; nothing of its value, and of its event's headers the names.

    `sources`: the source topics that it may be redriven to.
    """
    from consumer.kafka.dead_letters.redrive import own_headers
    from consumer.kafka.topics.scan import moment

    why = found.why
    yield "dead_letter", str(found.coordinates)
    yield "event", str(found.source)
    yield "reason", why.reason.value
    yield "detail", why.detail
    yield "engage_errors", why.errors
    obstacle = _obstacle(found, sources)
    yield "hint", obstacle or HINTS[why.reason]
    if obstacle is None:
        at = found.coordinates
        topic = f"--topic {why.source_topic} --dead-letter-offset {at.partition}:{at.offset}"
        yield "redrive", f"engage-relay dead-letters redrive {topic}"
    yield "redriven", found.redriven
    yield "redrive_of", found.redrive_of
    for name in ("item", "route", "action", "connection", "attempts", "sends"):
        yield name, getattr(why, name)
    yield "failed_at", moment(why.failed_at_ms)
    yield "event_timestamp", None if why.source_timestamp_ms is None else moment(why.source_timestamp_ms)
    yield "key", _text(found.key)
    yield "header_names", [name for name, _ in own_headers(found.headers)]
    yield "value_bytes", None if found.value is None else len(found.value)


def _obstacle(found: DeadLetter, sources: Collection[str]) -> str | None:
    """Say why it cannot be redriven, if so."""
    if found.redriven:
        return "it was redriven before, or marked as dealt with"
    if found.value is None:
        return "it has lost its value, which the topic refused as too large: the sender publishes the event again"
    if found.why.source_topic not in sources:
        return "its source topic is none of this configuration: redrive it with the relay that it belongs to"
    return None


def _text(raw: bytes | None) -> str | None:
    """Return bytes as text; in base64 where they are none."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(raw or b'').decode()}"
