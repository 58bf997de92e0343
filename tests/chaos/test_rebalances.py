"""Partitions change hands under load: within a transaction's time-out, from a frozen instance, and every second."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

import pytest

from consumer.relay.connections import slots_of
from tests.chaos.stage import Stage, StageFactory
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess

PARTITIONS = 6
OPEN = 80  # events at the least, lest it run out of work
MOST_AT_ONCE = 6  # those that start and those that leave included
LATE = {"faults": ("slow=0.5,calls=action",), "slow": "uniform:20ms..150ms"}  # something is in flight at any moment
LOST = "partitions lost: another instance has them already"

# A dead instance's partitions are given away, twice, before its transaction times out.
TRANSACTION_S = 10.0  # as it is in production
SHORT_SESSION = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 300}
STAYS_S = 1.0  # between two hand-overs
# A frozen one exceeds both.
SHORT_POLL = {**SHORT_SESSION, "max.poll.interval.ms": 3000, "transaction.timeout.ms": 3000}

Protocol = Mapping[str, object]
CLASSIC: Protocol = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
CONSUMER: Protocol = {"group.protocol": "consumer"}


def owned_by(relays: list[RelayProcess]) -> int:
    return sum(relay.partitions for relay in relays)


def until_all_is_owned_by(stage: Stage, relays: list[RelayProcess]) -> None:
    stage.wait_for(lambda: owned_by(relays) == PARTITIONS, f"{len(relays)} instances own all partitions")


@pytest.mark.long
def test_partitions_change_hands_again_while_a_dead_instances_transaction_is_open(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    draw = random.Random(21)
    stage = stages(
        partitions=PARTITIONS,
        rate_limit=200,
        engage={"processing": "uniform:1s..2s"},
        kafka={**SHORT_SESSION, "transaction.timeout.ms": int(TRANSACTION_S * 1000)},
    )
    stage.keep_open = OPEN
    heir, rounds, within, kills = stage.relay(), scale.of(1, 20), 0, 0
    for _ in range(rounds):
        # Of three, the dead one's partitions go to both others, and half of them on to the last.
        leaves, dies = stage.relay(), stage.relay(fail_at=f"before the offsets are sent:{draw.randint(5, 30)}:SIGKILL")
        stage.wait_for(lambda: not dies.running, "its records are written, and it dies")  # noqa: B023
        with stage.fault():
            died = time.monotonic()
            until_all_is_owned_by(stage, [heir, leaves])
            # New events to take in for whoever took over, if it dares; who comes next must not miss them.
            stage.publish(20)
            moment = time.monotonic() + STAYS_S
            stage.wait_for(lambda: time.monotonic() > moment, "it had time to take them in")  # noqa: B023
            if scale is Scale.SHORT or draw.random() < 0.7:
                leaves.kill()
                kills += 1
            else:
                leaves.terminate()
            until_all_is_owned_by(stage, [heir])
            within += time.monotonic() < died + TRANSACTION_S
        kills += 1
        stage.until_accepted_more(20)
    balance = stage.finish(kills=kills)
    figures(both_hand_overs_within_the_time_out=f"{within} of {rounds} rounds", **balance.figures())
    stage.stop_all()


def test_an_instance_that_wakes_up_after_its_partitions_were_given_away_sends_nothing_for_them(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    draw = random.Random(22)
    stage = stages(partitions=PARTITIONS, rate_limit=200, engage=LATE, kafka=SHORT_POLL)
    relays = [stage.relay() for _ in range(3)]
    polled = 0
    rounds = scale.of(2, 40)
    for number in range(rounds):
        stage.keep_open = OPEN
        until_all_is_owned_by(stage, relays)
        stage.until_accepted_more(draw.randint(1, 60))
        zombie = draw.choice(relays)
        heirs = [each for each in relays if each is not zombie]
        lost = len(zombie.said(LOST))
        all_is_settled = number % 2 == 0  # else the others are in full swing
        with stage.fault():
            zombie.freeze()
            stage.keep_open = 0 if all_is_settled else OPEN
            until_all_is_owned_by(stage, heirs)
            if all_is_settled:
                stage.wait_for(stage.books.settled, "the others have done everything")
            else:
                stage.until_accepted_more(20)
            before, asked = stage.engage.requests.total(), stage.engage.actions_asked()
            zombie.thaw()
            stage.wait_for(lambda: len(zombie.said(LOST)) > lost, "it knows")  # noqa: B023
        if all_is_settled:
            # Whatever it still sends, it sends without a right to.
            stage.wait_for(lambda: zombie.partitions, "it has come back")  # noqa: B023
            assert stage.engage.actions_asked() == asked
            polled += stage.engage.requests.total() - before
    balance = stage.finish(kills=rounds)
    figures(
        freezes=rounds,
        polls_of_zombies=polled,
        in_doubt_at_most=rounds * slots_of(stage.rate_limit),
        **balance.figures(),
    )
    stage.stop_all()


@pytest.mark.long
@pytest.mark.parametrize("protocol", [CLASSIC, CONSUMER], ids=["classic", "consumer"])
def test_instances_that_join_and_leave_every_second_put_nothing_in_doubt(
    stages: StageFactory, scale: Scale, figures: Figures, protocol: Protocol
) -> None:
    stage = stages(partitions=PARTITIONS, rate_limit=200, engage=LATE, kafka=protocol)
    stage.keep_open = OPEN
    running = [stage.relay() for _ in range(2)]
    left: list[RelayProcess] = []
    until_all_is_owned_by(stage, running)
    stage.until_accepted_more(60)
    joined, seconds = 0, scale.of(6, 240)
    with stage.fault():
        began = time.monotonic()
        for n in range(1, seconds + 1):
            # A machine that cannot start one in a second would only have ever more of them start.
            if sum(each.running for each in (*running, *left)) < MOST_AT_ONCE:
                running.append(stage.relay())
                joined += 1
            if len(running) > 3 and running[0].said("engage-relay starts"):
                left.append(running.pop(0))
                left[-1].terminate()
            stage.wait_for(lambda: time.monotonic() >= began + n, "the next second")  # noqa: B023
    for each in left:
        assert each.wait() == 0, each.last_words
    balance = stage.finish()
    assert balance.doubled_in_doubt == balance.resends == 0
    (storm,) = stage.faults
    moments = sorted(each.accepted_at for each in stage.engage.accepted if storm[0] <= each.accepted_at < storm[1])
    gaps = [after - before for before, after in zip([storm[0], *moments], [*moments, storm[1]], strict=True)]
    figures(
        joined=joined,
        left=len(left),
        accepted_per_second_meanwhile=f"{len(moments) / (storm[1] - storm[0]):.0f}",
        longest_gap_meanwhile=f"{max(gaps):.1f} s",
        **balance.figures(),
    )
    stage.stop_all()
