"""What librdkafka answers and nobody could mean."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from consumer.kafka.topics import watermarks

NO_OFFSET = -1001  # librdkafka's RD_KAFKA_OFFSET_INVALID


class Admin:
    """An AdminClient that knows one topic, and these first and last offsets of its only partition."""

    def __init__(self, first: int, last: int) -> None:
        self._offsets = {OffsetSpec.earliest(): first, OffsetSpec.latest(): last}

    def list_topics(self, **_: object) -> object:
        return SimpleNamespace(topics={"orders": SimpleNamespace(partitions=[0])})

    def list_offsets(
        self, wanted: Mapping[TopicPartition, OffsetSpec], **_: object
    ) -> dict[TopicPartition, Future[object]]:
        answers: dict[TopicPartition, Future[object]] = {}
        for at, spec in wanted.items():
            answers[at] = Future()
            answers[at].set_result(SimpleNamespace(offset=self._offsets[spec]))
        return answers


def test_the_watermarks_are_the_first_and_the_last_offset() -> None:
    assert watermarks(cast("AdminClient", Admin(3, 7)), [("orders", 0)]) == {("orders", 0): (3, 7)}


@pytest.mark.parametrize(("first", "last"), [(NO_OFFSET, NO_OFFSET), (NO_OFFSET, 7), (3, NO_OFFSET), (3, -1)])
def test_a_partition_whose_leader_has_just_changed_has_unknown_watermarks_and_no_impossible_ones(
    first: int, last: int
) -> None:
    """A restore that took it for an empty partition would lose all that is pending there."""
    with pytest.raises(KafkaException, match=r"orders\[0\]"):
        watermarks(cast("AdminClient", Admin(first, last)), [("orders", 0)])
