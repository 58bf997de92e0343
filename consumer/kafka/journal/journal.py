"""EDGE. The journal: the delay topic, written in transactions by the one thread that owns the producer.

waiting_writes.py says which writes go into one transaction, and how long they wait for it. transactions.py decides
what is written for them and what happens when it fails. This module holds the thread and its clients.

Rule: a call that ignores its time-out (librdkafka issues 5456, 5511) ends the process: see `stuck_for`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Ownership
from consumer.kafka import clients
from consumer.kafka.facts import Report
from consumer.kafka.journal.low_water_mark import PINNING, Pinning
from consumer.kafka.journal.producers import CALL_TIMEOUT_S
from consumer.kafka.journal.too_large import ReplaceTooLarge
from consumer.kafka.journal.transactions import Transactions
from consumer.kafka.journal.waiting_writes import WaitingWrites
from consumer.kafka.journal.writes import Item
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

STUCK_S = 2 * CALL_TIMEOUT_S  # any one call returns after CALL_TIMEOUT_S, however slow the machine


class Journal:
    """The delay topic's writer. All methods may be called from any thread and never block."""

    def __init__(
        self,
        *,
        properties: clients.Properties,
        transactional_id: str,
        topics: Mapping[str, RelayTopics],
        identities: Mapping[str, SourceIdentity],
        ownership: Callable[[], Ownership],
        clock: Clock,
        report: Report,
        replace_too_large: ReplaceTooLarge,
        control: str | None = None,
        pinning: Pinning = PINNING,
    ) -> None:
        """`topics` and `identities` by source topic; `ownership` returns the latest snapshot.

        `control`: the control topic, None where there is none.
        """
        self._clock = clock
        self._waiting = WaitingWrites(clock)
        self._stopping = threading.Event()
        self._transactions = Transactions(
            _Clients(properties, transactional_id),
            topics=topics,
            identities=identities,
            ownership=ownership,
            clock=clock,
            pause=self._pause,
            report=report,
            replace_too_large=replace_too_large,
            control=control,
            timeout_s=clients.transaction_s(properties),
            pinning=pinning,
        )
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.failed: BaseException | None = None

    # -- from any thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. It builds the producer at once, as far as the broker lets it."""
        self._thread.start()

    def submit(self, items: Iterable[Item]) -> None:
        """Save these in this order. The fact `Committed` reports when they are safe."""
        self._waiting.submit(items)

    @property
    def backlog(self) -> int:
        """How many writes wait for their transaction."""
        return len(self._waiting)

    @property
    def backlog_bytes(self) -> int:
        """How many bytes the records have that wait for their transaction, or are in the present one."""
        return self._waiting.bytes

    def stop(self, timeout_s: float) -> bool:
        """Commit what was submitted, then end. Returns whether that was done in time.

        What is not safe by then is dropped: the source has the event, or the delay topic has the older record.
        """
        self._transactions.end_by(self._clock() + timeout_s)
        self._stopping.set()
        self._waiting.close()
        if self._thread.ident is None:
            return not self._waiting
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._waiting

    def stuck_for(self) -> float:
        """Seconds that the present call into librdkafka has taken: above STUCK_S it will never return."""
        since = self._transactions.busy_since
        return 0.0 if since is None else self._clock() - since

    # -- on the journal's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._transactions.begin()
            while items := self._waiting.take():
                self._transactions.settle(items)
            self._transactions.end()
        except BaseException as error:  # noqa: BLE001 - the thread's edge: whoever watches it ends the process
            self.failed = error

    def _pause(self, seconds: float) -> None:
        """Wait between two attempts; a stop cuts it short."""
        if self._stopping.is_set():
            time.sleep(max(0.0, min(seconds, self._transactions.end_at - self._clock())))
        else:
            self._stopping.wait(seconds)


@dataclass(frozen=True, slots=True)
class _Clients:
    """Real ones. See producers.Clients."""

    properties: clients.Properties
    transactional_id: str

    def producer(self, *, one_by_one: bool, successor: int) -> Producer:
        name = f"{self.transactional_id}-{successor}" if successor else self.transactional_id
        config = clients.producer(self.properties, name)
        if one_by_one:
            config["batch.num.messages"] = 1
        return Producer(config, logger=clients.LOGGER)

    def committed(self, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        reader = Consumer(clients.reader(self.properties), logger=clients.LOGGER)
        try:
            return reader.committed(partitions, timeout_s)
        finally:
            reader.close()
