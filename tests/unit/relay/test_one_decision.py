"""A dry run decides as the relay does: the same fate, reason and action for the same record."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterable, Iterator
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from consumer.commands.routing.route import Verdict, judged
from consumer.config.formats import formats_of
from consumer.config.settings import Settings
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.ownership import Assignment
from consumer.events.formats.formats import JSON as JSON_EVERYWHERE
from consumer.events.formats.formats import Formats
from consumer.events.routing.results import Routed
from consumer.kafka.facts import Read
from consumer.kafka.journal.writes import DeadLetter, Item, Put, Write
from consumer.kafka.records.source_events import SourceEvent
from consumer.relay.edges import Source
from consumer.relay.outbox import Limits, Outbox
from consumer.relay.refused import RefusedDeadLetters
from consumer.telemetry.metrics import Metrics
from schemas.dead_letter import REDRIVE_OF, DeadLetterHeaders
from tests.support.registry import TestRegistry, framed

SETTINGS = Settings.model_validate(
    {
        "kafka": {"bootstrap.servers": "localhost:9092"},
        "engage": {"connections": {"default": {"base_url": "https://localhost", "api_key": "none"}}},
        "source": {"tombstones": ["absent", "empty", "literal_null"]},
        "routes": {
            "each": {
                "each": "parcels[]",
                "when": "item",
                "action": "ConfirmShipment",
                "order_id": "item.order || number",
                "data": "item",
            },
            "mine": {
                "when": "starts_with(kind, 'parcel')",
                "action": "ConfirmShipment",
                "order_id": "number",
                "job_id": "job",
                "newer_than": "since",
                "event_time": "at",
                "language": "language",
                "data": "{total: total, first: lines[0]}",
            },
        },
    }
)


class Collecting:
    """A journal that keeps what it is given."""

    backlog = backlog_bytes = 0
    failed = None

    def __init__(self) -> None:
        self.writes: list[Write] = []

    def start(self) -> None: ...

    def submit(self, items: Iterable[Item]) -> None:
        self.writes += cast("list[Write]", list(items))

    def stuck_for(self) -> float:
        return 0.0

    def stop(self, timeout_s: float) -> bool:
        return True


def relayed(
    record: SourceEvent, settings: Settings = SETTINGS, formats: Formats = JSON_EVERYWHERE
) -> tuple[object, ...]:
    """Give the record to the relay's outbox, and tell what it has the journal write."""
    ledger = Ledger(Policy(), jitter=lambda: 0.5)
    journal = Collecting()
    outbox = Outbox(
        ledger=ledger,
        router=settings.router,
        source=cast("Source", None),
        journal=journal,
        refused=RefusedDeadLetters(),
        limits=Limits(100),
        dead_letter_topics=SETTINGS.dead_letter_topics,
        metrics=Metrics(CollectorRegistry()),
        tracing=None,
        formats=formats,
    )
    ours = Assignment(record.topic, 0, 1)
    ledger.assign(ours, [], 0.0)
    if (left := outbox.take(Read(ours, [record], record.offset + 1), 0.0)) is not None:
        rest, awaiting = left
        assert rest == Read(ours, [record], record.offset + 1)
        return "waiting", awaiting.schema
    outbox.submit()
    *others, write = journal.writes
    assert all(isinstance(each, Put) and each.with_next and each.next_offset is None for each in others)
    assert getattr(write, "next_offset") == record.offset + 1  # noqa: B009 - each of the three has it
    if others:
        return "several", *(kept(each) for each in journal.writes)
    if isinstance(write, DeadLetter):
        why = DeadLetterHeaders.from_kafka(cast("list[tuple[str, bytes | None]]", write.record.headers))
        return "dead_letter", why.reason, why.detail
    if isinstance(write, Put):
        return kept(write)
    return ("ignored",)


def kept(write: Write) -> tuple[object, ...]:
    assert isinstance(write, Put)
    payload = json.loads(write.value)["payload"]
    return (
        *("routed", payload["route"], payload["action"], payload["order_id"]),
        *(payload.get("language"), payload.get("data"), payload["event_time_ms"], payload.get("item")),
    )


def dry_run(record: SourceEvent) -> tuple[object, ...]:
    (verdict,) = judged([record], SETTINGS)
    return told(verdict)


FORMATS: dict[str, dict[str, str]] = {
    "events.json": {"format": "json", "compression": "gzip"},
    "events.ce": {"format": "cloudevents"},
    "events.packed": {"format": "cloudevents", "compression": "gzip"},
    "events.cdc": {"format": "debezium"},
    "events.plain": {"format": "plain"},
    "events.utf16": {"format": "plain", "encoding": "utf-16"},
    "events.latin": {"format": "plain", "encoding": "latin-1", "compression": "gzip"},
    "events.framed": {"format": "confluent"},
}


def told(verdict: Verdict) -> tuple[object, ...]:
    match verdict:
        case Verdict(fate="dead_letter", reason=reason, detail=detail):
            return "dead_letter", reason, detail
        case Verdict(fate="routed", actions=actions):
            rows = [shown(each) for each in actions]
            return ("several", *rows) if len(rows) > 1 else rows[0]
    return (verdict.fate,)


def shown(action: Routed) -> tuple[object, ...]:
    return (
        *("routed", action.route, action.action, action.order_id),
        *(action.language, action.data, action.event_time_ms, action.item),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["parcel", "sv-SE", "1e400"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "type",
        "orderId",
        "kind",
        "number",
        "job",
        "since",
        "at",
        "language",
        "total",
        "lines",
        "engage",
        "occurredAt",
        "parcels",
        "data",
    ]
)
MINE = st.dictionaries(FIELDS, JSON, max_size=6).map(lambda event: {"kind": "parcel", "number": 17, **event})
CANONICAL = st.dictionaries(FIELDS, JSON, max_size=4).map(
    lambda event: {"type": "order.shipped", "orderId": "A-1", **event}
)
VALUES = (
    st.none()
    | st.binary(max_size=60)
    | st.sampled_from([b"null", b"", b" null ", b"[]", b'"text"', b"\xef\xbb\xbfnull", b"\x00\x00\x00\x00\x01{}"])
    | (MINE | CANONICAL | JSON).map(lambda event: json.dumps(event).encode())
)
NAMES = st.text(max_size=6) | st.sampled_from(["traceparent", REDRIVE_OF, "ce_type"])
HEADERS = st.lists(
    st.tuples(NAMES, st.none() | st.binary(max_size=9) | st.just(b"orders.staging.dead-letters/0/1")), max_size=3
)


@given(VALUES, st.none() | st.binary(max_size=9), HEADERS, st.none() | st.integers(0, 2_000_000_000_000))
@example(b'[{"type":"order.shipped","orderId":"A-1"}]', None, [], None)
@example(b'{"type":"order.shipped","orderId":"A-1","data":{"total":199.00}}', None, [], None)
@example(b"null", b"A-1", [], None)
@example(b'{"parcels":[{"order":1},null,{"order":2},{}],"number":3}', None, [], None)
@example(b'{"a":1}\n{"a":2}', None, [], None)
@example(b"{}", b"A-1", [(REDRIVE_OF, b"orders.staging.dead-letters/0/1")], None)
def test_a_dry_run_decides_as_the_relay_does(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]], timestamp_ms: int | None
) -> None:
    record = SourceEvent(
        topic="orders",
        partition=0,
        offset=17,
        timestamp_ms=timestamp_ms,
        key=key,
        value=value,
        headers=headers,
    )
    assert dry_run(record) == relayed(record)


ENVELOPES = (MINE | CANONICAL).map(
    lambda event: {"schema": {"type": "struct", "fields": []}, "payload": {"op": "c", "before": None, "after": event}}
)
CLOUDEVENTS = (MINE | CANONICAL).map(
    lambda event: {"specversion": "1.0", "id": "1", "source": "/", "kind": "parcel", **event, "data": event}
)
AVRO = {
    "type": "record",
    "name": "Parcel",
    "fields": [{"name": "kind", "type": "string"}, {"name": "number", "type": "long"}],
}
AVRO_PARCEL = framed(3, b"\x0cparcel\x22")
PROTOBUF = 'syntax = "proto3"; message Other { string a = 1; } message Parcel { string kind = 1; int64 number = 2; }'
PROTOBUF_PARCEL = framed(4, b"\x02\x02\x0a\x06parcel\x10\x11")  # the second message of its file
TEXTS = (ENVELOPES | CLOUDEVENTS | MINE | st.lists(CLOUDEVENTS, max_size=2)).map(json.dumps)
ENCODED = TEXTS.flatmap(
    lambda text: st.sampled_from(
        [
            *(text.encode(encoding) for encoding in ("utf-8", "utf-16", "utf-16-be")),
            *(
                AVRO_PARCEL,
                AVRO_PARCEL[:-1],
                PROTOBUF_PARCEL,
                framed(4, b"\x02\x08\x0a\x06parcel"),
                gzip.compress(text.encode()),
                text.encode()[:-1],
                framed(2, text.encode()),
                framed(99, text.encode()),
            ),
        ]
    )
)
FORMAT_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "ce_specversion", "ce_id", "ce_type", "ce_source", "__value_schema_id"]),
        st.none()
        | st.binary(max_size=6)
        | st.sampled_from([b"1.0", b"application/json", b"application/cloudevents-batch+json; charset=utf-16"])
        | st.just(b"\x00\x00\x00\x00\x02"),
    ),
    max_size=5,
)


# The attributes of a binary event, sometimes one too few, or written by a client that capitalises headers.
ATTRIBUTES = {"specversion": b"1.0", "id": b"1", "source": b"/shop", "type": b"order.shipped", "kind": b"parcel"}
CE_HEADERS = st.builds(
    lambda names, prefix, others: [(f"{prefix}{name}", ATTRIBUTES[name]) for name in names] + others,
    st.sampled_from([[*ATTRIBUTES], [*ATTRIBUTES][::-1], [*ATTRIBUTES][1:]]),
    st.sampled_from(["ce_", "ce_", "CE_", "ce-"]),
    FORMAT_HEADERS,
)


@pytest.fixture(scope="module")
def of_formats() -> Iterator[tuple[Settings, Formats]]:
    """Return settings with a topic of each format, and a registry that knows schemas 2 to 4."""
    known = {
        2: {"schema": "{}", "schemaType": "JSON"},
        3: {"schema": json.dumps(AVRO)},
        4: {"schema": PROTOBUF, "schemaType": "PROTOBUF"},
    }
    with TestRegistry(known) as registry:
        settings = Settings.model_validate(
            {
                **SETTINGS.model_dump(include={"routes"}, exclude_unset=True),
                "kafka": {"bootstrap.servers": "localhost:9092"},
                "engage": {"connections": {"default": {"base_url": "https://localhost", "api_key": "none"}}},
                "source": {"topics": list(FORMATS), "formats": FORMATS},
                "registry": {"url": registry.url},
            }
        )
        formats, schemas = formats_of(settings, time.time)
        assert schemas is not None
        schemas.fetch("2", framed(2, b"{}"))
        schemas.fetch("3", AVRO_PARCEL)
        schemas.fetch("4", PROTOBUF_PARCEL)
        yield settings, formats


@settings_of_hypothesis(deadline=None)
@given(
    st.sampled_from(list(FORMATS)),
    VALUES | ENCODED,
    HEADERS | FORMAT_HEADERS | CE_HEADERS,
    st.none() | st.binary(max_size=9),
    st.none() | st.integers(0, 2_000_000_000_000),
)
@example("events.framed", AVRO_PARCEL, [], None, None)
@example("events.framed", PROTOBUF_PARCEL, [], None, None)
@example("events.cdc", AVRO_PARCEL, [], b"A-1", 1_793_698_200_000)
@example("events.json", gzip.compress(b'{"kind":"parcel","number":17}'), [], None, None)
@example("events.ce", b"[]", [("content-type", b"application/cloudevents-batch+json")], None, None)
@example("events.ce", None, [(f"ce_{name}", value) for name, value in ATTRIBUTES.items()], None, None)
@example("events.plain", b"A-1;sent", [], None, None)
def test_a_dry_run_decides_as_the_relay_does_in_every_format(
    of_formats: tuple[Settings, Formats],
    topic: str,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    key: bytes | None,
    timestamp_ms: int | None,
) -> None:
    settings, formats = of_formats
    record = SourceEvent(
        topic=topic, partition=0, offset=17, timestamp_ms=timestamp_ms, key=key, value=value, headers=headers
    )
    (verdict,) = judged([record], settings)
    assert told(verdict) == relayed(record, settings, formats)[: 1 if verdict.fate == "waiting" else None]
