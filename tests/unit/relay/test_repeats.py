"""The outbox sends a fact once, and gives each event that it does not send an outcome."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from consumer.core.effects import ActionId, Close, GiveUp, LiveAction, Times
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.ownership import Assignment
from consumer.core.places import place_of
from consumer.core.repeats import Repeats
from consumer.events.facts import digest_of
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from consumer.kafka.facts import Read
from consumer.kafka.journal.writes import Position, Put, Write
from consumer.kafka.outcomes.outcomes import EndedAction, record_of
from consumer.kafka.outcomes.sent_facts import sent_fact
from consumer.kafka.records import SourceEvent, live_action
from consumer.relay.edges import Source
from consumer.relay.outbox import Limits, Outbox, given_up
from consumer.relay.refused import RefusedDeadLetters
from consumer.telemetry.metrics import Metrics
from schemas.dead_letter import REDRIVE_OF, Reason
from schemas.outcome import OutcomeName
from tests.unit.relay.test_one_decision import Collecting

OURS = Assignment("orders", 0, 1)
DAY = 86_400.0
SHIPPED: dict[str, object] = {"type": "order.shipped", "orderId": "A"}
FACT = bytes.fromhex(digest_of("default", "ConfirmShipment A"))
EACH = RouteRule(each="parcels[]", action="ConfirmShipment", order_id="order")


class Relayed:
    """An outbox with a ledger, and the writes of each event."""

    def __init__(self) -> None:
        self.ledger = Ledger(Policy(), jitter=lambda: 0.5)
        self.ledger.assign(OURS, [], 0.0)
        self.repeats = Repeats(DAY)
        self.repeats.assign(OURS, [])
        self.journal = Collecting()
        self.now = 0.0
        self.outbox = Outbox(
            ledger=self.ledger,
            router=Router(compile_routes({**BUILT_IN_ROUTES, "each": EACH}, repeats_s=DAY), ["default"]),
            source=cast("Source", None),
            journal=self.journal,
            limits=Limits(100),
            dead_letter_topics={"orders.dead"},
            repeats=self.repeats,
            refused=RefusedDeadLetters(),
            metrics=Metrics(CollectorRegistry()),
            tracing=None,
        )

    def event(self, offset: int, event: dict[str, object], *, redriven: bool = False) -> list[Write]:
        headers = [(REDRIVE_OF, b"orders.dead/0/1")] if redriven else []
        value = json.dumps(event).encode()
        record = SourceEvent(
            topic="orders", partition=0, offset=offset, timestamp_ms=None, key=None, value=value, headers=headers
        )
        self.outbox.submit()
        self.journal.writes.clear()
        self.outbox.take(Read(OURS, [record], offset + 1), self.now)
        self.outbox.submit()
        return list(self.journal.writes)

    def sends(self, offset: int, event: dict[str, object], *, redriven: bool = False) -> bool:
        """Whether an event's action becomes pending; the others end as repeats."""
        (write,) = self.event(offset, event, redriven=redriven)
        if isinstance(write, Put):
            return True
        assert isinstance(write, Position)
        (outcome,) = write.outcomes
        assert isinstance(outcome, EndedAction)
        assert outcome.outcome is OutcomeName.REPEAT
        return False

    def dead_letters(self, offset: int, reason: Reason) -> None:
        """Let the action of an event of A end so, as the ledger would."""
        (pending,) = [each.payload for each in self.ledger.rewrite(OURS)]
        self.ledger.drop(OURS)
        self.ledger.assign(OURS, [], self.now)
        given_up = GiveUp(
            action_id=ActionId(OURS, place_of(0, offset)),
            route="shipped",
            payload=pending,
            reason=reason,
            detail="",
            errors=None,
            attempts=0,
            sends=1,
            times=Times(self.now),
            fact=FACT,
        )
        self.outbox.apply([given_up], self.now)

    def is_accepted(self, offset: int) -> None:
        """Let Engage accept the action of an event of A."""
        self.ledger.drop(OURS)
        self.ledger.assign(OURS, [], self.now)
        self.outbox.apply([Close(ActionId(OURS, place_of(0, offset)), "shipped", fact=FACT)], self.now)


def test_an_event_that_is_written_twice_is_sent_once() -> None:
    relayed = Relayed()
    assert relayed.sends(0, SHIPPED)
    assert not relayed.sends(1, SHIPPED)
    relayed.is_accepted(0)
    relayed.now = DAY - 1
    assert not relayed.sends(2, {**SHIPPED, "occurredAt": "2026-11-18T11:00:00Z"})
    assert relayed.sends(3, {**SHIPPED, "orderId": "B"})
    assert relayed.sends(4, {**SHIPPED, "type": "order.delivered"})
    relayed.now = DAY
    assert relayed.sends(5, SHIPPED)


def test_the_same_event_read_again_is_no_repeat_of_itself() -> None:
    relayed = Relayed()
    assert relayed.sends(0, SHIPPED)
    (write,) = relayed.event(0, SHIPPED)
    assert isinstance(write, Position)
    assert write.outcomes == ()


def test_a_dead_letter_frees_its_fact_unless_it_is_in_doubt() -> None:
    relayed = Relayed()
    assert relayed.sends(0, SHIPPED)
    relayed.dead_letters(0, Reason.REJECTED)
    assert relayed.sends(1, SHIPPED)
    relayed.dead_letters(1, Reason.OUTCOME_UNKNOWN)
    assert not relayed.sends(2, SHIPPED)


def test_a_redriven_event_is_sent_whatever_was_sent_before() -> None:
    relayed = Relayed()
    assert relayed.sends(0, SHIPPED)
    relayed.is_accepted(0)
    assert relayed.sends(1, SHIPPED, redriven=True)
    assert not relayed.sends(2, SHIPPED)


def test_of_two_items_of_one_fact_in_one_event_the_first_is_sent() -> None:
    relayed = Relayed()
    first, position = relayed.event(0, {"order": "A", "parcels": [{"id": 1}, {"id": 1, "note": "again"}]})
    assert isinstance(first, Put)
    assert first.with_next
    assert isinstance(position, Position)
    assert len(position.outcomes) == 1
    assert position.next_offset == 1


def test_an_action_whose_connection_is_gone_frees_its_fact_unless_it_is_in_doubt() -> None:
    relayed = Relayed()
    for offset, in_doubt in enumerate((False, True)):
        (write,) = relayed.event(offset, SHIPPED)
        assert isinstance(write, Put)
        live = live_action(write.key, write.value)
        assert isinstance(live, LiveAction)
        gone = given_up(OURS, live, Reason.UNKNOWN_CONNECTION, "", in_doubt=in_doubt)
        relayed.ledger.drop(OURS)
        relayed.ledger.assign(OURS, [], relayed.now)
        relayed.outbox.apply([gone], relayed.now)
    assert not relayed.sends(2, SHIPPED)


def test_an_outcome_tells_the_next_owner_what_was_sent() -> None:
    relayed = Relayed()
    relayed.sends(0, SHIPPED)
    (pending,) = [each.payload for each in relayed.ledger.rewrite(OURS)]
    ended = EndedAction(outcome=OutcomeName.ACCEPTED, payload=pending, ended=7.0, times=Times(1.0))
    assert sent_fact(record_of(ended).value) == (FACT, 7.0)
    for outcome, reason, sent in (
        (OutcomeName.DEAD_LETTER, Reason.OUTCOME_UNKNOWN, True),
        (OutcomeName.DEAD_LETTER, Reason.REJECTED, False),
        (OutcomeName.REPEAT, None, False),
        (OutcomeName.SHADOW, None, False),
    ):
        record = record_of(replace(ended, outcome=outcome, reason=reason))
        assert (sent_fact(record.value) is not None) is sent


@pytest.mark.parametrize("value", [None, b"", b"[]", b"7", b"{}", b'{"outcome":"accepted"}', b"\xff"])
def test_a_record_that_is_no_outcome_tells_nothing(value: bytes | None) -> None:
    assert sent_fact(value) is None
