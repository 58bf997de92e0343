"""A tick costs what happened since the last one, however many connections there are."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from consumer.core.effects import ActionId, Save
from consumer.core.outcomes import InDoubt, Unauthorized
from consumer.core.pacing import FAILURES_IN_A_ROW, Pace
from consumer.relay.connections import Connection
from consumer.relay.dispatch import Dispatch
from tests.unit.core.test_ledger import OURS, Driver, action, tagged

if TYPE_CHECKING:
    from consumer.core.effects import NewAction
    from consumer.engage.client import EngageClient
    from consumer.relay.edges import Source
    from consumer.relay.log import ThrottledLog
    from consumer.relay.outbox import Outbox
    from consumer.relay.tasks import Tasks
    from consumer.telemetry.metrics import Metrics

NOW = 1000.0
RATE = 2.0  # requests per second


class NotedPace(Pace):
    """A pace that notes that it was asked."""

    def __init__(self) -> None:
        super().__init__(RATE)
        self.asked = 0

    def next_at(self, now: float) -> float:
        self.asked += 1
        return super().next_at(now)


class Started:
    """A call that never ends."""

    def add_done_callback(self, done: object) -> None:
        """Nobody is ever told."""


class Ticks:
    """A dispatch to many connections, whose requests are noted instead of made."""

    def __init__(self, connections: int) -> None:
        self.paces = {f"shop-{n}": NotedPace() for n in range(connections)}
        self.key = "key"
        self.started: list[object] = []
        self.driver = Driver(OURS, now=NOW)
        self.dispatch = Dispatch(
            [self.connection(name, pace) for name, pace in self.paces.items()],
            ledger=self.driver.ledger,
            outbox=cast("Outbox", SimpleNamespace(apply=lambda effects, now: None)),
            source=cast("Source", None),
            lease_s=8.0,
            clock=lambda: self.driver.now,
            tasks=cast("Tasks", SimpleNamespace(start=self.start)),
            tick_soon=lambda: None,
            metrics=cast("Metrics", SimpleNamespace(limiter_waited=lambda name, waited: None)),
            log=cast("ThrottledLog", None),
            tracing=None,
        )
        self.dispatch.set_share(1.0, NOW)
        self.tick()
        self.forget()

    def connection(self, name: str, pace: Pace) -> Connection:
        client = cast("EngageClient", None)
        return Connection(name=name, client=client, pace=pace, api_key=lambda: self.key, slots=8, ahead=8)

    def start(self, call: object) -> Started:
        self.started.append(call)
        call.close()  # type: ignore[attr-defined]
        return Started()

    def event(self, offset: int, what: NewAction) -> None:
        self.driver.event(offset, what)

    def tick(self, later_s: float = 0.0) -> float:
        self.driver.now += later_s
        self.driver.ledger.wake(self.driver.now)
        return self.dispatch.tick(self.driver.now)

    def forget(self) -> None:
        for pace in self.paces.values():
            pace.asked = 0

    @property
    def asked(self) -> set[str]:
        return {name for name, pace in self.paces.items() if pace.asked}


def test_a_tick_looks_only_at_the_connections_to_which_something_happened() -> None:
    ticks = Ticks(connections=1000)

    ticks.event(0, replace(action(), connection="shop-7"))
    ticks.tick(later_s=60.0)

    assert ticks.asked == {"shop-7"}
    assert len(ticks.started) == 1


def test_a_tick_in_which_nothing_happened_looks_at_none() -> None:
    ticks = Ticks(connections=3)

    ticks.tick(later_s=60.0)

    assert ticks.asked == set()


def test_what_waits_for_its_pace_is_looked_at_when_that_time_comes_and_not_before() -> None:
    ticks = Ticks(connections=3)
    for offset, order in enumerate("AB"):
        ticks.event(offset, replace(action(order), connection="shop-1"))
    look_at = ticks.tick(later_s=60.0)
    ticks.tick()  # what moved by the first request
    ticks.forget()
    assert len(ticks.started) == 1

    ticks.tick(later_s=0.1)
    assert ticks.asked == set()

    ticks.tick(later_s=look_at - ticks.driver.now)
    assert ticks.asked == {"shop-1"}
    assert len(ticks.started) == 2


def test_the_look_of_every_second_finds_a_key_that_has_changed() -> None:
    ticks = Ticks(connections=3)
    for at_s in (0.0, 1.0, 3.0, 8.0):  # then it is tried again after 18 s
        ticks.dispatch.connections["shop-2"].answered(Unauthorized(401), NOW + at_s, ActionId(OURS, 9))
    ticks.event(0, replace(action(), connection="shop-2"))
    ticks.tick(later_s=10.0)
    assert ticks.started == []

    ticks.key = "another key"
    ticks.tick()
    assert ticks.started == []
    ticks.dispatch.look_at_all()
    ticks.tick()
    assert len(ticks.started) == 1


def test_whether_a_connection_works_again_is_tried_with_a_poll_where_one_is_due() -> None:
    """Where nobody answers, each action that tries it would be in doubt."""
    ticks = Ticks(connections=1)
    for _ in range(FAILURES_IN_A_ROW):
        ticks.paces["shop-0"].answered(InDoubt("time ran out before the answer"), NOW)
    ticks.event(0, replace(tagged("A"), connection="shop-0"))
    ticks.event(1, replace(tagged("B"), connection="shop-0"))
    ticks.event(2, replace(action("C"), connection="shop-0"))
    for intent in ticks.driver.ledger.save_intents("shop-0", ahead=2):
        assert isinstance(intent, Save)
        ticks.driver.ledger.intent_saved(intent.action_id, intent.sends, ownership_confirmed_at=NOW)

    ticks.tick(later_s=2.0)
    assert ticks.driver.states == {"ready": 2, "polling": 1}

    ticks.paces["shop-0"].answered(InDoubt("time ran out before the answer"), ticks.driver.now)
    ticks.tick(later_s=60.0)
    assert ticks.driver.states == {"ready": 1, "sending": 1, "polling": 1}, "no poll is due"
