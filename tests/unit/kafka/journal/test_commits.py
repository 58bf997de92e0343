"""What a transaction writes before what: a commit request that comes late may make a part of it visible."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import cast

from confluent_kafka import Message, Producer, TopicPartition

from consumer.core.clock import steady_clock
from consumer.core.effects import Times
from consumer.core.ownership import Assignment
from consumer.events.routing.results import Routed
from consumer.kafka.journal.transactions import Transactions
from consumer.kafka.journal.writes import Begin, Position, Put, Tombstone
from consumer.kafka.outcomes.outcomes import EndedAction
from consumer.kafka.records import SourceEvent, new_action
from consumer.kafka.topics.topics import RelayTopics
from schemas.outcome import OutcomeName
from schemas.pending_action import FromJob, SourceIdentity
from tests.unit.kafka.journal.tried_transactions import owned

OWNED = Assignment("orders", 0, 1)


class Written:
    """A record that the broker took."""

    def topic(self) -> str:
        return "delay"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def value(self) -> bytes:
        return b"value"


class NotingProducer:
    """Notes what is produced, and what is flushed with it."""

    def __init__(self) -> None:
        self.flushed: list[list[str]] = [[]]
        self._delivered: list[Callable[[None, Message], None]] = []

    def init_transactions(self, timeout: float) -> None: ...

    def begin_transaction(self) -> None: ...

    def produce(self, topic: str, *_: object, on_delivery: Callable[[None, Message], None], **__: object) -> None:
        self.flushed[-1].append(topic)
        self._delivered.append(on_delivery)

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        for delivered in self._delivered:
            delivered(None, cast("Message", Written()))
        self._delivered.clear()
        self.flushed.append([])
        return 0

    def send_offsets_to_transaction(self, *_: object) -> None: ...

    def commit_transaction(self, timeout: float) -> None: ...


class NotingClients:
    """Builds it."""

    def __init__(self) -> None:
        self.built = NotingProducer()

    def producer(self, *, one_by_one: bool, successor: int) -> Producer:
        return cast("Producer", self.built)

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        return partitions


def flushes(*writes: Put | Tombstone | Position) -> Sequence[Sequence[str]]:
    """Return the topics that were written to, flush by flush."""
    clients = NotingClients()
    transactions = Transactions(
        clients,
        topics={"orders": RelayTopics("orders", "delay", "dead-letters", "outcomes")},
        identities={"orders": SourceIdentity(group="g", topic="orders")},
        ownership=lambda: owned([OWNED]),
        clock=steady_clock(),
        pause=lambda _: None,
        report=lambda _: None,
        replace_too_large=lambda _: sys.exit("nothing is too large"),
    )
    transactions.settle([Begin(OWNED, [], 0, 0), *writes])
    return [each for each in clients.built.flushed if each]


def ended(outcome: OutcomeName) -> EndedAction:
    event = SourceEvent(topic="orders", partition=0, offset=0, timestamp_ms=1, key=None, value=b"{}")
    routed = Routed(
        route="shipped",
        connection="default",
        order_id="A-1",
        action="ConfirmShipment",
        language=None,
        data=None,
        tag_source=FromJob(job_id="j"),
        on_unknown="resend",
        event_time_ms=1,
        trace_context=None,
    )
    return EndedAction(outcome=outcome, payload=new_action(routed, event).payload, ended=1.0, times=Times(1.0))


def test_an_outcome_that_nothing_else_tells_of_is_flushed_before_the_position() -> None:
    """Else the position might count, and nobody would ever write the outcome."""
    repeat = Position(OWNED, 1, (ended(OutcomeName.REPEAT),))
    assert flushes(repeat) == [["outcomes"], ["delay"]]


def test_an_action_that_was_pending_ends_in_one_flush() -> None:
    tombstone = Tombstone(OWNED, b"0:0:shipped", ended(OutcomeName.ACCEPTED))
    assert flushes(tombstone) == [["outcomes", "delay", "delay"]]
