"""The command line: the list of all commands, and those that have no file of their own.

Rules:
 1. A command parses, calls once and prints. Data goes to stdout; logs and what an operator must know go to stderr.
 2. Heavy modules are imported only by the command that needs them, so that `--help` takes a fifth of the time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumer.commands import config, dead_letters, output, pending, topics
from consumer.commands.check_config import check_config
from consumer.commands.control.pauses import pause, pauses, resume
from consumer.commands.control.resend import resend
from consumer.commands.examples import give_examples
from consumer.commands.exits import EXIT_CODES, exit_codes, refuse
from consumer.commands.options import Config, loaded, with_max_age
from consumer.commands.orders.order import order
from consumer.commands.orders.reconcile import reconcile
from consumer.commands.routing.route import route
from consumer.commands.send import send
from consumer.commands.simulate import simulate
from consumer.commands.status.status import status
from consumer.commands.verify_engage import verify_engage
from consumer.errors import ExitCode

if TYPE_CHECKING:
    from consumer.events.guards import Shadow

app = typer.Typer(
    help="Sends the order events on Kafka to Voyado Engage as order actions.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show local variables: keys, events
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from consumer import __version__

        output.data(__version__)
        raise typer.Exit


@app.callback()
def _engage_relay(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    *,
    config: Config = None,
    start: Annotated[
        Literal["earliest", "latest"] | None,
        typer.Option("--from", help="Where to start a topic that the group has never read.", show_default=False),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(
            "--max-age",
            metavar="DURATION",
            help="Send no action for an older event, such as 2d. It overrides the global max_age.",
            show_default=False,
        ),
    ] = None,
    no_max_age: Annotated[
        bool, typer.Option("--no-max-age", help="Send the actions of old events, too: max_age is off.")
    ] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Send nothing: events are read and routed, and their tags polled for.")
    ] = False,
    no_polls: Annotated[bool, typer.Option("--no-polls", help="With --shadow: ask Engage nothing at all.")] = False,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="Create the topics that are missing.")] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(envvar="ENGAGE_RELAY_LOG_LEVEL")
    ] = "info",
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            envvar="ENGAGE_RELAY_LOG_FORMAT", help="Default: text on a terminal, else json.", show_default=False
        ),
    ] = None,
) -> None:
    """Run the relay until SIGTERM or SIGINT. A second signal ends it at once."""
    with exit_codes():
        if no_polls and not shadow:
            refuse("--no-polls: only with --shadow")
        settings = with_max_age(loaded(config, log_level, log_format), max_age, off=no_max_age)
        from consumer.run import process

        mode: Shadow | None = None if not shadow else "no_polls" if no_polls else "polls"
        code = process.run(settings, start=start, create_topics=create_topics, shadow=mode)
    if code is not ExitCode.OK:
        # A call of a client that failed for good may never return from librdkafka (its close, for example). Then its
        # destructor or thread would keep alive a process that relays nothing. All that must be written is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=1, help="How many orders to play.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed plays the same story.")] = 1,
    kafka: Annotated[
        str | None, typer.Option(help="Use these brokers instead of a built-in one.", show_default=False)
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Use this Engage instead of the simulator.", show_default=False)
    ] = None,
) -> None:
    """Watch the relay work, with built-in Kafka and Engage."""
    from consumer.demo import run_demo

    raise typer.Exit(run_demo(orders=orders, seed=seed, kafka=kafka, base_url=base_url))


@app.command()
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell that shall complete.")],
) -> None:
    """Print a shell's completion script.

    It completes commands, options and the names in the configuration.
    In an image or a profile: `eval "$(engage-relay completion bash)"`.
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="engage-relay", complete_var="_ENGAGE_RELAY_COMPLETE", shell=shell)
    typer.echo(script)


app.command()(simulate)
app.command()(status)
app.command("check-config")(check_config)
app.command()(route)
app.command()(send)
app.command()(order)
app.command()(reconcile)
app.command()(pause)
app.command()(resume)
app.command()(pauses)
app.command()(resend)
app.command("verify-engage")(verify_engage)
app.add_typer(config.app, name="config")
app.add_typer(topics.app, name="topics")
app.add_typer(pending.app, name="pending")
app.add_typer(dead_letters.app, name="dead-letters")
give_examples(app)


def main() -> None:
    """Run the command line."""
    app()
