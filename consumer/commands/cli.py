"""The commands: parse, call, print.

Data on stdout, logs and what an operator must know on stderr. What is heavy is imported by the command that needs
it: `--help` answers in a fifth of the time.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeVar

import typer

from consumer.commands import output
from consumer.errors import ConfigurationError, ExitCode, FatalError

if TYPE_CHECKING:
    from consumer.commands.route import Verdict
    from consumer.config.settings import Settings
    from consumer.kafka.dead_letters import Coordinates, DeadLetter, Selection
    from consumer.kafka.scan import Gap

T = TypeVar("T")

EXIT_CODES = """Exit codes:

\b
  0  done
  1  failed, or a part of it; what stderr says may pass
  2  the configuration or the command line is wrong, or an address is taken
  3  a topic is missing or does not fit
  4  run: nobody said where to start (--from)
  5  run: the source no longer holds what is to be read next
"""

app = typer.Typer(
    help="Turns order events on Kafka into Voyado Engage order actions.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show local variables: keys, events
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
topics_app = typer.Typer(help="The topics beside the source.", no_args_is_help=True)
pending_app = typer.Typer(help="What is still owed to Engage.", no_args_is_help=True)
dead_letters_app = typer.Typer(help="What was set aside.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(topics_app, name="topics")
app.add_typer(pending_app, name="pending")
app.add_typer(dead_letters_app, name="dead-letters")

Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="ENGAGE_RELAY_CONFIG",
        help="YAML file; environment variables override it.",
        show_default=False,
    ),
]


def _reasons(incomplete: str) -> list[str]:
    from schemas.dead_letter import Reason

    return [each for each in Reason if each.startswith(incomplete)]


def _source_topics(ctx: typer.Context, incomplete: str) -> list[str]:
    return [each for each in _configured(ctx, lambda found: found.source.topics) if each.startswith(incomplete)]


def _connections(ctx: typer.Context, incomplete: str) -> list[str]:
    return [each for each in _configured(ctx, lambda found: found.engage.connections) if each.startswith(incomplete)]


def _configured(ctx: typer.Context, names: Callable[[Settings], Iterable[str]]) -> Iterable[str]:
    """Return names of the configuration that the line under completion uses; none where it cannot be read."""
    from consumer.config.settings import load

    given = ctx.params.get("config") or os.environ.get("ENGAGE_RELAY_CONFIG")
    try:
        return names(load(Path(given) if given else None, os.environ))
    except ConfigurationError:
        return ()


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Print so many at most.", show_default=False)]
SourceTopic = Annotated[
    str | None,
    typer.Option(
        "--topic", metavar="NAME", help="Only of this source topic.", show_default=False, autocompletion=_source_topics
    ),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        "--reason",
        metavar="REASON",
        help="Only with this reason (several: or).",
        show_default=False,
        autocompletion=_reasons,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Only those set aside since: 2h, 3d, or 2025-11-03T12:00Z.", show_default=False),
]


def _version(wanted: bool) -> None:
    if wanted:
        from consumer import __version__

        output.data(__version__)
        raise typer.Exit


@app.callback()
def _engage_relay(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


# Serving


@app.command()
def run(
    config: Config = None,
    start: Annotated[
        Literal["earliest", "latest"] | None,
        typer.Option("--from", help="Where a topic starts that is new to the group.", show_default=False),
    ] = None,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="Make the topics that are missing.")] = False,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option()] = "info",
) -> None:
    """Relay until SIGTERM or SIGINT; a second one ends it at once."""
    with _exit_codes():
        settings = _loaded(config, log_level)
        from consumer import run as running

        code = running.run(settings, start=start, create_topics=create_topics)
    if code is not ExitCode.OK:
        # A client that failed for good may never come back from librdkafka (closing it, say), and its destructor or
        # thread would then keep a process that relays nothing. All that must be written is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=1, help="How many.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed, the same story.")] = 1,
    kafka: Annotated[str | None, typer.Option(help="Your brokers instead of a stand-in.", show_default=False)] = None,
    base_url: Annotated[str | None, typer.Option(help="Your Engage instead of a stand-in.", show_default=False)] = None,
) -> None:
    """Watch the relay work, with stand-ins for Kafka and Engage."""
    from consumer.demo import run_demo

    raise typer.Exit(run_demo(orders=orders, seed=seed, kafka=kafka, base_url=base_url))


@app.command()
def simulate(
    *,
    listen: Annotated[str, typer.Option(help="host:port; port 0 is any free one.")] = "127.0.0.1:9090",
    seed: Annotated[int, typer.Option(help="The same seed, the same chances.")] = 0,
    processing: Annotated[
        str,
        typer.Option(help="How long: instant, fixed:2s, uniform:1s..5s, lognormal:2s,0.8 or exponential:2s."),
    ] = "lognormal:2s,0.8",
    failing: Annotated[float, typer.Option(min=0, max=1, help="Share of jobs that fail.")] = 0.0,
    stuck: Annotated[float, typer.Option(min=0, max=1, help="Share of jobs that never complete.")] = 0.0,
    completed_job: Annotated[
        Literal["tag", "redirect"], typer.Option(help="A completed job shows its tag, or redirects to the order.")
    ] = "tag",
    unknown_orders: Annotated[
        Literal["not-found", "create"], typer.Option(help="What becomes of an id that nobody submitted.")
    ] = "not-found",
    requests_per_second: Annotated[int, typer.Option(min=0, help="Per key; 0: no limit.")] = 200,
    api_key_header: Annotated[str, typer.Option()] = "apikey",
    valid_key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="The keys that are taken; default: any.", show_default=False),
    ] = None,
    forbidden_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Answered with 403.", show_default=False)
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="As unavailable=0.1, or lost-answer=0.01,calls=action.", show_default=False),
    ] = None,
    slow: Annotated[str, typer.Option(help="How late the fault `slow` answers.")] = "uniform:1s..5s",
) -> None:
    """Run the Engage simulator alone, until SIGTERM or SIGINT."""
    from consumer import simulator

    try:
        options = simulator.SimulatorOptions(
            listen=listen,
            seed=seed,
            processing=processing,
            failing=failing,
            stuck=stuck,
            completed_job=completed_job,
            unknown_orders=unknown_orders,
            requests_per_second=requests_per_second,
            api_key_header=api_key_header,
            valid_keys=frozenset(valid_key) if valid_key else None,
            forbidden_keys=frozenset(forbidden_key or ()),
            faults=tuple(fault or ()),
            slow=slow,
        )
        simulator.run(options, output.data)
    except ValueError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"cannot listen on {listen}: {error.strerror}")


@app.command()
def status(
    url: Annotated[str, typer.Option(help="A running relay's admin.listen.")] = "http://127.0.0.1:8080",
    live: Annotated[
        bool | None,
        typer.Option("--watch/--once", help="Go on, or not. Default: on a terminal, go on.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a running relay does. Exit code 1 where none answers."""
    from consumer.commands import status

    try:
        first = status.fetch(url)
    except ValueError as error:
        _refuse(f"--url: {error}")
    except status.StatusError as error:
        _end(1, str(error))
    terminal = sys.stdout.isatty()
    then = status.updates(url) if (terminal and not as_json if live is None else live) else ()
    with suppress(KeyboardInterrupt):
        if as_json:
            output.json_line(first.model_dump(mode="json"))
            for each in then:
                if isinstance(each, status.StatusError):
                    output.notice(each)
                else:
                    output.json_line(each.model_dump(mode="json"))
        elif then:
            status.watch(first, then, status.console_of(terminal=terminal))
        else:
            console = status.console_of(terminal=terminal)
            console.print(status.drawn(first, console))


# Looking before


@app.command("check-config")
def check_config(
    config: Config = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the brokers and Engage, too.")] = False,
) -> None:
    """Say what the configuration means, and whether it can work."""
    with _exit_codes():
        settings = _loaded(config)
        from consumer.commands import check_config

        for line in check_config.summary(settings):
            output.data(line)
        codes = []
        for finding in check_config.online(settings) if online else ():
            output.data(str(finding))
            codes.append(finding.code)
        raise typer.Exit(next((code for code in codes if code), 0))


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from consumer.config.settings import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def route(
    file: Annotated[
        Path,
        typer.Argument(
            help="Events: one per line, one alone, or a JSON array; -: stdin.",
        ),
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say what would become of events, and why. Exit code 1 where one would be dead-lettered."""
    with _exit_codes():
        settings = _loaded(config)
        from consumer.commands.route import events_in, judged
        from consumer.events.routing import Router, compile_routes

        router = Router(compile_routes(settings.effective_routes), settings.engage.connections)
        dead = False
        for verdict in judged(events_in(_lines(file)), router):
            dead = dead or verdict.fate == "dead_letter"
            if as_json:
                output.json_line(_verdict_row(verdict))
            else:
                _print_verdict(verdict)
        raise typer.Exit(int(dead))


def _verdict_row(verdict: Verdict) -> dict[str, object]:
    action = verdict.action
    return {
        "event": verdict.number,
        "fate": verdict.fate,
        "action": action and {**asdict(action), "tag_source": action.tag_source.model_dump(mode="json")},
        "reason": verdict.reason,
        "detail": verdict.detail,
        "routes": [
            {"route": each.route, "took": each.result is not None, "why": each.why} for each in verdict.decisions
        ],
    }


def _print_verdict(verdict: Verdict) -> None:
    action = verdict.action
    if action is not None:
        tag = _TAG_FROM[action.tag_source.kind].format(**action.tag_source.model_dump())
        said = f"{action.action} of order {action.order_id} on {action.connection}, versionTag from {tag}"
    elif verdict.reason is not None:
        said = f"dead letter, {verdict.reason}: {verdict.detail}"
    else:
        said = "passed: no route takes it"
    output.data(f"event {verdict.number}: {said}")
    for each in verdict.decisions:
        output.data(f"  {each.route:<12} {each.why}")


_TAG_FROM = {
    "event": "the event",
    "job": "job {job_id}",
    "order": "the order itself",
    "document": "the job of its document",
}


# Topics


@topics_app.command("create")
def topics_create(
    config: Config = None,
    replication: Annotated[int, typer.Option(help="Replication factor; -1: the brokers' default.")] = -1,
) -> None:
    """Make the delay and dead-letter topics that are missing, with their source's partitions."""
    with _exit_codes():
        settings = _loaded(config)
        from confluent_kafka.admin import AdminClient

        from consumer.kafka import clients, topics

        admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
        for line in topics.create(admin, settings.topics, replication, settings.topic_rules) or ["nothing to do"]:
            output.data(line)


@topics_app.command("check")
def topics_check(config: Config = None) -> None:
    """Check that all topics are there and fit."""
    with _exit_codes():
        settings = _loaded(config)
        from confluent_kafka.admin import AdminClient

        from consumer.kafka import clients, topics

        admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
        for line in topics.check(admin, settings.topics, settings.topic_rules):
            output.notice(line)
        for each in settings.topics:
            output.data(f"{each.source}, {each.delay} and {each.dead_letters} fit")


# Pending actions and dead letters


@pending_app.command("list")
def pending_list(
    *,
    config: Config = None,
    order_id: Annotated[
        str | None, typer.Option("--order-id", metavar="ID", help="Only of this order.", show_default=False)
    ] = None,
    connection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this connection.", show_default=False, autocompletion=_connections),
    ] = None,
    state: Annotated[
        Literal["pending", "sending", "unreadable"] | None,
        typer.Option(help="sending: its intent is saved, and no outcome.", show_default=False),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only those first seen longer ago: 90s, 1h, 2d.", show_default=False),
    ] = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List what the delay topics hold now. Exit code 1 where the list is not complete."""
    with _exit_codes():
        settings = _loaded(config)
        from consumer.kafka.pending import Filter, Pending, pending_actions

        if connection is not None and connection not in settings.engage.connections:
            output.notice(f"--connection: {connection} is not configured; {', '.join(settings.engage.connections)}")
        wanted = Filter(order_id, connection, state, None if older_than is None else _before(older_than, time.time()))
        gaps: list[Gap] = []
        found = _without_gaps(pending_actions(settings.kafka, settings.topics, wanted), gaps)
        columns = [name for name in Pending.__dataclass_fields__ if name not in ("connection", "first_seen")]
        output.rows((asdict(each) for each in islice(found, limit)), columns, as_json=as_json)
        raise typer.Exit(int(bool(gaps)))


@dead_letters_app.command("list")
def dead_letters_list(
    *,
    config: Config = None,
    topic: SourceTopic = None,
    reason: Reasons = None,
    since: Since = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters. Exit code 1 where the list is not complete."""
    with _exit_codes():
        settings = _loaded(config)
        from consumer.kafka.dead_letters import dead_letters

        gaps: list[Gap] = []
        selection = _selection(settings, topic, reason, since, coordinates=None)
        found = _without_gaps(dead_letters(settings.kafka, settings.topics, selection), gaps)
        columns = ("source_topic", "partition", "offset", "reason", "detail", "route", "key", "failed_at", "redriven")
        output.rows((_dead_letter_row(each) for each in islice(found, limit)), columns, as_json=as_json)
        raise typer.Exit(int(bool(gaps)))


@dead_letters_app.command("redrive")
def dead_letters_redrive(
    file: Annotated[
        Path | None,
        typer.Argument(help="Lines of `dead-dead_letters list --json`: these letters; -: stdin.", show_default=False),
    ] = None,
    *,
    config: Config = None,
    topic: SourceTopic = None,
    reason: Reasons = None,
    since: Since = None,
    offset: Annotated[
        list[str] | None,
        typer.Option(metavar="P:O", help="Partition and offset in the dead-letter topic.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be redriven.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the events of dead letters back to their own source partition.

    Name them by line, offset, reason or time (all that is named must hold), or say --all. A letter is redriven once: a
    mark is written with its event, in one transaction. Exit code 1 where one of them could not be redriven.
    """
    with _exit_codes():
        settings = _loaded(config)
        from consumer.kafka.dead_letters import Redrive, redrive

        if not (file or offset or reason or since or every):
            _refuse("name the letters: FILE, --offset, --reason or --since; or --all")
        coordinates = None
        if file is not None or offset:
            coordinates = frozenset(
                [*_coordinates_at(settings, topic, offset or []), *_coordinates_in(_lines(file) if file else ())]
            )
        selection = _selection(settings, topic, reason, since, coordinates)
        failed = False
        for each in redrive(settings.kafka, settings.topics, selection, dry_run=dry_run):
            if not isinstance(each, Redrive):
                failed = True
                output.notice(each)
                continue
            failed = failed or each.result == "failed"
            to = None if each.to is None else f"{each.to[0]}[{each.to[1]}]"
            if as_json:
                output.json_line({**asdict(each.coordinates), "result": each.result, "to": to, "why": each.why})
            else:
                words = {"redriven": f"redriven to {to}", "chosen": f"would be redriven to {to}"}
                output.data(f"{each.coordinates}: {words.get(each.result, f'{each.result}: {each.why}')}")
        raise typer.Exit(int(failed))


def _dead_letter_row(dead_letter: DeadLetter) -> dict[str, object]:
    from consumer.kafka.scan import moment

    return {
        **asdict(dead_letter.coordinates),
        **dead_letter.why.model_dump(mode="json", exclude={"failed_at_ms"}),
        "failed_at": moment(dead_letter.why.failed_at_ms),
        "key": None if dead_letter.key is None else dead_letter.key.decode(errors="replace"),
        "redriven": dead_letter.redriven,
        "redrive_of": dead_letter.redrive_of,
    }


def _selection(
    settings: Settings,
    topic: str | None,
    reasons: list[str] | None,
    since: str | None,
    coordinates: frozenset[Coordinates] | None,
) -> Selection:
    from consumer.kafka.dead_letters import Selection
    from schemas.dead_letter import Reason

    if topic is not None and topic not in settings.source.topics:
        _refuse(f"--topic: {topic} is no source topic; those are {', '.join(settings.source.topics)}")
    if unknown := set(reasons or ()).difference(Reason):
        _refuse(f"--reason: no such reason: {', '.join(sorted(unknown))}; there are {', '.join(Reason)}")
    return Selection(
        topic,
        frozenset(map(Reason, reasons)) if reasons else None,
        None if since is None else _since_ms(since, time.time()),
        coordinates,
    )


def _before(text: str, now: float) -> datetime:
    from consumer.config.settings import seconds

    try:
        return datetime.fromtimestamp(now - seconds(text), UTC)
    except ValueError as error:
        _refuse(f"--older-than: {error}")


def _since_ms(text: str, now: float) -> int:
    from consumer.config.settings import seconds

    try:
        return round((now - seconds(text)) * 1000)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _refuse("--since: must be a duration (2h, 3d) or a time (2025-11-03T12:00Z)")
    return round((moment if moment.tzinfo else moment.astimezone()).timestamp() * 1000)


def _coordinates_at(settings: Settings, topic: str | None, offsets: list[str]) -> Iterator[Coordinates]:
    from consumer.kafka.dead_letters import Coordinates, dead_letter_topics

    topics = dead_letter_topics(settings.topics, topic)
    for text in offsets:
        match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18})", text)
        if match is None:
            _refuse(f"--offset: {text}: must be partition:offset, as in 0:17")
        if len(topics) != 1:
            _refuse("--offset: say of which source topic, with --topic")
        yield Coordinates(topics[0], int(match[1]), int(match[2]))


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with nullcontext(sys.stdin.buffer) if file == Path("-") else file.open("rb") as lines:
            yield from lines
    except OSError as error:
        _refuse(f"{file}: {error.strerror}")


def _coordinates_in(lines: Iterable[bytes]) -> Iterator[Coordinates]:
    from consumer.kafka.dead_letters import Coordinates

    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                yield Coordinates(str(row["topic"]), int(row["partition"]), int(row["offset"]))
            except (ValueError, KeyError, TypeError):
                _refuse(f"line {number} is none that `dead-dead_letters list --json` printed")


def _without_gaps(found: Iterator[T | Gap], gaps: list[Gap]) -> Iterator[T]:
    """Say what is missing, and remember it, while the rest goes on."""
    from consumer.kafka.scan import Gap

    for each in found:
        if isinstance(each, Gap):
            gaps.append(each)
            output.notice(each)
        else:
            yield each


# What all of them share


def _loaded(config: Path | None, log_level: str = "warning") -> Settings:
    """Load the configuration, with logs ready: from here on no key shows in one."""
    from consumer import logs
    from consumer.config.settings import load

    logs.configure(log_level)
    settings = load(config, os.environ)
    for name, value in settings.kafka.items():
        if re.search("password|secret|pem", name) and not name.endswith(".file"):  # its name is no secret
            logs.redact(str(value))
    for connection in settings.engage.connections.values():
        with suppress(OSError, ValueError):  # not readable now: a key that nobody has cannot show
            logs.redact(connection.key().current())
    return settings


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Say what went wrong and end with its exit code."""
    from confluent_kafka import KafkaException

    from consumer.kafka import clients

    try:
        yield
    except FatalError as error:
        _end(error.exit_code, *str(error).splitlines())
    except KafkaException as error:
        _end(1, f"Kafka: {clients.error_of(error).str()}")


def _refuse(*lines: str) -> NoReturn:
    _end(2, *lines)


def _end(code: int, *lines: str) -> NoReturn:
    for line in lines:
        output.notice(line)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()
