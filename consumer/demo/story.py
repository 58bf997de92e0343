"""The story that the demo tells: which events come when. The same seed tells the same story.

Rules:
 1. An order's events come in their natural order; different orders' lives overlap.
 2. Every event with an action carries its own number in `data`, which Engage gets as it is: so each acceptance tells
    which event it was for.
 3. Beside the good events there is a bit of all that a source topic holds: events that nobody can use, events that
    no route wants, tombstones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from schemas.engage import ActionName
from schemas.order_event import OrderEventType

T = TypeVar("T")

Kind = Literal["action", "unusable", "unrouted", "tombstone"]
TagFrom = Literal["job", "order", "document", "no tag"]

EVENT_NUMBER = "demoEvent"
"""Key in an event's `data`."""
WITH_DOCUMENT = "with the document"
ROUTES = {
    "with-document": {
        "when": f"send == '{WITH_DOCUMENT}'",
        "action": "Custom",
        "action_name": "action",
        "order": "order",
        "send": "with_document",
        "language": "language",
        "data": "data",
    }
}
"""The demo's own route, before the built-in ones, as a user would write it."""

ACTIONS: dict[OrderEventType, ActionName] = {
    "order.confirmed": "ConfirmOrder",
    "order.shipped": "ConfirmShipment",
    "order.delivered": "ConfirmDelivery",
    "order.cancelled": "ConfirmCancellation",
    "order.completed": "ConfirmCompletion",
    "order.custom": "Custom",
}

_LIVES: tuple[tuple[float, tuple[OrderEventType, ...]], ...] = (
    (0.66, ("order.confirmed", "order.shipped", "order.delivered", "order.completed")),
    (0.16, ("order.confirmed", "order.cancelled")),
    (0.10, ("order.confirmed", "order.custom", "order.shipped", "order.delivered", "order.completed")),
    (0.08, ("order.confirmed", "order.shipped")),
)
_TAGS_FROM: tuple[tuple[float, TagFrom], ...] = ((0.84, "job"), (0.07, "order"), (0.05, "document"), (0.04, "no tag"))
_WITHOUT_CONTACT = 0.02  # of the orders: Engage answers 422 to each of their actions
_ODD = 0.025  # of each odd kind, for each order
_BETWEEN_S = (1.5, 3.0)  # two events of one order
_CARRIERS = ("PostNord", "DHL", "Budbee", "Instabox")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `at_s` counts from the story's beginning.

    `submits`: the platform submits the order to Engage just before, and the event carries the job's id where
    `tag_from` says so. `contact`: whether the order has one. `no tag`: the action travels in the order's document.
    """

    number: int
    at_s: float
    order_id: str
    kind: Kind
    type: OrderEventType | None = None
    tag_from: TagFrom = "job"
    contact: bool = True
    odd: bytes | None = field(default=None, repr=False)

    @property
    def action(self) -> ActionName | None:
        """Return the action that the event shall become."""
        return None if self.type is None else ACTIONS[self.type]

    @property
    def submits(self) -> bool:
        """Tell whether the platform submits the order before it publishes this event."""
        return self.kind == "action" and self.tag_from in ("job", "order")

    @property
    def registers_contact(self) -> bool:
        """Tell whether the platform registers the contact first, without which Engage ignores a document's action."""
        return self.tag_from == "no tag"

    def value(self, job_id: str | None) -> bytes | None:
        """Return the record's value."""
        if self.kind != "action":
            return self.odd
        event: dict[str, object] = {
            "type": self.type,
            "orderId": self.order_id,
            "language": "sv-SE",
            "data": {EVENT_NUMBER: self.number, "carrier": _CARRIERS[self.number % len(_CARRIERS)]},
        }
        if self.tag_from == "job" and job_id is not None:
            event["engage"] = {"jobId": job_id}
        elif self.tag_from in ("document", "no tag"):
            contact = {"contact": {"matchKey": "customer@example.com", "matchKeyType": "Email"}}
            event["order"] = {"orderId": self.order_id, "status": self.type} | (contact if self.contact else {})
        if self.tag_from == "no tag":
            event |= {"send": WITH_DOCUMENT, "action": self.action}
        return json.dumps(event).encode()


def tell(
    orders: int, seed: int, prefix: str, *, orders_per_second: float, tag_from: TagFrom | None = None
) -> list[Event]:
    """Return the story of so many orders, in the order of time. `tag_from` makes all events alike in that."""
    chance = random.Random(seed)  # noqa: S311 - a story, no secret
    events = [
        event
        for number in range(orders)
        for event in _life(f"{prefix}-{number + 1}", number / orders_per_second, chance, tag_from)
    ]
    events.sort(key=lambda event: event.at_s)  # stable, and an order's own times grow: rule 1
    return [replace(event, number=number) for number, event in enumerate(events)]


def _life(order_id: str, begins_s: float, chance: random.Random, tag_from: TagFrom | None) -> Iterator[Event]:
    at_s = begins_s
    drawn: TagFrom = _drawn(_TAGS_FROM, chance)
    contact = chance.random() >= _WITHOUT_CONTACT or drawn == "no tag"
    for type_ in _drawn(_LIVES, chance):
        yield Event(
            number=0,
            at_s=at_s,
            order_id=order_id,
            kind="action",
            type=type_,
            tag_from=tag_from or drawn,
            contact=contact,
        )
        at_s += chance.uniform(*_BETWEEN_S)
    for kind in ("unusable", "unrouted", "tombstone"):
        if chance.random() < _ODD:
            yield Event(number=0, at_s=at_s, order_id=order_id, kind=kind, odd=_odd(kind, order_id, chance))


def _odd(kind: Kind, order_id: str, chance: random.Random) -> bytes | None:
    if kind == "tombstone":
        return None
    if kind == "unrouted":
        return json.dumps({"type": "order.note-added", "orderId": order_id}).encode()
    return chance.choice(
        (
            b'{"type": "order.confirmed", "orderId": "cut o',
            b"\xff\xfe not even text",
            json.dumps({"type": "order.confirmed"}).encode(),
            json.dumps({"type": "order.shipped", "orderId": 17}).encode(),
            json.dumps({"type": "order.shipped", "orderId": order_id, "engage": {"connection": "nowhere"}}).encode(),
        )
    )


def _drawn(weighted: tuple[tuple[float, T], ...], chance: random.Random) -> T:
    share = chance.random()
    for weight, each in weighted:
        share -= weight
        if share < 0:
            return each
    return weighted[-1][1]
