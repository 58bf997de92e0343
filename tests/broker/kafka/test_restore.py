"""A restore on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import pytest
from confluent_kafka import Producer, TopicPartition

from consumer.errors import IdentityError, OffsetOutOfRangeError, StartUnknownError
from consumer.kafka.restore import delay_partitions, restore
from consumer.kafka.restore.reader import RestoreError
from consumer.kafka.restore.restored import Restored
from schemas.pending_action import POSITION_KEY
from tests.support.broker import KafkaBroker
from tests.support.sandbox import Member, Sandbox, SandboxFactory
from tests.support.waiting import until

DEAD_AFTER_MS = 1500  # transaction.timeout.ms of whoever dies here


@pytest.fixture
def sandbox(sandboxes: SandboxFactory) -> Sandbox:
    return sandboxes()


def only(restored: list[Restored]) -> Restored:
    (one,) = restored
    return one


def keys(restored: Restored) -> list[bytes]:
    return sorted(key for key, _ in restored.live)


def open_transaction(sandbox: Sandbox) -> Producer:
    """Return the producer of an instance that died with records written and no offsets sent."""
    dead = sandbox.producer("dead", **{"transaction.timeout.ms": DEAD_AFTER_MS})
    dead.begin_transaction()
    dead.produce(sandbox.topics.delay, b"never committed", b"0:9:r", 0)
    assert dead.flush(10) == 0
    return dead


def test_what_was_replaced_or_ended_does_not_come_back(sandbox: Sandbox) -> None:
    records = [(b"0:1:r", b"old"), (b"0:2:r", b"ended"), (b"0:1:r", b"new"), (b"0:2:r", None), (b"0:3:r", b"third")]
    sandbox.write(sandbox.topics.delay, [*records, sandbox.position(0)])
    restored = only(sandbox.restore())

    assert sorted(restored.live) == [(b"0:1:r", 2), (b"0:3:r", 4)]
    assert {record.key: record.value for record in restored.unreadable} == {b"0:1:r": b"new", b"0:3:r": b"third"}
    assert (restored.end, restored.records_read) == (6, 6)


def test_an_action_behind_a_dead_instances_open_transaction_is_not_lost(sandbox: Sandbox) -> None:
    """It pins the last stable offset, at which a read_committed reader believes to be at the end."""
    sandbox.commit((sandbox.topics.source, 0, 0), (sandbox.topics.delay, 0, 0))
    dead = open_transaction(sandbox)
    sandbox.write(sandbox.topics.delay, [(b"0:1:r", b"pending")])
    restored = only(sandbox.restore())

    assert keys(restored) == [b"0:1:r"]
    assert len(dead) == 0  # it lived until here, and never sent its offsets


def test_what_it_waits_for_is_said(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_partitions, "SAY_AFTER_S", 0.2)
    dead = open_transaction(sandbox)
    sandbox.restore()

    assert f"{sandbox.topics.delay}[0]: read to 0 of 1" in sandbox.said[0]
    assert len(dead) == 0


def test_a_restore_that_hangs_gives_up(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "GIVE_UP_S", 0.3)
    dead = open_transaction(sandbox)
    with pytest.raises(RestoreError, match="gave up"):
        sandbox.restore()
    assert len(dead) == 0


def test_a_restore_does_not_continue_for_what_was_given_away(sandbox: Sandbox) -> None:
    dead = open_transaction(sandbox)
    asked: list[object] = []

    def ours_at_first(assignment: object) -> bool:
        asked.append(assignment)
        return len(asked) < 3

    assert sandbox.restore(wanted=ours_at_first) == []
    assert len(dead) == 0


def test_offsets_that_are_about_to_change_are_not_taken(sandbox: Sandbox, shared_member: Member) -> None:
    """A former owner's transaction has sent its offsets: whether they count is not known before it has ended."""
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, 5), (sandbox.topics.delay, 0, 0))
    member = sandbox.member()
    until(member.poll, "the member joins")
    slow = sandbox.producer("slow")
    slow.begin_transaction()
    slow.produce(sandbox.topics.delay, b"pending", b"0:8:r", 0)
    assert slow.flush(10) == 0
    slow.send_offsets_to_transaction([TopicPartition(sandbox.topics.source, 0, 9)], member.metadata(), 10)
    with ThreadPoolExecutor(1) as pool:
        restoring = pool.submit(sandbox.restore)
        assert not wait_for([restoring], timeout=1.5).done
        slow.commit_transaction(10)
        restored = only(restoring.result(20))

    assert restored.next_offset == 9
    assert keys(restored) == [b"0:8:r"]


def test_a_missing_mark_skips_nothing(sandbox: Sandbox) -> None:
    """Group offsets expire; the client's `latest` would lose everything that is pending."""
    sandbox.write(sandbox.topics.delay, [(b"0:1:r", b"pending"), sandbox.position(2)])
    sandbox.fill(sandbox.topics.source, 5)
    sandbox.commit((sandbox.topics.source, 0, 2))
    restored = only(sandbox.restore())

    assert keys(restored) == [b"0:1:r"]
    assert restored.next_offset == 2


def test_offsets_that_a_tool_moved_hide_nothing_that_is_pending(sandbox: Sandbox) -> None:
    """`kafka-consumer-groups.sh --reset-offsets --all-topics` moves the delay topic's, too."""
    sandbox.write(sandbox.topics.delay, [(b"0:1:r", b"pending")])
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, 10), (sandbox.topics.delay, 0, 1), by="")
    restored = only(sandbox.restore())

    assert keys(restored) == [b"0:1:r"]
    assert restored.next_offset == 10


@pytest.mark.parametrize(
    ("moved_to", "consequence"),
    [(9, "no relay reads the events 6 to 8"), (2, "the relay reads again the events 2 to 5")],
)
def test_events_are_not_skipped_or_read_again_in_silence_where_something_else_moved_the_offset(
    sandbox: Sandbox, moved_to: int, consequence: str
) -> None:
    """Somebody's consumer that joins the relay's group by error commits what it takes, and no relay ever sees that."""
    sandbox.write(sandbox.topics.delay, [sandbox.position(6)])
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, moved_to), by="")

    assert only(sandbox.restore()).next_offset == moved_to
    (said,) = sandbox.said
    assert f"{sandbox.topics.source}[0]" in said
    assert f"moved the group's offset from 6 to {moved_to}: {consequence}" in said

    sandbox.said.clear()
    sandbox.commit((sandbox.topics.source, 0, 8))  # a relay's own that came before its position record: nothing moved
    assert only(sandbox.restore()).next_offset == 8
    assert not sandbox.said


def test_a_restart_reads_from_the_mark_only(sandbox: Sandbox) -> None:
    sandbox.write(
        sandbox.topics.delay,
        [(b"0:%d:r" % n, None) for n in range(50)] + [(b"0:99:r", b"pending"), sandbox.position(100)],
    )
    sandbox.fill(sandbox.topics.source, 100)
    sandbox.commit((sandbox.topics.source, 0, 100), (sandbox.topics.delay, 0, 50))

    assert only(sandbox.restore()).records_read == 2


def test_a_delay_topic_that_was_recreated_is_said_and_read_whole(sandbox: Sandbox) -> None:
    sandbox.write(sandbox.topics.delay, [(b"0:1:r", b"pending")])
    sandbox.commit((sandbox.topics.source, 0, 0), (sandbox.topics.delay, 0, 1000))
    restored = only(sandbox.restore())

    assert keys(restored) == [b"0:1:r"]
    assert "its low-water mark is 1000" in sandbox.said[0]
    assert sandbox.topics.delay in sandbox.said[0]


def test_a_delay_topic_without_the_position_of_what_a_relay_served_is_said(sandbox: Sandbox) -> None:
    """Deleted with its mark and made again, or another one by now: nothing else tells that actions were pending."""
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, 7))
    assert only(sandbox.restore()).next_offset == 7
    (said,) = sandbox.said
    assert (
        f"{sandbox.topics.delay}[0] has no position, and a relay served {sandbox.topics.source}[0] to offset 7" in said
    )

    sandbox.said.clear()
    sandbox.commit((sandbox.topics.source, 0, 8), by="")  # a tool's: no relay served it
    sandbox.restore()
    assert not sandbox.said


def test_a_mark_that_outlives_the_source_offset_does_not_hide_the_position(sandbox: Sandbox) -> None:
    """Only the source's offset was deleted: the position record lies before the mark, and decides."""
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.write(sandbox.topics.delay, [sandbox.position(7), (b"0:1:r", None)])
    sandbox.commit((sandbox.topics.delay, 0, 2))

    assert only(sandbox.restore()).next_offset == 7


def test_an_expired_group_is_not_started_over(sandbox: Sandbox) -> None:
    """With no member for a week nothing is committed any more; starting over would mail everybody again."""
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.write(sandbox.topics.delay, [(b"0:6:r", b"pending"), sandbox.position(7)])
    sandbox.commit((sandbox.topics.source, 0, 7), (sandbox.topics.delay, 0, 0))
    group = str(sandbox.properties["group.id"])
    sandbox.admin.delete_consumer_groups([group])[group].result(10)
    assert sandbox.offset(sandbox.topics.source) is None
    restored = only(sandbox.restore())

    assert (restored.next_offset, keys(restored)) == (7, [b"0:6:r"])


def test_a_position_of_a_newer_version_is_not_taken_for_none(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.write(sandbox.topics.delay, [(POSITION_KEY, b'{"version":3,"next":7}')])
    with pytest.raises(IdentityError, match=r"another version .*version: Input should be 2"):
        sandbox.restore()


def test_a_source_whose_records_were_deleted_unread_is_not_skipped_silently(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, 3))
    sandbox.admin.delete_records([TopicPartition(sandbox.topics.source, 0, 8)])
    until(lambda: len(sandbox.read(sandbox.topics.source)) == 2, "the records are gone")
    with pytest.raises(OffsetOutOfRangeError, match=r"next offset is 3, the source holds 8 to 10: 5 records"):
        sandbox.restore()


def test_a_source_that_was_recreated_is_not_replayed_silently(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, 300))
    with pytest.raises(OffsetOutOfRangeError, match=r"next offset is 300, the source holds 0 to 10: .*recreated"):
        sandbox.restore()


def test_a_topic_that_nobody_knows_is_not_started_by_us(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 10)
    with pytest.raises(StartUnknownError, match="10 records"):
        sandbox.restore()


def test_an_empty_topic_that_nobody_knows_needs_no_decision(sandbox: Sandbox) -> None:
    restored = only(sandbox.restore())

    assert (restored.next_offset, restored.position_known) == (0, False)


def test_a_new_partition_of_a_known_topic_loses_no_first_events(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    sandbox.write(sandbox.topics.delay, [sandbox.position(4)])
    sandbox.fill(sandbox.topics.source, 5)
    sandbox.fill(sandbox.topics.source, 3, partition=1)
    old, new = sandbox.restore(sandbox.assignment(0), sandbox.assignment(1))

    assert (old.next_offset, old.position_known) == (4, True)
    assert (new.next_offset, new.position_known) == (0, False)


def test_the_partitions_with_the_fewest_records_are_served_while_others_are_still_read(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes(partitions=3)
    for partition, records in enumerate((40, 2, 3)):
        sandbox.write(sandbox.topics.delay, [(b"0:%d:r" % n, b"pending") for n in range(records)], partition)
        sandbox.write(sandbox.topics.delay, [sandbox.position(0, partition)], partition)
    many, few, some = map(sandbox.assignment, range(3))
    first = sandbox.restore(many, few, some, at_a_time=10)
    then = sandbox.restore(many)

    assert {each.assignment for each in first} == {few, some}
    assert [(each.assignment, each.records_read) for each in then] == [(many, 41)]


def test_a_failover_does_not_stop_restores(strict_broker: KafkaBroker, sandboxes: SandboxFactory) -> None:
    """librdkafka's admin client keeps asking the leaders that it remembers, and does not renew them."""
    sandbox = sandboxes(broker=strict_broker)
    sandbox.write(sandbox.topics.delay, [(b"0:1:r", b"pending"), sandbox.position(0)])
    sandbox.restore()
    strict_broker.stop()
    strict_broker.start()

    def restored() -> list[Restored]:
        try:
            return sandbox.restore()
        except RestoreError:
            return []

    assert keys(only(until(restored, "a restore after the failover"))) == [b"0:1:r"]
