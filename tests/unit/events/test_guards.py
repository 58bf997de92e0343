"""What a guard stops, and that nothing else is stopped. `route` and `run` ask the same `decide`."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from consumer.commands.routing.route import Verdict, judged
from consumer.config.settings import Settings
from consumer.errors import ConfigurationError
from consumer.kafka.records.source_events import SourceEvent
from schemas.dead_letter import REDRIVE_OF, Reason

Event = Mapping[str, object]

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
DAY = 86_400.0


def settings(connection: dict[str, object] | None = None, **sections: object) -> Settings:
    default = {"base_url": "https://localhost", "api_key": "none", **(connection or {})}
    kafka = {"bootstrap.servers": "localhost:9092"}
    return Settings.model_validate({"kafka": kafka, "engage": {"connections": {"default": default}}, **sections})


def record(event: Event, *, timestamp_ms: int | None = int(NOW * 1000), redriven: bool = False) -> SourceEvent:
    headers = [(REDRIVE_OF, b"orders.engage.dead-letters/0/1")] if redriven else []
    value = json.dumps(event).encode()
    return SourceEvent(
        topic="orders", partition=0, offset=7, timestamp_ms=timestamp_ms, key=b"A-1", value=value, headers=headers
    )


def verdict(asked: SourceEvent, by: Settings) -> Verdict:
    (found,) = judged([asked], by, NOW)
    return found


def shipped(occurred_at: object = "2026-11-18T11:00:00Z", **more: object) -> dict[str, object]:
    return {"type": "order.shipped", "orderId": "A-1", "occurredAt": occurred_at, **more}


# max_age


def test_an_old_event_is_a_dead_letter() -> None:
    found = verdict(record(shipped("2026-11-16T11:00:00Z")), settings(max_age="2d"))
    assert (found.fate, found.reason) == ("dead_letter", Reason.TOO_OLD)
    assert found.detail == "max_age: the event is 2.0 days old, and 2d is allowed"


def test_an_old_event_may_be_ignored() -> None:
    found = verdict(record(shipped("2026-11-16T11:00:00Z")), settings(max_age="2d", too_old="ignore"))
    assert (found.fate, found.reason) == ("stopped", None)


def test_an_event_within_its_age_is_sent() -> None:
    assert verdict(record(shipped("2026-11-16T11:10:00Z")), settings(max_age="2d")).fate == "routed"


def test_a_route_has_an_age_of_its_own() -> None:
    old = record(shipped("2026-11-16T11:00:00Z"))
    for max_age in ("7d", "off", False):
        route = {"action": "ConfirmShipment", "when": "type == 'order.shipped'", "max_age": max_age}
        assert verdict(old, settings(max_age="1h", routes={"mine": route})).fate == "routed"


def test_a_redriven_event_is_never_too_old() -> None:
    assert verdict(record(shipped("2020-11-16T11:00:00Z"), redriven=True), settings(max_age="1h")).fate == "routed"


def test_without_a_time_of_its_own_the_records_time_decides() -> None:
    event = {"type": "order.shipped", "orderId": "A-1"}
    old_record = record(event, timestamp_ms=int((NOW - 3 * DAY) * 1000))
    assert verdict(old_record, settings(max_age="2d")).reason is Reason.TOO_OLD
    assert verdict(record(event), settings(max_age="2d")).fate == "routed"
    for without in (None, -1, 0, int(NOW), int(NOW * 1e6)):  # none, or one that cannot be meant
        assert verdict(record(event, timestamp_ms=without), settings(max_age="2d")).reason is Reason.INVALID_EVENT


@pytest.mark.parametrize("record_ms", [-1, 0, int(NOW), int(NOW * 1e6)])
def test_a_fresh_event_is_not_too_old_because_of_a_records_time_that_was_never_set(record_ms: int) -> None:
    assert verdict(record(shipped(), timestamp_ms=record_ms), settings(max_age="2d")).fate == "routed"
    old = record(shipped("2026-11-10T11:00:00Z"), timestamp_ms=record_ms)
    assert verdict(old, settings(max_age="2d")).reason is Reason.TOO_OLD


@pytest.mark.parametrize("time", ["2026-11-18T11:00:00", "yesterday", 0])
def test_a_time_that_decides_must_be_one_with_its_zone(time: object) -> None:
    assert verdict(record(shipped(time)), settings()).fate == "routed"
    found = verdict(record(shipped(time)), settings(max_age="2d"))
    assert found.reason is Reason.INVALID_EVENT
    assert str(found.detail).startswith("event_time: ")


def test_a_sender_whose_clock_is_ahead_is_not_stopped() -> None:
    assert verdict(record(shipped("2027-11-18T11:00:00Z")), settings(max_age="2d")).fate == "routed"


# only_for


def test_a_connection_serves_the_listed_orders_only() -> None:
    assert verdict(record(shipped()), settings({"only_for": ["A-1", 7]})).fate == "routed"
    found = verdict(record(shipped()), settings({"only_for": ["A-2"]}))
    assert (found.fate, found.detail) == ("stopped", "only_for: connection default serves other orders only")
    numbered = settings({"only_for": [7]}, routes={"mine": {"action": "ConfirmShipment", "order_id": "number"}})
    assert verdict(record({"number": 7}), numbered).fate == "routed"
    assert verdict(record({"number": 8}), numbered).fate == "stopped"
    assert verdict(record(shipped()), settings({"only_for": []})).fate == "stopped"


def test_an_expression_names_the_contacts_that_are_served() -> None:
    mine = settings({"only_for": "data.email == 'me@acme.com'"})
    assert verdict(record(shipped(data={"email": "me@acme.com"})), mine).fate == "routed"
    assert verdict(record(shipped(data={"email": "kim@example.com"})), mine).fate == "stopped"
    assert verdict(record(shipped()), mine).fate == "stopped"


def test_an_expression_that_fails_withholds() -> None:
    assert verdict(record(shipped(data={"n": "text"})), settings({"only_for": "abs(data.n) == `1`"})).fate == "stopped"
    absent = settings({"only_for": "data.group == data.wanted"})
    assert verdict(record(shipped(data={})), absent).fate == "stopped"


def test_a_redrive_does_not_override_only_for() -> None:
    assert verdict(record(shipped(), redriven=True), settings({"only_for": ["A-2"]})).fate == "stopped"


def test_a_list_in_a_variable_is_no_expression() -> None:
    assert settings({"only_for": '["A-2"]'}).engage.connections["default"].only_for == ("A-2",)


@pytest.mark.parametrize(
    "wrong", [7, True, {"a": 1}, [None], [["A"]], "type ==", "lookup('none', type)", "a == 'b' || 'c'"]
)
def test_what_names_no_orders_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="only_for"):
        settings({"only_for": wrong})


# several actions of one event


def test_a_guard_looks_at_each_item_by_itself() -> None:
    routes = {
        "parcels": {"each": "parcels[]", "action": "ConfirmShipment", "order_id": "item.order", "event_time": "item.at"}
    }
    event = {
        "parcels": [{"order": "A-1", "at": "2026-11-18T11:00:00Z"}, {"order": "A-2", "at": "2026-11-01T11:00:00Z"}]
    }
    found = verdict(record(event), settings(max_age="2d", routes=routes))
    assert found.fate == "routed"
    assert found.has_dead_letter
    assert [each.stopped is None for each in found.actions] == [True, False]


def test_a_configuration_error_names_its_place() -> None:
    with pytest.raises(ValueError, match="max_age"):
        settings(max_age="0s")
    with pytest.raises(ValueError, match="max_age"):
        settings(max_age="soon")
    assert ConfigurationError.exit_code == 2
