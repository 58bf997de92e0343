"""EDGE. Whose offsets a delay topic holds: its group, cluster and source topic, compared with those that are there now.

Offsets mean nothing without the topic that they belong to. A source that was deleted and recreated, or renamed, another
cluster, a second group and a second relay on one delay topic all look like an ordinary restart, if only offsets are
compared. Then events are skipped, pending actions are swallowed, or everything is sent twice.

Rules:
 1. Each position record names its source (`SourceIdentity`). What it says is compared with what is there before
    anything is restored from it, and again at each restore. Where they differ, the relay ends, and a person decides.
 2. What is not known on one side is not compared: a mock cluster has no topic ids, old brokers tell none. Then the
    name must do.
 3. A topic id is asked for again while the relay runs: the source may be recreated under it.
 4. All position records of a delay topic are written at once when it starts, and when it is adopted. So they name the
    same source, and one that differs is another relay's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition, Uuid
from confluent_kafka.admin import AdminClient, ClusterMetadata, TopicDescription

from consumer.errors import IdentityError
from consumer.kafka import clients
from consumer.kafka.records.positions import read_position
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.throttling import READERS
from consumer.kafka.topics.asking import CALL_TIMEOUT_S, partition_counts
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.scan import POLL_S, STALLED_S
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import POSITION_KEY, Position, SourceIdentity

LOOK_INTERVAL_S = 5.0
CONFIRM_INTERVAL_S = 0.02  # between two looks of a busy source: a look takes a broker a millisecond
LOOK_TIMEOUT_S = 1.0
TAIL = 64  # records from the end that are read first: each transaction ends with its partition's position record
_NO_ID = Uuid(0, 0)

Recorded = Mapping[int, Position]
"""The position records of a delay topic, by partition."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a delay topic. `ends`: each partition's high watermark when it was looked at."""

    positions: Recorded
    ends: Mapping[int, int]


def differences(recorded: SourceIdentity, present: SourceIdentity) -> list[str]:
    """Say what a position record names otherwise than it is now (rule 2). Empty: the same source."""
    found: list[str] = []
    if recorded.group != present.group:
        found.append(f"it belongs to group {recorded.group}, and this relay's group is {present.group}")
    if recorded.topic != present.topic:
        found.append(f"it belongs to source {recorded.topic}, and this relay's source is {present.topic}")
    if differ(recorded.cluster_id, present.cluster_id):
        found.append(f"it is of cluster {recorded.cluster_id}, and this is cluster {present.cluster_id}")
    elif recorded.topic == present.topic and differ(recorded.topic_id, present.topic_id):
        found.append(
            f"{present.topic} was recreated: its topic id was {recorded.topic_id} and is {present.topic_id} now"
        )
    return found


def differ(one: str | None, other: str | None) -> bool:
    """Tell whether two ids are known and differ (rule 2)."""
    return None not in (one, other) and one != other


def merged(recorded: SourceIdentity, present: SourceIdentity) -> SourceIdentity:
    """Return the identity of a source that is the same: what is known now completes what was written down."""
    return recorded.model_copy(
        update={
            "cluster_id": present.cluster_id or recorded.cluster_id,
            "topic_id": present.topic_id or recorded.topic_id,
        }
    )


def verified(topics: RelayTopics, recorded: Recorded, present: SourceIdentity) -> SourceIdentity | None:
    """Return the identity that the delay topic's position records name; None where it has none yet.

    Raises IdentityError where it is another source's (rule 1).
    """
    identity: SourceIdentity | None = None
    errors: dict[str, None] = {}
    for partition, position in recorded.items():
        for difference in differences(position.source, present):
            errors[f"{topics.delay}: {difference}"] = None
        if position.partition != partition:
            errors[f"{topics.delay}[{partition}]: its records are of partition {position.partition}"] = None
        if identity is None or position.source.incarnation > identity.incarnation:
            identity = position.source
    if errors:
        raise IdentityError("\n".join(errors), topics.source)
    return None if identity is None else merged(identity, present)


# -- what is there now ----------------------------------------------------------------------------------------------


def present_identities(admin: AdminClient, group: str, sources: Iterable[str]) -> dict[str, SourceIdentity]:
    """Ask which cluster and which topics these are. Raises KafkaException where the brokers do not answer."""
    sources = list(sources)
    cluster = admin.list_topics(timeout=CALL_TIMEOUT_S)
    ids = topic_ids(admin, sources) if tells_ids(cluster) else {}
    return {
        each: SourceIdentity(group=group, cluster_id=cluster.cluster_id or None, topic=each, topic_id=ids.get(each))
        for each in sources
    }


def unknown_ids(identity: SourceIdentity) -> str | None:
    """Say what of a source is not known, and what that means; None where all is known (rule 2)."""
    unknown = [
        what
        for what, value in (("its topic id", identity.topic_id), ("the cluster's id", identity.cluster_id))
        if value is None
    ]
    if not unknown:
        return None
    return (
        f"the brokers do not tell {' and '.join(unknown)} of {identity.topic}: the topic is known by its name, so it "
        "must not be recreated, or moved to another cluster, under this relay"
    )


def tells_ids(cluster: ClusterMetadata) -> bool:
    """Tell whether a cluster can be asked for topic ids.

    librdkafka asks the controller and nobody else. Where it is none of the brokers (a mock cluster), no answer comes.
    """
    return cluster.controller_id < 0 or cluster.controller_id in cluster.brokers


def topic_ids(admin: AdminClient, names: Iterable[str], timeout_s: float = CALL_TIMEOUT_S) -> dict[str, str]:
    """Return the topics' ids, without those that are not known or not to be asked for.

    Raises KafkaException where the brokers do not answer.
    """
    asked = list(names)
    if not asked:
        return {}
    return _ids_of(admin.describe_topics(TopicCollection(asked), request_timeout=timeout_s), 2 * timeout_s)


_NO_TOPIC_IDS = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._INVALID_TYPE,
    }
)


def _ids_of(answers: Mapping[str, Future[TopicDescription]], timeout_s: float) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, answer in answers.items():
        try:
            topic_id = answer.result(timeout_s).topic_id
        except KafkaException as error:
            if clients.error_of(error).code() not in _NO_TOPIC_IDS:
                raise
        except TimeoutError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{name}: no answer")) from None
        else:
            if topic_id is not None and topic_id != _NO_ID:
                found[name] = str(topic_id)
    return found


class SourceWatch:
    """Looks whether the sources are still the same topics (rule 3). For one thread."""

    def __init__(self, properties: clients.Properties, identities: Mapping[str, SourceIdentity]) -> None:
        """`identities`: by topic, as they were at the start."""
        self._identities = {topic: each for topic, each in identities.items() if each.topic_id is not None}
        self._admin = AdminClient(clients.base(properties), logger=clients.LOGGER) if self._identities else None
        self._looked_at = 0.0
        self._failed_at = -LOOK_INTERVAL_S

    def look(self) -> None:
        """Look every LOOK_INTERVAL_S, also while nothing comes. Raises IdentityError where a source was recreated."""
        if time.monotonic() - self._looked_at >= LOOK_INTERVAL_S:
            self._look()

    def confirm(self) -> None:
        """Look now, for records that have just come. Raises IdentityError where a source was recreated.

        One look serves all that came by then: under load the next one waits for CONFIRM_INTERVAL_S. While the brokers
        do not answer, records are not held up for it: it is asked again LOOK_INTERVAL_S later.
        """
        if self._admin is None or time.monotonic() - self._failed_at < LOOK_INTERVAL_S:
            return
        time.sleep(max(0.0, self._looked_at + CONFIRM_INTERVAL_S - time.monotonic()))
        self._look()

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        if self._admin is None:
            return
        try:
            ids = topic_ids(self._admin, self._identities, LOOK_TIMEOUT_S)
        except KafkaException:
            self._failed_at = time.monotonic()
        else:
            check_ids(self._identities, ids)


def check_ids(identities: Mapping[str, SourceIdentity], ids: Mapping[str, str]) -> None:
    """Raise IdentityError where one of these topics has another id by now."""
    errors: list[str] = []
    topics: list[str] = []
    for topic, topic_id in ids.items():
        if topic in identities:
            present = identities[topic].model_copy(update={"topic_id": topic_id})
            found = differences(identities[topic], present)
            errors += found
            topics += [topic] if found else []
    if errors:
        raise IdentityError("\n".join(errors), *topics)


# -- what the delay topic says --------------------------------------------------------------------------------------


def recorded_positions(reader: Consumer, admin: AdminClient, delay_topic: str, stalled_s: float | None = None) -> Tail:
    """Read the latest settled position record of each partition.

    `reader` is read_committed, and reads nothing else meanwhile. Raises IdentityError where a record is of another
    version. Raises KafkaException where the broker does not answer, or an open transaction hides for `stalled_s` what a
    partition begins with.
    """
    count = partition_counts(admin, (delay_topic,)).get(delay_topic, 0)
    marks = watermarks(admin, [(delay_topic, number) for number in range(count)])
    ends = {number: high for (_, number), (_, high) in marks.items()}
    bounds = {number: marks for (_, number), marks in marks.items() if marks[0] < marks[1]}
    if bounds:
        with suppress(KafkaException):  # without it the reader looks for unknown leaders a second later
            reader.list_topics(delay_topic, CALL_TIMEOUT_S)
    found: dict[int, Position] = {}
    back = TAIL
    try:
        while bounds:
            starts = {number: max(low, high - back) for number, (low, high) in bounds.items()}
            found |= _positions_from(reader, delay_topic, starts, bounds, stalled_s)
            bounds = {n: marks for n, marks in bounds.items() if n not in found and starts[n] > marks[0]}
            back *= 8
    finally:
        reader.unassign()
    return Tail(found, ends)


def _positions_from(
    reader: Consumer,
    topic: str,
    starts: Mapping[int, int],
    bounds: Mapping[int, tuple[int, int]],
    stalled_s: float | None,
) -> dict[int, Position]:
    """Read these partitions to their ends; where an open transaction hides the end, to where that begins.

    It waits for a transaction only where a partition holds nothing but that.
    """
    reader.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
    found: dict[int, Position] = {}
    reading = set(starts)
    moved_at = time.monotonic()
    while reading:
        record = reader.poll(POLL_S)
        error = None if record is None else record.error()
        if record is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
            if error is not None and (error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED):
                raise KafkaException(error)
            if READERS.left_s:
                moved_at = time.monotonic() + READERS.left_s
            if time.monotonic() - moved_at > (STALLED_S if stalled_s is None else stalled_s):
                why = f"{topic}[{min(reading)}]: a transaction is open there, or the broker does not answer"
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, why))
            continue
        number, offset = record.partition() or 0, record.offset() or 0
        if number not in reading:
            continue
        low, high = bounds[number]
        if error is not None:
            hidden = offset < high and number not in found and starts[number] == low
            if not hidden:
                reading.discard(number)
            continue
        moved_at = time.monotonic()
        if record.key() == POSITION_KEY and (value := record.value()) is not None:
            position = read_position(value)
            if isinstance(position, Unreadable):
                raise unreadable_position(topic, number, position)
            found[number] = position
        if offset + 1 >= high:
            reading.discard(number)
    return found


def unreadable_position(delay_topic: str, partition: int, why: Unreadable) -> IdentityError:
    """Return the error of a position record that this version cannot read."""
    return IdentityError(
        f"{delay_topic}[{partition}]: its position record was written by another version of engage-relay "
        f"({why.detail}). Let that version deliver what is pending (`engage-relay pending list`), stop it, delete "
        f"{delay_topic}, and run `engage-relay topics create`: the group's offsets say where the source continues"
    )
