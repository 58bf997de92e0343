"""Topics and offsets change under the relays: each continues by itself, or ends with a code that README explains.

Where an operator has to act, the test acts as the log says, and the account is made after that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

from consumer.errors import ExitCode
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.topics import create
from tests.chaos.stage import EVENTS, Event, Stage, StageFactory
from tests.support.events import number_of
from tests.support.figures import Figures, Scale
from tests.support.relay_process import ROOT, RelayProcess
from tests.support.sandbox import Sandbox, control_topic
from tests.support.waiting import until

QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300, "topic.metadata.refresh.interval.ms": 500}
BRIEF = {"action_timeout": "3s"}  # which fits into a session of 6 s


def delete(sandbox: Sandbox, topic: str) -> None:
    for deleted in sandbox.admin.delete_topics([topic]).values():
        deleted.result(30)


def make(sandbox: Sandbox, topic: str) -> None:
    """Make a topic whose deletion may still be under way."""

    def made() -> bool:
        try:
            sandbox.admin.create_topics([NewTopic(topic, sandbox.partitions, 1)])[topic].result(30)
        except KafkaException:
            return False
        return True

    until(made, f"{topic} is made")


def make_what_is_missing(sandbox: Sandbox) -> None:
    """Be `engage-relay topics create`, asked for until the broker lets it."""
    until(lambda: create(sandbox.admin, [sandbox.topics]), "the topics are made")


def reset_offsets(stage: Stage, to: Iterable[int]) -> None:
    """Be `kafka-consumer-groups.sh --reset-offsets`: it works only while nobody is in the group."""
    source = stage.sandbox.topics.source

    def done() -> bool:
        try:
            stage.sandbox.commit(*((source, partition, offset) for partition, offset in enumerate(to)), by="")
        except (AssertionError, KafkaException):
            return False
        return True

    until(done, "the group's offsets are reset")


def ended(stage: Stage, relay: RelayProcess, code: ExitCode) -> str:
    """Wait until it ends with this code; returns what it told the operator."""
    stage.wait_for(lambda: not relay.running, f"it ends with {code!r}")
    assert relay.wait() == code, relay.last_words
    (told,) = relay.said("cannot run")
    return f"{told['why']} {told['advice']}"


def first_offsets(sandbox: Sandbox) -> list[int]:
    source = [(sandbox.topics.source, n) for n in range(sandbox.partitions)]
    marks = watermarks(sandbox.admin, source)
    return [marks[each][0] for each in source]


def cut_source(stage: Stage) -> None:
    """Have retention delete everything that the source holds."""
    sandbox = stage.sandbox
    source = [(sandbox.topics.source, n) for n in range(sandbox.partitions)]
    ends = watermarks(sandbox.admin, source)
    for cut in sandbox.admin.delete_records([TopicPartition(*each, ends[each][1]) for each in source]).values():
        cut.result(30)


def events_at(stage: Stage) -> dict[tuple[int, int], Event]:
    """Return the source's events by partition and offset."""
    found: dict[tuple[int, int], Event] = {}
    for partition in range(stage.sandbox.partitions):
        for record in stage.sandbox.read(stage.sandbox.topics.source, partition):
            body = json.loads(record.value() or b"")
            found[partition, record.offset() or 0] = body["orderId"], number_of(body["data"])
    return found


@pytest.mark.long
def test_a_source_that_grows_under_load_is_read_whole_when_its_other_topics_follow(
    stages: StageFactory, figures: Figures
) -> None:
    stage = stages(partitions=2, kafka=QUICK)
    stage.shares = 2.0  # four partitions of two
    relays = [stage.relay(f"relay-{n}") for n in range(2)]
    stage.publish(40)
    stage.until_accepted(40)
    with stage.fault():
        stage.sandbox.admin.create_partitions([NewPartitions(stage.sandbox.topics.source, 4)])[
            stage.sandbox.topics.source
        ].result(30)
        stage.sandbox.partitions = 4
        stage.publish(20)
        stage.wait_for(lambda: any(each.said("restore continues") for each in relays), "one misses its delay partition")
        since = stage.engage.accepted_count()
        make_what_is_missing(stage.sandbox)
    stage.read_again()
    stage.until_accepted(since + 1)
    balance = stage.finish()
    figures(partitions="2, then 4", accepted_meanwhile=since, **balance.figures())
    stage.stop_all()


def asked(stage: Stage, *arguments: str, relay: str = "relay") -> tuple[int, str]:
    """Be the operator at the command line; returns the exit code, and what was said."""
    command = [sys.executable, "-m", "consumer.cli", *arguments, "--config", str(stage.directory / f"{relay}.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    return ended.returncode, ended.stdout + ended.stderr


def adopt(stage: Stage, start: str, *, relay: str = "relay") -> str:
    """Be the operator, who says that the source takes over; the coordinator may still have to be found."""
    said = ""

    def adopted() -> bool:
        nonlocal said
        source = json.loads((stage.directory / f"{relay}.yaml").read_text())["source"]["topics"][0]
        code, said = asked(stage, "topics", "adopt", source, "--from", start, relay=relay)
        return code == ExitCode.OK

    stage.wait_for(adopted, "the source is adopted")
    return said


def recreate_source(stage: Stage, partitions: int | None = None) -> None:
    """Delete the source and make it again, perhaps with another number of partitions."""
    delete(stage.sandbox, stage.sandbox.topics.source)
    stage.sandbox.partitions = partitions or stage.sandbox.partitions
    make(stage.sandbox, stage.sandbox.topics.source)


@pytest.mark.parametrize("orders", [5, 80])  # fewer and more than the source held
def test_a_source_that_is_recreated_while_actions_are_pending_loses_and_doubles_nothing(
    stages: StageFactory, figures: Figures, orders: int
) -> None:
    """The new events lie at the offsets of the pending ones, and come before those have left."""
    stage = stages(kafka=QUICK, connection=BRIEF)
    relay = stage.relay()
    stage.publish(30)
    stage.wait_for(lambda: stage.books.taken() and relay.metric("pending_actions") > 20, "something is pending")
    stage.engage.down()
    stage.wait_for(lambda: sum(stage.books.taken().values()) == len(stage.published), "every event is taken")
    pending = len(stage.published) - stage.engage.accepted_count()
    with stage.fault():
        recreate_source(stage)
        stage.engage.up()
        stage.publish(orders)
        stage.engage.down()
        told = ended(stage, relay, ExitCode.IDENTITY)
        assert "was recreated" in told
        assert f"topics adopt {stage.sandbox.topics.source}" in told
        assert ended(stage, stage.relay(), ExitCode.IDENTITY)
        assert asked(stage, "check-config", "--online")[0] == ExitCode.IDENTITY
        adopt(stage, "earliest")
        stage.engage.up()
        stage.relay()
    # What was being sent when Engage went away is in doubt.
    balance = stage.finish(fresh_doubt=True)
    figures(pending_when_it_was_deleted=pending, **balance.figures())
    stage.stop_all()


@pytest.mark.long
@pytest.mark.parametrize("running", [True, False])
def test_a_recreated_source_that_has_grown_past_the_old_position_is_noticed(
    stages: StageFactory, figures: Figures, running: bool
) -> None:
    """The next offset exists again, and belongs to another event: nothing but the topic's id tells."""
    stage = stages(kafka=QUICK, connection=BRIEF)
    relay = stage.relay()
    stage.publish(10)
    stage.until_accepted(10 * len(EVENTS))
    stage.wait_for(stage.books.settled, "nothing is pending")
    if not running:
        assert relay.stop() == ExitCode.OK
    with stage.fault():
        recreate_source(stage)
        stage.publish(60)
        began = time.time()
        if not running:
            relay = stage.relay()
        ended(stage, relay, ExitCode.IDENTITY)
        noticed_s = time.time() - began
        adopt(stage, "earliest")
        stage.relay()
    balance = stage.finish()
    assert noticed_s < 60
    figures(noticed_after=f"{noticed_s:.1f} s", **balance.figures())
    stage.stop_all()


@pytest.mark.long
def test_a_source_that_is_recreated_with_fewer_partitions_is_delivered_from_all_of_the_old_ones(
    stages: StageFactory, figures: Figures
) -> None:
    stage = stages(partitions=5, kafka=QUICK, engage={"processing": "fixed:20s"})
    relay = stage.relay()
    stage.publish(12)
    stage.wait_for(lambda: sum(stage.books.taken().values()) == len(stage.published), "every event is taken")
    with stage.fault():
        recreate_source(stage, partitions=2)
        ended(stage, relay, ExitCode.IDENTITY)
        said = adopt(stage, "latest")
        stage.relay()
    stage.read_again()
    stage.publish(3)
    balance = stage.finish()
    figures(operator_was_told=said.splitlines()[0], **balance.figures())
    stage.stop_all()


def test_a_second_group_on_the_delay_topic_sends_nothing(stages: StageFactory, figures: Figures) -> None:
    stage = stages(kafka=QUICK, connection=BRIEF)
    relay = stage.relay()
    stage.publish(20)
    stage.until_accepted(20)
    group = str(stage.sandbox.properties["group.id"])
    create(stage.sandbox.admin, [stage.sandbox.topics], control=control_topic(f"{group}-staging"))
    second = stage.relay("staging", kafka={"group.id": f"{group}-staging"})
    told = ended(stage, second, ExitCode.IDENTITY)
    assert f"belongs to group {group}" in told
    assert asked(stage, "check-config", "--online", relay="staging")[0] == ExitCode.IDENTITY
    code, said = asked(stage, "topics", "adopt", stage.sandbox.topics.source, "--from", "recorded", relay="staging")
    assert (code, "stop all instances" in said) == (ExitCode.IDENTITY, True)
    assert relay.stop() == ExitCode.OK
    adopt(stage, "recorded", relay="staging")
    stage.publish(5)
    renamed = stage.relay("staging", kafka={"group.id": f"{group}-staging"})
    stage.wait_for(lambda: stage.engage.accepted_count() == len(stage.published), "the new group takes over")
    stage.sandbox.properties["group.id"] = f"{group}-staging"
    stage.read_again()
    balance = stage.finish()
    figures(**balance.figures())
    assert renamed.running
    stage.stop_all()


@pytest.mark.long
def test_a_delay_topic_that_is_deleted_under_load_is_written_again_when_it_was_made_again(
    stages: StageFactory, figures: Figures
) -> None:
    stage = stages(kafka=QUICK)
    sandbox = stage.sandbox
    relay = stage.relay()
    stage.publish(60)
    stage.until_accepted(30)
    with stage.fault():
        delete(sandbox, sandbox.topics.delay)
        stage.wait_for(lambda: relay.said("transaction aborted, trying again"), "it says that it cannot write")
        made_at = time.time()
        make_what_is_missing(sandbox)
    stage.read_again()
    recreated = "the delay topic was recreated; pending records are written again"
    stage.wait_for(lambda: relay.said(recreated), "it writes again what is pending")
    stage.publish(20)
    balance = stage.finish()
    assert relay.running
    figures(
        partitions_written_again=len(relay.said(recreated)),
        since_it_was_made=f"{time.time() - made_at:.1f} s",
        **balance.figures(),
    )
    stage.stop_all()


@pytest.mark.long
def test_a_group_whose_offsets_are_gone_continues_from_its_own_positions(
    stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    stage = stages(kafka=QUICK, engage={"processing": "uniform:0s..1s"})
    group = str(stage.sandbox.properties["group.id"])
    times = scale.of(2, 20)
    for _ in range(times):
        relay = stage.relay()  # with `--from earliest`, which must not start it over
        stage.publish(20)
        stage.until_accepted_more(20)
        with stage.fault():
            assert relay.stop() == ExitCode.OK
            stage.sandbox.admin.delete_consumer_groups([group])[group].result(30)
    stage.relay()
    balance = stage.finish()
    figures(times=times, **balance.figures())
    stage.stop_all()


@pytest.mark.long
def test_a_source_that_retention_overran_ends_the_relay_and_continues_where_the_operator_says(
    stages: StageFactory, figures: Figures
) -> None:
    # Little is fetched ahead, so that most of it lies on the broker when retention comes.
    stage = stages(kafka={**QUICK, "queued.min.messages": 1, "fetch.message.max.bytes": 8000})
    unread: set[Event] = set()
    for running in (True, False):
        relay = stage.relay(limits={"pending": 8})
        stage.publish(10)
        stage.until_accepted_more(10)
        stage.engage.down()
        for _ in range(10):
            stage.publish(20)
        with stage.fault():
            if not running:
                assert relay.stop() == ExitCode.OK
            events = events_at(stage)
            cut_source(stage)
            stage.engage.up()
            if not running:
                relay = stage.relay(limits={"pending": 8})
            told = ended(stage, relay, ExitCode.OFFSET_OUT_OF_RANGE)
            assert "--reset-offsets" in told
            taken = {partition: offset for (_, partition), offset in stage.books.taken().items()}
            unread |= {each for (partition, offset), each in events.items() if offset >= taken.get(partition, 0)}
            reset_offsets(stage, first_offsets(stage.sandbox))
        stage.relay()
        stage.publish(10)
        stage.until_accepted_more(10)
        stage.stop_all()
    stage.relay()
    assert unread
    stage.published = [each for each in stage.published if each not in unread]
    balance = stage.finish(fresh_doubt=True)  # Engage goes down in the midst of requests
    figures(deleted_unread=len(unread), **balance.figures())
    stage.stop_all()
