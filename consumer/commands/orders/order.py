"""`engage-relay order`: what became of one order, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes
from consumer.commands.options import AsJson, Config, connections, loaded, source_topics
from consumer.commands.orders.searching import timeline_of

if TYPE_CHECKING:
    from consumer.kafka.orders.timeline import Entry, Timeline


def order(
    order_id: Annotated[str, typer.Argument(metavar="ID", help="The order's id, as its events name it.")],
    *,
    config: Config = None,
    connection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this connection.", show_default=False, autocompletion=connections),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this source topic.", show_default=False, autocompletion=source_topics),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Search this partition. Without it: the one that the key's hash says (murmur2, then CRC32).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what became of an order, step by step.

    Its events, polls, sends and answers, its dead letters, and what is pending.
    Exit code 2 where nothing is found, 1 where not everything could be read.
    """
    with exit_codes():
        settings = loaded(config)
        if connection is not None and connection not in settings.engage.connections:
            output.notice(f"--connection: {connection} is not configured; {', '.join(settings.engage.connections)}")
        found = timeline_of(settings, order_id, topic=topic, partition=partition, connection=connection)
        if as_json:
            output.json_line(found.as_json())
        else:
            _print(found)
        raise typer.Exit(int(bool(found.gaps)))


def _print(timeline: Timeline) -> None:
    output.data(f"order {timeline.order_id}")
    for entry in timeline.entries:
        output.data("")
        output.data(f"{entry.at}  {entry.title}: {_state(entry)}")
        for step in entry.steps:
            output.data(f"  {_time(step.at_ms):<24}  {step.text}")
        if entry.next_due_ms is not None:
            output.data(f"  {_time(entry.next_due_ms):<24}  next due")


def _state(entry: Entry) -> str:
    state = entry.state.replace("_", " ")
    return state if entry.reason is None else f"{state} ({entry.reason})"


def _time(ms: int | None) -> str:
    from consumer.kafka.topics.scan import moment

    if ms is None:
        return ""
    found = moment(ms)
    return str(ms) if found is None else found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
