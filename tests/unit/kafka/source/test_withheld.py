"""Who joins again for partitions that a stable group gives to nobody."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from confluent_kafka.admin import GroupMember, GroupMetadata

import consumer
from consumer.kafka.source import withheld
from consumer.kafka.source.withheld import LOOKS, GroupWatch, Look, Withheld, assigned
from tests.support.waiting import until

CONSUMER = Path(consumer.__file__).parent

COUNTS = {"orders": 5}
WITHHELD = Look(stable=True, owned={("orders", 0), ("orders", 3)}, members=["relay-1-5e2f", "relay-0-c04a"])


def rejoins(name: str, *looks: Look) -> list[int]:
    """Return at which looks this member is to join again, counted from 1."""
    counted = Withheld()
    answers = [counted.saw(look, COUNTS, name) for look in looks]
    assert set(answers) <= {0, 3}  # how many are nobody's
    return [number for number, answer in enumerate(answers, 1) if answer]


def test_one_member_after_the_other_joins_again_until_it_helps() -> None:
    looks = [WITHHELD] * 4 * LOOKS
    assert rejoins("relay-0-c04a", *looks) == [LOOKS, 3 * LOOKS]
    assert rejoins("relay-1-5e2f", *looks) == [2 * LOOKS, 4 * LOOKS]


def test_what_passes_by_itself_makes_nobody_join_again() -> None:
    almost = [WITHHELD] * (LOOKS - 1)
    moving = replace(WITHHELD, stable=False)
    well = replace(WITHHELD, owned={("orders", number) for number in range(5)})
    assert rejoins("relay-0-c04a", *almost, moving, *almost, well, *almost) == []


def test_a_member_that_the_group_does_not_name_has_nothing_to_decide() -> None:
    assert rejoins("relay-2-77b1", *[WITHHELD] * 9) == []


def test_a_members_assignment_is_read_as_kafka_writes_it() -> None:
    orders, returns = b"\x00\x06orders" + _numbers(0, 2), b"\x00\x07returns" + _numbers(1)
    written = b"\x00\x01" + b"\x00\x00\x00\x02" + orders + returns + b"\x00\x00\x00\x00"
    assert assigned(written) == [("orders", 0), ("orders", 2), ("returns", 1)]
    assert assigned(b"") == []  # of a member that has just joined


def test_what_a_look_cannot_read_is_no_look_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign, ours = described(b"\x00\x01\x00"), described(b"\x00\x01" + struct.pack(">i", 0))
    monkeypatch.setattr(withheld, "LOOK_INTERVAL_S", 0.001)
    answers = iter([[foreign], *[[ours]] * 1000 * LOOKS])
    admin = Mock(**{"return_value.list_groups.side_effect": lambda *_: next(answers)})
    monkeypatch.setattr(withheld, "AdminClient", admin)
    watch = GroupWatch({"group.id": "relay", "bootstrap.servers": "nowhere:9"})
    watch.start()
    try:
        assert until(lambda: watch.must_rejoin(COUNTS, "relay-0-c04a"), "looks count again") == 5
    finally:
        watch.stop()


def described(assignment: bytes) -> GroupMetadata:
    member, group = GroupMember(), GroupMetadata()
    vars(member).update(id="relay-0-c04a", assignment=assignment)
    vars(group).update(id="relay", error=None, state="Stable", members=[member])
    return group


def _numbers(*numbers: int) -> bytes:
    return struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)


def test_a_relay_that_runs_asks_no_coordinator_with_the_admin_client() -> None:
    """librdkafka ends the process where the connection to the coordinator breaks meanwhile (its issue 4605)."""
    for_the_coordinator = re.compile(r"\.((?:list|describe|alter|delete)_consumer_group\w*)\(")
    found = {
        (file.relative_to(CONSUMER).as_posix(), call)
        for file in CONSUMER.rglob("*.py")
        for call in for_the_coordinator.findall(file.read_text())
        if "commands" not in file.parts and "demo" not in file.parts
    }
    assert found == {("kafka/identity/adoption.py", "describe_consumer_groups")}  # `topics adopt` alone
