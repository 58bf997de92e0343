"""What commands share: options, their completion, and reading what they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from consumer.commands import output
from consumer.commands.exits import refuse
from consumer.errors import ConfigurationError

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.kafka.topics.scan import Gap

T = TypeVar("T")


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="ENGAGE_RELAY_CONFIG",
        help="YAML file; environment variables override it.",
        show_default=False,
    ),
]
Output = Annotated[
    Literal["wide", "json", "yaml"] | None,
    typer.Option(
        "--output",
        "-o",
        help="wide: all columns, on any terminal; json: as --json; yaml: one list.",
        show_default=False,
    ),
]
OutputOfObjects = Annotated[
    Literal["json", "yaml"] | None,
    typer.Option("--output", "-o", help="json: as --json; yaml: one list.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, before many are changed.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Print at most this many.", show_default=False)]


def loaded(
    config: Path | None, log_level: str = "warning", log_format: str | None = None, *, only_routes: bool = False
) -> Settings:
    """Load the configuration and set up the logs, so that no key appears in them. `only_routes`: see `load`.

    `log_format`: `text` or `json`; None: json wherever stderr is no terminal.
    """
    import structlog

    from consumer import logs
    from consumer.config.environment import near_misses
    from consumer.config.loading import load

    logs.configure(log_level, json=None if log_format is None else log_format == "json")
    for line in near_misses(os.environ):
        structlog.stdlib.get_logger(__name__).warning(line)
    settings = load(config, os.environ, only_routes=only_routes)
    for secret in _secrets(settings):
        logs.redact(secret)
    return settings


def _secrets(settings: Settings) -> Iterator[str]:
    """Return the secrets that the configuration holds or names. Not headers: most are ordinary words."""
    from urllib.parse import unquote, urlsplit

    from consumer.config.sections.kafka_properties import is_secret

    yield from (str(value) for name, value in settings.kafka.items() if is_secret(name))
    if settings.registry is not None:
        with suppress(OSError, ValueError):  # not readable now: a secret that nobody has cannot show
            yield settings.registry.secret()
    for connection in settings.engage.connections.values():
        if connection.proxy is not None and (password := urlsplit(connection.proxy.get_secret_value()).password):
            yield from (password, unquote(password))
        with suppress(OSError, ValueError):
            yield connection.key().current()


def with_max_age(settings: Settings, max_age: str | None, *, off: bool) -> Settings:
    """Return the settings with what the command line says of `max_age`."""
    from consumer.events.durations import OFF, positive, seconds

    if off:
        if max_age is not None:
            refuse("--max-age and --no-max-age: write one of them")
        return settings.model_copy(update={"max_age": OFF})
    if max_age is None:
        return settings
    try:
        return settings.model_copy(update={"max_age": positive(seconds(max_age))})
    except ValueError as error:
        refuse(f"--max-age: {error}")


def reach(settings: Settings) -> None:
    """See that Kafka answers, before a command asks it something.

    Raises ConfigurationError, and KafkaUnreachableError with addresses and reasons: the calls themselves just time out.
    """
    from consumer.config.files import check_files
    from consumer.kafka.reaching import GIVE_UP_S, reached

    check_files(settings)
    reached(settings.kafka, give_up_s=GIVE_UP_S)


def look_of(look: Literal["wide", "json", "yaml"] | None, *, as_json: bool) -> output.Look:
    """Return how a list is to be printed."""
    return "json" if as_json else look or "table"


def sure(question: Callable[[], str], *, yes: bool) -> None:
    """Ask before many things are changed, where a person is at the terminal. Ends the command where they say no.

    A script, or a pod without a terminal, has named them and is not asked. `question` is called only to be asked.
    """
    if not yes and is_a_terminal():
        typer.confirm(output.shown(question()), abort=True, err=True)


def is_a_terminal() -> bool:
    """Whether somebody may be there to answer a question."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def lines_of(file: Path) -> Iterator[bytes]:
    """Yield a file's lines; `-` is stdin."""
    try:
        with nullcontext(sys.stdin.buffer) if file == Path("-") else file.open("rb") as lines:
            yield from lines
    except OSError as error:
        refuse(f"{file}: {error.strerror}")


def bytes_of(file: Path) -> bytes:
    """Return all of a file; `-` is stdin."""
    return b"".join(lines_of(file))


def without_gaps(found: Iterator[T | Gap], gaps: list[Gap]) -> Iterator[T]:
    """Say what is missing, and remember it, while the other work continues."""
    from consumer.kafka.topics.scan import Gap

    for each in found:
        if isinstance(each, Gap):
            gaps.append(each)
            output.notice(each)
        else:
            yield each


# Completion


def reasons(incomplete: str) -> list[str]:
    """Complete a reason."""
    from schemas.dead_letter import Reason

    return [each for each in Reason if each.startswith(incomplete)]


def source_topics(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a source topic's name."""
    return [each for each in _configured(ctx, lambda found: found.source.topics) if each.startswith(incomplete)]


def connections(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a connection's name."""
    return [each for each in _configured(ctx, lambda found: found.engage.connections) if each.startswith(incomplete)]


def routes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a route's name."""
    return [each for each in _configured(ctx, lambda found: found.effective_routes) if each.startswith(incomplete)]


def actions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete an action's name."""
    named = _configured(ctx, lambda found: sorted({each.action for each in found.effective_routes.values()}))
    return [each for each in named if each.startswith(incomplete)]


def _configured(ctx: typer.Context, names: Callable[[Settings], Iterable[str]]) -> Iterable[str]:
    """Return names of the configuration that the line under completion uses; none where it cannot be read."""
    from consumer.config.loading import load

    given = ctx.params.get("config") or os.environ.get("ENGAGE_RELAY_CONFIG")
    try:
        return names(load(Path(given) if given else None, os.environ))
    except ConfigurationError:
        return ()
