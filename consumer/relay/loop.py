"""The relay at work: how it starts and stops, its ticks, and what it does with each fact of the edges.

    source ──events──> outbox ──> LEDGER ──effects──> outbox ──writes──> journal ──committed──> LEDGER
                                   │  ▲
                         dispatch  ▼  │ answered
                                   Engage

Everything here runs on the event loop's thread. The edges' threads only put facts into the inbox.
A *tick* lets each connection do what its pace allows and submits all writes that came up to the journal at once.
What belongs to one idea is in a file of its own: dispatch.py (requests to Engage), outbox.py (writes to the journal),
partitions.py (restore and hand-over), journal_facts.py and control_facts.py (what those edges report), watch.py (what
the check of every second looks at).

Rules:
 1. Facts are taken in the order in which they were reported. Each leads to a tick.
 2. Whatever ends the relay, requests in flight are finished first: an action that is cut off would be in doubt.
 3. A check once a second finds what nothing reports: a thread that ended, a call that never returns, partitions that
    stand still.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from consumer.admin.server import Heartbeats
from consumer.core.clock import Clock
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.parking import Memory
from consumer.core.pauses import NO_PAUSES, UNKNOWN_PAUSES
from consumer.core.progress import STALL_S
from consumer.core.repeats import Repeats
from consumer.core.sequences import NO_SEQUENCES, Sequences
from consumer.events.formats.formats import JSON, Formats
from consumer.events.routing.router import Router
from consumer.kafka.facts import (
    Assigned,
    ClientError,
    Consumed,
    ControlNotRead,
    ControlRead,
    Fact,
    Failed,
    Lost,
    Overrun,
    PartitionsCounted,
    Read,
    Revoked,
    Statistics,
)
from consumer.kafka.outcomes.sent_facts import ReadFacts
from consumer.kafka.source.membership import MIN_HAND_OVER_S
from consumer.relay.connections import Connection
from consumer.relay.control_facts import ControlFacts
from consumer.relay.dispatch import Dispatch
from consumer.relay.edges import AskedFor, Control, Journal, ParkedReader, Restorer, Source, is_dead, is_stuck
from consumer.relay.inbox import Inbox
from consumer.relay.journal_facts import JournalFacts
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Limits, Outbox
from consumer.relay.partitions import Partitions
from consumer.relay.reading_back import ReadingBack
from consumer.relay.refused import RefusedDeadLetters
from consumer.relay.requests import Requests
from consumer.relay.schemas import Schemas, SchemaWaits
from consumer.relay.tasks import Tasks
from consumer.relay.watch import Watch
from consumer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

CHECK_INTERVAL_S = 1.0
# A stop takes a hand-over of everything (36 s with the default time-outs: `hand_over_of` in run/time_outs.py), and 4 s
# for what the journal commits after it: 40 s, and never less than 25 s. The next owner reads again what is not
# committed by then. The pod's grace period must be longer than Kubernetes' default of 30 s (the chart sets it).
STOP_S = 25.0
JOURNAL_AFTER_HAND_OVER_S = 4.0
# uvloop's timers are rounded to a millisecond and count from its beginning. A tick that came so much too early would
# find nothing and set its timer again, until that time is over.
TIMER_S = 0.0015
MIN_STOP_S = 2.0

_LOG = structlog.stdlib.get_logger(__name__)


class Relay:
    """One instance at work. `run` until `stop`, or until something ends it."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        source: Source,
        journal: Journal,
        restorer: Restorer,
        parked: ParkedReader,
        connections: Iterable[Connection],
        router: Router,
        policy: Policy,
        limits: Limits,
        dead_letter_topics: Collection[str],
        partition_counts: Mapping[str, int],
        lease_s: float,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: Metrics,
        heartbeats: Heartbeats,
        hand_over_s: float = MIN_HAND_OVER_S,
        check_interval_s: float = CHECK_INTERVAL_S,
        stall_s: float = STALL_S,
        repeats: Repeats | None = None,
        sequences: Sequences = NO_SEQUENCES,
        read_facts: ReadFacts | None = None,
        tracing: Tracing | None = None,
        formats: Formats = JSON,
        schemas: Schemas | None = None,
        unknown_schema_grace_s: float = 0.0,
        drained: Collection[str] = (),
        control: Control | None = None,
        asked_for: AskedFor | None = None,
        incarnations: Mapping[str, int] | None = None,
        log: structlog.stdlib.BoundLogger = _LOG,
    ) -> None:
        """Be ready to `run`.

        `inbox`: where source and journal report to. `partition_counts`: by source topic. `lease_s`: see dispatch.py.
        `dead_letter_topics`: ours, see outbox.py. `jitter` draws from [0, 1). `hand_over_s`: how
        long the source waits for a hand-over at most. `stall_s`: see progress.py. `repeats`: None: each event is sent;
        `sequences`: see core/sequences.py. `read_facts` reads back what was sent before, None: nothing is known.
        `schemas`, `unknown_schema_grace_s`: see schemas.py. `drained`: the source topics that are no longer configured
        (removed.py). `control`: reads which pauses and requests there are; until it has, nothing is asked of Engage.
        None: there are none. `asked_for` reads what requests are about; None: they stay open. `incarnations`: of the
        source topics.
        """
        self._inbox = inbox
        self._source = source
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._heartbeats = heartbeats
        self._stop_s = max(STOP_S, hand_over_s + JOURNAL_AFTER_HAND_OVER_S)
        self._check_interval_s = check_interval_s
        self._log = ThrottledLog(log, clock)
        self._tasks = Tasks(self.fail)
        connections = list(connections)
        self._control = control
        pauses = NO_PAUSES if control is None else UNKNOWN_PAUSES
        memory = Memory(limits.pending, len(connections), limits.parked)
        self._ledger = Ledger(policy, jitter, memory, pauses, sequences)
        self._refused = RefusedDeadLetters()
        self._outbox = Outbox(
            ledger=self._ledger,
            router=router,
            source=source,
            journal=journal,
            limits=limits,
            refused=self._refused,
            dead_letter_topics=dead_letter_topics,
            repeats=repeats,
            metrics=metrics,
            tracing=tracing,
            formats=formats,
        )
        self._waits = SchemaWaits(
            schemas,
            source=source,
            take=self._outbox.take,
            grace_s=unknown_schema_grace_s,
            clock=clock,
            tasks=self._tasks,
            tick_soon=self._tick_soon,
            log=self._log,
        )
        self._dispatch = Dispatch(
            connections,
            ledger=self._ledger,
            outbox=self._outbox,
            source=source,
            lease_s=lease_s,
            clock=clock,
            tasks=self._tasks,
            tick_soon=self._tick_soon,
            metrics=metrics,
            log=self._log,
            tracing=tracing,
        )
        self._partitions = Partitions(
            partition_counts,
            source=source,
            journal=journal,
            restorer=restorer,
            ledger=self._ledger,
            outbox=self._outbox,
            refused=self._refused,
            dispatch=self._dispatch,
            repeats=repeats,
            read_facts=read_facts,
            clock=clock,
            tasks=self._tasks,
            tick_soon=self._tick_soon,
            metrics=metrics,
            log=self._log,
            waits=self._waits,
            drained=drained,
        )
        self._reading_back = ReadingBack(
            reader=parked,
            ledger=self._ledger,
            outbox=self._outbox,
            partitions=self._partitions,
            dispatch=self._dispatch,
            clock=clock,
            tasks=self._tasks,
            tick_soon=self._tick_soon,
            log=self._log,
        )
        self._requests: Requests | None = None
        if control is not None and asked_for is not None:
            self._requests = Requests(
                control=control,
                records=asked_for,
                incarnations=incarnations or {},
                router=router,
                formats=formats,
                schemas=schemas,
                dead_letter_topics=dead_letter_topics,
                ledger=self._ledger,
                repeats=repeats,
                outbox=self._outbox,
                refused_dead_letters=self._refused,
                partitions=self._partitions,
                clock=clock,
                tasks=self._tasks,
                tick_soon=self._tick_soon,
                log=self._log,
            )
        self._control_facts = ControlFacts(
            is_configured=control is not None,
            ledger=self._ledger,
            outbox=self._outbox,
            requests=self._requests,
            clock=clock,
            tick_soon=self._tick_soon,
            log=self._log,
        )
        self._journal_facts = JournalFacts(
            source=source,
            ledger=self._ledger,
            outbox=self._outbox,
            refused=self._refused,
            partitions=self._partitions,
            reading_back=self._reading_back,
            requests=self._requests,
            clock=clock,
            tick_soon=self._tick_soon,
            metrics=metrics,
            log=self._log,
        )
        self._watch = Watch(
            source=source,
            journal=journal,
            ledger=self._ledger,
            outbox=self._outbox,
            refused=self._refused,
            partitions=self._partitions,
            dispatch=self._dispatch,
            requests=self._requests,
            repeats=repeats,
            control_facts=self._control_facts,
            journal_facts=self._journal_facts,
            max_pending=limits.pending,
            stall_s=stall_s,
            log=self._log,
        )
        self._stopping = False
        self._tick_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._failure: BaseException | None = None
        self.waiting: str | None = None  # what its partitions wait for before anything can be decided
        self._ended: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop

    @property
    def joined(self) -> bool:
        """Whether the group was joined once."""
        return self._source.joined

    @property
    def failed_by(self) -> str | None:
        """The name of what ends it, when it is not asked to end."""
        return None if self._failure is None else type(self._failure).__name__

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then hand everything over. If something else ends it, raises that error."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._uncaught)
        self._ended = self._loop.create_future()
        self._inbox.open(self._take)
        self._journal.start()
        if self._control is not None:
            self._control.start()
        self._source.start()
        self._check()
        stopped = self._loop.create_task(stop.wait())
        ends: set[asyncio.Future[Any]] = {stopped, self._ended}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down()
            if self._ended.done():
                self._ended.result()
        finally:
            stopped.cancel()
            self._tasks.cancel()
            await self._dispatch.aclose()
            self._partitions.close()
            self._reading_back.close()
            if self._requests is not None:
                self._requests.close()
            self._waits.close()

    async def _wind_down(self) -> None:
        """Finish what is in flight and hand everything over (rule 2)."""
        self._log.info("stopping: handing partitions over")
        self._stopping = True
        until = self._clock() + self._stop_s
        self._source.stop()
        await self._loop.run_in_executor(None, self._source.join, self._stop_s)
        self._heartbeats.ended("consumer")
        await self._dispatch.wait_for_sends(
            until - self._clock()
        )  # only where the source could not hand its partitions over any more
        left_s = 0.0 if is_dead(self._journal) else until - self._clock()
        await self._loop.run_in_executor(None, self._journal.stop, max(MIN_STOP_S, left_s))
        if self._control is not None:
            await self._loop.run_in_executor(None, self._control.stop)

    def _uncaught(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End when a callback fails: without its next step the relay would stand still in silence."""
        self.fail(context.get("exception") or RuntimeError(str(context.get("message"))))

    def fail(self, error: BaseException) -> None:
        """End: `run` raises this."""
        if not self._ended.done():
            self._failure = error
            self._ended.set_exception(error)

    # -- ticks --------------------------------------------------------------------------------------------------

    def _tick_soon(self) -> None:
        """Schedule a tick, to run after the facts and answers that are waiting now."""
        if self._tick_handle is None:
            self._tick_handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_handle = None
        now = self._clock()
        self._outbox.apply(self._ledger.wake(now), now)
        next_due = self._ledger.next_wake()
        wake_at = self._dispatch.tick(now)
        if next_due is not None and next_due < wake_at:
            wake_at = next_due
        if self._refused.count:
            for write in self._refused.take_due(now):
                self._outbox.add(write)
            wake_at = min(wake_at, self._refused.next_retry)
        self._partitions.settle_hand_overs()
        self._reading_back.look(now)
        if self._requests is not None:
            self._requests.look(now)
        self._outbox.submit()
        self._outbox.apply_backpressure()
        self._wake_at(wake_at)

    def _wake_at(self, wake_at: float) -> None:
        """Tick then, if nothing happens before. Most ticks leave the next time as it was, and its timer as well."""
        if wake_at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, wake_at
        if wake_at < math.inf:
            left_s = wake_at - self._clock()
            self._timer = self._loop.call_later(0.0 if left_s <= 0 else left_s + TIMER_S, self._timer_is_up)

    def _timer_is_up(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._tick()

    def _check(self) -> None:
        """Look for what nothing reports (rule 3), and publish the figures for the metrics."""
        self._heartbeats.beat("event_loop")
        if self._journal.failed is not None:
            self.fail(self._journal.failed)
        if not self._source.alive and not self._stopping:
            self.fail(RuntimeError("the source's thread has ended"))
        if is_stuck(self._journal):
            self.fail(RuntimeError("a transaction call does not return (librdkafka issues 5456, 5511)"))
        self._dispatch.look_at_all()
        self._outbox.settle_ends()
        now = self._clock()
        self._watch.look(now)
        self.waiting = self._source.joining or self._waits.why or self._control_facts.wait
        self._metrics.publish(self._watch.snapshot(now))
        self._tick_soon()
        self._loop.call_later(self._check_interval_s, self._check)

    # -- facts --------------------------------------------------------------------------------------------------

    def _take(self, fact: Fact) -> None:
        match fact:
            case Assigned(assignments):
                self._partitions.assigned(assignments)
            case Revoked(assignments, settled):
                self._partitions.revoked(assignments, settled)
            case Lost(assignments):
                self._partitions.lost(assignments)
            case PartitionsCounted(counts):
                self._partitions.counted(counts)
            case Consumed(batch):
                self._consumed(batch)
            case Statistics(figures):
                self._metrics.librdkafka_statistics("source", figures)
            case ClientError(why):
                self._log.throttled("Kafka", why=why)
            case Overrun(assignment, error):
                if self._partitions.overrun(assignment, error):
                    self.fail(error)
            case Failed(error):
                self.fail(error)
            case ControlRead() | ControlNotRead():
                self._control_facts.take(fact)
            case _:
                self._journal_facts.take(fact)

    def _consumed(self, batch: Iterable[Read]) -> None:
        now = self._clock()
        for read in batch:
            self._waits.take(read, now)
        self._outbox.apply_backpressure()  # first: with room, the source would resume
        self._source.batch_done()
        self._tick_soon()
