"""A record that this version cannot read: it becomes a dead letter with its contents, and is never skipped."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record of the delay topic that this version cannot read. `detail` names the field, never its contents."""

    detail: str


def first_error(error: ValidationError) -> str:
    """Say where a record is wrong, and how: of its contents nothing."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'value'}: {first['msg']}"
