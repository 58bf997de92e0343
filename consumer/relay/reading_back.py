"""Parked actions come back: their records are read, and the ledger holds them again (core/parking.py).

Rules:
 1. One thing is read at a time. While the journal is full, nothing is. A partition that cannot be read waits, longer
    each time: the others are read meanwhile.
 2. What was read counts only where the partition is still ours and not in a hand-over. Otherwise its next owner finds
    the record where it was.
 3. The journal learns of it first: from then on the records hold the low-water mark themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from consumer.core.clock import Clock
from consumer.core.effects import LiveAction
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.parking import ToRead
from consumer.kafka.facts import Committed
from consumer.kafka.journal.writes import Put, Unparked
from consumer.kafka.parking.read_back import ParkedRecord
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.records.pending import live_action
from consumer.kafka.records.unreadable import Unreadable
from consumer.kafka.restore.reader import RestoreError
from consumer.kafka.restore.restored import UnreadableRecord
from consumer.relay.dispatch import Dispatch
from consumer.relay.edges import ParkedReader
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox
from consumer.relay.partitions import Partitions
from consumer.relay.tasks import Tasks

READ_RETRY_S = (5.0, 15.0, 60.0)


class ReadingBack:
    """Reads parked actions back whenever there is room for them."""

    def __init__(
        self,
        *,
        reader: ParkedReader,
        ledger: Ledger,
        outbox: Outbox,
        partitions: Partitions,
        dispatch: Dispatch,
        clock: Clock,
        tasks: Tasks,
        tick_soon: Callable[[], None],
        log: ThrottledLog,
    ) -> None:
        """Read nothing yet."""
        self._reader = reader
        self._ledger = ledger
        self._outbox = outbox
        self._partitions = partitions
        self._dispatch = dispatch
        self._clock = clock
        self._tasks = tasks
        self._tick_soon = tick_soon
        self._log = log
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read-back")
        self._is_reading = False
        self._failures: dict[Assignment, tuple[int, float]] = {}  # in a row, and until when

    def close(self) -> None:
        """End its thread as soon as it can."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    def look(self, now: float) -> None:
        """Begin to read where there is room (rule 1)."""
        if self._is_reading or not self._ledger.parking.count or self._outbox.journal_is_full:
            return
        self._failures = {each: of for each, of in self._failures.items() if each in self._partitions.ours}
        waiting = {assignment for assignment, (_, until) in self._failures.items() if until > now}
        read = self._ledger.to_read_back(now, self._dispatch.connections, waiting)
        if read is not None:
            self._is_reading = True
            self._tasks.start(self._read(read))

    async def _read(self, read: ToRead) -> None:
        offsets = [offset for those in read.offsets.values() for offset in those]
        loop = asyncio.get_running_loop()
        try:
            records = await loop.run_in_executor(self._reading, self._reader.read, read.assignment, offsets)
        except RestoreError as error:
            if self._ledger.parking.is_current(read):
                self._log.throttled("parked actions cannot be read back yet", why=str(error))
            failures, _ = self._failures.get(read.assignment, (0, 0.0))
            wait_s = READ_RETRY_S[min(failures, len(READ_RETRY_S) - 1)]
            self._failures[read.assignment] = (failures + 1, self._clock() + wait_s)
            asyncio.get_running_loop().call_later(wait_s, self._tick_soon)
        else:
            self._failures.pop(read.assignment, None)
            self._take(read, records, self._clock())
        self._is_reading = False
        self._tick_soon()

    def _take(self, read: ToRead, records: Sequence[ParkedRecord], now: float) -> None:
        if not self._ledger.may_take_back(read):  # rule 2
            return
        assignment = read.assignment
        missing = sum(map(len, read.offsets.values())) - len(records)
        if missing:
            self._log.error(
                "parked actions are gone: their records were removed from the delay topic, or it was recreated",
                topic=assignment.topic,
                partition=assignment.partition,
                actions=missing,
            )
        connection_of = {offset: connection for connection, those in read.offsets.items() for offset in those}
        size: Counter[str] = Counter()
        actions: list[LiveAction] = []
        unreadable: list[UnreadableRecord] = []
        for record in records:
            size[connection_of[record.offset]] += len(record.value)
            action = live_action(record.key, record.value)
            if isinstance(action, Unreadable):
                unreadable.append(UnreadableRecord(record.key, record.value, action))
            else:
                actions.append(action)
        self._ledger.parking.read(read, size, {each.action.connection: each.first_seen for each in actions})
        parked_from, known = self._ledger.parking.lowest(assignment)
        live = [(each.key, each.offset) for each in records]
        self._outbox.add(Unparked(assignment, live, parked_from, known, read.incarnation))
        for each in unreadable:
            self._outbox.dead_letter_unreadable(assignment, each, now)
        known_actions = self._partitions.known(assignment, actions, now)
        self._outbox.apply(self._ledger.take_back(assignment, known_actions, now), now)
        if missing or unreadable:
            self._outbox.parked_are_gone(assignment)

    # -- what the journal reports -------------------------------------------------------------------------------

    def committed(self, fact: Committed) -> None:
        """Learn where the records of parked actions lie."""
        for assignment, incarnation in fact.recreated.items():
            gone = self._ledger.parking.recreated(assignment, incarnation)
            if gone:
                self._log.error(
                    "the delay topic was recreated, and the actions that were parked in it are gone",
                    topic=assignment.topic,
                    partition=assignment.partition,
                    actions=gone,
                )
                self._outbox.parked_are_gone(assignment)
        for put, offset in fact.parked.items():
            if offset is None:  # the broker's answer was lost: written again, it lies where we know
                self._outbox.add(Put(put.assignment, put.key, put.value, parked_for=put.parked_for))
            elif put.parked_for is not None:
                place = place_of_key(put.key) or 0
                self._ledger.parking.saved(put.assignment, put.parked_for, place, offset, len(put.value))
