"""What a restore keeps in memory, and what it leaves in the delay topic."""

from __future__ import annotations

import json

import pytest

from consumer.core.digest_table import DIGEST_BYTES
from consumer.core.effects import ActionId, NewAction, Save
from consumer.core.ownership import Assignment
from consumer.core.parking import cost_of
from consumer.core.places import place_of
from consumer.core.sequences import Sequences, mark_of
from consumer.events.facts import digest_of
from consumer.events.routing.results import Routed
from consumer.kafka.parking.live_records import Kept, LiveRecords, Room
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.pending import new_action, pending_value
from consumer.kafka.records.source_events import SourceEvent
from schemas.pending_action import FromJob

NOW = 1_700_000_000.0
BEYOND = place_of(0, 1 << 40)


def action(
    offset: int, connection: str = "default", fact: str | None = None, data: object = None, *, shadow: bool = False
) -> NewAction:
    event = SourceEvent(topic="orders", partition=0, offset=offset, timestamp_ms=1, key=b"k", value=b"{}")
    routed = Routed(
        route="r",
        connection=connection,
        order_id="A-1",
        action="ConfirmShipment",
        language=None,
        data=data,
        tag_source=FromJob(job_id="job-7"),
        on_unknown="resend",
        event_time_ms=1,
        trace_context=None,
        fact=fact,
    )
    return new_action(routed, event, shadow=shadow)


def key(offset: int) -> bytes:
    return action_key(place_of(0, offset), "r")


def value(offset: int, connection: str = "default", *, sending: bool = False) -> bytes:
    return value_of(action(offset, connection), offset, sending=sending)


def value_of(each: NewAction, offset: int, *, sending: bool = False) -> bytes:
    return pending_value(
        Save(
            action_id=ActionId(Assignment("orders", 0, 1), place_of(0, offset)),
            route="r",
            payload=each.payload,
            sending=sending,
            first_seen=NOW,
            due=NOW,
            attempts=0,
            sends=0,
            version_tag=None,
            job_id=None,
        )
    )


SIZE = cost_of(value(10))


def kept(records: LiveRecords, next_offset: int = 1 << 40) -> Kept:
    return records.finish(place_of(0, next_offset), BEYOND)


def held(of: Kept) -> list[bytes]:
    return sorted(each for each, _, _ in of.held)


def test_without_a_limit_all_is_held() -> None:
    records = LiveRecords(Room(None))
    for offset in range(10, 20):
        records.put(key(offset), value(offset), offset)
    of = kept(records)
    assert held(of) == [key(offset) for offset in range(10, 20)]
    assert of.parked == {}


def test_the_earliest_events_are_held_whatever_order_their_records_lie_in() -> None:
    records = LiveRecords(Room(3 * SIZE))
    for at, offset in enumerate((15, 11, 19, 10, 12, 18)):
        records.put(key(offset), value(offset), at)
    of = kept(records)
    assert held(of) == [key(10), key(11), key(12)]
    assert list(of.parked["default"].offsets) == [0, 5, 2]
    assert of.parked["default"].bytes == 3 * len(value(10))
    assert of.parked["default"].oldest == NOW


def test_the_latest_record_of_a_key_wins() -> None:
    records = LiveRecords(Room(2 * SIZE))
    for offset in range(10, 14):
        records.put(key(offset), value(offset), offset)
    records.put(key(13), value(13), 100)
    records.put(key(10), value(10), 101)
    records.remove(key(12))
    of = kept(records)
    assert [(each, at) for each, _, at in sorted(of.held)] == [(key(10), 101), (key(11), 11)]
    assert list(of.parked["default"].offsets) == [100]


def test_what_is_held_is_earlier_than_what_is_parked_although_there_is_room_again() -> None:
    records = LiveRecords(Room(2 * SIZE))
    for offset in range(10, 14):
        records.put(key(offset), value(offset), offset)
    records.remove(key(10))
    records.remove(key(11))
    records.put(key(14), value(14), 14)
    of = kept(records)
    assert held(of) == []
    assert list(of.parked["default"].offsets) == [12, 13, 14]


def test_the_connection_with_the_most_gives_up_first() -> None:
    records = LiveRecords(Room(6 * SIZE))
    for offset in range(10, 30):
        records.put(key(offset), value(offset, "crowded"), offset)
    records.put(key(30), value(30, "other"), 30)
    of = kept(records)
    assert key(30) in held(of)
    assert set(of.parked) == {"crowded"}


def test_an_intent_whose_event_may_come_again_is_held() -> None:
    records = LiveRecords(Room(SIZE))
    records.put(key(10), value(10), 0)
    records.put(key(11), value(11, sending=True), 1)
    records.put(key(20), value(20, sending=True), 2)
    records.put(key(21), value(21), 3)
    of = kept(records, next_offset=20)
    assert key(20) in held(of)
    assert [each for each, _ in of.again] == [key(21)]


def test_a_second_record_of_one_event_ends_and_the_one_in_doubt_stays() -> None:
    records = LiveRecords(Room(0))
    first, second = key(10), action_key(place_of(0, 10), "renamed")
    records.put(first, value(10), 0)
    records.put(second, value(10, sending=True), 1)
    of = kept(records)
    assert list(of.parked["default"].offsets) == [1]
    assert of.duplicates == [(first, 0)]


def test_what_cannot_be_read_is_kept() -> None:
    records = LiveRecords(Room(0))
    records.put(b"odd", value(10), 0)
    records.put(key(11), b"{}", 1)
    records.put(key(12), b"{}", 2)
    records.remove(key(12))
    of = kept(records)
    assert sorted(of.unreadable) == [(key(11), b"{}", 1), (b"odd", value(10), 0)]


IMITATION = {"fact": "0" * 24, "source": {"topic": "orders"}}


@pytest.mark.parametrize("data", [None, IMITATION, {"x": json.dumps(IMITATION)}], ids=["none", "imitated", "in a text"])
@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("is_compact", [True, False], ids=["ours", "another version's"])
@pytest.mark.parametrize("is_given_up_later", [True, False])
def test_a_parked_actions_fact_is_known_after_a_restart(
    data: object, shadow: bool, is_compact: bool, is_given_up_later: bool
) -> None:
    """Where it was not known, the same was sent twice: so with `repeats` nothing was parked, in unbounded memory."""
    records = LiveRecords(Room(2 * SIZE if is_given_up_later else 0))
    facts = ["parcel 1", None, "parcel 2", "parcel 1"]
    for offset, fact in enumerate(facts):
        written = value_of(action(offset, fact=fact, data=data, shadow=shadow), offset)
        records.put(key(offset), written if is_compact else json.dumps(json.loads(written)).encode(), offset)
    of = kept(records)
    held_facts = [fact for offset, fact in enumerate(facts) if key(offset) in held(of)]
    expected = [bytes.fromhex(digest_of("default", fact)) for fact in facts[len(held_facts) :] if fact is not None]
    packed = of.parked["default"].facts
    assert [bytes(packed[at : at + DIGEST_BYTES]) for at in range(0, len(packed), DIGEST_BYTES)] == expected


def test_the_fact_of_an_intent_that_is_parked_is_known_once() -> None:
    records = LiveRecords(Room(0))
    records.put(key(1), value_of(action(1, fact="f"), 1), 1)
    records.put(action_key(place_of(0, 1), "other"), value_of(action(1, fact="f"), 1, sending=True), 2)
    of = kept(records)
    assert list(of.parked["default"].offsets) == [2]
    assert bytes(of.parked["default"].facts).hex() == digest_of("default", "f")


@pytest.mark.parametrize("room", [0, 3 * SIZE, None], ids=["none", "for some", "for all"])
def test_a_parked_action_that_supersedes_others_is_marked(room: int | None) -> None:
    """Where it was not known after a restart, what it supersedes was sent, for it is read back first."""
    records = LiveRecords(Room(room), Sequences({"earlier": ["r"]}))
    records.put(key(1), value(1), 1)
    records.put(action_key(place_of(0, 2), "earlier"), value(2), 2)
    records.put(key(3), value(3), 3)
    records.put(key(4), value_of(action(4, shadow=True), 4), 4)
    records.put(key(5), value(5), 5)
    records.remove(key(5))
    of = kept(records).parked
    marks = of["default"].marks if of else bytearray()
    mine = [mark_of("default", "A-1", "r", shadow=shadow) for shadow in (False, False, True)]
    assert bytes(marks) == b"".join(mine[{0: 0, 3 * SIZE: 2, None: 3}[room] :])
