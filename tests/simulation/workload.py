"""The events of a schedule, and the routes that take them."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from consumer.core.ownership import Assignment
from consumer.core.places import place_of
from consumer.events.routing.results import Misrouted, Routed, RouteTrace, Several, Unrouted
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.source_events import SourceEvent
from schemas.dead_letter import FIRST_OFFSET, ITEM, REDRIVE_OF
from tests.simulation.process import TOPICS

if TYPE_CHECKING:
    from tests.simulation.kafka_model import Record
    from tests.simulation.process import Process

T = TypeVar("T")
REDRIVEN_ELSEWHERE = "redriven elsewhere"  # from a dead letter of another relay
KINDS = ("action", "action", "action", "action", "action", "unrouted", "misrouted", "garbage", "tombstone", "huge")
# missing: Engage never knows its job; stale: it never takes a tag for it; forbidden: a firewall lets none of it pass;
# slow: a gateway answers its document before Engage has applied it, each time.
NATURES = ("missing", "stale", "forbidden", "no contact", "late contact", "late contact", *["ordinary"] * 23)
# Where its tag comes from: a job, the event itself, the order (as it is after some time), a document, a change.
SOURCES = (
    *('"j":"job-N"', '"v":"tag"', '"d":{"n":N}') * 3,
    '"c":{"n":N}',
    *('"q":1', '"q":1', '"q":1,"t":"2100-01-01T00:00:00Z"'),
)
ITEM_SOURCES = ('"j":"job-N"', '"v":"tag"', '"q":1')
NATURES_OF_ITEMS = ("missing", "stale", "no contact", "late contact", *["ordinary"] * 12)
TRAVELS = 0.2  # of the actions with a document
CONTACT_IN_S = (5.0, 40.0, 100.0)
READY_IN_S = (0.0, 0.0, 5.0, 60.0, 900.0)
AHEAD_S = (0.0, 0.0, 0.0, 3600.0, 1e8)
OF_ORDER = "o=='C' && 'other' || 'default'"
ROUTES = {
    "resend": RouteRule(
        when="k=='a'",
        action="ConfirmShipment",
        order_id="o",
        version_tag="v",
        job_id="j",
        order="d",
        change_status="c",
        newer_than="t",
        data="n",
        fact="f",
        connection=OF_ORDER,
    ),
    "with_document": RouteRule(
        when="k=='w'",
        action="ConfirmOrder",
        order_id="o",
        order="d",
        send="with_document",
        data="n",
        fact="f",
        connection=OF_ORDER,
    ),
    "dead_letter": RouteRule(
        when="k=='b'",
        action="ConfirmOrder",
        order_id="o",
        version_tag="v",
        job_id="j",
        data="n",
        fact="f",
        connection=OF_ORDER,
        on_unknown="dead_letter",
    ),
    "each": RouteRule(
        each="items[]",
        when="item.n",
        action="ConfirmShipment",
        order_id="item.o",
        version_tag="item.v",
        job_id="item.j",
        data="item.n",
        connection="item.o=='C' && 'other' || 'default'",
    ),
}


CONNECTIONS = ("default", "other")
WINDOW_S = 100.0  # of repeats
AGAIN_IN_S = (0.0, 0.1, 5.0, 40.0, 90.0, 99.0, 101.0, 110.0, 150.0, 210.0)
NATURES_AGAIN = ("missing", "stale", *["ordinary"] * 6)
FACTS = 2  # that an order has of each action


_About = tuple[bytes | None, int | None, bytes | None]


class RememberingRouter:
    """The Router, which is a function of the event, its record's time and the item that was redriven alone here."""

    def __init__(self, repeats_s: float | None = None) -> None:
        self._router = Router(compile_routes(ROUTES, repeats_s=repeats_s), CONNECTIONS)
        self.tombstones, self.shadow = self._router.tombstones, self._router.shadow
        self._known: dict[_About, Routed | Several | Unrouted | Misrouted] = {}

    def route(
        self,
        event: object,
        record: SourceEvent,
        trace: list[RouteTrace] | None = None,
        *,
        record_name: str | None = None,
    ) -> Routed | Several | Unrouted | Misrouted:
        assert record_name is None  # its events are JSON
        item = next((value for name, value in record.headers if name == ITEM), None)
        about = (record.value, record.timestamp_ms, item)
        known = self._known.get(about)
        if known is None:
            if len(self._known) > 10_000:
                self._known.clear()
            known = self._known[about] = self._router.route(event, record, trace)
        return known


ROUTER = RememberingRouter()
ROUTER_ONCE = RememberingRouter(WINDOW_S)


@dataclass(slots=True, eq=False, kw_only=True)
class Event:
    """An event, and what Engage and the simulation know of it."""

    number: int
    kind: str
    order: str
    resend: bool
    value: bytes | None
    ready_at: float
    nature: str  # one of NATURES
    item: int | None = None  # it is one of its record's items: the leader for the first, its followers for the others
    followers: list[Event] = field(default_factory=list)
    leads: bool = True
    document: bool = False  # it carries its order's document, or a change of it
    travels: bool = False  # its action travels in the document
    job_failed: bool = False  # Engage gave its document's job up
    struck: bool = False  # a hand-over came while its document was under way at its deadline
    taken: bool = False  # it travels, and its record says that Engage took its document
    first: Event | None = None  # the one that it repeats: it was redriven
    says_first: bool = True  # where that one lay
    redriven: bool = False  # its dead letter was
    withheld: bool = False  # its outcome says so, or that it was dropped
    round: int = 0  # how often it was sent again, as a person asked
    document_applied: bool = False
    fact: tuple[str, str, int] | None = None  # of those that are sent once: order, action and what tells it apart
    ended_at: float | None = None  # as its outcome says
    sent_and_ended_at: float | None = None  # where its outcome says that it was sent, perhaps in doubt
    says_sending: bool = False  # the last record of its action is an intent
    is_repeat: bool = False  # as its outcome says
    dead_letters: str = TOPICS.dead_letters  # where the one lay that it redrives
    frees_fact: bool = False  # as its outcome says
    ever_bereft: bool = False
    bereft_at: float = -math.inf
    drawn_at: float = 0.0  # before it was published
    contact_at: float = 0.0  # when its order gets a contact
    first_seen: float = math.inf  # when it was first read, as its records say
    # By process and epoch: how often it was polled after its deadline. Who restores it begins to count again.
    late_polls: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused_late: int = 0  # how often Engage said so after the grace
    refused_at: float | None = None  # when Engage first said that its order has no contact
    ahead_s: float = 0.0  # how far its own clock was ahead
    partition: int = -1
    offset: int = -1
    place: int = -1
    index: int = -1  # how many events came before it in its partition, those of the former topic included
    key: bytes = b""  # its action's in the delay topic
    accepted: int = 0
    sent_under: int = 0  # which of its intents it was last sent under: they are numbered by `sends`
    sent_at: float = 0.0
    unanswered: bool = False  # sent, and no answer was taken in that says what became of it
    ever_in_doubt: bool = False
    told: tuple[str, int] | None = None  # the process and epoch that took its 202 in
    torn: bool = False  # a delayed request committed its record without its offset
    torn_dead_letters: int = 0  # and so many dead letters
    deleted: bool = False  # by retention, unread; the operator was told and decided
    bereft: bool = False  # its record was deleted together with the delay topic,
    gone_intent: Record | None = None  # as was this intent,
    gone_dead_letter: bool = False  # or its dead letter, which was refused and frees its successor all the same,
    holder: tuple[Process, Assignment] | None = None  # and this process has it in memory
    payload: bool = field(init=False)
    is_ignored: bool = field(init=False)

    def __post_init__(self) -> None:
        self.payload = self.kind in ("action", "huge")
        self.is_ignored = self.kind in ("unrouted", "tombstone", REDRIVEN_ELSEWHERE)

    @property
    def route(self) -> str:
        """The one that takes it."""
        if self.item is not None:
            return "each"
        return "with_document" if self.travels else "resend" if self.resend else "dead_letter"

    @property
    def version(self) -> int:
        """Its document's: where it lay when it came for the first time."""
        return (self.first or self).place

    @property
    def headers(self) -> list[tuple[str, bytes | str | None]]:
        """Return those of a redriven event."""
        if self.first is None and self.kind != REDRIVEN_ELSEWHERE:
            return []
        of = (self.first or self).partition
        named: tuple[str, bytes | str | None] = (REDRIVE_OF, f"{self.dead_letters}/{of}/0".encode())
        if self.item is not None:
            return [named, (ITEM, b"%d" % self.item)]
        if self.first is None:
            return [named]
        return [named, (FIRST_OFFSET, b"%d" % (self.first or self).offset)] if self.says_first else [named]

    def begin_again(self) -> None:
        """A person has it sent again: nothing of its former life counts, save what Engage was given of its document."""
        self.round += 1
        self.accepted = self.sent_under = self.refused_late = self.torn_dead_letters = 0
        self.unanswered = self.ever_in_doubt = self.withheld = self.torn = self.taken = self.bereft = self.deleted = (
            False
        )
        self.told = self.refused_at = self.ended_at = self.gone_intent = self.holder = None
        self.gone_dead_letter = False
        self.sent_at, self.first_seen = 0.0, math.inf
        self.late_polls.clear()

    def lie(self, partition: int, incarnation: int, offset: int) -> None:
        """It was published, and lies there, in the source of this incarnation."""
        self.partition, self.offset, self.place = partition, offset, place_of(incarnation, offset, self.item or 0)
        self.key = action_key(self.place, self.route)


def redriven(event: Event, number: int, now: float, *, says_first: bool) -> Event:
    """Return the redrive of an event with a document. The number is its own: Engage tells events apart by it."""
    event.redriven = True
    value = (event.value or b"").replace(b'"n":%d}' % event.number, b'"n":%d}' % number)
    return Event(
        number=number,
        kind=event.kind,
        order=event.order,
        resend=event.resend,
        value=value,
        ready_at=now,
        document=True,
        travels=event.travels,
        nature="ordinary",
        fact=event.fact,
        first=event.first or event,
        says_first=says_first and event.says_first,
    )


def redriven_item(event: Event, number: int, now: float) -> Event:
    """Return the redrive of one item's dead letter: the whole event again, and which item it is for."""
    event.redriven = True
    return Event(
        number=number,
        kind=event.kind,
        order=event.order,
        resend=True,
        value=re.sub(rb'("n":|"job-)%d\b' % event.number, rb"\g<1>%d" % number, event.value or b""),
        ready_at=now,
        nature="ordinary",
        drawn_at=now,
        item=event.item,
        first=event.first or event,
    )


def with_fact(event: Event, number: int) -> Event:
    """Let an event be of this fact of its order."""
    if event.kind == "action" and event.value is not None:
        event.value = event.value.replace(b',"n":', b',"f":%d,"n":' % number)
        event.fact = (event.order, "ConfirmShipment" if event.value.startswith(b'{"k":"a"') else "ConfirmOrder", number)
    return event


def again(event: Event, number: int, now: float, *, nature: str, redriven: bool) -> Event:
    """Return what a producer writes who writes an event twice, or a person who redrives its dead letter.

    The number is its own: Engage tells events apart by it.
    """
    event.redriven |= redriven
    return Event(
        number=number,
        kind=event.kind,
        order=event.order,
        resend=event.resend,
        value=re.sub(rb'("n":|"job-)%d\b' % event.number, rb"\g<1>%d" % number, event.value or b""),
        ready_at=now,
        document=event.document,
        travels=event.travels,
        nature=nature,
        drawn_at=now,
        fact=event.fact,
        first=(event.first or event) if redriven else None,
    )


def redriven_elsewhere(event: Event, number: int, dead_letters: str) -> Event:
    """Return the redrive of what another relay has made a dead letter of, in its topic."""
    twin = again(event, number, 0.0, nature="ordinary", redriven=False)
    twin.kind, twin.dead_letters, twin.partition = REDRIVEN_ELSEWHERE, dead_letters, event.partition
    twin.__post_init__()
    return twin


def superseding(event: Event, number: int, now: float) -> Event:
    """Return a document with an action in it, of the same order as this event's."""
    return Event(
        number=number,
        kind="action",
        order=event.order,
        resend=True,
        value=f'{{"k":"w","o":"{event.order}","d":{{"n":{number}}},"n":{number}}}'.encode(),
        travels=True,
        ready_at=now,
        document=True,
        nature="ordinary",
        drawn_at=now,
    )


def with_document(draw: random.Random, number: int, now: float) -> Event:
    """Draw an event that carries its order's document, or a change of it."""
    pick = partial(_pick, draw.random)
    order = pick("AAAB")
    route, source = pick((("w", "d"), ("w", "d"), ("a", "c"), ("a", "d"), ("a", "d"), ("a", "d"), ("a", "d")))
    travels = route == "w"
    return Event(
        number=number,
        kind="action",
        order=order,
        resend=True,
        value=f'{{"k":"{route}","o":"{order}","{source}":{{"n":{number}}},"n":{number}}}'.encode(),
        travels=travels,
        ready_at=now + pick((0.0, 0.0, 0.0, 60.0)),
        document=True,
        nature=pick(("slow", *["ordinary"] * 7)),
    )


def with_items(draw: random.Random, number: int, now: float) -> Event:
    """Draw an event with several items. Some are nobody's; where one cannot be used, the whole event cannot."""
    pick = partial(_pick, draw.random)
    orders = pick(("A", "A", "AB", "AC"))
    found: list[Event] = []
    items: list[str] = []
    for item in range(pick((1, 2, 2, 3, 3, 4))):
        if draw.random() < 0.15:
            items.append("{}")
            continue
        own = number + len(found)
        items.append(f'{{"o":"{pick(orders)}",{pick(ITEM_SOURCES).replace("N", str(own))},"n":{own}}}')
        ready_at = now + pick(READY_IN_S)
        nature = pick(NATURES_OF_ITEMS)
        found.append(
            Event(
                number=own,
                kind="action",
                order=items[-1][6],
                resend=True,
                value=None,
                ready_at=ready_at,
                nature=nature,
                drawn_at=now,
                contact_at={"no contact": math.inf, "late contact": ready_at + pick(CONTACT_IN_S)}.get(nature, 0.0),
                ahead_s=pick(AHEAD_S),
                item=item,
                leads=not found,
            )
        )
    kind = pick((*["action"] * 5, "huge", "misrouted")) if found else "unrouted"
    if kind == "misrouted":
        items.insert(pick(range(len(items))), '{"n":0}')
    padding = f',"x":"{"x" * 2_000}"' if kind == "huge" else ""
    value = f'{{"k":"e","items":[{",".join(items)}]{padding}}}'.encode()
    if kind in ("unrouted", "misrouted"):
        return Event(number=number, kind=kind, order="A", resend=True, value=value, ready_at=now, nature="ordinary")
    for each in found:
        each.kind, each.value = kind, value
    found[0].followers = found[1:]
    return found[0]


def drawn(
    draw: random.Random,
    number: int,
    now: float,
    *,
    orders: str = "AB",
    kinds: Sequence[str] = KINDS,
    natures: Sequence[str] = NATURES,
) -> Event:
    """Draw an event."""
    pick = partial(_pick, draw.random)
    order = pick(orders)
    kind = pick(kinds)
    resend = draw.random() < 0.7
    dead_letter = "a" if resend else "b"
    source = pick(SOURCES).replace("N", str(number))
    document = kind == "action" and resend and source.startswith(('"d"', '"c"'))
    travels = document and '"d"' in source and draw.random() < TRAVELS
    route = "w" if travels else dead_letter
    value: bytes | None = f'{{"k":"{route}","o":"{order}",{source},"n":{number}}}'.encode()
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
                dead_letter.encode(), order.encode(), number, b"x" * 2_000,
            )  # fmt: skip
    ready_at = now + pick(READY_IN_S)
    nature = pick(natures)
    if nature == "forbidden" and number > 0:
        nature = "ordinary"  # two of them would be the key's
    return Event(
        number=number,
        kind=kind,
        order=order,
        resend=resend,
        value=value,
        ready_at=ready_at,
        document=document,
        travels=travels,
        nature=nature,
        drawn_at=now,
        contact_at={"no contact": math.inf, "late contact": ready_at + pick(CONTACT_IN_S)}.get(nature, 0.0),
        ahead_s=pick(AHEAD_S),
    )


def _pick(random: Callable[[], float], of: Sequence[T]) -> T:
    return of[int(random() * len(of))]
