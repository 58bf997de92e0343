"""Engage in the world, behind the EngageClient's methods: one typed outcome per call, all that there are."""

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
from consumer.engage.client import Turn, at_once
from consumer.engage.http import MaySend
from schemas.engage import ActionRequest
from tests.simulation.process import Instance
from tests.simulation.workload import Event

if TYPE_CHECKING:
    from tests.simulation.scheduler import World

TIMEOUT_S = 10.0  # of the client: it ends a request after twice as long
POLL_TROUBLE = ("404", "401", "429", "503", "timeout", "400", "job failed")
ACTION_TROUBLE = (
    "404", "401", "429", "429 for long", "503", "refused", "400", "500 processed", "500 not processed", "answer lost",
    "request lost", "processed late",
)  # fmt: skip


class WorldEngage:
    """One instance's client."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._world: World = instance.world

    async def _sleep(self, seconds: float) -> None:
        loop = self._instance.loop
        future = loop.create_future()
        loop.call_later(seconds, future.set_result, None)
        await future

    async def _asked(self, troubles: tuple[str, ...]) -> str:
        self._world.account.requested(self._instance)
        trouble = self._world.trouble(troubles)
        if self._world.chance(0.5):
            await self._sleep(self._world.pick((0.01, 0.1, 1.0)))
        return trouble

    async def _goes_on(self, turn: Turn) -> bool:
        """Tell whether the call takes another request: a redirect, an order behind its job, a PUT after a POST."""
        if not self._world.chance(0.2):
            return True
        may = await turn()
        self._world.reach("a call went on" if may else "a call was not to go on")
        if may:
            await self._asked(())
        return may

    async def poll_job(self, job_id: str, turn: Turn) -> PollOutcome:
        event = self._world.events[int(job_id.split("-")[1])]
        return await self._poll(event, turn)

    async def poll_order(self, order_id: str, newer_than: datetime | None = None, turn: Turn = at_once) -> PollOutcome:
        if newer_than is not None and newer_than.timestamp() > self._world.now:
            self._world.reach("an order was wanted as it will be in the future")
            await self._asked(())
            return NotReady()
        return await self._poll(None, turn)

    async def _poll(self, event: Event | None, turn: Turn) -> PollOutcome:
        trouble = await self._asked(POLL_TROUBLE)
        self._world.reach(f"poll: {trouble}")
        match trouble:
            case "404":
                return NotFound()
            case "401":
                return Unauthorized(401)
            case "429":
                return Throttled(self._world.pick((None, 1.0, 30.0)))
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
        if event is not None and self._world.now < event.ready_at:
            return NotReady()
        return Ready(f"tag {self._world.now}") if await self._goes_on(turn) else NotReady()

    async def send_document(self, order_id: str, document: dict[str, object], turn: Turn) -> DocumentOutcome:
        trouble = await self._asked(POLL_TROUBLE)
        if not await self._goes_on(turn):
            return Unavailable("not replaced yet")
        if trouble in ("ok", "404", "job failed"):
            return DocumentTaken(f"job-{document['n']}" if self._world.chance(0.8) else None)
        return Unavailable(trouble)

    async def send_action(self, order_id: str, request: ActionRequest, may_send: MaySend) -> ActionOutcome:
        trouble = await self._asked(ACTION_TROUBLE)
        if trouble == "refused":
            return Unavailable("refused")
        if not may_send():
            self._world.reach("an action was withdrawn")
            return Withdrawn()
        event = self._world.events[int(cast("int", request.data))]
        epoch = self._world.account.posted(self._instance, event)
        if event.nature == "stale":
            trouble = "404"
        outcome = await self._answer(event, trouble)
        self._world.reach(f"action: {trouble}")
        if not isinstance(outcome, InDoubt):
            self._world.account.answered(self._instance, event, epoch, outcome)
        return outcome

    async def _answer(self, event: Event, trouble: str) -> ActionOutcome:
        world, short = self._world, self._world.pick((0.0, 0.05, 0.5))

        def process(after: float) -> None:
            world.at(world.now + after, lambda: world.account.accepted(event))

        match trouble:
            case "ok":
                process(short)
                await self._sleep(2 * short)
                return Accepted()
            case "404":
                return StaleTag()
            case "401":
                return Unauthorized(401)
            case "429":
                return Throttled(world.pick((None, 2.0)))
            case "429 for long":
                return Throttled(300.0)
            case "503":
                return Unavailable("503")
            case "400":
                return Rejected(422, "no contact")
            case "answer lost" | "500 processed":
                process(short)
            case "processed late":
                process(world.pick((5.0, 30.0, 100.0)))
        await self._sleep(world.pick((2 * short, TIMEOUT_S, 2 * TIMEOUT_S)))
        return InDoubt(trouble)

    async def aclose(self) -> None:
        """Nothing to close."""
