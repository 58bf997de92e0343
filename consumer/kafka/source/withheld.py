"""Partitions that a stable group assigns to no member, and which member joins again to end that.

In a cooperative rebalance the leader withholds a partition that changes its owner, until the former owner has given it
up and joins again (KIP-429). If that owner is a static member and dies in between, its successor takes its name without
a rebalance (KIP-345). Then no member joins again, and the partition stays without an owner, although all members work.

Rules:
 1. One look may fall into the middle of a change. So only what several looks in a row see counts.
 2. One member joins again, not all of them. Only the leader's joining is sure to begin a rebalance, and the members do
    not know who leads. So it is a different member each time, chosen by their ids (a static member's begins with its
    name) and by how often it was tried.
 3. A look never makes the consumer's thread wait.
 4. No request of the admin client goes to the group's coordinator. Where the connection to it breaks meanwhile,
    librdkafka ends the process: `Assertion eonce->refcnt > 0` (its issue 4605, open in 2.16;
    tests/chaos/test_broker_faults.py). `list_groups` asks each broker for itself.
 5. What a look cannot read, as another program's assignment, is no look, and ends nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, GroupMetadata

from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.own_thread import OwnThread

LOOK_INTERVAL_S = 5.0
LOOKS = 3  # in a row; a rebalance of a healthy group is over sooner
REQUEST_TIMEOUT_S = 5.0

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw: the partitions that members own, and the members' ids. `stable`: nothing moves."""

    stable: bool
    owned: Collection[Partition]
    members: Sequence[str]

    def unowned(self, counts: Mapping[str, int]) -> int:
        """Return how many partitions are nobody's. `counts`: how many each source topic has."""
        return sum((topic, n) not in self.owned for topic, count in counts.items() for n in range(count))


class Withheld:
    """Counts what the looks see. Pure."""

    def __init__(self) -> None:
        self._seen = 0

    def saw(self, look: Look, counts: Mapping[str, int], us: str | None) -> int:
        """Take a look in. Returns how many partitions are nobody's where it is on us to join again, else 0.

        `counts`: the partitions of each source topic. `us`: our member id, None before there is one.
        """
        unowned = look.unowned(counts)
        if not look.stable or not unowned or us not in look.members:
            self._seen = 0
            return 0
        self._seen += 1
        attempt, waiting = divmod(self._seen, LOOKS)
        is_ours = waiting == 0 and sorted(look.members)[(attempt - 1) % len(look.members)] == us
        return unowned if is_ours else 0


class GroupWatch(OwnThread):
    """EDGE. Looks at the group every LOOK_INTERVAL_S, on a thread of its own. All else is for one other thread."""

    def __init__(self, properties: clients.Properties) -> None:
        super().__init__("group")
        self._group = str(properties["group.id"])
        self._properties = properties
        self._withheld = Withheld()
        self._look: Look | None = None

    @staticmethod
    def needed(properties: clients.Properties) -> bool:
        """Tell whether partitions can be withheld for ever: with the newer protocol the broker sees to it."""
        return bool(properties.get("group.instance.id")) and properties.get("group.protocol", "classic") == "classic"

    def must_rejoin(self, counts: Mapping[str, int], us: str | None) -> int:
        """Take in what was seen since the last call; see Withheld.saw."""
        look, self._look = self._look, None
        return 0 if look is None else self._withheld.saw(look, counts, us)

    def _run(self) -> None:
        admin = AdminClient(clients.base(self._properties), logger=clients.LOGGER)
        while not self._stopping.wait(LOOK_INTERVAL_S):
            try:
                found = admin.list_groups(self._group, REQUEST_TIMEOUT_S)
                looks = [look_at(each) for each in found if each.id == self._group and each.error is None]
            except (KafkaException, struct.error, UnicodeDecodeError):
                continue  # a broker does not answer, the right to describe the group is missing, or rule 5
            self._look = looks[0] if looks else None


def look_at(group: GroupMetadata) -> Look:
    """Read a group's description. Raises struct.error or UnicodeDecodeError where an assignment is none of Kafka's."""
    return Look(
        stable=group.state == "Stable",
        owned={at for member in group.members for at in assigned(member.assignment or b"")},
        members=[str(member.id) for member in group.members],
    )


def assigned(assignment: bytes) -> list[Partition]:
    """Read a member's assignment, as Kafka's ConsumerProtocolAssignment.json describes it (any version)."""
    found: list[Partition] = []
    if not assignment:
        return found
    (topics,), at = _INT32.unpack_from(assignment, _INT16.size), _INT16.size + _INT32.size
    for _ in range(topics):
        (length,), at = _INT16.unpack_from(assignment, at), at + _INT16.size
        topic, at = assignment[at : at + length].decode(), at + length
        (count,), at = _INT32.unpack_from(assignment, at), at + _INT32.size
        found += [(topic, n) for (n,) in _INT32.iter_unpack(assignment[at : at + count * _INT32.size])]
        at += count * _INT32.size
    return found
