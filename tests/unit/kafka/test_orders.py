"""An order's history: which records are about it, and what is told of them. No broker is needed for that."""

from __future__ import annotations

import json

import pytest

from consumer.events.deciding import Ignored
from consumer.events.routing.results import Misrouted, Routed, Several
from consumer.kafka.orders.history import FoundDeadLetter, FoundEvent, FoundRecord, History
from consumer.kafka.orders.matching import holder_of, is_about
from consumer.kafka.orders.timeline import Timeline, timeline_of
from consumer.kafka.records import SourceEvent
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.outcome import Outcome, OutcomeName, Place
from schemas.pending_action import FromJob, PendingAction, RoutedAction, SourceRecord

TOPICS = [RelayTopics("orders", "delay", "dead", "outcomes")]


def event(value: object = None, *, key: bytes | None = None, offset: int = 5) -> SourceEvent:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return SourceEvent(topic="orders", partition=0, offset=offset, timestamp_ms=1, key=key, value=raw)


def routed(order_id: str = "A-1", connection: str = "default", action: str = "ConfirmShipment") -> Routed:
    return Routed(
        route="shipped",
        connection=connection,
        order_id=order_id,
        action=action,
        language=None,
        data=None,
        tag_source=FromJob(job_id="j"),
        on_unknown="resend",
        event_time_ms=1,
        trace_context=None,
    )


def pending(offset: int, *, state: str = "pending", sends: int = 0, due_ms: int = 9_000) -> PendingAction:
    payload = RoutedAction(
        route="shipped",
        connection="default",
        order_id="A-1",
        action="ConfirmShipment",
        tag_source=FromJob(job_id="j"),
        event_time_ms=1,
        source=SourceRecord(topic="orders", partition=0, offset=offset),
    )
    return PendingAction(
        state="sending" if state == "sending" else "pending",
        first_seen_ms=1_000,
        due_ms=due_ms,
        attempts=2,
        sends=sends,
        payload=payload,
    )


def outcome(offset: int = 5, what: OutcomeName = OutcomeName.ACCEPTED, **more: object) -> Outcome:
    told: dict[str, object] = {
        "outcome": what,
        "connection": "default",
        "order_id": "A-1",
        "route": "shipped",
        "action": "ConfirmShipment",
        "place": Place(topic="orders", partition=0, offset=offset),
        "first_seen_ms": 1_000,
        "ended_ms": 4_000,
        **more,
    }
    return Outcome.model_validate(told)


def told(history: History) -> Timeline:
    return timeline_of(history, TOPICS)


def texts(timeline: Timeline) -> list[str]:
    return [step.text for entry in timeline.entries for step in entry.steps]


@pytest.mark.parametrize(
    ("order_id", "raw", "holds"),
    [
        ("A-1", b'{"orderId":"A-1"}', True),
        ("A-1", b'{"orderId":"B-2"}', False),
        ("A/1", rb'{"orderId":"A\/1"}', True),
        ("\u00c5-1", b'{"orderId":"\\u00c5-1"}', True),
        ("\u00c5-1", '{"orderId":"\u00c5-1"}'.encode(), True),
        ('A"1', rb'{"orderId":"A\"1"}', True),
        ("A-1", None, False),
    ],
)
def test_an_id_is_found_however_json_writes_it(order_id: str, raw: bytes | None, holds: bool) -> None:
    assert holder_of(order_id)(raw) is holds


def test_an_event_is_an_orders_by_its_route_first() -> None:
    of_two = Several((routed("A-1"), routed("B-2")))
    assert is_about("B-2", event({"id": "B-2"}), of_two)
    assert not is_about("C-3", event({"id": "C-3"}), routed("A-1")), "the id is there, and means something else"


@pytest.mark.parametrize(
    ("value", "key", "is_its_own"),
    [
        ({"orderId": "10017"}, None, True),
        ({"order": {"number": 10017}}, None, True),
        ({"lines": [{"of": ["10017"]}]}, None, True),
        ({"orderId": "100170"}, None, False),
        ({"note": "see 10017"}, None, False),
        ({"is": True}, b"10017", True),
        (b"no json, 10017", None, True),
    ],
)
def test_an_event_that_no_route_takes_is_an_orders_by_its_key_or_a_whole_value(
    value: object, key: bytes | None, is_its_own: bool
) -> None:
    assert is_about("10017", event(value, key=key), Ignored("unrouted")) is is_its_own


def test_an_outcome_tells_the_steps_in_their_order_even_where_the_event_is_gone() -> None:
    ended = outcome(event_ms=500, tag_ready_ms=2_000, sent_ms=3_000, answered_ms=4_000, attempts=2, sends=1)
    timeline = told(History("A-1", outcomes=[ended]))
    (entry,) = timeline.entries
    assert (entry.state, entry.title) == ("accepted", "ConfirmShipment (route shipped, connection default)")
    assert texts(timeline) == [
        "it happened, says the event",
        "the relay read the event",
        "its versionTag was known after 2 polls",
        "it was sent",
        "Engage accepted it; sent once",
    ]


def test_the_same_outcome_twice_is_told_once() -> None:
    assert len(texts(told(History("A-1", outcomes=[outcome(), outcome()])))) == 2


def test_what_became_of_a_former_topics_event_is_not_told_of_the_one_that_lies_at_its_offset_now() -> None:
    """A source that was recreated, and adopted: its offsets begin again."""
    former = outcome(place=Place(topic="orders", partition=0, offset=5, incarnation=0))
    arrived = FoundEvent(event(offset=5), routed(), 9_000)
    history = History("A-1", events=[arrived], outcomes=[former], incarnations={("orders", 0): 1})
    assert [(str(each.at), each.state) for each in told(history).entries] == [
        ("orders[0] 5", "accepted"),
        ("orders[0] 5, incarnation 1", "untold"),
    ]


def test_what_is_pending_says_what_it_waits_for() -> None:
    records = [
        FoundRecord(b"0:5:shipped", pending(5), 1_000),
        FoundRecord(b"0:5:shipped", pending(5, state="sending", sends=1, due_ms=8_000), 7_000),
        FoundRecord(b"0:6:shipped", pending(6), 2_000),
    ]
    timeline = told(History("A-1", records=records))
    assert [(each.state, each.next_due_ms) for each in timeline.entries] == [("pending", 8_000), ("pending", None)]
    said = texts(timeline)
    assert "the intent of send 1 is saved" in said
    assert "it is pending: 2 polls answered, sent once; the last send has no known outcome yet" in said
    assert "it waits for the order's earlier action, that of orders[0] 5" in said


def test_an_event_that_was_not_read_yet_is_not_called_lost() -> None:
    history = History("A-1", events=[FoundEvent(event(), routed(), 1)], positions={("orders", 0): 5})
    assert [each.state for each in told(history).entries] == ["unread"]
    history.positions = {("orders", 0): 6}
    timeline = told(history)
    assert [each.state for each in timeline.entries] == ["untold"]
    assert any("nothing tells what became of it" in text for text in texts(timeline))


def test_a_dead_letter_is_told_with_its_place_and_whether_it_was_redriven() -> None:
    why = DeadLetterHeaders(
        reason=Reason.REJECTED,
        detail="Engage answered 400",
        source_topic="orders",
        source_partition=0,
        source_offset=5,
        failed_at_ms=4_000,
    )
    history = History("A-1", dead_letters=[FoundDeadLetter("dead", 0, 8, why, 4_000)], redriven={("dead", 0, 8)})
    timeline = told(history)
    assert [(each.state, each.reason) for each in timeline.entries] == [("dead_letter", "rejected")]
    assert texts(timeline) == [
        "dead letter dead[0] 8: rejected: Engage answered 400",
        "the dead letter was redriven, or marked as dealt with",
    ]


def test_what_became_of_a_redriven_dead_letter_is_told_and_not_its_former_reason() -> None:
    """It was called a dead letter while it was pending again, and accepted for the dead letter's reason after that."""
    why = DeadLetterHeaders(
        reason=Reason.JOB_FAILED, detail="x", source_topic="orders", source_partition=0, source_offset=5, failed_at_ms=2
    )
    letter, redriven = [FoundDeadLetter("dead", 0, 8, why, 2_000)], {("dead", 0, 8)}
    first = outcome(what=OutcomeName.DEAD_LETTER, reason="job_failed", event_ms=500, ended_ms=1_500)
    again = FoundRecord(b"0:5:shipped", pending(5).model_copy(update={"first_seen_ms": 3_000}), 3_000)
    history = History("A-1", records=[again], outcomes=[first], dead_letters=letter, redriven=redriven)
    (waiting,) = told(history).entries
    assert (waiting.state, waiting.reason, waiting.redriven) == ("pending", None, True)
    by = "redrive of dead/0/8"
    second = outcome(event_ms=500, first_seen_ms=3_000, ended_ms=4_000, asked_by=by)
    timeline = told(History("A-1", outcomes=[first, second], dead_letters=letter, redriven=redriven))
    assert [(each.state, each.reason) for each in timeline.entries] == [("accepted", None)]
    assert texts(timeline).count("it happened, says the event") == 1


def test_an_event_that_cannot_be_used_says_why() -> None:
    misrouted = Misrouted(Reason.INVALID_EVENT, "order_id: gave nothing", "shipped")
    timeline = told(History("A-1", events=[FoundEvent(event(), misrouted, 1)], positions={("orders", 0): 9}))
    assert "no action can be made of it: order_id: gave nothing" in texts(timeline)


def test_the_json_of_a_timeline_names_the_place_of_each_entry() -> None:
    found = json.loads(json.dumps(told(History("A-1", outcomes=[outcome()])).as_json()))
    assert [each["place"] for each in found["entries"]] == [
        {"topic": "orders", "partition": 0, "offset": 5, "item": None, "incarnation": 0}
    ]
