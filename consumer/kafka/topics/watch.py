"""EDGE. Looks again and again whether the topics still fit: somebody may alter one while the relay runs.

A delay topic that deletes what is pending, or a dead-letter topic that keeps nothing, is refused at the start. Between
two starts it takes weeks, and what it deleted meanwhile is gone. Nothing ends by this: a person is told.

The log says it once, and again when it is another error; whoever is reported to has it after each look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from confluent_kafka import KafkaException

from consumer.kafka.own_thread import OwnThread

LOOK_INTERVAL_S = 300.0

_LOG = structlog.stdlib.get_logger(__name__)

Unfit = Mapping[str, Sequence[str]]  # what is wrong with a topic, by its name


class TopicsWatch(OwnThread):
    """Looks; the first time an interval after its start."""

    def __init__(
        self, find: Callable[[], Unfit], report: Callable[[Unfit], None], *, interval_s: float = LOOK_INTERVAL_S
    ) -> None:
        """`find` returns what does not fit, and raises KafkaException where the brokers do not answer."""
        super().__init__("topics")
        self._find = find
        self._report = report
        self._interval_s = interval_s
        self._said: Unfit = {}

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.look()

    def look(self) -> None:
        """Look now, and say what changed."""
        try:
            unfit = self._find()
        except KafkaException:
            return  # who reads and writes them says so, and what was found last is what is known
        self._report(unfit)
        if unfit == self._said:
            return
        self._said = unfit
        if unfit:
            why = [line for lines in unfit.values() for line in lines]
            _LOG.warning("the topics do not fit any more", why=why)
        else:
            _LOG.info("the topics fit again")
