"""When polls find their tag, and what it costs: the relay's ledger, pace and poll plan on a virtual clock.

    python -m benchmarks.lateness               every scenario, in a quarter of a minute
    python -m benchmarks.lateness --seeds 5     more than one run of each

Lateness counts from when the tag is there until the action is accepted. It is compared with the frontier: the least
mean lateness that any schedule can reach with as many requests per action, if it knew the processing times beforehand.
That is computed here by the dynamic programme of consumer/core/poll_plan.py, over the true distribution.

Rules:
 1. The ledger, the pace and the plan are the relay's own. Engage answers after ANSWER_S, a commit takes COMMIT_S.
 2. Every action must be accepted, save those of orders without a contact, or the benchmark fails. The first WARM_UP
    actions, while it learns, do not count.
 3. The rate limit is kept in every sliding second, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from consumer.core.effects import ActionId, Effect, GiveUp, Job, LiveAction, NewAction, Poll, Save
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import Accepted, NoContact, NotReady, Ready
from consumer.core.ownership import Assignment
from consumer.core.pacing import Pace, PollSchedule
from consumer.core.poll_plan import AGES, PLAN_INTERVAL_S, best_polls, expectation

ANSWER_S = 0.01
COMMIT_S = 0.005
WARM_UP = 300
STARTS_AT = 1_000_000.0

Processing = Callable[[random.Random, float], float]
"""Draws how long Engage takes for an order that came at this time (seconds after the start)."""
Share = Callable[[float], float]
"""Tells which part of the orders is processed by this age."""


@dataclass(frozen=True, slots=True)
class Times:
    """Processing times: how to draw one, and which part of them is over by an age."""

    draw: Processing
    share: Share


def lognormal(median_s: float, sigma: float) -> Times:
    """Return a processing time whose logarithm is normal."""

    def share(age: float) -> float:
        return 0.5 + 0.5 * math.erf(math.log(age / median_s) / sigma / math.sqrt(2))

    return Times(lambda chance, _: chance.lognormvariate(math.log(median_s), sigma), share)


def mixed(*parts: tuple[float, float, float]) -> Times:
    """Return a mixture of lognormal ones: part, median in seconds and sigma of each."""

    def draw(chance: random.Random, _: float) -> float:
        _, median_s, sigma = chance.choices(parts, [part for part, _, _ in parts])[0]
        return chance.lognormvariate(math.log(median_s), sigma)

    return Times(draw, lambda age: sum(part * lognormal(median_s, sigma).share(age) for part, median_s, sigma in parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is played. `share`: of the processing times, None where no frontier is defined.

    `per_second`: events, 0 for all at once. `event_age_s`: how old events are when they are read. `counts_from_s`: what
    came before does not count. `stuck`: so many more are pending from the start on, and never get ready. `guests`: the
    part of the orders whose customer never becomes a contact.
    """

    name: str
    processing: Processing
    share: Share | None
    events: int = 4000
    per_second: float = 12.0
    rate_limit: float = 50.0
    event_age_s: float = 0.0
    counts_from_s: float = 0.0
    stuck: int = 0
    guests: float = 0.0


@dataclass(slots=True)
class Order:
    """One order's way: all times are seconds after the start."""

    came_at: float
    ready_at: float
    is_guest: bool = False
    requests: int = 0
    accepted_at: float = math.nan

    @property
    def lateness(self) -> float:
        """Seconds from when its tag was there until its action was accepted."""
        return self.accepted_at - self.ready_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run cost: requests of an action, its lateness in seconds, and the least that these requests allow."""

    requests: float
    late: float
    p50: float
    p99: float
    least: float | None
    accepted_per_s: float

    @property
    def ratio(self) -> float | None:
        """How many times the least lateness it was."""
        return None if self.least is None else self.late / self.least

    def __str__(self) -> str:
        least = "" if self.least is None else f"{self.least:.2f} s"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            f"{self.requests:8.2f} {self.late:10.2f} s {self.p50:6.2f} s {self.p99:6.2f} s {least:>7} {ratio:>7}"
            f" {self.accepted_per_s:9.1f}"
        )


def play(scenario: Scenario, schedule: PollSchedule, seed: int) -> list[Order]:
    """Let the ledger deliver the scenario's actions. Raises AssertionError where rule 2 or 3 is broken."""
    return _Run(scenario, schedule, seed).play()


class _Run:
    """One run on a virtual clock: seconds after its start."""

    def __init__(self, scenario: Scenario, schedule: PollSchedule, seed: int) -> None:
        chance = random.Random(seed)
        self._ledger = Ledger(Policy(schedule=schedule), chance.random)
        self._pace = Pace(scenario.rate_limit)
        self._event_age_s = scenario.event_age_s
        self._assignment = Assignment("orders", 0, 1)
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._sent: deque[float] = deque()
        self._planned_requests = 0
        self._now = 0.0
        self._stuck = [_stuck(n, chance) for n in range(scenario.stuck)]
        self._orders = list(_orders(scenario, chance))
        for offset, order in enumerate(self._orders):
            self._at(order.came_at, partial(self._event, offset))
        self._left = len(self._orders)

    def play(self) -> list[Order]:
        self._ledger.assign(self._assignment, self._stuck, self._clock())
        self._pace.set_share(1.0, self._clock())
        self._at(PLAN_INTERVAL_S, self._plan)
        may_send_at = 0.0
        while self._left:
            wake_at = self._ledger.next_wake()
            due = min(self._later[0][0], may_send_at, math.inf if wake_at is None else wake_at - STARTS_AT)
            self._now = max(self._now, due)
            while self._later[0][0] <= self._now:
                _, _, happens = heapq.heappop(self._later)
                happens()
            self._ledger.wake(self._clock())
            self._commit(self._ledger.save_intents("default", 20))
            may_send_at = self._requests()
        return self._orders

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._later, (when, next(self._number), happens))

    def _clock(self) -> float:
        return STARTS_AT + self._now

    def _event(self, offset: int) -> None:
        action = _action(offset, self._clock() - self._event_age_s)
        self._ledger.accept(self._assignment, offset, action, self._clock())

    def _plan(self) -> None:
        requests = self._pace.requests - self._planned_requests
        self._planned_requests = self._pace.requests
        self._ledger.plan_polls("default", requests, self._pace.rate(self._clock()) * PLAN_INTERVAL_S)
        self._at(self._now + PLAN_INTERVAL_S, self._plan)

    def _requests(self) -> float:
        """Make the requests that the pace allows; returns when it allows the next one."""
        while self._ledger.has_request("default"):
            next_at = self._pace.next_at(self._clock())
            if next_at > self._clock():
                return next_at - STARTS_AT
            request = self._ledger.take("default")
            if request is None:
                break
            self._pace.sent(self._clock())
            self._count()
            if request.action_id.offset < 0:
                self._at(self._now + ANSWER_S, partial(self._still_stuck, request.action_id))
                continue
            order = self._orders[request.action_id.offset]
            order.requests += 1
            answered = self._polled if isinstance(request, Poll) else self._accepted
            self._at(self._now + ANSWER_S, partial(answered, request.action_id, order, order.ready_at <= self._now))
        return math.inf

    def _still_stuck(self, action_id: ActionId) -> None:
        self._ledger.poll_answered(action_id, NotReady(), self._clock())

    def _polled(self, action_id: ActionId, _: Order, is_ready: bool) -> None:
        self._ledger.poll_answered(action_id, Ready("tag") if is_ready else NotReady(), self._clock())

    def _accepted(self, action_id: ActionId, order: Order, is_ready: bool) -> None:
        assert is_ready, "sent without a tag"
        if order.is_guest:
            answered = self._ledger.action_answered(action_id, NoContact(None), self._clock())
            self._left -= any(isinstance(effect, GiveUp) for effect in answered)
            return
        assert math.isnan(order.accepted_at), "sent twice"
        order.accepted_at = self._now
        self._left -= 1
        self._ledger.action_answered(action_id, Accepted(), self._clock())

    def _commit(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Save) and effect.sending:
                self._at(self._now + COMMIT_S, partial(self._saved, effect))

    def _saved(self, save: Save) -> None:
        self._ledger.intent_saved(save.action_id, save.sends, self._clock())

    def _count(self) -> None:
        self._sent.append(self._now)
        while self._sent[0] <= self._now - 1.0:
            self._sent.popleft()
        assert len(self._sent) <= self._pace.rate_limit, f"{len(self._sent)} requests in a second"


def _action(offset: int, event_time: float) -> NewAction:
    job = Job(f"job-{offset}")
    return NewAction(
        route="shipped",
        connection="default",
        order_id=f"A-{offset}",
        payload=b"",
        target=job,
        event_time=event_time,
    )


def _stuck(number: int, chance: random.Random) -> LiveAction:
    """Return what the delay topic has of an order that waits for an hour or more, up to a day."""
    seen = STARTS_AT - chance.uniform(3600.0, 86_400.0)
    return LiveAction(
        offset=-1 - number,
        action=_action(-1 - number, seen),
        sending=False,
        first_seen=seen,
        due=seen,
        attempts=0,
        sends=0,
    )


def _orders(scenario: Scenario, chance: random.Random) -> Iterator[Order]:
    at = 0.0
    for _ in range(scenario.events):
        if scenario.per_second:
            at += chance.expovariate(scenario.per_second)
        ready_at = at + scenario.processing(chance, at)
        yield Order(at, ready_at, is_guest=bool(scenario.guests) and chance.random() < scenario.guests)


def least_lateness(share: Share, requests: float) -> float:
    """Return the frontier's mean lateness (seconds) for so many requests per action: the last one sends it."""
    shares = [share(age) for age in AGES[:-1]]
    mass = [at - before for before, at in pairwise((0.0, *shares, 1.0))]
    cheap, dear = 0.001, 10_000.0
    for _ in range(50):
        price = math.sqrt(cheap * dear)
        if expectation(mass, best_polls(mass, price)).polls + 1 < requests:
            cheap = price
        else:
            dear = price
    below, above = (expectation(mass, best_polls(mass, price)) for price in (cheap, dear))
    part = (requests - 1 - below.polls) / (above.polls - below.polls) if above.polls > below.polls else 1.0
    return below.lateness_s + min(max(part, 0.0), 1.0) * (above.lateness_s - below.lateness_s)


SLOW = lognormal(8.0, 0.8)
USUAL = lognormal(2.0, 0.8)
TWO_KINDS = mixed((0.9, 0.5, 0.25), (0.1, 20.0, 0.25))
SHIFT_S, SETTLED_S = 300.0, 60.0
SCENARIOS = (
    Scenario(name="lognormal(2 s, 0.8), 12/s of 50", processing=USUAL.draw, share=USUAL.share),
    Scenario(name="90 % 0.5 s, 10 % 20 s", processing=TWO_KINDS.draw, share=TWO_KINDS.share),
    Scenario(name="always 3 s", processing=lambda _, __: 3.0, share=None),
    Scenario(
        name="four times slower after 5 min",
        processing=lambda chance, at: (USUAL if at < SHIFT_S else SLOW).draw(chance, at),
        share=SLOW.share,
        events=8000,
        counts_from_s=SHIFT_S + SETTLED_S,
    ),
    Scenario(
        name="short limit, 40/s of 100", processing=USUAL.draw, share=USUAL.share, per_second=40.0, rate_limit=100.0
    ),
    Scenario(
        name="beside 300 that never get ready",
        processing=USUAL.draw,
        share=USUAL.share,
        stuck=300,
    ),
    Scenario(
        name="beside 10,000 that never get ready",
        processing=USUAL.draw,
        share=USUAL.share,
        stuck=10_000,
    ),
    Scenario(
        name="30 % have no contact",
        processing=USUAL.draw,
        share=USUAL.share,
        guests=0.3,
        events=16_000,
        counts_from_s=600.0,
    ),
    Scenario(
        name="too many, 60/s of 100",
        processing=USUAL.draw,
        share=None,
        per_second=60.0,
        rate_limit=100.0,
        events=12_000,
    ),
    Scenario(
        name="3,000 that waited, of 200",
        processing=lambda _, __: 0.0,
        share=None,
        per_second=0.0,
        rate_limit=200.0,
        events=3000,
        event_age_s=600.0,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play every scenario, learnt and with the fixed schedule; print a line for each."""
    parser = argparse.ArgumentParser(description="When polls find their tag, and what it costs, on a virtual clock.")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each scenario")
    options = parser.parse_args(arguments)
    print(f"{'':34} requests   late, mean     p50     p99   least   ratio   accepted/s")
    for scenario in SCENARIOS:
        for name, schedule in (("learnt", PollSchedule(learns=True)), ("fixed, from 1 s", PollSchedule())):
            runs = [summary(scenario, play(scenario, schedule, seed)) for seed in range(options.seeds)]
            print(f"{scenario.name:34} {name}")
            for run in runs:
                print(f"{'':34} {run}")
    return 0


def summary(scenario: Scenario, orders: list[Order]) -> Summary:
    """Return what a run cost, without what it cost to learn."""
    delivered = [order for order in orders if not order.is_guest]
    counted = [o for n, o in enumerate(delivered) if n >= WARM_UP and o.came_at >= scenario.counts_from_s]
    late = [order.lateness for order in counted]
    requests = statistics.fmean(order.requests for order in counted)
    percentiles = statistics.quantiles(late, n=100)
    start = min(order.accepted_at for order in counted)
    end = orders[-1].came_at or max(order.accepted_at for order in delivered)
    return Summary(
        requests=requests,
        late=statistics.fmean(late),
        p50=percentiles[49],
        p99=percentiles[98],
        least=None if scenario.share is None else least_lateness(scenario.share, requests),
        accepted_per_s=sum(start < order.accepted_at <= end for order in delivered) / (end - start),
    )


if __name__ == "__main__":
    sys.exit(main())
