"""A source is taken out of the configuration while actions of it are pending: they are delivered, nothing is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from consumer.kafka.identity.removed import Removed, removed_sources
from consumer.kafka.topics.topics import RelayTopics
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until


def relay_of(
    sandbox: Sandbox, engage: Engage, directory: Path, *sources: str, **more: Mapping[str, object]
) -> RelayProcess:
    source = {"topics": list(sources), **more.pop("source", {})}
    config = configuration(sandbox, engage.url, source=source, **more)
    return RelayProcess(directory, written(directory, config), "--from", "earliest")


def topics_of(source: str) -> RelayTopics:
    return RelayTopics(source, f"{source}.engage.delay", f"{source}.engage.dead-letters", f"{source}.engage.outcomes")


def found(sandbox: Sandbox, configured: Sandbox) -> list[Removed]:
    return removed_sources(sandbox.properties, [configured.topics], "{source}.engage.delay", topics_of)


def with_pending(old: Sandbox, new: Sandbox, engage: Engage, tmp_path: Path, count: int) -> None:
    """Leave so many actions pending of the old source, whose relay has both."""
    publish(old, [(order_id(n), event(order_id(n))) for n in range(count)])
    with relay_of(old, engage, tmp_path, old.topics.source, new.topics.source) as relay:
        relay.wait_until_ready()
        until(lambda: relay.metric("pending_actions") == count, "all is pending")
        assert relay.stop() == 0


def test_what_is_pending_of_a_removed_source_is_delivered_and_nothing_more_is_read(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    old, new = sandboxes(partitions=2), sandboxes()
    with Engage() as engage:
        with_pending(old, new, engage, tmp_path, 7)
        publish(old, [("unread", event("unread"))])
        (removed,) = found(old, new)
        assert (removed.topics.source, removed.pending, removed.topics.drained) == (old.topics.source, 7, True)
        for n in range(7):
            engage.submit(order_id(n))
        engage.submit("unread")
        with relay_of(old, engage, tmp_path, new.topics.source) as relay:
            relay.wait_until_ready().wait_until_owning(3)
            assert f"{old.topics.source} is not in source.topics any more" in relay.text
            partitions = json.loads(relay.get("/status.json")[1])["partitions"]
            assert {each["topic"]: each["drained"] for each in partitions} == {
                old.topics.source: True,
                new.topics.source: False,
            }
            until(lambda: len(engage.accepted) == 7, "what was pending is accepted")
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending")
            assert relay.stop() == 0
        assert found(old, new) == []
        assert engage.events_of("unread") == []
        with relay_of(old, engage, tmp_path, old.topics.source, new.topics.source) as relay:
            until(lambda: engage.events_of("unread") == [1], "the source is back, and continues where it was")
            assert relay.stop() == 0
        assert len(engage.accepted) == 8


def test_what_is_pending_of_a_removed_source_stays_where_that_is_wanted(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    old, new = sandboxes(), sandboxes()
    with Engage() as engage:
        with_pending(old, new, engage, tmp_path, 3)
        for n in range(3):
            engage.submit(order_id(n))
        with relay_of(old, engage, tmp_path, new.topics.source, source={"removed": "leave"}) as relay:
            relay.wait_until_ready().wait_until_owning(1)
            assert f"{old.topics.source} is not in source.topics any more" in relay.text
            assert relay.metric("pending_actions") == 0
            assert relay.stop() == 0
        (removed,) = found(old, new)
        assert removed.pending == 3


def test_a_removed_source_that_is_gone_is_said_and_stops_nobody(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    old, new = sandboxes(), sandboxes()
    with Engage() as engage:
        with_pending(old, new, engage, tmp_path, 3)
        source = old.topics.source
        old.admin.delete_topics([source])[source].result(30)
        until(lambda: source not in old.admin.list_topics(timeout=10).topics, "it is gone")
        (removed,) = found(old, new)
        assert removed.identity is None
        assert f"source topic {source} does not exist" in str(removed)
        with relay_of(old, engage, tmp_path, new.topics.source) as relay:
            relay.wait_until_ready().wait_until_owning(1)
            assert "They stay there" in relay.text
            assert relay.stop() == 0


def test_another_groups_delay_topic_is_not_taken_for_a_removed_one(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    theirs, ours = sandboxes(), sandboxes()
    with Engage() as engage:
        with_pending(theirs, sandboxes(), engage, tmp_path, 3)
    assert found(ours, ours) == []
