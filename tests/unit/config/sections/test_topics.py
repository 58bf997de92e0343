"""Each source topic has topics of its own, and no two are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.config.loading import load
from consumer.kafka.topics.topics import RelayTopics
from tests.unit.config.workspace import THREE, errors_of


def topics(delay: str, dead_letters: str, *sources: str) -> dict[str, str]:
    return {
        **THREE,
        "ENGAGE_RELAY__SOURCE__TOPICS": json.dumps(sources),
        "ENGAGE_RELAY__DELAY__TOPIC": delay,
        "ENGAGE_RELAY__DEAD_LETTERS__TOPIC": dead_letters,
    }


def test_each_source_topic_has_its_own_delay_topic_and_may_share_its_dead_letters() -> None:
    assert load(None, topics("wait.{source}", "dead", "a", "b")).topics == (
        RelayTopics("a", "wait.a", "dead", "a.engage.outcomes"),
        RelayTopics("b", "wait.b", "dead", "b.engage.outcomes"),
    )


def test_outcomes_are_written_unless_there_is_no_topic_for_them(tmp_path: Path) -> None:
    (off,) = load(None, {**THREE, "ENGAGE_RELAY__OUTCOMES__TOPIC": "none"}).topics
    (named,) = load(None, {**THREE, "ENGAGE_RELAY__OUTCOMES__TOPIC": "{source}.ends"}).topics
    assert (off.outcomes, off.own) == (None, (off.delay, off.dead_letters))
    assert named.outcomes == "orders.ends"
    for text in ("outcomes: off", "outcomes: false", "outcomes: {topic: none}"):
        path = tmp_path / "relay.yaml"
        path.write_text(text)
        assert load(path, THREE).topics == (off,)
    assert load(None, THREE).topic_rules.keep_outcomes_s == 90 * 24 * 3600


def test_the_control_topic_is_the_groups_unless_there_is_none() -> None:
    named = {**THREE, "ENGAGE_RELAY__KAFKA__GROUP_ID": "shop", "ENGAGE_RELAY__SOURCE__TOPICS": "a,b"}
    assert load(None, named).control_topic == "shop.engage.control"
    assert load(None, {**named, "ENGAGE_RELAY__CONTROL__TOPIC": "quiet"}).control_topic == "quiet"
    assert load(None, {**named, "ENGAGE_RELAY__CONTROL__TOPIC": "none"}).control_topic is None


def test_the_topics_are_held_against_the_longest_window_of_repeats() -> None:
    rules = load(None, {**THREE, "ENGAGE_RELAY__REPEATS": "3h"}).topic_rules
    none = load(None, {**THREE, "ENGAGE_RELAY__REPEATS": "off"}).topic_rules
    assert (rules.repeats_s, none.repeats_s) == (3 * 3600, None)
    steps = {**THREE, "ENGAGE_RELAY__STEPS": '["ConfirmOrder", "ConfirmDelivery"]'}
    assert load(None, {**steps, "ENGAGE_RELAY__REPEATS": "off"}).topic_rules.repeats_s == 24 * 3600
    assert load(None, {**steps, "ENGAGE_RELAY__REPEATS": "3h"}).sequences.window_s == 3 * 3600


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (topics("d", "x", "a", "b"), "DELAY__TOPIC: must hold {source}: each source topic needs a delay topic of its"),
        (topics("a", "x", "a"), "DELAY__TOPIC: must not be a source topic"),
        (topics("{source}.b", "x", "a", "a.b"), "DELAY__TOPIC: must not be a source topic"),
        (topics("d", "a", "a"), "DEAD_LETTERS__TOPIC: must not be a source topic"),
        (topics("d", "d", "a"), "DEAD_LETTERS__TOPIC: must not be a delay topic"),
        ({**topics("d", "x", "a"), "ENGAGE_RELAY__OUTCOMES__TOPIC": "d"}, "OUTCOMES__TOPIC: must not be a delay topic"),
        ({**topics("d", "x", "a"), "ENGAGE_RELAY__OUTCOMES__TOPIC": "x"}, "OUTCOMES__TOPIC: must not be a dead-letter"),
        (
            {**topics("{source}.d", "x", "a", "b"), "ENGAGE_RELAY__OUTCOMES__TOPIC": "o"},
            "OUTCOMES__TOPIC: must hold {source}: each source topic needs an outcomes topic of its own",
        ),
        ({**topics("d", "x", "a"), "ENGAGE_RELAY__CONTROL__TOPIC": "x"}, "CONTROL__TOPIC: must not be a dead-letter"),
        (
            {**topics("d", "x", "a"), "ENGAGE_RELAY__CONTROL__TOPIC": "{source}"},
            "CONTROL__TOPIC: must be a topic's name",
        ),
        (topics("{topic}", "x", "a"), "DELAY__TOPIC: must be a topic's name: letters, digits, '.', '_' and '-' (in br"),
        (topics("d", "{source", "a"), "DEAD_LETTERS__TOPIC: must be a topic's name"),
        (topics("d", "{source}", "a" * 250), "SOURCE__TOPICS source.topics[0]: must be at most 249 characters"),
        (topics("{source}." + "d" * 30, "x", "a" * 225), "DELAY__TOPIC: must be at most 249 characters"),
        (topics("d", "x"), "SOURCE__TOPICS: must not be empty"),
        (topics("d", "x", "a", "a"), "SOURCE__TOPICS: must not name a topic twice"),
        (topics("d", "x", "^a"), "SOURCE__TOPICS source.topics[0]: must be a topic's own name: patterns are not"),
        (topics("d", "x", ".."), "SOURCE__TOPICS source.topics[0]: must be a topic's name"),
    ],
)
def test_topics_that_cannot_be_or_would_meet_are_refused(environ: dict[str, str], text: str) -> None:
    (found,) = errors_of(environ)

    assert found.startswith(f"ENGAGE_RELAY__{text}")
