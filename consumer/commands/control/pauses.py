"""`engage-relay pause`, `resume` and `pauses`: quiet mode."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.control.asking import Why, checked_reason, control_topic
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config, Output, Yes, actions, connections, loaded, look_of, reach, routes
from consumer.commands.options import sure as confirmed

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.core.pauses import Pause
    from consumer.kafka.control.control import Record
    from consumer.kafka.control.records import Controls

KEEP_ENDED_S = 30 * 86_400.0  # beyond the deadline: for so long an action may be pending that was on hold then
ID_LENGTH = 8

OfConnection = Annotated[
    str | None,
    typer.Option(
        "--connection",
        metavar="NAME",
        help="Only of this connection.",
        show_default=False,
        autocompletion=connections,
    ),
]
OfRoute = Annotated[
    str | None,
    typer.Option("--route", metavar="NAME", help="Only of this route.", show_default=False, autocompletion=routes),
]
OfAction = Annotated[
    str | None,
    typer.Option(
        "--action", metavar="NAME", help="Only actions of this name.", show_default=False, autocompletion=actions
    ),
]


def pause(
    *,
    reason: Why,
    config: Config = None,
    connection: OfConnection = None,
    route: OfRoute = None,
    action: OfAction = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="It ends then: 2h, or 2026-11-28T09:00+01:00. Default: `resume`.", show_default=False
        ),
    ] = None,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard/--hold", help="End what it covers as `withheld`, for good. Default: it waits, and is sent later."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Put actions on hold, on all instances.

    All of them, or those of a connection, a route or a name. What is under way goes its way.
    A pause is kept over restarts, until `resume` or --until.
    """
    with exit_codes():
        now = time.time()
        checked_reason(reason)
        until_s = None if until is None else _moment_in(until, now)
        settings = loaded(config)
        topic = control_topic(settings)
        check_names(settings, connection, route, action)
        from consumer.core.pauses import Pause
        from consumer.kafka.control.control import Record, read_controls, write_controls
        from consumer.kafka.control.records import pause_key, pause_value

        new = Pause(
            id=uuid.uuid4().hex[:ID_LENGTH],
            begun=now,
            reason=reason.strip(),
            connection=connection,
            route=route,
            action=action,
            until=until_s,
            discard=discard,
        )
        reach(settings)
        controls = read_controls(settings.kafka, topic)
        if discard:
            confirmed(lambda: _question(settings, new), yes=yes)
        old = _forgotten(controls, now, settings.polling.deadline)
        write_controls(settings.kafka, topic, [*old, Record(pause_key(new), pause_value(new))])
        ends = "until `engage-relay resume`" if until_s is None else f"until {output.time_of(_utc(until_s))}"
        output.data(f"{new.id}: {new.what} is {'discarded' if discard else 'on hold'} {ends}")


def resume(
    *,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Pauses, as `pauses` lists them. Default: all.")
    ] = None,
    reason: Why,
    config: Config = None,
    connection: OfConnection = None,
    route: OfRoute = None,
    action: OfAction = None,
    yes: Yes = False,
) -> None:
    """End pauses, and send what was on hold.

    All pauses, those named, or those that are exactly of this connection, route or action.
    What was discarded stays so.
    """
    with exit_codes():
        now = time.time()
        checked_reason(reason)
        settings = loaded(config)
        topic = control_topic(settings)
        from consumer.kafka.control.control import Record, read_controls, write_controls
        from consumer.kafka.control.records import pause_key, pause_value

        reach(settings)
        controls = read_controls(settings.kafka, topic)
        on = controls.pauses.on(now)
        chosen = _chosen(on, ids or (), (connection, route, action))
        if len(chosen) > 1:
            confirmed(lambda: f"End {len(chosen)} pauses? Customers may get e-mails.", yes=yes)
        ended = [
            Record(pause_key(each), pause_value(replace(each, ended=max(now, each.begun)), reason.strip()))
            for each in chosen
        ]
        write_controls(settings.kafka, topic, [*_forgotten(controls, now, settings.polling.deadline), *ended])
        for each in chosen:
            output.data(f"{each.id}: {each.what} is resumed")
        if not chosen:
            output.notice("nothing is paused")


def pauses(
    *,
    config: Config = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Also those that have ended, as long as they are kept.")
    ] = False,
    as_json: AsJson = False,
    look: Output = None,
) -> None:
    """List the pauses that are on. Exit code 1 where a record cannot be read."""
    with exit_codes():
        settings = loaded(config)
        topic = control_topic(settings)
        from consumer.kafka.control.control import read_controls

        reach(settings)
        controls = read_controls(settings.kafka, topic)
        now = time.time()
        found = controls.pauses.known if ended else controls.pauses.on(now)
        output.rows(
            (_row(each, now) for each in found), COLUMNS, look=look_of(look, as_json=as_json), optional=OPTIONAL
        )
        if controls.unreadable:
            output.notice(f"{topic}: {controls.unreadable} records cannot be read, and are ignored")
        raise typer.Exit(int(bool(controls.unreadable)))


COLUMNS = ("id", "mode", "connection", "route", "action", "since", "until", "ended", "reason")
OPTIONAL = ("ended", "connection", "action")


def _row(pause: Pause, now: float) -> dict[str, object]:
    return {
        "id": pause.id,
        "mode": "discard" if pause.discard else "hold",
        "connection": pause.connection,
        "route": pause.route,
        "action": pause.action,
        "since": _utc(pause.begun),
        "until": None if pause.until is None else _utc(pause.until),
        "ended": None if pause.is_on(now) else _utc(pause.end),
        "reason": pause.reason,
    }


def check_names(settings: Settings, connection: str | None, route: str | None, action: str | None) -> None:
    """See that what is named is configured; else end with exit code 2."""
    rules = settings.effective_routes
    for option, name, known in (
        ("--connection", connection, list(settings.engage.connections)),
        ("--route", route, list(rules)),
        ("--action", action, sorted({each.action for each in rules.values()})),
    ):
        if name is not None and name not in known:
            refuse(f"{option}: {name} is not configured; there are {', '.join(known)}")


def _moment_in(text: str, now: float) -> float:
    """Read `--until`: a duration from now, or a time."""
    from consumer.events.durations import seconds

    try:
        until = now + seconds(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            refuse(f"--until: {text}: must be a duration (2h, 3d) or a time (2026-11-28T09:00+01:00)")
        until = (moment if moment.tzinfo else moment.astimezone()).timestamp()
    if until <= now:
        refuse(f"--until: {text} is in the past")
    return until


def _chosen(on: Sequence[Pause], ids: Sequence[str], scope: tuple[str | None, str | None, str | None]) -> list[Pause]:
    """Return the pauses that are to end; else ends with exit code 2."""
    if ids and any(scope):
        refuse("name pauses by their ids, or by what they cover, not both")
    listed = ", ".join(f"{each.id} ({each.what})" for each in on) or "none"
    if unknown := set(ids) - {each.id for each in on}:
        refuse(f"{', '.join(sorted(unknown))}: no such pause is on; there are: {listed}")
    chosen = [each for each in on if (each.id in ids if ids else _is_of(each, scope))]
    if not chosen and (on or any(scope)):
        refuse(f"no such pause is on; there are: {listed}")
    return chosen


def _is_of(pause: Pause, scope: tuple[str | None, str | None, str | None]) -> bool:
    return not any(scope) or (pause.connection, pause.route, pause.action) == scope


def _forgotten(controls: Controls, now: float, deadline_s: float) -> list[Record]:
    """Return the records that clear old pauses away."""
    from consumer.kafka.control.control import Record
    from consumer.kafka.control.records import pause_key

    return [
        Record(pause_key(each), None) for each in controls.pauses.known if each.end < now - deadline_s - KEEP_ENDED_S
    ]


def _question(settings: Settings, pause: Pause) -> str:
    """Count what would be discarded now, and ask."""
    from consumer.core.pauses import Scope
    from consumer.kafka.pending import Pending, pending_actions

    count = sum(
        isinstance(each, Pending) and pause.covers(Scope(each.connection or "", each.route or "", each.action or ""))
        for each in pending_actions(settings.kafka, settings.topics)
    )
    what = "1 pending action" if count == 1 else f"{count} pending actions"
    return f"Discard {what}, and what comes while it is on? They are never sent."


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
