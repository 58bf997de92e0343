"""EDGE. Sources that were taken out of the configuration while actions of theirs are still pending.

Rules:
 1. They are found in Kafka: the group has committed offsets of their delay topic. Its position records say whether it
    is this group's, and of which source. Offsets expire after a week without a commit: `pending list` looks also at
    every topic whose name is what `delay.topic` makes of a source's name. A start does not: a cluster may hold very
    many of other relays, and each must be read.
 2. What is pending there is delivered, and nothing is read from the source any more. Its partitions are assigned as
    before, so each has one owner, and what it commits is where the source would continue.
 3. Where that cannot be, nothing else waits for it: it is said, and stays pending.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, TopicMetadata

from consumer.errors import IdentityError, TopicError
from consumer.kafka import clients
from consumer.kafka.identity.identity import Recorded, present_identities, recorded_positions, verified
from consumer.kafka.pending import Pending, pending_actions
from consumer.kafka.topics import topics as kafka_topics
from consumer.kafka.topics.asking import CALL_TIMEOUT_S
from consumer.kafka.topics.rules import TopicRules
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

SOURCE = "{source}"
GLANCE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A source that is no longer configured, and has something pending.

    `identity`: as its delay topic names it; None where it cannot be delivered, and `why` says why.
    """

    topics: RelayTopics
    pending: int
    identity: SourceIdentity | None = None
    why: str = ""

    def __str__(self) -> str:
        text = (
            f"{self.topics.source} is not in source.topics any more, and {self.pending} of its actions are pending in "
            f"{self.topics.delay}"
        )
        if self.identity is None:
            return f"{text}. They stay there: {self.why}"
        return (
            f"{text}. They are delivered, unless source.removed is `leave`; nothing is read from {self.topics.source}"
        )


def removed_sources(
    properties: clients.Properties,
    configured: Iterable[RelayTopics],
    delay: str,
    topics_of: Callable[[str], RelayTopics],
    *,
    by_name: bool = False,
) -> list[Removed]:
    """Look for them. `delay`: the delay topics' configured name, with SOURCE in it or not.

    `topics_of`: what the configuration makes of a source's name. Outcomes are written where their topic is there.

    `by_name`: also among the topics that are merely named like one (rule 1).

    Raises KafkaException where the brokers do not answer.
    """
    known = {each.delay for each in configured}
    admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
    group = str(properties["group.id"])
    found: list[Removed] = []
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        existing = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
        for name in sorted(_candidates(properties, existing, delay if by_name else None) - known):
            try:
                recorded = recorded_positions(reader, admin, name, GLANCE_S).positions
            except (IdentityError, KafkaException):  # another version's, or somebody else's altogether
                continue
            source = _source_of(recorded, group)
            if source is None:
                continue
            topics = replace(topics_of(source), delay=name, drained=True)
            if topics.outcomes not in existing:
                topics = replace(topics, outcomes=None)
            pending = sum(isinstance(each, Pending) for each in pending_actions(properties, [topics]))
            if pending:
                found.append(_judged(admin, group, Removed(topics=topics, pending=pending), recorded))
    return found


def _candidates(properties: clients.Properties, existing: Mapping[str, TopicMetadata], delay: str | None) -> set[str]:
    """Return which existing topics may be delay topics of this group, by its offsets and, if given, by `delay`.

    A consumer asks for the offsets of every partition there is. The admin client would ask for the group's alone, and
    ends the process where the group's coordinator moves meanwhile (librdkafka issues 4605 and 5040).
    """
    pattern = None
    if delay is not None and SOURCE in delay:
        pattern = re.compile(".+".join(map(re.escape, delay.split(SOURCE))))
    asked = [TopicPartition(name, number) for name, topic in existing.items() for number in topic.partitions]
    # What a transaction that is under way will commit is not waited for.
    config = {**clients.reader(properties), "isolation.level": "read_uncommitted"}
    with closing(Consumer(config, logger=clients.LOGGER)) as reader:
        offsets = reader.committed(asked, CALL_TIMEOUT_S)
    marked = {each.topic for each in offsets if each.error is None and each.metadata}
    return {name for name in existing if name in marked or (pattern is not None and pattern.fullmatch(name))}


def _source_of(recorded: Recorded, group: str) -> str | None:
    """Return the source that these position records name; None where they are another group's."""
    return next((each.source.topic for each in recorded.values() if each.source.group == group), None)


def _judged(admin: AdminClient, group: str, found: Removed, recorded: Recorded) -> Removed:
    """Tell whether it can be delivered (rule 3)."""
    topics = found.topics
    try:
        kafka_topics.check(admin, [topics], TopicRules(compacted_source=True, keep_outcomes_s=0.0))
        present = present_identities(admin, group, [topics.source])[topics.source]
        return replace(found, identity=verified(topics, recorded, present))
    except (TopicError, IdentityError) as error:
        return replace(found, why="; ".join(str(error).splitlines()))
