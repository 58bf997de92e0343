"""What a real Engage does where its documentation leaves us to trust it: asked, compared, reported.

Rules:
 1. Nothing is posted to an order's `action`, and no document carries an `orderAction`, unless `send_action` is set.
 2. A finding holds no id, key or value of a field: statuses, words of jobs, names of fields and headers only.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urljoin, urlsplit

import httpx
from pydantic_core import from_json, to_json

from consumer.engage.http import Origin
from consumer.engage.jobs import is_completed, is_failed
from consumer.engage.transport import async_client

Verdict = Literal["as documented", "differs", "not asked", "no answer"]
Document = dict[str, object]

MAX_SHAPE_DEPTH = 4
USER_AGENT = "engage-relay-verify/1"
_WORD = re.compile(r"[A-Za-z_-]{1,32}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,40}")
_PATH_WORDS = frozenset({"", "api", "v1", "v2", "v3", "orders", "jobs"})
_NEEDS_DOCUMENT = "needs --create-order"
_NEEDS_ACTION = "needs --send-action"


@dataclass(frozen=True, slots=True)
class Fact:
    """A documented fact (docs/engage.md), and what a user can set where Engage differs."""

    number: int
    name: str
    expected: str
    setting: str = "none"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of a fact."""

    fact: Fact
    seen: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was watched: each new word with the seconds after the request, and how it ended."""

    words: tuple[tuple[str, float], ...]
    redirect: str | None
    end: Literal["completed", "failed", "never"]
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask. One of `order_id` and `document` is given; seconds.

    `repeat`: how often the document is put, to measure the processing.
    """

    base_url: str
    api_key: str
    order_id: str
    document: Document | None = None
    send_action: bool = False
    action: str = "Custom"
    repeat: int = 1
    api_key_header: str = "apikey"
    user_agent: str = USER_AGENT
    ca_file: Path | None = None
    poll_interval_s: float = 1.0
    patience_s: float = 300.0
    timeout_s: float = 30.0

    def __repr__(self) -> str:
        return f"Plan({self.base_url!r})"


KEY = Fact(0, "the key and the order are known", "200", "api_key_header")
ERRORS = Fact(0, "errors come as JSON", "JSON")
STALE_TAG = Fact(0, "a stale versionTag is not found", "404")
NO_CONTENT_TYPE = Fact(1, "a GET without Content-Type fails", "500", "none needed: every request carries it")
NO_USER_AGENT = Fact(2, "a request without User-Agent fails", "400", "user_agent")
NO_CONTACT = Fact(5, "an action is accepted, or 422 without a contact", "201, 202 or 422", "polling.contact_grace")
ORDER_ACTION = Fact(6, "an orderAction in a document is run", "accepted, and its job completes")
ACCEPTANCE = Fact(7, "a document is taken with a job", "201 or 202 with a jobId")
REDIRECT = Fact(7, "a completed job points to its order", "302 to /api/v3/orders/{orderId}")
WORDS = Fact(
    8,
    "the words of a job's status",
    "Processing, then Completed",
    "none: what begins with complete, fail or error counts so, any other word as not ready",
)
CHANGED_AT = Fact(9, "lastChangedAt is the merchant's", "there only where the document has it", "routes.*.newer_than")
TIME = Fact(13, "processing ends", "within --patience", "polling.deadline")
ACTION_TIME = Fact(13, "an action is answered in time", "within 30 s", "action_timeout")
FACTS = (
    KEY,
    ERRORS,
    STALE_TAG,
    NO_CONTENT_TYPE,
    NO_USER_AGENT,
    NO_CONTACT,
    ORDER_ACTION,
    ACCEPTANCE,
    REDIRECT,
    WORDS,
    CHANGED_AT,
    TIME,
    ACTION_TIME,
)


async def verify(plan: Plan) -> list[Finding]:
    """Ask every question of the plan; one finding per fact, in the order of FACTS.

    Raises ValueError for a base URL or document that cannot be used.
    """
    Origin(plan.base_url)
    if plan.document is not None and "orderAction" in plan.document and not plan.send_action:
        raise ValueError("the document has an orderAction, which mails a customer: give --send-action, or remove it")
    async with async_client(timeout_s=plan.timeout_s, proxied=True, ca_file=plan.ca_file) as http:
        http.headers.clear()
        asking = _Asking(plan, http)
        await asking.all()
    return [asking.found.get(each) or Finding(each, asking.why_not(each), "not asked") for each in FACTS]


class _Asking:
    """One run of the questions. `found` grows as answers come."""

    def __init__(self, plan: Plan, http: httpx.AsyncClient) -> None:
        self.found: dict[Fact, Finding] = {}
        self._plan = plan
        self._http = http
        self._orders = f"{plan.base_url.rstrip('/')}/api/v3/orders"
        self._order = f"{self._orders}/{quote(plan.order_id, safe='')}"
        self._usable = True

    async def all(self) -> None:
        """Ask in an order in which each question has what it needs."""
        plan = self._plan
        if plan.document is not None:
            await self._try(ACCEPTANCE, self._documents)
        if self._usable:
            await self._try(KEY, self._known)
        if not self._usable:
            return
        await self._try(ERRORS, self._errors)
        await self._try(NO_CONTENT_TYPE, lambda: self._without("Content-Type", NO_CONTENT_TYPE, 500))
        await self._try(NO_USER_AGENT, lambda: self._without("User-Agent", NO_USER_AGENT, 400))
        if plan.send_action:
            await self._try(STALE_TAG, self._stale_tag)
            await self._try(NO_CONTACT, self._action)

    def why_not(self, fact: Fact) -> str:
        """Say why the fact was not asked."""
        if fact in (STALE_TAG, NO_CONTACT, ACTION_TIME) and not self._plan.send_action:
            return _NEEDS_ACTION
        if fact in (ACCEPTANCE, REDIRECT, WORDS, TIME, ORDER_ACTION) and self._plan.document is None:
            return _NEEDS_DOCUMENT
        if fact is ORDER_ACTION and not self._plan.send_action:
            return _NEEDS_ACTION
        if fact is REDIRECT and self._usable:
            return "no job answered with a redirect"
        return "an earlier question had no usable answer"

    # The questions

    async def _documents(self) -> None:
        """Create the order (where it exists: put it), then put it again; watch each job."""
        plan = self._plan
        document = dict(plan.document or {})
        own_action = document.pop("orderAction", None)
        first = document
        if plan.send_action:
            first = {**document, "orderAction": own_action or {"action": plan.action}}
        jobs = []
        for round_ in range(1 + plan.repeat if plan.repeat > 1 else 1):
            sent_at = time.monotonic()
            if round_ == 0:
                answer = await self._ask("POST", self._orders, first)
                if answer.status_code == 409:
                    answer = await self._ask("PUT", self._order, first)
            else:
                answer = await self._ask("PUT", self._order, document)
            job_id = _object(answer).get("jobId")
            good = answer.status_code in (201, 202) and isinstance(job_id, str)
            if round_ == 0 or not good:
                self._note(ACCEPTANCE, _described(answer), good)
            if not isinstance(job_id, str) or not good:
                self._usable = round_ > 0
                break
            jobs.append(await self._watch(job_id, sent_at))
        if jobs:
            self._of_jobs(jobs)

    def _of_jobs(self, jobs: list[Job]) -> None:
        words = "; ".join(f"{word} at {at:.1f} s" for job in jobs[:3] for word, at in job.words)
        said = {word for job in jobs for word, _ in job.words}
        self._note(WORDS, words or "none: the job answered with a redirect", said <= {"Processing", "Completed"})
        shapes = sorted({job.redirect for job in jobs if job.redirect})
        if shapes:
            self._note(
                REDIRECT, "; ".join(shapes), shapes == ["302 to same scheme, same host, /api/v3/orders/{orderId}"]
            )
        ended = sorted(job.took_s for job in jobs if job.end != "never")
        if ended:
            p50, p95 = (ended[min(len(ended) - 1, int(len(ended) * part))] for part in (0.5, 0.95))
            self._note(TIME, f"p50 {p50:.1f} s, p95 {p95:.1f} s of {len(jobs)}", len(ended) == len(jobs))
        else:
            self._note(TIME, f"no job ended within {self._plan.patience_s:g} s", False)
        if self._plan.send_action:
            good = jobs[0].end == "completed"
            self._note(ORDER_ACTION, f"job {jobs[0].end}; whether a mail came, only the inbox can tell", good)

    async def _watch(self, job_id: str, sent_at: float) -> Job:
        words: list[tuple[str, float]] = []
        while True:
            answer = await self._ask("GET", f"{self._orders}/jobs/{quote(job_id, safe='')}")
            took_s = time.monotonic() - sent_at
            end: Literal["completed", "failed"] | None = None
            redirect = None
            if answer.is_redirect:
                end, redirect = "completed", self._shape_of_location(answer, job_id)
            elif answer.is_success:
                status = str(_object(answer).get("status", ""))
                word = status if _WORD.fullmatch(status) else "(another text)"
                if not words or words[-1][0] != word:
                    words.append((word, took_s))
                end = _end_of(status)
            elif answer.status_code not in (404, 429, 503):
                words.append((f"(status {answer.status_code})", took_s))
                end = "failed"
            if end is not None:
                return Job(tuple(words), redirect, end, took_s)
            if took_s > self._plan.patience_s:
                return Job(tuple(words), None, "never", took_s)
            await asyncio.sleep(self._plan.poll_interval_s)

    async def _known(self) -> None:
        answer = await self._ask("GET", self._order)
        self._usable = answer.status_code == 200
        self._note(KEY, _described(answer), self._usable)
        if self._usable:
            there = "lastChangedAt" in _object(answer)
            sent = None if self._plan.document is None else "lastChangedAt" in self._plan.document
            seen = f"{'there' if there else 'not there'}" + (
                "" if sent is None else f", {'sent' if sent else 'not sent'}"
            )
            self._note(CHANGED_AT, seen, sent in (None, there))

    async def _errors(self) -> None:
        answer = await self._ask("GET", f"{self._orders}/jobs/verify-engage-no-such-job")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._note(ERRORS, _described(answer), answer.status_code >= 400 and kind.endswith("json"))

    async def _without(self, header: str, fact: Fact, expected: int) -> None:
        answer = await self._ask("GET", self._order, without=header)
        self._note(fact, _described(answer), answer.status_code == expected)

    async def _stale_tag(self) -> None:
        answer = await self._ask("POST", f"{self._order}/action", self._action_with("verify-engage-stale-tag"))
        self._note(STALE_TAG, _described(answer), answer.status_code == 404)

    async def _action(self) -> None:
        tag = _object(await self._ask("GET", self._order)).get("versionTag")
        if not isinstance(tag, str):
            self._note(NO_CONTACT, "the order has no versionTag", False)
            return
        started = time.monotonic()
        try:
            answer = await self._ask("POST", f"{self._order}/action", self._action_with(tag))
        except httpx.TimeoutException:
            self._note(ACTION_TIME, f"no answer within {self._plan.timeout_s:g} s", False)
            raise
        self._note(ACTION_TIME, f"{time.monotonic() - started:.1f} s", True)
        self._note(NO_CONTACT, _described(answer), answer.status_code in (201, 202, 422))

    def _action_with(self, tag: str) -> Document:
        return {"action": self._plan.action, "versionTag": tag}

    # How it is asked

    async def _try(self, fact: Fact, question: Callable[[], Awaitable[None]]) -> None:
        try:
            await question()
        except httpx.HTTPError as error:
            # The transport's texts are our own words; another one may hold a URL with the order's id.
            why = str(error) if isinstance(error, httpx.TransportError) else ""
            self.found[fact] = Finding(fact, why or type(error).__name__, "no answer")
            self._usable = False

    async def _ask(
        self, method: str, url: str, body: Document | None = None, without: str | None = None
    ) -> httpx.Response:
        plan = self._plan
        headers = {
            plan.api_key_header: plan.api_key,
            "User-Agent": plan.user_agent,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        headers.pop(without or "", None)
        content = None if body is None else to_json(body)
        return await self._http.request(method, url, headers=headers, content=content)

    def _note(self, fact: Fact, seen: str, good: bool) -> None:
        self.found[fact] = Finding(fact, seen, "as documented" if good else "differs")

    def _shape_of_location(self, answer: httpx.Response, job_id: str) -> str:
        """Describe where a redirect points, without any id."""
        base = urlsplit(self._plan.base_url)
        location = answer.headers.get("location")
        if location is None:
            return f"{answer.status_code} without a Location"
        try:
            parts = urlsplit(urljoin(str(answer.request.url), location))
        except ValueError:
            return f"{answer.status_code} to what is no URL"
        names = {quote(self._plan.order_id, safe="").lower(): "{orderId}", quote(job_id, safe="").lower(): "{jobId}"}
        path = parts.path.removeprefix(base.path.rstrip("/"))
        segments = [
            each.lower() if each.lower() in _PATH_WORDS else names.get(each.lower(), "{...}")
            for each in path.split("/")
        ]
        scheme = "same scheme" if parts.scheme == base.scheme else "another scheme"
        host = "same host" if parts.netloc == base.netloc else "another host"
        return f"{answer.status_code} to {scheme}, {host}, {'/'.join(segments)}"


def report(findings: list[Finding], *, version: str, date: str) -> Mapping[str, object]:
    """Return what may be attached to an issue."""
    return {
        "tool": f"engage-relay {version}",
        "date": date,
        "findings": [
            {
                "fact": each.fact.number,
                "name": each.fact.name,
                "expected": each.fact.expected,
                "seen": each.seen,
                "verdict": each.verdict,
                "setting": each.fact.setting if each.verdict == "differs" else None,
            }
            for each in findings
        ],
    }


def _end_of(status: str) -> Literal["completed", "failed"] | None:
    word = status.lower()
    if is_completed(word):
        return "completed"
    return "failed" if is_failed(word) else None


def _described(answer: httpx.Response) -> str:
    """Describe an answer by its status, type and the shape of its body."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        return f"{answer.status_code} JSON {_shape(_parsed(answer))}"
    return f"{answer.status_code} {'HTML' if kind == 'text/html' else 'no JSON'}"


def _shape(value: object, depth: int = 0) -> str:
    """Return names of fields and types of values, never a value."""
    match value:
        case dict() if depth >= MAX_SHAPE_DEPTH:
            return "{...}"
        case dict():
            fields = {name if _FIELD.fullmatch(name) else "?": _shape(each, depth + 1) for name, each in value.items()}
            return "{" + ", ".join(f"{name}: {kind}" for name, kind in fields.items()) + "}"
        case list():
            return f"[{_shape(value[0], depth + 1)}]" if value else "[]"
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case _:
            return "text"


def _parsed(answer: httpx.Response) -> object:
    try:
        return from_json(answer.content)
    except ValueError:
        return None


def _object(answer: httpx.Response) -> Document:
    parsed = _parsed(answer)
    return parsed if isinstance(parsed, dict) else {}
