"""A topic that somebody alters while the relay runs is told once, and again when it is another error."""

from __future__ import annotations

import threading

from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from consumer.errors import TopicError
from consumer.kafka.topics.watch import TopicsWatch

DELETES = TopicError("topic orders.engage.delay: cleanup.policy is delete\ntopic b: retention.ms is 1")
NO_ANSWER = KafkaException(KafkaError(KafkaError._TRANSPORT))
GONE = TopicError("topic orders.engage.delay does not exist")


def said(*found: Exception | None) -> list[tuple[str, object]]:
    """Return what is said when each look finds this."""
    left = list(found)

    def check() -> None:
        if (error := left.pop(0)) is not None:
            raise error

    watch = TopicsWatch(check)
    with capture_logs() as lines:
        for _ in found:
            watch.look()
    return [(each["event"], each.get("why")) for each in lines]


def test_what_does_not_fit_any_more_is_said_once_and_that_it_fits_again() -> None:
    unfit = ("the topics do not fit any more", str(DELETES).splitlines())
    assert said(None, DELETES, DELETES, NO_ANSWER, DELETES, None, None) == [unfit, ("the topics fit again", None)]
    assert said(DELETES, GONE)[1] == ("the topics do not fit any more", [str(GONE)])


def test_brokers_that_do_not_answer_and_topics_that_fit_are_not_spoken_of() -> None:
    assert said(None, NO_ANSWER, None) == []


def test_it_looks_again_and_again_until_it_is_stopped() -> None:
    looks: list[int] = []
    enough = threading.Event()

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            enough.set()

    watch = TopicsWatch(check, interval_s=0.001)
    watch.start()
    assert enough.wait(30)
    watch.stop()
    assert not watch._thread.is_alive()
