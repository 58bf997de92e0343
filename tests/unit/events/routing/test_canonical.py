"""The canonical event: its contract is all that a sender must keep, and it breaks by field."""

from __future__ import annotations

import pytest

from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.results import Misrouted, Routed, Unrouted
from schemas.dead_letter import Reason
from schemas.pending_action import FromJob, FromOrder
from tests.unit.events.routing.cases import (
    OCCURRED_MS,
    RECORD,
    RECORD_MS,
    SHIPPED,
    TRACEPARENT,
    Event,
    Record,
    misrouted,
    routed,
    router,
)


def test_a_canonical_event_becomes_its_action() -> None:
    assert routed(SHIPPED, Record(headers=(("traceparent", TRACEPARENT),))) == Routed(
        route="shipped",
        connection="default",
        order_id="A-1001",
        action="ConfirmShipment",
        language="sv-SE",
        data={"trackingNumber": "JJSE00001"},
        tag_source=FromJob(job_id="job-7"),
        on_unknown="resend",
        event_time_ms=OCCURRED_MS,
        trace_context={"traceparent": TRACEPARENT.decode()},
    )


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("confirmed", "ConfirmOrder"),
        ("shipped", "ConfirmShipment"),
        ("delivered", "ConfirmDelivery"),
        ("cancelled", "ConfirmCancellation"),
        ("completed", "ConfirmCompletion"),
        ("custom", "Custom"),
    ],
)
def test_each_canonical_type_has_its_action_and_needs_no_more_than_an_order_id(name: str, action: str) -> None:
    result = routed({"type": f"order.{name}", "orderId": "1"})
    assert (result.route, result.action, result.tag_source) == (name, action, FromOrder())
    assert (result.language, result.data, result.event_time_ms) == (None, None, RECORD_MS)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"version": 2}, "version is another number, and must be 1"),
        ({"version": "1"}, "version is a text, and must be 1"),
        ({"orderId": 1001}, "orderId is a number, not a text"),
        ({"orderId": None}, "orderId is null, not a text"),
        ({"orderId": ""}, "orderId is empty"),
        ({"action": "x" * 201}, "action is longer than 200 characters"),
        ({"order": "x"}, "order is a text, not an object"),
        ({"orderId": ".."}, "order_id: expression `orderId` gave an id that would be more than one path segment"),
        (
            {"engage": {"jobId": "a/../b"}},
            "job_id: expression `engage.jobId` gave an id that would be more than one path segment",
        ),
        ({"engage": {"jobId": ""}}, "engage.jobId is empty"),
        ({"engage": "job-7"}, "engage is a text, not an object"),
        (
            {"engage": {"newerThan": "2026-11-03T09:30:00"}},
            "newer_than: expression `engage.newerThan` gave a text that is a time without a zone:"
            " name its zone with `time_zone` in the route",
        ),
        (
            {"language": 1, "engage": {"versionTag": 1}, "order": [], "data": 2},
            "engage.versionTag is a number, not a text; order is a list, not an object",
        ),
    ],
)
def test_a_canonical_event_that_breaks_the_contract_is_dead_lettered_by_field(changes: Event, detail: str) -> None:
    assert misrouted({**SHIPPED, **changes}) == Misrouted(Reason.INVALID_EVENT, detail, "shipped")


@pytest.mark.parametrize("name", ["order_id", "OrderId", "orderid", "order-ID"])
def test_a_missing_field_that_the_event_has_by_another_spelling_is_named(name: str) -> None:
    assert misrouted({"type": "order.shipped"}).detail == "orderId is missing"
    assert misrouted({"type": "order.shipped", name: "A-1"}).detail == f"orderId is missing: the event has it as {name}"


@pytest.mark.parametrize("event_type", ["order.returned", "", None, 7, ["order.shipped"], {"order.shipped": 1}])
def test_an_event_of_another_type_is_unrouted(event_type: object) -> None:
    assert router().route({**SHIPPED, "type": event_type, "version": 2}, RECORD) == Unrouted()


def test_unknown_fields_are_the_senders_business() -> None:
    assert routed({**SHIPPED, "colour": "red", "engage": {"jobId": "job-7", "x": 1}}) == routed(SHIPPED)


def test_a_built_in_rule_that_is_given_as_it_stands_keeps_the_contract() -> None:
    assert misrouted({**SHIPPED, "version": 2}, **BUILT_IN_ROUTES).detail == "version is another number, and must be 1"


def test_a_canonical_event_whose_document_brings_an_action_is_an_invalid_event() -> None:
    wrong = misrouted({"type": "order.shipped", "orderId": "1", "order": {"orderAction": {"action": "Custom"}}})
    assert wrong.reason == Reason.INVALID_EVENT


@pytest.mark.parametrize("changes", [{"language": 7}, {"data": ["x"]}, {"data": "x"}, {"occurredAt": "yesterday"}])
def test_a_canonical_event_is_mailed_without_what_decides_nothing(changes: Event) -> None:
    result = routed({**SHIPPED, **changes})
    (dropped,) = result.dropped
    assert dropped.key == {"language": "language", "data": "data", "occurredAt": "event_time"}[next(iter(changes))]
