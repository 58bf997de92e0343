"""The control topic's records as bytes (schemas/control.py). Pure.

Rule: a record that cannot be read is counted and ignored. What it asked for is not done, which is said loudly. One that
replaces a record that was read ends that one: nobody knows whether it still holds.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import to_json

from consumer.core.clock import to_ms
from consumer.core.pauses import Pause, Pauses
from schemas.control import PAUSE, PauseRecord


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


class Controls:
    """What the topic says, as far as it was read."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        self._unreadable: set[bytes | None] = set()

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
        if name is None or not name.startswith(PAUSE):
            if value is not None and key is None:
                self._unreadable.add(key)
            return
        pause_id = name.removeprefix(PAUSE)
        self._pauses.pop(pause_id, None)
        self._unreadable.discard(key)
        if value is None:
            return
        pause = read_pause(pause_id, value)
        if pause is None:
            self._unreadable.add(key)
        else:
            self._pauses[pause_id] = pause
