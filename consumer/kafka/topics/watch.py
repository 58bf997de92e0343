"""EDGE. Looks again and again whether the topics still fit: somebody may alter one while the relay runs.

A delay topic that deletes what is pending, or a dead-letter topic that keeps nothing, is refused at the start. Between
two starts it takes weeks, and what it deleted meanwhile is gone. Nothing ends by this: a person is told, once.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from confluent_kafka import KafkaException

from consumer.errors import TopicError
from consumer.kafka.own_thread import OwnThread

LOOK_INTERVAL_S = 300.0

_LOG = structlog.stdlib.get_logger(__name__)


class TopicsWatch(OwnThread):
    """Looks; the first time an interval after its start."""

    def __init__(self, check: Callable[[], object], *, interval_s: float = LOOK_INTERVAL_S) -> None:
        """`check` raises TopicError where a topic does not fit, and KafkaException where the brokers do not answer."""
        super().__init__("topics")
        self._check = check
        self._interval_s = interval_s
        self._said: str | None = None

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.look()

    def look(self) -> None:
        """Look now, and say what changed."""
        try:
            self._check()
        except TopicError as error:
            if str(error) != self._said:
                self._said = str(error)
                _LOG.warning("the topics do not fit any more", why=self._said.splitlines())
        except KafkaException:
            return  # who reads and writes them says so
        else:
            if self._said is not None:
                self._said = None
                _LOG.info("the topics fit again")
