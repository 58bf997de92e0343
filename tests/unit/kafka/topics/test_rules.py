"""What a topic's configuration must be: each test is named after the failure that it prevents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from consumer.kafka.topics.rules import (
    COMPACTED,
    CONTROL,
    DAY_S,
    DEAD_LETTERS,
    Entries,
    Misfit,
    TopicRules,
    command,
    control_misfits,
    dead_letter_misfits,
    delay_misfits,
    forgotten_facts,
    fragile,
    outcomes_configuration,
    outcomes_misfits,
    source_misfits,
)

FOR_EVER = str(2**63 - 1)
# What a broker (4.2) gives a topic that is made without any configuration.
DEFAULTS: dict[str, str | None] = {
    "cleanup.policy": "delete",
    "retention.ms": str(7 * DAY_S * 1000),
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": FOR_EVER,
    "message.timestamp.after.max.ms": "3600000",
}
RULES = TopicRules()


def with_defaults(properties: dict[str, str]) -> dict[str, str | None]:
    return {**DEFAULTS, **properties}


def cures_of_dead_letters(**different: str) -> list[dict[str, str]]:
    entries = with_defaults({**DEAD_LETTERS, **{name.replace("_", "."): value for name, value in different.items()}})
    return [dict(each.cure) for each in dead_letter_misfits("d", entries, DEFAULTS, RULES)]


def test_what_topics_create_makes_fits_whatever_the_brokers_defaults_are() -> None:
    assert delay_misfits("d", with_defaults(COMPACTED)) == []
    assert control_misfits("c", with_defaults(CONTROL)) == []
    assert dead_letter_misfits("d", with_defaults(DEAD_LETTERS), DEFAULTS, RULES) == []


def test_a_dead_letter_topic_of_the_brokers_defaults_fits_in_none_of_the_ways_that_lose_a_dead_letter() -> None:
    whys = [each.why for each in dead_letter_misfits("d", DEFAULTS, DEFAULTS, RULES)]
    assert [any(name in why for why in whys) for name in ("retention.ms", "after.max.ms", "max.message.bytes")] == [
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact"])
def test_a_compacted_dead_letter_topic_stops_the_journal_at_the_first_event_without_a_key(policy: str) -> None:
    (cure,) = cures_of_dead_letters(cleanup_policy=policy)
    assert cure["cleanup.policy"] == "delete"
    assert cure["retention.ms"] == "-1"  # else the policy `delete` would take what is there at once


@pytest.mark.parametrize(
    ("retention_ms", "fits"), [(7 * DAY_S * 1000, False), (30 * DAY_S * 1000 - 1, False), (30 * DAY_S * 1000, True)]
)
def test_dead_letters_are_not_deleted_before_a_person_could_look_at_them(retention_ms: int, fits: bool) -> None:
    cures = cures_of_dead_letters(retention_ms=str(retention_ms))
    assert cures == ([] if fits else [{"retention.ms": "-1"}])


def test_an_operator_who_must_delete_sooner_says_so() -> None:
    entries = with_defaults({**DEAD_LETTERS, "retention.ms": str(7 * DAY_S * 1000)})
    assert dead_letter_misfits("d", entries, DEFAULTS, TopicRules(keep_dead_letters_s=7 * DAY_S)) == []


def test_a_limit_in_bytes_deletes_the_newest_dead_letters_in_a_storm() -> None:
    assert cures_of_dead_letters(retention_bytes="1073741824") == [{"retention.bytes": "-1"}]


@pytest.mark.parametrize(
    "limit",
    ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"],
)
def test_a_hosts_wrong_clock_is_refused_by_neither_topic(limit: str) -> None:
    cure = {"message.timestamp.type": "LogAppendTime"}
    different = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": FOR_EVER, limit: "7200000"}
    delay = with_defaults({**COMPACTED, **different})
    dead_letters = with_defaults({**DEAD_LETTERS, **different})
    assert [dict(each.cure) for each in delay_misfits("d", delay)] == [cure]
    assert [dict(each.cure) for each in dead_letter_misfits("d", dead_letters, DEFAULTS, RULES)] == [cure]
    assert delay_misfits("d", {**delay, "message.timestamp.type": "LogAppendTime"}) == []
    assert delay_misfits("d", {**delay, limit: FOR_EVER}) == []


@pytest.mark.parametrize(
    ("source", "taken", "fits"),
    [
        (1_048_588, 1_048_588, False),  # the headers come on top
        (1_048_588, 1_200_000, True),
        (100_000_000, 8 << 20, True),  # the relay itself writes no larger ones
    ],
)
def test_a_dead_letter_as_large_as_its_event_keeps_its_value(source: int, taken: int, fits: bool) -> None:
    entries = with_defaults({**DEAD_LETTERS, "max.message.bytes": str(taken)})
    found = dead_letter_misfits("d", entries, {"max.message.bytes": str(source)}, RULES)
    assert [dict(each.cure) for each in found] == ([] if fits else [{"max.message.bytes": str(8 << 20)}])


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_source_is_refused_until_somebody_accepts_that_earlier_events_vanish(policy: str) -> None:
    entries = with_defaults({"cleanup.policy": policy})
    (misfit,) = source_misfits("orders", entries, RULES)
    assert "source.compacted: accept" in str(misfit)
    assert misfit.cure == {}  # its owner decides
    assert source_misfits("orders", entries, TopicRules(compacted_source=True)) == []


def test_what_may_not_be_looked_at_is_no_error() -> None:
    assert delay_misfits("d", {}) == []
    assert dead_letter_misfits("d", {}, {}, RULES) == []
    assert source_misfits("orders", {}, RULES) == []


def test_the_line_for_a_person_is_one_that_kafkas_tool_reads() -> None:
    assert command("orders.engage.delay", {"cleanup.policy": "compact,delete", "retention.ms": "-1"}) == (
        "kafka-configs.sh --bootstrap-server BOOTSTRAP --alter --entity-type topics --entity-name orders.engage.delay "
        "--add-config cleanup.policy=[compact,delete],retention.ms=-1"
    )


def whys_of_outcomes(**different: str) -> list[str]:
    made = outcomes_configuration(RULES)
    entries = with_defaults({**made, **{name.replace("_", "."): value for name, value in different.items()}})
    return [each.why for each in outcomes_misfits("o", entries, RULES)]


def test_an_outcomes_topic_fits_as_it_is_created_and_where_it_keeps_more() -> None:
    assert whys_of_outcomes() == []
    assert whys_of_outcomes(retention_ms="-1") == []
    assert whys_of_outcomes(retention_ms=str(400 * 24 * 3600 * 1000)) == []


@pytest.mark.parametrize(
    ("different", "why"),
    [
        ({"retention_ms": "604800000"}, "deletes outcomes after 7 days"),
        ({"retention_bytes": "1000000"}, "deletes outcomes beyond 1000000 bytes"),
        ({"cleanup_policy": "compact"}, "would keep one outcome per key and refuse those without a key"),
        ({"cleanup_policy": "compact,delete"}, "would keep one outcome per key"),
        ({"max_message_bytes": "1000"}, "an outcome that is refused stops the relay"),
    ],
)
def test_an_outcomes_topic_that_loses_or_refuses_outcomes_does_not_fit(different: dict[str, str], why: str) -> None:
    (found,) = whys_of_outcomes(**different)
    assert why in found


@pytest.mark.parametrize(
    ("retention_s", "policy", "repeats_s", "forgets"),
    [
        (DAY_S, "delete", DAY_S, False),
        (DAY_S - 1, "delete", DAY_S, True),
        (DAY_S, "delete", None, False),  # each event is sent
        (None, "delete", DAY_S, False),  # for ever
        (DAY_S - 1, "compact", DAY_S, False),  # refused for another reason; its retention deletes nothing
    ],
)
def test_outcomes_that_go_before_the_window_is_over_are_told_of(
    retention_s: float | None, policy: str, repeats_s: float | None, forgets: bool
) -> None:
    """Otherwise a restart mails repeats, and nobody knew that it would."""
    retention_ms = -1 if retention_s is None else round(retention_s * 1000)
    entries = with_defaults({"cleanup.policy": policy, "retention.ms": str(retention_ms)})
    why = forgotten_facts("o", entries, TopicRules(repeats_s=repeats_s))
    assert (why is not None) == forgets
    assert forgotten_facts("o", {}, TopicRules(repeats_s=DAY_S)) is None  # without the right to look


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_control_topic_with_retention_ends_pauses_that_nobody_ended(policy: str) -> None:
    (found,) = control_misfits("c", with_defaults({**CONTROL, "cleanup.policy": policy}))
    assert "would forget pauses" in str(found)
    assert (found.cure, found.loses) == ({"cleanup.policy": "compact"}, True)


@pytest.mark.parametrize(("misfits", "created"), [(delay_misfits, COMPACTED), (control_misfits, CONTROL)])
@pytest.mark.parametrize(("kept_ms", "fits"), [("100", False), ("0", False), ("3599999", False), ("3600000", True)])
def test_a_tombstone_that_is_gone_too_soon_makes_what_has_ended_pending_again(
    misfits: Callable[[str, Entries], list[Misfit]], created: dict[str, str], kept_ms: str, *, fits: bool
) -> None:
    """As with `delete.retention.ms=100` beside `segment.ms=100`, which many examples of compaction have."""
    found = misfits("d", with_defaults({**created, "delete.retention.ms": kept_ms}))
    assert [dict(each.cure) for each in found] == ([] if fits else [{"delete.retention.ms": "86400000"}])


@pytest.mark.parametrize(
    ("copies", "brokers", "different", "said"),
    [
        (1, 3, {}, "has one copy, on one of 3 brokers"),
        (3, 3, {}, "has min.insync.replicas=1"),
        (2, 3, {"min.insync.replicas": "2", "unclean.leader.election.enable": "true"}, "unclean.leader.election"),
        (3, 3, {"min.insync.replicas": "2"}, None),
        (1, 1, {}, None),  # there is no other broker
    ],
)
def test_what_a_lost_broker_would_take_with_it_is_told(
    copies: int, brokers: int, different: dict[str, str], said: str | None
) -> None:
    entries = with_defaults({"min.insync.replicas": "1", "unclean.leader.election.enable": "false", **different})
    found = fragile("d", copies, brokers, entries)
    assert len(found) == (0 if said is None else 1)
    assert said is None or said in found[0]
    assert fragile("d", 3, 3, {}) == []  # without the right to look
