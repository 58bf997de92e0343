"""The control topic's records as bytes (schemas/control.py). Pure.

Rule: a record that cannot be read is counted and ignored. What it asked for is not done, which is said loudly. One that
replaces a record that was read ends that one: nobody knows whether it still holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import to_json

from consumer.core.clock import to_ms
from consumer.core.pauses import Pause, Pauses
from consumer.core.requests import Answer, DeadLetterId, Request
from schemas.control import PAUSE, REQUEST, ActionAt, PauseRecord, RecordAt, RequestRecord

PARTITION = 0  # the one that counts


def pause_key(pause: Pause) -> bytes:
    """Return the key of a pause."""
    return f"{PAUSE}{pause.id}".encode()


def pause_value(pause: Pause, ended_reason: str | None = None) -> bytes:
    """Return the value of a pause. `ended_reason`: why a person ended it."""
    record = PauseRecord(
        connection=pause.connection,
        route=pause.route,
        action=pause.action,
        mode="discard" if pause.discard else "hold",
        reason=pause.reason,
        begun_ms=to_ms(pause.begun),
        until_ms=None if pause.until is None else to_ms(pause.until),
        ended_ms=None if pause.ended is None else to_ms(pause.ended),
        ended_reason=ended_reason,
    )
    return to_json(record, exclude_none=True)


def read_pause(pause_id: str, value: bytes) -> Pause | None:
    """Read a pause; None where this version cannot."""
    try:
        record = PauseRecord.model_validate_json(value)
    except ValidationError:
        return None
    return Pause(
        id=pause_id,
        begun=record.begun_ms / 1000,
        reason=record.reason,
        connection=record.connection,
        route=record.route,
        action=record.action,
        until=None if record.until_ms is None else record.until_ms / 1000,
        ended=None if record.ended_ms is None else record.ended_ms / 1000,
        discard=record.mode == "discard",
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered, and when (seconds since 1970)."""

    request: Request
    answer: Answer
    at: float


def request_key(request: Request) -> bytes:
    """Return the key of a request."""
    return f"{REQUEST}{request.id}".encode()


def request_value(request: Request, answer: Answer | None = None, at: float | None = None) -> bytes:
    """Return the value of a request, or of its answer. `at`: when it was answered."""
    dead_letter = request.dead_letter
    record = RequestRecord(
        what=request.what,
        action=ActionAt(
            topic=request.topic,
            partition=request.partition,
            offset=request.offset,
            incarnation=request.incarnation,
            item=request.item,
        ),
        route=request.route,
        dead_letter=None if dead_letter is None else RecordAt(**dead_letter._asdict()),
        reason=request.reason,
        asked_by=request.asked_by,
        asked_ms=to_ms(request.asked),
        answer=None if answer is None else "done" if answer.is_done else "refused",
        detail=None if answer is None else answer.detail,
        answered_ms=None if at is None else to_ms(at),
    )
    return to_json(record, exclude_none=True)


def read_request(request_id: str, value: bytes) -> Request | Answered | None:
    """Read a request; None where this version cannot."""
    try:
        record = RequestRecord.model_validate_json(value)
    except ValidationError:
        return None
    at, dead_letter = record.action, record.dead_letter
    request = Request(
        id=request_id,
        what=record.what,
        topic=at.topic,
        partition=at.partition,
        offset=at.offset,
        incarnation=at.incarnation,
        item=at.item,
        route=record.route,
        dead_letter=None if dead_letter is None else DeadLetterId(**dead_letter.model_dump()),
        reason=record.reason,
        asked_by=record.asked_by,
        asked=record.asked_ms / 1000,
    )
    if record.answer is None:
        return request
    at_ms = record.asked_ms if record.answered_ms is None else record.answered_ms
    return Answered(request, Answer(record.answer == "done", record.detail or ""), at_ms / 1000)


class Controls:
    """What the topic says, as far as it was read."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        self._unreadable: set[bytes | None] = set()
        self.requests: dict[str, Request] = {}
        """Those that are open, by id."""
        self.answered: dict[str, Answered] = {}
        """Those that were answered."""

    @property
    def pauses(self) -> Pauses:
        """The pauses, ended ones included."""
        return Pauses(self._pauses.values())

    @property
    def unreadable(self) -> int:
        """How many keys have a last record that this version cannot read."""
        return len(self._unreadable)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take the next record."""
        name = None if key is None else key.decode(errors="replace")
        if name is None:
            if value is not None:
                self._unreadable.add(key)
            return
        if not name.startswith((PAUSE, REQUEST)):
            return
        self._unreadable.discard(key)
        take = self._take_pause if name.startswith(PAUSE) else self._take_request
        if not take(name.partition("/")[2], value):
            self._unreadable.add(key)

    def _take_pause(self, pause_id: str, value: bytes | None) -> bool:
        self._pauses.pop(pause_id, None)
        pause = None if value is None else read_pause(pause_id, value)
        if pause is not None:
            self._pauses[pause_id] = pause
        return value is None or pause is not None

    def _take_request(self, request_id: str, value: bytes | None) -> bool:
        self.requests.pop(request_id, None)
        self.answered.pop(request_id, None)
        request = None if value is None else read_request(request_id, value)
        if isinstance(request, Request):
            self.requests[request_id] = request
        elif request is not None:
            self.answered[request_id] = request
        return value is None or request is not None
