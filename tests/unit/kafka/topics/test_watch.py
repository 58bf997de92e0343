"""A topic that somebody alters while the relay runs is told once, again when it is another error, and shown."""

from __future__ import annotations

import threading

from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from consumer.kafka.topics.watch import TopicsWatch, Unfit

FITS: Unfit = {}
DELETES: Unfit = {
    "orders.engage.delay": ["topic orders.engage.delay: cleanup.policy is delete"],
    "b": ["topic b: retention.ms is 1"],
}
GONE: Unfit = {"orders.engage.delay": ["topic orders.engage.delay does not exist"]}
NO_ANSWER = KafkaException(KafkaError(KafkaError._TRANSPORT))


class Looks:
    """What is said and reported when each look finds this."""

    def __init__(self, *found: Unfit | KafkaException) -> None:
        self._left = list(found)
        self.reported: list[Unfit] = []
        watch = TopicsWatch(self._find, self.reported.append)
        with capture_logs() as lines:
            for _ in found:
                watch.look()
        self.said = [(each["event"], each.get("why")) for each in lines]

    def _find(self) -> Unfit:
        found = self._left.pop(0)
        if isinstance(found, KafkaException):
            raise found
        return found


def test_what_does_not_fit_any_more_is_said_once_and_that_it_fits_again() -> None:
    why = [line for lines in DELETES.values() for line in lines]
    looks = Looks(FITS, DELETES, DELETES, NO_ANSWER, DELETES, FITS, FITS)
    assert looks.said == [("the topics do not fit any more", why), ("the topics fit again", None)]
    assert Looks(DELETES, GONE).said[1] == ("the topics do not fit any more", list(GONE["orders.engage.delay"]))


def test_brokers_that_do_not_answer_and_topics_that_fit_are_not_spoken_of() -> None:
    assert Looks(FITS, NO_ANSWER, FITS).said == []


def test_what_the_last_look_found_is_shown_and_stays_while_the_brokers_do_not_answer() -> None:
    assert Looks(FITS, DELETES, NO_ANSWER, GONE, FITS).reported == [FITS, DELETES, GONE, FITS]


def test_it_looks_again_and_again_until_it_is_stopped() -> None:
    looks: list[int] = []
    enough = threading.Event()

    def find() -> Unfit:
        looks.append(1)
        if len(looks) == 3:
            enough.set()
        return FITS

    watch = TopicsWatch(find, lambda _: None, interval_s=0.001)
    watch.start()
    assert enough.wait(30)
    watch.stop()
    assert not watch._thread.is_alive()
