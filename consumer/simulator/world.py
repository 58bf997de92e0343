"""Engage in small: orders, their versions, the jobs that process them, and the actions upon them.

Every call answers as Voyado's public documentation of the order API (v3) says; what it leaves open is decided here,
to the relay's disadvantage where possible, so that a test is never easier than production.
Rules:
 1. Nothing here waits, reads a clock, or does I/O: `now` (seconds since 1970, never going back) comes with every call.
 2. A change of an order (create, replace, delete, change status or delivery) makes a new version with a job. The
    versions of one order are processed in their order: none is done before the one before it. (One that never
    completes delays no other.)
 3. When a version is done, its tag is *the* tag of the order; every older one is stale from then on, and not before.
    Until then the order shows the last processed version, with its old tag. Before the first it shows no tag.
 4. How long processing takes and whether it succeeds depends on the seed, the order id and the version's number only.
 5. An order exists from the moment its creation was accepted until its creation failed or its deletion is done.
 6. An `orderAction` in a document is applied when that version is processed, once for each such version. If the
    order has no contact then, it is not applied: only the integration log says so.
 7. An order whose contact is unknown is processed all the same. Only its actions are refused (422), until the contact
    comes and the order is linked to it (moods.py says by what).

Job:  PROCESSING ──time over──> COMPLETED (tag), or another word
          │            └──────> FAILED
          └── (never: stays so)
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from pydantic_core import to_json

from consumer.simulator.account import Account
from consumer.simulator.answer import Answer, json_answer, read_object, refuse, refuse_fields
from consumer.simulator.bodies import (
    Change,
    OrderAction,
    action_errors,
    apply_change,
    change_errors,
    document_errors,
    minimal_document,
    names_contact,
    order_action,
)
from consumer.simulator.chance import Durations, draw, token
from consumer.simulator.moods import Moods, Shares, pick

ORDERS = "/api/v3/orders"

Fate = Literal["completes", "fails", "never"]
UnknownOrders = Literal["not-found", "create"]

COMPLETED = "Completed"
FAILED_WORDS = ("fail", "error")  # how the words begin that a failed job says


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


@dataclass(slots=True, kw_only=True)
class _Version:
    order_id: str | None  # None: a job that was polled before its order was known
    number: int
    tag: str
    job_id: str
    done_at: float
    fails: bool
    deletes: bool
    contact: bool  # it names one, known or not
    contact_sought_at: float  # when the newest document was processed, and its contact sought
    changed_at: str | None  # what the simulator's own document says
    word: str  # its job's status when it is done
    waiting_word: str
    document: bytes | None = None  # JSON of the order; None where nobody gave one
    action: OrderAction | None = None

    @property
    def path(self) -> str:
        return f"{ORDERS}/jobs/{quote(self.job_id, safe='')}"


@dataclass(slots=True)
class _Order:
    order_id: str
    contact_at: float  # when Engage knows its contact
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

    def settle(self, now: float) -> list[_Version]:
        """Process the versions that are due. Returns those that did not fail, oldest first."""
        done = [version for version in self.waiting if version.done_at <= now]
        for version in done:
            self.waiting.remove(version)
            if version.fails:
                continue
            self.waiting = [later for later in self.waiting if later.number > version.number]
            if self.current is not None:
                self.current.document = None  # memory: nobody can see it any more
            self.current = None if version.deletes else version
        return [version for version in done if not version.fails]


class World:
    """All orders of one Engage tenant, and the account of what was done to them."""

    def __init__(
        self,
        *,
        seed: int,
        processing: Processing,
        moods: Moods | None = None,
        unknown_orders: UnknownOrders = "not-found",
    ) -> None:
        self.account = Account()
        self._seed = seed
        self._processing = processing
        self._moods = (moods or Moods()).parse()
        self._creates_unknown = unknown_orders == "create"
        self._orders: dict[str, _Order] = {}
        self._jobs: dict[str, _Version] = {}
        self._ownerless: dict[str, _Version] = {}  # by tag
        self._due: list[tuple[float, int, _Order]] = []  # when an order has a version that is done; a heap
        self._queued = 0

    def clear(self) -> None:
        """Forget every order, job and action."""
        self.account.clear()
        self._orders.clear()
        self._jobs.clear()
        self._ownerless.clear()
        self._due.clear()

    def settle(self, now: float) -> None:
        """Process what is due, in the order of its time: the account is complete up to `now`."""
        while self._due and self._due[0][0] <= now:
            done_at, _, order = heapq.heappop(self._due)
            for version in order.settle(done_at):
                self._processed(order, version)

    def set_moods(self, moods: Moods) -> None:
        """Replace the moods. Contacts and words are drawn when an order is first named and when a job begins."""
        self._moods = moods.parse()

    def register_contacts(self, order_ids: Iterable[str], now: float) -> None:
        """Let the contacts of these orders come now, unless they came before."""
        for order_id in order_ids:
            order = self._order(order_id, now) or self._new_order(order_id, now)
            order.contact_at = min(order.contact_at, now)

    # The platform's side, for demos and tests

    def submit_order(
        self, order_id: str, now: float, *, contact: bool = True, takes_s: float | None = None, fate: Fate | None = None
    ) -> str:
        """Create the order, or replace it where it exists; return the job's id.

        `contact` says whether it names one. `takes_s` and `fate` decide the processing, which is otherwise drawn.
        """
        order = self._order(order_id, now) or self._new_order(order_id, now)
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
            changed_at=self._changed_at(now),
        )

    def current_tag(self, order_id: str, now: float) -> str | None:
        """Return the versionTag of the order's last processed version."""
        order = self._order(order_id, now)
        return order.current.tag if order is not None and order.current is not None else None

    # Engage's side: one method for each call

    def create_order(self, body: bytes, now: float) -> Answer:
        """POST /orders: 202, 400, or 409 where the order exists."""
        document = read_object(body)
        errors = document_errors(document)
        if document is None or errors:
            return refuse_fields(errors)
        order_id = str(document["orderId"])
        order = self._order(order_id, now)
        if order is not None and order.exists:
            return refuse(409, "the order already exists")
        return self._taken(self._put(order or self._new_order(order_id, now), document, body, now))

    def replace_order(self, order_id: str, body: bytes, now: float) -> Answer:
        """PUT /orders/{orderId}: 202, 400 or 404."""
        order = self._order(order_id, now)
        if order is None or not order.exists:
            return _no_order()
        document = read_object(body)
        if document is not None:
            document.setdefault("orderId", order_id)
        errors = document_errors(document)
        if document is not None and document["orderId"] != order_id:
            errors.append(("orderId", "differs from the order id in the path"))
        if document is None or errors:
            return refuse_fields(errors)
        return self._taken(self._put(order, document, body, now))

    def delete_order(self, order_id: str, now: float) -> Answer:
        """DELETE /orders/{orderId}: 202 or 404."""
        order = self._order(order_id, now)
        if order is None or not order.exists:
            return _no_order()
        return self._taken(self._change(order, now, contact=False, deletes=True))

    def change_order(self, order_id: str, change: Change, body: bytes, now: float) -> Answer:
        """POST /orders/{orderId}/change-status or /change-delivery: 202, 400 or 404."""
        order = self._order(order_id, now)
        newest = None if order is None else order.newest
        if order is None or newest is None:
            return _no_order()
        changed = read_object(body)
        errors = change_errors(change, changed)
        if changed is None or errors:
            return refuse_fields(errors)
        document = self._document(order_id, newest)
        apply_change(document, change, changed)
        version = self._change(order, now, contact=newest.contact, document=to_json(document))
        version.contact_sought_at = newest.contact_sought_at  # only a whole document says whose order it is
        return self._taken(version)

    def job(self, job_id: str, now: float) -> Answer:
        """GET /orders/jobs/{jobId}: Processing, Completed (200 with the tag, or 302), Failed (422), or 404.

        In other moods, other words: a completed job has its tag only where it says Completed.
        """
        self.settle(now)
        version = self._jobs.get(job_id)
        if version is None:
            if not self._creates_unknown:
                return refuse(404, "there is no such job")
            version = self._new_ownerless(job_id, now)
        answer: dict[str, object] = {"jobId": job_id, "href": version.path}
        if version.order_id is not None:
            answer["orderId"] = version.order_id
        if version.done_at > now:
            return json_answer(200, answer | {"status": version.waiting_word})
        if version.fails:
            errors = [{"message": "the order could not be processed"}]
            if version.word == COMPLETED:
                return json_answer(422, answer | {"status": "Failed", "errors": errors})
            return json_answer(200, answer | {"status": version.word, "errors": errors})
        answer["status"] = version.word
        if version.deletes:
            return json_answer(200, answer)
        if version.word == COMPLETED:
            answer["versionTag"] = version.tag
        redirect = self._picked(self._moods.redirects, "redirect", job_id)
        if redirect is not None and version.order_id is not None:
            location = f"{ORDERS}/{quote(version.order_id, safe='')}"
            return json_answer(302, answer, location=location, redirect=redirect)
        return json_answer(200, answer)

    def order(self, order_id: str, now: float) -> Answer:
        """GET /orders/{orderId}: its last processed version; without a tag before the first one; 404."""
        order = self._order(order_id, now)
        if order is None and self._creates_unknown:
            order = self._new_order(order_id, now)
            self._change(order, now, contact=True)
        if order is None or not order.exists:
            return _no_order()
        body = self._document(order_id, order.current or order.waiting[-1])
        if order.current is not None:
            body["versionTag"] = order.current.tag
        return json_answer(200, body)

    def act(self, order_id: str, body: bytes, now: float) -> Answer:
        """POST /orders/{orderId}/action: 202; 400; 404 (no order, or the tag doesn't match); 422 (no contact)."""
        request = read_object(body)
        errors = action_errors(request)
        if request is None or errors:
            return refuse_fields(errors)
        tag, language = str(request["versionTag"]), request.get("language")
        found = self._current(order_id, tag, now)
        if found is None:
            return refuse(404, "the order was not found, or versionTag did not match it")
        order, current = found
        action = OrderAction(
            str(request["action"]), language if isinstance(language, str) else None, request.get("data")
        )
        if not self._is_linked(order, current, now):
            self.account.refused_without_contact(order_id, action.action, action.language, action.data)
            return refuse(422, "the order has no contact")
        self._accept(order_id, current, action, now)
        return Answer(status=self._acceptance("action", tag, action.action))

    # Orders and their versions

    def _order(self, order_id: str, now: float) -> _Order | None:
        self.settle(now)
        return self._orders.get(order_id)

    def _new_order(self, order_id: str, now: float) -> _Order:
        moods, chance = self._moods.moods, draw(self._seed, "contact", order_id)
        contact_at = -math.inf
        if chance < moods.late_contacts:
            contact_at = now + self._moods.contact_delay.quantile(draw(self._seed, "contact-delay", order_id))
        elif chance < moods.late_contacts + moods.missing_contacts:
            contact_at = math.inf
        order = self._orders[order_id] = _Order(order_id, contact_at)
        return order

    def _is_linked(self, order: _Order, version: _Version, now: float) -> bool:
        """Say whether the order has a contact: it names one, Engage knows it, and found it for this order."""
        found_by = now if self._moods.moods.contact_link == "itself" else min(now, version.contact_sought_at)
        return version.contact and order.contact_at <= found_by

    def _current(self, order_id: str, tag: str, now: float) -> tuple[_Order, _Version] | None:
        """Return the order and its processed version where it has this tag."""
        order = self._order(order_id, now)
        if order is not None and order.current is not None and order.current.tag == tag:
            return order, order.current
        # The tag of an ownerless job: now we learn whose it is (events name both, the job was asked for alone).
        version = self._ownerless.get(tag)
        if version is None or version.done_at > now or version.fails:
            return None
        order = order or self._new_order(order_id, now)
        order.numbered += 1
        version.order_id, version.number = order_id, order.numbered
        order.current = version
        return order, self._ownerless.pop(tag)

    def _put(self, order: _Order, document: dict[str, object], body: bytes, now: float) -> _Version:
        """Take in a whole document, with the action that it may bring."""
        action = order_action(document)
        return self._change(order, now, contact=names_contact(document), document=body, action=action)

    def _change(
        self,
        order: _Order,
        now: float,
        *,
        contact: bool,
        document: bytes | None = None,
        action: OrderAction | None = None,
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
        version.action = action
        before = [earlier.done_at for earlier in order.waiting if earlier.done_at < math.inf]
        version.done_at = max([version.done_at, *before])  # rule 2
        version.contact_sought_at = version.done_at
        order.waiting.append(version)
        if version.done_at < math.inf:
            self._queued += 1
            heapq.heappush(self._due, (version.done_at, self._queued, order))
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
        word = COMPLETED
        if fate is None:
            fate = self._processing.fate(draw(self._seed, "fate", *subject))
            word = self._picked(self._moods.job_words, "word", *subject) or COMPLETED
        done_at = math.inf if fate == "never" else now + takes_s
        version = _Version(
            order_id=None,
            number=subject[1],
            tag=token(self._seed, "tag", *subject),
            job_id=job_id,
            done_at=done_at,
            fails=fate == "fails" or word.lower().startswith(FAILED_WORDS),
            deletes=False,
            contact=contact,
            contact_sought_at=done_at,
            changed_at=self._changed_at(now),
            word=word,
            waiting_word=self._picked(self._moods.waiting_words, "waiting", *subject) or "Processing",
        )
        self._jobs[job_id] = version
        return version

    def _processed(self, order: _Order, version: _Version) -> None:
        """Do what follows from a version's processing."""
        if version.deletes:
            return
        now, action = version.done_at, version.action
        if version.contact and order.contact_at > now:
            self.account.integration_log["the contact is unknown"] += 1
        if action is None:
            return
        if self._is_linked(order, version, now):
            self._accept(order.order_id, version, action, now, with_document=True)
        else:
            self.account.integration_log["an orderAction found no contact"] += 1

    def _accept(
        self, order_id: str, version: _Version, action: OrderAction, now: float, *, with_document: bool = False
    ) -> None:
        self.account.accept(
            order_id,
            action.action,
            version.tag,
            action.language,
            action.data,
            tag_ready_at=version.done_at,
            now=now,
            with_document=with_document,
        )

    def _document(self, order_id: str, version: _Version) -> dict[str, object]:
        """Return the order as this version has it. A command is no part of it, and neither is a merchant's tag."""
        document = read_object(version.document or b"")
        if document is None:
            document = minimal_document(order_id, contact=version.contact, changed_at=version.changed_at)
        document["orderId"] = order_id
        document.pop("versionTag", None)
        document.pop("orderAction", None)
        return document

    def _changed_at(self, now: float) -> str | None:
        return datetime.fromtimestamp(now, UTC).isoformat() if self._moods.moods.last_changed_at else None

    def _taken(self, version: _Version) -> Answer:
        body = {"jobId": version.job_id, "status": "Processing", "orderId": version.order_id, "href": version.path}
        return json_answer(self._acceptance("document", version.job_id), body)

    def _acceptance(self, *subject: str) -> int:
        """Return the status of an acceptance. Docs: 202, on one page 201."""
        created = self._moods.moods.created
        return 201 if created and draw(self._seed, "created", *subject) < created else 202

    def _picked(self, shares: Shares, *subject: str | int) -> str | None:
        """Draw from the shares; nothing is drawn where there are none, which is most of the time."""
        return pick(shares, draw(self._seed, *subject)) if shares else None


def _no_order() -> Answer:
    return refuse(404, "there is no such order")
