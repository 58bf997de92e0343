"""A partition that is set apart is named from its first moment to its last."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from consumer.core.ownership import Assignment
from consumer.relay.log import ThrottledLog
from consumer.relay.set_apart import PartitionsApart

FIRST, SECOND, OTHER = (Assignment("orders", number, 1) for number in range(3))
FIRST_AGAIN = Assignment("orders", 0, 2)


def apart() -> PartitionsApart:
    return PartitionsApart(ThrottledLog(structlog.get_logger(), lambda: 0.0))


def told(lines: list[EventDict]) -> list[tuple[str, object, object]]:
    return [(each["event"].partition(":")[0], each["partition"], each.get("reason")) for each in lines]


def test_what_was_given_up_and_begins_again_stays_named_until_something_of_it_is_committed() -> None:
    """It begins under another epoch, and a restore reads it, though it may take no record."""
    partitions = apart()
    with capture_logs() as lines:
        partitions.add([FIRST], "unwritable", "no leader")
        partitions.add([FIRST_AGAIN], "unreadable", "no leader")
        assert partitions.of(FIRST_AGAIN) == ("unreadable", "no leader")
        partitions.committed([OTHER])
        assert FIRST_AGAIN in partitions
        partitions.committed([FIRST_AGAIN])
        assert partitions.of(FIRST_AGAIN) is None
        partitions.committed([FIRST_AGAIN])
    assert told(lines) == [
        ("partition set apart", 0, "unwritable"),
        ("partition set apart", 0, "unreadable"),
        ("partition served again", 0, None),
    ]


def test_it_is_said_once_however_often_it_is_tried() -> None:
    partitions = apart()
    with capture_logs() as lines:
        partitions.add([FIRST], "unreadable", "no leader")
        partitions.add([FIRST], "unreadable", "timed out")
    assert told(lines) == [("partition set apart", 0, "unreadable")]
    assert partitions.of(FIRST) == ("unreadable", "timed out")


def test_an_overrun_partition_is_not_served_again_because_its_pending_actions_end() -> None:
    partitions = apart()
    with capture_logs() as lines:
        partitions.add([FIRST], "overrun", "records were deleted unread")
        partitions.committed([FIRST])
    assert told(lines) == [("partition set apart", 0, "overrun")]
    assert partitions.count("overrun") == 1


def test_what_was_refused_together_is_served_again_together() -> None:
    """Only one of them has anything to write."""
    partitions = apart()
    partitions.add([FIRST, SECOND], "unwritable", "Topic authorization failed")
    with capture_logs() as lines:
        partitions.committed([SECOND])
    assert told(lines) == [("partition served again", 0, None), ("partition served again", 1, None)]
    assert FIRST not in partitions


def test_another_ones_partition_is_not_named_nor_what_only_it_would_end() -> None:
    partitions = apart()
    partitions.add([FIRST, SECOND], "unwritable", "Topic authorization failed")
    partitions.add([OTHER], "unreadable", "no leader")
    with capture_logs() as lines:
        partitions.forget(FIRST)
    assert (FIRST in partitions, SECOND in partitions, OTHER in partitions) == (False, False, True)
    assert not lines
