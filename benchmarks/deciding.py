"""What it costs to decide over an event: its bytes decoded, its route found, its action made.

    python -m benchmarks.deciding

Prints microseconds of CPU for each kind of event, the best of several rounds. The first is the canonical event.
"""

from __future__ import annotations

import json
import time

from consumer.events.deciding import decide
from consumer.events.routing import BUILT_IN_ROUTES, Routed, Router, RouteRule, Several, compile_routes
from consumer.kafka.records import SourceEvent

ROUNDS, EVENTS = 7, 5_000
AIM_US = 40.0

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
    for name, (value, rules) in KINDS.items():
        router = Router(compile_routes(rules), {"default"})
        record = SourceEvent(
            topic="orders", partition=0, offset=17, timestamp_ms=1_793_698_201_000, key=b"A-1001", value=value
        )
        result = decide(record, router, frozenset(), now=0.0)
        becomes = len(result.actions) if isinstance(result, Several) else int(isinstance(result, Routed))
        us = min(_round(record, router) for _ in range(ROUNDS))
        aim = f" (aim: {AIM_US:g})" if name == "canonical" else ""
        print(f"{us:6.1f} us  {name}: {len(value)} bytes, {becomes} actions{aim}")


def _round(record: SourceEvent, router: Router) -> float:
    started = time.process_time()
    for _ in range(EVENTS):
        decide(record, router, frozenset(), now=0.0)
    return (time.process_time() - started) / EVENTS * 1e6


if __name__ == "__main__":
    main()
