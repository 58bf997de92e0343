"""Who owns what right now: one immutable snapshot, published by the consumer's thread, read by everybody else.

Fencing is by group generation, but the broker takes a commit under a *new* generation for a partition that is no
longer owned. So a transaction takes the snapshot first, drops what its partitions' epochs no longer cover, and
commits with that snapshot's metadata; and a request leaves only while its epoch is still the one owned.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

Partition = tuple[str, int]
_PREFIX = b"CGMDv2:"  # librdkafka's own serialisation (rd_kafka_consumer_group_metadata_write): the prefix,
_GENERATION = struct.Struct("=i")  # then the generation


class Assignment(NamedTuple):
    """A source partition while this process owns it; the epoch tells one ownership from the next."""

    topic: str
    partition: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Ownership:
    """What this process owned, and under which group metadata, at one moment. Replaced whole, never changed."""

    group_metadata: bytes | None = None
    owned: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))

    def covers(self, assignment: Assignment) -> bool:
        """Whether this very assignment is still owned."""
        return self.owned.get((assignment.topic, assignment.partition)) == assignment.epoch

    @property
    def assignments(self) -> list[Assignment]:
        """All that is owned."""
        return [Assignment(topic, partition, epoch) for (topic, partition), epoch in self.owned.items()]


def generation(group_metadata: bytes) -> int:
    """Return the generation inside a consumer's group metadata; -1 before the first join.

    Raises ValueError for a serialisation that this version does not know: publishing a negative generation
    unchecked would switch the broker's fencing off (it does not check negative ones).
    """
    if not group_metadata.startswith(_PREFIX) or len(group_metadata) < len(_PREFIX) + _GENERATION.size:
        raise ValueError("unknown serialisation of the group metadata")
    (number,) = _GENERATION.unpack_from(group_metadata, len(_PREFIX))
    return int(number)
