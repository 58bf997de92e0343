"""`engage-relay pending`: what the delay topics hold."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config, Limit, Output, connections, loaded, look_of, reach, without_gaps

if TYPE_CHECKING:
    from consumer.kafka.topics.scan import Gap


app = typer.Typer(help="List the actions that are still pending.", no_args_is_help=True)


@app.command("list")
def pending_list(
    *,
    config: Config = None,
    order_id: Annotated[
        str | None, typer.Option("--order-id", metavar="ID", help="Only of this order.", show_default=False)
    ] = None,
    connection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this connection.", show_default=False, autocompletion=connections),
    ] = None,
    state: Annotated[
        Literal["pending", "sending", "refused", "unreadable"] | None,
        typer.Option(
            help="sending: its intent is saved, its outcome is not. refused: a dead letter that its topic refuses.",
            show_default=False,
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only those first seen longer ago: 90s, 1h, 2d.", show_default=False),
    ] = None,
    limit: Limit = None,
    as_json: AsJson = False,
    look: Output = None,
) -> None:
    """List what the delay topics hold now. Exit code 1 where the list is not complete."""
    with exit_codes():
        settings = loaded(config)
        from consumer.kafka.identity.removed import removed_sources
        from consumer.kafka.pending import Filter, Pending, pending_actions

        if connection is not None and connection not in settings.engage.connections:
            output.notice(f"--connection: {connection} is not configured; {', '.join(settings.engage.connections)}")
        wanted = Filter(order_id, connection, state, None if older_than is None else _before(older_than, time.time()))
        reach(settings)
        gaps: list[Gap] = []
        removed = removed_sources(
            settings.kafka, settings.topics, settings.delay.topic, settings.topics_of, by_name=True
        )
        for each in removed:
            output.notice(str(each))
        topics = [*settings.topics, *(each.topics for each in removed)]
        found = without_gaps(pending_actions(settings.kafka, topics, wanted), gaps)
        columns = [name for name in Pending.__dataclass_fields__ if name not in ("connection", "first_seen")]
        output.rows(
            (asdict(each) for each in islice(found, limit)),
            columns,
            look=look_of(look, as_json=as_json),
            optional=("route", "sends", "attempts", "due", "topic"),
        )
        raise typer.Exit(int(bool(gaps)))


def _before(text: str, now: float) -> datetime:
    from consumer.events.durations import seconds

    try:
        return datetime.fromtimestamp(now - seconds(text), UTC)
    except ValueError as error:
        refuse(f"--older-than: {error}")
