"""Requests: what a person asks for one action, and what is said to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from consumer.core.places import place_of

What = Literal["send_again", "retry_now", "drop"]


class DeadLetterId(NamedTuple):
    """Where a dead letter lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request about the action of the event that lies at topic, partition, offset and incarnation.

    `item`: which of its event's. `route`: which must take it; None: any. `dead_letter`: whose event is sent; None: the
    one in the source. `asked_by`: the command. `asked`: when, in seconds since 1970.
    """

    id: str
    what: What
    topic: str
    partition: int
    offset: int
    incarnation: int = 0
    item: int | None = None
    route: str | None = None
    dead_letter: DeadLetterId | None = None
    reason: str
    asked_by: str
    asked: float

    @property
    def place(self) -> int:
        """The place of the action (places.py)."""
        return place_of(self.incarnation, self.offset, self.item or 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: it was carried out, or refused. `detail` says what or why, for people."""

    is_done: bool
    detail: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """A request stays open. `why`: what it waits for. `ends`: its action ends by itself, as a dead letter in doubt."""

    why: str
    ends: bool = field(default=False, compare=False)


def done(detail: str) -> Answer:
    """Say that a request was carried out."""
    return Answer(True, detail)


def refused(why: str) -> Answer:
    """Say why a request is not carried out."""
    return Answer(False, why)
