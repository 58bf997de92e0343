"""When an event happened: a time that only measures stops no mail."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from consumer.events.routing.rules import RouteRule
from consumer.events.times import milliseconds
from schemas.pending_action import FromOrder
from tests.unit.events.routing.cases import (
    OCCURRED_MS,
    PARCEL_ROUTE,
    PARCEL_SENT,
    RECORD_MS,
    Record,
    parcel,
    routed,
)


@pytest.mark.parametrize("moment", ["2025-11-03T09:30:00Z", "2025-11-03T10:30:00.0009+01:00", OCCURRED_MS])
def test_a_time_is_read_alike_whatever_it_is_for(moment: object) -> None:
    event = {**PARCEL_SENT, "at": moment}
    assert parcel(event, event_time="at").event_time_ms == OCCURRED_MS
    tag_source = parcel(event, newer_than="at").tag_source
    assert isinstance(tag_source, FromOrder)
    assert tag_source.newer_than is not None
    assert milliseconds(tag_source.newer_than) == OCCURRED_MS


def test_a_time_without_a_zone_has_the_routes() -> None:
    event = {**PARCEL_SENT, "at": "2025-11-03T10:30:00"}
    assert parcel(event, event_time="at", time_zone="Europe/Stockholm").event_time_ms == OCCURRED_MS
    tag_source = parcel(event, newer_than="at", time_zone="Europe/Stockholm").tag_source
    assert tag_source == FromOrder(newer_than=datetime(2025, 11, 3, 9, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    "moment",
    [
        *("soon", "", "2025-11-03T09:30:00", "0001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"),
        *(True, 20760, 46329.4, 1e30, [1], {"a": 1}),
    ],
)
@pytest.mark.parametrize("event_time", [None, "occurredAt"])
def test_a_time_that_only_measures_stops_no_mail(moment: object, event_time: str | None) -> None:
    result = parcel({**PARCEL_SENT, "occurredAt": moment}, event_time=event_time)
    assert result.event_time_ms == RECORD_MS
    assert [each.key for each in result.dropped] == ["event_time"]


def test_an_event_without_a_time_has_its_records_and_nothing_is_counted() -> None:
    result = parcel({**PARCEL_SENT, "at": None}, event_time="at")
    assert (result.event_time_ms, result.dropped) == (RECORD_MS, ())


NO_TIMES_OF_A_RECORD = (-1, 0, RECORD_MS // 1000, RECORD_MS * 1000, 2**63 - 1)
"""A producer that set none, a clock that was never set, seconds, microseconds, and Java's largest number."""


@pytest.mark.parametrize("record_ms", NO_TIMES_OF_A_RECORD)
@pytest.mark.parametrize("max_age", ["off", "2d"])
def test_a_time_of_a_record_that_cannot_be_meant_says_nothing_against_the_events_own(
    record_ms: int, max_age: str
) -> None:
    event = {**PARCEL_SENT, "occurredAt": "2025-11-03T09:30:00Z"}
    route = RouteRule.model_validate({**PARCEL_ROUTE.model_dump(exclude_unset=True), "max_age": max_age})
    result = routed(event, Record(timestamp_ms=record_ms), parcel=route)
    assert (result.event_time_ms, result.dropped) == (OCCURRED_MS, ())


@pytest.mark.parametrize("record_ms", NO_TIMES_OF_A_RECORD)
def test_it_is_no_time_of_an_event_either(record_ms: int) -> None:
    assert routed({"type": "order.shipped", "orderId": "1"}, Record(timestamp_ms=record_ms)).event_time_ms == 0


def test_without_any_time_the_event_time_is_zero() -> None:
    assert routed({"type": "order.shipped", "orderId": "1"}, Record(timestamp_ms=None)).event_time_ms == 0
