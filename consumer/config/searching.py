"""How orders are searched for in the topics, as it is configured: for commands, and for the admin port."""

from __future__ import annotations

from consumer.config.formats import formats_of
from consumer.config.settings import Settings
from consumer.core.clock import Clock
from consumer.kafka.orders.history import Search
from consumer.kafka.orders.reading import Tell


def search_of(settings: Settings, clock: Clock, tell: Tell = lambda _: None) -> Search:
    """Return how to search: it decides as `run` does. `tell` hears how far it is."""
    formats, schemas = formats_of(settings, clock)
    return Search(
        properties=settings.kafka,
        router=settings.router,
        dead_letter_topics=settings.dead_letter_topics,
        formats=formats,
        schemas=schemas,
        tell=tell,
        control=settings.control_topic,
    )
