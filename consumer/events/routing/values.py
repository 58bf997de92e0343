"""What an expression gives, and whether it can be used as what its key stands for.

Rules:
 1. What decides something must be right: else the event becomes a dead letter (UnusableError). What decides nothing
    stops no mail: the action goes without it, and `Routed.dropped` says so (`optional_value`).
 2. Details name keys and expressions, never contents.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

from consumer.events.decoding import kind
from consumer.events.expressions import EvaluationError, Expression
from consumer.events.identifiers import MAX_ID_CHARACTERS, why_unusable
from consumer.events.routing.results import Dropped
from consumer.events.routing.scope import Scope
from consumer.events.times import Unreadable, plausible, read_time
from schemas.dead_letter import Reason


class UnusableError(Exception):
    """A route took the event and cannot use it."""

    def __init__(self, detail: str, reason: Reason = Reason.INVALID_EVENT) -> None:
        super().__init__(detail)
        self.reason = reason


def value_of(key: str, expression: Expression | None, scope: Scope) -> object:
    """Return what a key's expression gives; None where there is none, or it gives nothing."""
    if expression is None:
        return None
    try:
        return expression.search(scope.root if expression.reads_record else scope.event)
    except EvaluationError as error:
        raise UnusableError(f"{key}: {expression} {error}") from None


def text_of(key: str, expression: Expression | None, scope: Scope, *, integers: bool = False) -> str | None:
    """Return a text. `integers`: one is taken as text, too."""
    value = value_of(key, expression, scope)
    if value is None:
        return None
    if integers and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # commerce platforms number their orders
    if integers and isinstance(value, float):
        raise UnusableError(f"{key}: {expression} gave a number with a fraction or exponent: it may have lost digits")
    if not isinstance(value, str):
        hint = "; `| [0]` behind it takes the first item" if isinstance(value, list) else ""
        raise UnusableError(f"{key}: {expression} gave {kind(value)}, not a text{hint}")
    if not value:
        raise UnusableError(f"{key}: {expression} gave an empty text")
    if len(value) > MAX_ID_CHARACTERS:
        raise UnusableError(f"{key}: {expression} gave more than {MAX_ID_CHARACTERS} characters")
    return value


def identifier(key: str, expression: Expression | None, scope: Scope) -> str | None:
    """Return an id, which Engage or its URL must be able to take."""
    value = text_of(key, expression, scope, integers=True)
    why = None if value is None else why_unusable(value)
    if why is not None:
        raise UnusableError(f"{key}: {expression} gave an id that {why}")
    return value


def required(key: str, expression: Expression, value: str | None) -> str:
    """Return the value, which must be there."""
    if value is None:
        raise UnusableError(f"{key}: {expression} gave nothing")
    return value


def object_of(key: str, expression: Expression | None, scope: Scope) -> dict[str, object] | None:
    """Return an object."""
    value = value_of(key, expression, scope)
    if value is None or isinstance(value, dict):
        return value
    raise UnusableError(f"{key}: {expression} gave {kind(value)}, not an object")


def moment_of(key: str, expression: Expression | None, scope: Scope, zone: tzinfo | None) -> datetime | None:
    """Read a time that decides something."""
    value = value_of(key, expression, scope)
    if value is None:
        return None
    moment = read_time(value, zone)
    if isinstance(moment, Unreadable):
        raise UnusableError(f"{key}: {expression} gave {kind(value)} that {moment.why}")
    if not plausible(moment, None):
        raise UnusableError(f"{key}: {expression} gave a time before 2000 or after 2100")
    return moment


def optional_value(key: str, expression: Expression | None, scope: Scope, dropped: list[Dropped]) -> object:
    """Return what a field gives that decides nothing: where its expression fails, nothing."""
    try:
        return value_of(key, expression, scope)
    except UnusableError as error:
        dropped.append(Dropped(key, str(error).removeprefix(f"{key}: ")))
        return None
