"""Instances end, by force or by the rules, at random and at every named moment: nothing lost, doubled only in doubt."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from consumer.relay.connections import slots_of
from tests.chaos.relay import POINTS
from tests.chaos.stage import EVENTS, Stage, StageFactory
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess

# Its successor takes over when the session is over, at the latest: a member with a name of its own takes over at once.
QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
AT_RANDOM = "at random"
LATE = {"faults": ("slow=0.5,calls=action",), "slow": "uniform:20ms..150ms"}  # something is in flight at any moment


class Fleet:
    """Several instances, each with a moment at which it ends; who is gone is started again, as Kubernetes would."""

    def __init__(self, stage: Stage, instances: int, draw: random.Random) -> None:
        self.killed: Counter[str] = Counter()
        self._stage = stage
        self._draw = draw
        self._moments: list[str] = []
        self._instances: dict[str, tuple[RelayProcess, str]] = {}
        for number in range(instances):
            self._start(f"relay-{number}")
        # A static member that is killed while partitions move to it, and comes back under its name, gets none of
        # them, and nobody rebalances (cooperative-sticky, KIP-345): so the killing begins when nothing moves.
        stage.wait_for(lambda: all(relay.partitions for relay, _ in self._instances.values()), "each owns a part")

    def _start(self, name: str) -> None:
        if not self._moments:
            self._moments = self._draw.sample([*POINTS, *[AT_RANDOM] * (len(POINTS) // 2)], len(POINTS) * 3 // 2)
        moment = self._moments.pop()
        fail_at = "" if moment == AT_RANDOM else f"{moment}:{self._draw.randint(1, 20)}:SIGKILL"
        self._instances[name] = self._stage.relay(name, static=True, fail_at=fail_at), moment

    def _gone(self) -> list[str]:
        return [name for name, (relay, _) in self._instances.items() if not relay.running]

    def one_ends(self) -> None:
        """Wait until one came to its moment, or kill one at random; another takes its place."""
        by_hand = [name for name, (_, moment) in self._instances.items() if moment == AT_RANDOM]
        if by_hand:
            more = self._stage.engage.accepted_count() + self._draw.randint(0, 20)
            self._stage.wait_for(
                lambda: self._gone() or self._stage.engage.accepted_count() >= more, "more is accepted"
            )
        else:
            self._stage.wait_for(self._gone, "an instance comes to its moment")
        if not self._gone():
            self._instances[by_hand[0]][0].kill()
        for name in self._gone():
            self.killed[self._instances.pop(name)[1]] += 1
            with self._stage.fault():
                self._start(name)

    def let_live(self) -> None:
        """Replace all instances with ones that live on."""
        for name, (relay, moment) in self._instances.items():
            if relay.running:
                relay.kill()
            self.killed[moment] += 1
            self._stage.relay(name, static=True)


def test_instances_are_killed_again_and_again_at_random_and_at_every_named_moment(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    kills = scale.of(12, 200)
    stage = stages(partitions=6, rate_limit=scale.of(200, 400), engage=LATE, kafka=QUICK)
    fleet = Fleet(stage, scale.of(2, 3), random.Random(11))
    stage.keep_open = 200
    while fleet.killed.total() < kills:
        fleet.one_ends()
    fleet.let_live()
    stage.publish(max(0, scale.of(400, 20_000) - len(stage.published)) // len(EVENTS))
    killed = fleet.killed.total()
    balance = stage.finish(kills=killed)
    figures(
        kills=killed,
        moments=len(fleet.killed),
        in_doubt_at_most=killed * slots_of(stage.rate_limit),
        **balance.figures(),
    )


@pytest.mark.long
def test_a_stop_at_any_named_moment_puts_nothing_in_doubt(stages: StageFactory, figures: Figures) -> None:
    stage = stages(rate_limit=200, engage=LATE, kafka=QUICK)
    for number, point in enumerate(POINTS):
        stage.publish(15)
        stopped = stage.relay(fail_at=f"{point}:5:SIGTERM")
        stage.wait_for(lambda: not stopped.running, f"it stops {point}")  # noqa: B023
        assert stopped.wait() == 0, point
        assert stage.balance().accepted < 15 * len(EVENTS) * (number + 1), f"nothing was left to do {point}"
    stage.relay()
    balance = stage.finish()
    assert (balance.doubled_in_doubt, balance.resends) == (0, 0)
    figures(stops=len(POINTS), **balance.figures())
