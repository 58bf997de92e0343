"""Pacing: when to poll again, and how fast a connection may send requests. Pure; times are seconds since 1970.

Rules:
 1. The rate limit is per API key, and requests are spread evenly, never in bursts. Engage recommends staying below
    50 requests/s and answers 429 above 200 in a second. Every request counts, also the second one of a call (a
    followed redirect, the order after its job, the PUT of a document after its POST).
 2. Instances share the rate limit without talking to each other: each takes the fraction of the source's partitions
    that it owns. When its share changes, an instance keeps only what it has earned so far of the next request.
 3. A 429 halves the rate, at most once a second. Without further 429s the rate grows back.
 4. Failures in a row stop the connection for a cooldown that grows. Then one half-open probe at a time tries it. A
    refused key stops it until the key changes or a half-open probe succeeds; what is between these grows, too.
 5. A 403 may concern the key, or one request alone (a firewall's false positive). It counts against the key only after
    several in a row, of more than one action. After a half-open probe was answered 403, the next probe is for another
    action. Where only one is left, and all its probes were answered 403, the suspension ends: it waits by itself, and
    its deadline ends it.
 6. Any other failure may be one action's alone, too: a 429 or 408, a 401 (a gateway reads its URL otherwise), a 500 for
    what Engage cannot cope with. Where an action failed several times, and others were served between them, its next
    failures say nothing against the connection: it neither slows down nor stops for them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from consumer.core.outcomes import (
    Forbidden,
    InDoubt,
    Outcome,
    Throttled,
    Unauthorized,
    Unavailable,
    was_asked,
)

BACKOFF_S = (10.0, 30.0, 60.0, 300.0)  # what Engage asks for between retries of a failed call
JITTER = 0.2  # waits are spread by +-20 %, so that what failed together does not come back together
# At r requests per second, evenly, as many as r + 1 can fall into one second, and a late timer may be caught up by a
# quarter of an interval. So of its share s each instance takes 0.97 s - 1, and however many there are, they stay within
# the rate limit in every second. Of a share of about two or less, half is left: else nothing would be.
RESERVE = 0.97
FENCEPOST = 1.0
MIN_OF_SHARE = 0.5

FAILURES_IN_A_ROW = 5  # before the whole connection cools down
COOLDOWNS_S = (1.0, 2.0, 5.0, 10.0, 30.0)
THROTTLED_COOLDOWN_S = 1.0  # after a 429 that does not say how long
MAX_RETRY_AFTER_S = 300.0  # a longer Retry-After is cut to this; then a half-open probe is sent
FORBIDDEN_IN_A_ROW = 3  # of at least two actions: then it is the key that is refused
FAILED_ALONE = 3  # failures of one action, while others are served: the next ones are its own
MAX_FAILED = 1000  # actions for which that is remembered
# A refused key is tried again after these, then once a minute (a new key: at once). Engage may know a new one late.
SUSPENDED_PROBES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TIMER_S = 0.002  # how late the event loop's timers are, at the most, when all is well
MIN_FACTOR = 0.02
GROWTH_PER_S = 0.05  # of the full rate limit, per second without 429: back from half in 10 s


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """When to poll where nothing is learnt of a connection's processing times, and how long to wait after failures.

    `learns`: each connection has a PollPlan (poll_plan.py), which decides instead, up to `max_interval_s`.
    """

    learns: bool = False
    initial_s: float = 1.0
    max_interval_s: float = 60.0
    growth: float = 1.6
    backoff_s: tuple[float, ...] = BACKOFF_S

    def first_poll(self, now: float) -> float:
        """When to poll for the first time an action that was seen at `now`."""
        return now + self.initial_s

    def interval(self, attempts: int, jitter: float) -> float:
        """How long to wait after the `attempts`-th poll (from 1) that found nothing; `jitter` in [0, 1)."""
        return spread(min(self._grown(attempts), self._longest_s), jitter)

    def is_spare(self, attempts: int) -> bool:
        """Whether the wait after the `attempts`-th poll is the longest there is."""
        return self._grown(attempts) >= self._longest_s

    @property
    def _longest_s(self) -> float:
        # Capped before it is spread: at the maximum, too, what was asked together does not come back together.
        return self.max_interval_s / (1 + JITTER)

    def _grown(self, attempts: int) -> float:
        # 1.6 ** 64 is beyond any maximum; more would overflow some day.
        return max(self.initial_s, 0.1) * self.growth ** min(attempts, 64)

    def backoff(self, failures: int, jitter: float) -> float:
        """How long to wait after the `failures`-th failed call (from 1) for the same action."""
        return spread(self.backoff_s[min(max(failures, 1), len(self.backoff_s)) - 1], jitter)


def spread(wait_s: float, jitter: float) -> float:
    """Spread a wait by JITTER; `jitter` in [0, 1)."""
    return wait_s * (1 - JITTER + 2 * JITTER * jitter)


class Pace:
    """How fast this instance may send requests on one connection."""

    def __init__(self, requests_per_second: float) -> None:
        """Owns no share of the rate limit yet: see `set_share`."""
        self._rate_limit = requests_per_second
        self._share = 0.0
        self._factor = 1.0
        self._factor_at = 0.0
        self._last_sent = 0.0
        self._cooldown_until = -math.inf
        self._suspended_probe_at = -math.inf
        self._suspended_probes = 0
        self._shrunk_at = -math.inf
        self._failures = 0
        self._cooldowns = 0
        self._half_open = False
        self._probe_in_flight = False
        self._forbidden: list[Hashable] = []  # the actions of the last 403s in a row, FORBIDDEN_IN_A_ROW at the most
        self._not_next: tuple[Hashable, float] = (None, -math.inf)
        self._served = 0
        self._failed_of: dict[Hashable, tuple[int, int]] = {}  # by action: how often, and `_served` at the last time
        self.suspended = False
        self.requests = 0
        """How many were allowed so far."""

    @property
    def rate_limit(self) -> float:
        """Requests per second that the key has, for all instances together."""
        return self._rate_limit

    def set_share(self, share: float, now: float) -> None:
        """Take `share` (0 to 1) of the rate limit from `now` on: the owned fraction of the source's partitions."""
        earned = min(1.0, (now - self._last_sent) * self.rate(now))  # of the next request
        self._share = share
        self._last_sent = now - earned / self.rate(now) if share > 0 else now

    def next_at(self, now: float) -> float:
        """When the next request may leave.

        `now` or earlier means now. Infinity means after the half-open probe's answer.
        """
        return math.inf if self._probe_in_flight else self.next_of_a_call_at(now)

    def next_of_a_call_at(self, now: float) -> float:
        """When a call under way may make its next request: a half-open probe is the whole call.

        Infinity: nobody knows.
        """
        if self._share <= 0:
            return math.inf
        return max(self._last_sent + 1 / self.rate(now), self._cooldown_until, self._suspended_probe_at)

    def rate(self, now: float) -> float:
        """Requests per second at present."""
        if self._factor < 1:
            self._factor = min(1.0, self._factor + GROWTH_PER_S * max(0.0, now - self._factor_at))
            self._factor_at = now
        share = self._rate_limit * self._share
        return max(RESERVE * share - FENCEPOST, MIN_OF_SHARE * share) * self._factor

    def sent(self, now: float) -> None:
        """A request leaves at `now`, which `next_at` allowed."""
        # A little may be caught up, so that late timers do not use up the rate limit.
        interval = 1 / self.rate(now)
        self._last_sent = max(self._last_sent + interval, now - max(interval / 4, TIMER_S))
        self._probe_in_flight = self._half_open
        self.requests += 1

    def not_as_probe(self, now: float) -> Hashable | None:
        """Return the action that the next half-open probe is not to be about, while another one may come (rule 5)."""
        about, until = self._not_next
        return about if self._half_open and now < until else None

    @property
    def is_half_open(self) -> bool:
        """Whether the next request tries whether the connection works again."""
        return self._half_open

    def answered(self, outcome: Outcome, now: float, about: Hashable | None = None) -> bool:
        """Learn from an answer, whichever request it was for. `about`: the action for which it was made.

        Returns whether it is a failure of this action alone (rule 6).
        """
        self._probe_in_flight = False
        if not was_asked(outcome):
            return False
        match outcome:
            case Throttled() | Unavailable() | InDoubt() if self._failed_alone(about):
                return True
            case Unauthorized(status) if status and self._failed_alone(about):
                return True
            case Throttled(retry_after):
                self._shrink(now)
                self._cool_down(now + (THROTTLED_COOLDOWN_S if retry_after is None else retry_after))
                # If Engage asked for a longer wait than the maximum, a half-open probe finds out whether it sufficed.
                self._half_open = self._half_open or (retry_after or 0.0) >= MAX_RETRY_AFTER_S
            case Unauthorized():
                self._suspend(now)
            case Forbidden():
                self._forbidden = [*self._forbidden, about][-FORBIDDEN_IN_A_ROW:]
                in_a_row = len(self._forbidden) == FORBIDDEN_IN_A_ROW
                if len(set(self._forbidden)) > 1 and (in_a_row or self.suspended):
                    self._suspend(now)
                elif self.suspended and in_a_row:  # nobody else is there to ask: then it waits by itself
                    self._half_open = False
                    self._resume()
                elif self.suspended:
                    self._suspend(now)
                self._not_next = (about, max(now, self._suspended_probe_at) + SUSPENDED_PROBES_S[-1])
            case Unavailable(_, retry_after, _):
                self._failed(now, retry_after)
            case InDoubt(_, retry_after):
                self._failed(now, retry_after)
            case _:
                self._served += 1
                self._failed_of.pop(about, None)
                self._failures = self._cooldowns = 0
                self._forbidden = []
                self._half_open = False
                self._resume()
        return False

    def cooling_down(self, now: float) -> bool:
        """Whether nothing leaves for a while: after failures in a row, a 429, or for a key that is refused."""
        return now < max(self._cooldown_until, self._suspended_probe_at)

    def key_changed(self) -> None:
        """Try again at once: the connection's key is another one now."""
        self._suspended_probe_at, self._suspended_probes = -math.inf, 0

    def _failed_alone(self, about: Hashable | None) -> bool:
        """Note a failure. Returns whether it is this action's own (rule 6)."""
        if about is None:
            return False
        times, served = self._failed_of.pop(about, (0, self._served - 1))
        if len(self._failed_of) >= MAX_FAILED:
            del self._failed_of[next(iter(self._failed_of))]
        times += self._served > served
        self._failed_of[about] = times, self._served
        return times > FAILED_ALONE

    def _suspend(self, now: float) -> None:
        self.suspended = self._half_open = True
        if now >= self._suspended_probe_at:  # else it was asked before
            self._suspended_probe_at = now + SUSPENDED_PROBES_S[self._suspended_probes]
            self._suspended_probes = min(self._suspended_probes + 1, len(SUSPENDED_PROBES_S) - 1)

    def _resume(self) -> None:
        self.suspended = False
        self._suspended_probe_at, self._suspended_probes = -math.inf, 0

    def _failed(self, now: float, retry_after: float | None) -> None:
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW and now >= self._cooldown_until:
            self._half_open = True
            self._cool_down(now + max(COOLDOWNS_S[min(self._cooldowns, len(COOLDOWNS_S) - 1)], retry_after or 0.0))
            self._cooldowns += 1

    def _cool_down(self, until: float) -> None:
        self._cooldown_until = max(self._cooldown_until, until)

    def _shrink(self, now: float) -> None:
        if now - self._shrunk_at >= 1.0:
            self.rate(now)  # what it grew until now counts
            self._factor = max(MIN_FACTOR, self._factor / 2)
            self._shrunk_at = self._factor_at = now
