"""Where an action's versionTag comes from, and which event has no usable one."""

from __future__ import annotations

import pytest

from schemas.pending_action import FromChange, FromDocument, FromEvent, FromJob, FromOrder, WithDocument
from tests.unit.events.routing.cases import IN_ITS_DOCUMENT, PARCEL_SENT, Event, parcel, wrong_parcel


@pytest.mark.parametrize(
    ("keys", "tag_source"),
    [
        ({"version_tag": "tag", "job_id": "job", "order": "document"}, FromEvent(version_tag="v1")),
        ({"version_tag": "absent", "job_id": "job", "order": "document"}, FromJob(job_id="77")),
        ({"job_id": "absent", "order": "document"}, FromDocument(document={"orderId": "1001"})),
        ({"order": "absent"}, FromOrder()),
        ({"newer_than": "absent"}, FromOrder()),
    ],
)
def test_the_tag_comes_from_the_first_source_that_gives_something(keys: Event, tag_source: object) -> None:
    event = {**PARCEL_SENT, "tag": "v1", "job": 77, "document": {"orderId": "1001"}}
    assert parcel(event, **keys).tag_source == tag_source


@pytest.mark.parametrize(
    ("keys", "change"),
    [
        ({"change_delivery": "delivery"}, FromChange(change="change-delivery", body={"method": "Box"})),
        ({"change_status": "{status: state}"}, FromChange(change="change-status", body={"status": "Shipped"})),
        ({"change_delivery": "delivery", "version_tag": "tag", "job_id": "job"}, None),
        ({"change_delivery": "absent", "change_status": "{status: state}", "order": "absent"}, None),
    ],
)
def test_a_change_comes_first_and_brings_the_tag(keys: Event, change: FromChange | None) -> None:
    event = {**PARCEL_SENT, "delivery": {"method": "Box"}, "state": "Shipped", "tag": "v1", "job": 77}
    source = parcel(event, **keys).tag_source
    assert isinstance(source, FromChange)
    assert change in (None, source)


def test_an_event_without_the_change_has_none() -> None:
    assert parcel(change_delivery="delivery", job_id="number").tag_source == FromJob(job_id="1001")


@pytest.mark.parametrize(
    ("keys", "detail"),
    [
        ({"change_delivery": "text"}, "change_delivery: expression `text` gave a text, not an object"),
        ({"change_status": "list"}, "change_status: expression `list` gave a list, not an object"),
        ({"change_status": "number"}, "change_status: expression `number` gave a number, not an object"),
        (
            {"change_delivery": "object", "change_status": "object"},
            "change_status: expression `object` gave a second change, after change_delivery",
        ),
        (
            {"change_status": "object", "order": "object"},
            "order: expression `object` gave a document, besides change_status",
        ),
    ],
)
def test_a_change_that_cannot_be_made_is_an_invalid_event(keys: Event, detail: str) -> None:
    assert wrong_parcel({**PARCEL_SENT, "text": "x", "list": [], "object": {"a": 1}}, **keys) == detail


ORDER_ACTIONS: list[Event] = [{"orderAction": {"action": "ConfirmOrder"}}, {"OrderAction": {}}, {"ORDERACTION": "x"}]


def test_an_action_may_travel_in_its_document() -> None:
    event = {**PARCEL_SENT, "document": {"orderId": "1001", "orderAction": None}}
    assert parcel(event, **IN_ITS_DOCUMENT).tag_source == WithDocument(document=event["document"])


def test_without_a_document_it_cannot_travel() -> None:
    assert wrong_parcel(PARCEL_SENT, **IN_ITS_DOCUMENT) == (
        "order: expression `document` gave nothing, and the action travels in it"
    )


@pytest.mark.parametrize("send", ["by_itself", "with_document"])
@pytest.mark.parametrize("brought", ORDER_ACTIONS)
def test_a_document_that_brings_an_action_of_its_own_is_an_invalid_event(brought: Event, send: str) -> None:
    """Engage would carry it out, and the route's, too: two e-mails."""
    detail = wrong_parcel({**PARCEL_SENT, "document": {"orderId": "1001", **brought}}, order="document", send=send)
    assert detail == "order: expression `document` gave an orderAction, and the route sends an action, too"


@pytest.mark.parametrize("send", ["by_itself", "with_document"])
@pytest.mark.parametrize("document", [{"orderId": "B-9"}, {"OrderId": 1002}, {"orderId": " 1001"}, {"orderId": ""}])
def test_a_document_of_another_order_is_an_invalid_event(document: Event, send: str) -> None:
    """Engage would change that order, and with the action in it mail that order's customer."""
    detail = wrong_parcel({**PARCEL_SENT, "document": document}, order="document", send=send)
    assert detail == "order: expression `document` gave the document of another order than `order_id`"


@pytest.mark.parametrize("named", [{}, {"orderId": None}, {"orderId": 1001}, {"orderId": "1001"}, {"orderId": [1]}])
def test_a_document_that_names_its_order_in_another_way_or_not_at_all_is_engages_to_judge(named: Event) -> None:
    document = {"status": "Shipped", **named}
    assert parcel({**PARCEL_SENT, "document": document}, order="document").tag_source == FromDocument(document=document)


def test_a_document_that_is_not_sent_may_hold_what_it_likes() -> None:
    event = {**PARCEL_SENT, "document": {"orderAction": {}}}
    assert parcel(event, order="document", job_id="number").tag_source == FromJob(job_id="1001")
