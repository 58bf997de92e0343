"""A broker that refuses: rights are withdrawn, records are too large, and its disk is full.

While it refuses, the relay says so and loses nothing; when its operator has done what the log says, it continues.
"""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from consumer.kafka.journal.commits import RETRY_S
from schemas.dead_letter import Reason
from tests.chaos.stage import EVENTS, StageFactory, looked_after
from tests.support.broker import KafkaBroker, started
from tests.support.figures import Figures, Scale
from tests.support.sandbox import Sandbox, SandboxFactory

QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
SMALL = {"log.index.size.max.bytes": "65536"}
EVERYBODY = "User:ANONYMOUS"
REFUSED = re.compile("authori[sz]ation.?failed", re.IGNORECASE)
KEPT = "the dead-letter topic refuses a dead letter; the delay topic keeps it, and it is tried again"
Rule = tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]


@pytest.fixture(scope="module")
def small_disk() -> Iterator[Path | None]:
    """Return a file system of little room; None where we may not mount one.

    Not in pytest's own directory: the broker's data lie there, which are no logs (test_security.py reads those).
    """
    with tempfile.TemporaryDirectory(prefix="engage-relay-disk-") as directory:
        disk = Path(directory)
        mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", directory]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            yield None
            return
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


@pytest.fixture(scope="module")
def broker(small_disk: Path | None) -> Iterator[KafkaBroker]:
    """Return a broker with access rules and little room."""
    with pytest.MonkeyPatch.context() as patched:
        if small_disk is not None:
            patched.setattr(tempfile, "tempdir", str(small_disk))
        broker = started(KafkaBroker({**GUARDED, **SMALL}))
    with broker:
        yield broker


def rule(resource: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType) -> Rule:
    return resource, name, ResourcePatternType.LITERAL, EVERYBODY, "*", operation, permission


def grant(sandbox: Sandbox, *rules: Rule) -> None:
    for done in sandbox.admin.create_acls([AclBinding(*each) for each in rules]).values():
        done.result(30)


@contextmanager
def withdrawn(sandbox: Sandbox, resource: ResourceType, name: str, operation: AclOperation) -> Iterator[None]:
    """Deny something for a while."""
    denied = rule(resource, name, operation, AclPermissionType.DENY)
    grant(sandbox, denied)
    yield
    for done in sandbox.admin.delete_acls([AclBindingFilter(*denied)]).values():
        done.result(30)


def limit(sandbox: Sandbox, topic: str, size: int) -> None:
    """Let a topic's record batches have so many bytes at most."""
    resource = ConfigResource(ResourceType.TOPIC.value, topic)
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    )
    for done in sandbox.admin.incremental_alter_configs([resource]).values():
        done.result(30)


def noise(length: int) -> str:
    """Return what no compression makes smaller."""
    return "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


@pytest.mark.long
def test_rights_that_are_withdrawn_and_given_back_cost_nothing_but_time(
    broker: KafkaBroker, sandboxes: SandboxFactory, stages: StageFactory, scale: Scale, figures: Figures
) -> None:
    sandbox = sandboxes(partitions=3, broker=broker)
    # Some jobs fail: there is always a dead letter to be written.
    stage = stages(sandbox=sandbox, kafka={**QUICK, "transactional.id": "guarded"}, engage={"failing": 0.2})
    for resource in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID):
        grant(sandbox, rule(resource, "*", AclOperation.ALL, AclPermissionType.ALLOW))
    relay = stage.relay()
    kinds = [
        (ResourceType.TOPIC, sandbox.topics.delay, AclOperation.WRITE),
        (ResourceType.TOPIC, sandbox.topics.dead_letters, AclOperation.WRITE),
        (ResourceType.TRANSACTIONAL_ID, "guarded", AclOperation.WRITE),
        (ResourceType.GROUP, str(sandbox.properties["group.id"]), AclOperation.READ),
        (ResourceType.TOPIC, sandbox.topics.source, AclOperation.READ),
    ] * scale.of(1, 10)
    for kind in kinds:
        stage.publish(20)
        stage.until_accepted_more(10)
        before = len(relay.text)
        with stage.fault(), withdrawn(sandbox, *kind):
            stage.publish(10)
            stage.wait_for(lambda: REFUSED.search(relay.text, before), f"it says that {kind} is missing")  # noqa: B023
        stage.publish(10)
        stage.until_accepted_more(5)
        assert relay.running
    balance = stage.finish()
    assert balance.dead_letters.keys() == {Reason.JOB_FAILED}
    figures(rights=len(kinds), **balance.figures())
    stage.stop_all()


@pytest.mark.long
def test_records_that_a_topic_has_no_room_for_are_dead_lettered_or_wait(
    broker: KafkaBroker, sandboxes: SandboxFactory, stages: StageFactory, figures: Figures
) -> None:
    sandbox = sandboxes(partitions=3, broker=broker)
    stage = stages(sandbox=sandbox, kafka=QUICK)
    relay = stage.relay()
    stage.publish(20)
    stage.until_accepted(20)
    with stage.fault():
        limit(sandbox, sandbox.topics.delay, 3000)
        stage.publish(1, note=noise(4000))  # each ends as a dead letter
        stage.publish(20)
        stage.wait_for(
            lambda: len(stage.books.read().dead_letters) == len(EVENTS), "what is too large is dead-lettered"
        )
    with stage.fault():
        limit(sandbox, sandbox.topics.dead_letters, 200)  # not even a dead letter without its value has room
        stage.publish(1, note=noise(4000))
        refused = "its topic refuses even a dead letter without its value"
        stage.wait_for(lambda: any(each["why"] == refused for each in relay.said(KEPT)), "it says what has no room")
        stage.publish(10)
        stage.until_accepted_more(10)  # only what has no room waits
        assert len(stage.books.read().dead_letters) == len(EVENTS), "none had room there"
        limit(sandbox, sandbox.topics.dead_letters, 1 << 20)
        limit(sandbox, sandbox.topics.delay, 1 << 20)
    stage.until_accepted_more(10)
    stage.wait_for(stage.books.settled, "everything is settled")
    emptied = [each for each in stage.books.dead_letters if each.value is None]
    left = stage.balance().lost
    assert len(left) == len(emptied), "a dead letter that lost its value is one of those that are not found"
    stage.published = [each for each in stage.published if each not in left]
    balance = stage.finish()
    assert balance.dead_letters.keys() == {Reason.TOO_LARGE}
    figures(dead_letters_without_value=len(emptied), waits_between_tries=f"{RETRY_S[-1]:g} s", **balance.figures())
    stage.stop_all()


def fill(disk: Path) -> Callable[[], None]:
    """Fill a disk; returns what makes room again."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    return ballast.unlink


def has_ended(broker: KafkaBroker) -> bool:
    process = broker._process
    return process is None or process.poll() is not None


@pytest.mark.long
def test_a_broker_whose_disk_is_full_takes_nothing_with_it(
    small_disk: Path | None, broker: KafkaBroker, sandboxes: SandboxFactory, stages: StageFactory, figures: Figures
) -> None:
    if small_disk is None:
        pytest.skip("a small file system takes the right to mount one")
    stage = stages(sandbox=sandboxes(partitions=3, broker=broker), kafka=QUICK)
    relay = stage.relay()
    stage.publish(50)
    stage.until_accepted(50)
    with stage.fault():
        make_room = fill(small_disk)
        stage.wait_for(lambda: has_ended(broker), "the broker ends for want of room")
        make_room()
        broker.stop()
        broker.start()
    stage.publish(20)
    target = stage.engage.accepted_count() + 20

    def carries_on() -> bool:
        nonlocal relay
        relay = looked_after(relay, stage.relay)
        return stage.engage.accepted_count() >= target

    stage.wait_for(carries_on, "20 more actions are accepted")
    # Its session is over meanwhile: what was in flight when the broker went is in doubt.
    balance = stage.finish(kills=1)
    assert relay.running
    figures(**balance.figures())
    stage.stop_all()
