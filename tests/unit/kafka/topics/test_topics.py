"""What brokers and librdkafka answer for a moment, and nobody could mean."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.rules import COMPACTED, DAY_S, DEAD_LETTERS, TopicRules, outcomes_configuration
from consumer.kafka.topics.topics import RelayTopics, check

NO_OFFSET = -1001  # librdkafka's RD_KAFKA_OFFSET_INVALID
ONE_COPY = SimpleNamespace(replicas=[1])


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


class LateAdmin:
    """An AdminClient whose broker learns of new topics only when it was asked for them `asked` times."""

    def __init__(self, names: tuple[str, ...], asked: int) -> None:
        self._names, self._left = names, asked

    def list_topics(self, **_: object) -> object:
        self._left -= 1
        known = {} if self._left >= 0 else {name: SimpleNamespace(partitions={0: ONE_COPY}) for name in self._names}
        return SimpleNamespace(topics=known, controller_id=1, brokers={1: None})

    def describe_topics(self, wanted: TopicCollection, **_: object) -> dict[str, Future[object]]:
        unknown: Future[object] = Future()
        unknown.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        return dict.fromkeys(self._names, unknown)

    def describe_configs(self, resources: list[ConfigResource], **_: object) -> dict[ConfigResource, Future[object]]:
        forbidden: Future[object] = Future()
        forbidden.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
        return dict.fromkeys(resources, forbidden)


def test_a_source_that_was_just_made_is_found_though_the_broker_that_is_asked_learns_of_it_later() -> None:
    made = RelayTopics("orders", "orders.engage.delay", "orders.engage.dead-letters", "orders.engage.outcomes")
    admin = LateAdmin((made.source, *made.own), asked=3)
    assert len(check(cast("AdminClient", admin), [made])) == 4  # there, and their configurations may not be read


class ConfiguredAdmin(LateAdmin):
    """An AdminClient whose topics are there, with these configurations."""

    def __init__(self, configured: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(tuple(configured), asked=0)
        self._configured = configured

    def describe_configs(self, resources: list[ConfigResource], **_: object) -> dict[ConfigResource, Future[object]]:
        answers: dict[ConfigResource, Future[object]] = {}
        for each in resources:
            answers[each] = Future()
            entries = self._configured[each.name].items()
            answers[each].set_result({name: SimpleNamespace(value=value) for name, value in entries})
        return answers


def test_topics_that_fit_and_forget_facts_within_the_window_are_told_of_and_not_refused() -> None:
    topics = RelayTopics("orders", "orders.engage.delay", "orders.engage.dead-letters", "orders.engage.outcomes")
    rules = TopicRules(keep_outcomes_s=DAY_S, repeats_s=7 * DAY_S)
    configurations: tuple[dict[str, str], ...] = ({}, COMPACTED, DEAD_LETTERS, outcomes_configuration(rules))
    configured = dict(zip((topics.source, *topics.own), configurations, strict=True))
    admin = cast("AdminClient", ConfiguredAdmin(configured))
    (note,) = check(admin, [topics], rules)
    assert "orders.engage.outcomes deletes outcomes after 1 days" in note
    assert "the longest window of repeats is 7 days" in note
    assert check(admin, [topics], TopicRules(keep_outcomes_s=DAY_S, repeats_s=DAY_S)) == []
