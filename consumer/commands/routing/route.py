"""`engage-relay route`: what would become of events, decided as `run` decides it, without Kafka or Engage.

Both call `decide` (events/deciding.py) with the same record. What the text is that the records come in, exports.py
tells. Only `--offset` asks a broker.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config, OutputOfObjects, bytes_of, lines_of, loaded
from consumer.commands.single.ids import place_in

if TYPE_CHECKING:
    from consumer.commands.routing.exports import Unreadable
    from consumer.config.settings import Settings
    from consumer.core.sequences import Sequences
    from consumer.events.deciding import Decided
    from consumer.events.formats.formats import Awaiting
    from consumer.events.guards import Stopped
    from consumer.events.routing.results import Routed, RouteTrace
    from consumer.kafka.records.source_events import SourceEvent
    from consumer.kafka.registry.schemas import Schemas
    from schemas.dead_letter import Reason

Fate = Literal["routed", "stopped", "ignored", "dead_letter", "waiting", "unreadable"]

_TAG_FROM = {
    "event": "the event",
    "job": "job {job_id}",
    "order": "the order itself",
    "document": "the job of its document",
    "change": "the job of its {change}",
}
_IGNORED = {
    "unrouted": "no route takes it",
    "tombstone": "a tombstone",
    "foreign_redrive": "redriven from another relay's dead letter",
}


def route(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Events, one per line or one alone, or records that kcat -J or kafka-console-consumer printed;"
            " -: stdin; test: compare the folder DIR with what it expects.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="With `test`: see docs/expressions.md.", show_default=False)
    ] = None,
    *,
    config: Config = None,
    raw: Annotated[bool, typer.Option("--raw", help="The file is one record's value, byte by byte.")] = False,
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The key of records that bring none.", show_default=False)
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A header of records that bring none; may be given several times.",
            show_default=False,
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The topic that the events come from. Default: the source's first.", show_default=False
        ),
    ] = None,
    offset: Annotated[
        str | None,
        typer.Option(
            metavar="P:O",
            help="Read this record of the topic (partition and offset) from the broker.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 also where no route takes an event, or a note is made.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say of each route why, or why not.")] = False,
    as_json: AsJson = False,
    look: OutputOfObjects = None,
) -> None:
    """Say what would become of events. Exit code 1 where one would be dead-lettered, or cannot be read."""
    with exit_codes():
        if file == Path("test") and folder is not None:
            raise typer.Exit(_test(folder))
        if (file is None) == (offset is None) or folder is not None:
            refuse("name the events: FILE or --offset")
        from consumer.commands.routing.exports import Defaults, records_in

        settings = loaded(config, only_routes=offset is None)
        defaults = Defaults(topic or settings.source.topics[0], None if key is None else key.encode(), _headers(header))
        if offset is not None:
            records: Iterable[SourceEvent | Unreadable] = [_from_broker(settings, defaults.topic, offset)]
        elif raw:
            records = [defaults.record(1, bytes_of(file or Path("-")))]
        else:
            records = records_in(lines_of(file or Path("-")), defaults)
        dead = False
        listed = output.YamlList() if look == "yaml" else None
        for verdict in judged(records, settings):
            dead = dead or verdict.fate in ("dead_letter", "waiting", "unreadable") or verdict.has_dead_letter
            dead = dead or (strict and verdict.is_suspicious)
            if listed is not None:
                listed.add(_verdict_row(verdict))
            elif as_json or look == "json":
                output.exact_json_line(_verdict_row(verdict))
            else:
                _print_verdict(verdict, settings.sequences if verbose else None)
        if listed is not None:
            listed.end()
        raise typer.Exit(int(dead))


def _test(folder: Path) -> int:
    """Compare every folder below this one with what it expects; returns the exit code."""
    from consumer.commands.routing.expectations import differences, folders_below

    folders = folders_below(folder)
    if not folders:
        refuse(f"{folder}: no expected.yaml here or below")
    different = 0
    for each in folders:
        for difference in differences(each):
            different += 1
            output.data(str(difference))
    output.data(f"{len(folders)} folders, {different} differences")
    return int(bool(different))


def _headers(given: list[str] | None) -> list[tuple[str, bytes | None]]:
    pairs = [text.partition("=") for text in given or ()]
    if not all(equals for _, equals, _ in pairs):
        refuse("--header: must be NAME=VALUE")
    return [(name, value.encode()) for name, _, value in pairs]


def _from_broker(settings: Settings, topic: str, text: str) -> SourceEvent | Unreadable:
    from consumer.commands.routing.exports import original
    from consumer.kafka.topics.scan import record_at

    place = place_in(text)
    if place is None:
        refuse(f"--offset: {text}: must be partition:offset, as in 0:17")
    record = record_at(settings.kafka, topic, *place)
    if record is None:
        refuse(f"--offset: {topic} has no record at {text}: it was deleted, or was not written yet")
    return original(record)


def _verdict_row(verdict: Verdict) -> dict[str, object]:
    action = verdict.action
    return {
        "event": verdict.number,
        "fate": verdict.fate,
        "action": None if action is None else _action_row(action),
        "actions": [_action_row(each) for each in verdict.actions],
        "stopped": None if verdict.stopped is None else verdict.stopped.by,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "note": verdict.note,
        "routes": [asdict(each) for each in verdict.trace],
    }


def _action_row(action: Routed) -> dict[str, object]:
    hidden = ("tag_source", "dropped", "ages", "allowed", "stopped")
    shown = {name: getattr(action, name) for name in action.__slots__ if name not in hidden}
    stopped = None if action.stopped is None else asdict(action.stopped)
    return {
        **shown,
        "stopped": stopped,
        "tag_source": dict(action.tag_source),
        "dropped": [str(each) for each in action.dropped],
    }


def _print_verdict(verdict: Verdict, sequences: Sequences | None) -> None:
    """Print it; with `sequences` all that is to be said of it."""
    verbose = sequences is not None
    for action in verdict.actions:
        item = "" if action.item is None else f", item {action.item}"
        to = f"{action.action} of order {action.order_id} on {action.connection}"
        output.data(f"event {verdict.number}{item}: {to}, {_how(action)}")
        _print_contents(action, verbose=verbose)
        for line in () if sequences is None else _place_in_sequence(action, sequences):
            output.data(f"  {line}")
    if not verdict.actions:
        said = {"unreadable": "cannot be read", "ignored": "ignored", "waiting": "waits"}.get(
            verdict.fate, f"dead letter, {verdict.reason}"
        )
        output.data(f"event {verdict.number}: {said}: {verdict.detail}")
    if verdict.note is not None:
        output.data(f"  note: {verdict.note}")
    if verbose:
        for each in verdict.trace:
            output.data(f"  {each.route:<12} {each.why}")


def _print_contents(action: Routed, *, verbose: bool) -> None:
    from consumer.events.numbers import written

    if action.language is not None:
        output.data(f"  language {action.language}")
    if action.data is not None:
        output.data(f"  data {written(action.data).decode()}")
    if action.fact is not None and (verbose or action.fact != f"{action.action} {action.order_id}"):
        output.data(f"  fact {action.fact}")
    for each in action.dropped:
        output.data(f"  left out: {each}")


def _place_in_sequence(action: Routed, sequences: Sequences) -> Iterator[str]:
    """Say what the order's other actions do to this one, and this one to them (docs/guards.md)."""
    if by := sequences.superseded_by.get(action.route):
        yield f"superseded by {', '.join(sorted(by))}"
    if supersedes := sorted(name for name, by in sequences.superseded_by.items() if action.route in by):
        yield f"supersedes {', '.join(supersedes)}"
    if (step := sequences.steps.get(action.action)) is not None:
        yield f"step {step + 1} of {len(sequences.steps)}"


def _how(action: Routed) -> str:
    """Say where the action's versionTag comes from, or why it is not sent."""
    if action.stopped is not None:
        fate = "dead letter" if action.stopped.is_dead_letter else "not sent"
        return f"{fate}, {action.stopped.by}: {action.stopped.detail}"
    source = action.tag_source
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
    actions: tuple[Routed, ...] = field(default=(), repr=False)
    reason: Reason | None = None
    detail: str | None = None
    trace: tuple[RouteTrace, ...] = field(default=(), repr=False)
    note: str | None = None

    @property
    def stopped(self) -> Stopped | None:
        """What stops the action, where there is one alone."""
        return None if self.action is None else self.action.stopped

    @property
    def has_dead_letter(self) -> bool:
        """Whether one of several actions would be dead-lettered."""
        return any(each.stopped is not None and each.stopped.is_dead_letter for each in self.actions)

    @property
    def is_suspicious(self) -> bool:
        """Whether no route takes the event, or its action has something that may be an error."""
        return self.detail == _IGNORED["unrouted"] or self.note is not None

    @property
    def action(self) -> Routed | None:
        """The action, where there is one alone."""
        return self.actions[0] if len(self.actions) == 1 else None


def judged(
    records: Iterable[SourceEvent | Unreadable], settings: Settings, now: float | None = None
) -> Iterator[Verdict]:
    """Say of each record what would become of it. Never raises for what it holds.

    `now`: seconds since 1970, for `max_age`; None: the present time.
    """
    from consumer.commands.routing.exports import Unreadable
    from consumer.config.formats import formats_of
    from consumer.events.deciding import Ignored, decide
    from consumer.events.formats.formats import Awaiting
    from consumer.events.routing.results import Misrouted

    router, dead_letter_topics = settings.router, settings.dead_letter_topics
    formats, schemas = formats_of(settings, time.time)
    now = time.time() if now is None else now
    for number, record in enumerate(records, 1):
        if isinstance(record, Unreadable):
            yield Verdict(number=number, fate="unreadable", detail=record.why)
            continue
        trace: list[RouteTrace] = []
        decision = decide(record, router, dead_letter_topics, trace, now=now, formats=formats)
        if isinstance(decision, Awaiting):
            if (why := _fetched(schemas, decision)) is not None:
                yield Verdict(number=number, fate="waiting", detail=why)
                continue
            decision = decide(record, router, dead_letter_topics, trace, now=now, formats=formats)
        assert not isinstance(decision, Awaiting)  # noqa: S101 - its schema was fetched
        verdict = _verdict(number, decision, tuple(trace))
        if decision == Ignored("unrouted") or isinstance(decision, Misrouted):
            event = formats.decode(record.topic, record.value, record.headers)
            taker = decision.route if isinstance(decision, Misrouted) else None
            note = None if taker is None else _note_on_taken(event, record, settings, taker)
            verdict = replace(verdict, note=note or _note_on_event(event, record, settings))
        elif verdict.note is None and verdict.actions:
            event = formats.decode(record.topic, record.value, record.headers)
            verdict = replace(verdict, note=_note_on_taken(event, record, settings, verdict.actions[0].route))
        yield verdict


def _note_on_taken(event: object, record: SourceEvent, settings: Settings, taker: str) -> str | None:
    """Say what may have been meant to keep an event from the route that takes it."""
    from consumer.events.formats.formats import Named
    from consumer.events.routing.near_misses import notes_on_event

    rule = settings.routes.get(taker)
    event = event.event if isinstance(event, Named) else event
    notes = () if rule is None else notes_on_event(rule, event, record, is_taken=True)
    return next((f"route {taker}: {note}" for note in notes), None)


def _note_on_event(event: object, record: SourceEvent, settings: Settings) -> str | None:
    """Say what may have been meant by an event that becomes no action, or by the routes."""
    from consumer.events.deciding import hint_on_unrouted
    from consumer.events.formats.formats import Named
    from consumer.events.routing.near_misses import notes_on_event

    event = event.event if isinstance(event, Named) else event
    for name, rule in settings.routes.items():
        for note in () if rule is None else notes_on_event(rule, event, record):
            return f"route {name}: {note}"
    return hint_on_unrouted(event)


def _fetched(schemas: Schemas | None, awaiting: Awaiting) -> str | None:
    """Fetch a schema that an event needs; returns why that cannot be done, None: it was done."""
    from consumer.kafka.registry.schemas import RegistryError, UnknownSchemaError, named

    assert schemas is not None  # noqa: S101 - without a registry nothing is ever awaited
    try:
        schemas.fetch(awaiting.schema, awaiting.sample)
    except RegistryError as error:
        return f"the Schema Registry cannot be asked for schema {named(awaiting.schema)}: {error}"
    except UnknownSchemaError:
        grace = "a dead letter, unknown_schema, where it stays so"
        return f"the Schema Registry has no schema {named(awaiting.schema)}: {grace}"
    return None


def _verdict(number: int, decision: Decided, trace: tuple[RouteTrace, ...]) -> Verdict:
    from consumer.events.deciding import Ignored
    from consumer.events.routing.results import Misrouted, Several
    from schemas.dead_letter import Reason

    match decision:
        case Ignored(why):
            return Verdict(number=number, fate="ignored", detail=_IGNORED[why], trace=trace)
        case Misrouted(reason, detail):
            return Verdict(number=number, fate="dead_letter", reason=reason, detail=detail, trace=trace)
    actions = decision.actions if isinstance(decision, Several) else (decision,)
    alone = actions[0].stopped if len(actions) == 1 else None
    if alone is not None:
        why_dead = Reason.TOO_OLD if alone.is_dead_letter else None
        fate: Fate = "dead_letter" if alone.is_dead_letter else "stopped"
        return Verdict(number=number, fate=fate, actions=actions, reason=why_dead, detail=alone.detail, trace=trace)
    note = next((note for each in actions if (note := _note_on_action(each)) is not None), None)
    return Verdict(number=number, fate="routed", actions=actions, trace=trace, note=note)


def _note_on_action(action: Routed) -> str | None:
    from consumer.events.identifiers import hint_on
    from consumer.events.routing.notes import note_on, note_on_language

    hint = hint_on(action.order_id)
    wrong_id = None if hint is None else f"the order's id {hint}"
    return note_on(action.action) or wrong_id or note_on_language(action.language)
