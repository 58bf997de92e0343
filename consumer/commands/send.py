"""`engage-relay send`: produce one event, for trying."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import Config, bytes_of, loaded, reach
from consumer.errors import ExitCode

if TYPE_CHECKING:
    from consumer.kafka.clients import Properties

FLUSH_S = 30.0
UNKNOWN_TOPIC_MS = 1000


def send(
    file: Annotated[
        Path | None, typer.Argument(help="The event: a file, byte by byte; -: stdin.", show_default=False)
    ] = None,
    *,
    config: Config = None,
    topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the source's first topic.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The record's key: the order's id.", show_default=False)
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A header; may be given several times.", show_default=False),
    ] = None,
    tombstone: Annotated[bool, typer.Option("--tombstone", help="Send no value at all.")] = False,
) -> None:
    """Produce one event with its key and headers, for trying. The relay then acts on it: customers may get e-mails."""
    with exit_codes():
        if (file is None) != tombstone:
            refuse("name the event: FILE or --tombstone")
        value = None if file is None else bytes_of(file)
        headers = [text.partition("=") for text in header or ()]
        if not all(equals for _, equals, _ in headers):
            refuse("--header: must be NAME=VALUE")
        settings = loaded(config)
        to = topic or settings.source.topics[0]
        if to not in settings.source.topics:
            refuse(f"--topic: {to}: must be one of source.topics: {', '.join(settings.source.topics)}")
        reach(settings)
        pairs: list[tuple[str, str | bytes | None]] = [(name, text.encode()) for name, _, text in headers]
        at = _produced(settings.kafka, to, None if key is None else key.encode(), value, pairs)
        if isinstance(at, str):
            output.notice(f"not sent: {at}")
            raise typer.Exit(ExitCode.FAILED)
        output.data(f"{to}[{at[0]}] offset {at[1]}")


def _produced(
    properties: Properties,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, str | bytes | None]],
) -> tuple[int, int] | str:
    """Produce a record; returns its partition and offset, or what the broker says against it."""
    from confluent_kafka import KafkaError, KafkaException, Message, Producer

    from consumer.kafka import clients

    said: list[tuple[int, int] | str] = []

    def delivered(error: KafkaError | None, record: Message) -> None:
        said.append(error.str() if error is not None else (record.partition() or 0, record.offset() or 0))

    # By default a topic that is not there is looked for as long as we wait.
    own = {"enable.idempotence": True, "topic.metadata.propagation.max.ms": UNKNOWN_TOPIC_MS}
    producer = Producer({**clients.base(properties), **own}, logger=clients.LOGGER)
    try:
        producer.produce(topic, value=value, key=key, headers=headers, on_delivery=delivered)
    except KafkaException as error:
        return clients.error_of(error).str()
    producer.flush(FLUSH_S)
    return said[0] if said else f"no answer within {FLUSH_S:.0f} s"
