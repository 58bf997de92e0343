"""A connection at work: one Engage tenant's client and pace, its requests in flight, and why it is halted.

Rules:
 1. The slots allow two seconds of the rate limit in flight, so that a slow Engage does not slow the relay down.
 2. A halt is reported with its first reason and its beginning. A request that never reached Engage does not change it.
 3. A key that Engage refused is tried again at growing intervals (pacing.py). A changed key is tried at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from consumer.core.effects import ActionId
from consumer.core.outcomes import (
    Forbidden,
    InDoubt,
    Outcome,
    Throttled,
    Unauthorized,
    Unavailable,
    was_asked,
)
from consumer.core.pacing import Pace
from consumer.core.poll_plan import Figures as PollFigures
from consumer.engage.client import EngageClient
from consumer.telemetry.snapshot import ConnectionFigures, Halt

# Different words of a job's status that are counted: they come from outside, and metrics must stay bounded.
MAX_WORDS = 20

_Outcome = TypeVar("_Outcome", bound=Outcome)


@dataclass(slots=True, kw_only=True)
class Connection:
    """One Engage tenant at run time.

    `slots`: requests that may be in flight. `ahead`: intents that may wait to be sent. `follow_ups`: the permits that
    calls under way wait for. `waiting_since`: when a request was first held up by the pace. `planned_at`,
    `planned_requests`: when its polls were last planned, and after how many requests. `look_at`: when its pace allows
    what it has to do, if nothing happens before; infinity where it has nothing to do, or waits for an answer.
    """

    name: str
    client: EngageClient
    pace: Pace
    api_key: Callable[[], str]
    slots: int
    ahead: int
    in_flight: int = 0
    follow_ups: deque[asyncio.Future[bool]] = field(default_factory=deque)
    waiting_since: float | None = None
    planned_at: float = 0.0
    planned_requests: int = 0
    look_at: float = math.inf
    refused_key: str | None = field(default=None, repr=False)
    halt: Halt | None = None
    words: set[str] = field(default_factory=set)

    def answered(self, outcome: _Outcome, now: float, about: ActionId) -> _Outcome | Unauthorized | Forbidden:
        """Learn from the answer to a request. Returns what it means for its action.

        While other requests get a 403, too, it concerns the key, as a 401 does, and says nothing against this action.
        A 401 that is this action's alone says nothing of the key.
        """
        is_its_own = self.pace.answered(outcome, now, about)
        meant: _Outcome | Unauthorized | Forbidden = outcome
        if isinstance(outcome, Forbidden) and self.pace.suspended:
            meant = Unauthorized(403)
        elif isinstance(outcome, Unauthorized) and is_its_own:
            meant = Forbidden(outcome.status)
        self.halt = self._halt(meant, now)
        if isinstance(meant, Unauthorized):
            self.refused_key = self._key()
        return meant

    def word(self, status: str) -> str:
        """Return a job's status as it is counted: the first MAX_WORDS words, then `other`."""
        if len(self.words) >= MAX_WORDS and status not in self.words:
            return "other"
        return status

    def try_another_key(self) -> None:
        """End a suspension where the key is no longer the one that Engage refused."""
        if self.pace.suspended and self._key() != self.refused_key:
            self.pace.key_changed()

    def figures(
        self, now: float, plan: PollFigures | None, parked: tuple[int, int] = (0, 0), *, has_share: bool
    ) -> ConnectionFigures:
        """Return what the metrics and the status page show.

        `parked`: actions and their records' bytes. `has_share`: any partition is ours.
        """
        pace, cooling_down = self.pace, self.pace.cooling_down(now)
        return ConnectionFigures(
            requests_per_second=pace.rate(now) if has_share else 0.0,
            suspended=pace.suspended,
            cooling_down=cooling_down,
            halt=self.halt,
            next_at=pace.next_at(now) if cooling_down else None,
            rate_limit=pace.rate_limit,
            in_flight=self.in_flight,
            plan=plan,
            parked=parked[0],
            parked_bytes=parked[1],
        )

    def _key(self) -> str | None:
        try:
            return self.api_key()
        except (OSError, ValueError):  # a key's file that is missing or holds none
            return None

    def _halt(self, outcome: Outcome, now: float) -> Halt | None:
        """Say why it is suspended or cools down after this answer: since the first one of those in a row."""
        before, pace = self.halt, self.pace
        if not was_asked(outcome):
            return before
        match outcome:
            case Unauthorized(0):
                why = "its API key cannot be read"
            case Unauthorized(status):
                why = f"Engage refuses its API key ({status})"
            case Throttled():
                why = "Engage asks for fewer requests (429)"
            case Unavailable(why) | InDoubt(why):
                pass
            case _:
                return before if pace.cooling_down(now) else None  # the cooldown of a 429 lasts
        if before is not None and before.suspended and pace.suspended:
            return before
        if pace.suspended or pace.cooling_down(now):
            is_new = before is None or before.suspended != pace.suspended
            return Halt(why, now if is_new or before is None else before.since, pace.suspended)
        return before


def slots_of(requests_per_second: float) -> int:
    """Return how many requests may be in flight (rule 1)."""
    return min(max(math.ceil(2 * requests_per_second), 8), 256)


def ahead_of(requests_per_second: float) -> int:
    """Return how many intents may wait to be sent: 0.2 s of the rate limit, several transactions' time (ledger.py)."""
    return min(max(math.ceil(requests_per_second / 5), 4), 512)
