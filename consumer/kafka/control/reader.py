"""EDGE. Follows the control topic: a thread with a consumer without membership, from `start` to `stop`.

It says which pauses there are, and which requests are open.

Rules:
 1. The topic is read from its beginning at each start, and nothing is reported before its end at that time was
    reached: a pause is kept over restarts, and holds the first poll, too.
 2. Then every change is reported, all that it says now. So a report that is lost with its process is no loss.
 3. What keeps the topic from being read is reported, too. What was read before holds until it can be read again.
 4. A topic that was recreated is read from its beginning again, also where it holds more by now than the former one:
    its id tells. One that was deleted is reported as what cannot be read.
 5. Who asks (`ask`) hears what the topic says up to where it ends then, or later. Settled records alone are read, so a
    transaction that is open there is waited for.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import ConfigurationError
from consumer.kafka import clients
from consumer.kafka.control.records import PARTITION, Controls
from consumer.kafka.dead_letters.waiting import LITTLE_AHEAD
from consumer.kafka.facts import ControlNotRead, ControlRead, Report
from consumer.kafka.identity.identity import tells_ids, topic_ids
from consumer.kafka.own_thread import OwnThread
from consumer.kafka.topics.asking import CALL_TIMEOUT_S
from consumer.kafka.topics.offsets import watermarks

# How long the broker keeps a request that finds nothing new. What is new comes at once; an empty topic's end, at the
# start, comes after this.
WAIT_MS = 200
POLL_S = 0.5  # how soon the thread sees that it is to end
RETRY_S = 2.0
LOOK_INTERVAL_S = 30.0  # for a topic that was deleted or recreated, or may not be read any more


class ControlReader(OwnThread):
    """Reads."""

    def __init__(self, properties: clients.Properties, topic: str, report: Report) -> None:
        super().__init__("control")
        self._properties = properties
        self._at = (topic, PARTITION)
        self._report = report
        self._asked = 0
        self._asking = threading.Lock()

    def ask(self) -> int:
        """Ask what the topic says up to where it ends now (rule 5)."""
        with self._asking:
            self._asked += 1
            return self._asked

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (KafkaException, ConfigurationError) as error:
                why = clients.error_of(error).str() if isinstance(error, KafkaException) else str(error)
                self._report(ControlNotRead(why))
            self._stopping.wait(RETRY_S)

    def _follow(self) -> None:
        """Read from the beginning and on, until it is to end. Raises KafkaException, also for a recreated topic."""
        admin = AdminClient(clients.base(self._properties), logger=clients.LOGGER)
        controls, told, news, told_at = Controls(), False, False, 0.0
        reached = -1  # also of an empty topic it is the reading that tells
        asked = self._asked  # before it is looked where the topic ends
        # Of the topic that has this end, or of an earlier one.
        topic_id = self._id(admin) if tells_ids(admin.list_topics(timeout=CALL_TIMEOUT_S)) else None
        _, end = watermarks(admin, [self._at])[self._at]
        properties = {**clients.reader(self._properties), **LITTLE_AHEAD, "fetch.wait.max.ms": WAIT_MS}
        with closing(Consumer(properties, logger=clients.LOGGER)) as reader:
            reader.assign([TopicPartition(*self._at, 0)])
            looked_at = time.monotonic()
            while not self._stopping.is_set():
                if told and asked < (now_asked := self._asked) and (now_end := self._end(admin)) is not None:
                    asked, end, told = now_asked, now_end, False
                record = reader.poll(POLL_S) if told or reached < end else None
                error = None if record is None else record.error()
                if record is not None and error is None:
                    controls.take(clients.raw(record.key()), clients.raw(record.value()))
                    reached, news = (record.offset() or 0) + 1, True
                elif record is not None and error is not None and error.code() == KafkaError._PARTITION_EOF:
                    reached = max(reached, record.offset() or 0)
                elif error is not None and (error.fatal() or error.code() in _DO_NOT_PASS):
                    raise KafkaException(error)
                now = time.monotonic()
                # What comes in one go is told at once: a bulk of requests is thousands of records.
                is_news = news and (record is None or error is not None or now - told_at > POLL_S)
                if reached >= end and (is_news or not told):
                    told, news, told_at = True, False, now
                    requests = dict(controls.requests)
                    self._report(ControlRead(controls.pauses, controls.unreadable, requests, asked))
                if now - looked_at >= LOOK_INTERVAL_S:
                    looked_at = now
                    self._look(admin, reached, topic_id)

    def _end(self, admin: AdminClient) -> int | None:
        """Return where the topic ends; None: brokers are away. Raises KafkaException where that does not pass."""
        try:
            return watermarks(admin, [self._at])[self._at][1]
        except KafkaException as error:
            if clients.error_of(error).code() in _DO_NOT_PASS:
                raise
            return None

    def _id(self, admin: AdminClient) -> str | None:
        """Return the topic's id; None where nobody knows it. Raises KafkaException where brokers are away."""
        return topic_ids(admin, [self._at[0]]).get(self._at[0])

    def _look(self, admin: AdminClient, reached: int, topic_id: str | None) -> None:
        """Raise KafkaException where the topic is gone or another one, or may not be read. Brokers may be away."""
        end = self._end(admin)
        if end is not None and end < reached:
            raise clients.exception(KafkaError(KafkaError.OFFSET_OUT_OF_RANGE), f"{self._at[0]} was recreated")
        if topic_id is None:
            return
        try:
            present = self._id(admin)
        except KafkaException:
            return
        if present != topic_id:
            why = "does not exist any more" if present is None else "was recreated"
            raise clients.exception(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), f"{self._at[0]} {why}")


_DO_NOT_PASS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._AUTO_OFFSET_RESET,
    }
)
