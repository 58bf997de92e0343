"""EDGE. Which actions a pause discarded, and nobody had sent since: as the outcomes say, up to where they end now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from confluent_kafka.admin import AdminClient

from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.orders.history import Search
from consumer.kafka.orders.reading import Span, StalledError, read
from consumer.kafka.outcomes.outcomes import read_outcome
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.topics import RelayTopics
from schemas.outcome import Outcome, OutcomeName

DISCARDED = "pause "  # how the reason of what a pause discarded begins; what `only_for` withholds has none


def discarded(topics: Iterable[RelayTopics], search: Search, since_ms: int | None) -> Iterator[Outcome | str]:
    """Yield what was discarded since then, in the order of the events; a text says what could not be read.

    Raises KafkaException where the brokers do not answer.
    """
    admin = AdminClient(clients.base(search.properties), logger=clients.LOGGER)
    for each in topics:
        if each.outcomes is None:
            yield f"{each.source}: no outcomes are written (outcomes.topic: none), so nobody knows what was withheld"
            continue
        count = partition_counts(admin, (each.outcomes,)).get(each.outcomes, 0)
        for number in range(count):
            at = (each.outcomes, number)
            low, end = watermarks(admin, [at])[at]
            try:
                latest = _latest(search, at, Span(low, end))
            except StalledError as error:
                yield str(error)
                continue
            for place in sorted(latest):
                outcome = latest[place]
                is_discarded = outcome.outcome is OutcomeName.WITHHELD and (outcome.reason or "").startswith(DISCARDED)
                if is_discarded and (since_ms is None or outcome.ended_ms >= since_ms):
                    yield outcome


def _latest(search: Search, at: Partition, span: Span) -> dict[tuple[int, int, int], Outcome]:
    """Return what each action came to last, by incarnation, offset and item. Raises StalledError."""
    latest: dict[tuple[int, int, int], Outcome] = {}
    for _, records in read(search.properties, {at: span}, tell=search.tell, stalled_s=search.stalled_s):
        for record in records:
            outcome = read_outcome(clients.raw(record.value()) or b"")
            if isinstance(outcome, Outcome):
                of = outcome.place
                latest[of.incarnation, of.offset, -1 if of.item is None else of.item] = outcome
    return latest
