"""What leaves is what the route made of the event, to the digit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from consumer.events.numbers import read_exactly, written
from consumer.kafka.records.payloads import (
    action_of,
    change_of,
    document_of,
    document_with_action_of,
    request_of,
)
from consumer.kafka.records.pending import new_action
from schemas.pending_action import (
    FromChange,
    FromDocument,
    WithDocument,
)
from tests.unit.kafka.records.samples import JSON, TEXT, event, read, routed, saved


@given(JSON, st.none() | TEXT)
def test_the_request_is_what_the_route_said(data: object, language: str | None) -> None:
    request, event_time_ms = request_of(new_action(routed(data, language=language), event()).payload, "tag-1")
    assert (request.action, request.version_tag, request.data) == ("ConfirmShipment", "tag-1", data)
    assert (request.language, event_time_ms) == (language, 1_762_162_200_000)


def test_a_change_comes_back_as_the_route_gave_it() -> None:
    body: dict[str, object] = {"method": None, "trackingNumber": "1"}
    action = new_action(replace(routed(), tag_source=FromChange(change="change-delivery", body=body)), event())
    assert change_of(read(17, saved(action)).action.payload) == ("change-delivery", body)


def test_an_action_that_travels_in_its_document_is_the_documents_order_action() -> None:
    source = WithDocument(document={"orderId": "A-1", "note": None, "OrderAction": None})
    action = new_action(replace(routed({"a": [1]}, language="sv"), tag_source=source), event())
    assert action.with_document
    assert document_with_action_of(read(17, saved(action)).action.payload) == {
        "orderId": "A-1",
        "note": None,
        "orderAction": {"action": "ConfirmShipment", "language": "sv", "data": {"a": [1]}},
    }
    assert action_of(action.payload) == ("ConfirmShipment", 1_762_162_200_000)


AS_THEY_CAME = b'{"a":199.00,"b":1E3,"c":18446744073709551615,"d":-0.0,"e":-0,"f":[0.10,{"g":1e-7}],"h":null}'


def test_numbers_of_data_leave_as_they_came_also_after_a_restart() -> None:
    action = new_action(replace(routed(), data=read_exactly(AS_THEY_CAME)), event())
    restored = read(17, saved(action))
    for payload in (action.payload, restored.action.payload):
        request, _ = request_of(payload, "tag-1")
        assert written(request.data) == AS_THEY_CAME


def test_numbers_of_a_document_leave_as_they_came_also_after_a_restart() -> None:
    document = read_exactly(AS_THEY_CAME)
    assert isinstance(document, dict)
    action = new_action(replace(routed(), tag_source=FromDocument(document=document)), event())
    restored = read(17, saved(action))
    for payload in (action.payload, restored.action.payload):
        assert written(document_of(payload)) == AS_THEY_CAME


def test_numbers_of_a_record_that_another_version_wrote_are_kept() -> None:
    action = new_action(replace(routed(), data=read_exactly(AS_THEY_CAME)), event())
    foreign = b'{ "version": 2,' + saved(action).removeprefix(b'{"version":2,')
    request, _ = request_of(read(17, foreign).action.payload, "tag-1")
    assert written(request.data) == AS_THEY_CAME
