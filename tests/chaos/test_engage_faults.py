"""Engage in every bad mood, under load: one storm after another, and after each the calm in which it comes back.

What each single answer means is tested in tests/broker/relay/test_relay_outcomes.py. Here it is many at once: nothing
is lost or dead-lettered that need not be, no more is doubled than Engage took without saying so, and the pace
holds. The time from the storm's end to full speed is shown. Breaker, cooldowns and rate limits are production's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumer.core.pacing import FAILURES_IN_A_ROW
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.relay.connections import slots_of
from consumer.simulator.chance import draw
from schemas.dead_letter import Reason
from tests.chaos.progress import recovery_s
from tests.chaos.stage import EVENTS, Event, Stage, StageFactory
from tests.support.engage import API_KEY
from tests.support.events import number_of
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess
from tests.support.waiting import PATIENCE_S, until

RATE_LIMIT = 400  # requests a second; an action takes four where a later event of its order has made its tag stale
CALM = 100  # actions between two storms: about a second's at full speed
OPEN = 150  # events at the least, lest it run out of work
NEXT_KEY = "key-that-comes-after-it-and-is-no-less-secret"
LOST_ANSWERS = ("no answer", "reset", "closed", "garbage")  # as the simulator counts them; of "cut" the 202 is seen
IN_DOUBT = ("500", "502", "503", "504", *LOST_ANSWERS)


@dataclass(frozen=True)
class Storm:
    """What Engage does, until it was felt so many times; and by which statuses the operator sees it."""

    name: str
    faults: tuple[str, ...]
    felt: int
    seen_as: tuple[str, ...]


STORMS = (
    Storm("503 to all", ("unavailable=1",), FAILURES_IN_A_ROW, ("503",)),
    Storm("500, 502 and 504 with and without HTML", ("error=0.2", "html=0.1"), 40, ("500", "502", "504")),
    Storm("resets", ("reset-before=0.15", "reset-after=0.15"), 30, ("closed",)),
    Storm("half answers", ("close-after=0.1", "cut-body=0.1", "garbage=0.1"), 30, ("closed", "garbage")),
    Storm("stale tags", ("stale=0.3",), 20, ("404",)),
    Storm("401 now and then", ("unauthorized=0.03", "slow=0.5"), 160, ("401",)),
    Storm("429", ("throttle=0.05",), 3, ("429",)),
)
SILENCES = (
    Storm("answers too late", ("slow=1",), 60, ("timeout",)),
    Storm("silence", ("hang=0.2", "lost-answer=0.2,calls=action"), 30, ("timeout",)),
)


class Weather:
    """Storms over a stage: each with a name, a beginning and an end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._names: list[str] = []

    def storm(self, storm: Storm) -> None:
        """Have Engage be like that until it was felt, then wait until there was some calm."""
        before = self._stage.engage.faults.total()
        self.fault(
            storm.name,
            lambda: self._stage.engage.set_faults(*storm.faults),
            lambda: self._stage.wait_for(
                lambda: self._stage.engage.faults.total() - before >= storm.felt, f"{storm.name} is felt"
            ),
            self._stage.engage.set_faults,
        )

    def fault(self, name: str, *steps: Callable[[], object]) -> None:
        """Take these steps, from the first of which to the last it is bad, then wait until there was some calm."""
        self._names.append(name)
        with self._stage.fault():
            for step in steps:
                step()
        self._stage.until_accepted_more(CALM)

    def figures(self) -> dict[str, str]:
        """Return how long it took to full speed after each."""
        accepted_at = sorted(each.accepted_at for each in self._stage.engage.accepted)
        nexts = [began for began, _ in self._stage.faults[1:]] + [inf]
        shown: dict[str, list[str]] = {}
        for name, fault, following in zip(self._names, self._stage.faults, nexts, strict=True):
            seconds = recovery_s(accepted_at, *fault, following)
            shown.setdefault(name, []).append("not before the next" if seconds is None else f"{seconds:.1f} s")
        return {f"full speed after {name}": " / ".join(times) for name, times in shown.items()}


def asked(relay: RelayProcess, *statuses: str, call: str = "") -> float:
    """Return how many requests the relay shows its operator as ended like this; `call`: of this kind only."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(relay.get("/metrics")[1])
        for sample in family.samples
        if sample.name == "engage_relay_requests_total"
        and sample.labels["status"] in statuses
        and sample.labels["call"].startswith(call)
    )


def until_met(relay: RelayProcess, times: int, *statuses: str) -> Callable[[], object]:
    """Return what waits until the relay has met these so many times more than now, as it says itself."""
    before = asked(relay, *statuses)
    what = f"it meets {statuses} {times} times"
    # Who does not answer is tried ever more rarely.
    return lambda: until(lambda: asked(relay, *statuses) - before >= times, what, 3 * PATIENCE_S)


def accepted_unanswered(stage: Stage) -> int:
    """Return how many actions Engage took without saying so, or with a cut answer: each may be doubled once."""
    return len(stage.engage.accepted) - answered(stage, "202")


def answered(stage: Stage, *how: str) -> int:
    """Return how many actions Engage answered like this."""
    return sum(stage.engage.requests["action", each] for each in how)


def relays_on(stage: Stage, instances: int) -> list[RelayProcess]:
    """Start the relays, and wait until they are at full speed."""
    stage.keep_open = OPEN
    stage.publish(OPEN // len(EVENTS))
    relays = [stage.relay(f"relay-{number}") for number in range(instances)]
    stage.until_accepted(2 * CALM)
    return relays


def rounds_of(storms: tuple[Storm, ...], scale: Scale) -> list[Storm]:
    """Return each of them, or many rounds of them in ever another order."""
    drawing = random.Random(4)
    rounds = [storms] + [tuple(drawing.sample(storms, len(storms))) for _ in range(scale.of(0, 5))]
    return [replace(storm, felt=storm.felt * scale.of(1, 6)) for each in rounds for storm in each]


@pytest.mark.long
def test_after_each_storm_it_comes_back_and_only_what_engage_kept_to_itself_is_doubled(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    stage = stages(partitions=6, rate_limit=RATE_LIMIT, engage={"slow": "uniform:20ms..100ms"})
    relays = relays_on(stage, scale.of(1, 3))
    weather = Weather(stage)
    for storm in rounds_of(STORMS, scale):
        weather.storm(storm)
    balance = stage.finish(fresh_doubt=True)
    assert sum(balance.dead_letters.values()) == 0
    unanswered, doubtful = accepted_unanswered(stage), answered(stage, *IN_DOUBT)
    assert 0 < balance.doubled_in_doubt <= unanswered
    assert len(stage.books.resent) <= doubtful, "something else was in doubt, too"
    for relay in relays:
        assert all(asked(relay, status) for storm in STORMS for status in storm.seen_as)
        assert relay.said("Engage is unavailable")
        assert relay.said("an action is in doubt")
        assert relay.said("Engage asks for fewer requests")
    faults = stage.engage.faults.total()
    figures(
        faults=faults,
        doubtful_answers=doubtful,
        accepted_all_the_same=unanswered,
        **balance.figures(),
        **weather.figures(),
    )
    stage.stop_all()


@pytest.mark.long
def test_whoever_is_gone_stands_still_or_answers_too_late_is_waited_for(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    late = {"slow": "uniform:100ms..2s"}  # at the slowest, twice what is waited for
    stage = stages(partitions=6, rate_limit=RATE_LIMIT, engage=late, connection={"timeout": "1s"})
    # What was asked of a process that stands still arrives at once when it continues.
    stage.bunching += slots_of(stage.rate_limit) / stage.rate_limit
    relays = relays_on(stage, scale.of(1, 3))
    weather = Weather(stage)
    for _ in range(scale.of(1, 5)):
        gone = until_met(
            relays[0], FAILURES_IN_A_ROW + scale.of(1, 4), "connect", "closed"
        )  # and the first half-open probe
        refused = until_met(relays[0], 1, "connect")  # all before it may have been under way when it went
        weather.fault("nobody listens", stage.engage.down, gone, refused, stage.engage.up)
        stands = until_met(relays[0], FAILURES_IN_A_ROW + scale.of(0, 4), "timeout")
        weather.fault("a standstill", stage.engage.freeze, stands, stage.engage.thaw)
    for storm in rounds_of(SILENCES, scale):
        weather.storm(storm)
    balance = stage.finish(fresh_doubt=True)
    assert sum(balance.dead_letters.values()) == 0
    # What is cut off when Engage goes is in doubt, too.
    unanswered = sum(asked(relay, "timeout", "closed", call="action") for relay in relays)
    assert balance.doubled_in_doubt > 0
    assert len(stage.books.resent) <= unanswered
    for relay in relays:
        assert all(asked(relay, status) for status in ("connect", "timeout"))
        assert relay.said("Engage is unavailable")
        assert relay.said("an action is in doubt")
    figures(actions_without_an_answer=f"{unanswered:.0f}", **balance.figures(), **weather.figures())
    stage.stop_all()


AT_MOST_ONCE = {
    name: {**rule.model_dump(exclude_none=True), "on_unknown": "dead_letter"} for name, rule in BUILT_IN_ROUTES.items()
}
DOUBTFUL = ("error", "html", "reset-before", "reset-after", "close-after", "cut-body", "garbage", "lost-answer")
EITHER = (*(f"{fault}=0.02,calls=action" for fault in DOUBTFUL), "unavailable=0.05", "stale=0.05")


@pytest.mark.long
def test_what_may_be_sent_once_only_is_dead_lettered_in_doubt_and_never_accepted_twice(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    stage = stages(partitions=6, rate_limit=RATE_LIMIT, routes=AT_MOST_ONCE, connection={"timeout": "3s"})
    relays = relays_on(stage, scale.of(1, 3))
    weather = Weather(stage)
    for _ in range(scale.of(1, 20)):
        stage.keep_open += CALM  # what is dead-lettered counts as open there
        weather.storm(Storm("all kinds now and then", EITHER, 60, ()))
    balance = stage.finish()
    assert (balance.doubled_in_doubt, balance.resends) == (0, 0)
    assert balance.dead_letters == {Reason.OUTCOME_UNKNOWN: answered(stage, *IN_DOUBT)}
    assert sum(relay.metric("dead_letters_total") for relay in relays) == balance.dead_letters[Reason.OUTCOME_UNKNOWN]
    unanswered = accepted_unanswered(stage)
    assert 0 < unanswered < balance.dead_letters[Reason.OUTCOME_UNKNOWN]
    not_processed = answered(stage, "404")
    assert not_processed > 0, "nothing was refused that may well be sent again"
    figures(
        dead_lettered_though_accepted=unanswered,
        sent_again_when_surely_not_processed=not_processed,
        **balance.figures(),
        **weather.figures(),
    )
    stage.stop_all()


def test_a_refused_key_costs_nothing_but_the_time_until_another_is_in_its_file(
    stages: StageFactory, scale: Scale, figures: Figures, tmp_path: Path
) -> None:
    file = tmp_path / "engage-api-key"
    file.write_text(API_KEY)
    stage = stages(partitions=6, rate_limit=RATE_LIMIT, connection={"api_key": None, "api_key_file": str(file)})
    relays = relays_on(stage, scale.of(1, 3))
    weather = Weather(stage)
    keys = [NEXT_KEY, *[API_KEY, NEXT_KEY] * scale.of(0, 10)]
    for key in keys:
        weather.fault(
            "a refused key",
            lambda: stage.engage.set_keys(key),  # noqa: B023
            lambda: until(
                lambda: any(relay.metric("connection_suspended") for relay in relays), "a connection is suspended"
            ),
            lambda: file.write_text(key),  # noqa: B023
        )
    balance = stage.finish()
    assert sum(balance.dead_letters.values()) == 0
    assert balance.doubled_in_doubt == 0
    assert stage.engage.max_in_a_second(NEXT_KEY) <= stage.bunching * stage.rate_limit
    assert sum(len(relay.said("connection resumed: Engage accepts its key")) for relay in relays) >= len(keys)
    for relay in relays:
        assert relay.metric("connection_suspended") == 0
        assert NEXT_KEY not in relay.text
    refused = sum(count for (_, status), count in stage.engage.requests.items() if status == "401")
    figures(keys=len(keys), requests_refused=refused, **balance.figures(), **weather.figures())
    stage.stop_all()


SEED, FAILING, STUCK = 1, 0.06, 0.06


def ill_fate(order: str, number: object) -> Reason | None:
    """Say what becomes of an order's event whose job fails or never completes, as the simulator draws it."""
    share = draw(SEED, "fate", order, int(str(number)))
    if share < FAILING:
        return Reason.JOB_FAILED
    return Reason.DEADLINE if share < FAILING + STUCK else None


@pytest.mark.long
def test_jobs_that_fail_or_never_complete_are_dead_lettered_and_nobody_else_waits_for_them(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    deadline_s = scale.of(4, 60)
    polling = {"initial": "50ms", "max_interval": "1s", "deadline": f"{deadline_s}s"}
    ill = {"seed": SEED, "failing": FAILING, "stuck": STUCK}
    stage = stages(partitions=6, rate_limit=RATE_LIMIT, engage=ill, polling=polling)
    for number in range(scale.of(1, 3)):
        stage.relay(f"relay-{number}").wait_until_ready()
    stage.publish(scale.of(40, 400))
    ends = {event: ill_fate(*event) for event in stage.published}
    held_up = {order for (order, _), end in ends.items() if end is Reason.DEADLINE}
    others = {event for event, end in ends.items() if event[0] not in held_up and end is None}

    def accepted() -> set[Event]:
        return {(each.order_id, number_of(each.data)) for each in stage.engage.accepted}

    stage.wait_for(lambda: others <= accepted(), "all orders without a job that never completes are done")
    in_time = Reason.DEADLINE not in {dead_letter.reason for dead_letter in stage.books.read().dead_letters}
    assert in_time, "they waited for the others' deadline"
    balance = stage.finish()
    expected = Counter(end for end in ends.values() if end is not None)
    assert balance.dead_letters == expected
    assert set(expected) == {Reason.JOB_FAILED, Reason.DEADLINE}
    assert {event for event, end in ends.items() if end is None} == accepted()
    figures(
        failed=expected[Reason.JOB_FAILED],
        never_completed=expected[Reason.DEADLINE],
        deadline=f"{deadline_s} s",
        **balance.figures(),
    )
    stage.stop_all()
