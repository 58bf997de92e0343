"""What the simulator answers, before it becomes bytes of HTTP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal

from pydantic_core import from_json, to_json

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"

Call = Literal["job", "order", "document", "action"]
CALLS: tuple[Call, ...] = ("job", "order", "document", "action")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer. `retry_after_s` is whole seconds.

    `location` begins as a path; `redirect` names how it is written to the one who asked (api.py).
    """

    status: int
    body: bytes = b"{}"
    content_type: str = JSON
    location: str | None = None
    redirect: str = "relative"
    retry_after_s: int | None = None


def json_answer(status: int, body: object, *, location: str | None = None, redirect: str = "relative") -> Answer:
    """Answer with JSON."""
    return Answer(status=status, body=to_json(body), location=location, redirect=redirect)


def refuse(status: int, message: str, *, retry_after_s: int | None = None) -> Answer:
    """Answer with a list of one error."""
    return Answer(status=status, body=to_json([{"message": message}]), retry_after_s=retry_after_s)


def error_page(answer: Answer) -> Answer:
    """Say the same as an HTML page, as the web server in front of an API does."""
    title = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return replace(answer, body=page.encode(), content_type=HTML)


def refuse_fields(errors: list[tuple[str, str]]) -> Answer:
    """Answer 400 with a list of errors, each a field and what is wrong with it."""
    return json_answer(400, [{"field": field, "message": message} for field, message in errors])


def read_object(body: bytes) -> dict[str, object] | None:
    """Parse a JSON object; None where it is none."""
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
