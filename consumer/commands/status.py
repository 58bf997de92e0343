"""`engage-relay status`: what a running relay does."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import end, refuse
from consumer.commands.options import AsJson
from consumer.errors import ExitCode


def status(
    url: Annotated[str, typer.Option(help="A running relay's admin.listen.")] = "http://127.0.0.1:8080",
    live: Annotated[
        bool | None,
        typer.Option(
            "--watch/--once",
            help="Refresh until Ctrl-C, or print once. Default: refresh on a terminal.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a running relay does. Exit code 1 where none answers."""
    from consumer.commands import status_display as display

    try:
        first = display.fetch(url)
    except ValueError as error:
        refuse(f"--url: {error}")
    except display.StatusError as error:
        end(ExitCode.FAILED, str(error))
    terminal = sys.stdout.isatty()
    then = display.updates(url) if (terminal and not as_json if live is None else live) else ()
    with suppress(KeyboardInterrupt):
        if as_json:
            output.json_line(first.model_dump(mode="json"))
            for each in then:
                if isinstance(each, display.StatusError):
                    output.notice(each)
                else:
                    output.json_line(each.model_dump(mode="json"))
        elif then:
            display.watch(first, then, display.console_of(terminal=terminal))
        else:
            console = display.console_of(terminal=terminal)
            console.print(display.drawn(first, console))
