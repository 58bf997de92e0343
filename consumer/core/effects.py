"""What the ledger is told and what it answers: its whole vocabulary, free of Kafka, HTTP and state.

Told: `NewAction` (an event was routed), `RestoredAction` (the delay topic still held it).
Answered, for the journal, to be written in the order in which they come: `Save`, `Close`, `GiveUp`.
Fetched, for Engage: `Poll`, `Send`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from consumer.core.ownership import Assignment
from schemas.dead_letter import Reason


class ActionId(NamedTuple):
    """One action: at most one per event, so the event's offset names it."""

    assignment: Assignment
    offset: int


@dataclass(frozen=True, slots=True)
class NewAction:
    """A routed action, as far as the ledger needs to know it. `payload` is carried along unread.

    `resend`: what the route wants for an unknown outcome, to send again or to set aside. `document`: the event
    carries the order document, which can be sent again.
    """

    route: str
    connection: str
    order_id: str
    payload: bytes = field(repr=False)
    resend: bool = True
    version_tag: str | None = None
    job_id: str | None = None
    document: bool = False


@dataclass(frozen=True, slots=True)
class RestoredAction:
    """A live record of the delay topic. `sending` is the intent: it is in doubt. Times are seconds since 1970."""

    offset: int
    action: NewAction
    sending: bool
    first_seen: float
    due: float
    attempts: int
    sends: int


@dataclass(frozen=True, slots=True)
class Save:
    """Write the action's record. With `sending` it is the intent: report `intent_saved` once it is committed.

    `doubt`: an earlier send may have been processed.
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


@dataclass(frozen=True, slots=True)
class Close:
    """Write the tombstone: nothing is owed any more."""

    action_id: ActionId
    route: str


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask for the versionTag: of the job, where there is one; `ask_order`: only the order itself knows better.

    `due`: when it was to be asked.
    """

    action_id: ActionId
    order_id: str
    payload: bytes = field(repr=False)
    job_id: str | None
    ask_order: bool
    due: float


@dataclass(frozen=True, slots=True)
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
