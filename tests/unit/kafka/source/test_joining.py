"""What is said of a group that lets nobody in."""

from __future__ import annotations

from consumer.kafka.source.joining import PATIENCE_S, why_not_joined


def test_a_wait_that_a_rebalance_may_last_is_nothing_to_be_said() -> None:
    assert why_not_joined({"group.id": "relay"}, PATIENCE_S - 1) is None


def test_a_longer_one_is_said_and_the_newer_protocol_is_suspected_where_it_is_used() -> None:
    assert why_not_joined({"group.id": "relay"}, PATIENCE_S) == (
        "group relay has not let this instance in for more than 60 s"
    )
    why = why_not_joined({"group.id": "relay", "group.protocol": "consumer"}, PATIENCE_S)
    assert why is not None
    assert why.endswith("do not know `group.protocol: consumer`, and others may leave it out")


def test_what_the_coordinator_answers_is_said_at_once() -> None:
    assert why_not_joined({"group.id": "relay"}, 0.0, "JoinGroup failed: the group is full") == (
        "group relay does not let this instance in: JoinGroup failed: the group is full"
    )
