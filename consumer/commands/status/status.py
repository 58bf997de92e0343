"""`engage-relay status`: what a running relay does, or all of its instances."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import end, refuse
from consumer.commands.options import AsJson, Output, look_of
from consumer.errors import ExitCode

DEFAULT_URL = "http://127.0.0.1:8080"


def status(
    *,
    url: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A running relay's admin.listen. Default: {DEFAULT_URL}. With --all, may be given several times.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="All instances: each address behind the URL's name, as of a headless service."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Print nothing but what is wrong or paused: exit code 1 where it is not alive."),
    ] = False,
    live: Annotated[
        bool | None,
        typer.Option(
            "--watch/--once",
            help="Refresh until Ctrl-C, or print once. Default: refresh on a terminal.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    look: Output = None,
) -> None:
    """Show what a running relay does. Exit code 1 where none answers."""
    urls = url or [DEFAULT_URL]
    if every:
        if check or live:
            refuse(f"{'--check' if check else '--watch'}: of one instance only, without --all")
        raise typer.Exit(_all(urls, look_of(look, as_json=as_json)))
    if len(urls) > 1:
        refuse("--url: give one, or say --all")
    if look == "yaml":
        refuse("--output yaml: only with --all")
    if check:
        _check(urls[0])
    else:
        _show(urls[0], live=live, as_json=as_json or look == "json")


def _all(urls: list[str], look: output.Look) -> int:
    """Print all instances; returns the exit code."""
    from consumer.admin import fleet
    from consumer.commands.status.fleet import COLUMNS, OPTIONAL, row

    try:
        found = fleet.asked(fleet.addresses(urls))
    except ValueError as error:
        refuse(f"--url: {error}")
    except fleet.StatusError as error:
        end(ExitCode.FAILED, str(error))
    if look in ("json", "yaml"):
        output.rows(map(fleet.whole, found), (), look=look)
    else:
        output.rows(map(row, found), COLUMNS, look=look, optional=OPTIONAL)
        for line in (*fleet.attention(found), fleet.together(found)):
            output.notice(line)
    for each in found:
        if each.status is None:
            output.notice(each.why)
    for line in fleet.disagreements(found):
        output.notice(line)
    return int(any(each.status is None for each in found))


def _check(url: str) -> None:
    """End with code 1, and say why, where the relay is not alive: what a container's health check asks."""
    import httpx

    try:
        answer = httpx.get(f"{url.rstrip('/')}/healthz", timeout=5.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        end(ExitCode.FAILED, f"nobody answers at {url}: {error or type(error).__name__}")
    if answer.status_code != 200:
        end(ExitCode.FAILED, *answer.text.splitlines())
    for each in _pauses(url):
        output.notice(each)


def _pauses(url: str) -> Iterator[str]:
    """Yield what is paused: the relay is well, and yet nobody gets an e-mail."""
    import httpx

    with suppress(httpx.HTTPError, ValueError, TypeError, KeyError):  # an older relay, or one that has just gone
        found = httpx.get(f"{url.rstrip('/')}/status.json", timeout=5.0, trust_env=False).json()["pauses"]
        for each in found:
            named = [f"{name} {each[name]}" for name in ("connection", "route", "action") if each[name]]
            yield f"paused ({each['mode']}): {', '.join(named) or 'everything'}: {each['reason']}"


def _show(url: str, *, live: bool | None, as_json: bool) -> None:
    from consumer.admin.fleet import StatusError, fetch
    from consumer.commands.status import display

    try:
        first = fetch(url)
    except ValueError as error:
        refuse(f"--url: {error}")
    except StatusError as error:
        end(ExitCode.FAILED, str(error))
    terminal = sys.stdout.isatty()
    then = display.updates(url) if (terminal and not as_json if live is None else live) else ()
    with suppress(KeyboardInterrupt):
        if as_json:
            output.json_line(first.model_dump(mode="json"))
            for each in then:
                if isinstance(each, StatusError):
                    output.notice(each)
                else:
                    output.json_line(each.model_dump(mode="json"))
        elif then:
            display.watch(first, then, display.console_of(terminal=terminal))
        else:
            console = display.console_of(terminal=terminal)
            console.print(display.drawn(first, console))
