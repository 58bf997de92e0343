"""EDGE. Looks an order up for the admin server: one at a time, for so long, and with the relay's work first.

Rule: whoever asks while another one is looked up is told to come back. So lookups cost one thread, one consumer and
half of its time, however many ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from confluent_kafka import KafkaException

from consumer.kafka import clients
from consumer.kafka.orders.history import Search
from consumer.kafka.orders.lookup import Nothing, WrongQuestionError, look_up
from consumer.kafka.orders.timeline import Timeline
from consumer.kafka.topics.topics import RelayTopics

LOOKUP_S = 20.0
STALLED_S = 10.0


@dataclass(frozen=True, slots=True)
class NotLookedUp:
    """Why there is no answer, as an HTTP status and a text."""

    status: int
    why: str


Answer = Timeline | Nothing | NotLookedUp


class Orders:
    """Answers what became of an order. May be called from any thread."""

    def __init__(self, topics: Sequence[RelayTopics], search: Callable[[], Search]) -> None:
        """`search` returns how to search; it is asked at each lookup."""
        self._topics = topics
        self._search = search
        self._busy = threading.Lock()

    def look_up(self, order_id: str, connection: str | None = None) -> Answer:
        """Look it up now, or say why not."""
        if not self._busy.acquire(blocking=False):
            return NotLookedUp(503, "another order is looked up at the moment: ask again in a few seconds")
        try:
            search = replace(self._search(), give_up_s=LOOKUP_S, stalled_s=STALLED_S, gentle=True)
            return look_up(order_id, self._topics, search, connection=connection)
        except WrongQuestionError as error:
            return NotLookedUp(400, str(error))
        except KafkaException as error:
            return NotLookedUp(503, f"Kafka does not answer: {clients.error_of(error).str()}")
        finally:
            self._busy.release()
