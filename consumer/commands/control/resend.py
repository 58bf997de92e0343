"""`engage-relay resend`: have an action sent again that had ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.control.asking import NoWait, Why, asked, checked_reason, control_topic
from consumer.commands.control.pauses import OfAction, OfConnection, OfRoute, check_names
from consumer.commands.exits import end, exit_codes, refuse
from consumer.commands.options import Config, Yes, loaded, reach, source_topics
from consumer.commands.options import sure as confirmed
from consumer.commands.orders.searching import chosen, teller, timeline_of
from consumer.commands.single.ids import coordinates_of
from consumer.errors import ExitCode

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.core.requests import Request
    from consumer.kafka.orders.timeline import At, Entry, Timeline
    from schemas.outcome import Place


def resend(
    order_id: Annotated[
        str | None,
        typer.Argument(metavar="[ORDER]", help="The order's id, as its events name it.", show_default=False),
    ] = None,
    *,
    reason: Why,
    config: Config = None,
    action: OfAction = None,
    route: OfRoute = None,
    connection: OfConnection = None,
    event: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="That of this event: TOPIC/PARTITION/OFFSET or PARTITION:OFFSET.", show_default=False
        ),
    ] = None,
    item: Annotated[
        int | None, typer.Option(min=0, help="Which of its event's items (a route's `each`).", show_default=False)
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this source topic.", show_default=False, autocompletion=source_topics),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(min=0, help="Search this partition, as in `engage-relay order`.", show_default=False),
    ] = None,
    withheld: Annotated[
        bool, typer.Option("--withheld", help="All that a pause discarded (`pause --discard`), instead of an ORDER's.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="With --withheld: only what was discarded since, such as 2d.", show_default=False
        ),
    ] = None,
    yes: Yes = False,
    no_wait: NoWait = False,
) -> None:
    """Have an order's action sent again. The customer gets another e-mail.

    The relay makes the action of its event again, with a versionTag of now. `repeats` and `max_age` do not stop it.
    Name the action where the order has several. Exit code 2 where it cannot be sent again, 1 where it is refused,
    nobody answers, or not everything about the order could be read.
    """
    with exit_codes():
        reason = checked_reason(reason)
        settings = loaded(config)
        control_topic(settings)
        check_names(settings, connection, route, action)
        if withheld:
            if order_id is not None or event is not None or item is not None or partition is not None:
                refuse("--withheld: names no ORDER, --event, --item or --partition")
            scope = (connection, route, action)
            raise typer.Exit(_send_withheld(settings, topic, scope, since, reason, yes=yes, no_wait=no_wait))
        if order_id is None or since is not None:
            refuse("name an ORDER, or say --withheld (which takes --since)")
        at = None if event is None else str(coordinates_of(event, settings.source.topics))
        found = timeline_of(settings, order_id, topic=topic, partition=partition, connection=connection)
        if found.gaps:  # what it did not see may be a later send, or a dead letter
            end(ExitCode.FAILED, "nothing was asked for, as not everything could be read")
        entry = _only(found, [each for each in found.entries if _fits(each, action, route, at, item)])
        _refuse_what_cannot_be(entry)
        raise typer.Exit(asked(settings, [_request(entry.at, entry.route, reason, time.time())], no_wait=no_wait))


def _send_withheld(
    settings: Settings,
    topic: str | None,
    scope: tuple[str | None, str | None, str | None],
    since: str | None,
    reason: str,
    *,
    yes: bool,
    no_wait: bool,
) -> int:
    """Have all sent that a pause discarded, and return the exit code."""
    from consumer.config.searching import search_of
    from consumer.events.durations import seconds
    from consumer.kafka.orders.withheld import discarded

    try:
        since_ms = None if since is None else round((time.time() - seconds(since)) * 1000)
    except ValueError as error:
        refuse(f"--since: {error}")
    topics = chosen(settings, topic)
    reach(settings)
    gaps, now = False, time.time()
    requests: list[Request] = []
    for each in discarded(topics, search_of(settings, time.time, teller()), since_ms):
        if isinstance(each, str):
            gaps = True
            output.notice(each)
        elif all(
            name in (None, its) for name, its in zip(scope, (each.connection, each.route, each.action), strict=True)
        ):
            requests.append(_request(each.place, each.route, reason, now))
    if not requests:
        output.notice("nothing was discarded that nobody had sent since")
        return int(gaps)
    count = "1 action" if len(requests) == 1 else f"{len(requests)} actions"
    confirmed(lambda: f"Send {count} that a pause discarded? Customers may get e-mails.", yes=yes)
    return max(int(gaps), asked(settings, requests, no_wait=no_wait))


def _request(at: At | Place, route: str | None, reason: str, now: float) -> Request:
    """Return the request to send an action again. `now`: seconds since 1970."""
    from consumer.core.requests import Request
    from consumer.kafka.control.control import new_id

    return Request(
        id=new_id(now),
        what="send_again",
        topic=at.topic,
        partition=at.partition,
        offset=at.offset,
        incarnation=at.incarnation,
        item=at.item,
        route=route,
        reason=reason,
        asked_by="resend",
        asked=now,
    )


def _fits(entry: Entry, action: str | None, route: str | None, at: str | None, item: int | None) -> bool:
    return (
        entry.action is not None
        and action in (None, entry.action)
        and route in (None, entry.route)
        and at in (None, _id(entry))
        and item in (None, entry.at.item)
    )


def _only(found: Timeline, fitting: Sequence[Entry]) -> Entry:
    """Return the action that is meant; else end with exit code 2."""
    repeated = [each for each in fitting if each.state != "repeat"]
    candidates = repeated or fitting
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        refuse(f"order {found.order_id} has no such action; it has:", *_listed(found.entries))
    return refuse(
        f"order {found.order_id} has several such actions: name one with --action, --route or --event (and --item):",
        *_listed(candidates),
    )


def _listed(entries: Iterable[Entry]) -> list[str]:
    return [f"  {_id(each)}{_item(each)}  {each.title}: {each.state.replace('_', ' ')}" for each in entries]


def _refuse_what_cannot_be(entry: Entry) -> None:
    """End with exit code 2 where the action cannot be sent again, and say what to do instead."""
    at = f"{_id(entry)}{_item(entry)}"
    if entry.state == "pending":
        refuse(f"{at}: it is still pending; `engage-relay pending retry-now {_id(entry)}` hastens it")
    if entry.state == "unread":
        refuse(f"{at}: the relay has not read its event yet")
    if entry.state == "dead_letter" and not entry.redriven:
        place = f"--topic {entry.at.topic} --source-offset {entry.at.partition}:{entry.at.offset}"
        refuse(f"{at}: it is a dead letter; send it with `engage-relay dead-letters redrive {place}`")
    if not entry.in_source:
        refuse(f"{at}: its event is not in the source any more, so the action cannot be made again")


def _id(entry: Entry) -> str:
    return f"{entry.at.topic}/{entry.at.partition}/{entry.at.offset}"


def _item(entry: Entry) -> str:
    return "" if entry.at.item is None else f" --item {entry.at.item}"
