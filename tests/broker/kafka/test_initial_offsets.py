"""Where a topic starts, on a real broker: each test is named after the failure that it prevents."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Producer

from consumer.errors import StartRefusedError
from consumer.kafka.initial_offsets import Start, settle_start
from consumer.kafka.records import position_value
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
    """Where a restore would go on, by partition."""
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
    decided = settle_start(sandbox.properties, [sandbox.topics], start)

    assert decided == [f"{sandbox.topics.source} starts at the {word}"]
    for partition, offset in enumerate(expected):
        assert sandbox.pairs(sandbox.topics.delay, partition) == [(POSITION_KEY, position_value(offset))]
    assert starts(sandbox) == expected


def test_an_idle_partition_is_not_decided_anew_at_the_next_start(sandbox: Sandbox) -> None:
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    sandbox.fill(sandbox.topics.source, 4, partition=1)
    assert settle_start(sandbox.properties, [sandbox.topics], "latest") == []

    assert starts(sandbox) == [5, 0, 2]


def test_a_group_that_was_here_before_is_not_decided_for(sandbox: Sandbox) -> None:
    """It comes from a relay that kept no delay topic, or the delay topic was recreated."""
    sandbox.commit((sandbox.topics.source, 0, 3))

    assert settle_start(sandbox.properties, [sandbox.topics], "latest") == []
    assert starts(sandbox) == [3, 0, 0]


def test_an_empty_topic_needs_no_decision(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    settle_start(sandbox.properties, [sandbox.topics], None)
    sandbox.fill(sandbox.topics.source, 3)

    assert settle_start(sandbox.properties, [sandbox.topics], None) == []
    assert starts(sandbox) == [0]


def test_a_decision_that_was_cut_off_midway_is_taken_anew(sandbox: Sandbox) -> None:
    """Else the partitions that it did not reach would start at their beginning: everybody is mailed again."""
    for partition, offset in ((1, 0), (2, 2)):
        sandbox.write(sandbox.topics.delay, [(POSITION_KEY, position_value(offset))], partition)

    with pytest.raises(StartRefusedError):
        settle_start(sandbox.properties, [sandbox.topics], None)
    settle_start(sandbox.properties, [sandbox.topics], "latest")
    assert starts(sandbox) == [5, 0, 2]


def test_partition_0_tells_of_a_decision_only_when_the_others_are_written(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    class Cut(Producer):
        def produce(self, *arguments: Any, **options: Any) -> None:
            written.append(arguments[3])
            super().produce(*arguments, **options)

        def flush(self, timeout: float = 0) -> int:
            raise KeyboardInterrupt

    monkeypatch.setattr("consumer.kafka.initial_offsets.Producer", Cut)
    with pytest.raises(KeyboardInterrupt):
        settle_start(sandbox.properties, [sandbox.topics], "latest")
    assert written == [1, 2]
