"""An order as customer service meets one: confirmed, shipped, and a delivery that still waits for Engage."""

from __future__ import annotations

from consumer.kafka.orders.history import FoundDeadLetter, FoundRecord, History
from consumer.kafka.orders.reading import Span
from consumer.kafka.orders.timeline import Timeline, timeline_of
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.outcome import Outcome, OutcomeName, Place
from schemas.pending_action import FromJob, PendingAction, RoutedAction, SourceRecord

ORDER = "A-4711"
T = 1_764_230_400_000  # 2025-11-27T08:00:00Z
HOUR = 3_600_000
TOPICS = RelayTopics("orders", "orders.engage.delay", "orders.engage.dead-letters", "orders.engage.outcomes")


def _outcome(offset: int, at: int, route: str, action: str, **more: object) -> Outcome:
    told: dict[str, object] = {
        "outcome": OutcomeName.ACCEPTED,
        "connection": "default",
        "order_id": ORDER,
        "route": route,
        "action": action,
        "place": Place(topic="orders", partition=3, offset=offset),
        "event_ms": at,
        "first_seen_ms": at + 120,
        "tag_ready_ms": at + 2_310,
        "sent_ms": at + 2_330,
        "answered_ms": at + 2_395,
        "ended_ms": at + 2_395,
        "attempts": 2,
        "sends": 1,
        **more,
    }
    return Outcome.model_validate(told)


def timeline() -> Timeline:
    """Return its timeline."""
    rejected = DeadLetterHeaders(
        reason=Reason.REJECTED,
        detail="Engage answered 400",
        source_topic="orders",
        source_partition=3,
        source_offset=91_902,
        route="shipped",
        action="ConfirmShipment",
        connection="default",
        failed_at_ms=T + 5 * HOUR + 2_395,
    )
    payload = RoutedAction(
        route="delivered",
        connection="default",
        order_id=ORDER,
        action="ConfirmDelivery",
        tag_source=FromJob(job_id="job-9"),
        event_time_ms=T + 30 * HOUR,
        source=SourceRecord(topic="orders", partition=3, offset=92_640),
    )
    delivery = PendingAction(
        state="pending",
        first_seen_ms=T + 30 * HOUR + 90,
        due_ms=T + 30 * HOUR + 47_000,
        attempts=4,
        payload=payload,
    )
    refused = {"outcome": OutcomeName.DEAD_LETTER, "reason": "rejected", "ended_ms": T + 5 * HOUR + 2_395}
    history = History(
        ORDER,
        outcomes=[
            _outcome(91_827, T, "confirmed", "ConfirmOrder", trace_id="4bf92f3577b34da6a3ce929d0e0e4736"),
            _outcome(91_902, T + 5 * HOUR, "shipped", "ConfirmShipment", **refused),
            _outcome(
                92_011,
                T + 6 * HOUR,
                "shipped",
                "ConfirmShipment",
                asked_by="redrive of orders.engage.dead-letters/3/12",
            ),
        ],
        records=[FoundRecord(b"0:92640:delivered", delivery, T + 30 * HOUR + 31_000)],
        dead_letters=[FoundDeadLetter(TOPICS.dead_letters, 3, 12, rejected, T + 5 * HOUR + 2_402)],
        redriven={(TOPICS.dead_letters, 3, 12)},
        spans={(name, 3): Span(0, 0, records=records) for name, records in zip(_NAMES, _RECORDS, strict=True)},
        positions={("orders", 3): 92_641},
    )
    return timeline_of(history, [TOPICS])


_NAMES = (TOPICS.source, *TOPICS.own)
_RECORDS = (184_210, 3_411, 96, 171_040)
