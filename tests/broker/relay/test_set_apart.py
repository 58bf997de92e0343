"""A partition that cannot be served is set apart: it is named, and the others go on."""

from __future__ import annotations

import time
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.cimpl import NewPartitions

from consumer.errors import OffsetOutOfRangeError
from consumer.kafka.topics.offsets import watermarks
from tests.support.engage import Engage
from tests.support.events import Raw, event, order_id, publish_raw
from tests.support.figures import Figures
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

SET_APART = "engage_relay_partitions_set_apart"


def labels(sandbox: Sandbox, partition: int, reason: str) -> dict[str, str]:
    return {"topic": sandbox.topics.source, "partition": str(partition), "reason": reason}


def overrun(sandbox: Sandbox, partition: int) -> None:
    """Let retention delete events that were not read."""
    sandbox.fill(sandbox.topics.source, 10, partition)
    sandbox.commit((sandbox.topics.source, partition, 3))
    sandbox.admin.delete_records([TopicPartition(sandbox.topics.source, partition, 8)])
    at = (sandbox.topics.source, partition)
    until(lambda: watermarks(sandbox.admin, [at])[at][0] == 8, "the records are gone")


def test_a_partition_overrun_by_retention_does_not_stop_the_others(sandboxes: SandboxFactory, figures: Figures) -> None:
    sandbox = sandboxes(partitions=3)
    overrun(sandbox, 1)
    orders = [order_id(n) for n in range(6)]
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay:
        for n, order in enumerate(orders):
            engage.submit(order)
            publish_raw(sandbox, [Raw(order.encode(), event(order))], partition=2 * (n % 2))
        since = time.monotonic()
        until(lambda: all(engage.events_of(order) == [1] for order in orders), "the others' events are accepted")
        figures(the_others_served_after=f"{time.monotonic() - since:.1f} s")
        name = labels(sandbox, 1, "overrun")
        until(lambda: relay.registry.get_sample_value(SET_APART, name) == 1, "it is named")
    assert sandbox.offset(sandbox.topics.source, 1) == 3  # and nothing of it is skipped


def test_where_every_partition_was_overrun_the_process_ends(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    overrun(sandbox, 0)
    overrun(sandbox, 1)
    with Engage() as engage:
        relay = RelayThread(sandbox, engage.url).__enter__()
        assert isinstance(relay.failure(), OffsetOutOfRangeError)


def test_a_delay_partition_that_is_missing_holds_up_no_other_one_and_is_used_once_it_is_there(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes()
    old, new = order_id("old"), order_id("new")
    with Engage() as engage:
        relay = RelayThread(sandbox, engage.url)
        for future in sandbox.admin.create_partitions([NewPartitions(sandbox.topics.source, 2)]).values():
            future.result(10)
        with relay:
            look_at(sandbox, relay, engage, old, new)


def look_at(sandbox: Sandbox, relay: RelayThread, engage: Engage, old: str, new: str) -> None:
    engage.submit(old)
    engage.submit(new)
    publish_raw(sandbox, [Raw(b"k", event(old))])
    started = time.monotonic()
    until(lambda: engage.events_of(old) == [1], "the old partition is served")
    assert time.monotonic() - started < 15
    name = labels(sandbox, 1, "unreadable")
    until(lambda: relay.registry.get_sample_value(SET_APART, name) == 1, "the new one is named")

    more = [NewPartitions(topic, 2) for topic in (sandbox.topics.delay, sandbox.topics.dead_letters)]
    for future in sandbox.admin.create_partitions(more).values():
        future.result(10)
    publish_raw(sandbox, [Raw(b"k", event(new))], partition=1)
    until(lambda: engage.events_of(new) == [1], "the new partition is served")
    until(lambda: relay.registry.get_sample_value(SET_APART, name) is None, "it is named no more")


def test_a_source_topic_that_was_deleted_stops_the_others_once_however_many_partitions_it_had(
    sandboxes: SandboxFactory, tmp_path: Path, figures: Figures
) -> None:
    """Its pending actions cannot be committed: the broker refuses the whole transaction, for an unknown topic.

    librdkafka asks again for all of a transaction's time (10 s) whether the topic is there.
    """
    kept, gone = sandboxes(), sandboxes(partitions=6)
    first, later = order_id("first"), [order_id(f"later-{n}") for n in range(20)]
    with Engage() as engage:
        both = {"topics": [kept.topics.source, gone.topics.source]}
        file = written(tmp_path, configuration(kept, engage.url, source=both))
        with RelayProcess(tmp_path, file, "--from", "earliest") as relay:
            relay.wait_until_ready().wait_until_owning(7)
            for n in range(6):
                order = order_id(f"pending-{n}")
                publish_raw(gone, [Raw(order.encode(), event(order, engage={"jobId": order}))], partition=n)
            engage.submit(first)
            publish_raw(kept, [Raw(first.encode(), event(first))])
            until(lambda: engage.events_of(first) == [1], "both are served")
            for future in gone.admin.delete_topics([gone.topics.source]).values():
                future.result(10)
            # What is pending there is given up after a second (not found), which the journal cannot commit.
            until(lambda: relay.said("transaction aborted, trying again"), "a transaction is refused")
            since = time.monotonic()
            for order in later:
                engage.submit(order)
                publish_raw(kept, [Raw(order.encode(), event(order))])
            until(lambda: all(engage.events_of(order) == [1] for order in later), "the others go on", 20)
            figures(partitions=6, the_others_served_after=f"{time.monotonic() - since:.1f} s")
            apart = "partition set apart: it cannot be served, the others go on"
            until(lambda: {each["partition"] for each in relay.said(apart)} == set(range(6)), "all are named")
            assert relay.running
