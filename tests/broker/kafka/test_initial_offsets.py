"""Where a topic starts, on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from consumer.errors import StartRefusedError, StartUnknownError
from consumer.kafka.source.initial_offsets import Start, settle_start, start_id
from consumer.kafka.topics.offsets import Watermarks, watermarks
from schemas.pending_action import POSITION_KEY
from tests.support.sandbox import Sandbox, SandboxFactory


@pytest.fixture
def sandbox(sandboxes: SandboxFactory) -> Sandbox:
    """A source with records on the first and the last of its partitions."""
    sandbox = sandboxes(partitions=3)
    sandbox.fill(sandbox.topics.source, 5)
    sandbox.fill(sandbox.topics.source, 2, partition=2)
    return sandbox


def starts(sandbox: Sandbox) -> list[int]:
    """Where a restore would continue, by partition."""
    return [each.next_offset for each in sandbox.restore(*(sandbox.assignment(n) for n in range(sandbox.partitions)))]


def test_a_topic_with_records_is_never_started_without_a_decision(sandbox: Sandbox) -> None:
    with pytest.raises(StartRefusedError, match=f"{sandbox.topics.source} holds 7 records"):
        settle_start(sandbox.properties, [sandbox.topics], None)

    assert sandbox.pairs(sandbox.topics.delay) == []


def test_one_undecided_topic_keeps_the_others_undecided(sandbox: Sandbox, sandboxes: SandboxFactory) -> None:
    empty = sandboxes()
    with pytest.raises(StartRefusedError):
        settle_start(sandbox.properties, [empty.topics, sandbox.topics], None)

    assert empty.pairs(empty.topics.delay) == []


@pytest.mark.parametrize(
    ("start", "word", "expected"), [("earliest", "beginning", [0, 0, 0]), ("latest", "end", [5, 0, 2])]
)
def test_a_decision_leaves_out_no_partition(start: Start, word: str, expected: list[int], sandbox: Sandbox) -> None:
    decided = settle_start(sandbox.properties, [sandbox.topics], start).decided

    assert decided == [f"{sandbox.topics.source} starts at the {word}"]
    for partition, offset in enumerate(expected):
        assert sandbox.pairs(sandbox.topics.delay, partition) == [sandbox.position(offset, partition)]
    assert starts(sandbox) == expected


def test_an_idle_partition_is_not_decided_again_at_the_next_start(sandbox: Sandbox) -> None:
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    sandbox.fill(sandbox.topics.source, 4, partition=1)
    assert settle_start(sandbox.properties, [sandbox.topics], "latest").decided == []

    assert starts(sandbox) == [5, 0, 2]


def test_a_group_that_has_read_every_partition_is_not_decided_for(sandbox: Sandbox) -> None:
    """It comes from a relay that kept no delay topic, or the delay topic was recreated."""
    sandbox.commit(*((sandbox.topics.source, n, offset) for n, offset in enumerate((3, 0, 1))))

    assert settle_start(sandbox.properties, [sandbox.topics], "latest").decided == []
    assert starts(sandbox) == [3, 0, 1]


def test_a_group_that_knows_one_partition_of_five_is_asked_about_the_others(sandboxes: SandboxFactory) -> None:
    """Else they would start at their beginning: everybody is mailed again."""
    sandbox = sandboxes(partitions=5)
    for partition in (0, 1, 3):
        sandbox.fill(sandbox.topics.source, 20, partition=partition)
    sandbox.commit((sandbox.topics.source, 0, 7))
    with pytest.raises(StartRefusedError) as caught:
        settle_start(sandbox.properties, [sandbox.topics], None)
    assert str(caught.value) == (
        f"{sandbox.topics.source} holds 40 records that this group has never read: 20 in partition 1, "
        f"20 in partition 3 (group {sandbox.properties['group.id']} has offsets of the other partitions)"
    )
    assert sandbox.pairs(sandbox.topics.delay) == []

    (line,) = settle_start(sandbox.properties, [sandbox.topics], "latest").decided
    assert line.endswith("starts at the end in partitions 1, 2, 3, 4")
    assert starts(sandbox) == [7, 20, 0, 20, 0]


def test_a_partition_that_was_added_after_the_start_begins_at_its_beginning(sandboxes: SandboxFactory) -> None:
    """It was not there to be skipped. The other partitions have position records, and it has none."""
    sandbox = sandboxes(partitions=2)
    sandbox.fill(sandbox.topics.source, 5)
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    topics = (sandbox.topics.source, sandbox.topics.delay, sandbox.topics.dead_letters)
    for future in sandbox.admin.create_partitions([NewPartitions(topic, 3) for topic in topics]).values():
        future.result(30)
    sandbox.partitions = 3
    sandbox.read(sandbox.topics.source, 2)  # returns when it has a leader
    sandbox.fill(sandbox.topics.source, 4, partition=2)

    assert settle_start(sandbox.properties, [sandbox.topics], "latest").decided == []
    assert starts(sandbox) == [5, 0, 0]


def test_an_empty_topic_needs_no_decision(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    settle_start(sandbox.properties, [sandbox.topics], None)
    sandbox.fill(sandbox.topics.source, 3)

    assert settle_start(sandbox.properties, [sandbox.topics], None).decided == []
    assert starts(sandbox) == [0]


def test_a_decision_that_was_cut_off_midway_is_taken_again_for_all_partitions(sandbox: Sandbox) -> None:
    """Else the partitions that it did not reach would start at their beginning: everybody is mailed again.

    What was cut off left its records behind in every partition, aborted.
    """
    cut_off = sandbox.producer("cut-off")
    cut_off.begin_transaction()
    for partition in range(3):
        cut_off.produce(sandbox.topics.delay, sandbox.position(0, partition)[1], POSITION_KEY, partition)
    assert cut_off.flush(30) == 0
    cut_off.abort_transaction(30)

    with pytest.raises(StartRefusedError):
        settle_start(sandbox.properties, [sandbox.topics], None)
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    assert starts(sandbox) == [5, 0, 2]


@contextmanager
def frozen_before(step: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Frozen]:
    """Freeze the first producer of a start right before this call, until it is told to continue."""
    frozen = Frozen(threading.Event(), threading.Event())

    class Freezing(Producer):
        def _freeze(self) -> None:
            if not frozen.reached.is_set():
                frozen.reached.set()
                assert frozen.woken.wait(30)

        def begin_transaction(self) -> None:
            if step == "begin_transaction":
                self._freeze()
            super().begin_transaction()

        def commit_transaction(self, timeout: float = 30) -> None:
            if step == "commit_transaction":
                assert super().flush(30) == 0  # its records lie in the topic
                self._freeze()
            super().commit_transaction(timeout)

    with monkeypatch.context() as patched:
        patched.setattr("consumer.kafka.source.initial_offsets.Producer", Freezing)
        yield frozen
        frozen.woken.set()


@dataclass(frozen=True)
class Frozen:
    reached: threading.Event
    woken: threading.Event


@pytest.mark.parametrize("step", ["begin_transaction", "commit_transaction"])
def test_an_instance_that_was_frozen_before_it_wrote_its_start_does_not_skip_what_another_had_still_to_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """B looks, and is frozen. A starts, reads up to 9 of 25, and is killed. B wakes, and its 25 must not count."""
    topics = sandbox.topics
    sandbox.properties["transaction.timeout.ms"] = 60_000  # it is not the broker that ends what B began
    with frozen_before(step, monkeypatch) as b, ThreadPoolExecutor(1) as elsewhere:
        sandbox.fill(topics.source, 20)  # 25 are there when B looks
        starts_late = elsewhere.submit(settle_start, sandbox.properties, [topics], "latest")
        assert b.reached.wait(30)
        with monkeypatch.context() as patched:
            patched.setattr("consumer.kafka.source.initial_offsets.watermarks", watermarks_of_then(topics.source))
            settle_start(sandbox.properties, [topics], "latest")  # A looked when there were 5
        assert starts(sandbox) == [5, 0, 2]
        sandbox.write(topics.delay, [sandbox.position(9)])
        sandbox.commit((topics.source, 0, 9))
        b.woken.set()

        assert starts_late.result(30).decided == []  # it looked again, and there was nothing to decide
    assert starts(sandbox) == [9, 0, 2]


def watermarks_of_then(source: str) -> Callable[..., dict[tuple[str, int], Watermarks]]:
    """Answer as the broker did before the last 20 records came."""

    def answer(admin: AdminClient, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Watermarks]:
        found = watermarks(admin, partitions)
        return {at: (low, 5 if at == (source, 0) else high) for at, (low, high) in found.items()}

    return answer


def test_instances_that_start_at_once_decide_once(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(3) as instances:
        decided = list(instances.map(lambda _: settle_start(sandbox.properties, [sandbox.topics], "latest"), range(3)))
    assert sorted(len(each.decided) for each in decided) == [0, 0, 1]
    assert starts(sandbox) == [5, 0, 2]


def test_an_ordinary_start_fences_nobody(sandbox: Sandbox) -> None:
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    deciding = sandbox.producer(start_id(sandbox.properties))
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    deciding.begin_transaction()
    deciding.produce(sandbox.topics.delay, sandbox.position(5)[1], POSITION_KEY, 0)
    deciding.commit_transaction(30)


def test_a_partition_of_which_nothing_is_known_is_not_read_from_its_beginning_because_the_group_knows_another(
    sandbox: Sandbox,
) -> None:
    """The delay topic was lost while an instance ran, and with it the position of an idle partition."""
    sandbox.commit((sandbox.topics.source, 0, 5))
    with pytest.raises(StartUnknownError, match=rf"{sandbox.topics.source}\[2\]"):
        sandbox.restore(sandbox.assignment(2))
