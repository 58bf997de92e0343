"""Engage's API: what is asked, and one typed outcome per call. No answer and no network failure raises an error.

Rules:
 1. An id from outside becomes exactly one percent-encoded path segment. An id that a lenient server could read as
    `..` is never sent.
 2. The API key goes to the connection's own origin only. Redirects are followed for polls alone. Of a Location only
    the path counts: it is requested at our own origin, whatever scheme and host it names.

What an answer means, meanings.py decides.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from consumer.core.effects import THE_DOCUMENT, Document
from consumer.core.outcomes import (
    ActionOutcome,
    DocumentOutcome,
    NotReady,
    OrderExists,
    OrderKept,
    PollOutcome,
    Rejected,
    Unauthorized,
    Unavailable,
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.engage import headers as http_headers
from consumer.engage.api_key import LEGAL_KEY
from consumer.engage.bodies import encoded, encoded_action, json_object, scalar
from consumer.engage.http import Endpoint, Failure, HttpEngine, MaySend, OnRequest, Origin, Response
from consumer.engage.jobs import is_completed, status_of
from consumer.engage.meanings import Meanings, is_withdrawn
from consumer.engage.proxies import Proxy
from consumer.events.identifiers import why_unusable
from schemas.engage import ActionRequest, Change

MAX_REDIRECTS = 5
_ORDERS = b"/api/v3/orders"
Permit = Callable[[], Awaitable[bool]]
"""Awaited before each further request of one call. False: the call must end without it."""


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
        self._orders = origin.prefix + _ORDERS
        self._jobs = self._orders + b"/jobs/"
        self._action_timeout_s = action_timeout_s
        self._meanings = Meanings(now)
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

    async def poll_job(self, job_id: str, permit: Permit = at_once, *, order_id: str | None = None) -> PollOutcome:
        """GET the job. If it is completed but names no tag, GET its order, once.

        `order_id`: which order that is where the job does not say so. Where `permit` says no, the outcome is NotReady,
        and the next poll asks again.
        """
        segment = _segment(job_id)
        if segment is None:
            return Rejected(0, "job id cannot be a path segment")
        target, answer = await self._get("job", self._jobs + segment, permit)
        outcome = self._meanings.of_poll(answer, is_job=target.startswith(self._jobs))
        if isinstance(outcome, NotReady) and isinstance(answer, Response) and target.startswith(self._jobs):
            job = json_object(answer.body) or {}
            named = scalar(job, "orderId") or order_id
            if is_completed(status_of(job)) and named is not None and await permit():
                return await self.poll_order(named, permit=permit)
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
        return self._meanings.of_poll(answer, newer_than=newer_than)

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
        return self._meanings.of_document(answer) if isinstance(answer, Response | Failure) else answer

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
        return self._meanings.of_document_with_action(answer) if isinstance(answer, Response | Failure) else answer

    async def send_change(
        self, order_id: str, change: Change, body: dict[str, object], may_send: MaySend | None = None
    ) -> DocumentOutcome:
        """POST a change of the order. `may_send` is asked right before the first byte.

        Repeating it is harmless, as long as nobody sends a newer one meanwhile. NotFound on 404: the order may come.
        """
        segment, content = _segment(order_id), encoded(body)
        if segment is None or content is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "change is not JSON")
        target = b"%b/%b/%b" % (self._orders, segment, change.encode())
        answer = await self._send("document", b"POST", target, content, may_send)
        return self._meanings.of_change(answer)

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
        segment, body = _segment(order_id), encoded_action(request)
        if segment is None or body is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "action data is not JSON")
        target = b"%b/%b/action" % (self._orders, segment)
        answer = await self._send(
            "action", b"POST", target, body, may_send, traceparent=traceparent, answer_s=self._action_timeout_s
        )
        if on_answer is not None and not isinstance(answer, Unauthorized):
            on_answer(answer)
        return self._meanings.of_action(answer)

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
        segment, body = _segment(order_id), encoded(document)
        if segment is None or body is None:
            return Rejected(0, "order id cannot be a path segment" if segment is None else "document is not JSON")
        if not how.exists:
            answer = await self._send("document", b"POST", self._orders, body, may_send, answer_s=answer_s)
            if not isinstance(answer, Response) or answer.status != 409:
                return Withdrawn() if is_withdrawn(answer) else answer
            if not how.replaces:
                return OrderKept()
            if not await permit():
                return Unavailable("order exists already, and is replaced when the connection resumes")
        target = b"%b/%b" % (self._orders, segment)
        answer = await self._send("document", b"PUT", target, body, may_send, answer_s=answer_s)
        if is_withdrawn(answer):
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
            target = self._behind_our_prefix(followed)
        return target, Unavailable(f"more than {MAX_REDIRECTS} redirects", answered=True)

    def _behind_our_prefix(self, target: bytes) -> bytes:
        """Put the base URL's path before one of Engage's own: a gateway that takes it off does not put it back."""
        is_inner = target.startswith(_ORDERS + b"/") and not target.startswith(self._orders + b"/")
        return self._origin.prefix + target if is_inner else target

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
        if isinstance(answer, Failure) and answer.status is not None and 400 <= answer.status < 500:
            return Response(answer.status, b"")  # meanings.py rule 2
        if isinstance(answer, Response) and (answer.status >= 400 or key in answer.body):
            return replace(answer, secret=key)  # what Engage says may end in a dead letter's headers
        return answer

    def _readable_key(self) -> bytes | None:
        """Return the key, or None for one that no header can carry: as wrong as one that Engage refuses."""
        try:
            key = self._api_key()
        except (OSError, ValueError):  # a secret's file that is missing or not text
            return None
        return key.encode("ascii") if LEGAL_KEY.fullmatch(key) else None


def _segment(raw_id: str) -> bytes | None:
    """Encode an id as one path segment; None for one that cannot be one (identifiers.py)."""
    return None if why_unusable(raw_id) else quote(raw_id, safe="").encode()
