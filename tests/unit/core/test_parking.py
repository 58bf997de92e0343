"""Who holds how much memory, and what is parked."""

from __future__ import annotations

import gc
import sys
from array import array
from dataclasses import replace

from consumer.core.effects import ActionId, LiveAction, NewAction, Save
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import Accepted, Ready
from consumer.core.ownership import Assignment
from consumer.core.parking import (
    BLOCK,
    BYTES_OF_PENDING,
    MAX_READ_BYTES,
    PARKED_BYTES,
    Memory,
    ParkedRange,
    ParkedRecords,
    ToRead,
)

OURS = Assignment("orders", 0, 1)
NOW = 1_700_000_000.0
HANGING = NewAction(route="r", connection="hanging", order_id="A", payload=b"x")
SERVED = replace(HANGING, connection="served", order_id="B", version_tag="tag")
BOTH = ("hanging", "served")


def ledger(actions: int = 6, connections: int = 2) -> Ledger:
    made = Ledger(Policy(), lambda: 0.5, Memory(actions, connections))
    made.assign(OURS, [], NOW)
    return made


def accept(of: Ledger, offset: int, action: NewAction) -> Save:
    save = of.accept(OURS, offset, action, NOW)
    assert save is not None
    return save


def fill(of: Ledger, count: int) -> list[Save]:
    """Accept so many actions of the hanging connection, one order each. Returns those that were parked."""
    saves = [accept(of, offset, replace(HANGING, order_id=f"A{offset}")) for offset in range(count)]
    return [save for save in saves if save.parked_for]


def committed(of: Ledger, saves: list[Save], first: int = 100) -> None:
    for n, save in enumerate(saves):
        of.parking.saved(OURS, save.parked_for or "", save.action_id.offset, first + n, 1000)


def live(offset: int, action: NewAction = HANGING) -> LiveAction:
    action = replace(action, order_id=f"A{offset}")
    return LiveAction(offset=offset, action=action, sending=False, first_seen=NOW, due=NOW, attempts=0, sends=0)


def read_back(of: Ledger, read: ToRead, offsets: list[int]) -> None:
    of.parking.read(read, {"hanging": 1000 * len(offsets)}, {"hanging": NOW})
    of.take_back(OURS, [live(offset) for offset in offsets], NOW)


def end(of: Ledger, offset: int) -> None:
    """Let an action be accepted."""
    of.wake(NOW + 100)
    while (request := of.take("hanging")) is not None:
        of.poll_answered(request.action_id, Ready("tag"), NOW + 100)
    for effect in of.save_intents("hanging", 1000):
        assert isinstance(effect, Save)
        of.intent_saved(effect.action_id, effect.sends, NOW + 100, before_document=effect.before_document)
    while of.take("hanging") is not None:
        pass
    of.action_answered(ActionId(OURS, offset), Accepted(), NOW + 100)


# -- shares -----------------------------------------------------------------------------------------------------------


def test_one_connection_has_all_of_the_memory() -> None:
    of = ledger(actions=6, connections=1)
    assert fill(of, 6) == []
    assert accept(of, 6, HANGING).parked_for == "hanging"


def test_a_connection_that_takes_more_and_more_leaves_room_for_the_others() -> None:
    of = ledger(actions=60, connections=10)
    held = 200 - len(fill(of, 200))
    assert 15 <= held <= 25
    assert all(accept(of, 1000 + n, replace(SERVED, order_id=f"B{n}")).parked_for is None for n in range(8))


def test_the_more_connections_need_memory_the_less_each_of_them_takes() -> None:
    memory = Memory(900, 100)
    held = dict.fromkeys(range(5), 0)
    for _ in range(900):
        for each in held:
            if held[each] + BYTES_OF_PENDING <= memory.share(sum(held.values())):
                held[each] += BYTES_OF_PENDING
    assert {round(each / BYTES_OF_PENDING) for each in held.values()} == {100}


def test_a_connection_may_always_hold_one_action() -> None:
    of = ledger(actions=1, connections=1000)
    assert fill(of, 1) == []
    assert accept(of, 1, SERVED).parked_for is None


def test_a_large_action_counts_for_more_than_one() -> None:
    of = ledger(actions=4, connections=1)
    accept(of, 0, replace(HANGING, payload=b"x" * 3 * BYTES_OF_PENDING))
    assert accept(of, 1, HANGING).parked_for == "hanging"


# -- order ------------------------------------------------------------------------------------------------------------


def test_while_something_is_parked_later_actions_are_parked_although_there_is_room() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 7))
    for offset in range(6):
        end(of, offset)
    assert of.parking.held == 0
    assert accept(of, 7, HANGING).parked_for == "hanging"
    assert accept(of, 8, SERVED).parked_for is None


def test_parked_actions_come_back_in_the_order_of_their_events() -> None:
    of = ledger(connections=1)
    parked = fill(of, 10)
    assert [save.action_id.offset for save in parked] == [6, 7, 8, 9]
    # The broker's answer about the first was lost, so it was written again, after the others.
    committed(of, parked[1:], first=100)
    assert of.to_read_back(NOW, BOTH) is None
    committed(of, parked[:1], first=110)
    for offset in range(6):
        end(of, offset)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    assert read.offsets == {"hanging": [110, 100, 101, 102]}


def test_when_all_were_read_back_new_actions_are_held_again() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 8))
    for offset in range(6):
        end(of, offset)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    read_back(of, read, [6, 7])
    assert of.parking.count == 0
    assert of.open == 2
    assert accept(of, 8, HANGING).parked_for is None


def test_what_is_not_committed_yet_keeps_later_actions_parked() -> None:
    of = ledger(connections=1)
    parked = fill(of, 8)
    committed(of, parked[:1])
    for offset in range(6):
        end(of, offset)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    read_back(of, read, [6])
    assert accept(of, 8, HANGING).parked_for == "hanging"
    assert of.to_read_back(NOW, BOTH) is None


def test_nothing_of_an_action_stays_in_memory_that_is_parked() -> None:
    """An entry that refers to itself stays until the garbage collector comes: with its payload, by the thousands."""
    of = ledger(connections=1)
    fill(of, 6)
    payload = b"p" * 70_000
    gc.disable()
    try:
        before = sys.getrefcount(payload)
        assert accept(of, 6, replace(HANGING, order_id="A6", payload=payload)).parked_for
        assert sys.getrefcount(payload) == before
    finally:
        gc.enable()


def test_an_event_that_comes_twice_is_parked_once() -> None:
    of = ledger(connections=1)
    fill(of, 8)
    assert of.accept(OURS, 7, HANGING, NOW) is None
    assert of.open == 8


def test_a_parked_record_that_became_a_dead_letter_is_not_waited_for() -> None:
    of = ledger(connections=1)
    parked = fill(of, 7)
    of.parking.refused(OURS, "hanging", parked[0].action_id.offset)
    assert of.open == 6
    for offset in range(6):
        end(of, offset)
    assert accept(of, 7, HANGING).parked_for is None


# -- reading back -----------------------------------------------------------------------------------------------------


def test_nothing_is_read_back_without_room() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 9))
    assert of.to_read_back(NOW, BOTH) is None


def test_of_large_records_fewer_are_read_back_at_a_time() -> None:
    """Else 500 documents of 70 kB come at once, each several times over: as read, parsed and packed."""
    of = ledger(actions=100_000, connections=1)
    for place in range(2_000):
        of.parking.park(OURS, "hanging", place, NOW)
        of.parking.saved(OURS, "hanging", place, place, 80_000)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    assert len(read.offsets["hanging"]) == MAX_READ_BYTES // 80_000


def test_a_record_that_is_larger_than_what_is_read_back_at_a_time_is_read_back_alone() -> None:
    of = ledger(actions=100_000, connections=1)
    for place in range(2):
        of.parking.park(OURS, "hanging", place, NOW)
        of.parking.saved(OURS, "hanging", place, place, 2 * MAX_READ_BYTES)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    assert read.offsets["hanging"] == [0]


def test_what_is_past_its_deadline_is_read_back_without_room() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 90))
    read = of.to_read_back(NOW + 25 * 3600, BOTH)
    assert read is not None
    assert 1 <= len(read.offsets["hanging"]) <= 8


def test_nothing_is_read_back_of_a_partition_in_hand_over() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 8))
    for offset in range(6):
        end(of, offset)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    of.stop(OURS)
    assert not of.may_take_back(read)
    assert of.to_read_back(NOW, BOTH) is None


def test_what_was_read_of_a_topic_that_was_recreated_counts_for_nothing() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 8))
    for offset in range(6):
        end(of, offset)
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    assert of.parking.recreated(OURS, 1) == 2
    assert not of.may_take_back(read)
    assert of.open == 0


def test_what_is_parked_of_a_connection_that_is_gone_is_read_back_to_end() -> None:
    of = ledger()
    of.assign(OURS, [], NOW, {"gone": ParkedRecords(offsets=array("q", [5, 3]), bytes=100, oldest=NOW)})
    read = of.to_read_back(NOW, BOTH)
    assert read is not None
    assert read.offsets == {"gone": [5, 3]}


def test_a_partition_that_is_gone_counts_no_longer() -> None:
    of = ledger(connections=1)
    committed(of, fill(of, 8))
    of.drop(OURS)
    assert (of.open, of.parking.held, of.parking.count) == (0, 0, 0)


def test_the_lowest_offset_of_what_is_parked_is_known() -> None:
    parked = ParkedRange(NOW)
    assert parked.lowest is None
    parked.append(range(5 * BLOCK, 0, -1))
    assert parked.lowest == 1
    assert parked.first(2) == [5 * BLOCK, 5 * BLOCK - 1]
    parked.drop(3 * BLOCK + 10)
    assert parked.count == 2 * BLOCK - 10
    assert parked.first(1) == [2 * BLOCK - 10]
    parked.drop(2 * BLOCK - 10)
    assert parked.lowest is None
    assert parked.first(10) == []


def test_parking_cannot_go_on_when_what_is_kept_takes_half_as_much_as_may_be_held() -> None:
    of = ledger(actions=1, connections=1)
    fill(of, BYTES_OF_PENDING // 2 // PARKED_BYTES + 1)
    assert not of.parking.is_full(False)
    accept(of, 500, HANGING)
    assert of.parking.is_full(False)
