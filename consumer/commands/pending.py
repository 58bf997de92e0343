"""`engage-relay pending`: what the delay topics hold, and all that is known of one action."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumer.commands import output
from consumer.commands.control.asking import NoWait, Why, asked, checked_reason, control_topic
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config, Limit, Output, connections, loaded, look_of, reach, without_gaps
from consumer.commands.single.ids import coordinates_of
from consumer.commands.single.pending_action import facts_of

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.core.pauses import Pauses
    from consumer.kafka.pending import Open
    from consumer.kafka.topics.scan import Gap
    from consumer.kafka.topics.topics import RelayTopics


app = typer.Typer(help="List, show, hasten and drop pending actions.", no_args_is_help=True)


Identifier = Annotated[
    str,
    typer.Argument(metavar="ID", help="Where its event is in the source: TOPIC/PARTITION/OFFSET or PARTITION:OFFSET."),
]
Item = Annotated[
    int | None, typer.Option(min=0, help="Which of its event's items (a route's `each`).", show_default=False)
]


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
        from consumer.kafka.pending import Filter, Pending, pending_actions

        if connection is not None and connection not in settings.engage.connections:
            output.notice(f"--connection: {connection} is not configured; {', '.join(settings.engage.connections)}")
        wanted = Filter(order_id, connection, state, None if older_than is None else _before(older_than, time.time()))
        reach(settings)
        gaps: list[Gap] = []
        topics = _searched(settings)
        found = without_gaps(pending_actions(settings.kafka, topics, wanted), gaps)
        columns = [name for name in Pending.__dataclass_fields__ if name not in ("connection", "first_seen")]
        output.rows(
            (asdict(each) for each in islice(found, limit)),
            columns,
            look=look_of(look, as_json=as_json),
            optional=("route", "sends", "attempts", "due", "topic"),
        )
        raise typer.Exit(int(bool(gaps)))


@app.command("show")
def pending_show(identifier: Identifier, *, config: Config = None, item: Item = None, as_json: AsJson = False) -> None:
    """Show one pending action, and why it waits.

    Exit code 2 where none is pending or several are, 1 where not everything could be read.
    """
    with exit_codes():
        settings = loaded(config)
        from consumer.kafka.pending import open_at

        coordinates_of(identifier, settings.source.topics, others=True)  # before a broker is asked
        reach(settings)
        topics = _searched(settings)
        at = coordinates_of(identifier, [each.source for each in topics])
        gaps: list[Gap] = []
        opened = list(without_gaps(open_at(settings.kafka, topics, at.topic, at.partition, at.offset), gaps))
        if not opened and gaps:
            raise typer.Exit(1)
        only, now_ms = _only(opened, str(at), item), round(time.time() * 1000)
        shown = dict(facts_of(only, now_ms, settings.polling.deadline, _pauses(settings)))
        output.facts(shown, as_json=as_json)
        raise typer.Exit(int(bool(gaps)))


@app.command("retry-now")
def pending_retry_now(
    identifier: Identifier, *, reason: Why, config: Config = None, item: Item = None, no_wait: NoWait = False
) -> None:
    """Let an action's next poll or send be due now.

    Nothing is repeated that Engage may be at work on. Exit code 1 where it is refused or nobody answers.
    """
    _ask("retry_now", identifier, reason, config, item, no_wait=no_wait)


@app.command("drop")
def pending_drop(
    identifier: Identifier, *, reason: Why, config: Config = None, item: Item = None, no_wait: NoWait = False
) -> None:
    """End a pending action without sending it. Its outcome is `dropped`.

    What is under way is waited for. If Engage may have it, it becomes a dead letter `outcome_unknown`.
    Exit code 1 where it is refused or nobody answers.
    """
    _ask("drop", identifier, reason, config, item, no_wait=no_wait)


def _ask(
    what: Literal["retry_now", "drop"],
    identifier: str,
    reason: str,
    config: Path | None,
    item: int | None,
    *,
    no_wait: bool,
) -> None:
    with exit_codes():
        reason = checked_reason(reason)
        settings = loaded(config)
        control_topic(settings)
        from consumer.core.requests import Request
        from consumer.kafka.control.control import new_id
        from consumer.kafka.pending import open_at

        coordinates_of(identifier, settings.source.topics, others=True)
        reach(settings)
        topics = _searched(settings)
        at = coordinates_of(identifier, [each.source for each in topics])
        gaps: list[Gap] = []
        opened = list(without_gaps(open_at(settings.kafka, topics, at.topic, at.partition, at.offset), gaps))
        if not opened and gaps:
            raise typer.Exit(1)
        only, now = _only(opened, str(at), item), time.time()
        if only.record is None:
            refuse(f"{at}: it is {only.line.state}, and is no pending action any more")
        source = only.record.payload.source
        request = Request(
            id=new_id(now),
            what=what,
            topic=at.topic,
            partition=at.partition,
            offset=at.offset,
            incarnation=source.incarnation,
            item=only.record.payload.item,
            reason=reason,
            asked_by="pending",
            asked=now,
        )
        raise typer.Exit(asked(settings, [request], no_wait=no_wait))


def _pauses(settings: Settings) -> Pauses:
    """Return which pauses there are; none, and a notice, where they cannot be read."""
    from consumer.kafka.control.control import CurrentPauses

    current = CurrentPauses(settings.kafka, settings.control_topic)
    found = current.pauses
    for why in current.gaps:
        output.notice(f"whether it is paused cannot be said: {why}")
    return found


def _only(opened: list[Open], at: str, item: int | None) -> Open:
    """Return the one that is meant; else end with exit code 2."""
    chosen = [each for each in opened if item is None or (each.record is not None and each.record.payload.item == item)]
    if len(chosen) == 1:
        return chosen[0]
    if not opened:
        refuse(f"{at}: nothing is pending of this event; `engage-relay pending list` shows what is")
    items = [each.record.payload.item for each in opened if each.record is not None]
    numbers = ", ".join(str(each) for each in items if each is not None)
    if numbers:
        return refuse(f"{at}: name one of its items with --item: {numbers}")
    if item is not None:
        return refuse(f"{at}: its event has no items; leave --item out")
    return refuse(f"{at}: one of each topic that had this name is pending; see `pending list --json`")


def _searched(settings: Settings) -> list[RelayTopics]:
    """Return the topics to read, with those of removed sources, which it names."""
    from consumer.kafka.identity.removed import removed_sources

    removed = removed_sources(settings.kafka, settings.topics, settings.delay.topic, settings.topics_of, by_name=True)
    for each in removed:
        output.notice(str(each))
    return [*settings.topics, *(each.topics for each in removed)]


def _before(text: str, now: float) -> datetime:
    from consumer.events.durations import seconds

    try:
        return datetime.fromtimestamp(now - seconds(text), UTC)
    except ValueError as error:
        refuse(f"--older-than: {error}")
