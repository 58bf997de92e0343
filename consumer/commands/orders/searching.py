"""What the commands about orders share: which topics they search, an order's timeline, what they say meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import typer

from consumer.commands import output
from consumer.commands.exits import refuse
from consumer.commands.options import reach

if TYPE_CHECKING:
    from consumer.config.settings import Settings
    from consumer.core.ownership import Partition
    from consumer.kafka.orders.lookup import Nothing
    from consumer.kafka.orders.reading import Span
    from consumer.kafka.orders.timeline import Searched, Timeline
    from consumer.kafka.topics.topics import RelayTopics

TELL_FIRST_S = 1.0  # nobody waits two seconds without a word
TELL_S = 2.0


def teller() -> Callable[[Mapping[Partition, Span]], None]:
    """Return what says how far a reading is, on stderr and not too often."""
    told_at = time.monotonic() - TELL_S + TELL_FIRST_S

    def tell(spans: Mapping[Partition, Span]) -> None:
        nonlocal told_at
        if time.monotonic() - told_at < TELL_S:
            return
        told_at = time.monotonic()
        left = [(at, span) for at, span in spans.items() if span.reached < span.end]
        progress = (f"{topic}[{n}] at {span.reached:,} of {span.end:,}" for (topic, n), span in left[:4])
        output.notice(f"reading: {', '.join(progress)}")

    return tell


def chosen(settings: Settings, topic: str | None) -> list[RelayTopics]:
    """Return the sources that are meant, with the topics that belong to them."""
    if topic is not None and topic not in settings.source.topics:
        refuse(f"--topic: {topic} is none of the source topics {', '.join(settings.source.topics)}")
    return [each for each in settings.topics if topic in (None, each.source)]


def timeline_of(
    settings: Settings, order_id: str, *, topic: str | None, partition: int | None, connection: str | None
) -> Timeline:
    """Search an order's timeline, and say what could not be read. Ends the command where nothing is found."""
    from consumer.config.searching import search_of
    from consumer.kafka.orders.lookup import Nothing, WrongQuestionError, look_up

    topics = chosen(settings, topic)
    reach(settings)
    try:
        search = search_of(settings, time.time, teller())
        found = look_up(order_id, topics, search, partition=partition, connection=connection)
    except WrongQuestionError as error:
        refuse(f"order {order_id}: {error}")
    for gap in found.gaps:
        output.notice(gap)
    if isinstance(found, Nothing):
        raise _nothing_found(found)
    return found


def in_words(searched: list[Searched]) -> str:
    """Say what was searched: `1,200 records of orders[3] since 2026-11-28T10:00:00Z`."""
    from consumer.kafka.topics.scan import moment

    told = []
    for each in searched:
        since = None if each.since_ms is None else moment(each.since_ms)
        when = "" if since is None else f" since {output.time_of(since)}"
        told.append(f"{each.records:,} records of {each.topic}[{each.partition}]{when}")
    return ", ".join(told)


def _nothing_found(nothing: Nothing) -> typer.Exit:
    """Say that nothing was found, and return the end: 1 where something could not be read."""
    output.notice(f"order {nothing.order_id}: nothing found. Searched: {in_words(nothing.searched)}")
    output.notice(f"Searched were {nothing.how}. If events are keyed otherwise, name the partition (--partition).")
    return typer.Exit(1 if nothing.gaps else 2)
