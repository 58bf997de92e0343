"""EDGE. How many dead letters wait for a redrive: a thread that counts them in the topic itself.

Rules:
 1. What waits is what the topic holds: a dead letter without its mark (redrive.py). So the
    count falls with a redrive, with the retention, and with a deleted topic, whoever did it.
 2. Each instance counts the partitions that it owns, of its own source topics: a dead letter
    has its event's partition. The sum over the instances counts each one once.
 3. A partition is read from its beginning once, then what came since. Its topic has no
    figure until all of its partitions were counted: less would look like a redrive.
 4. Nothing depends on it. While a broker does not answer, the last figure stays. Where the
    topic may not be read (a relay that only runs needs no such right), there is none, and
    the log says so once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.own_thread import OwnThread
from consumer.kafka.records.dead_letters import REDRIVEN
from consumer.kafka.topics.scan import StalledError, records_between
from consumer.kafka.topics.topics import RelayTopics
from schemas.dead_letter import PREFIX

LOOK_INTERVAL_S = 15.0  # as often as Prometheus scrapes
UNOWNED_INTERVAL_S = 1.0  # while there is nothing to count: an assignment is counted soon
# What is read ahead takes memory, and nobody waits for this.
LITTLE_AHEAD = {"queued.min.messages": 1000, "queued.max.messages.kbytes": 4096}
ANSWER_S = 10.0
_REASON, _SOURCE = PREFIX + "reason", PREFIX + "source-topic"

_LOG = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Count:
    """The dead letters of one source partition that wait, by their offsets: read up to `next`."""

    source_topic: str
    next: int = 0
    waiting: set[int] = field(default_factory=set)

    def take(self, record: Message) -> None:
        """Count a record: a dead letter of our topic, or a mark."""
        headers = dict(clients.headers_of(record))
        mark = headers.get(REDRIVEN)
        if mark is not None:
            if mark.isdigit() and len(mark) < 20:
                self.waiting.discard(int(mark))
        elif _REASON in headers and headers.get(_SOURCE) == self.source_topic.encode():
            self.waiting.add(record.offset() or 0)

    def forget_before(self, low: int) -> None:
        """Leave out what the topic does not hold any more."""
        self.waiting = {each for each in self.waiting if each >= low}


class WaitingDeadLetters(OwnThread):
    """Counts."""

    def __init__(
        self,
        properties: clients.Properties,
        topics: Mapping[str, RelayTopics],
        owned: Callable[[], Collection[Partition]],
        report: Callable[[Mapping[str, int]], None],
        *,
        interval_s: float = LOOK_INTERVAL_S,
    ) -> None:
        """`topics`: by source topic. `owned`: the source partitions of this instance. `report`: by source topic."""
        super().__init__("dead-letters")
        self._properties = properties
        self._topics = topics
        self._owned = owned
        self._report = report
        self._interval_s = interval_s
        self._counts: dict[Partition, Count] = {}
        self._said = ""

    def _run(self) -> None:
        properties = {**clients.reader(self._properties), **LITTLE_AHEAD}
        with closing(Consumer(properties, logger=clients.LOGGER)) as reader:
            while not self._stopping.is_set():
                try:
                    self._look(reader)
                except (KafkaException, StalledError) as error:
                    self._say(error)
                else:
                    self._report(self._by_topic())
                    self._said = ""
                self._stopping.wait(self._interval_s if self._counts else min(self._interval_s, UNOWNED_INTERVAL_S))

    def _look(self, reader: Consumer) -> None:
        owned = {each for each in self._owned() if each[0] in self._topics}
        self._counts = {each: self._counts.get(each, Count(each[0])) for each in owned}
        places = {each: (self._topics[each[0]].dead_letters, each[1]) for each in owned}
        for each, count in self._counts.items():
            # Not by the admin client: librdkafka 2.16 aborts the process (`eonce->refcnt > 0`) now and then where the
            # offsets of a partition are asked for while its leader goes away.
            low, end = reader.get_watermark_offsets(TopicPartition(*places[each]), timeout=ANSWER_S)
            if end < count.next:  # the topic was recreated
                count.next, count.waiting = 0, set()
            count.forget_before(low)
            for record in records_between(reader, places[each], max(low, count.next), end):
                if self._stopping.is_set():
                    return
                count.take(record)
                count.next = (record.offset() or 0) + 1
            count.next = max(count.next, end)

    def _by_topic(self) -> dict[str, int]:
        found = dict.fromkeys((topic for topic, _ in self._counts), 0)
        for count in self._counts.values():
            found[count.source_topic] += len(count.waiting)
        return found

    def _say(self, error: KafkaException | StalledError) -> None:
        """Say why there is no new figure: once, as long as it is for the same reason."""
        failure = clients.error_of(error) if isinstance(error, KafkaException) else None
        why = str(error) if failure is None else failure.str()
        if failure is not None and failure.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            why = "Read is not granted on the dead-letter topic"
            self._report({})
        if why != self._said:
            self._said = why
            _LOG.info("the dead letters that wait for a redrive are not counted", why=why)
