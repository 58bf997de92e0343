"""Any bytes may lie on the source: they end as dead letters, whole and with a reason, and the stream continues."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial

from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from consumer.kafka import clients
from consumer.kafka.topics.offsets import watermarks
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Engage, ScriptedEngage, tagged_order
from tests.support.events import HOUR_AGO_MS, SECRET_ID, Raw, event, order_id, publish_raw
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory, TopicFactory
from tests.support.waiting import PATIENCE_S, until

UNDECODABLE: Mapping[str, tuple[bytes, str]] = {
    "not UTF-8": (b'{"type": "\xff\xfe"}', "not UTF-8 at byte 10"),
    "not JSON": (b"order.shipped", "not JSON"),
    "cut": (event(order_id("cut"))[:-1], "not JSON"),
    "blank": (b" ", "not JSON"),
    "no object": (b'["order.shipped"]', "not an object"),
    "NaN": (b'{"type": "order.shipped", "orderId": "1", "data": {"a": NaN}}', "not JSON"),
    "deep": (b'{"type": "order.shipped", "orderId": "1", "data": ' + b'{"a": ' * 5000 + b"1" + b"}" * 5001, "nested"),
    "beyond a double": (b'{"type": "order.shipped", "orderId": "1", "data": {"total": 1e999}}', "data.total"),
    "a key twice": (b'{"type": "order.shipped", "orderId": "1", "orderId": "2"}', "orderId: the key appears twice"),
}


def _of(**fields: object) -> bytes:
    return json.dumps({"type": "order.shipped", "orderId": order_id("x"), **fields}).encode()


INVALID: Mapping[str, tuple[bytes, str]] = {
    "no order id": (b'{"type": "order.shipped"}', "orderId"),
    "empty order id": (_of(orderId=""), "orderId"),
    "order id of a wrong type": (_of(orderId=["A-1"]), "orderId"),
    "order id null": (_of(orderId=None), "orderId"),
    "order of a wrong type": (_of(order="text"), "order"),
    "engage of a wrong type": (_of(engage="job-1"), "engage"),
    "job id of a wrong type": (_of(engage={"jobId": {}}), "engage.jobId"),
    "a time that is none": (_of(engage={"newerThan": "yesterday"}), "newer_than"),
    "a time without a zone": (_of(engage={"newerThan": "2026-11-03T09:30:00"}), "without a zone"),
    "unknown version": (_of(version=2), "version"),
    "dots": (_of(orderId=".."), "orderId"),
    "encoded dots": (_of(orderId="%2e%2e"), "orderId"),
    "a way up": (_of(orderId="../../other"), "orderId"),
    "a way up in a job": (_of(engage={"jobId": "../other"}), "jobId"),
    "newline": (_of(orderId="A\r\nX-Header: 1"), "orderId"),
    "NUL": (_of(orderId="A\x00"), "orderId"),
    "10 kB": (_of(orderId="A" * 10_000), "orderId"),
    "half a character": (b'{"type": "order.shipped", "orderId": "A-\\ud800"}', ""),
}


def test_what_is_no_event_ends_as_a_dead_letter_that_says_why_and_the_stream_continues(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes()
    after = order_id("after")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(after)
        publish_raw(sandbox, [*(Raw(b"k", value) for value, _ in UNDECODABLE.values()), Raw(b"k", event(after))])
        books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.UNDECODABLE] * len(UNDECODABLE)
        for dead_letter, (value, why) in zip(books.dead_letters, UNDECODABLE.values(), strict=True):
            assert dead_letter.value == value
            assert why in dead_letter.why.detail
        assert engage.events_of(after) == [1]


def test_an_event_with_a_wrong_field_ends_as_a_dead_letter_that_names_the_field(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    after = order_id("after")
    with ScriptedEngage(tagged_order) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish_raw(sandbox, [*(Raw(b"k", value) for value, _ in INVALID.values()), Raw(b"k", event(after))])
        books.wait_until_settled()
        assert [each.value for each in books.dead_letters] == [value for value, _ in INVALID.values()]
        for dead_letter, (name, (_, why)) in zip(books.dead_letters, INVALID.items(), strict=True):
            assert dead_letter.reason in (Reason.INVALID_EVENT, Reason.UNDECODABLE), name
            assert why in dead_letter.why.detail, name
        # Nothing was asked but for the order that is one.
        assert {each.path for each in engage.asked} == {
            f"/api/v3/orders/{after}",
            f"/api/v3/orders/{after}/action",
        }


def test_a_dead_letter_s_reason_holds_nothing_of_the_event(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with ScriptedEngage(tagged_order) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish_raw(sandbox, [Raw(b"k", value) for value, _ in (*UNDECODABLE.values(), *INVALID.values())])
        books.wait_until_settled()
        assert len(books.dead_letters) == len(UNDECODABLE) + len(INVALID)
        assert not [each.why.detail for each in books.dead_letters if SECRET_ID in each.why.detail]


def test_ids_of_any_script_and_with_signs_of_a_url_are_one_segment_of_the_path(sandboxes: SandboxFactory) -> None:
    ids = ["Ordnr-åäö", "注文-1", "🧦", "a b", "a?b=c", "a#b", "a%41", "a;b", "a+b&c", "A" * 200]
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        for each in ids:
            engage.submit(each)
        publish_raw(sandbox, [Raw(each.encode(), event(each)) for each in ids])
        books.wait_until_settled()
        assert books.dead_letters == []
        assert [each.order_id for each in engage.accepted if each.order_id not in ids] == []
        assert sorted(each.order_id for each in engage.accepted) == sorted(ids)


def test_a_connection_that_is_not_configured_is_named_in_the_dead_letter(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("lost")
    with ScriptedEngage(tagged_order) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish_raw(sandbox, [Raw(b"k", event(order, engage={"connection": "atlantis"}))])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.UNKNOWN_CONNECTION
        assert '"atlantis"' in dead_letter.why.detail
        assert engage.asked == []


def test_a_dead_letter_is_the_original_record_key_value_headers_and_time(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    headers = (("trace", b"1"), ("trace", b"2"), ("none", None), ("raw", b"\xff\x00"), ("empty", b""))
    records = [
        Raw(b"\xff\x00key", b"\xff\xfe garbage", headers, HOUR_AGO_MS + 123),
        Raw(None, b"no key", (), HOUR_AGO_MS + 456),
        Raw(b"", _of(orderId=""), headers),
    ]
    with ScriptedEngage(tagged_order) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish_raw(sandbox, records)
        books.wait_until_settled()
        for offset, (dead_letter, record) in enumerate(zip(books.dead_letters, records, strict=True)):
            assert (dead_letter.key, dead_letter.value, dead_letter.why.source_timestamp_ms) == (
                record.key,
                record.value,
                record.timestamp_ms,
            )
            assert dead_letter.headers[: len(record.headers)] == list(record.headers)
            assert (dead_letter.why.source_topic, dead_letter.why.source_offset) == (sandbox.topics.source, offset)


EIGHT_DAYS_AGO_MS = round((time.time() - 8 * 24 * 3600) * 1000)
A_MINUTE = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": str(2**63 - 1),
    "retention.ms": "60000",
}


def test_a_dead_letter_of_an_old_event_is_not_deleted_by_retention_before_a_person_sees_it(
    sandboxes: SandboxFactory, topics: TopicFactory
) -> None:
    """Retention counts from a dead letter's own time, which is the time of its writing and not its event's."""
    sandbox = sandboxes(dead_letters=A_MINUTE)
    (dead_letters, canary) = (sandbox.topics.dead_letters, 0), (topics("canary", config=A_MINUTE), 0)
    for_ever = ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    source = ConfigResource(ResourceType.TOPIC, sandbox.topics.source, incremental_configs=[for_ever])
    sandbox.admin.incremental_alter_configs([source])[source].result(PATIENCE_S)
    with ScriptedEngage(tagged_order) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish_raw(sandbox, [Raw(b"k", b"garbage", (), EIGHT_DAYS_AGO_MS)])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.why.source_timestamp_ms == EIGHT_DAYS_AGO_MS
    producer = Producer(clients.base(sandbox.properties))
    for taken in (1, 2):  # the second goes in a round of the broker's that began when the dead letter was there
        producer.produce(canary[0], b"garbage", partition=0, timestamp=EIGHT_DAYS_AGO_MS)
        assert producer.flush(PATIENCE_S) == 0
        until(partial(_was_emptied, sandbox, canary, taken), "retention takes the canary")

    assert watermarks(sandbox.admin, [dead_letters])[dead_letters][0] == 0


def _was_emptied(sandbox: Sandbox, partition: tuple[str, int], end: int) -> bool:
    return watermarks(sandbox.admin, [partition])[partition] == (end, end)


def test_an_action_that_engage_refuses_leaves_its_original_record_too(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    order = order_id("refused")
    record = Raw(b"\xff\x00key", event(order), (("h", b"\xff"), ("n", None)), HOUR_AGO_MS + 123)
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(order, contact=False)
        publish_raw(sandbox, [record])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert (dead_letter.key, dead_letter.value, dead_letter.why.source_timestamp_ms) == (
            record.key,
            record.value,
            record.timestamp_ms,
        )
        assert dead_letter.headers[: len(record.headers)] == list(record.headers)
