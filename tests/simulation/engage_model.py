"""Engage, behind the EngageClient's methods: one typed outcome per call, all that there are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, cast

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
from consumer.engage.client import Permit, at_once
from consumer.engage.http import MaySend
from schemas.engage import ActionRequest
from tests.simulation.process import Process
from tests.simulation.workload import Event

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler

TIMEOUT_S = 10.0  # of the client: it ends a request after twice as long
POLL_FAULTS = ("404", "401", "429", "503", "timeout", "400", "job failed")
ACTION_FAULTS = (
    "404", "401", "429", "429 for long", "503", "refused", "400", "500 processed", "500 not processed", "answer lost",
    "request lost", "processed late",
)  # fmt: skip


class SimulatedEngage:
    """One process's client."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._scheduler: Scheduler = process.scheduler

    async def _sleep(self, seconds: float) -> None:
        loop = self._process.loop
        future = loop.create_future()
        loop.call_later(seconds, future.set_result, None)
        await future

    async def _asked(self, errors: tuple[str, ...]) -> str:
        self._scheduler.oracle.requested(self._process)
        client_error = self._scheduler.client_error(errors)
        if self._scheduler.chance(0.5):
            await self._sleep(self._scheduler.pick((0.01, 0.1, 1.0)))
        return client_error

    async def _continues(self, permit: Permit) -> bool:
        """Tell whether the call takes another request: a redirect, an order behind its job, a PUT after a POST."""
        if not self._scheduler.chance(0.2):
            return True
        may = await permit()
        self._scheduler.reach("a call continued" if may else "a call was not to continue")
        if may:
            await self._asked(())
        return may

    async def poll_job(self, job_id: str, permit: Permit) -> PollOutcome:
        event = self._scheduler.events[int(job_id.split("-")[1])]
        return await self._poll(event, permit)

    async def poll_order(
        self, order_id: str, newer_than: datetime | None = None, permit: Permit = at_once
    ) -> PollOutcome:
        if newer_than is not None and newer_than.timestamp() > self._scheduler.now:
            self._scheduler.reach("an order was wanted as it will be in the future")
            await self._asked(())
            return NotReady()
        return await self._poll(None, permit)

    async def _poll(self, event: Event | None, permit: Permit) -> PollOutcome:
        client_error = await self._asked(POLL_FAULTS)
        self._scheduler.reach(f"poll: {client_error}")
        match client_error:
            case "404":
                return NotFound()
            case "401":
                return Unauthorized(401)
            case "429":
                return Throttled(self._scheduler.pick((None, 1.0, 30.0)))
            case "503":
                return Unavailable("503")
            case "timeout":
                await self._sleep(2 * TIMEOUT_S)
                return Unavailable("time-out")
            case "400":
                return Rejected(400, "refused")
            case "job failed" if event is not None:
                return JobFailed("failed")
        if event is not None and event.nature == "missing":
            return NotFound()
        if event is not None and self._scheduler.now < event.ready_at:
            return NotReady()
        return Ready(f"tag {self._scheduler.now}") if await self._continues(permit) else NotReady()

    async def send_document(self, order_id: str, document: dict[str, object], permit: Permit) -> DocumentOutcome:
        client_error = await self._asked(POLL_FAULTS)
        if not await self._continues(permit):
            return Unavailable("not replaced yet")
        if client_error in ("ok", "404", "job failed"):
            return DocumentTaken(f"job-{document['n']}" if self._scheduler.chance(0.8) else None)
        return Unavailable(client_error)

    async def send_action(self, order_id: str, request: ActionRequest, may_send: MaySend) -> ActionOutcome:
        client_error = await self._asked(ACTION_FAULTS)
        if client_error == "refused":
            return Unavailable("refused")
        if not may_send():
            self._scheduler.reach("an action was withdrawn")
            return Withdrawn()
        event = self._scheduler.events[int(cast("int", request.data))]
        epoch = self._scheduler.oracle.posted(self._process, event)
        if event.nature == "stale":
            client_error = "404"
        outcome = await self._answer(event, client_error)
        self._scheduler.reach(f"action: {client_error}")
        if not isinstance(outcome, InDoubt):
            self._scheduler.oracle.answered(self._process, event, epoch, outcome)
        return outcome

    async def _answer(self, event: Event, client_error: str) -> ActionOutcome:
        scheduler, short = self._scheduler, self._scheduler.pick((0.0, 0.05, 0.5))

        def process(after: float) -> None:
            scheduler.at(scheduler.now + after, lambda: scheduler.oracle.accepted(event))

        match client_error:
            case "ok":
                process(short)
                await self._sleep(2 * short)
                return Accepted()
            case "404":
                return StaleTag()
            case "401":
                return Unauthorized(401)
            case "429":
                return Throttled(scheduler.pick((None, 2.0)))
            case "429 for long":
                return Throttled(300.0)
            case "503":
                return Unavailable("503")
            case "400":
                return Rejected(422, "no contact")
            case "answer lost" | "500 processed":
                process(short)
            case "processed late":
                process(scheduler.pick((5.0, 30.0, 100.0)))
        await self._sleep(scheduler.pick((2 * short, TIMEOUT_S, 2 * TIMEOUT_S)))
        return InDoubt(client_error)

    async def aclose(self) -> None:
        """Nothing to close."""
