"""EDGE. Looks again and again whether the topics still fit: somebody may alter one while the relay runs.

A delay topic that deletes what is pending, or a dead-letter topic that keeps nothing, is refused at the start. Between
two starts it takes weeks, and what it deleted meanwhile is gone. Nothing ends by this: a person is told, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from confluent_kafka import KafkaException

from consumer.errors import TopicError

LOOK_INTERVAL_S = 300.0
STOP_S = 2.0  # a call to a broker that does not answer is not waited for

_LOG = structlog.stdlib.get_logger(__name__)


class TopicsWatch:
    """Looks on a thread of its own, from `start` to `stop`."""

    def __init__(self, check: Callable[[], object], *, interval_s: float = LOOK_INTERVAL_S) -> None:
        """`check` raises TopicError where a topic does not fit, and KafkaException where the brokers do not answer."""
        self._check = check
        self._interval_s = interval_s
        self._said: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="topics", daemon=True)

    def start(self) -> None:
        """Begin; the first look is an interval from now."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

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
