"""What a call to Engage came to: one typed outcome per call, never a bare exception.

The edge (`engage/meanings.py`) decides which; the ledger decides what follows. `why` is one line for a log or a header:
it names what happened, never contents.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ready:
    """The order's latest version is processed; here is its versionTag."""

    version_tag: str


@dataclass(frozen=True, slots=True)
class NotReady:
    """Not processed yet. `status`: the job's word for it, where it said one (A-Z, a-z, digits, `_` and `-` only).

    `why`: what the deadline's dead letter says of it.
    """

    status: str | None = field(default=None, compare=False)
    why: str = field(default="not processed", compare=False)


@dataclass(frozen=True, slots=True)
class Undated:
    """The order says no readable `lastChangedAt`: whether it is newer than asked for will never be known."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """404 to a poll or to a change: the job or order is not there (yet)."""


@dataclass(frozen=True, slots=True)
class JobFailed:
    """Engage could not process the order: it will never have this version."""

    why: str
    errors: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentTaken:
    """202 to the order document or to a change: this job processes it (no id: poll the order itself)."""

    job_id: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """202 to an action: its status line is enough. Done."""


@dataclass(frozen=True, slots=True)
class AcceptedUndocumented(Accepted):
    """Another 2xx with JSON. Done as well, and counted apart, as Engage documents 202 only."""


@dataclass(frozen=True, slots=True)
class StaleTag:
    """404 to an action: order unknown or tag out of date (Engage does not say which)."""


@dataclass(frozen=True, slots=True)
class NoContact:
    """422 to an action: the order has no contact yet. Contacts are synchronised apart from orders, and may come."""

    errors: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """400 or another 4xx: it would be refused again. `errors` is Engage's own list (JSON text, cut)."""

    status: int
    why: str
    errors: str | None = None


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The connection's key is refused: 401, or 403 to other requests, too. An operator's error, not the event's.

    Status 0: Engage was not asked, because the key cannot be read.
    """

    status: int


@dataclass(frozen=True, slots=True)
class Forbidden:
    """403: the key is refused, or this one request is (a firewall's false positive). Other requests' answers tell.

    401 where they told that it is this one request: again and again, while others were served (pacing.py rule 6).
    """

    status: int = 403


@dataclass(frozen=True, slots=True)
class Throttled:
    """408 or 429: not processed. Try again after `retry_after_s` seconds, if Engage named a time.

    `answered`: 408, which may be this request's own problem and last for ever; 429 is the connection's.
    """

    retry_after_s: float | None = None
    answered: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Certainly not processed, or harmless to repeat: could not connect; for polls also every other failure.

    `answered`: Engage was there and gave an answer that is of no use (500, not JSON, too long, a redirect to nowhere),
    which may be this order's own problem and last for ever. `may_be_processed`: Engage may still be at work on a
    document or a change, although somebody answered, or nobody.
    """

    why: str
    retry_after_s: float | None = None
    answered: bool = field(default=False, compare=False)
    may_be_processed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class InDoubt:
    """An action that may have been processed: no readable answer after it was (or may have been) written.

    `retry_after_s`: how long to wait before anything else, where told.
    """

    why: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class OrderExists:
    """409 to a posted document, which was no longer ours to send then: the next request of it replaces the order."""


@dataclass(frozen=True, slots=True)
class OrderKept:
    """409 to the posted document of a redriven event that must not replace an order: the order stays as it is."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Not sent: at the last moment it was no longer ours to send."""


def was_asked(outcome: object) -> bool:
    """Tell whether Engage was asked at all: what never left says nothing of it."""
    return not isinstance(outcome, Withdrawn) and not (isinstance(outcome, Rejected) and outcome.status == 0)


PollOutcome = (
    Ready | NotReady | NotFound | Undated | JobFailed | Rejected | Unauthorized | Forbidden | Throttled | Unavailable
)
DocumentOutcome = (
    DocumentTaken
    | OrderExists
    | OrderKept
    | NotFound
    | JobFailed
    | Rejected
    | Unauthorized
    | Forbidden
    | Throttled
    | Unavailable
    | Withdrawn
)
ActionOutcome = (
    Accepted
    | AcceptedUndocumented
    | StaleTag
    | NoContact
    | Rejected
    | Unauthorized
    | Forbidden
    | Throttled
    | Unavailable
    | InDoubt
    | Withdrawn
)
WithDocumentOutcome = (
    DocumentTaken
    | OrderExists
    | OrderKept
    | JobFailed
    | NoContact
    | Rejected
    | Unauthorized
    | Forbidden
    | Throttled
    | Unavailable
    | InDoubt
    | Withdrawn
)
SendOutcome = ActionOutcome | WithDocumentOutcome
Outcome = PollOutcome | DocumentOutcome | SendOutcome
