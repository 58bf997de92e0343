"""Partitions come and go: an assigned one is restored and begun, a revoked one is handed over.

Rules:
 1. A partition begins when its delay partition was read: then what is pending continues. The source reports its
    events when it is also known which facts were sent before (sent_facts.py).
 2. A partition is given away when its requests in flight have ended and the journal has committed its last write, or
    when the source's time for a hand-over is over. Then it is forgotten.
 3. The share of every rate limit follows the partitions that we own.
 4. A partition that cannot be served is set apart, and holds up no other one. Where it cannot be restored, it is tried
    again. Where the source does not hold its next offset, a person decides: nothing more of it is read. The process
    ends only where that is so of every partition of all sources. set_apart.py says which ones they are.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from consumer.core.clock import Clock
from consumer.core.effects import LiveAction
from consumer.core.ledger.ledger import Ledger
from consumer.core.ownership import Assignment
from consumer.core.progress import Reading, Seen, StallReason
from consumer.core.repeats import Repeats
from consumer.errors import OffsetOutOfRangeError
from consumer.kafka.journal.writes import Barrier, Begin, Position, Tombstone
from consumer.kafka.outcomes.sent_facts import FactsLostError, ReadFacts, SentBefore
from consumer.kafka.restore.reader import GIVE_UP_S, GIVE_UP_SOON_S, RestoreError
from consumer.kafka.restore.restored import Restored, Unservable
from consumer.relay.dispatch import Dispatch
from consumer.relay.edges import Journal, Restorer, Source, is_dead
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox, given_up
from consumer.relay.refused import RefusedDeadLetters
from consumer.relay.schemas import SchemaWaits
from consumer.relay.set_apart import PartitionsApart
from consumer.relay.tasks import Tasks
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.snapshot import PartitionFigures
from schemas.dead_letter import Reason

RESTORE_RETRY_S = (1.0, 1.0, 2.0, 5.0, 10.0)
# Of a partition that the journal gave up. Each time that it is given up again, the others wait for seconds.
READOPT_RETRY_S = (1.0, 10.0, 60.0, 300.0)
READOPTED_FOR_GOOD_S = 900.0  # one that lasted so long begins with the first wait again


@dataclass(slots=True)
class HandOver:
    """A hand-over of partitions: what is in flight ends, then the journal commits, then they are given away.

    `busy`: the partitions with something in flight. `barriers`: the writes that the journal has still to settle.
    """

    assignments: Sequence[Assignment]
    settled: threading.Event
    busy: set[Assignment]
    barriers: set[Barrier]


class Partitions:
    """The partitions that are ours: restored, begun, handed over, forgotten."""

    def __init__(
        self,
        counts: Mapping[str, int],
        *,
        source: Source,
        journal: Journal,
        restorer: Restorer,
        ledger: Ledger,
        outbox: Outbox,
        refused: RefusedDeadLetters,
        dispatch: Dispatch,
        repeats: Repeats | None,
        read_facts: ReadFacts | None,
        clock: Clock,
        tasks: Tasks,
        tick_soon: Callable[[], None],
        metrics: Metrics,
        log: ThrottledLog,
        waits: SchemaWaits,
        drained: Collection[str],
    ) -> None:
        """`counts`: how many partitions each source topic has. `drained`: topics from which nothing is read."""
        self._counts = dict(counts)
        self._source = source
        self._journal = journal
        self._restorer = restorer
        self._ledger = ledger
        self._outbox = outbox
        self._refused = refused
        self._dispatch = dispatch
        self._repeats = repeats
        self._read_facts = read_facts
        self._clock = clock
        self._tasks = tasks
        self._tick_soon = tick_soon
        self._metrics = metrics
        self._log = log
        self._waits = waits
        self._drained = drained
        self._restoring = ThreadPoolExecutor(1, thread_name_prefix="restore")
        self._reading_facts = ThreadPoolExecutor(1, thread_name_prefix="facts")
        self._restoring_now: set[Assignment] = set()
        self._given_up: dict[tuple[str, int], tuple[int, float]] = {}  # how often, and when last
        self._apart = PartitionsApart(log)
        self.ours: set[Assignment] = set()
        self.hand_overs: list[HandOver] = []

    @property
    def share(self) -> float:
        """The fraction of the source's partitions that is ours, and so of every rate limit."""
        total = sum(self._counts.values())
        return min(1.0, len(self.ours) / total) if total else 0.0

    def figures(self) -> dict[tuple[str, int], PartitionFigures]:
        """Return what the status page shows of each partition."""
        return {each[:2]: self._figures_of(each) for each in self.ours}

    def seen(self, assignment: Assignment, reading: Reading | None, halted_by: StallReason) -> Seen:
        """Return what the progress watch looks at. `halted_by`: what would explain that nothing is read at all."""
        pending = self._ledger.open_of(assignment)
        if assignment in self._apart:
            return Seen(reading, pending, "set_apart")
        if pending is None:
            return Seen(reading, None, "restoring")
        if (waits := self._waits.reason(assignment)) is not None:
            return Seen(reading, pending, waits)
        return Seen(reading, pending, "foreign_transaction" if reading is not None and reading.held else halted_by)

    def close(self) -> None:
        """End the restore's thread as soon as it can."""
        self._restoring.shutdown(wait=False, cancel_futures=True)
        self._reading_facts.shutdown(wait=False, cancel_futures=True)

    def _figures_of(self, assignment: Assignment) -> PartitionFigures:
        pending, drained = self._ledger.open_of(assignment), assignment.topic in self._drained
        if (apart := self._apart.of(assignment)) is not None and self._stays(assignment):
            return PartitionFigures("set_apart", pending or 0, *apart, drained=drained)
        if pending is None:
            return PartitionFigures("restoring", drained=drained)
        return PartitionFigures("open" if self._stays(assignment) else "leaving", pending, drained=drained)

    def _stays(self, assignment: Assignment) -> bool:
        """Whether it is ours and not in a hand-over: if it began after its hand-over, it would never be forgotten."""
        leaving = any(assignment in each.assignments for each in self.hand_overs)
        return assignment in self.ours and self._source.owns(assignment) and not leaving

    # -- adopt --------------------------------------------------------------------------------------------------

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Restore the assigned partitions, then begin them (rule 1)."""
        self._metrics.rebalanced("assigned")
        again = {each[:2] for each in assignments}
        for former in [each for each in self.ours if each[:2] in again]:  # which were given up
            self.ours.discard(former)
        self.ours.update(assignments)
        self._set_shares()
        self._tasks.start(self._adopt(list(assignments)))

    async def _adopt(self, assignments: list[Assignment]) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        asked = set(assignments)
        self._restoring_now |= asked
        try:
            while assignments := [each for each in assignments if self._stays(each)]:
                alone = len(self._restoring_now) == 1 and assignments[0] not in self._apart
                patience_s = GIVE_UP_S if alone else GIVE_UP_SOON_S
                restore = partial(
                    self._restorer.restore, assignments, patience_s, self._ledger.parking.room_for_restore
                )
                try:
                    restored = await loop.run_in_executor(self._restoring, restore)
                except RestoreError as error:
                    self._log.throttled("restore continues", why=str(error))
                    if len(assignments) > 1:  # rule 4
                        for each in assignments:
                            self._tasks.start(self._adopt([each]))
                        return
                    if failures and assignments[0] in self.ours:
                        self._apart.add(assignments, "unreadable", str(error))
                    await asyncio.sleep(RESTORE_RETRY_S[min(failures, len(RESTORE_RETRY_S) - 1)])
                    failures += 1
                    continue
                for result in restored:
                    self._restored(result)
                self._tick_soon()
                done = {each.assignment for each in restored}
                self._restoring_now -= done
                assignments = [each for each in assignments if each not in done]
        finally:
            self._restoring_now -= asked

    def _restored(self, restored: Restored | Unservable) -> None:
        if isinstance(restored, Unservable):
            if self.overrun(restored.assignment, restored.error):
                raise restored.error
            return
        self._begin(restored)

    def overrun(self, assignment: Assignment, error: OffsetOutOfRangeError) -> bool:
        """Set a partition apart whose next offset the source does not hold. True: so it is of all (rule 4)."""
        if not self._stays(assignment):
            return False
        self._apart.add([assignment], "overrun", str(error))
        return self._apart.count("overrun") >= sum(self._counts.values())

    def refused(self, assignments: Collection[Assignment], why: str) -> None:
        """Name those set apart that the broker refuses, though the journal goes on trying."""
        self._apart.add([each for each in assignments if self._stays(each)], "unwritable", why)

    def committed(self, assignments: Iterable[Assignment]) -> None:
        """Learn that transactions of these were committed."""
        self._apart.committed(assignments)

    def given_up(self, assignment: Assignment, why: str) -> None:
        """Set a partition apart that the journal gave up, and restore it again after a growing wait."""
        if not self._stays(assignment):
            return
        self._apart.add([assignment], "unwritable", why)
        self._waits.drop([assignment])
        self._ledger.drop(assignment)
        if self._repeats is not None:
            self._repeats.drop(assignment)
        self._refused.forget(assignment)
        self._outbox.forget(assignment)
        self._tasks.start(self._readopt(assignment))

    async def _readopt(self, assignment: Assignment) -> None:
        times, last_at = self._given_up.get(assignment[:2], (0, -math.inf))
        now = self._clock()
        times = 0 if now > last_at + READOPTED_FOR_GOOD_S else times
        self._given_up[assignment[:2]] = times + 1, now
        await asyncio.sleep(READOPT_RETRY_S[min(times, len(READOPT_RETRY_S) - 1)])
        self._source.readopt(assignment)

    def _begin(self, restored: Restored) -> None:
        assignment, now = restored.assignment, self._clock()
        if not self._stays(assignment):
            return
        self._outbox.begun(assignment, restored.next_offset)
        parked_from = min((min(each.offsets) for each in restored.parked.values()), default=None)
        self._outbox.add(
            Begin(
                assignment, restored.live, restored.end, restored.next_offset, parked_from, restored.outcomes_topic_id
            )
        )
        for key in (*restored.again, *restored.duplicates):
            # A delayed commit made the record of an event visible that is still to be read, or an operator moved the
            # offset back. The source will bring it again, perhaps when this action is done and forgotten.
            self._outbox.add(Tombstone(assignment, key))
        for record in restored.unreadable:
            self._outbox.dead_letter_unreadable(assignment, record, now)
        self._refused.restored(restored.refused, now)
        # What was set apart is served again when something of it is committed.
        if not restored.position_known or restored.outcomes_lost is not None or assignment in self._apart:
            self._outbox.add(Position(assignment, restored.next_offset))
        if self._repeats is not None:
            self._repeats.assign(assignment, (), [each.facts for each in restored.parked.values()])
        known = self.known(assignment, restored.actions, now)
        effects = self._ledger.assign(assignment, known, now, restored.parked)
        if self._repeats is not None:
            for fact in self._ledger.facts(assignment):
                self._repeats.opened(assignment, fact)
        self._outbox.apply(effects, now)
        if self._read_facts is None:
            self._ledger.steps_sent(assignment, ())
            self._source.begin(assignment, restored.next_offset)
        else:
            self._tasks.start(self._begin_with_facts(self._read_facts, restored))
        self._metrics.restored(restored.records_read, restored.seconds)
        self._log.info(
            "partition restored",
            topic=assignment.topic,
            partition=assignment.partition,
            next_offset=restored.next_offset,
            pending=len(restored.actions),
            parked=sum(len(each.offsets) for each in restored.parked.values()),
            seconds=round(restored.seconds, 3),
        )

    async def _begin_with_facts(self, read_facts: ReadFacts, restored: Restored) -> None:
        """Let the source report events when it is known what was sent before.

        What is pending does not wait for it, except for a step that a later one may have left behind.
        """
        assignment, lost = restored.assignment, restored.outcomes_lost
        try:
            sent = await asyncio.get_running_loop().run_in_executor(self._reading_facts, read_facts, assignment)
        except FactsLostError as error:
            sent, lost = SentBefore(), str(error)
        if lost is not None:
            self._metrics.facts_lost()
            self._log.error("nobody knows which facts were sent before: their repeats may be sent", why=lost)
        if self._stays(assignment):
            if self._repeats is not None:
                self._repeats.restore(assignment, sent.facts)
            self._ledger.steps_sent(assignment, sent.steps)
            self._source.begin(assignment, restored.next_offset)
            self._tick_soon()

    def known(self, assignment: Assignment, restored: Iterable[LiveAction], now: float) -> list[LiveAction]:
        """Return the actions that continue; the others end here."""
        known: list[LiveAction] = []
        for live in restored:
            if live.action.connection in self._dispatch.connections:
                known.append(live)
            else:
                gone = "its connection is no longer configured"
                effect = given_up(assignment, live, Reason.UNKNOWN_CONNECTION, gone, in_doubt=live.sending)
                self._outbox.apply([effect], now)
        return known

    # -- hand-over ----------------------------------------------------------------------------------------------

    def revoked(self, assignments: Sequence[Assignment], settled: threading.Event) -> None:
        """Start nothing more for these. They are given away when what is in flight has ended (rule 2)."""
        self._metrics.rebalanced("revoked")
        self._waits.drop(assignments)
        for assignment in assignments:
            self._outbox.apply(self._ledger.stop(assignment), self._clock())
        self.hand_overs.append(HandOver(assignments, settled, set(assignments), set()))
        self._tick_soon()

    def settle_hand_overs(self) -> None:
        """Advance every hand-over as far as possible."""
        for hand_over in list(self.hand_overs):
            for assignment in [a for a in hand_over.busy if not self._ledger.in_flight(a)]:
                hand_over.busy.discard(assignment)
                barrier = Barrier(assignment)
                hand_over.barriers.add(barrier)
                self._outbox.add(barrier)
            # After `hand_over_s` the source gives them away although not all is safe: the journal drops its writes.
            overran = is_dead(self._journal) or not any(map(self._source.owns, hand_over.assignments))
            if overran or not (hand_over.busy or hand_over.barriers):
                self.hand_overs.remove(hand_over)
                self._forget(hand_over.assignments)
                hand_over.settled.set()

    def reached(self, barrier: Barrier) -> None:
        """Take in that all before this barrier is safe, or nobody's any more."""
        for hand_over in self.hand_overs:
            hand_over.barriers.discard(barrier)

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Drop these at once."""
        self._metrics.rebalanced("lost")
        self._log.warning("partitions lost: another instance has them already", partitions=len(assignments))
        self._forget(assignments)

    def _forget(self, assignments: Iterable[Assignment]) -> None:
        self._waits.drop(assignments)
        for assignment in assignments:
            self._ledger.drop(assignment)
            if self._repeats is not None:
                self._repeats.drop(assignment)
            self._refused.forget(assignment)
            self._outbox.forget(assignment)
            self.ours.discard(assignment)
            if assignment[:2] not in {each[:2] for each in self.ours}:
                self._apart.forget(assignment)
        self._set_shares()

    # -- shares -------------------------------------------------------------------------------------------------

    def counted(self, counts: Mapping[str, int]) -> None:
        """Learn how many partitions each source topic has by now."""
        if counts != self._counts:
            self._counts.update(counts)
            self._set_shares()
            self._tick_soon()

    def _set_shares(self) -> None:
        self._dispatch.set_share(self.share, self._clock())
