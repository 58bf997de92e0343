"""The simulated world as tests: nothing is violated, all that is rare is reached, every deliberate mistake noticed."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter

import pytest

from tests.world import mutations
from tests.world.states import TO_BE_REACHED
from tests.world.world import ViolationError, World

SCHEDULES = int(os.environ.get("WORLD_SCHEDULES", "5000"))
PATIENCE_S = 60.0  # for a mutation to be noticed


def play(seed: int) -> World:
    world = World(seed)
    try:
        world.run()
    except ViolationError as violation:
        pytest.fail(f"{violation}; again: python -m tests.world --seed {seed} --trace", pytrace=False)
    return world


def test_no_schedule_breaks_the_promise_and_each_rare_state_is_reached() -> None:
    reached: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        reached.update(play(seed).reached)

    assert [state for state in TO_BE_REACHED if not reached[state]] == []


def trace(seed: int) -> list[str]:
    said: list[str] = []
    world = World(seed, trace=said.append)
    world.run()
    return said


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_a_seed_is_the_whole_schedule(seed: int) -> None:
    assert trace(seed) == trace(seed)


@pytest.mark.parametrize("name", mutations.ALL)
def test_a_deliberate_mistake_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    until = time.monotonic() + PATIENCE_S
    for seed in itertools.count():
        with monkeypatch.context() as patch:
            mutations.ALL[name](patch)
            try:
                World(seed).run()
            except ViolationError as violation:
                print(f"schedule {seed}: {violation}")
                break
        assert time.monotonic() < until, f"{name} was not noticed in {seed + 1} schedules"
    play(seed)  # without the mistake, nothing is wrong with it
