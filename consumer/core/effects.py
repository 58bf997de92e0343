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
from schemas.outcome import OutcomeName


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

    `replaces`: it replaces an order that exists already. A redriven event's does so only where it is known to be the
    newest (newest_documents.py). `exists`: the order is known to exist, so it is replaced at once.
    """

    replaces: bool = True
    exists: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The order is changed first. What changes stays in the action's payload until it is sent."""


UNKNOWN = -1
PollTarget = Job | Order | Document | Change
THE_ORDER, THE_DOCUMENT, THE_CHANGE = Order(), Document(), Change()
THE_REDRIVEN_DOCUMENT = Document(replaces=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAction:
    """A routed action, as far as the ledger needs to know it. The ledger never reads `payload`.

    `target`: what to ask for the versionTag, where `version_tag` is none or proves to be stale.

    `event_time`: when the event happened (seconds since 1970), where that is known. `action`: its name.

    `resend`: what the route wants for an unknown outcome, to send again or to dead-letter. `document`: the event
    carries the order document, which can be sent again. `with_document`: the action travels in it.

    `first_offset`: of the event that a redriven one repeats; UNKNOWN where it does not say, None where it was not
    redriven, or sent again by a person. `shadow`: it ends where it would be sent. `fact`: what it must not say twice
    (repeats.py). `asked`: a person asks for it, in the place that it had before.
    """

    route: str
    connection: str
    order_id: str
    payload: bytes = field(repr=False)
    resend: bool = True
    version_tag: str | None = None
    target: PollTarget = THE_ORDER
    document: Document | None = None
    event_time: float | None = None
    with_document: bool = False
    first_offset: int | None = None
    shadow: bool = False
    fact: bytes | None = None
    action: str = ""
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAction:
    """A live record of the delay topic. `sending` is the intent: it is in doubt. Times are seconds since 1970.

    `offset`: see ActionId. `source`: the topic and partition that its event came from.
    `document_sent`: its document or change may have been under way when the record was written.
    `contact_due`: by when its order must have a contact; None before its first 422.
    """

    offset: int
    action: NewAction
    sending: bool
    first_seen: float
    due: float
    attempts: int
    sends: int
    source: Partition | None = None
    document_sent: bool = False
    contact_due: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Write the action's record. With `sending` it is the intent: report `intent_saved` once it is committed.

    `before_document`: the same for a document or a change, whose record is no intent. `doubt`: an earlier send may
    have been processed. `contact_due`: as in LiveAction. `parked_for`: the connection for which the action is parked
    (parking.py): the ledger does not hold it.
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
    contact_due: float | None = None
    doubt: bool = False
    before_document: bool = False
    document_sent: bool = False
    parked_for: str | None = None


class Times(NamedTuple):
    """When what happened to an action, in seconds since 1970. None: it did not happen, or nobody knows when."""

    first_seen: float
    tag_ready: float | None = None
    sent: float | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Write the tombstone: nothing is pending any more. `outcome` says how it ended, `reason` why nothing was sent.

    `payload`: None for a second record of an event, which is no action of its own.
    """

    action_id: ActionId
    route: str
    payload: bytes | None = field(default=None, repr=False)
    times: Times | None = None
    attempts: int = 0
    sends: int = 0
    outcome: OutcomeName = OutcomeName.ACCEPTED
    fact: bytes | None = None
    reason: str | None = None


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
    times: Times
    fact: bytes | None = None


Effect = Save | Close | GiveUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Ask the target for the versionTag.

    `payload` holds the document or the change, where that is the target. `due`: when it was to be asked.
    `ownership_confirmed_at`: for these two, as for an action (`Send`).
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

    `version_tag`: None where the action travels in the order's document, which `document` then says how to send.
    `ownership_confirmed_at`: when its commit last proved that we own the partition.
    `tagged_at`: when its tag was known, or it was ready to be sent without one.
    """

    action_id: ActionId
    order_id: str
    payload: bytes = field(repr=False)
    version_tag: str | None
    ownership_confirmed_at: float
    tagged_at: float
    document: Document = THE_DOCUMENT


Request = Poll | Send
