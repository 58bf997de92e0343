"""`engage-relay dead-letters`: list and show dead letters, and send their events back."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.control.asking import NOBODY, NoWait, answers, checked_reason, control_topic
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import (
    AsJson,
    Config,
    Limit,
    Output,
    OutputOfObjects,
    Yes,
    lines_of,
    loaded,
    look_of,
    reach,
    reasons,
    source_topics,
    sure,
    without_gaps,
)
from consumer.commands.single.dead_letter import dead_letters_show
from consumer.commands.single.ids import place_in

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.kafka.dead_letters.redrive import Coordinates, DeadLetter, Redrive, Selection
    from consumer.kafka.topics.scan import Gap


app = typer.Typer(help="List, show and redrive dead letters.", no_args_is_help=True)

SourceTopic = Annotated[
    str | None,
    typer.Option(
        "--topic", metavar="NAME", help="Only from this source topic.", show_default=False, autocompletion=source_topics
    ),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        "--reason",
        metavar="REASON",
        help="Only with this reason; may be given several times.",
        show_default=False,
        autocompletion=reasons,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Only those dead-lettered since: 2h, 3d, or 2025-11-03T12:00Z.", show_default=False
    ),
]


@app.command("list")
def dead_letters_list(
    *,
    config: Config = None,
    topic: SourceTopic = None,
    reason: Reasons = None,
    since: Since = None,
    limit: Limit = None,
    as_json: AsJson = False,
    look: Output = None,
) -> None:
    """List dead letters. Exit code 1 where the list is not complete."""
    with exit_codes():
        settings = loaded(config)
        from consumer.kafka.dead_letters.redrive import dead_letters

        gaps: list[Gap] = []
        selection = _selection(settings, topic, reason, since, coordinates=None)
        reach(settings)
        found = without_gaps(dead_letters(settings.kafka, settings.topics, selection), gaps)
        output.rows(
            (_dead_letter_row(each) for each in islice(found, limit)),
            _COLUMNS,
            look=look_of(look, as_json=as_json),
            optional=("detail", "failed_at", "route", "redriven", "source_topic"),
        )
        raise typer.Exit(int(bool(gaps)))


app.command("show")(dead_letters_show)


@app.command("redrive")
def dead_letters_redrive(
    file: Annotated[
        Path | None,
        typer.Argument(help="Lines of `dead-letters list --json`: these dead letters; -: stdin.", show_default=False),
    ] = None,
    *,
    config: Config = None,
    topic: SourceTopic = None,
    reason: Reasons = None,
    since: Since = None,
    source_offset: Annotated[
        list[str] | None,
        typer.Option(
            "--source-offset",
            metavar="P:O",
            help="Partition and offset of the event in the source.",
            show_default=False,
        ),
    ] = None,
    dead_letter_offset: Annotated[
        list[str] | None,
        typer.Option(
            "--dead-letter-offset",
            metavar="P:O",
            help="Partition and offset of the dead letter in its own topic.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Redrive all dead letters.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be redriven.")] = False,
    only_mark: Annotated[
        bool, typer.Option("--only-mark", help="Send nothing: mark them as dealt with, so that they do not wait.")
    ] = False,
    why: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why, for everybody who looks at the order.", show_default=False),
    ] = None,
    to_source: Annotated[
        bool,
        typer.Option(
            "--to-source", help="Send the events back to their source, where its other readers see them, too."
        ),
    ] = False,
    yes: Yes = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    look: OutputOfObjects = None,
) -> None:
    """Send the events of dead letters once more.

    The relay that owns a dead letter's partition makes its action again. With --to-source the event goes back to its
    source instead. Select them by line, offset, reason or time (all conditions must hold), or say --all. Without lines
    or offsets, a terminal is asked first, with their number. Each dead letter is redriven once: that it was is written
    in one transaction with what is sent. Exit code 1 where one of them could not be redriven, or nobody answers.
    """
    with exit_codes():
        settings = loaded(config)
        from consumer.kafka.dead_letters.redrive import redrive

        asks = not (to_source or only_mark)
        _check_way(settings, why, asks=asks, no_wait=no_wait)
        if not (file or source_offset or dead_letter_offset or reason or since or every):
            refuse("name the dead letters: FILE, --source-offset, --dead-letter-offset, --reason or --since; or --all")
        coordinates = None
        if file is not None or dead_letter_offset:
            coordinates = frozenset(
                [
                    *_dead_letters_at(settings, topic, dead_letter_offset or []),
                    *_coordinates_in(lines_of(file) if file else ()),
                ]
            )
        selection = _selection(settings, topic, reason, since, coordinates)
        if source_offset:
            selection = replace(selection, sources=frozenset(_sources_at(settings, topic, source_offset)))
        reach(settings)
        if coordinates is None and not source_offset and not dry_run:
            sure(partial(_question, settings, selection, only_mark=only_mark), yes=yes)
        if asks and not dry_run:
            found = _asked(settings, selection, why, no_wait=no_wait)
        else:
            found = redrive(settings.kafka, settings.topics, selection, dry_run=dry_run, only_mark=only_mark)
        counts = _shown(found, only_mark=only_mark, look="json" if as_json else look)
        nobody = bool(counts["asked"]) and not no_wait
        if nobody:
            output.notice(NOBODY)
        raise typer.Exit(int(nobody or bool(counts["failed"] or counts["gap"])))


def _check_way(settings: Settings, why: str | None, *, asks: bool, no_wait: bool) -> None:
    """See that what was said fits the way that was chosen; else end with exit code 2."""
    if asks:
        control_topic(settings)
    if why is not None:
        checked_reason(why, "--why")
    if not asks and (why is not None or no_wait):
        refuse("--why and --no-wait: not with --to-source or --only-mark, which ask nobody")


def _shown(found: Iterable[Redrive | Gap], *, only_mark: bool, look: str | None) -> Counter[str]:
    """Print what became of each, and return how many became what; what could not be read is a `gap`."""
    from consumer.kafka.dead_letters.redrive import Redrive

    counts: Counter[str] = Counter()
    listed = output.YamlList() if look == "yaml" else None
    for each in found:
        if not isinstance(each, Redrive):
            counts["gap"] += 1
            output.notice(each)
            continue
        counts[each.result] += 1
        to = None if each.to is None else f"{each.to[0]}[{each.to[1]}]"
        row = {**_named(each.coordinates), "result": each.result, "to": to, "why": each.why}
        if listed is not None:
            listed.add(row)
        elif look == "json":
            output.json_line(row)
        else:
            words = {
                "redriven": f"redriven to {to}" if each.why is None else f"redriven: {each.why}",
                "marked": "marked, nothing was sent",
                "chosen": "would be marked" if only_mark else f"would be redriven to {to}",
                "asked": f"asked for: {each.why}",
            }
            output.data(f"{each.coordinates}: {words.get(each.result, f'{each.result}: {each.why}')}")
    if listed is not None:
        listed.end()
    if sum(counts[result] for result in _COUNTED) > 1:
        output.notice(", ".join(f"{count} {_COUNTED[name]}" for name, count in counts.items() if name in _COUNTED))
    return counts


_COUNTED: dict[str, str] = {
    "chosen": "would be taken",
    "redriven": "redriven",
    "asked": "not answered yet",
    "marked": "marked",
    "skipped": "skipped",
    "failed": "failed",
}


def _asked(settings: Settings, selection: Selection, why: str | None, *, no_wait: bool) -> Iterator[Redrive | Gap]:
    """Ask the relay to redrive them, and yield what became of each."""
    from consumer.core.requests import Request
    from consumer.kafka.dead_letters.redrive import Coordinates, Redrive, requests_for

    requests: list[Request] = []
    for each in requests_for(settings.kafka, settings.topics, selection, why, time.time()):
        if isinstance(each, Request):
            requests.append(each)
        else:
            yield each
    for told in answers(settings, requests, no_wait=no_wait):
        request = told.request
        assert request.dead_letter is not None  # noqa: S101 - of each of them
        at, to = Coordinates(*request.dead_letter), (request.topic, request.partition)
        if told.answer is None:
            yield Redrive(at, "asked", to, f"request {request.id}")
        else:
            yield Redrive(at, "redriven" if told.answer.is_done else "failed", to, told.answer.detail)


def _question(settings: Settings, selection: Selection, *, only_mark: bool) -> str:
    """Count what would be taken, and ask."""
    from consumer.kafka.dead_letters.redrive import Redrive, redrive

    found = redrive(settings.kafka, settings.topics, selection, dry_run=True, only_mark=only_mark)
    count = sum(isinstance(each, Redrive) and each.result == "chosen" for each in found)
    what = "1 dead letter" if count == 1 else f"{count} dead letters"
    return f"Mark {what}, and send nothing?" if only_mark else f"Redrive {what}? Customers may get e-mails."


def _named(at: Coordinates) -> dict[str, object]:
    return {"dead_letter_topic": at.topic, "dead_letter_partition": at.partition, "dead_letter_offset": at.offset}


# What a reader copies from: `--source-offset` and `--dead-letter-offset` take the partition and one of the two offsets.
_COLUMNS = (
    "source_topic",
    "source_partition",
    "source_offset",
    "dead_letter_offset",
    "reason",
    "detail",
    "route",
    "key",
    "failed_at",
    "redriven",
)


def _dead_letter_row(dead_letter: DeadLetter) -> dict[str, object]:
    from consumer.kafka.topics.scan import moment

    return {
        **_named(dead_letter.coordinates),
        **dead_letter.why.model_dump(mode="json", exclude={"failed_at_ms"}),
        "failed_at": moment(dead_letter.why.failed_at_ms),
        "key": None if dead_letter.key is None else dead_letter.key.decode(errors="replace"),
        "redriven": dead_letter.redriven,
        "redrive_of": dead_letter.redrive_of,
    }


def _selection(
    settings: Settings,
    topic: str | None,
    reasons: list[str] | None,
    since: str | None,
    coordinates: frozenset[Coordinates] | None,
) -> Selection:
    from consumer.kafka.dead_letters.redrive import Selection
    from schemas.dead_letter import Reason

    if topic is not None and topic not in settings.source.topics:
        refuse(f"--topic: {topic} is no source topic; those are {', '.join(settings.source.topics)}")
    if unknown := set(reasons or ()).difference(Reason):
        refuse(f"--reason: no such reason: {', '.join(sorted(unknown))}; there are {', '.join(Reason)}")
    return Selection(
        topic,
        frozenset(map(Reason, reasons)) if reasons else None,
        None if since is None else _since_ms(since, time.time()),
        coordinates,
    )


def _since_ms(text: str, now: float) -> int:
    from consumer.events.durations import seconds

    try:
        return round((now - seconds(text)) * 1000)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        refuse("--since: must be a duration (2h, 3d) or a time (2025-11-03T12:00Z)")
    return round((moment if moment.tzinfo else moment.astimezone()).timestamp() * 1000)


def _dead_letters_at(settings: Settings, topic: str | None, offsets: list[str]) -> Iterator[Coordinates]:
    from consumer.kafka.dead_letters.redrive import dead_letter_topics

    return _coordinates_at("--dead-letter-offset", dead_letter_topics(settings.topics, topic), offsets)


def _sources_at(settings: Settings, topic: str | None, offsets: list[str]) -> Iterator[Coordinates]:
    topics = list(settings.source.topics) if topic is None else [topic]
    return _coordinates_at("--source-offset", topics, offsets)


def _coordinates_at(option: str, topics: list[str], offsets: list[str]) -> Iterator[Coordinates]:
    from consumer.kafka.dead_letters.redrive import Coordinates

    for text in offsets:
        place = place_in(text)
        if place is None:
            refuse(f"{option}: {text}: must be partition:offset, as in 0:17")
        if len(topics) != 1:
            refuse(f"{option}: say of which source topic, with --topic")
        yield Coordinates(topics[0], *place)


def _coordinates_in(lines: Iterable[bytes]) -> Iterator[Coordinates]:
    from consumer.kafka.dead_letters.redrive import Coordinates

    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                at = (int(row["dead_letter_partition"]), int(row["dead_letter_offset"]))
                yield Coordinates(str(row["dead_letter_topic"]), *at)
            except (ValueError, KeyError, TypeError):
                refuse(f"line {number} was not printed by `dead-letters list --json`")
