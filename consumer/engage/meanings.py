"""What an answer of Engage means: one typed outcome (core/outcomes.py) for each, with the source that says so.

Rules:
 1. An action is in doubt unless it is certain that Engage did not process it (`of_action`).
 2. A 4xx, and a 202 to an action, mean what their status line says, even where the body is lost.
 3. Another 2xx whose JSON has an `error` is no acceptance and no news of an order: somebody on the way, or Engage
    itself, could not do what was asked, and did not say so by a status.

Sources: Voyado's public API documentation ("Docs"), RFC 9110 for what HTTP itself says of a status.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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
from consumer.engage.answers import says_enough
from consumer.engage.bodies import JsonObject, decoded, errors_in, exactly, field_of, has_error, json_object, scalar
from consumer.engage.http import Failure, Response
from consumer.engage.jobs import is_completed, is_failed, status_of, word_of
from consumer.events.decoding import kind
from consumer.events.times import milliseconds, read_time

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_Refusal = Rejected | Unauthorized | Forbidden | Throttled | Unavailable


class Meanings:
    """What an answer means, for each call."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: seconds since 1970, for a date in Retry-After of an answer that has none itself."""
        self._now = now

    def of_poll(
        self, answer: Response | Failure | PollOutcome, *, is_job: bool = False, newer_than: datetime | None = None
    ) -> PollOutcome:
        """Decide what a poll came to. `newer_than`: an order that was last changed before counts as not processed."""
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
            return _job_failure(json_object(answer.body) or {}, answer) or refusal
        return refusal or self._unavailable(answer)

    def of_change(self, answer: Response | Failure | Unauthorized) -> DocumentOutcome:
        """Decide what became of a change of an order: the order may come, and another change may be under way."""
        if isinstance(answer, Response) and answer.status == 404:
            return NotFound()
        if isinstance(answer, Response) and answer.status == 409:
            return Unavailable("Engage answered 409", self._retry_after_s(answer), answered=True)
        return self.of_document(answer)

    def of_document(self, answer: Response | Failure | Unauthorized) -> DocumentOutcome:
        """Decide what became of a document."""
        if is_withdrawn(answer):
            return Withdrawn()
        if isinstance(answer, Failure):
            # Repeated, it meets a 409 and becomes a PUT of the same document.
            return replace(_failed(answer), may_be_processed=answer.sent)
        if isinstance(answer, Unauthorized):
            return answer
        if 200 <= answer.status < 300:
            job = json_object(answer.body)
            if job is None and answer.status != 202:
                return Unavailable("answer was not a JSON object", answered=True, may_be_processed=True)
            if answer.status != 202 and has_error(job):
                return Unavailable(_with_error(answer), answered=True, may_be_processed=True)
            return _job_failure(job or {}, answer) or DocumentTaken(scalar(job or {}, "jobId"))
        # A gateway answers 5xx although it forwarded the request.
        return self._refusal(answer) or replace(self._unavailable(answer), may_be_processed=answer.status >= 500)

    def of_document_with_action(self, answer: Response | Failure) -> WithDocumentOutcome:
        """Decide what became of a document with an action in it: as `of_action` decides, for the same reasons.

        Only an acceptance differs: it names the job.
        """
        if isinstance(answer, Failure) and says_enough(answer.status):
            answer = Response(answer.status or 0, b"")
        outcome = self.of_action(answer)
        said = answer if isinstance(answer, Response) else Response(0, b"")
        if isinstance(outcome, Accepted):
            job = json_object(said.body) or {}
            return _job_failure(job, said) or DocumentTaken(scalar(job, "jobId"))
        if isinstance(outcome, StaleTag):  # a 404 to the POST of an order is no word about a tag
            return Rejected(404, "Engage answered 404", errors_in(said))
        return outcome

    def of_action(self, answer: Response | Failure | Unauthorized) -> ActionOutcome:
        """Decide what became of an action.

        Accepted: 202 (Docs), by its status line alone; another 2xx where its body is JSON without an error.
        Not processed for certain: nothing was sent; 408 and 429 (RFC 9110 15.5.9, RFC 6585 4: refused before the
        work); 421 (15.5.20: not this server's to answer); 425 (RFC 8470 5.2: it came too early); 301, 307, 308 (15.4.2,
        15.4.8, 15.4.9: the same request is to be sent elsewhere, which we don't).
        In doubt: a 2xx without JSON (a gateway's page: whether Engage had the request, it does not say), or whose JSON
        has an error (nor does that); 503 (in RFC
        9110 "unable to handle the request", but gateways answer it after they forwarded one: Azure Front Door where
        its backend takes too long, Fastly "backend read error", Envoy "upstream reset before response started"); 500,
        502, 504 and every other 5xx (Docs: repeating a POST without knowing "can be very dangerous");
        303 (15.4.4: it may well have been processed, and this points to the result), 302 (in use for the same) and
        the other 3xx; 499 (a proxy's word for a lost connection, on either side of Engage); whatever ended without
        a complete answer.
        """
        if isinstance(answer, Failure) and says_enough(answer.status):
            answer = Response(answer.status or 0, b"")
        if isinstance(answer, Failure):
            if is_withdrawn(answer):
                return Withdrawn()
            return InDoubt(answer.why) if answer.sent else Unavailable(answer.why)
        if isinstance(answer, Unauthorized):
            return answer
        match answer.status:
            case 202:
                return Accepted()
            case status if 200 <= status < 300 and (said := decoded(answer.body)) is not None:
                return InDoubt(_with_error(answer)) if has_error(said) else AcceptedUndocumented()
            case 404:
                return StaleTag()  # Docs: order not found, or versionTag did not match
            case 422:
                return NoContact(errors_in(answer))  # Docs: the order has no contact
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
                return Rejected(status, f"Engage answered {status}", errors_in(answer))
        return None

    def _unavailable(self, answer: Response) -> Unavailable:
        return Unavailable(f"Engage answered {answer.status}", self._retry_after_s(answer), answer.status != 503)

    def _retry_after_s(self, answer: Response) -> float | None:
        """Read Retry-After: seconds or a date (RFC 9110, 10.2.3), cut; None where it is neither, or past, or 0.

        A date is told by the clock of who answered: it counts from the answer's own Date, where there is one.
        0 names no time to wait: taken for one, the same request would be made again at once, and again.
        """
        value = answer.retry_after
        if value is None:
            return None
        if _SECONDS.fullmatch(value):
            return min(float(value), MAX_RETRY_AFTER_S) or None
        until = _date(value)
        if until is None:
            return None
        answered = next((_date(date.decode("latin-1")) for name, date in answer.headers if name == b"date"), None)
        seconds = until - (self._now() if answered is None else answered)
        return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None


def _date(value: str) -> float | None:
    """Read a date as HTTP writes it: seconds since 1970."""
    try:
        return _utc(parsedate_to_datetime(value)).timestamp()
    except (ValueError, OverflowError):
        return None


def is_withdrawn(answer: Response | Failure | Unauthorized) -> bool:
    """Tell whether nothing was sent, because `may_send` said no."""
    return isinstance(answer, Failure) and answer.kind == "withdrawn"


def _with_error(answer: Response) -> str:
    return f"Engage answered {answer.status} with an error"


def _failed(failure: Failure) -> Unavailable:
    return Unavailable(failure.why, answered=failure.kind in ("garbage", "oversized", "encoded"))


def _read_poll(answer: Response, *, is_job: bool, newer_than: datetime | None) -> PollOutcome:
    if not answer.body and answer.status == 202:
        return NotReady()
    body = json_object(answer.body)
    if body is None:
        return Unavailable("answer was not a JSON object", answered=True)
    # Only a job's status can be a failure: an *order* may well be cancelled.
    if is_job and (failure := _job_failure(body, answer)) is not None:
        return failure
    tag = scalar(exactly(body, "versionTag", answer.body), "versionTag")
    if tag is None and has_error(body) and not (is_job and status_of(body)):  # a job may have completed with errors
        return Unavailable(_with_error(answer), answered=True)
    if tag is None and is_job:
        status = status_of(body)
        return NotReady(None if is_completed(status) else word_of(status))
    if tag is None:
        return _no_tag(field_of(body, "versionTag"))
    return Ready(tag) if newer_than is None else _if_new_enough(tag, body, newer_than)


def _no_tag(found: object) -> PollOutcome:
    """Tell an order that has no tag yet from one whose tag is nothing that an action could carry."""
    if found is None or isinstance(found, str):
        return NotReady()
    return Unavailable(f"the order's versionTag is {kind(found)}, neither a text nor a number", answered=True)


def _if_new_enough(tag: str, order: JsonObject, newer_than: datetime) -> PollOutcome:
    """Compare in milliseconds: whoever wrote either time may know no finer ones."""
    changed_at = _changed_at(order)
    if changed_at is None:
        return Undated()
    missing_ms = milliseconds(_utc(newer_than)) - milliseconds(changed_at)
    if missing_ms <= 0:
        return Ready(tag)
    hint = " by less than a second: are both written as finely?" if missing_ms < 1000 else ""
    return NotReady(why=f"its lastChangedAt is before newer_than{hint}")


def _job_failure(job: JsonObject, answer: Response) -> JobFailed | None:
    status = status_of(job)
    if not is_failed(status):
        return None
    return JobFailed(f"job status is {word_of(status)}", errors_in(answer))


def _changed_at(order: JsonObject) -> datetime | None:
    """Read `lastChangedAt`, a text in any form that an event's time may have; without a zone it is in UTC."""
    changed_at = field_of(order, "lastChangedAt")
    moment = read_time(changed_at, UTC) if isinstance(changed_at, str) else None
    return moment if isinstance(moment, datetime) else None


def _utc(moment: datetime) -> datetime:
    """Read a moment without a time zone as UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
