"""Dead letters that their topic refuses, as records of the delay topic, where they wait until it takes them.

A topic may refuse one record for good (a compacted topic takes none without a key, another one no old timestamp), or
all of them for a while (the right to write was withdrawn). Everything else goes on meanwhile, so the record must be
safe elsewhere: in the delay topic, in place of its action's record.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from consumer.core.ownership import Assignment
from consumer.kafka.journal.writes import DeadLetter, Put
from consumer.kafka.records.dead_letters import DeadLetterRecord, without_value
from schemas.pending_action import Bytes, RefusedDeadLetter

_MARK = b'{"version":1,"state":"refused",'


def kept(write: DeadLetter, name: str) -> Put:
    """Return the write that keeps a refused dead letter in the delay topic. `name`: nothing else has it.

    The action has ended, so its outcome is written now, and not with the dead letter later.
    """
    key = write.key if write.key is not None else b"dead-letter:%b" % name.encode()
    refused = replace(write, key=key, next_offset=None, with_next=False, is_kept=True, outcome=None, requested=False)
    return Put(
        write.assignment,
        key,
        _value(refused),
        write.next_offset,
        keeps=refused,
        with_next=write.with_next,
        outcome=write.outcome,
        requested=write.requested,
    )


def smaller(put: Put) -> Put | None:
    """Return the same without the dead letter's value, as the delay topic refuses its size; None where it has none."""
    if put.keeps is None or put.keeps.record.value is None:
        return None
    refused = replace(put.keeps, record=without_value(put.keeps.record))
    return replace(put, value=_value(refused), keeps=refused)


def put_of(refused: DeadLetter) -> Put:
    """Return the write that keeps it once more."""
    assert refused.key is not None  # noqa: S101 - `kept` gave it one
    return Put(refused.assignment, refused.key, _value(refused), keeps=refused)


def read(assignment: Assignment, key: bytes, value: bytes) -> DeadLetter | None:
    """Read a live record back; None where it is no refused dead letter, or cannot be read."""
    if not value.startswith(_MARK):
        return None
    try:
        record = RefusedDeadLetter.model_validate_json(value)
    except ValidationError:
        return None
    return DeadLetter(
        assignment=assignment,
        record=DeadLetterRecord(
            key=record.key.raw() if record.key else None,
            value=record.value.raw() if record.value else None,
            headers=[(name, each.raw() if each else None) for name, each in record.headers],
        ),
        reason=record.reason,
        offset=record.offset,
        key=key,
        is_kept=True,
    )


def _value(refused: DeadLetter) -> bytes:
    record = refused.record
    headers = [(name, each.encode() if isinstance(each, str) else each) for name, each in record.headers]
    return (
        RefusedDeadLetter(
            reason=refused.reason,
            offset=refused.offset,
            key=_wrapped(record.key),
            value=_wrapped(record.value),
            headers=[(name, _wrapped(each)) for name, each in headers],
        )
        .model_dump_json(exclude_none=True)
        .encode()
    )


def _wrapped(raw: bytes | None) -> Bytes | None:
    return None if raw is None else Bytes.of(raw)
