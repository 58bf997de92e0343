"""A dead letter: the original record, untouched, with headers that say why it is here.

Key, value and headers are the source record's own; the headers below are added (names start with `engage-relay-`; a
redriven event's earlier ones are replaced). Its timestamp is when it was written, so that retention counts from then.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "engage-relay-"
DETAIL = PREFIX + "detail"
ROUTE = PREFIX + "route"
REDRIVE_OF = PREFIX + "redrive-of"
"""Header of a redriven event: `topic/partition/offset` of the dead letter that it was."""
ITEM = PREFIX + "item"
"""Header of a dead letter, and of its redrive: for which of its event's items it was (a route's `each`), from 0."""
FIRST_OFFSET = PREFIX + "first-offset"
"""Header of a redriven event: the source offset of the event that it repeats, which was not redriven itself."""


class Reason(StrEnum):
    """Why an event became a dead letter, and who acts."""

    UNDECODABLE = "undecodable"  # the sender: not UTF-8, not JSON, too deep, numbers that JSON readers disagree about
    UNKNOWN_SCHEMA = "unknown_schema"  # the sender: the registry has no schema of this id, also after the grace time
    INVALID_EVENT = "invalid_event"  # the sender: a field that the route needs is missing or wrong
    UNKNOWN_CONNECTION = "unknown_connection"  # the operator: the event names a connection that is not configured
    REJECTED = "rejected"  # the sender: Engage refused the action (400, other 4xx)
    NO_CONTACT = "no_contact"  # the sender: the order had no contact within the grace time
    FORBIDDEN = "forbidden"  # the operator: Engage, or a firewall, answered 403 or 401 to this one until the deadline
    POLL_REJECTED = "poll_rejected"  # the sender: Engage refused the question for the tag, or the document
    JOB_FAILED = "job_failed"  # the sender: Engage could not process the order
    NOT_FOUND = "not_found"  # the sender: the order or job never appeared within the grace time
    UNDATED_ORDER = "undated_order"  # the sender: the order has no lastChangedAt, which `newer_than` needs
    STALE_TAG = "stale_tag"  # the sender: Engage kept answering 404 to the newest tag
    DEADLINE = "deadline"  # the operator: not ready, or not delivered, within the deadline
    OUTCOME_UNKNOWN = "outcome_unknown"  # a person: it may have been processed, whatever ended it
    UNREADABLE_PENDING = "unreadable_pending"  # the operator: a record of the delay topic that cannot be read
    TOO_OLD = "too_old"  # a person: the event is older than `max_age`; redriven, it is sent
    TOO_LARGE = "too_large"  # the operator: the broker refuses a pending record of this size


class DeadLetterHeaders(BaseModel):
    """The headers that a dead letter adds; all values are UTF-8 text."""

    model_config = ConfigDict(frozen=True)

    reason: Reason
    detail: str = Field("", description="One line: what was wrong and where (names fields, never their contents).")
    errors: str | None = Field(None, description="Engage's own error list, JSON, as it was answered (cut at 8 KiB).")
    source_topic: str
    source_partition: int
    source_offset: int
    source_incarnation: int | None = Field(
        None, description="How many topics were the source before the one of this offset; absent: none."
    )
    source_timestamp_ms: int | None = Field(
        None, description="The source record's own time: milliseconds since 1970 (UTC). The dead letter's is its own."
    )
    item: int | None = Field(None, description="For which of its event's items, from 0; absent: for the event.")
    route: str | None = None
    action: str | None = None
    connection: str | None = None
    attempts: int = Field(0, description="Polls answered.")
    sends: int = Field(0, description="Times that the action was sent.")
    failed_at_ms: int = Field(description="Milliseconds since 1970 (UTC).")

    def to_kafka(self) -> list[tuple[str, bytes]]:
        """Return the headers as Kafka takes them: `engage-relay-source-offset: b"17"`; absent ones are left out."""
        return [
            (PREFIX + name.replace("_", "-"), str(value).encode())
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        ]

    @classmethod
    def from_kafka(cls, headers: Iterable[tuple[str, bytes | None]]) -> DeadLetterHeaders:
        """Read them back. Raises pydantic.ValidationError where they are not a dead letter's."""
        return cls.model_validate(
            {
                name.removeprefix(PREFIX).replace("-", "_"): value.decode(errors="replace")
                for name, value in headers
                if name.startswith(PREFIX) and value is not None
            }
        )
