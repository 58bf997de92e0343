"""What goes into the ledger and what comes out of it. Nothing here knows of Kafka or HTTP, or has state.

In: `NewAction` (from an event that was routed), `LiveAction` (from a record that the delay topic still held).
Out, for the journal, to be written in the order in which they are returned: `Save`, `Close`, `GiveUp`.
Out, for Engage, fetched with `take`: `Poll`, `Send`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from consumer.core.ownership import Assignment, Partition
from schemas.dead_letter import Reason


class ActionId(NamedTuple):
    """One action: at most one per event, so the event's place names it.

    `offset` is that place (places.py): for a source that was recreated, more than the offset in its topic.
    """

    assignment: Assignment
    offset: int


@dataclass(frozen=True, slots=True)
class Job:
    """The versionTag comes from this job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """The versionTag comes from the order itself, once that was changed after `newer_than`."""

    newer_than: datetime | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The order's document is posted first. It stays in the action's payload until it is sent.

    `replaces`: it replaces an order that exists already. A redriven event's does not: a newer one may have been sent.
    `exists`: the order is known to exist, so it is replaced at once.
    """

    replaces: bool = True
    exists: bool = False


PollTarget = Job | Order | Document
THE_ORDER, THE_DOCUMENT = Order(), Document()
THE_REDRIVEN_DOCUMENT = Document(replaces=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAction:
    """A routed action, as far as the ledger needs to know it. The ledger never reads `payload`.

    `target`: what to ask for the versionTag, where `version_tag` is none or proves to be stale.

    `resend`: what the route wants for an unknown outcome, to send again or to dead-letter. `document`: the event
    carries the order document, which can be sent again.
    """

    route: str
    connection: str
    order_id: str
    payload: bytes = field(repr=False)
    resend: bool = True
    version_tag: str | None = None
    target: PollTarget = THE_ORDER
    document: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAction:
    """A live record of the delay topic. `sending` is the intent: it is in doubt. Times are seconds since 1970.

    `offset`: see ActionId. `source`: the topic and partition that its event came from.
    """

    offset: int
    action: NewAction
    sending: bool
    first_seen: float
    due: float
    attempts: int
    sends: int
    source: Partition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Write the action's record. With `sending` it is the intent: report `intent_saved` once it is committed.

    `before_document`: the same for a document, whose record is no intent. `doubt`: an earlier send may have been
    processed.
    """

    action_id: ActionId
    route: str
    payload: bytes = field(repr=False)
    sending: bool
    first_seen: float
    due: float
    attempts: int
    sends: int
    version_tag: str | None
    job_id: str | None
    doubt: bool = False
    before_document: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Write the tombstone: nothing is pending any more."""

    action_id: ActionId
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Write the dead letter and the tombstone, in one transaction."""

    action_id: ActionId
    route: str
    payload: bytes = field(repr=False)
    reason: Reason
    detail: str
    errors: str | None
    attempts: int
    sends: int


Effect = Save | Close | GiveUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Ask the target for the versionTag.

    `payload` holds the document, where that is the target. `due`: when it was to be asked.
    `ownership_confirmed_at`: for a document, as for an action (`Send`).
    """

    action_id: ActionId
    order_id: str
    payload: bytes = field(repr=False)
    target: PollTarget
    due: float
    ownership_confirmed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send the action: its intent is saved.

    `ownership_confirmed_at`: when its commit last proved that we own the partition.
    `tagged_at`: when its tag was known.
    """

    action_id: ActionId
    order_id: str
    payload: bytes = field(repr=False)
    version_tag: str
    ownership_confirmed_at: float
    tagged_at: float


Request = Poll | Send
