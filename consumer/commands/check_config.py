"""`engage-relay check-config`: what the configuration means, and whether it can work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes
from consumer.commands.options import Config, lines_of, loaded

if TYPE_CHECKING:
    from consumer.commands.checks import Finding
    from consumer.config.settings import Settings


def check_config(
    config: Config = None,
    online: Annotated[bool, typer.Option("--online", help="Ask brokers, Schema Registry and Engage, too.")] = False,
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Events, as `route` reads them: what routes read must be in one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what the configuration means, and whether it can work."""
    with exit_codes():
        settings = loaded(config)
        from consumer.commands import checks

        for line in checks.summary(settings):
            output.data(line)
        codes = []
        sampled = () if sample is None else _sampled(settings, sample)
        for finding in (*checks.offline(settings), *sampled, *(checks.online(settings) if online else ())):
            output.data(str(finding))
            codes.append(finding.code)
        raise typer.Exit(next((code for code in codes if code), 0))


def _sampled(settings: Settings, file: Path) -> Iterator[Finding]:
    from consumer.commands.checks import Finding
    from consumer.commands.routing.exports import Defaults, records_in
    from consumer.commands.routing.samples import unseen
    from consumer.errors import ExitCode
    from consumer.kafka.records.source_events import SourceEvent

    found = records_in(lines_of(file), Defaults(settings.source.topics[0]))
    for each in unseen(settings, [record for record in found if isinstance(record, SourceEvent)]):
        if each.fails:
            yield Finding("failed", str(each), ExitCode.CONFIGURATION)
        else:
            yield Finding("note", str(each))
