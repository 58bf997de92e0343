"""EDGE. The demo's calls to Engage: it submits orders as a commerce platform does, and reads the account.

Where Engage is the simulator (our own, or one that the user named), both go through its control endpoints. Where it
is the real one there is no account, and the events carry the order's document instead of a job's id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from consumer.demo.stage import StageError
from consumer.demo.story import EVENT_NUMBER, Event
from consumer.demo.tally import Acceptance, Requests
from consumer.engage.transport import async_client
from consumer.simulator import Moods, SimulatorOptions

CALL_TIMEOUT_S = 10.0
# Faults that swallow the answer to a request that was processed. They befall actions alone, so that each one that the
# account counts left an action in doubt.
ANSWERS_LOST = ("reset-after", "close-after", "lost-answer")
# Engage asks for 10 s before a failed call is tried again, 30 s before the next time: seldom enough for a short demo.
FAULTS = (
    "slow=0.02",
    "stale=0.005",
    "unavailable=0.002",
    "html=0.001",
    "reset-before=0.001",
    "hang=0.0015",
    "throttle=0.0005",
    "error=0.0015,calls=job|order",
    *(f"{name}=0.002,calls=action" for name in ANSWERS_LOST),
)
# Engage working as it should, and yet never twice the same. Each late contact comes within the demo's `contact_grace`.
MOODS = Moods(
    late_contacts=0.05,
    contact_delay="uniform:1s..3s",
    redirects=("relative=0.1", "other-host=0.05"),
    job_words=("CompletedWithErrors=0.05",),
    created=0.02,
)
NO_CONTACT_YET = "no contact yet"


def simulator_options(seed: int) -> SimulatorOptions:
    """Return the demo's Engage: quicker than the real one, and worse."""
    return SimulatorOptions(
        seed=seed,
        processing="lognormal:500ms,0.6",
        failing=0.015,
        moods=MOODS,
        faults=FAULTS,
        slow="uniform:100ms..800ms",
    )


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """The account's counts; `accepted` without repeated ones."""

    accepted: int = 0
    requests: Counter[str] = field(default_factory=Counter)  # by call
    faults: Counter[str] = field(default_factory=Counter)

    def since(self, before: AccountFigures) -> AccountFigures:
        """Return what came to be since then."""
        return AccountFigures(
            self.accepted - before.accepted, self.requests - before.requests, self.faults - before.faults
        )

    @property
    def asked(self) -> Requests:
        """Return what Engage was asked."""
        return Requests(self.requests["job"] + self.requests["order"], self.requests.total())

    @property
    def answers_lost(self) -> int:
        """Return how many answers to actions were swallowed."""
        return sum(self.faults[name] for name in ANSWERS_LOST)


class Engage:
    """The Engage simulator, or the real Engage where `has_account` is false."""

    def __init__(self, client: httpx.AsyncClient, *, has_account: bool) -> None:
        self._client = client
        self.has_account = has_account

    async def submit(self, event: Event) -> str:
        """Submit the event's order, as the commerce platform does; returns the job's id."""
        body = {"orderIds": [event.order_id], "contact": event.contact}
        answer = _read(await self._client.post("/simulator/orders/bulk", json=body))
        return str(answer["jobs"][0]["jobId"])

    async def register_contact(self, event: Event) -> None:
        """Register the contact of the event's order."""
        _read(await self._client.post("/simulator/contacts", json={"orderIds": [event.order_id]}))

    async def figures(self) -> AccountFigures:
        """Read the account's counts."""
        return _figures(_read(await self._client.get("/simulator/account", params={"summary": "1"})))

    async def acceptances(self, prefix: str) -> list[Acceptance]:
        """Read what was accepted of the orders whose ids start so, in the order of acceptance."""
        account = _read(await self._client.get("/simulator/account"))
        return [_acceptance(entry) for entry in account["actions"] if entry["orderId"].startswith(prefix)]


@asynccontextmanager
async def engage_at(base_url: str) -> AsyncIterator[Engage]:
    """Find out whether there is an account. Raises StageError where nobody answers."""
    async with async_client(base_url=base_url, timeout_s=CALL_TIMEOUT_S, proxied=True) as client:
        try:
            answer = await client.get("/simulator/account", params={"summary": "1"})
        except httpx.HTTPError as error:
            raise StageError(f"{base_url} does not answer: {type(error).__name__}") from None
        try:
            has_account = answer.status_code == httpx.codes.OK and "acceptedByAction" in answer.json()
        except ValueError:
            has_account = False
        yield Engage(client, has_account=has_account)


def _read(answer: httpx.Response) -> Mapping[str, Any]:  # the simulator is ours: its answers are what they are
    if answer.status_code != httpx.codes.OK:
        raise StageError(f"the simulator answered {answer.status_code} to {answer.request.url.path}")
    body: Mapping[str, Any] = answer.json()
    return body


def _figures(summary: Mapping[str, Any]) -> AccountFigures:
    requests = {call: sum(by_status.values()) for call, by_status in summary["requests"].items()}
    faults = Counter(summary["faults"]) + Counter({NO_CONTACT_YET: summary["requests"].get("action", {}).get("422", 0)})
    return AccountFigures(summary["accepted"] - summary["repeated"], Counter(requests), faults)


def _acceptance(entry: Mapping[str, Any]) -> Acceptance:
    number = entry["data"].get(EVENT_NUMBER) if isinstance(entry["data"], dict) else None
    return Acceptance(
        number if isinstance(number, int) else None,
        entry["orderId"],
        entry["action"],
        entry["tagReadyAt"],
        entry["acceptedAt"],
        with_document=entry["withDocument"],
        after_no_contact=entry["afterNoContact"],
    )
