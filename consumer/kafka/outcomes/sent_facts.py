"""EDGE. Reads back from the outcomes topic what was sent within the window.

That is the facts (core/repeats.py), and the steps of orders (core/sequences.py).

Rules:
 1. It is read after the delay partition was restored. What its former owner ended is settled then.
 2. A repeat costs an e-mail, a relay that stands still costs all of them. So where the topic cannot be read, the relay
    goes on without, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic_core import from_json

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment
from consumer.core.sequences import SentStep
from consumer.errors import ConfigurationError
from consumer.kafka import clients
from consumer.kafka.topics.asking import CALL_TIMEOUT_S
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.scan import StalledError, records_between
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import Reason
from schemas.outcome import OutcomeName


@dataclass(frozen=True, slots=True)
class SentBefore:
    """The facts that were sent and when, in seconds since 1970, and the steps of orders."""

    facts: list[tuple[bytes, float]] = field(default_factory=list)
    steps: list[SentStep] = field(default_factory=list)

    def take(self, value: bytes | None, steps: Collection[str]) -> None:
        """Add what an outcome says. `steps`: the actions that are steps."""
        try:
            outcome = from_json(value or b"")
            is_sent = outcome["outcome"] == OutcomeName.ACCEPTED or outcome.get("reason") == Reason.OUTCOME_UNKNOWN
            fact = _fact_in(outcome, is_sent=is_sent)
            step = _step_in(outcome) if is_sent and outcome.get("action") in steps else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if fact is not None:
            self.facts.append(fact)
        if step is not None:
            self.steps.append(step)


ReadFacts = Callable[[Assignment], SentBefore]
"""Returns what a partition's outcomes say was sent. Raises FactsLostError."""


class FactsLostError(Exception):
    """What was sent before cannot be known; the text says why."""


def read_facts(
    properties: clients.Properties,
    topics: Mapping[str, RelayTopics],
    window_s: float,
    clock: Clock,
    steps: Collection[str] = (),
) -> ReadFacts:
    """Return what reads a partition's facts and steps. For a thread of its own."""

    def read(assignment: Assignment) -> SentBefore:
        topic = topics[assignment.topic].outcomes
        if topic is None:
            raise FactsLostError("no outcomes are written (outcomes.topic: none)")
        at = topic, assignment.partition
        since_ms = max(0, int((clock() - window_s) * 1000))
        found = SentBefore()
        try:
            admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
            low, high = watermarks(admin, [at])[at]
            with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
                (start,) = reader.offsets_for_times([TopicPartition(*at, since_ms)], CALL_TIMEOUT_S)
                if start.error is not None:
                    raise clients.exception(start.error, topic)
                for record in records_between(reader, at, high if start.offset < 0 else max(low, start.offset), high):
                    found.take(clients.raw(record.value()), steps)
        except KafkaException as error:
            raise FactsLostError(f"{topic}[{assignment.partition}]: {clients.error_of(error).str()}") from None
        except (StalledError, ConfigurationError) as error:
            raise FactsLostError(f"{topic}[{assignment.partition}]: {error}") from None
        return found

    return read


def sent_fact(value: bytes | None) -> tuple[bytes, float] | None:
    """Return the fact that an outcome says is not to be sent again, and when it ended; None: there is none."""
    sent = SentBefore()
    sent.take(value, ())
    return next(iter(sent.facts), None)


def _fact_in(outcome: dict[str, Any], *, is_sent: bool) -> tuple[bytes, float] | None:
    if not is_sent and outcome["outcome"] != OutcomeName.SUPERSEDED:
        return None
    try:
        return bytes.fromhex(outcome["fact"]), outcome["ended_ms"] / 1000
    except (ValueError, TypeError, KeyError):
        return None


def _step_in(outcome: dict[str, Any]) -> SentStep | None:
    connection, order_id, action = (outcome.get(name) for name in ("connection", "order_id", "action"))
    if not (isinstance(connection, str) and isinstance(order_id, str) and isinstance(action, str)):
        return None
    return SentStep(connection, order_id, action, outcome["ended_ms"] / 1000)
