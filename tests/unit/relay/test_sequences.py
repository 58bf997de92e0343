"""The outbox lets a later event of an order withdraw an earlier one, and sends no step backwards."""

from __future__ import annotations

import json
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from consumer.core.effects import Times
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.ownership import Assignment
from consumer.core.repeats import Repeats
from consumer.core.sequences import SentStep, Sequences
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.kafka.facts import Read
from consumer.kafka.journal.writes import Position, Put, Tombstone, Write
from consumer.kafka.outcomes.outcomes import EndedAction, record_of
from consumer.kafka.outcomes.sent_facts import SentBefore
from consumer.kafka.records import SourceEvent
from consumer.relay.edges import Source
from consumer.relay.outbox import Limits, Outbox
from consumer.relay.refused import RefusedDeadLetters
from consumer.telemetry.metrics import Metrics
from schemas.dead_letter import REDRIVE_OF, Reason
from schemas.outcome import OutcomeName
from tests.unit.relay.test_one_decision import Collecting

OURS = Assignment("orders", 0, 1)
DAY = 86_400.0
STEPS = ("ConfirmOrder", "ConfirmShipment", "ConfirmDelivery")


class Relayed:
    """An outbox with a ledger, the writes of each event, and what the metrics count."""

    def __init__(self) -> None:
        self.ledger = Ledger(
            Policy(), jitter=lambda: 0.5, sequences=Sequences({"confirmed": ["cancelled"]}, STEPS, DAY)
        )
        self.ledger.assign(OURS, [], 0.0)
        self.repeats = Repeats(DAY)
        self.repeats.assign(OURS, [])
        self.journal = Collecting()
        self.registry = CollectorRegistry()
        self.outbox = Outbox(
            ledger=self.ledger,
            router=Router(compile_routes(BUILT_IN_ROUTES, repeats_s=DAY), ["default"]),
            source=cast("Source", None),
            journal=self.journal,
            limits=Limits(100),
            dead_letter_topics={"orders.dead"},
            repeats=self.repeats,
            refused=RefusedDeadLetters(),
            metrics=Metrics(self.registry),
            tracing=None,
        )

    def event(self, offset: int, what: str, *, redriven: bool = False) -> list[Write]:
        record = SourceEvent(
            topic="orders",
            partition=0,
            offset=offset,
            timestamp_ms=None,
            key=None,
            value=json.dumps({"type": f"order.{what}", "orderId": "A"}).encode(),
            headers=[(REDRIVE_OF, b"orders.dead/0/1")] if redriven else [],
        )
        self.outbox.submit()
        self.journal.writes.clear()
        self.outbox.take(Read(OURS, [record], offset + 1), 0.0)
        self.outbox.submit()
        return list(self.journal.writes)

    def stopped(self, route: str, reason: str) -> float:
        labels = {"route": route, "reason": reason}
        return self.registry.get_sample_value("engage_relay_actions_stopped_total", labels) or 0.0


def test_what_is_superseded_ends_behind_the_record_of_what_supersedes_it() -> None:
    relayed = Relayed()
    relayed.event(0, "confirmed")
    put, tombstone = relayed.event(1, "cancelled")
    assert isinstance(put, Put)
    assert isinstance(tombstone, Tombstone)
    assert isinstance(tombstone.outcome, EndedAction)
    assert (tombstone.outcome.outcome, tombstone.outcome.sends) == (OutcomeName.SUPERSEDED, 0)
    assert tombstone.outcome.reason == "by route cancelled, offset 1"
    assert relayed.stopped("confirmed", "superseded") == 1.0


def test_what_is_superseded_is_no_news_any_more() -> None:
    """A producer that writes everything twice confirms the order again behind its cancellation."""
    relayed = Relayed()
    relayed.event(0, "confirmed")
    relayed.event(1, "cancelled")
    (repeat,) = relayed.event(2, "confirmed")
    assert isinstance(repeat, Position)
    (outcome,) = repeat.outcomes
    assert isinstance(outcome, EndedAction)
    assert outcome.outcome is OutcomeName.REPEAT


def test_a_step_backwards_is_told_and_counted_and_never_pending() -> None:
    relayed = Relayed()
    relayed.ledger.steps_sent(OURS, [SentStep("default", "A", "ConfirmDelivery", 0.0)])
    (position,) = relayed.event(1, "confirmed")
    assert isinstance(position, Position)
    (outcome,) = position.outcomes
    assert isinstance(outcome, EndedAction)
    assert (outcome.outcome, outcome.reason) == (OutcomeName.OUT_OF_SEQUENCE, "ConfirmDelivery was sent before")
    assert relayed.stopped("confirmed", "out_of_sequence") == 1.0
    assert not relayed.repeats.is_repeat(OURS, b"x" * 12, DAY, 0.0)


def test_a_step_backwards_that_a_person_redrove_is_sent() -> None:
    relayed = Relayed()
    relayed.ledger.steps_sent(OURS, [SentStep("default", "A", "ConfirmDelivery", 0.0)])
    (put,) = relayed.event(1, "confirmed", redriven=True)
    assert isinstance(put, Put)


@pytest.mark.parametrize(
    ("outcome", "reason", "is_fact", "is_step"),
    [
        (OutcomeName.ACCEPTED, None, True, True),
        (OutcomeName.DEAD_LETTER, Reason.OUTCOME_UNKNOWN, True, True),
        (OutcomeName.SUPERSEDED, "by route cancelled", True, False),
        (OutcomeName.OUT_OF_SEQUENCE, "ConfirmDelivery was sent before", False, False),
        (OutcomeName.DEAD_LETTER, Reason.REJECTED, False, False),
    ],
)
def test_an_outcome_tells_the_next_owner_which_fact_and_which_step_was_sent(
    outcome: OutcomeName, reason: str | None, is_fact: bool, is_step: bool
) -> None:
    relayed = Relayed()
    relayed.event(0, "confirmed")
    (pending,) = [each.payload for each in relayed.ledger.rewrite(OURS)]
    ended = EndedAction(outcome=outcome, payload=pending, ended=7.0, times=Times(1.0), reason=reason)
    sent = SentBefore()
    sent.take(record_of(ended).value, STEPS)
    assert len(sent.facts) == is_fact
    assert sent.steps == [SentStep("default", "A", "ConfirmOrder", 7.0)] * is_step
    others = SentBefore()
    others.take(record_of(ended).value, ("ConfirmDelivery",))
    assert others.steps == []
