"""A pending action's record: what is written is read back, whatever the event was, and by another version, too."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.effects import (
    THE_CHANGE,
    UNKNOWN,
    ActionId,
    Document,
    Job,
    LiveAction,
    Order,
    PollTarget,
    Save,
)
from consumer.core.places import place_of
from consumer.kafka.records.dead_letters import dead_letter_of_action
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.payloads import (
    document_of,
    read_payload,
)
from consumer.kafka.records.pending import live_action, new_action, pending_value
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.records.unreadable import Unreadable
from schemas.dead_letter import FIRST_OFFSET, REDRIVE_OF
from schemas.pending_action import (
    FromChange,
    FromDocument,
    FromEvent,
    FromJob,
    FromOrder,
    TagSource,
    WithDocument,
)
from tests.unit.kafka.records.samples import HERE, JSON, TEXT, event, given_up, read, routed, saved

EVENTS = st.builds(
    SourceEvent,
    topic=st.just("orders"),
    partition=st.just(0),
    offset=st.integers(0, 2**63 - 1),
    timestamp_ms=st.none() | st.integers(0, 2**40),
    key=st.none() | st.binary(max_size=20),
    value=st.binary(max_size=60),
    headers=st.lists(st.tuples(TEXT, st.none() | st.binary(max_size=10)), max_size=3),
)


@given(EVENTS, JSON, TEXT.filter(bool))
def test_whatever_the_event_its_action_comes_back_as_it_was(source: SourceEvent, data: object, order_id: str) -> None:
    action = new_action(routed(data, order_id), source)
    restored = read(source.offset, saved(action, offset=source.offset))

    assert restored.action == action
    place = place_of(0, source.offset)
    assert (restored.offset, restored.first_seen, restored.due, restored.attempts) == (place, 1.0, 2.5, 3)
    back = read_payload(restored.action.payload)
    assert (back.order_id, back.data) == (order_id, data)
    assert back.source.offset == source.offset
    assert (back.source.value.raw() if back.source.value else None) == source.value


def test_an_intent_and_its_tag_come_back() -> None:
    restored = read(17, saved(new_action(routed(), event()), sending=True, tag="tag-1"))
    assert (restored.sending, restored.sends, restored.action.version_tag) == (True, 1, "tag-1")


NOON = datetime(2025, 11, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tag_source", "target"),
    [
        (FromJob(job_id="job-7"), Job("job-7")),
        (FromOrder(newer_than=NOON), Order(NOON)),
        (FromOrder(), Order()),
        (FromDocument(document={"a": 1}), Document()),
        (WithDocument(document={"a": 1}), Document()),
        (FromChange(change="change-status", body={"status": "x"}), THE_CHANGE),
        (FromEvent(version_tag="tag"), Order()),  # where the tag proves to be stale
    ],
)
def test_what_is_asked_for_the_tag_comes_back(tag_source: TagSource, target: PollTarget) -> None:
    action = new_action(replace(routed(), tag_source=tag_source), event())
    assert action.target == target
    assert read(17, saved(action)).action == action


def test_a_job_that_a_posted_document_was_given_is_asked_from_then_on() -> None:
    action = new_action(replace(routed(), tag_source=FromDocument(document={"lines": [1, None]})), event())
    assert document_of(action.payload) == {"lines": [1, None]}
    assert read(17, saved(replace(action, target=Job("job-9")))).action.target == Job("job-9")


def test_the_job_of_a_taken_document_comes_back() -> None:
    action = new_action(replace(routed(), tag_source=WithDocument(document={"orderId": "A-1"})), event())
    restored = read(17, saved(replace(action, target=Job("job-9"))))
    assert (restored.action.target, restored.action.with_document) == (Job("job-9"), True)


@pytest.mark.parametrize("contact_due", [None, 12.5])
def test_by_when_an_order_must_have_a_contact_comes_back(contact_due: float | None) -> None:
    action = new_action(routed(), event())
    save = Save(
        action_id=ActionId(HERE, 17),
        route=action.route,
        payload=action.payload,
        sending=False,
        first_seen=1.0,
        due=2.5,
        attempts=0,
        sends=1,
        version_tag="tag-1",
        job_id=None,
        contact_due=contact_due,
    )
    assert read(17, pending_value(save)).contact_due == contact_due


@pytest.mark.parametrize(("headers", "replaces"), [([], True), ([(REDRIVE_OF, b"orders.dead/0/1")], False)])
def test_only_the_document_of_an_event_that_was_not_redriven_replaces_an_order(
    headers: list[tuple[str, bytes | None]], replaces: bool
) -> None:
    with_document = replace(routed(), tag_source=FromDocument(document={"orderId": "A-1"}))
    action = new_action(with_document, event(headers=headers))
    restored = live_action(action_key(place_of(0, 17), action.route), saved(action))
    assert isinstance(restored, LiveAction)
    assert (action.target, restored.action.target) == (Document(replaces=replaces), Document(replaces=replaces))


@pytest.mark.parametrize(
    ("header", "first_offset"),
    [(b"17", 17), (b"0", 0), (None, UNKNOWN), (b"-1", UNKNOWN), (b"x", UNKNOWN), (b"9" * 30, UNKNOWN)],
)
def test_a_redriven_event_says_where_it_lay_when_it_came_for_the_first_time(
    header: bytes | None, first_offset: int
) -> None:
    headers = [(REDRIVE_OF, b"orders.dead/0/1"), (FIRST_OFFSET, header)]
    with_document = replace(routed(), tag_source=FromDocument(document={"orderId": "A-1"}))
    action = new_action(with_document, event(headers=headers))
    assert (action.document, action.first_offset) == (Document(replaces=False), first_offset)
    assert read(17, saved(action)).action == action
    assert (FIRST_OFFSET, header) in dead_letter_of_action(given_up(action, errors=None), now=5.0).headers


def test_a_record_says_that_its_document_may_be_under_way() -> None:
    action = new_action(replace(routed(), tag_source=FromDocument(document={"orderId": "A-1"})), event())
    assert not read(17, saved(action)).document_sent
    assert read(17, saved(action, document_sent=True)).document_sent


def test_another_versions_order_of_fields_and_unknown_ones_are_no_matter() -> None:
    action = new_action(routed({"a": [1, None]}), event(b'{"payload": "\\"payload\\":"}'))
    fields = json.loads(saved(action))
    restored = read(17, json.dumps({"payload": fields.pop("payload"), "new": True, **fields}, indent=1).encode())
    assert read_payload(restored.action.payload) == read_payload(action.payload)


def test_what_cannot_be_read_says_where_and_shows_nothing() -> None:
    key = action_key(place_of(0, 17), "shipped")
    for value, where in ((b"", "value"), (b"secret", "value"), (b'{"version":3,"payload":"secret"}', "version")):
        unreadable = live_action(key, value)
        assert isinstance(unreadable, Unreadable)
        assert unreadable.detail.startswith(where)
        assert "secret" not in unreadable.detail
    assert isinstance(live_action(b"no key", saved(new_action(routed(), event()))), Unreadable)
