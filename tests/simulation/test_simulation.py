"""The simulation as tests: nothing is violated, all that is rare is reached, every deliberate error noticed."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections import Counter, deque

import pytest

from consumer.core.effects import ActionId, Save
from consumer.core.ownership import Assignment
from consumer.events.routing.results import Routed
from consumer.kafka.records.pending import new_action, pending_value
from consumer.kafka.records.source_events import SourceEvent
from tests.simulation import (
    document_mutants,
    identity_mutants,
    item_mutants,
    mutants,
    neighbour_mutants,
    parking_mutants,
    pause_mutants,
    repeat_mutants,
    request_mutants,
    sequence_mutants,
)
from tests.simulation.coverage import TO_BE_REACHED
from tests.simulation.process import TOPICS
from tests.simulation.profile import Profile
from tests.simulation.scheduler import START, Scheduler, ViolationError
from tests.simulation.workload import ROUTER, Event

SCHEDULES = int(os.environ.get("SIMULATION_SCHEDULES", "5000"))
QUIET = Profile(
    processes=1,
    partitions=1,
    events=1,
    faults=0,
    client_error=0.0,
    unreliable=0.0,
    nesting=0.0,
    max_pending=1,
    session_s=45.0,
)
KINDS = {
    "documents": Profile.of_documents,
    "items": Profile.of_items,
    "parking": Profile.of_parking,
    "neighbours": Profile.of_neighbours,
    "pauses": Profile.of_pauses,
    "repeats": Profile.of_repeats,
    "requests": Profile.of_requests,
    "sequences": Profile.of_sequences,
}
OF_KIND = {
    "documents": document_mutants.ALL,
    "items": item_mutants.ALL,
    "parking": parking_mutants.ALL,
    "neighbours": neighbour_mutants.ALL,
    "pauses": pause_mutants.ALL,
    "repeats": repeat_mutants.ALL,
    "requests": request_mutants.ALL,
    "sequences": sequence_mutants.ALL,
}
OF_ANY_KIND = (mutants.ALL, identity_mutants.ALL)
MUTATIONS = {name: each for mutations in (*OF_ANY_KIND, *OF_KIND.values()) for name, each in mutations.items()}
PATIENCE_S = 120.0  # of CPU, for a mutation to be noticed: a slow and busy machine plays thirty schedules in a second
# What takes several accidents in a row shows in one schedule of thousands. The search begins at one that showed it, and
# goes on from there where a change of the simulated world has made others of all schedules.
RARE = {
    "a_document_without_an_answer_is_sent_again_at_once": 253,
    "a_new_owner_does_not_wait_for_what_the_former_one_answered": 4480,
    "a_restore_ends_at_the_last_stable_offset": 13915,
    "an_answer_to_what_was_asked_before_counts_for_what_is_sent_again": 12428,
    "the_document_of_a_dead_owner_is_sent_again_at_once": 1315,
    "what_a_late_commit_made_visible_of_a_refused_answer_is_not_carried_out": 1704,
    "what_is_in_doubt_is_sent_again_at_once": 2614,
}
# What shows in one schedule of hundreds, likewise: all before it took ten to forty seconds of CPU each.
SELDOM = {
    "a_document_that_is_sent_again_counts_as_new": 244,
    "a_document_without_an_answer_is_forgotten_with_its_action": 285,
    "a_missing_mark_is_read_as_latest": 572,
    "a_negative_generation_is_published": 625,
    "a_parked_action_that_is_gone_keeps_its_fact": 452,
    "a_partition_is_resumed_that_was_not_paused": 1427,
    "a_partition_that_cannot_be_served_ends_the_process": 3242,
    "a_partition_that_takes_nothing_holds_up_all_others": 2385,
    "a_restore_takes_what_a_former_topic_left_for_what_comes_again": 806,
    "a_transactional_id_that_cannot_be_used_is_waited_for": 606,
    "a_zombie_trusts_its_old_proof": 1034,
    "an_action_whose_record_is_refused_is_cut_in_two": 59,
    "an_answer_is_written_before_what_it_says": 389,
    "an_older_offset_counts_before_a_later_position": 1313,
    "an_unknown_newest_document_is_taken_for_none": 273,
    "nobody_hears_that_the_source_has_grown": 1238,
    "steps_are_kept_beyond_the_window": 334,
    "the_clock_follows_the_wall": 2082,
    "the_newest_document_outlives_its_assignment": 4601,
    "what_a_person_had_sent_again_supersedes": 281,
    "what_is_pending_does_not_wait_for_the_steps": 2472,
    "what_just_ended_is_sent_again_before_its_dead_letter_is_written": 1738,
    "what_supersedes_does_not_wait_for_a_document_under_way": 724,
}
# A state that shows in one schedule of ten thousand, and one that shows it.
SHOWN_BY = {"an action whose intent was saved was superseded": 13050}


def play(seed: int, kind: str | None = None) -> Scheduler:
    scheduler = schedule(seed, kind)
    try:
        scheduler.run()
    except ViolationError as violation:
        again = f"python -m tests.simulation --seed {seed} --trace{f' --{kind}' if kind else ''}"
        pytest.fail(f"{violation}; again: {again}", pytrace=False)
    return scheduler


def schedule(seed: int, kind: str | None) -> Scheduler:
    return Scheduler(seed, profile=KINDS[kind](random.Random(seed)) if kind else None)


@pytest.mark.timeout(360)
def test_no_schedule_breaks_the_promise_and_each_rare_state_is_reached() -> None:
    reached: Counter[str] = Counter()
    for seed in (*range(SCHEDULES), *SHOWN_BY.values()):
        reached.update(play(seed).reached)

    assert [state for state in TO_BE_REACHED if not reached[state]] == []


@pytest.mark.parametrize("seed", range(40))
def test_an_event_whose_record_became_visible_before_its_offset_is_not_sent_twice(seed: int) -> None:
    """A delayed commit request ended the next transaction half-way: its record counts, its offset does not."""
    scheduler = Scheduler(seed, profile=QUIET)
    event = scheduler.events[0] = Event(
        number=0,
        kind="action",
        order="A",
        resend=True,
        value=b'{"k":"a","o":"A","v":"tag","n":0}',
        ready_at=0.0,
        nature="ordinary",
    )
    scheduler.unpublished = deque([event])
    scheduler.publish()
    assert event.value is not None
    read = SourceEvent(topic=TOPICS.source, partition=0, offset=0, timestamp_ms=1, key=b"key", value=event.value)
    routed = ROUTER.route(json.loads(event.value), read)
    assert isinstance(routed, Routed)
    action = new_action(routed, read)
    save = Save(
        action_id=ActionId(Assignment(TOPICS.source, 0, 1), 0),
        route=action.route,
        payload=action.payload,
        sending=False,
        first_seen=START,
        due=START,
        attempts=0,
        sends=0,
        version_tag="tag",
        job_id=None,
    )
    scheduler.kafka.logs[TOPICS.delay, 0].append(event.key, pending_value(save), START)
    event.torn = True
    scheduler.run()

    assert event.accepted == 1


def trace(seed: int) -> list[str]:
    said: list[str] = []
    scheduler = Scheduler(seed, trace=said.append)
    scheduler.run()
    return said


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_a_seed_is_the_whole_schedule(seed: int) -> None:
    assert trace(seed) == trace(seed)


def production() -> dict[str, object]:
    """Return every global of the production code, and every attribute of its classes."""
    found: dict[str, object] = {}
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "consumer"]:
        for name, value in vars(module).items():
            found[f"{module.__name__}.{name}"] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                found.update({f"{module.__name__}.{name}.{each}": of for each, of in vars(value).items()})
    return found


def test_a_schedule_drives_the_production_code_as_it_is() -> None:
    """The models come in as parameters: what is patched for the simulation is not what runs in production."""
    before = production()
    patched: set[str] = set()

    def look(_: str) -> None:
        now = production()
        patched.update(name for name in before if now.get(name) is not before[name])

    scheduler = Scheduler(5, trace=lambda said: look(said) if scheduler.steps % 10 == 0 else None)
    scheduler.run()
    look("the end")
    assert scheduler.steps > 10
    assert patched == set()


@pytest.mark.timeout(720)
@pytest.mark.parametrize("name", [pytest.param(each, marks=[pytest.mark.long] * (each in RARE)) for each in MUTATIONS])
def test_a_deliberate_error_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next((kind for kind, mutations in OF_KIND.items() if name in mutations), None)
    first = (RARE | SELDOM).get(name, 0)
    until = time.process_time() + (4 * PATIENCE_S if name in RARE else PATIENCE_S)
    for seed in itertools.count(first):
        with monkeypatch.context() as patch:
            MUTATIONS[name](patch)
            try:
                schedule(seed, kind).run()
            except ViolationError as violation:
                print(f"schedule {seed}: {violation}")
                break
        assert time.process_time() < until, f"{name} was not noticed in {seed + 1 - first} schedules"
    play(seed, kind)  # without the error, nothing is wrong with it
