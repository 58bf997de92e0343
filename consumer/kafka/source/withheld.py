"""Partitions that a stable group assigns to no member, and which member joins again to end that.

In a cooperative rebalance the leader withholds a partition that changes its owner, until the former owner has given it
up and joins again (KIP-429). If that owner is a static member and dies in between, its successor takes its name without
a rebalance (KIP-345). Then no member joins again, and the partition stays without an owner, although all members work.

Rules:
 1. One look may fall into the middle of a change. So only what several looks in a row see counts.
 2. One member joins again, not all of them. Only the leader's joining is sure to begin a rebalance, and the members do
    not know who leads. So it is a different member each time, chosen by their names and by how often it was tried.
 3. A look never makes the consumer's thread wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription

from consumer.kafka import clients

LOOK_INTERVAL_S = 5.0
LOOKS = 3  # in a row; a rebalance of a healthy group is over sooner
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw: how many partitions are nobody's, and the static members' names. `stable`: nothing moves."""

    stable: bool
    unowned: int
    names: Sequence[str]


class Withheld:
    """Counts what the looks see. Pure."""

    def __init__(self, name: str) -> None:
        """`name`: our own `group.instance.id`."""
        self._name = name
        self._seen = 0

    def saw(self, look: Look) -> bool:
        """Take a look in; tells whether it is on us to join again."""
        if not look.stable or not look.unowned or self._name not in look.names:
            self._seen = 0
            return False
        self._seen += 1
        attempt, waiting = divmod(self._seen, LOOKS)
        return waiting == 0 and sorted(look.names)[(attempt - 1) % len(look.names)] == self._name


class GroupWatch:
    """EDGE. Looks at the group every LOOK_INTERVAL_S. For one thread."""

    def __init__(self, properties: clients.Properties) -> None:
        self._group = str(properties["group.id"])
        self._admin = AdminClient(clients.base(properties), logger=clients.LOGGER)
        self._withheld = Withheld(str(properties["group.instance.id"]))
        self._asked_at = 0.0
        self._answer: Future[ConsumerGroupDescription] | None = None

    @staticmethod
    def needed(properties: clients.Properties) -> bool:
        """Tell whether partitions can be withheld for ever: with the newer protocol the broker sees to it."""
        return bool(properties.get("group.instance.id")) and properties.get("group.protocol", "classic") == "classic"

    def must_rejoin(self, counts: Mapping[str, int], now: float) -> int:
        """Look, where it is time; returns how many partitions are nobody's where it is on us to join again, else 0.

        `counts`: the partitions of each source topic. `now` is monotonic seconds.
        """
        if self._answer is None:
            if now - self._asked_at >= LOOK_INTERVAL_S:
                self._asked_at = now
                self._answer = self._admin.describe_consumer_groups([self._group], request_timeout=REQUEST_TIMEOUT_S)[
                    self._group
                ]
            return 0
        if not self._answer.done():
            return 0
        answer, self._answer = self._answer, None
        try:
            look = look_at(answer.result(), counts)
        except KafkaException:  # the broker does not answer, or the right to describe the group is missing
            return 0
        return look.unowned if self._withheld.saw(look) else 0


def look_at(group: ConsumerGroupDescription, counts: Mapping[str, int]) -> Look:
    """Read a group's description."""
    owned = {
        (each.topic, each.partition)
        for member in group.members
        if member.assignment is not None
        for each in member.assignment.topic_partitions
    }
    return Look(
        stable=group.state is ConsumerGroupState.STABLE,
        unowned=sum((topic, n) not in owned for topic, count in counts.items() for n in range(count)),
        names=[member.group_instance_id for member in group.members if member.group_instance_id],
    )
