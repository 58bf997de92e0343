"""Where partitions end is asked at intervals, one question at a time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition

from consumer.core.ownership import Partition
from consumer.kafka.topics import ends
from consumer.kafka.topics.ends import ASK_INTERVAL_S, Ends, EndWatch

ORDERS, OTHERS = ("orders", 0), ("orders", 1)
AWAY = KafkaException(KafkaError(KafkaError._TIMED_OUT))


class Answer:
    """What list_offsets tells of a partition."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class Admin:
    """Answers when it is told to; two questions at once end the process (librdkafka 2.16.0)."""

    def __init__(self, *_: object, **__: object) -> None:
        self.asked: list[IsolationLevel] = []
        self._open: Mapping[TopicPartition, Future[Any]] = {}

    def list_offsets(
        self, wanted: Mapping[TopicPartition, object], *, isolation_level: IsolationLevel, request_timeout: float
    ) -> Mapping[TopicPartition, Future[Any]]:
        assert all(each.done() for each in self._open.values()), "two questions at once"
        assert request_timeout > 0
        self.asked.append(isolation_level)
        self._open = {at: Future() for at in wanted}
        return self._open

    def answers(self, **offsets: int | KafkaException) -> None:
        """Answer the open question, by the partition's number: `p0=7`."""
        for at, future in self._open.items():
            match offsets[f"p{at.partition}"]:
                case KafkaException() as error:
                    future.set_exception(error)
                case int() as offset:
                    future.set_result(Answer(offset))


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    admin = Admin()
    monkeypatch.setattr(ends, "AdminClient", lambda *_, **__: admin)
    return admin


def test_the_second_question_waits_for_the_first_ones_answer(admin: Admin) -> None:
    watch = EndWatch({})
    for second in range(3):
        watch.look([ORDERS, OTHERS], 100.0 + second)
    assert admin.asked == [IsolationLevel.READ_UNCOMMITTED]
    admin.answers(p0=7, p1=9)
    watch.look([ORDERS, OTHERS], 103.0)
    watch.look([ORDERS, OTHERS], 104.0)
    assert admin.asked == [IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED]
    assert watch.known == {}
    admin.answers(p0=5, p1=9)
    watch.look([ORDERS], 105.0)
    assert watch.known == {ORDERS: Ends(high=7, stable=5), OTHERS: Ends(high=9, stable=9)}


def test_it_is_asked_again_after_a_while_and_what_is_not_answered_is_not_known(admin: Admin) -> None:
    watch = EndWatch({})
    rounds: list[tuple[int | KafkaException, int | KafkaException, dict[Partition, Ends]]] = [
        (7, 7, {ORDERS: Ends(high=7, stable=7)}),
        (AWAY, 8, {}),
        (9, AWAY, {}),
        (9, 8, {ORDERS: Ends(high=9, stable=8)}),
    ]
    for number, (high, stable, known) in enumerate(rounds):
        now = 100.0 + number * ASK_INTERVAL_S
        watch.look([ORDERS], now)
        admin.answers(p0=high)
        watch.look([ORDERS], now)
        admin.answers(p0=stable)
        watch.look([ORDERS], now)
        assert watch.known == known
    assert len(admin.asked) == 8


def test_who_owns_nothing_asks_nothing(admin: Admin) -> None:
    EndWatch({}).look([], 100.0)
    assert admin.asked == []
