"""Bodies of requests and answers: JSON, read leniently and written to the digit.

A field is read in whatever case its name is written. An answer that is no JSON says nothing.
"""

from __future__ import annotations

from pydantic_core import from_json, to_json

from consumer.engage.answers import Response
from consumer.events.numbers import Number, read_exactly, written
from schemas.engage import ActionRequest

MAX_ERRORS_BYTES = 8 << 10
_BOM = b"\xef\xbb\xbf"
JsonObject = dict[str, object]


def field_of(body: JsonObject, name: str) -> object:
    """Read a top-level field, in whatever case its name is written."""
    if name in body:
        return body[name]
    lowered = name.lower()
    return next((value for key, value in body.items() if key.lower() == lowered), None)


def scalar(body: JsonObject, name: str) -> str | None:
    """Read an id or tag, text or number; another type, or a blank text, counts as absent (schemas/engage.py).

    A number with a fraction or exponent is one only where it is known how it was written (`exactly`).
    """
    value = field_of(body, name)
    match value:
        case Number():
            return value.text
        case int() if not isinstance(value, bool):
            return str(value)
        case str() if value.strip():
            return value
    return None


def has_error(body: object) -> bool:
    """Tell whether an answer is an object that speaks of an error: `error` or `errors`, in whatever case, not empty."""
    return isinstance(body, dict) and any(field_of(body, name) for name in ("error", "errors"))


def exactly(body: JsonObject, name: str, raw: bytes) -> JsonObject:
    """Return the body, read once more where a field is a number that a double would write otherwise."""
    if not isinstance(field_of(body, name), float):
        return body
    again = read_exactly(raw.removeprefix(_BOM))
    return again if isinstance(again, dict) else body


def json_object(raw: bytes) -> JsonObject | None:
    """Parse an object; None where it is none."""
    body = decoded(raw)
    return body if isinstance(body, dict) else None


def decoded(raw: bytes) -> object:
    """Parse JSON; None where it is none, or nested too deep, or not UTF-8. .NET may put a byte order mark before it."""
    try:
        parsed: object = from_json(raw.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError:
        return None
    return parsed


def encoded(document: JsonObject) -> bytes | None:
    """Write a document or change; None where it cannot be JSON."""
    try:
        return written(document)
    except ValueError:
        return None


def encoded_action(request: ActionRequest) -> bytes | None:
    """Write an action; None where its data cannot be JSON."""
    try:
        fields = request.model_dump(by_alias=True, exclude_none=True, exclude={"data"})
        return written(fields if request.data is None else {**fields, "data": request.data})
    except ValueError:
        return None


def errors_in(answer: Response) -> str | None:
    """Return Engage's answer as compact JSON text, cut between two characters; None where it was no JSON.

    It is shown to people, so it is without what is secret in it, however that was escaped there.
    """
    parsed = decoded(answer.body)
    if parsed is None:
        return None
    text = to_json(parsed)
    if answer.secret:
        text = text.replace(to_json(answer.secret.decode())[1:-1], b"***")
    return text[:MAX_ERRORS_BYTES].decode(errors="ignore")
