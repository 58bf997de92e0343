"""Engage's API, one typed outcome per call (outcomes.py); nothing that Engage or the network does raises.

Rules:
 1. An id from outside is exactly one percent-encoded path segment; what a lenient server could read as `..` is
    never sent at all.
 2. The API key goes to the connection's own origin only; redirects are followed for polls alone, and only there.
 3. An action is in doubt unless it is certain that Engage did not process it (`_action_outcome`).

Sources: Voyado's public API documentation ("Docs"), RFC 9110 for what HTTP itself says of a status.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

from pydantic_core import from_json, to_json

from consumer.core.outcomes import (
    Accepted,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    InDoubt,
    JobFailed,
    NotFound,
    NotReady,
    PollOutcome,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Withdrawn,
)
from consumer.engage.api_key import LEGAL_KEY
from consumer.engage.http import Endpoint, Failure, HttpEngine, MaySend, OnRequest, Origin, Response
from consumer.events.identifiers import why_unusable
from schemas.engage import ActionRequest

MAX_REDIRECTS = 5
MAX_ERRORS_BYTES = 8 << 10
MAX_RETRY_AFTER_S = 24 * 3600.0

# Docs name only "Completed" and "an error when it can't be processed"; these are the words in use for the two.
COMPLETED_STATUSES = frozenset({"completed", "complete", "succeeded", "success", "done", "finished", "processed"})
FAILED_STATUSES = frozenset({"failed", "error", "faulted", "rejected", "cancelled", "canceled", "aborted"})

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_JSON_OBJECT = dict[str, object]

Permit = Callable[[], Awaitable[bool]]
"""Awaited before each further request of one call; False: this call is not to go on now."""
_Refusal = Rejected | Unauthorized | Throttled | Unavailable


async def at_once() -> bool:
    """Go on: nobody paces this call."""
    return True


class EngageClient:
    """One Engage tenant. Correct at any concurrency; how much of it is the caller's choice."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: Callable[[], str],
        api_key_header: str = "apikey",
        user_agent: str,
        timeout_s: float,
        ca_file: Path | None = None,
        on_request: OnRequest | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`api_key` is asked before each request (a rotated key is used at once); `now` is seconds since 1970.

        Raises ValueError for a URL, header name or User-Agent that HTTP cannot carry.
        """
        if not HEADER_NAME.fullmatch(api_key_header) or not _HEADER_VALUE.fullmatch(user_agent):
            raise ValueError("api_key_header must be a header's name, and user_agent printable ASCII")
        origin = Origin(base_url)
        self._origin = origin
        self._http = HttpEngine(origin=origin, timeout_s=timeout_s, ca_file=ca_file, on_request=on_request)
        self._orders = origin.prefix + b"/api/v3/orders"
        self._jobs = self._orders + b"/jobs/"
        self._now = now
        self._api_key = api_key
        self._key_header = api_key_header.encode()
        self._common = [
            (b"host", origin.host_header),
            (b"user-agent", user_agent.encode()),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"identity"),
            # Docs: mandatory in every request, a GET without a body included; Engage answers 500 without it.
            (b"content-type", b"application/json"),
        ]

    async def poll_job(self, job_id: str, permit: Permit = at_once) -> PollOutcome:
        """GET the job. A job that is completed but names no tag sends us to its order, once.

        Where `permit` says no, it is not ready: the next poll finds as much.
        """
        segment = _segment(job_id)
        if segment is None:
            return Rejected(0, "job id cannot be a path segment")
        target, answer = await self._get("job", self._jobs + segment, permit)
        outcome = self._poll_outcome(answer, is_job=target.startswith(self._jobs))
        if isinstance(outcome, NotReady) and isinstance(answer, Response) and target.startswith(self._jobs):
            job = _json_object(answer.body) or {}
            order_id = _scalar(job, "orderId")
            if _status(job) in COMPLETED_STATUSES and order_id is not None and await permit():
                return await self.poll_order(order_id, permit=permit)
        return outcome

    async def poll_order(
        self, order_id: str, newer_than: datetime | None = None, permit: Permit = at_once
    ) -> PollOutcome:
        """GET the order. One that was last changed before `newer_than` counts as not yet processed."""
        segment = _segment(order_id)
        if segment is None:
            return Rejected(0, "order id cannot be a path segment")
        _, answer = await self._get("order", b"%b/%b" % (self._orders, segment), permit)
        return self._poll_outcome(answer, newer_than=newer_than)

    async def send_document(
        self, order_id: str, document: dict[str, object], permit: Permit = at_once
    ) -> DocumentOutcome:
        """POST the order; where it exists already (409), PUT it. Repeating either is harmless."""
        segment, body = _segment(order_id), _encode(document)
        if segment is None or body is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "document is not JSON")
        answer = await self._send("document", b"POST", self._orders, body)
        if isinstance(answer, Response) and answer.status == 409:
            if not await permit():
                return Unavailable("order exists already, and is replaced when the connection goes on")
            answer = await self._send("document", b"PUT", b"%b/%b" % (self._orders, segment), body)
            if isinstance(answer, Response) and answer.status in (404, 409):
                return Unavailable(f"order exists already, but to replace it was answered {answer.status}")
        return self._document_outcome(answer)

    async def send_action(
        self,
        order_id: str,
        request: ActionRequest,
        may_send: MaySend | None = None,
        *,
        traceparent: str | None = None,
        on_answer: Callable[[Response | Failure], None] | None = None,
    ) -> ActionOutcome:
        """POST the action, which is the only call that must not be repeated blindly.

        `may_send` is asked right before the first byte goes out; where it says no, the action is Withdrawn.
        `traceparent` goes along as W3C's header of that name; `on_answer` is told what came, where there was a request.
        """
        segment, body = _segment(order_id), _encode_action(request)
        if segment is None or body is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "action data is not JSON")
        target = b"%b/%b/action" % (self._orders, segment)
        answer = await self._send("action", b"POST", target, body, may_send, traceparent=traceparent)
        if on_answer is not None and not isinstance(answer, Unauthorized):
            on_answer(answer)
        return self._action_outcome(answer)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._http.aclose()

    # What is asked

    async def _get(
        self, endpoint: Endpoint, target: bytes, permit: Permit
    ) -> tuple[bytes, Response | Failure | PollOutcome]:
        """Ask, following redirects on the same origin; returns what finally answered, too."""
        for redirects in range(1 + MAX_REDIRECTS):
            if redirects and not await permit():
                return target, NotReady()
            answer = await self._send(endpoint, b"GET", target)
            if not isinstance(answer, Response) or answer.status not in (301, 302, 303, 307, 308):
                return target, answer
            if answer.location is None:
                return target, Unavailable("redirect without a Location", answered=True)
            followed = self._origin.target(answer.location, seen_from=target)
            if followed is None:
                return target, Unavailable("redirect elsewhere was refused", answered=True)
            target = followed
        return target, Unavailable(f"more than {MAX_REDIRECTS} redirects", answered=True)

    async def _send(
        self,
        endpoint: Endpoint,
        method: bytes,
        target: bytes,
        body: bytes = b"",
        may_send: MaySend | None = None,
        *,
        traceparent: str | None = None,
    ) -> Response | Failure | Unauthorized:
        key = self._readable_key()
        if key is None:
            return Unauthorized(0)
        headers = [*self._common, (self._key_header, key)]
        if body:
            headers.append((b"content-length", b"%d" % len(body)))
        if traceparent is not None:
            headers.append((b"traceparent", traceparent.encode()))
        answer = await self._http.exchange(endpoint, method, target, headers, body, may_send=may_send)
        if isinstance(answer, Response) and key in answer.body:  # what Engage says may end in a dead letter's headers
            return replace(answer, body=answer.body.replace(key, b"***"))
        return answer

    def _readable_key(self) -> bytes | None:
        """Return the key, or None for one that no header can carry: as wrong as one that Engage refuses."""
        try:
            key = self._api_key()
        except (OSError, ValueError):  # a secret's file that is missing or not text
            return None
        return key.encode("ascii") if LEGAL_KEY.fullmatch(key) else None

    # What an answer means: design.md's table of outcomes, row by row

    def _poll_outcome(
        self, answer: Response | Failure | PollOutcome, *, is_job: bool = False, newer_than: datetime | None = None
    ) -> PollOutcome:
        if isinstance(answer, Failure):
            return _failed(answer)  # a GET is harmless to repeat, sent or not
        if not isinstance(answer, Response):
            return answer
        if answer.status == 404:
            return NotFound()
        if 200 <= answer.status < 300:
            return _read_poll(answer, is_job=is_job, newer_than=newer_than)
        refusal = self._refusal(answer)
        if is_job and isinstance(refusal, Rejected):  # Docs: a job that cannot be processed answers with an error
            return _job_failure(_json_object(answer.body) or {}, answer.body) or refusal
        return refusal or self._unavailable(answer)

    def _document_outcome(self, answer: Response | Failure | Unauthorized) -> DocumentOutcome:
        if isinstance(answer, Failure):
            return _failed(answer)  # repeated, it meets a 409 and becomes a PUT of the same document
        if isinstance(answer, Unauthorized):
            return answer
        if 200 <= answer.status < 300:
            job = _json_object(answer.body) or {}
            return _job_failure(job, answer.body) or DocumentTaken(_scalar(job, "jobId"))
        return self._refusal(answer) or self._unavailable(answer)

    def _action_outcome(self, answer: Response | Failure | Unauthorized) -> ActionOutcome:
        """Decide what became of an action.

        Not processed for certain: nothing was sent; 408 and 429 (RFC 9110 15.5.9, RFC 6585 4: refused before the
        work); 421 (15.5.20: not this server's to answer); 503 (15.6.4: "currently unable to handle the request");
        301, 307, 308 (15.4.2, 15.4.8, 15.4.9: the same request is to be sent elsewhere, which we don't).
        In doubt: 500, 502, 504 and every other 5xx (Docs: repeating a POST without knowing "can be very dangerous");
        303 (15.4.4: it may well have been processed, and this points to the result), 302 (in use for the same) and
        the other 3xx; 499 (a proxy's word for a lost connection, on either side of Engage); whatever ended without
        a complete answer.
        """
        if isinstance(answer, Failure):
            if answer.kind == "withdrawn":
                return Withdrawn()
            return InDoubt(answer.why) if answer.sent else Unavailable(answer.why)
        if isinstance(answer, Unauthorized):
            return answer
        if 200 <= answer.status < 300:
            return Accepted()  # Docs: 202; the body says nothing that matters
        if answer.status == 404:
            return StaleTag()  # Docs: order not found, or versionTag did not match
        if answer.status in (301, 307, 308, 503):
            return self._unavailable(answer)
        return self._refusal(answer) or InDoubt(f"Engage answered {answer.status}")

    def _refusal(self, answer: Response) -> _Refusal | None:
        """Read what a 4xx says, alike for every call; None for what says nothing of the request itself."""
        match answer.status:
            case 499:  # a proxy's word for a lost connection
                return None
            case 401 | 403:
                return Unauthorized(answer.status)
            case 408 | 429:
                return Throttled(self._retry_after_s(answer))
            case 421:  # the connection's fault, not the event's
                return self._unavailable(answer)
            case status if 400 <= status < 500:
                return Rejected(status, f"Engage answered {status}", _errors(answer.body))
        return None

    def _unavailable(self, answer: Response) -> Unavailable:
        return Unavailable(f"Engage answered {answer.status}", self._retry_after_s(answer), answer.status != 503)

    def _retry_after_s(self, answer: Response) -> float | None:
        """Read Retry-After: seconds or a date (RFC 9110, 10.2.3); None where it is neither, or past."""
        value = answer.retry_after
        if value is None:
            return None
        if _SECONDS.fullmatch(value):
            return min(float(value), MAX_RETRY_AFTER_S)
        try:
            seconds = _utc(parsedate_to_datetime(value)).timestamp() - self._now()
        except (ValueError, OverflowError):
            return None
        return min(seconds, MAX_RETRY_AFTER_S) if seconds >= 0 else None


def _failed(failure: Failure) -> Unavailable:
    return Unavailable(failure.why, answered=failure.kind in ("garbage", "oversized", "encoded"))


def _read_poll(answer: Response, *, is_job: bool, newer_than: datetime | None) -> PollOutcome:
    if not answer.body:
        return NotReady()
    body = _json_object(answer.body)
    if body is None:
        return Unavailable("answer was not a JSON object", answered=True)
    # Only a job's status can be a failure: an *order* may well be cancelled.
    if is_job and (failure := _job_failure(body, answer.body)) is not None:
        return failure
    tag = _scalar(body, "versionTag")
    if tag is None or (newer_than is not None and not _changed_since(body, newer_than)):
        return NotReady()
    return Ready(tag)


def _job_failure(job: _JSON_OBJECT, raw: bytes) -> JobFailed | None:
    status = _status(job)
    return JobFailed(f"job status is {status}", _errors(raw)) if status in FAILED_STATUSES else None


def _status(job: _JSON_OBJECT) -> str | None:
    status = _field(job, "status")
    return status.strip().lower() if isinstance(status, str) else None


def _changed_since(order: _JSON_OBJECT, newer_than: datetime) -> bool:
    changed_at = _field(order, "lastChangedAt")
    if not isinstance(changed_at, str):
        return False
    try:
        return _utc(datetime.fromisoformat(changed_at)) >= _utc(newer_than)
    except (ValueError, OverflowError):
        return False


def _utc(moment: datetime) -> datetime:
    """Read a moment without a time zone as UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _field(body: _JSON_OBJECT, name: str) -> object:
    """Read a top-level field, in whatever case its name is written."""
    if name in body:
        return body[name]
    lowered = name.lower()
    return next((value for key, value in body.items() if key.lower() == lowered), None)


def _scalar(body: _JSON_OBJECT, name: str) -> str | None:
    """Read an id or tag, text or number; another type counts as absent (schemas/engage.py)."""
    value = _field(body, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _json_object(raw: bytes) -> _JSON_OBJECT | None:
    body = _decode(raw)
    return body if isinstance(body, dict) else None


def _decode(raw: bytes) -> object:
    """Parse JSON; None where it is none, or nested too deep, or not UTF-8."""
    try:
        parsed: object = from_json(raw, allow_inf_nan=False)
    except ValueError:
        return None
    return parsed


def _encode(document: _JSON_OBJECT) -> bytes | None:
    try:
        return to_json(document, inf_nan_mode="null")
    except ValueError:
        return None


def _encode_action(request: ActionRequest) -> bytes | None:
    try:
        return request.model_dump_json(by_alias=True, exclude_none=True).encode()
    except ValueError:
        return None


def _errors(raw: bytes) -> str | None:
    """Return Engage's answer as compact JSON text, cut between two characters; None where it was no JSON."""
    parsed = _decode(raw)
    return None if parsed is None else to_json(parsed)[:MAX_ERRORS_BYTES].decode(errors="ignore")


def _segment(raw_id: str) -> bytes | None:
    """Encode an id as one path segment; None for one that cannot be one (identifiers.py)."""
    return None if why_unusable(raw_id) else quote(raw_id, safe="").encode()
