"""Engage's API: one typed outcome per call (outcomes.py). No answer and no network failure raises an error.

Rules:
 1. An id from outside becomes exactly one percent-encoded path segment. An id that a lenient server could read as
    `..` is never sent.
 2. The API key goes to the connection's own origin only. Redirects are followed for polls alone. Of a Location only
    the path counts: it is requested at our own origin, whatever scheme and host it names.
 3. An action is in doubt unless it is certain that Engage did not process it (`_action_outcome`).
 4. A 202 or 4xx to an action means what its status line says, even where its body is lost.

Sources: Voyado's public API documentation ("Docs"), RFC 9110 for what HTTP itself says of a status.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

from pydantic_core import from_json, to_json

from consumer.core.effects import THE_DOCUMENT, Document
from consumer.core.outcomes import (
    Accepted,
    AcceptedUndocumented,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    Forbidden,
    InDoubt,
    JobFailed,
    NoContact,
    NotFound,
    NotReady,
    OrderExists,
    OrderKept,
    PollOutcome,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Undated,
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.core.pacing import MAX_RETRY_AFTER_S
from consumer.engage import headers as http_headers
from consumer.engage.api_key import LEGAL_KEY
from consumer.engage.http import Endpoint, Failure, HttpEngine, MaySend, OnRequest, Origin, Response
from consumer.engage.proxies import Proxy
from consumer.events.identifiers import why_unusable
from consumer.events.numbers import written
from schemas.engage import ActionRequest, Change

MAX_REDIRECTS = 5
MAX_ERRORS_BYTES = 8 << 10

# Docs name only "Completed" and "an error when it can't be processed"; public clients know CompletedWithErrors and
# Failed as well. A word counts by how it begins (the first two), or as one of those in use elsewhere.
COMPLETED_BEGINS = ("complete",)
FAILED_BEGINS = ("fail", "error")
COMPLETED_STATUSES = frozenset({"succeeded", "success", "done", "finished", "processed"})
FAILED_STATUSES = frozenset({"faulted", "rejected", "cancelled", "canceled", "aborted"})
MAX_STATUS_CHARACTERS = 32

_WORD = re.compile(rf"[0-9a-z_-]{{1,{MAX_STATUS_CHARACTERS}}}")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_BOM = b"\xef\xbb\xbf"
_JSON_OBJECT = dict[str, object]

Permit = Callable[[], Awaitable[bool]]
"""Awaited before each further request of one call. False: the call must end without it."""
_Refusal = Rejected | Unauthorized | Forbidden | Throttled | Unavailable


async def at_once() -> bool:
    """Permit the next request at once: nobody paces this call."""
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
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        action_timeout_s: float | None = None,
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
        on_request: OnRequest | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`api_key` is asked before each request (a rotated key is used at once); `now` is seconds since 1970.

        `headers` go along with each request. `action_timeout_s`: from an action's first byte to the end of its answer
        (default: as for other requests).
        Raises ValueError for a URL, header or User-Agent that HTTP cannot carry.
        """
        if not http_headers.NAME.fullmatch(api_key_header) or not http_headers.VALUE.fullmatch(user_agent):
            raise ValueError("api_key_header must be a header's name, and user_agent printable ASCII")
        extra = headers or {}
        if not all(http_headers.NAME.fullmatch(n) and http_headers.VALUE.fullmatch(v) for n, v in extra.items()):
            raise ValueError("headers must be names of headers, with printable ASCII")
        origin = Origin(base_url)
        self._origin = origin
        self._http = HttpEngine(origin=origin, timeout_s=timeout_s, ca_file=ca_file, proxy=proxy, on_request=on_request)
        self._orders = origin.prefix + b"/api/v3/orders"
        self._jobs = self._orders + b"/jobs/"
        self._action_timeout_s = action_timeout_s
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
            *((name.encode(), value.encode()) for name, value in extra.items()),
        ]

    async def poll_job(self, job_id: str, permit: Permit = at_once) -> PollOutcome:
        """GET the job. If it is completed but names no tag, GET its order, once.

        Where `permit` says no, the outcome is NotReady, and the next poll asks again.
        """
        segment = _segment(job_id)
        if segment is None:
            return Rejected(0, "job id cannot be a path segment")
        target, answer = await self._get("job", self._jobs + segment, permit)
        outcome = self._poll_outcome(answer, is_job=target.startswith(self._jobs))
        if isinstance(outcome, NotReady) and isinstance(answer, Response) and target.startswith(self._jobs):
            job = _json_object(answer.body) or {}
            order_id = _scalar(job, "orderId")
            if is_completed(_status(job)) and order_id is not None and await permit():
                return await self.poll_order(order_id, permit=permit)
        return outcome

    async def poll_order(
        self, order_id: str, newer_than: datetime | None = None, permit: Permit = at_once
    ) -> PollOutcome:
        """GET the order. One that was last changed before `newer_than` counts as not yet processed.

        Undated where it does not say when it was changed: `lastChangedAt` is the merchant's to send.
        """
        segment = _segment(order_id)
        if segment is None:
            return Rejected(0, "order id cannot be a path segment")
        _, answer = await self._get("order", b"%b/%b" % (self._orders, segment), permit)
        return self._poll_outcome(answer, newer_than=newer_than)

    async def send_document(
        self,
        order_id: str,
        document: dict[str, object],
        permit: Permit = at_once,
        may_send: MaySend | None = None,
        how: Document = THE_DOCUMENT,
    ) -> DocumentOutcome:
        """POST the order; where it exists already (409), PUT it, unless it must not be replaced (`how`).

        Repeating either is harmless, as long as nobody sends a newer document meanwhile. So `may_send` is asked right
        before the first byte of each request. Where it says no to the POST, the outcome is Withdrawn. Where it says no
        to the PUT after that, the outcome is OrderExists, and the next call begins with the PUT.
        """
        answer = await self._post_or_put(order_id, document, permit, may_send, how)
        return self._document_outcome(answer) if isinstance(answer, Response | Failure) else answer

    async def send_with_document(
        self,
        order_id: str,
        document: dict[str, object],
        permit: Permit = at_once,
        may_send: MaySend | None = None,
        how: Document = THE_DOCUMENT,
    ) -> WithDocumentOutcome:
        """Send the order as `send_document` does, where the document holds an `orderAction`.

        Engage carries the action out when it processes the order, so no answer may be taken for granted: it is in
        doubt where an action would be. A 409 says that the order exists, and not that an action was carried out.
        OrderKept where the order exists and must not be replaced.
        """
        answer = await self._post_or_put(order_id, document, permit, may_send, how, answer_s=self._action_timeout_s)
        return self._with_document_outcome(answer) if isinstance(answer, Response | Failure) else answer

    async def send_change(
        self, order_id: str, change: Change, body: dict[str, object], may_send: MaySend | None = None
    ) -> DocumentOutcome:
        """POST a change of the order. `may_send` is asked right before the first byte.

        Repeating it is harmless, as long as nobody sends a newer one meanwhile. NotFound on 404: the order may come.
        """
        segment, encoded = _segment(order_id), _encode(body)
        if segment is None or encoded is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "change is not JSON")
        target = b"%b/%b/%b" % (self._orders, segment, change.encode())
        answer = await self._send("document", b"POST", target, encoded, may_send)
        if isinstance(answer, Response) and answer.status == 404:
            return NotFound()
        if isinstance(answer, Response) and answer.status == 409:  # another change of it is under way
            return Unavailable("Engage answered 409", self._retry_after_s(answer), answered=True)
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
        answer = await self._send(
            "action", b"POST", target, body, may_send, traceparent=traceparent, answer_s=self._action_timeout_s
        )
        if on_answer is not None and not isinstance(answer, Unauthorized):
            on_answer(answer)
        return self._action_outcome(answer)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._http.aclose()

    # What is asked

    async def _post_or_put(
        self,
        order_id: str,
        document: dict[str, object],
        permit: Permit,
        may_send: MaySend | None,
        how: Document,
        *,
        answer_s: float | None = None,
    ) -> Response | Failure | Rejected | Unauthorized | Unavailable | Withdrawn | OrderExists | OrderKept:
        """POST the order; where it exists already, PUT it. Returns what finally answered, or why nothing did."""
        segment, body = _segment(order_id), _encode(document)
        if segment is None or body is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "document is not JSON")
        if not how.exists:
            answer = await self._send("document", b"POST", self._orders, body, may_send, answer_s=answer_s)
            if not isinstance(answer, Response) or answer.status != 409:
                return Withdrawn() if _is_withdrawn(answer) else answer
            if not how.replaces:
                return OrderKept()
            if not await permit():
                return Unavailable("order exists already, and is replaced when the connection resumes")
        target = b"%b/%b" % (self._orders, segment)
        answer = await self._send("document", b"PUT", target, body, may_send, answer_s=answer_s)
        if _is_withdrawn(answer):
            return Withdrawn() if how.exists else OrderExists()
        if isinstance(answer, Response) and answer.status in (404, 409):
            why = f"order exists already, but to replace it was answered {answer.status}"
            return Unavailable(why, answered=True)
        return answer

    async def _get(
        self, endpoint: Endpoint, target: bytes, permit: Permit
    ) -> tuple[bytes, Response | Failure | PollOutcome]:
        """Ask, following redirects at our own origin; returns what finally answered, too."""
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
                return target, Unavailable("redirect to what is no path", answered=True)
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
        answer_s: float | None = None,
    ) -> Response | Failure | Unauthorized:
        key = self._readable_key()
        if key is None:
            return Unauthorized(0)
        headers = [*self._common, (self._key_header, key)]
        if body:
            headers.append((b"content-length", b"%d" % len(body)))
        if traceparent is not None:
            headers.append((b"traceparent", traceparent.encode()))
        answer = await self._http.exchange(
            endpoint, method, target, headers, body, may_send=may_send, answer_s=answer_s
        )
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
        if _is_withdrawn(answer):
            return Withdrawn()
        if isinstance(answer, Failure):
            # Repeated, it meets a 409 and becomes a PUT of the same document.
            return replace(_failed(answer), may_be_processed=answer.sent)
        if isinstance(answer, Unauthorized):
            return answer
        if 200 <= answer.status < 300:
            job = _json_object(answer.body)
            if job is None and answer.status != 202:
                return Unavailable("answer was not a JSON object", answered=True, may_be_processed=True)
            return _job_failure(job or {}, answer.body) or DocumentTaken(_scalar(job or {}, "jobId"))
        # A gateway answers 5xx although it forwarded the request.
        return self._refusal(answer) or replace(self._unavailable(answer), may_be_processed=answer.status >= 500)

    def _with_document_outcome(self, answer: Response | Failure) -> WithDocumentOutcome:
        """Decide what became of a document with an action in it: as `_action_outcome` decides, for the same reasons.

        Only an acceptance differs: it names the job.
        """
        if isinstance(answer, Failure) and _says_enough(answer.status):
            answer = Response(answer.status or 0, b"")
        outcome = self._action_outcome(answer)
        body = answer.body if isinstance(answer, Response) else b""
        if isinstance(outcome, Accepted):
            job = _json_object(body) or {}
            return _job_failure(job, body) or DocumentTaken(_scalar(job, "jobId"))
        if isinstance(outcome, StaleTag):  # a 404 to the POST of an order is no word about a tag
            return Rejected(404, "Engage answered 404", _errors(body))
        return outcome

    def _action_outcome(self, answer: Response | Failure | Unauthorized) -> ActionOutcome:
        """Decide what became of an action.

        Accepted: 202 (Docs), by its status line alone; another 2xx where its body is JSON.
        Not processed for certain: nothing was sent; 408 and 429 (RFC 9110 15.5.9, RFC 6585 4: refused before the
        work); 421 (15.5.20: not this server's to answer); 425 (RFC 8470 5.2: it came too early); 301, 307, 308 (15.4.2,
        15.4.8, 15.4.9: the same request is to be sent elsewhere, which we don't).
        In doubt: a 2xx without JSON (a gateway's page: whether Engage had the request, it does not say); 503 (in RFC
        9110 "unable to handle the request", but gateways answer it after they forwarded one: Azure Front Door where
        its backend takes too long, Fastly "backend read error", Envoy "upstream reset before response started"); 500,
        502, 504 and every other 5xx (Docs: repeating a POST without knowing "can be very dangerous");
        303 (15.4.4: it may well have been processed, and this points to the result), 302 (in use for the same) and
        the other 3xx; 499 (a proxy's word for a lost connection, on either side of Engage); whatever ended without
        a complete answer.
        """
        if isinstance(answer, Failure) and _says_enough(answer.status):
            answer = Response(answer.status or 0, b"")
        if isinstance(answer, Failure):
            if _is_withdrawn(answer):
                return Withdrawn()
            return InDoubt(answer.why) if answer.sent else Unavailable(answer.why)
        if isinstance(answer, Unauthorized):
            return answer
        match answer.status:
            case 202:
                return Accepted()
            case status if 200 <= status < 300 and _decode(answer.body) is not None:
                return AcceptedUndocumented()
            case 404:
                return StaleTag()  # Docs: order not found, or versionTag did not match
            case 422:
                return NoContact(_errors(answer.body))  # Docs: the order has no contact
            case 301 | 307 | 308:
                return self._unavailable(answer)
        why = f"Engage answered {answer.status}" + (" without JSON" if answer.status < 300 else "")
        return self._refusal(answer) or InDoubt(why, self._retry_after_s(answer))

    def _refusal(self, answer: Response) -> _Refusal | None:
        """Read what a 4xx says, alike for every call; None for what says nothing of the request itself."""
        match answer.status:
            case 499:  # a proxy's word for a lost connection
                return None
            case 401:
                return Unauthorized(401)
            case 403:
                return Forbidden()
            case 408 | 429:
                return Throttled(self._retry_after_s(answer), answered=answer.status == 408)
            case 421 | 425:  # the connection's fault, not the event's
                return self._unavailable(answer)
            case status if 400 <= status < 500:
                return Rejected(status, f"Engage answered {status}", _errors(answer.body))
        return None

    def _unavailable(self, answer: Response) -> Unavailable:
        return Unavailable(f"Engage answered {answer.status}", self._retry_after_s(answer), answer.status != 503)

    def _retry_after_s(self, answer: Response) -> float | None:
        """Read Retry-After: seconds or a date (RFC 9110, 10.2.3), cut; None where it is neither, or past."""
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


def _says_enough(status: int | None) -> bool:
    """Say whether a status line alone decides of an action: 202, and a 4xx, with which it was refused."""
    return status is not None and (status == 202 or 400 <= status < 500)


def _is_withdrawn(answer: Response | Failure | Unauthorized) -> bool:
    return isinstance(answer, Failure) and answer.kind == "withdrawn"


def _failed(failure: Failure) -> Unavailable:
    return Unavailable(failure.why, answered=failure.kind in ("garbage", "oversized", "encoded"))


def _read_poll(answer: Response, *, is_job: bool, newer_than: datetime | None) -> PollOutcome:
    if not answer.body and answer.status == 202:
        return NotReady()
    body = _json_object(answer.body)
    if body is None:
        return Unavailable("answer was not a JSON object", answered=True)
    # Only a job's status can be a failure: an *order* may well be cancelled.
    if is_job and (failure := _job_failure(body, answer.body)) is not None:
        return failure
    tag = _scalar(body, "versionTag")
    if tag is None:
        status = _status(body) if is_job else None
        return NotReady(None if is_completed(status) else _word(status))
    if newer_than is None:
        return Ready(tag)
    changed_at = _changed_at(body)
    if changed_at is None:
        return Undated()
    return Ready(tag) if changed_at >= _utc(newer_than) else NotReady()


def _job_failure(job: _JSON_OBJECT, raw: bytes) -> JobFailed | None:
    status = _status(job)
    if not is_failed(status):
        return None
    return JobFailed(f"job status is {_word(status)}", _errors(raw))


def is_completed(status: str | None) -> bool:
    """Tell whether a job of this status (lower case) is done."""
    return status is not None and (status in COMPLETED_STATUSES or status.startswith(COMPLETED_BEGINS))


def is_failed(status: str | None) -> bool:
    """Tell whether a job of this status (lower case) will never be done."""
    return status is not None and (status in FAILED_STATUSES or status.startswith(FAILED_BEGINS))


def _status(job: _JSON_OBJECT) -> str | None:
    status = _field(job, "status")
    return status.strip().lower() if isinstance(status, str) else None


def _word(status: str | None) -> str | None:
    """Return a status that may be shown: one word, as it came from outside; None for one that says nothing."""
    if not status:
        return None
    return status if _WORD.fullmatch(status) else "other"


def _changed_at(order: _JSON_OBJECT) -> datetime | None:
    changed_at = _field(order, "lastChangedAt")
    if not isinstance(changed_at, str):
        return None
    try:
        return _utc(datetime.fromisoformat(changed_at)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


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
    """Parse JSON; None where it is none, or nested too deep, or not UTF-8. .NET may put a byte order mark before it."""
    try:
        parsed: object = from_json(raw.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError:
        return None
    return parsed


def _encode(document: _JSON_OBJECT) -> bytes | None:
    try:
        return written(document)
    except ValueError:
        return None


def _encode_action(request: ActionRequest) -> bytes | None:
    try:
        fields = request.model_dump(by_alias=True, exclude_none=True, exclude={"data"})
        return written(fields if request.data is None else {**fields, "data": request.data})
    except ValueError:
        return None


def _errors(raw: bytes) -> str | None:
    """Return Engage's answer as compact JSON text, cut between two characters; None where it was no JSON."""
    parsed = _decode(raw)
    return None if parsed is None else to_json(parsed)[:MAX_ERRORS_BYTES].decode(errors="ignore")


def _segment(raw_id: str) -> bytes | None:
    """Encode an id as one path segment; None for one that cannot be one (identifiers.py)."""
    return None if why_unusable(raw_id) else quote(raw_id, safe="").encode()
