"""Whose offsets a delay topic holds: what is refused, what a person may adopt, and what is never lost or mixed up."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from confluent_kafka import KafkaException

from consumer.core.places import place_of
from consumer.errors import AdoptionRefusedError, FatalError, IdentityError, StartRefusedError
from consumer.kafka.identity import identity
from consumer.kafka.identity.adoption import AdoptFrom, adopt
from consumer.kafka.identity.identity import SourceWatch
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.positions import position_value
from consumer.kafka.restore.reader import KafkaReader, RestoreError
from consumer.kafka.restore.restore import Restorer
from consumer.kafka.restore.restored import Restored
from consumer.kafka.source.initial_offsets import Start, Started, settle_start
from schemas.pending_action import POSITION_KEY, PendingAction, SourceIdentity
from tests.support.sandbox import Sandbox, SandboxFactory, recreate
from tests.support.waiting import until


@pytest.fixture
def sandbox(sandboxes: SandboxFactory) -> Sandbox:
    return sandboxes()


def started(sandbox: Sandbox, start: Start | None = None) -> Started:
    return settle_start(sandbox.properties, [sandbox.topics], start)


def other(sandbox: Sandbox, *, group: str | None = None, source: str | None = None) -> Sandbox:
    """Return the same place as another relay sees it."""
    properties = {**sandbox.properties, "group.id": group or sandbox.properties["group.id"]}
    topics = replace(sandbox.topics, source=source or sandbox.topics.source)
    return Sandbox(properties, topics, sandbox.admin, sandbox.partitions)


def pending(sandbox: Sandbox, offset: int, *, incarnation: int = 0, partition: int = 0) -> tuple[bytes, bytes]:
    """Return a pending record, as a relay writes it."""
    value = PendingAction.model_validate(
        {
            "state": "pending",
            "first_seen_ms": 1,
            "due_ms": 1,
            "payload": {
                "route": "r",
                "connection": "default",
                "order_id": f"order-{partition}-{offset}",
                "action": "ConfirmOrder",
                "tag_source": {"kind": "job", "job_id": "j"},
                "event_time_ms": 1,
                "source": {"topic": sandbox.topics.source, "partition": partition, "offset": offset},
            },
        }
    ).model_dump_json()
    return action_key(place_of(incarnation, offset), "r"), value.encode()


def restored(sandbox: Sandbox, partition: int = 0) -> tuple[int, list[tuple[int, str]]]:
    """Restore as a relay that has just started; returns where the source continues, and each action's place."""
    identities = started(sandbox).identities
    reader = KafkaReader(sandbox.properties)
    restorer = Restorer(
        reader,
        topics=sandbox.relay_topics,
        identities=identities,
        say=print,
        wanted=lambda _: True,
        clock=time.monotonic,
    )
    try:
        (one,) = restorer.restore([sandbox.assignment(partition)])
    finally:
        reader.close()
    assert isinstance(one, Restored)
    return one.next_offset, sorted((each.offset, each.action.order_id) for each in one.actions)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_relay_that_starts_again_is_not_refused(sandbox: Sandbox) -> None:
    first = started(sandbox)
    assert started(sandbox).identities == first.identities
    (source,) = first.identities.values()
    assert None not in (source.topic_id, source.cluster_id)
    assert (source.group, source.topic) == (sandbox.properties["group.id"], sandbox.topics.source)


def test_a_second_group_on_one_delay_topic_does_not_send_everything_again(sandbox: Sandbox) -> None:
    started(sandbox)
    with pytest.raises(IdentityError, match=f"belongs to group {sandbox.properties['group.id']}, .* group is staging"):
        started(other(sandbox, group="staging"), "earliest")


def test_a_renamed_source_does_not_continue_at_the_old_ones_offsets(
    sandbox: Sandbox, sandboxes: SandboxFactory
) -> None:
    started(sandbox)
    renamed = other(sandbox, source=sandboxes().topics.source)
    renamed.fill(renamed.topics.source, 20)
    with pytest.raises(IdentityError, match=f"belongs to source {sandbox.topics.source}"):
        started(renamed, "earliest")


@pytest.mark.parametrize("records", [0, 3, 50])
def test_a_recreated_source_is_noticed_however_much_it_holds(sandbox: Sandbox, records: int) -> None:
    sandbox.fill(sandbox.topics.source, 20)
    started(sandbox, "latest")
    recreate(sandbox, records)
    with pytest.raises(IdentityError, match="recreated") as caught:
        started(sandbox, "latest")
    assert f"topics adopt {sandbox.topics.source}" in str(caught.value.advice)


def test_another_cluster_is_noticed(sandbox: Sandbox) -> None:
    """As a mirrored delay topic would show it: the same names, the records of the old cluster."""
    elsewhere = sandbox.identity.model_copy(update={"cluster_id": "old", "topic_id": "old"})
    vars(sandbox)["identity"] = elsewhere
    sandbox.write(sandbox.topics.delay, [sandbox.position(7)])
    with pytest.raises(IdentityError, match=r"of cluster old, and this is cluster"):
        started(sandbox)


def test_the_position_of_an_older_version_is_not_read_as_if_it_were_ours(sandbox: Sandbox) -> None:
    sandbox.write(sandbox.topics.delay, [(POSITION_KEY, b'{"version":1,"next_offset":7}')])
    with pytest.raises(IdentityError, match=r"another version of engage-relay .* topics create"):
        started(sandbox, "earliest")


def test_of_two_relays_that_start_at_once_on_one_delay_topic_one_is_refused(sandbox: Sandbox) -> None:
    """Their groups have no transactional id in common, so the id fences neither."""
    relays = [other(sandbox, group=f"group-{n}") for n in range(3)]

    def outcome(relay: Sandbox) -> Started | FatalError | None:
        try:
            return until(lambda: attempted(relay), "it starts or is refused")
        except IdentityError as error:
            return error

    def attempted(relay: Sandbox) -> Started | None:
        try:
            return started(relay)
        except KafkaException:
            return None

    with ThreadPoolExecutor(len(relays)) as at_once:
        outcomes = list(at_once.map(outcome, relays))
    assert sorted(isinstance(each, IdentityError) for each in outcomes) == [False, True, True]


def test_where_no_ids_are_known_the_name_must_do(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(identity, "topic_ids", lambda *_: {})
        (source,) = started(sandbox).identities.values()
        assert source.topic_id is None
        assert "its topic id" in str(identity.unknown_ids(source))
    (source,) = started(sandbox).identities.values()  # brokers that were upgraded
    assert source.topic_id is not None
    assert identity.unknown_ids(source) is None


def test_a_pending_action_of_another_source_is_not_sent(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 4)
    started(sandbox, "latest")
    sandbox.write(sandbox.topics.delay, [pending(other(sandbox, source="payments"), 3), sandbox.position(4)])
    with pytest.raises(IdentityError, match=r"pending action of payments\[0\]"):
        restored(sandbox)


def test_a_pending_action_of_a_partition_that_is_not_ours_is_not_sent(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 4)
    started(sandbox, "latest")
    sandbox.write(sandbox.topics.delay, [pending(sandbox, 3, partition=2), sandbox.position(4)])
    with pytest.raises(IdentityError, match=r"\[2\]"):
        restored(sandbox)


def test_the_identity_is_looked_at_although_the_low_water_mark_lies_behind_it(sandbox: Sandbox) -> None:
    """A partition where nothing is pending is read from its end."""
    theirs = other(sandbox, group="theirs")
    sandbox.write(sandbox.topics.delay, [theirs.position(5), *[(b"0:%d:r" % n, None) for n in range(200)]])
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.commit((sandbox.topics.source, 0, 5), (sandbox.topics.delay, 0, 201))
    with pytest.raises(IdentityError, match="group theirs"):
        sandbox.restore()


def test_a_source_that_is_recreated_before_its_restore_is_noticed(sandbox: Sandbox) -> None:
    """Its new offsets may lie where the old ones did."""
    sandbox.fill(sandbox.topics.source, 10)
    sandbox.write(sandbox.topics.delay, [sandbox.position(5)])
    recreate(sandbox, 10)
    with pytest.raises(IdentityError, match="recreated"):
        until(lambda: tried(sandbox), "the restore ends")


def tried(sandbox: Sandbox) -> object:
    try:
        return sandbox.restore()
    except RestoreError:
        return None


def test_a_relay_whose_delay_topic_was_adopted_meanwhile_ends(sandbox: Sandbox) -> None:
    adopted = sandbox.identity.model_copy(update={"incarnation": 1})
    sandbox.write(sandbox.topics.delay, [sandbox.position(5), (POSITION_KEY, position_value(adopted, 0, 0))])
    with pytest.raises(IdentityError, match="adopted while this relay ran"):
        sandbox.restore()


@pytest.mark.parametrize("look", [SourceWatch.look, SourceWatch.confirm])
def test_a_running_relay_notices_that_its_source_was_recreated(
    sandbox: Sandbox, look: Callable[[SourceWatch], None]
) -> None:
    watch = SourceWatch(sandbox.properties, {sandbox.topics.source: sandbox.identity})
    look(watch)
    recreate(sandbox, 100)

    def noticed() -> bool:
        try:
            look(watch)
        except IdentityError:
            return True
        return False

    began = time.monotonic()
    until(noticed, "it is noticed")
    assert time.monotonic() - began < 2 * identity.LOOK_INTERVAL_S


# -- what a person may adopt ----------------------------------------------------------------------------------------


def adopted(sandbox: Sandbox, start: AdoptFrom) -> list[str]:
    lines = until(lambda: _adopted(sandbox, start), "it is adopted")
    assert lines is not None
    return lines


def _adopted(sandbox: Sandbox, start: AdoptFrom) -> list[str] | None:
    try:
        return adopt(sandbox.properties, sandbox.topics, start)
    except KafkaException:  # the coordinator is not there yet
        return None


@pytest.mark.parametrize(("start", "continues"), [("earliest", 0), ("latest", 30)])
def test_what_is_pending_of_a_recreated_source_stays_and_new_events_at_its_offsets_are_taken(
    sandbox: Sandbox, start: AdoptFrom, continues: int
) -> None:
    sandbox.fill(sandbox.topics.source, 20)
    started(sandbox, "latest")
    old = [pending(sandbox, 5), pending(sandbox, 19)]
    sandbox.write(sandbox.topics.delay, [*old, sandbox.position(20)])
    sandbox.commit((sandbox.topics.source, 0, 20), (sandbox.topics.delay, 0, 0))
    recreate(sandbox, 30)
    (line,) = adopted(sandbox, start)

    assert line.endswith(f"continues at {continues} in partition 0")
    assert restored(sandbox) == (continues, [(place_of(0, 5), "order-0-5"), (place_of(0, 19), "order-0-19")])
    (source,) = started(sandbox).identities.values()
    assert source.incarnation == 1
    sandbox.write(sandbox.topics.delay, [pending(sandbox, 5, incarnation=1)])  # a new event at an old offset
    sandbox.commit((sandbox.topics.source, 0, max(6, continues)))
    assert [place for place, _ in restored(sandbox)[1]] == [place_of(0, 5), place_of(0, 19), place_of(1, 5)]


def test_a_new_group_continues_where_the_old_one_was(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 20)
    started(sandbox, "latest")
    sandbox.write(sandbox.topics.delay, [pending(sandbox, 5), sandbox.position(11)])
    sandbox.commit((sandbox.topics.source, 0, 11), (sandbox.topics.delay, 0, 1))
    renamed = other(sandbox, group=f"{sandbox.properties['group.id']}-2")
    adopted(renamed, "recorded")

    assert restored(renamed) == (11, [(place_of(0, 5), "order-0-5")])
    with pytest.raises(IdentityError):
        started(sandbox)


def test_a_renamed_source_is_adopted_with_what_is_pending_of_the_old_one(
    sandbox: Sandbox, sandboxes: SandboxFactory
) -> None:
    started(sandbox)
    sandbox.write(sandbox.topics.delay, [pending(sandbox, 5), sandbox.position(6)])
    renamed = other(sandbox, source=sandboxes().topics.source)
    renamed.fill(renamed.topics.source, 8)
    adopted(renamed, "earliest")
    assert restored(renamed) == (0, [(place_of(0, 5), "order-0-5")])
    assert started(renamed).identities[renamed.topics.source].former_topics == (sandbox.topics.source,)


def test_another_cluster_may_have_kept_the_offsets(sandbox: Sandbox) -> None:
    elsewhere = sandbox.identity.model_copy(update={"cluster_id": "old", "topic_id": "old"})
    sandbox.fill(sandbox.topics.source, 20)
    sandbox.write(sandbox.topics.delay, [pending(sandbox, 5), (POSITION_KEY, position_value(elsewhere, 0, 11))])
    adopted(sandbox, "recorded")
    assert restored(sandbox) == (11, [(place_of(0, 5), "order-0-5")])


def test_recorded_offsets_that_cannot_be_this_topics_are_refused(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 20)
    started(sandbox, "latest")
    recreate(sandbox, 30)
    with pytest.raises(AdoptionRefusedError, match="those of other events"):
        adopted(sandbox, "recorded")
    renamed = other(sandbox, group=f"{sandbox.properties['group.id']}-2")
    with pytest.raises(AdoptionRefusedError, match="those of other events"):
        adopted(renamed, "recorded")


def test_recorded_offsets_that_the_source_does_not_hold_are_refused(sandbox: Sandbox) -> None:
    elsewhere = sandbox.identity.model_copy(update={"cluster_id": "old", "topic_id": "old"})
    sandbox.fill(sandbox.topics.source, 4)
    sandbox.write(sandbox.topics.delay, [(POSITION_KEY, position_value(elsewhere, 0, 11))])
    with pytest.raises(AdoptionRefusedError, match="holds 0 to 4, and the recorded offset is 11"):
        adopted(sandbox, "recorded")


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_the_same_topic_is_not_read_again_under_another_group(sandbox: Sandbox, start: AdoptFrom) -> None:
    started(sandbox)
    with pytest.raises(AdoptionRefusedError, match="the same topic"):
        adopted(other(sandbox, group="another"), start)


def test_nothing_is_adopted_while_an_instance_runs(sandbox: Sandbox) -> None:
    started(sandbox)
    member = sandbox.member()
    until(member.poll, "the member joins")
    with pytest.raises(AdoptionRefusedError, match=r"has 1 members"):
        adopted(other(sandbox, group="another"), "recorded")
    with pytest.raises(AdoptionRefusedError, match=r"has 1 members"):
        adopted(other(sandbox, source=sandbox.topics.dead_letters), "earliest")


def test_what_is_adopted_already_stays_as_it_is(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 20)
    started(sandbox, "latest")
    assert adopted(sandbox, "earliest") == [f"{sandbox.topics.delay} belongs to {sandbox.topics.source} already"]
    assert restored(sandbox)[0] == 20


def test_what_was_never_started_needs_no_adoption(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 2)
    assert "has no source yet" in adopted(sandbox, "earliest")[0]
    with pytest.raises(StartRefusedError):
        started(sandbox)


def test_of_two_that_adopt_at_once_one_is_heard(sandbox: Sandbox) -> None:
    sandbox.fill(sandbox.topics.source, 20)
    started(sandbox, "latest")
    recreate(sandbox, 7)
    with ThreadPoolExecutor(2) as persons:
        said = list(persons.map(lambda start: adopted(sandbox, start), ("earliest", "latest")))
    assert sorted("already" in lines[0] for lines in said) == [False, True]
    (continued,) = [lines[0] for lines in said if "already" not in lines[0]]
    assert continued.endswith(f"continues at {restored(sandbox)[0]} in partition 0")


def test_a_source_that_is_recreated_with_fewer_partitions_loses_nothing_that_is_pending(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes(partitions=5)
    started(sandbox)
    for partition in range(5):
        records = [pending(sandbox, 3, partition=partition), sandbox.position(4, partition)]
        sandbox.write(sandbox.topics.delay, records, partition)
        sandbox.commit((sandbox.topics.source, partition, 4), (sandbox.topics.delay, partition, 1))
    recreate(sandbox, partitions=2)
    fewer = other(sandbox)
    fewer.partitions = 2
    moved, _ = adopted(fewer, "earliest")

    assert moved.startswith("moved 3 pending actions")
    assert [order for _, order in restored(fewer, 0)[1]] == ["order-0-3", "order-2-3", "order-4-3"]
    assert [order for _, order in restored(fewer, 1)[1]] == ["order-1-3", "order-3-3"]
    for partition in (2, 3, 4):
        keys = {key: value for key, value in sandbox.pairs(sandbox.topics.delay, partition) if key != POSITION_KEY}
        assert set(keys.values()) == {None}


def test_a_source_that_is_recreated_again_and_again_keeps_what_was_pending_first(sandbox: Sandbox) -> None:
    started(sandbox)
    sandbox.write(sandbox.topics.delay, [pending(sandbox, 0)])
    for incarnation in (1, 2, 3):
        recreate(sandbox, 4)
        adopted(sandbox, "earliest")
        sandbox.write(sandbox.topics.delay, [pending(sandbox, 0, incarnation=incarnation)])
        sandbox.commit((sandbox.topics.source, 0, 1))
    assert restored(sandbox) == (1, [(place_of(n, 0), "order-0-0") for n in range(4)])


def test_topics_that_only_look_alike_are_told_apart() -> None:
    source = SourceIdentity(group="g", cluster_id="c", topic="orders", topic_id="1")
    assert identity.differences(source, source) == []
    for name, value in (("group", "h"), ("cluster_id", "d"), ("topic", "other"), ("topic_id", "2")):
        assert len(identity.differences(source, source.model_copy(update={name: value}))) == 1
    for name in ("cluster_id", "topic_id"):
        assert identity.differences(source, source.model_copy(update={name: None})) == []
