"""The events of a schedule, and the routes that take them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from consumer.records import action_key
from consumer.routing import Router, RouteRule, compile_routes

KINDS = ("action", "action", "action", "action", "action", "unrouted", "misrouted", "garbage", "tombstone", "huge")
NATURES = ("missing", "stale", *["ordinary"] * 23)
ROUTES = {
    "resend": RouteRule(
        when="k=='a'", action="ConfirmShipment", order_id="o", version_tag="v", job_id="j", order="d", data="n"
    ),
    "aside": RouteRule(
        when="k=='b'",
        action="ConfirmOrder",
        order_id="o",
        version_tag="v",
        job_id="j",
        data="n",
        on_unknown="dead_letter",
    ),
}
ROUTER = Router(compile_routes(ROUTES), ["default"])


@dataclass(slots=True, eq=False)
class Event:
    """An event, and what Engage and the world know of it."""

    number: int
    partition: int
    kind: str
    order: str
    resend: bool
    value: bytes | None
    ready_at: float
    nature: str  # `missing`: Engage never knows its job; `stale`: it never takes a tag for it
    offset: int = -1
    accepted: int = 0
    sent_under: int = -1  # the delay offset of the intent that it was last sent under
    sent_at: float = 0.0
    unanswered: bool = False  # sent, and no answer was taken in that says what became of it
    ever_in_doubt: bool = False
    told: tuple[str, int] | None = None  # the process and epoch that took its 202 in
    torn: bool = False  # a delayed request committed records of it without their offsets
    deleted: bool = False  # by retention, unread; the operator was told and decided

    @property
    def routed(self) -> bool:
        return self.kind in ("action", "huge")

    @property
    def key(self) -> bytes:
        return action_key(self.offset, "resend" if self.resend else "aside")


def drawn(draw: random.Random, number: int, partitions: int, now: float) -> Event:
    """Draw an event. Those of one order share its partition."""
    order = draw.choice("AB")
    kind = draw.choice(KINDS)
    resend = draw.random() < 0.7
    letter = "a" if resend else "b"
    partition = ord(order) % partitions
    ready_at = now + draw.choice((0.0, 0.0, 5.0, 60.0, 900.0))
    source = draw.choice((f'"j":"job-{number}"', '"v":"tag"', '"q":1', f'"d":{{"n":{number}}}'))
    value: bytes | None = f'{{"k":"{letter}","o":"{order}",{source},"n":{number}}}'.encode()
    match kind:
        case "unrouted":
            value = b'{"k":"x"}'
        case "misrouted":
            value = b'{"k":"a"}'
        case "garbage":
            value = b"\xff"
        case "tombstone":
            value = None
        case "huge":
            value = b'{"k":"%b","o":"%b","v":"tag","n":%d,"x":"%b"}' % (
                letter.encode(), order.encode(), number, b"x" * 25_000,
            )  # fmt: skip
    return Event(number, partition, kind, order, resend, value, ready_at, draw.choice(NATURES))
