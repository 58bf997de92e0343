"""`engage-relay check-config`: what the configuration means, and whether it can work."""

from __future__ import annotations

from typing import Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes
from consumer.commands.options import Config, loaded


def check_config(
    config: Config = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the brokers and Engage, too.")] = False,
) -> None:
    """Say what the configuration means, and whether it can work."""
    with exit_codes():
        settings = loaded(config)
        from consumer.commands import checks

        for line in checks.summary(settings):
            output.data(line)
        codes = []
        for finding in (*checks.offline(settings), *(checks.online(settings) if online else ())):
            output.data(str(finding))
            codes.append(finding.code)
        raise typer.Exit(next((code for code in codes if code), 0))
