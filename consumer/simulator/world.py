"""Engage's world in small: orders, their versions, the jobs that process them, and the actions upon them.

Every call answers as Voyado's public documentation of the order API (v3) says; what it leaves open is decided here,
to the relay's disadvantage where possible, so that trials are no easier than the truth.
Rules:
 1. Nothing here waits, reads a clock, or does I/O: `now` (seconds since 1970, never going back) comes with every call.
 2. A change of an order (create, replace, delete, change status or delivery) makes a new version with a job. The
    versions of one order are processed in turn: none is done before the one before it (one that never completes
    holds up nothing).
 3. When a version is done, its tag is *the* tag of the order; every older one is stale from then on, and not before.
    Until then the order shows the last processed version, with its old tag. Before the first it shows no tag.
 4. How long processing takes and whether it succeeds depends on the seed, the order id and the version's number only.
 5. An order exists from the moment its creation was accepted until its creation failed or its deletion is done.

Job:  PROCESSING ──time over──> COMPLETED (tag)
          │            └──────> FAILED
          └── (never: stays so)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from pydantic_core import to_json

from consumer.simulator.account import Account
from consumer.simulator.answer import Answer, json_answer, read_object, refuse, refuse_fields
from consumer.simulator.chance import Durations, draw, token

ORDERS = "/api/v3/orders"

Fate = Literal["completes", "fails", "never"]
CompletedJob = Literal["tag", "redirect"]
UnknownOrders = Literal["not-found", "create"]
Change = Literal["change-status", "change-delivery"]


@dataclass(frozen=True, slots=True)
class Processing:
    """How Engage processes versions: how long, and what share of jobs fails or never completes."""

    durations: Durations
    failing: float = 0.0
    stuck: float = 0.0

    def fate(self, share: float) -> Fate:
        """Return the fate that belongs to a draw in [0, 1)."""
        if share < self.failing:
            return "fails"
        return "never" if share < self.failing + self.stuck else "completes"


@dataclass(slots=True)
class _Version:
    order_id: str | None  # None: of a job that was asked for before anybody told of its order
    number: int
    tag: str
    job_id: str
    done_at: float
    fails: bool
    deletes: bool
    contact: bool
    changed_at: str
    document: bytes | None  # JSON of the order; None where nobody gave one

    @property
    def path(self) -> str:
        return f"{ORDERS}/jobs/{quote(self.job_id, safe='')}"


@dataclass(slots=True)
class _Order:
    order_id: str
    numbered: int = 0  # versions so far, deleted and failed ones too: no tag ever comes back
    current: _Version | None = None
    waiting: list[_Version] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        return self.current is not None or bool(self.waiting)

    @property
    def newest(self) -> _Version | None:
        return self.waiting[-1] if self.waiting else self.current

    @property
    def path(self) -> str:
        return f"{ORDERS}/{quote(self.order_id, safe='')}"

    def settle(self, now: float) -> None:
        """Take in the versions whose time is over."""
        if not self.waiting:
            return
        for version in [version for version in self.waiting if version.done_at <= now]:
            self.waiting.remove(version)
            if version.fails:
                continue
            self.waiting = [later for later in self.waiting if later.number > version.number]
            if self.current is not None:
                self.current.document = None  # memory: nobody can see it any more
            self.current = None if version.deletes else version


class World:
    """All orders of one Engage tenant, and the account of what was done to them."""

    def __init__(
        self,
        *,
        seed: int,
        processing: Processing,
        completed_job: CompletedJob = "tag",
        unknown_orders: UnknownOrders = "not-found",
    ) -> None:
        self.account = Account()
        self._seed = seed
        self._processing = processing
        self._redirects = completed_job == "redirect"
        self._creates_unknown = unknown_orders == "create"
        self._orders: dict[str, _Order] = {}
        self._jobs: dict[str, _Version] = {}
        self._ownerless: dict[str, _Version] = {}  # by tag

    def clear(self) -> None:
        """Forget every order, job and action."""
        self.account.clear()
        self._orders.clear()
        self._jobs.clear()
        self._ownerless.clear()

    # The platform's side, for demos and tests

    def submit_order(
        self, order_id: str, now: float, *, contact: bool = True, takes_s: float | None = None, fate: Fate | None = None
    ) -> str:
        """Create the order, or replace it where it exists; return the job's id.

        `takes_s` and `fate` decide the processing, which is otherwise drawn.
        """
        order = self._order(order_id, now) or self._new_order(order_id)
        return self._change(order, now, contact=contact, takes_s=takes_s, fate=fate).job_id

    def outdate(self, order_id: str, now: float) -> None:
        """Give the order a new version that is processed at once, so that every tag known so far is stale."""
        order = self._order(order_id, now)
        if order is None or order.current is None:
            return
        order.numbered += 1
        order.current = replace(
            order.current,
            number=order.numbered,
            tag=token(self._seed, "tag", order_id, order.numbered),
            done_at=now,
            changed_at=_iso(now),
        )

    def current_tag(self, order_id: str, now: float) -> str | None:
        """Return the versionTag of the order's last processed version."""
        order = self._order(order_id, now)
        return order.current.tag if order is not None and order.current is not None else None

    # Engage's side: one method for each call

    def create_order(self, body: bytes, now: float) -> Answer:
        """POST /orders: 202, 400, or 409 where the order exists."""
        document = read_object(body)
        errors = _document_errors(document)
        if document is None or errors:
            return refuse_fields(errors)
        order_id = str(document["orderId"])
        order = self._order(order_id, now)
        if order is not None and order.exists:
            return refuse(409, "the order already exists")
        version = self._change(order or self._new_order(order_id), now, contact=_has_contact(document), document=body)
        return _taken(version)

    def replace_order(self, order_id: str, body: bytes, now: float) -> Answer:
        """PUT /orders/{orderId}: 202, 400 or 404."""
        order = self._order(order_id, now)
        if order is None or not order.exists:
            return _no_order()
        document = read_object(body)
        if document is not None:
            document.setdefault("orderId", order_id)
        errors = _document_errors(document)
        if document is not None and document["orderId"] != order_id:
            errors.append(("orderId", "differs from the order id in the path"))
        if document is None or errors:
            return refuse_fields(errors)
        return _taken(self._change(order, now, contact=_has_contact(document), document=body))

    def delete_order(self, order_id: str, now: float) -> Answer:
        """DELETE /orders/{orderId}: 202 or 404."""
        order = self._order(order_id, now)
        if order is None or not order.exists:
            return _no_order()
        return _taken(self._change(order, now, contact=False, deletes=True))

    def change_order(self, order_id: str, change: Change, body: bytes, now: float) -> Answer:
        """POST /orders/{orderId}/change-status or /change-delivery: 202, 400 or 404."""
        order = self._order(order_id, now)
        newest = None if order is None else order.newest
        if order is None or newest is None:
            return _no_order()
        changed = read_object(body)
        if not changed:
            return refuse_fields([("", "the body is no JSON object, or an empty one")])
        document = read_object(newest.document or b"") or _minimal_document(order_id, contact=newest.contact)
        document |= changed if change == "change-status" else {"delivery": changed.get("delivery", changed)}
        document["orderId"] = order_id
        return _taken(self._change(order, now, contact=newest.contact, document=to_json(document)))

    def job(self, job_id: str, now: float) -> Answer:
        """GET /orders/jobs/{jobId}: Processing, Completed (200 with the tag, or 302), Failed (422), or 404."""
        version = self._jobs.get(job_id)
        if version is None:
            if not self._creates_unknown:
                return refuse(404, "there is no such job")
            version = self._new_ownerless(job_id, now)
        answer: dict[str, object] = {"jobId": job_id, "href": version.path}
        if version.order_id is not None:
            answer["orderId"] = version.order_id
        if version.done_at > now:
            return json_answer(200, answer | {"status": "Processing"})
        if version.fails:
            errors = [{"message": "the order could not be processed"}]
            return json_answer(422, answer | {"status": "Failed", "errors": errors})
        if version.deletes:
            return json_answer(200, answer | {"status": "Completed"})
        answer |= {"status": "Completed", "versionTag": version.tag}
        if self._redirects and version.order_id is not None:
            return json_answer(302, answer, location=f"{ORDERS}/{quote(version.order_id, safe='')}")
        return json_answer(200, answer)

    def order(self, order_id: str, now: float) -> Answer:
        """GET /orders/{orderId}: its last processed version; without a tag before the first one; 404."""
        order = self._order(order_id, now)
        if order is None and self._creates_unknown:
            order = self._new_order(order_id)
            self._change(order, now, contact=True)
        if order is None or not order.exists:
            return _no_order()
        shown = order.current or order.waiting[-1]
        body = read_object(shown.document or b"") or _minimal_document(order_id, contact=shown.contact)
        body.setdefault("lastChangedAt", shown.changed_at)
        body.pop("versionTag", None)
        if order.current is not None:
            body["versionTag"] = order.current.tag
        return json_answer(200, body)

    def act(self, order_id: str, body: bytes, now: float) -> Answer:
        """POST /orders/{orderId}/action: 202; 400; 404 (no order, or the tag doesn't match); 422 (no contact)."""
        request = read_object(body)
        errors = _action_errors(request)
        if request is None or errors:
            return refuse_fields(errors)
        tag, language = str(request["versionTag"]), request.get("language")
        current = self._current(order_id, tag, now)
        if current is None:
            return refuse(404, "the order was not found, or versionTag did not match it")
        if not current.contact:
            return refuse(422, "the order has no contact")
        self.account.accept(
            order_id,
            str(request["action"]),
            tag,
            language if isinstance(language, str) else None,
            request.get("data"),
            tag_ready_at=current.done_at,
            now=now,
        )
        return Answer(202)

    # Orders and their versions

    def _order(self, order_id: str, now: float) -> _Order | None:
        order = self._orders.get(order_id)
        if order is not None:
            order.settle(now)
        return order

    def _new_order(self, order_id: str) -> _Order:
        order = self._orders[order_id] = _Order(order_id)
        return order

    def _current(self, order_id: str, tag: str, now: float) -> _Version | None:
        """Return the order's processed version where it has this tag."""
        order = self._order(order_id, now)
        if order is not None and order.current is not None and order.current.tag == tag:
            return order.current
        # The tag of an ownerless job: now we learn whose it is (events name both, the job was asked for alone).
        version = self._ownerless.get(tag)
        if version is None or version.done_at > now or version.fails:
            return None
        order = order or self._new_order(order_id)
        order.numbered += 1
        version.order_id, version.number = order_id, order.numbered
        order.current = version
        return self._ownerless.pop(tag)

    def _change(
        self,
        order: _Order,
        now: float,
        *,
        contact: bool,
        document: bytes | None = None,
        deletes: bool = False,
        takes_s: float | None = None,
        fate: Fate | None = None,
    ) -> _Version:
        order.numbered += 1
        subject = (order.order_id, order.numbered)
        version = self._version(
            token(self._seed, "job", *subject), subject, now, contact=contact, takes_s=takes_s, fate=fate
        )
        version.order_id = order.order_id
        version.deletes = deletes
        version.document = document
        before = [earlier.done_at for earlier in order.waiting if earlier.done_at < math.inf]
        version.done_at = max([version.done_at, *before])  # rule 2
        order.waiting.append(version)
        order.settle(now)
        return version

    def _new_ownerless(self, job_id: str, now: float) -> _Version:
        version = self._version(job_id, (job_id, 0), now, contact=True)
        self._ownerless[version.tag] = version
        return version

    def _version(
        self,
        job_id: str,
        subject: tuple[str, int],
        now: float,
        *,
        contact: bool,
        takes_s: float | None = None,
        fate: Fate | None = None,
    ) -> _Version:
        if takes_s is None:
            takes_s = self._processing.durations.quantile(draw(self._seed, "duration", *subject))
        if fate is None:
            fate = self._processing.fate(draw(self._seed, "fate", *subject))
        version = _Version(
            order_id=None,
            number=subject[1],
            tag=token(self._seed, "tag", *subject),
            job_id=job_id,
            done_at=math.inf if fate == "never" else now + takes_s,
            fails=fate == "fails",
            deletes=False,
            contact=contact,
            changed_at=_iso(now),
            document=None,
        )
        self._jobs[job_id] = version
        return version


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat()


def _taken(version: _Version) -> Answer:
    body = {"jobId": version.job_id, "status": "Processing", "orderId": version.order_id, "href": version.path}
    return json_answer(202, body)


def _no_order() -> Answer:
    return refuse(404, "there is no such order")


def _minimal_document(order_id: str, *, contact: bool) -> dict[str, object]:
    linked = {"contact": {"matchKey": "customer@example.com", "matchKeyType": "Email"}} if contact else {}
    return {"orderId": order_id, **linked}


def _has_contact(document: dict[str, object]) -> bool:
    contact = document.get("contact")
    return isinstance(contact, dict) and bool(contact.get("matchKey"))


def _document_errors(document: dict[str, object] | None) -> list[tuple[str, str]]:
    if document is None:
        return [("", "the body is no JSON object")]
    errors: list[tuple[str, str]] = []
    order_id, contact, action = document.get("orderId"), document.get("contact"), document.get("orderAction")
    if not isinstance(order_id, str) or not order_id:
        errors.append(("orderId", "is required: text that is not empty"))
    if contact is not None and not isinstance(contact, dict):
        errors.append(("contact", "is no object"))
    if action is not None and not (isinstance(action, dict) and _is_action_name(action.get("action"))):
        errors.append(("orderAction", "has no known action"))
    return errors


def _action_errors(request: dict[str, object] | None) -> list[tuple[str, str]]:
    if request is None:
        return [("", "the body is no JSON object")]
    errors: list[tuple[str, str]] = []
    tag = request.get("versionTag")
    if not _is_action_name(request.get("action")):
        errors.append(("action", "is required: text that is not empty"))
    if not isinstance(tag, str) or not tag:
        errors.append(("versionTag", "is required: text that is not empty"))
    if not isinstance(request.get("language"), str | None):
        errors.append(("language", "is no text"))
    return errors


def _is_action_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)  # Docs: the merchant determines it
