"""EDGE. Looks an order up: in the partitions where its key may lie, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from consumer.events import partitioners
from consumer.kafka import clients
from consumer.kafka.control.control import CurrentPauses
from consumer.kafka.orders.history import Search, history_of
from consumer.kafka.orders.timeline import Searched, Timeline, timeline_of
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.topics import RelayTopics

MAX_ID_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Nothing:
    """No record is about the order. `how`: how the partitions were chosen; `gaps`: what could not be read."""

    order_id: str
    how: str
    searched: list[Searched]
    gaps: list[str]


class WrongQuestionError(Exception):
    """The order cannot be looked up so; the text says why."""


def look_up(
    order_id: str,
    topics: Sequence[RelayTopics],
    search: Search,
    *,
    partition: int | None = None,
    connection: str | None = None,
) -> Timeline | Nothing:
    """Look an order up in these sources. `partition`: only there.

    Raises WrongQuestionError, and KafkaException where the brokers do not answer.
    """
    if not order_id or len(order_id) > MAX_ID_CHARACTERS or not order_id.isprintable():
        raise WrongQuestionError(f"an order's id has 1 to {MAX_ID_CHARACTERS} printable characters")
    admin = AdminClient(clients.base(search.properties), logger=clients.LOGGER)
    counts = partition_counts(admin, [each.source for each in topics])
    rounds, how = _rounds(order_id, topics, counts, partition)
    searched: list[Searched] = []
    gaps: list[str] = []
    pauses = CurrentPauses(search.properties, search.control)
    for wanted in rounds:
        history = history_of(order_id, wanted, search)
        timeline = timeline_of(history, topics, connection, pauses.holding)
        searched += timeline.searched
        gaps += timeline.gaps
        timeline.gaps.extend(pauses.gaps)
        if timeline.entries:
            return _judged(timeline, connection)
    return Nothing(order_id, how, searched, gaps)


def _judged(timeline: Timeline, connection: str | None) -> Timeline:
    """Refuse an id that several connections have, unless one of them was named."""
    if connection is None and len(timeline.connections) > 1:
        raise WrongQuestionError(
            f"several connections have an order of this id: {', '.join(timeline.connections)}; name one of them "
            "(--connection)"
        )
    return timeline


Round = list[tuple[RelayTopics, int]]


def _rounds(
    order_id: str, topics: Iterable[RelayTopics], counts: dict[str, int], partition: int | None
) -> tuple[list[Round], str]:
    """Return what to search first, and next if nothing is found there; and how that was chosen."""
    for each in topics:
        if each.source not in counts:
            raise WrongQuestionError(f"source topic {each.source} does not exist")
        if partition is not None and not 0 <= partition < counts[each.source]:
            raise WrongQuestionError(f"{each.source} has the partitions 0 to {counts[each.source] - 1}")
    if partition is not None:
        return [[(each, partition) for each in topics]], f"partition {partition}, as it was asked for"
    key = order_id.encode()
    rounds: list[Round] = [
        [(each, of(key, counts[each.source])) for each in topics]
        for of in (partitioners.of_java, partitioners.of_librdkafka)
    ]
    rounds[1] = [each for each in rounds[1] if each not in rounds[0]]
    how = "the partitions that murmur2 (Java's clients) and CRC32 (librdkafka's) make of a key that is the order's id"
    return [each for each in rounds if each], how
