"""EDGE. `topics adopt`: the source that is there now takes the place of the one that a delay topic names.

Only a person can say so (identity.py). It rewrites the identity in the position records, and says where the group
continues. What is pending stays pending: its keys hold the incarnation, so new events never meet it.

Rules:
 1. Nobody may be at work: neither the group that the delay topic names nor this one has a member.
 2. It is fenced as a start is (initial_offsets.py, rule 4): by the same transactional id, and by the offsets at which
    the records come to lie. So of two that adopt at once, or of one that starts meanwhile, only one is heard.
 3. Positions and the group's offsets are written in one transaction. With new offsets the source gets the next
    incarnation, with the recorded ones it keeps its own.
 4. Recorded offsets are refused where they cannot be this topic's: a topic that was recreated in the same cluster has
    other events at the same offsets. New ones are refused where the topic is the same: its events would come again.
 5. A source with fewer partitions leaves delay partitions without an owner. What is pending there is moved into those
    that have one, first of all: with incarnations of its own, in the order in which it was. Done again, it does the
    same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import islice
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.places import incarnation_at, item_at, offset_at, place_of
from consumer.errors import AdoptionRefusedError
from consumer.kafka import clients
from consumer.kafka.identity.identity import Recorded, differ, differences, present_identities, recorded_positions
from consumer.kafka.records.keys import action_key, place_of_key
from consumer.kafka.source.initial_offsets import PositionRecord, start_id, write_positions
from consumer.kafka.topics.asking import CALL_TIMEOUT_S, partition_counts
from consumer.kafka.topics.offsets import Watermarks, committed_offsets, watermarks
from consumer.kafka.topics.scan import records_between
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, SourceIdentity

AdoptFrom = Literal["earliest", "latest", "recorded"]

MOVED_AT_ONCE = 500  # records per transaction
ADOPTED = "adopted"  # the metadata of the offsets: they count as a relay's own
Moved = Iterable[tuple[bytes, bytes]]


def adopt(properties: clients.Properties, topics: RelayTopics, start: AdoptFrom) -> list[str]:
    """Let the present source take over the delay topic; returns what was done, a line each.

    Raises AdoptionRefusedError where that cannot be right, KafkaException where the broker does not answer.
    """
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    group = str(properties["group.id"])
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        present = present_identities(admin, group, [topics.source])[topics.source]
        count = partition_counts(admin, (topics.source,)).get(topics.source, 0)
        if not count:
            raise AdoptionRefusedError(f"source topic {topics.source} does not exist")
        recorded = _latest(recorded_positions(reader, admin, topics.delay).positions)
        if recorded is None:
            return [f"{topics.delay} has no source yet: `run` starts it"]
        if not differences(recorded, present):
            return [f"{topics.delay} belongs to {topics.source} already"]
        _refuse_what_cannot_be(recorded, present, start)
        _refuse_members(admin, {recorded.group, group})
        source = [(topics.source, number) for number in range(count)]
        committed_offsets(reader, source)  # waits until no transaction holds offsets any more
        producer = Producer(clients.producer(properties, start_id(properties)), logger=clients.LOGGER)
        producer.init_transactions(CALL_TIMEOUT_S)
        surplus = _surplus(reader, admin, topics.delay, count)
        if surplus and start == "recorded":
            raise AdoptionRefusedError(
                f"{topics.source} has {count} partitions, and actions are pending in partition {max(surplus)}: its "
                "offsets cannot be the recorded ones. Say --from earliest or --from latest"
            )
        done = _moved(producer, topics.delay, surplus, count=count, latest=recorded.incarnation)
        tail = recorded_positions(reader, admin, topics.delay)  # rule 2: the look that counts
        if _latest(tail.positions) != recorded:
            raise _disturbed(topics)
        marks = {number: marks for (_, number), marks in watermarks(admin, source).items()}
        next_offsets = _next_offsets(tail.positions, marks, topics.source, start)
        identity = _adopted(recorded, present, start, len(tail.ends), count)
        records = [
            PositionRecord(topics.delay, number, next_offsets.get(number, 0), identity, end)
            for number, end in tail.ends.items()
        ]
        offsets = [TopicPartition(*each, next_offsets[each[1]], metadata=ADOPTED) for each in source]
        if not write_positions(producer, records, offsets, reader.consumer_group_metadata()):
            raise _disturbed(topics)
    continues = ", ".join(f"{offset} in partition {number}" for number, offset in next_offsets.items())
    return [*done, f"{topics.delay} belongs to {topics.source} now, which continues at {continues}"]


def _disturbed(topics: RelayTopics) -> KafkaException:
    return KafkaException(KafkaError(KafkaError._FENCED, f"somebody else writes to {topics.delay}: try again"))


def _latest(recorded: Recorded) -> SourceIdentity | None:
    return max((each.source for each in recorded.values()), key=lambda each: each.incarnation, default=None)


def _refuse_what_cannot_be(recorded: SourceIdentity, present: SourceIdentity, start: AdoptFrom) -> None:
    """Raise AdoptionRefusedError for rule 4."""
    same_cluster = not differ(recorded.cluster_id, present.cluster_id)
    same_name = recorded.topic == present.topic
    recreated = differ(recorded.topic_id, present.topic_id)
    if same_cluster and same_name and recreated and start == "recorded":
        raise AdoptionRefusedError(
            f"{present.topic} was recreated: the recorded offsets are those of other events. "
            "Say --from earliest or --from latest"
        )
    if same_cluster and same_name and not recreated and present.topic_id is not None and start != "recorded":
        raise AdoptionRefusedError(
            f"{present.topic} is the same topic: it can only continue where it was. Say --from recorded"
        )


def _refuse_members(admin: AdminClient, groups: Iterable[str]) -> None:
    """Raise AdoptionRefusedError for rule 1."""
    for group, answer in admin.describe_consumer_groups(sorted(groups), request_timeout=CALL_TIMEOUT_S).items():
        try:
            members = len(answer.result(2 * CALL_TIMEOUT_S).members)
        except KafkaException as error:
            if clients.error_of(error).code() == KafkaError.GROUP_ID_NOT_FOUND:
                continue
            raise clients.exception(clients.error_of(error), f"group {group}") from None
        if members:
            raise AdoptionRefusedError(f"group {group} has {members} members: stop all instances first")


def _next_offsets(recorded: Recorded, marks: Mapping[int, Watermarks], source: str, start: AdoptFrom) -> dict[int, int]:
    """Return where each partition of the source continues."""
    if start != "recorded":
        return {number: low if start == "earliest" else high for number, (low, high) in marks.items()}
    found: dict[int, int] = {}
    for number, (low, high) in marks.items():
        found[number] = recorded[number].next_offset if number in recorded else low
        if not low <= found[number] <= high:
            raise AdoptionRefusedError(
                f"{source}[{number}] holds {low} to {high}, and the recorded offset is {found[number]}. "
                "Say --from earliest or --from latest"
            )
    return found


def _adopted(
    recorded: SourceIdentity, present: SourceIdentity, start: AdoptFrom, delay_count: int, count: int
) -> SourceIdentity:
    """Return the identity that is written (rules 3 and 5)."""
    former = [name for name in (*recorded.former_topics, recorded.topic) if name != present.topic]
    incarnation = recorded.incarnation
    if start != "recorded":
        incarnation = _moved_to(delay_count - 1, incarnation, incarnation, count) + 1
    return present.model_copy(update={"incarnation": incarnation, "former_topics": tuple(dict.fromkeys(former))})


def _moved_to(partition: int, incarnation: int, latest: int, count: int) -> int:
    """Return the incarnation that an action of a delay partition has after it was moved, or stayed.

    `latest`: that of the topic before. No two actions that come to the same partition have the same key then.
    """
    return incarnation + partition // count * (latest + 1)


def _surplus(reader: Consumer, admin: AdminClient, delay_topic: str, count: int) -> dict[int, dict[bytes, bytes]]:
    """Return what is pending in partitions that the source has no more."""
    delay_count = partition_counts(admin, (delay_topic,))[delay_topic]
    ends = watermarks(admin, [(delay_topic, number) for number in range(count, delay_count)])
    live = {number: _live(reader, (delay_topic, number), low, high) for (_, number), (low, high) in ends.items()}
    return {number: records for number, records in live.items() if records}


def _moved(
    producer: Producer, delay_topic: str, surplus: Mapping[int, Mapping[bytes, bytes]], *, count: int, latest: int
) -> list[str]:
    """Move these records into partitions that the source has (rule 5); say so."""
    for number, records in surplus.items():
        live = iter(records.items())
        while chunk := list(islice(live, MOVED_AT_ONCE)):
            producer.begin_transaction()
            for key, value in chunk:
                producer.produce(delay_topic, value, _moved_key(key, number, latest, count), number % count)
                producer.produce(delay_topic, None, key, number)
            producer.commit_transaction(CALL_TIMEOUT_S)
    moved = sum(map(len, surplus.values()))
    return [f"moved {moved} pending actions of partitions that the source has no more"] if moved else []


def _live(reader: Consumer, partition: tuple[str, int], low: int, high: int) -> dict[bytes, bytes]:
    live: dict[bytes, bytes] = {}
    for record in records_between(reader, partition, low, high):
        key, value = record.key(), record.value()
        if key is None or key == POSITION_KEY:
            continue
        if value is None:
            live.pop(key, None)
        else:
            live[key] = value
    return live


def _moved_key(key: bytes, partition: int, latest: int, count: int) -> bytes:
    """Return the key with which a record is moved. What is no action's key stays what it is."""
    place = place_of_key(key)
    if place is None:
        return key
    incarnation = _moved_to(partition, incarnation_at(place), latest, count)
    return action_key(place_of(incarnation, offset_at(place), item_at(place)), key.split(b":", 2)[2].decode())
