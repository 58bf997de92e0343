"""The delay topic's records: what is written is read back, whatever the event was, and by another version, too."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.effects import (
    THE_CHANGE,
    UNKNOWN,
    ActionId,
    Document,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Order,
    PollTarget,
    Save,
    Times,
)
from consumer.core.ownership import Assignment
from consumer.core.places import MAX_OFFSET, incarnation_at, item_at, offset_at, place_of
from consumer.events.deciding import redriven_elsewhere
from consumer.events.numbers import read_exactly, written
from consumer.events.routing.results import Routed
from consumer.kafka.records import (
    SourceEvent,
    Unreadable,
    action_key,
    action_of,
    change_of,
    dead_letter_of_action,
    document_of,
    document_with_action_of,
    live_action,
    new_action,
    pending_value,
    place_of_key,
    position_value,
    read_payload,
    read_position,
    request_of,
    without_value,
)
from schemas.dead_letter import FIRST_OFFSET, REDRIVE_OF, DeadLetterHeaders, Reason
from schemas.pending_action import (
    FromChange,
    FromDocument,
    FromEvent,
    FromJob,
    FromOrder,
    Position,
    SourceIdentity,
    TagSource,
    WithDocument,
)

HERE = Assignment("orders", 0, epoch=1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
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


def routed(data: object = None, order_id: str = "A-1", language: str | None = None) -> Routed:
    return Routed(
        route="shipped",
        connection="default",
        order_id=order_id,
        action="ConfirmShipment",
        language=language,
        data=data,
        tag_source=FromJob(job_id="job-7"),
        on_unknown="resend",
        event_time_ms=1_762_162_200_000,
        trace_context=None,
    )


def event(value: bytes = b"{}", headers: list[tuple[str, bytes | None]] | None = None) -> SourceEvent:
    return SourceEvent(
        topic="orders",
        partition=0,
        offset=17,
        timestamp_ms=1_762_162_200_000,
        key=b"A-1",
        value=value,
        headers=headers or [],
    )


def saved(
    action: NewAction,
    *,
    sending: bool = False,
    offset: int = 17,
    tag: str | None = None,
    document_sent: bool = False,
) -> bytes:
    return pending_value(
        Save(
            action_id=ActionId(HERE, offset),
            route=action.route,
            payload=action.payload,
            sending=sending,
            first_seen=1.0,
            due=2.5,
            attempts=3,
            sends=1,
            version_tag=tag,
            job_id=action.target.job_id if isinstance(action.target, Job) else None,
            document_sent=document_sent,
        )
    )


def given_up(action: NewAction, errors: str | None = None) -> GiveUp:
    return GiveUp(
        action_id=ActionId(HERE, 17),
        route="shipped",
        payload=action.payload,
        reason=Reason.REJECTED,
        detail="why",
        errors=errors,
        attempts=3,
        sends=1,
        times=Times(0.5),
    )


def read(offset: int, value: bytes) -> LiveAction:
    restored = live_action(action_key(place_of(0, offset), "shipped"), value)
    assert isinstance(restored, LiveAction)
    return restored


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


@given(JSON, st.none() | TEXT)
def test_the_request_is_what_the_route_said(data: object, language: str | None) -> None:
    request, event_time_ms = request_of(new_action(routed(data, language=language), event()).payload, "tag-1")
    assert (request.action, request.version_tag, request.data) == ("ConfirmShipment", "tag-1", data)
    assert (request.language, event_time_ms) == (language, 1_762_162_200_000)


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


@given(st.integers(0, 1000), st.integers(0, MAX_OFFSET - 1), TEXT)
def test_a_key_names_its_place(incarnation: int, offset: int, route: str) -> None:
    place = place_of(incarnation, offset)
    assert place_of_key(action_key(place, route)) == place
    assert (incarnation_at(place), offset_at(place)) == (incarnation, offset)


@pytest.mark.parametrize("item", [0, 1, 4095])
def test_the_items_of_an_event_have_places_and_keys_of_their_own(item: int) -> None:
    place = place_of(1, 17, item)
    assert (incarnation_at(place), offset_at(place), item_at(place)) == (1, 17, item)
    assert action_key(place, "sent:x") == (b"1:17.%d:sent:x" % item if item else b"1:17:sent:x")
    assert place_of_key(action_key(place, "sent:x")) == place
    assert place_of(1, 17, item) < place_of(1, 18)


def test_the_dead_letter_of_an_item_says_which_it_is() -> None:
    action = new_action(replace(routed(), item=2), event())
    why = DeadLetterHeaders.from_kafka(cast("Any", dead_letter_of_action(given_up(action), now=5.0).headers))
    assert why.item == 2


@given(st.integers(0, 50), st.integers(0, MAX_OFFSET - 1), st.integers(0, MAX_OFFSET - 1))
def test_every_event_of_a_former_topic_comes_before_those_of_the_present_one(n: int, one: int, other: int) -> None:
    assert place_of(n, one) < place_of(n + 1, other)


@given(st.binary(max_size=12))
def test_any_other_key_names_none(key: bytes) -> None:
    place = place_of_key(key)
    assert place is None or [*map(int, key.split(b":", 2)[:2])] == [incarnation_at(place), offset_at(place)]


@pytest.mark.parametrize("key", [b"17:shipped", b"17:5", b"position", b":1:shipped", b"1::shipped", b"-1:2:shipped"])
def test_the_key_of_an_older_version_names_none(key: bytes) -> None:
    assert place_of_key(key) is None


SOURCE = SourceIdentity(group="g", cluster_id="c", topic="orders", topic_id="id-1", incarnation=2)


@pytest.mark.parametrize("source", [SOURCE, SourceIdentity(group="g", topic="orders")])
def test_a_position_says_whose_it_is(source: SourceIdentity) -> None:
    assert read_position(position_value(source, 3, 17)) == Position(next_offset=17, partition=3, source=source)


def test_a_position_says_which_outcomes_topic_it_had() -> None:
    position = Position(next_offset=17, partition=3, source=SOURCE, outcomes_topic_id="id-2")
    assert read_position(position_value(SOURCE, 3, 17, "id-2")) == position


def test_the_position_of_an_older_version_is_not_guessed_at() -> None:
    unreadable = read_position(b'{"version":1,"next_offset":17}')
    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail.startswith("version")


def test_a_dead_letter_is_the_original_with_the_reason_and_without_an_earlier_ones() -> None:
    earlier = ("engage-relay-reason", b"stale_tag")
    action = new_action(routed(), event(b"\xff", [("x", b"1"), earlier, (REDRIVE_OF, b"t/0/1"), ("y", None)]))
    dead_letter = dead_letter_of_action(given_up(action, errors="[]"), now=5.0)

    assert (dead_letter.key, dead_letter.value) == (b"A-1", b"\xff")
    assert dead_letter.headers[:3] == [("x", b"1"), (REDRIVE_OF, b"t/0/1"), ("y", None)]
    told = DeadLetterHeaders.from_kafka([(n, v if isinstance(v, bytes) else None) for n, v in dead_letter.headers[3:]])
    assert (told.reason, told.detail, told.source_offset, told.failed_at_ms) == (Reason.REJECTED, "why", 17, 5000)
    assert told.source_timestamp_ms == 1_762_162_200_000


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


@pytest.mark.parametrize(
    ("header", "ignored"),
    [
        (b"orders.engage.dead-letters/0/17", False),
        (b"orders.staging.dead-letters/0/17", True),
        (b"\xff/0/17", True),
        (b"orders.staging.dead-letters", False),  # whoever wrote it, it was no redrive
        (b"https://example.com/0/17", False),
        (b"", False),
        (None, False),
    ],
)
def test_what_another_relay_redrove_is_not_mailed_by_this_one(header: bytes | None, ignored: bool) -> None:
    headers = [("x", b"1"), (REDRIVE_OF, header)]
    assert redriven_elsewhere(headers, {"orders.engage.dead-letters"}) is ignored
    assert redriven_elsewhere([], {"orders.engage.dead-letters"}) is False


def test_a_dead_letter_without_its_value_says_so() -> None:
    action = new_action(routed(), event(b"x" * 3000))
    dead_letter = dead_letter_of_action(given_up(action), now=5.0)
    smaller = without_value(dead_letter)
    assert (smaller.key, smaller.value) == (dead_letter.key, None)
    assert "why; its value of 3000 bytes was left out" in str(dict(smaller.headers)["engage-relay-detail"])


def test_actions_read_the_same_however_many_came_since() -> None:
    given = [{"number": number, "text": "x" * (number % 100) * 100} for number in range(1500)]
    payloads = [new_action(routed(each), event()).payload for each in given]
    for _ in range(2):
        assert [read_payload(each).data for each in payloads] == given
