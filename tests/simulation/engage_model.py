"""Engage, behind the EngageClient's methods: one typed outcome per call, all that there are."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from consumer.core.effects import Document
from consumer.core.outcomes import (
    Accepted,
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
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.engage.client import Permit, at_once
from consumer.engage.http import MaySend
from schemas.engage import ActionRequest, Change
from tests.simulation import faults
from tests.simulation.oracle import DEADLINE_S
from tests.simulation.process import Process
from tests.simulation.workload import Event

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler

TIMEOUT_S = 10.0  # of the client: it ends a request after twice as long
POLL_FAULTS = ("404", "401", "403", "429", "503", "timeout", "400", "job failed")
DOCUMENT_FAULTS = ("401", "403", "429", "503", "400", "502 applied", "502 applied")
WORKS_S = (0.5, 4.0, 15.0)  # at a document, at the longest: within a hand-over's time, and a session's beside the lease
WORKS_ON_S = (0.5, 15.0, 25.0)  # at one that a gateway answered: within `processing_s`
WITH_DOCUMENT_FAULTS = ("401", "403", "429", "400", "answer lost", "answer lost", "request lost")
ACTION_FAULTS = (
    "404", "401", "403", "429", "429 for long", "503", "refused", "400", "500 processed", "500 not processed",
    "answer lost", "request lost", "processed late",
)  # fmt: skip


class SimulatedEngage:
    """One process's client."""

    def __init__(self, process: Process, connection: str) -> None:
        self._process = process
        self._connection = connection
        self._scheduler: Scheduler = process.scheduler
        self._without_job: tuple[str, Event] | None = None  # whose job was asked for last, and is missing

    async def _sleep(self, seconds: float) -> None:
        loop = self._process.loop
        future = loop.create_future()
        loop.call_later(seconds, future.set_result, None)
        await future

    async def _asked(self, errors: tuple[str, ...], event: Event | None = None) -> str:
        """Make a request; returns what goes wrong with it. A firewall lets none pass that is about one event."""
        self._scheduler.oracle.requested(self._process, self._connection)
        client_error = self._scheduler.client_error(errors)
        if event is not None and event.nature == "forbidden":
            client_error = "403"
        if self._scheduler.chance(0.5):
            await self._sleep(self._scheduler.pick((0.01, 0.1, 1.0)))
        return client_error

    async def _continues(self, permit: Permit) -> bool:
        """Tell whether the call takes another request: a redirect, an order behind its job, a PUT after a POST."""
        if not self._scheduler.chance(0.5):
            return True
        may = await permit()
        self._scheduler.reach("a call continued" if may else "a call was not to continue")
        if may:
            await self._asked(())
        return may

    async def poll_job(self, job_id: str, permit: Permit, *, order_id: str) -> PollOutcome:
        event = self._scheduler.events[int(job_id.split("-")[1])]
        self._without_job = (order_id, event) if event.nature == "missing" else None
        return await self._poll(event, permit)

    async def poll_order(
        self, order_id: str, newer_than: datetime | None = None, permit: Permit = at_once
    ) -> PollOutcome:
        if newer_than is not None and newer_than.timestamp() > self._scheduler.now:
            self._scheduler.reach("an order was wanted as it will be in the future")
            await self._asked(())
            return NotReady()
        if self._without_job is not None and order_id == self._without_job[0]:
            self._scheduler.reach("an order was asked for whose job is missing")
            if self._without_job[1].number % 2:
                await self._asked(())
                return NotFound()
        return await self._poll(None, permit)

    async def _poll(self, event: Event | None, permit: Permit) -> PollOutcome:
        """Answer a poll of a job (`event`), or of an order. A job that failed stays so: Engage works on it no more."""
        client_error = await self._asked(POLL_FAULTS, event)
        if client_error == "ok" and event is not None and event.job_failed:
            client_error = "job failed"
        self._scheduler.reach(f"poll: {client_error}")
        match client_error:
            case "404":
                return NotFound()
            case "401":
                return Unauthorized(401)
            case "403":
                return Forbidden()
            case "429":
                return Throttled(self._scheduler.pick((None, 1.0, 30.0)))
            case "503":
                return Unavailable("503")
            case "timeout":
                await self._sleep(2 * TIMEOUT_S)
                return Unavailable("time-out")
            case "400":
                return Rejected(400, "refused")
            case "job failed" if event is not None and not (event.travels and event.accepted):
                event.job_failed = True
                return JobFailed("failed")
        if event is not None and event.nature == "missing":
            return NotFound()
        if event is not None and self._scheduler.now < event.ready_at:
            self._scheduler.oracle.not_ready(self._process, event)
            return NotReady()
        return Ready(f"tag {self._scheduler.now}") if await self._continues(permit) else NotReady()

    async def send_document(
        self, order_id: str, document: dict[str, object], permit: Permit, may_send: MaySend, how: Document
    ) -> DocumentOutcome:
        event = self._scheduler.events[int(cast("int", document["n"]))]
        client_error = await self._asked(DOCUMENT_FAULTS, event)
        if not how.exists:
            if not may_send():
                self._scheduler.reach("a document was withdrawn")
                return Withdrawn()
            answer = await self._document(event, client_error, replaces=False)
            if answer is not None:
                return answer
            if not how.replaces:
                return OrderKept()
            if not await self._continues(permit):
                return Unavailable("not replaced yet")
            client_error = self._scheduler.client_error(DOCUMENT_FAULTS)
        if not may_send():
            self._scheduler.reach("an order was not replaced any more")
            return Withdrawn() if how.exists else OrderExists()
        return await self._document(event, client_error, replaces=True) or DocumentTaken(None)

    async def _document(self, event: Event, client_error: str, *, replaces: bool) -> DocumentOutcome | None:
        """Send it. None: the order exists, and this request does not replace it."""
        scheduler, exists = self._scheduler, False
        if event.nature == "slow":
            client_error = "502 applied"
            if not event.struck and scheduler.now > event.first_seen + DEADLINE_S:
                event.struck = True
                faults.strike_late_document(scheduler)

        def apply() -> None:
            nonlocal exists
            exists = not replaces and scheduler.oracle.has_order(event)
            if not exists:
                scheduler.oracle.document_applied(self._process, event)

        longest = scheduler.pick(WORKS_S) if scheduler.profile.documents else 0.3 * scheduler.profile.session_s
        takes_s = scheduler.pick((0.01, 0.5, longest) if client_error == "ok" else WORKS_ON_S)
        with scheduler.oracle.document_under_way(self._process, event):
            scheduler.reach(f"document: {client_error}")
            faults.strike_document(scheduler, self._process, answered=client_error == "502 applied")
            if client_error in ("ok", "502 applied"):
                scheduler.at(scheduler.now + takes_s, apply)
            if client_error == "502 applied":
                scheduler.supersede(event)
            await self._sleep(0.01 if client_error == "502 applied" else takes_s)
        match client_error:
            case "401":
                return Unauthorized(401)
            case "403":
                return Forbidden()
            case "429":
                return Throttled(scheduler.pick((None, 1.0, 30.0)))
            case "400":
                return Rejected(400, "refused")
            case "503":
                return Unavailable(client_error)
            case "502 applied":
                return Unavailable(client_error, answered=True, may_be_processed=True)
        if exists:
            return None
        return DocumentTaken(f"job-{event.number}" if scheduler.chance(0.8) else None)

    async def send_change(
        self, order_id: str, change: Change, body: dict[str, object], may_send: MaySend
    ) -> DocumentOutcome:
        event = self._scheduler.events[int(cast("int", body["n"]))]
        client_error = await self._asked(DOCUMENT_FAULTS, event)
        if not may_send():
            self._scheduler.reach("a change was withdrawn")
            return Withdrawn()
        self._scheduler.reach("an order was changed")
        return await self._document(event, client_error, replaces=True) or DocumentTaken(None)

    async def send_with_document(
        self, order_id: str, document: dict[str, object], permit: Permit, may_send: MaySend, how: Document
    ) -> WithDocumentOutcome:
        scheduler = self._scheduler
        event = scheduler.events[int(cast("int", document["n"]))]
        client_error = await self._asked(WITH_DOCUMENT_FAULTS, event)
        if not may_send():
            scheduler.reach("a document with an action was withdrawn")
            return Withdrawn()
        if not how.exists and scheduler.oracle.has_order(event):
            if not how.replaces:
                return OrderKept()
            if not await self._continues(permit):
                return Unavailable("not replaced yet")
            if not may_send():
                return OrderExists()
        post = scheduler.oracle.posted(self._process, event)
        with scheduler.oracle.document_under_way(self._process, event):
            outcome = await self._with_document(event, client_error)
        scheduler.reach(f"with document: {client_error}")
        if isinstance(outcome, DocumentTaken):
            scheduler.oracle.answered(self._process, event, post, Accepted())
        elif not isinstance(outcome, InDoubt):
            scheduler.oracle.answered(self._process, event, post, Rejected(0, client_error))
        return outcome

    async def _with_document(self, event: Event, client_error: str) -> WithDocumentOutcome:
        scheduler, sent_in = self._scheduler, event.round

        def apply() -> None:
            if not event.job_failed:
                scheduler.oracle.document_applied(self._process, event)
                scheduler.oracle.accepted(event, sent_in)

        match client_error:
            case "401":
                return Unauthorized(401)
            case "403":
                return Forbidden()
            case "429":
                return Throttled(scheduler.pick((None, 2.0)))
            case "400":
                return Rejected(400, "refused")
        takes_s = scheduler.pick(WORKS_ON_S)
        if client_error in ("ok", "answer lost"):
            event.ready_at = scheduler.now + takes_s  # its newest job's
            event.job_failed = False
            scheduler.at(scheduler.now + takes_s, apply)
        await self._sleep(scheduler.pick((0.01, 0.5) if client_error == "ok" else (0.01, 2 * TIMEOUT_S)))
        if client_error == "ok":
            return DocumentTaken(f"job-{event.number}")
        return InDoubt(client_error)

    async def send_action(self, order_id: str, request: ActionRequest, may_send: MaySend) -> ActionOutcome:
        event = self._scheduler.events[int(cast("int", request.data))]
        client_error = await self._asked(ACTION_FAULTS, event)
        if client_error == "refused":
            return Unavailable("refused")
        if not may_send():
            self._scheduler.reach("an action was withdrawn")
            return Withdrawn()
        post = self._scheduler.oracle.posted(self._process, event)
        if event.nature == "stale":
            client_error = "404"
        if client_error == "ok" and self._scheduler.now < event.contact_at:
            client_error = "422"
        outcome = await self._answer(event, client_error)
        self._scheduler.reach(f"action: {client_error}")
        if not isinstance(outcome, InDoubt):
            self._scheduler.oracle.answered(self._process, event, post, outcome)
        return outcome

    async def _answer(self, event: Event, client_error: str) -> ActionOutcome:
        scheduler, short = self._scheduler, self._scheduler.pick((0.0, 0.05, 0.5))

        def process(after: float) -> None:
            scheduler.at(scheduler.now + after, partial(scheduler.oracle.accepted, event, event.round))

        match client_error:
            case "ok":
                process(short)
                await self._sleep(2 * short)
                return Accepted()
            case "404":
                return StaleTag()
            case "401":
                return Unauthorized(401)
            case "403":
                return Forbidden()
            case "422":
                scheduler.oracle.without_contact(event)
                return NoContact()
            case "429":
                return Throttled(scheduler.pick((None, 2.0)))
            case "429 for long":
                return Throttled(300.0)
            case "503":
                return Unavailable("503")
            case "400":
                return Rejected(400, "refused")
            case "answer lost" | "500 processed":
                process(short)
            case "processed late":
                process(scheduler.pick((5.0, 30.0, 100.0)))
        await self._sleep(scheduler.pick((2 * short, TIMEOUT_S, 2 * TIMEOUT_S)))
        return InDoubt(client_error)

    async def aclose(self) -> None:
        """Nothing to close."""
