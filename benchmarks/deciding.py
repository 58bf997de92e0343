"""What it costs to decide over an event: its bytes decoded, its route found, its action made.

    python -m benchmarks.deciding

Prints microseconds of CPU for each kind of event, the best of several rounds. The first is the canonical event.
"""

from __future__ import annotations

import json
import time
from io import SEEK_END, BytesIO

import fastavro
from confluent_kafka.schema_registry import Schema

from consumer.events.deciding import decide
from consumer.events.decoding import Undecodable
from consumer.events.formats.formats import JSON, Formats, Reader, TopicFormat
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.results import Routed, Several
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from consumer.kafka.records import SourceEvent
from consumer.kafka.registry.readers import Fetched, reader_of

ROUNDS, EVENTS = 7, 5_000
AIMS_US = {"canonical": 40.0, "canonical, in Avro": 60.0}

CANONICAL = {
    "version": 1,
    "type": "order.shipped",
    "orderId": "A-1001",
    "occurredAt": "2026-11-03T09:30:00Z",
    "language": "sv-SE",
    "engage": {"jobId": "36a66613-90cf-4456-9ec7-17df396d8aaa"},
    "data": {"trackingNumber": "JJSE00001", "carrier": "PostNord", "trackingUri": "https://tracking.example/JJSE00001"},
}
PARCELS = [{"number": f"P-{number}", "state": "sent", "total": 199.0} for number in range(3)]
OWN = {"kind": "fulfilled", "order": {"number": 1001, "locale": "sv-SE"}, "parcels": PARCELS, "at": 1_793_698_200_000}
RULES = {
    "each": RouteRule(
        when="kind == 'fulfilled' && item.state == 'sent'",
        each="parcels",
        action="ConfirmShipment",
        order_id="order.number",
        event_time="at",
        language="order.locale",
        data="{tracking: item.number}",
    ),
    **BUILT_IN_ROUTES,
}
KINDS: dict[str, tuple[bytes, dict[str, RouteRule]]] = {
    "canonical": (json.dumps(CANONICAL, separators=(",", ":")).encode(), BUILT_IN_ROUTES),
    "canonical, with spaces and escapes": (
        json.dumps({**CANONICAL, "name": "Åsa"}, indent=1).encode(),
        BUILT_IN_ROUTES,
    ),
    "canonical, a price of 199.00": (json.dumps(CANONICAL).replace('"JJSE00001"', "199.00").encode(), BUILT_IN_ROUTES),
    "no route takes it": (b'{"type":"price.changed","sku":"A-1","price":199.0}', BUILT_IN_ROUTES),
    "three parcels by each": (json.dumps(OWN).encode(), RULES),
}


def main() -> None:
    """Print a line for each kind."""
    framed, of_avro = avro()
    for name, (value, rules) in {**KINDS, "canonical, in Avro": (framed, BUILT_IN_ROUTES)}.items():
        formats, aim_us = (of_avro if value is framed else JSON), AIMS_US.get(name)
        router = Router(compile_routes(rules), {"default"})
        record = SourceEvent(
            topic="orders", partition=0, offset=17, timestamp_ms=1_793_698_201_000, key=b"A-1001", value=value
        )
        result = decide(record, router, frozenset(), now=0.0, formats=formats)
        becomes = len(result.actions) if isinstance(result, Several) else int(isinstance(result, Routed))
        us = min(_round(record, router, formats) for _ in range(ROUNDS))
        aim = f" (aim: {aim_us:g})" if aim_us is not None else ""
        print(f"{us:6.1f} us  {name}: {len(value)} bytes, {becomes} actions{aim}")


def avro() -> tuple[bytes, Formats]:
    """Return the canonical event in Avro behind a Schema Registry's frame, and what reads it."""
    text: dict[str, object] = {"type": "map", "values": "string"}
    fields = {**dict.fromkeys(CANONICAL, "string"), "version": "int", "engage": text, "data": text}
    schema = {"type": "record", "name": "Order", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    value = BytesIO(b"\x00\x00\x00\x00\x11")
    value.seek(0, SEEK_END)
    fastavro.schemaless_writer(value, fastavro.parse_schema(schema), CANONICAL)
    reader = reader_of(Fetched(Schema(json.dumps(schema), "AVRO"), {}))

    class Known:
        def reader(self, _: str) -> Reader | Undecodable:
            return reader

    return value.getvalue(), Formats({"orders": TopicFormat(format="confluent")}, Known())


def _round(record: SourceEvent, router: Router, formats: Formats) -> float:
    started = time.process_time()
    for _ in range(EVENTS):
        decide(record, router, frozenset(), now=0.0, formats=formats)
    return (time.process_time() - started) / EVENTS * 1e6


if __name__ == "__main__":
    main()
