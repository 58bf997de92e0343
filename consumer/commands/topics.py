"""`engage-relay topics`: make and check the topics beside the source."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from consumer.commands import output
from consumer.commands.exits import end, exit_codes, refuse
from consumer.commands.options import Config, loaded, reach
from consumer.errors import ExitCode

app = typer.Typer(help="Create, check or adopt the topics beside the source.", no_args_is_help=True)


@app.command("create")
def topics_create(
    config: Config = None,
    replication: Annotated[int, typer.Option(help="Replication factor; -1: the brokers' default.")] = -1,
) -> None:
    """Create the relay's own topics, or repair them.

    Those that are there get the partitions and the configuration that they need.
    """
    with exit_codes():
        settings = loaded(config)
        from confluent_kafka.admin import AdminClient

        from consumer.kafka import clients
        from consumer.kafka.topics import topics

        reach(settings)
        admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
        rules, control = settings.topic_rules, settings.control_topic
        for line in topics.create(admin, settings.topics, replication, rules, control) or ["nothing to do"]:
            output.data(line)


@app.command("check")
def topics_check(config: Config = None) -> None:
    """Check that all topics are there and fit.

    Exit code 1 where the control topic may not be read and written.
    """
    with exit_codes():
        settings = loaded(config)
        from confluent_kafka.admin import AdminClient

        from consumer.commands import checks
        from consumer.kafka import clients
        from consumer.kafka.topics import asking, topics

        reach(settings)
        admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
        for line in topics.check(admin, settings.topics, settings.topic_rules, settings.control_topic):
            output.notice(line)
        for each in settings.topics:
            output.data(f"{', '.join((each.source, *each.own[:-1]))} and {each.own[-1]} fit")
        if settings.control_topic is not None:
            output.data(f"{settings.control_topic} fits")
            if missing := asking.missing_rights(admin, {settings.control_topic: topics.CONTROL_RIGHTS}):
                end(ExitCode.FAILED, checks.may_not(missing))


@app.command("adopt")
def topics_adopt(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source topic, as the configuration names it.")],
    start: Annotated[
        Literal["earliest", "latest", "recorded"],
        typer.Option(
            "--from",
            help="earliest: its events are all new. latest: skip those that are there. recorded: its offsets are the "
            "same as before.",
        ),
    ],
    config: Config = None,
) -> None:
    """Take over what the delay topic holds of another source.

    For a source that was recreated, renamed or moved to another cluster, and for a new group.id. Stop all instances
    first. What is pending stays pending and is sent.
    """
    with exit_codes():
        settings = loaded(config)
        from consumer.kafka.identity.adoption import adopt

        chosen = [each for each in settings.topics if each.source == source]
        if not chosen:
            refuse(f"{source} is not in source.topics: {', '.join(settings.source.topics)}")
        reach(settings)
        for line in adopt(settings.kafka, chosen[0], start):
            output.data(line)
