"""EDGE. Reads back from the outcomes topic which facts were sent within the window (core/repeats.py).

Rules:
 1. It is read after the delay partition was restored. What its former owner ended is settled then.
 2. A repeat costs an e-mail, a relay that stands still costs all of them. So where the topic cannot be read, the relay
    goes on without, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic_core import from_json

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment
from consumer.errors import ConfigurationError
from consumer.kafka import clients
from consumer.kafka.topics.scan import StalledError, records_between
from consumer.kafka.topics.topics import CALL_TIMEOUT_S, RelayTopics, watermarks
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName

Sent = list[tuple[bytes, float]]
ReadFacts = Callable[[Assignment], Sent]
"""Returns the facts that a partition's outcomes say were sent, and when. Raises FactsLostError."""


class FactsLostError(Exception):
    """What was sent before cannot be known; the text says why."""


def read_facts(
    properties: clients.Properties, topics: Mapping[str, RelayTopics], window_s: float, clock: Clock
) -> ReadFacts:
    """Return what reads a partition's facts. For a thread of its own."""

    def read(assignment: Assignment) -> Sent:
        topic = topics[assignment.topic].outcomes
        if topic is None:
            raise FactsLostError("no outcomes are written (outcomes.topic: none)")
        at = topic, assignment.partition
        since_ms = max(0, int((clock() - window_s) * 1000))
        found: Sent = []
        try:
            admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
            low, high = watermarks(admin, [at])[at]
            with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
                (start,) = reader.offsets_for_times([TopicPartition(*at, since_ms)], CALL_TIMEOUT_S)
                if start.error is not None:
                    raise clients.exception(start.error, topic)
                for record in records_between(reader, at, high if start.offset < 0 else max(low, start.offset), high):
                    sent = sent_fact(clients.raw(record.value()))
                    if sent is not None:
                        found.append(sent)
        except KafkaException as error:
            raise FactsLostError(f"{topic}[{assignment.partition}]: {clients.error_of(error).str()}") from None
        except (StalledError, ConfigurationError) as error:
            raise FactsLostError(f"{topic}[{assignment.partition}]: {error}") from None
        return found

    return read


def sent_fact(value: bytes | None) -> tuple[bytes, float] | None:
    """Return the fact that an outcome says was sent, perhaps in doubt, and when it ended; None: none was."""
    try:
        outcome = from_json(value or b"")
        is_sent = outcome["outcome"] == OutcomeName.ACCEPTED or outcome.get("reason") == Reason.OUTCOME_UNKNOWN
        return (bytes.fromhex(outcome["fact"]), outcome["ended_ms"] / 1000) if is_sent else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
