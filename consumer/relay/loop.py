"""The relay: hands what happened to the ledger and carries out what it answers. The only file that knows every edge.

    source ──events──> decode, route ──> LEDGER ──effects──> journal ──committed──> LEDGER
                                          │  ▲
                                    take  ▼  │ answered
                                          Engage

Everything here runs on the event loop's thread; the edges' threads only ever call in through `from_thread`.
A *turn* gives each connection what its pace allows and hands all writes that came up to the journal at once.

Rules:
 1. An event's position is handed in together with its record, so one transaction settles both or neither.
 2. An action leaves only while its partition is ours, and only for a while (`lease_s`) after its intent's commit proved
    so: a process that was frozen meanwhile (a zombie) sends nothing. The engine asks right before the first byte.
 3. Nothing piles up without bound: the source is held while too much is pending or waits for the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from consumer.admin.server import Heartbeats
from consumer.core.clock import Clock
from consumer.core.effects import ActionId, Close, Effect, GiveUp, Poll, RestoredAction, Save, Send
from consumer.core.ledger import Ledger, Policy
from consumer.core.outcomes import (
    Accepted,
    ActionOutcome,
    DocumentOutcome,
    InDoubt,
    PollOutcome,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
    Withdrawn,
)
from consumer.core.ownership import Assignment
from consumer.core.pacing import Pace
from consumer.engage.client import EngageClient
from consumer.events.decoding import Undecodable, decode
from consumer.events.routing import Misrouted, Routed, Router
from consumer.kafka import clients
from consumer.kafka.journal import STUCK_S, Journal
from consumer.kafka.membership import MAX_RECORDS, MIN_HAND_OVER_S, Batch
from consumer.kafka.records import (
    SourceEvent,
    Unreadable,
    action_key,
    dead_letter_of_action,
    dead_letter_of_event,
    dead_letter_of_unreadable,
    new_action,
    offset_of_key,
    pending_value,
    read_payload,
    request_of,
    restored_action,
    without_value,
)
from consumer.kafka.restore import KafkaReader, Restored, RestoreError, Restorer
from consumer.kafka.source import Source
from consumer.kafka.topics import RelayTopics
from consumer.kafka.transactions import Adoption, Write
from consumer.telemetry.metrics import ConnectionFigures, DeadLettered, Halt, Metrics, PartitionFigures, Snapshot
from schemas.dead_letter import Reason
from schemas.pending_action import FromDocument, FromJob, FromOrder

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

TICK_S = 1.0
# Writes that wait for a transaction before the source is held: ten of the largest, a second's worth at full speed.
MAX_BACKLOG = 20_000
# `limits.pending` counts actions of up to so many bytes (packed; an ordinary one has 300): large ones count for more.
BYTES_OF_PENDING = 4096
INTENT_EARLY_S = 0.5  # before its turn: many transactions' time, and little of a lease
RESTORE_RETRY_S = 1.0
LOG_INTERVAL_S = 10.0
LAST_DEAD_LETTERS = 20  # that the status page shows
# Kubernetes gives 30 s before it kills: most of it for what is in flight (twice the time-out of 10 s), the rest for the
# journal. What is not committed by then is read again by the next owner. Where hand-overs take longer (`hand_over_s`),
# a stop does, too, and the pod's grace period must (the chart sees to it).
STOP_S = 25.0
JOURNAL_AFTER_HAND_OVER_S = 4.0
MIN_STOP_S = 2.0
# A dead member's partitions are given away after session.timeout.ms (45 s) less one heartbeat (3 s). An intent's
# commit proves that we were a member; a fifth of that leaves room for a user's shorter session (LEASE_OF_SESSION).
MAX_LEASE_S = 8.0
LEASE_OF_SESSION = 0.4

_LOG = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Connection:
    """One Engage tenant at run time: its client, its pace, and how much of it is in use."""

    name: str
    client: EngageClient
    pace: Pace
    api_key: Callable[[], str]
    slots: int
    ahead: int
    in_flight: int = 0
    follow_ups: deque[asyncio.Future[bool]] = field(default_factory=deque)  # the turns that calls under way wait for
    waiting_since: float | None = None
    refused_key: str | None = field(default=None, repr=False)
    halt: Halt | None = None


@dataclass(frozen=True, slots=True)
class _Intent:
    """The ticket of an intent: which one of the action's it is."""

    action_id: ActionId
    sends: int


@dataclass(frozen=True, slots=True)
class _DeadLetterTicket:
    """The ticket of a dead letter: why, and its event's offset."""

    reason: Reason
    offset: int | None


@dataclass(slots=True)
class _HandOver:
    """Partitions that are being given away: first what is in flight ends, then the journal, then they are gone."""

    assignments: list[Assignment]
    settled: threading.Event
    unmarked: set[Assignment]
    unsafe: set[Assignment]


@dataclass(frozen=True, slots=True)
class _Mark:
    """The ticket that comes back when all before it in the journal's queue is safe."""

    hand_over: _HandOver
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Adopted:
    """A restored partition with its records read. `live`: key and delay offset of each."""

    restored: Restored
    live: list[tuple[bytes, int]]
    actions: list[RestoredAction]
    unreadable: list[tuple[bytes, bytes, Unreadable]]


def read_live(restored: Restored) -> Adopted:
    """Read what a partition holds; uses `restored.live` up, as two copies of 100,000 records are 100 MB more."""
    adopted = Adopted(restored, [], [], [])
    while restored.live:
        record = restored.live.pop()
        adopted.live.append((record.key, record.offset))
        read = restored_action(record.key, record.value)
        if isinstance(read, Unreadable):
            adopted.unreadable.append((record.key, record.value, read))
        else:
            adopted.actions.append(read)
    return adopted


def slots_of(requests_per_second: float) -> int:
    """How many requests may be in flight: enough for two seconds of the budget, so that a slow Engage is no brake."""
    return min(max(math.ceil(2 * requests_per_second), 8), 256)


def ahead_of(requests_per_second: float) -> int:
    """How many intents may wait to be sent: 0.2 s of the budget, several transactions' time (ledger.py, rule 2)."""
    return min(max(math.ceil(requests_per_second / 5), 4), 512)


def lease_s(properties: clients.Properties) -> float:
    """For how long an intent's commit entitles to its sending. See MAX_LEASE_S."""
    session_s = float(properties.get("session.timeout.ms", 45_000)) / 1000
    return min(MAX_LEASE_S, session_s * LEASE_OF_SESSION)


class Relay:
    """One instance at work. `run` until `stop`, or until something ends it."""

    def __init__(
        self,
        *,
        properties: clients.Properties,
        topics: Mapping[str, RelayTopics],
        partition_counts: Mapping[str, int],
        transactional_id: str,
        connections: Iterable[Connection],
        router: Router,
        policy: Policy,
        max_pending: int,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: Metrics,
        heartbeats: Heartbeats,
        hand_over_s: float = MIN_HAND_OVER_S,
        tracing: Tracing | None = None,
    ) -> None:
        """`topics` and `partition_counts` by source topic; `jitter` draws from [0, 1)."""
        self._clock = clock
        self._metrics = metrics
        self._heartbeats = heartbeats
        self._router = router
        self._tracing = tracing
        self._connections = {each.name: each for each in connections}
        self._max_pending = max_pending
        self._lease_s = lease_s(properties)
        self._stop_s = max(STOP_S, hand_over_s + JOURNAL_AFTER_HAND_OVER_S)
        self._ledger = Ledger(policy, jitter)
        self._source = Source(
            properties,
            topics,
            _SourceListener(self, metrics),
            clock=clock,
            hand_over_s=hand_over_s,
            beat=lambda: heartbeats.beat("consumer"),
        )
        self._journal = Journal(
            properties=properties,
            transactional_id=transactional_id,
            topics=topics,
            ownership=lambda: self._source.ownership,
            clock=clock,
            listener=_JournalListener(self),
            replace_too_large=self._replace_too_large,
        )
        self._restorer = Restorer(
            KafkaReader(properties), topics=topics, say=_LOG.warning, wanted=self._is_ours, clock=clock
        )
        self._restoring = ThreadPoolExecutor(1, thread_name_prefix="restore")
        self._partition_counts = dict(partition_counts)
        self._ours: set[Assignment] = set()
        self._writes: list[Write | Adoption] = []
        self._hand_overs: list[_HandOver] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sends: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._tick_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._said: dict[str, float] = {}
        self._dead_letters: deque[DeadLettered] = deque(maxlen=LAST_DEAD_LETTERS)
        self._failure: BaseException | None = None
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

    def _is_ours(self, assignment: Assignment) -> bool:
        return self._source.ownership.covers(assignment)

    def _stays(self, assignment: Assignment) -> bool:
        """Whether it is ours and not being given away: what began after its hand-over would never end."""
        leaving = any(assignment in each.assignments for each in self._hand_overs)
        return assignment in self._ours and self._is_ours(assignment) and not leaving

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then hand everything over. Raises what ended it otherwise."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._uncaught)
        self._ended = self._loop.create_future()
        self._journal.start()
        self._source.start()
        self._every_second()
        stopped = self._loop.create_task(stop.wait())
        ends: set[asyncio.Future[Any]] = {stopped, self._ended}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down()
            if self._ended.done():
                self._ended.result()
        finally:
            stopped.cancel()
            for task in self._tasks:
                task.cancel()
            for connection in self._connections.values():
                await connection.client.aclose()
            self._restoring.shutdown(wait=False, cancel_futures=True)

    async def _wind_down(self) -> None:
        """Finish what is in flight and hand everything over, whatever the end comes from: cut off, it is in doubt."""
        _LOG.info("stopping: handing partitions over")
        self._stopping = True
        until = self._clock() + self._stop_s
        self._source.stop()
        await self._loop.run_in_executor(None, self._source.join, self._stop_s)
        self._heartbeats.ended("consumer")
        if self._sends:  # only where the source could not hand over any more
            await asyncio.wait(self._sends, timeout=max(0.0, until - self._clock()))
        left_s = 0.0 if self._journal_is_dead() else until - self._clock()
        await self._loop.run_in_executor(None, self._journal.stop, max(MIN_STOP_S, left_s))

    def _journal_is_dead(self) -> bool:
        """Whether nothing that it holds will ever be answered: nobody waits for it then."""
        return self._journal.failed is not None or self._journal.stuck_for() > STUCK_S

    def _uncaught(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End, where a callback fails: without its step the relay would stand still in silence."""
        self.fail(context.get("exception") or RuntimeError(str(context.get("message"))))

    def fail(self, error: BaseException) -> None:
        """End: `run` raises this."""
        if not self._ended.done():
            self._failure = error
            self._ended.set_exception(error)

    def from_thread(self, method: Callable[..., None], *arguments: object) -> None:
        """Have a method called on the event loop's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to hear it
            self._loop.call_soon_threadsafe(method, *arguments)

    # -- turns --------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        """Have a turn when everything that is at hand by now has been taken in."""
        if self._tick_handle is None:
            self._tick_handle = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._tick_handle = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        self._ledger.wake(now)
        wake_at = self._ledger.next_wake()
        wake_at = math.inf if wake_at is None else wake_at
        for connection in self._connections.values():
            wake_at = min(wake_at, self._save_intents(connection, now), self._give_requests(connection, now))
        self._settle_hand_overs()
        if self._writes:
            self._journal.submit(self._writes)
            self._writes = []
        self._apply_backpressure()
        if wake_at < math.inf:
            self._timer = self._loop.call_later(max(0.0, wake_at - self._clock()), self._turn)

    def _save_intents(self, connection: Connection, now: float) -> float:
        """Save intents while the pace will soon let them go: one that waited out a long rest would be in doubt in vain.

        Returns when to look again.
        """
        if not self._ledger.wants_intents(connection.name):
            return math.inf
        soon = connection.pace.next_at(now) - INTENT_EARLY_S
        if soon > now:
            return soon
        if connection.in_flight < connection.slots:
            # What waits longer for its turn than its lease lasts would be withdrawn, again and again.
            in_time = max(1, int(connection.pace.rate(now) * self._lease_s / 2))
            self._apply(self._ledger.save_intents(connection.name, min(connection.ahead, in_time)), now)
        return math.inf

    def _give_requests(self, connection: Connection, now: float) -> float:
        """Start what the connection's pace and slots allow; returns when its pace allows more."""
        if (at := self._grant_follow_ups(connection, now)) > now:
            return at
        while connection.in_flight < connection.slots and self._ledger.has_request(connection.name):
            at = connection.pace.next_at(now)
            if at > now:
                if connection.waiting_since is None:
                    connection.waiting_since = now
                return at
            request = self._ledger.take(connection.name)
            if request is None:
                break
            connection.pace.sent(now)
            waited = 0.0 if connection.waiting_since is None else now - connection.waiting_since
            self._metrics.limiter_waited(connection.name, waited)
            connection.waiting_since = None
            connection.in_flight += 1
            if isinstance(request, Send):
                self._sends.add(self._start_task(self._send(connection, request)))
            else:
                self._start_task(self._poll(connection, request))
        return math.inf

    def _grant_follow_ups(self, connection: Connection, now: float) -> float:
        """Give calls under way the turns of their next requests, before all others; returns when the next one is."""
        while connection.follow_ups:
            at = connection.pace.next_of_a_call_at(now)
            if now < at < math.inf and not connection.pace.cooling_down(now):
                return at
            permit = connection.follow_ups.popleft()
            if not permit.done():
                if at <= now:
                    connection.pace.sent(now)
                permit.set_result(at <= now)
        return now

    async def _permit_follow_up(self, connection: Connection) -> bool:
        """Wait until a call may make its next request (engage.Turn); it may not while the connection rests."""
        permit: asyncio.Future[bool] = self._loop.create_future()
        connection.follow_ups.append(permit)
        self._soon()
        return await permit

    def _start_task(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._sends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _apply_backpressure(self) -> None:
        """Rule 3, with slack between holding and going on: a batch, as what is pending may stay for hours."""
        slack = min(0.1, MAX_RECORDS / self._max_pending) if self._paused else 0.0
        backlog = self._journal.backlog + len(self._writes)
        full = (
            self._ledger.open >= (1 - slack) * self._max_pending
            or self._ledger.open_bytes >= (1 - slack) * self._max_pending * BYTES_OF_PENDING
            or backlog >= (0.9 if self._paused else 1.0) * MAX_BACKLOG
        )
        if full != self._paused:
            self._paused = full
            self._source.hold(full)

    def _every_second(self) -> None:
        """Once a second: what nobody else would notice, and the figures for the metrics."""
        self._heartbeats.beat("event_loop")
        now = self._clock()
        if self._journal.failed is not None:
            self.fail(self._journal.failed)
        if not self._source.alive and not self._stopping:
            self.fail(RuntimeError("the source's thread has ended"))
        if self._journal.stuck_for() > STUCK_S:
            self.fail(RuntimeError("a transaction call does not return (librdkafka issues 5456, 5511)"))
        for connection in self._connections.values():
            if connection.pace.suspended and _key_of(connection) != connection.refused_key:
                connection.pace.key_changed()
        self._metrics.publish(self._snapshot(now))
        self._soon()
        self._loop.call_later(TICK_S, self._every_second)

    def _snapshot(self, now: float) -> Snapshot:
        return Snapshot(
            pending=self._ledger.counts(),
            overdue=self._ledger.overdue(now),
            in_doubt=self._ledger.in_doubt,
            journal_backlog=self._journal.backlog,
            paused=self._paused,
            rate_limit_share=self._share(),
            partitions_owned=len(self._ours),
            lag=self._source.lag,
            connections={
                each.name: ConnectionFigures(
                    each.pace.rate(now) if self._share() else 0.0,
                    each.pace.suspended,
                    each.pace.cooling_down(now),
                    each.halt,
                    each.pace.next_at(now) if each.pace.cooling_down(now) else None,
                    each.pace.rate_limit,
                    each.in_flight,
                )
                for each in self._connections.values()
            },
            at=now,
            first_seen=self._ledger.first_seen(),
            next_due=self._ledger.next_wake(),
            max_pending=self._max_pending,
            partitions={each[:2]: self._partition_figures(each) for each in self._ours},
            dead_letters=tuple(self._dead_letters),
        )

    def _partition_figures(self, assignment: Assignment) -> PartitionFigures:
        pending = self._ledger.open_of(assignment)
        if pending is None:
            return PartitionFigures("restoring")
        return PartitionFigures("open" if self._stays(assignment) else "leaving", pending)

    # -- events in ----------------------------------------------------------------------------------------------

    def consumed(self, batch: Batch) -> None:
        """Take a batch of the source in."""
        now = self._clock()
        for assignment, events in batch:
            self._metrics.events_consumed(assignment.topic, len(events))
            for event in events:
                self._writes += self._taken(assignment, event, now)
        self._apply_backpressure()  # first: with room, the source would go on
        self._source.batch_done()
        self._soon()

    def _taken(self, assignment: Assignment, event: SourceEvent, now: float) -> list[Write]:
        """What one event comes to; its last write settles its position (rule 1)."""
        writes: list[Write] = []
        payload = self._routed(event)
        if self._tracing is not None and payload is not None:
            payload = self._tracing.taken(event, payload, now)
        if isinstance(payload, Routed):
            self._metrics.payload(payload.route, payload.action)
            effects = self._ledger.accept(assignment, event.offset, new_action(payload, event), now)
            writes = [self._write(effect, now) for effect in effects]
        elif isinstance(payload, Misrouted):
            dead_letter = dead_letter_of_event(event, payload.reason, payload.detail, now, payload.route)
            writes = [
                Write(assignment, dead_letter=dead_letter, ticket=_DeadLetterTicket(payload.reason, event.offset))
            ]
        if not writes:
            writes = [Write(assignment)]
        writes[-1].next_offset = event.offset + 1
        return writes

    def _routed(self, event: SourceEvent) -> Routed | Misrouted | None:
        if event.value is None:
            self._metrics.ignored_tombstone(event.topic)
            return None
        decoded = decode(event.value)
        if isinstance(decoded, Undecodable):
            return Misrouted(Reason.UNDECODABLE, decoded.detail, None)
        payload = self._router.route(decoded, event)
        if isinstance(payload, Routed | Misrouted):
            return payload
        self._metrics.unrouted(event.topic)
        return None

    # -- effects out --------------------------------------------------------------------------------------------

    def _apply(self, effects: Iterable[Effect], now: float) -> None:
        self._writes += [self._write(effect, now) for effect in effects]

    def _write(self, effect: Effect, now: float) -> Write:
        assignment, offset = effect.action_id
        write = Write(assignment, action_key(offset, effect.route))
        match effect:
            case Save():
                write.value = pending_value(effect)
                write.ticket = _Intent(effect.action_id, effect.sends) if effect.sending else None
            case GiveUp():
                if self._tracing is not None:
                    self._tracing.set_aside(effect)
                write.dead_letter = dead_letter_of_action(effect, now)
                write.ticket = _DeadLetterTicket(effect.reason, offset)
            case Close():
                pass
        return write

    def _replace_too_large(self, write: Write) -> Write:
        """Replace what the broker refuses; the same again where it cannot be smaller. On the journal's thread."""
        if write.dead_letter is not None:
            smaller = write.dead_letter.value is not None
            return replace(write, dead_letter=without_value(write.dead_letter)) if smaller else write
        restored = restored_action(write.key or b"", write.value or b"")
        assert isinstance(restored, RestoredAction)  # noqa: S101 - we wrote it ourselves a moment ago
        detail = f"the delay topic refuses its record of {len(write.value or b'')} bytes (max.message.bytes)"
        given_up = _give_up(write.assignment, restored, Reason.TOO_LARGE, detail)
        replacement = self._write(given_up, self._clock())
        replacement.next_offset = write.next_offset
        return replacement

    def committed(self, writes: list[Write], ownership_confirmed_at: float, seconds: float) -> None:
        """Take in what is safe now."""
        self._metrics.transaction_committed(seconds, len(writes))
        now = self._clock()
        for write in writes:
            match write.ticket:
                case _Intent(action_id, sends):
                    self._apply(self._ledger.intent_saved(action_id, sends, ownership_confirmed_at), now)
                case _DeadLetterTicket(reason, offset):
                    self._metrics.dead_lettered(reason)
                    self._dead_letters.append(DeadLettered(reason, *write.assignment[:2], offset, now))
                case _Mark(hand_over, assignment):
                    hand_over.unsafe.discard(assignment)
        self._soon()

    def dropped(self, writes: list[Write]) -> None:
        """Take in what is nobody's any more: the partition's next owner finds it in Kafka."""
        for write in writes:
            if isinstance(write.ticket, _Mark):
                write.ticket.hand_over.unsafe.discard(write.assignment)
        self._soon()

    # -- requests -----------------------------------------------------------------------------------------------

    async def _poll(self, connection: Connection, poll: Poll) -> None:
        started = self._clock()
        self._metrics.poll_started(connection.name, started - poll.due)
        outcome = await self._ask(connection, poll)
        if self._tracing is not None:
            self._tracing.polled(connection.name, poll, outcome, started)
        connection.in_flight -= 1
        now = self._clock()
        self._answered(connection, outcome, now)
        self._metrics.poll_answered(connection.name, outcome)
        self._apply(self._ledger.poll_answered(poll.action_id, outcome, now), now)
        self._soon()

    async def _ask(self, connection: Connection, poll: Poll) -> PollOutcome | DocumentOutcome:
        client, permit = connection.client, partial(self._permit_follow_up, connection)
        if poll.ask_order:
            return await client.poll_order(poll.order_id, permit=permit)
        if poll.job_id is not None:
            return await client.poll_job(poll.job_id, permit)
        match read_payload(poll.payload).tag_source:
            case FromDocument(document=document):
                return await client.send_document(poll.order_id, document, permit)
            case FromOrder(newer_than=newer_than):
                return await client.poll_order(poll.order_id, newer_than, permit)
            case FromJob(job_id=job_id):
                return await client.poll_job(job_id, permit)
            case _:
                return await client.poll_order(poll.order_id, permit=permit)

    async def _send(self, connection: Connection, send: Send) -> None:
        request, event_time_ms = request_of(send.payload, send.version_tag)
        assignment = send.action_id.assignment
        until = send.ownership_confirmed_at + self._lease_s

        def may_send() -> bool:
            return self._is_ours(assignment) and self._clock() < until

        if self._tracing is None:
            outcome = await connection.client.send_action(send.order_id, request, may_send)
        else:
            outcome = await self._tracing.send_action(connection.name, connection.client, send, request, may_send)
        connection.in_flight -= 1
        now = self._clock()
        self._answered(connection, outcome, now)
        self._metrics.action_answered(connection.name, request.action, outcome)
        if isinstance(outcome, Accepted):
            since_event = now - event_time_ms / 1000 if event_time_ms else None
            self._metrics.accepted(request.action, since_event, now - send.tagged_at)
        elif isinstance(outcome, InDoubt):
            self._log_throttled("an action is in doubt", connection=connection.name, why=outcome.why)
        self._apply(self._ledger.action_answered(send.action_id, outcome, now), now)
        self._soon()

    def _answered(
        self, connection: Connection, outcome: PollOutcome | DocumentOutcome | ActionOutcome, now: float
    ) -> None:
        was_suspended = connection.pace.suspended
        connection.pace.answered(outcome, now)
        connection.halt = _halt(connection, outcome, now)
        if isinstance(outcome, Unavailable):
            self._log_throttled("Engage does not serve us", connection=connection.name, why=outcome.why)
        elif isinstance(outcome, Throttled):
            self._log_throttled("Engage asks for fewer requests", connection=connection.name)
        if isinstance(outcome, Unauthorized):
            connection.refused_key = _key_of(connection)
        if connection.pace.suspended != was_suspended:
            if was_suspended:
                _LOG.info("connection goes on: Engage takes its key", connection=connection.name)
            else:
                _LOG.error(
                    "connection suspended: Engage refuses its key; nothing is lost, give it another one",
                    connection=connection.name,
                )

    # -- partitions come and go ---------------------------------------------------------------------------------

    def assigned(self, assignments: list[Assignment]) -> None:
        """Restore what came, then begin."""
        self._metrics.rebalanced("assigned")
        self._ours.update(assignments)
        self._set_shares()
        self._start_task(self._adopt(assignments))

    async def _adopt(self, assignments: list[Assignment]) -> None:
        while assignments := [each for each in assignments if self._stays(each)]:
            try:
                adopted = await self._loop.run_in_executor(self._restoring, self._restore, assignments)
            except RestoreError as error:
                self._log_throttled("restore goes on", why=str(error))
                await asyncio.sleep(RESTORE_RETRY_S)
                continue
            for each in adopted:
                self._begin(each)
            self._soon()
            return

    def _restore(self, assignments: list[Assignment]) -> list[Adopted]:
        """Read the delay partitions. Called on the restore's thread."""
        return [read_live(restored) for restored in self._restorer.restore(assignments)]

    def _begin(self, adopted: Adopted) -> None:
        restored, now = adopted.restored, self._clock()
        assignment = restored.assignment
        if not self._stays(assignment):
            return
        self._writes.append(Adoption(assignment, adopted.live, restored.end, restored.next_offset))
        for key, value, why in adopted.unreadable:
            dead_letter = dead_letter_of_unreadable(assignment[:2], key, value, why, now)
            ticket = _DeadLetterTicket(Reason.UNREADABLE_PENDING, offset_of_key(key))
            self._writes.append(Write(assignment, key, dead_letter=dead_letter, ticket=ticket))
        if not restored.position_known:
            self._writes.append(Write(assignment, next_offset=restored.next_offset))
        known: list[RestoredAction] = []
        for action in adopted.actions:
            if restored.next_offset <= action.offset < restored.source_end and not action.sending:
                # A delayed commit made its record visible without its offset (or an operator moved the offset back):
                # the source brings the event again, and might do so when this action is done and forgotten.
                self._writes.append(Write(assignment, action_key(action.offset, action.action.route)))
            elif action.action.connection in self._connections:
                known.append(action)
            else:
                gone = "its connection is no longer configured"
                self._apply([_give_up(assignment, action, Reason.UNKNOWN_CONNECTION, gone)], now)
        self._apply(self._ledger.assign(assignment, known, now), now)
        self._source.begin(assignment, restored.next_offset)
        self._metrics.restored(restored.records_read, restored.seconds)
        _LOG.info(
            "partition restored",
            topic=assignment.topic,
            partition=assignment.partition,
            next_offset=restored.next_offset,
            pending=len(adopted.actions),
            seconds=round(restored.seconds, 3),
        )

    def revoked(self, assignments: list[Assignment], settled: threading.Event) -> None:
        """Start nothing more for these; they are given away when what is in flight has ended."""
        self._metrics.rebalanced("revoked")
        for assignment in assignments:
            self._apply(self._ledger.stop(assignment), self._clock())
        self._hand_overs.append(_HandOver(assignments, settled, set(assignments), set(assignments)))
        self._soon()

    def _settle_hand_overs(self) -> None:
        for hand_over in list(self._hand_overs):
            for assignment in [a for a in hand_over.unmarked if not self._ledger.in_flight(a)]:
                hand_over.unmarked.discard(assignment)
                self._writes.append(Write(assignment, ticket=_Mark(hand_over, assignment)))
            # Given away before all was safe (`hand_over_s`): what the journal has of it, it drops without an answer.
            overran = self._journal_is_dead() or not any(map(self._is_ours, hand_over.assignments))
            if overran or not hand_over.unsafe:
                self._hand_overs.remove(hand_over)
                self._forget(hand_over.assignments)
                hand_over.settled.set()

    def lost(self, assignments: list[Assignment]) -> None:
        """Drop these at once."""
        self._metrics.rebalanced("lost")
        _LOG.warning("partitions lost: another instance has them already", partitions=len(assignments))
        self._forget(assignments)

    def _forget(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            self._ledger.drop(assignment)
            self._ours.discard(assignment)
        self._set_shares()

    def _set_shares(self) -> None:
        share, now = self._share(), self._clock()
        for connection in self._connections.values():
            connection.pace.set_share(share, now)

    def _share(self) -> float:
        """The fraction of the source's partitions that is ours, and so of every key's budget."""
        total = sum(self._partition_counts.values())
        return min(1.0, len(self._ours) / total) if total else 0.0

    # -- what the edges say -------------------------------------------------------------------------------------

    def partitions_counted(self, counts: Mapping[str, int]) -> None:
        """Learn how many partitions each source topic has by now."""
        if counts != self._partition_counts:
            self._partition_counts.update(counts)
            self._set_shares()
            self._soon()

    def pinned(self, assignment: Assignment, keys: list[Hashable]) -> None:
        """Write old records again that hold the low-water mark back."""
        now = self._clock()
        for key in keys:
            if isinstance(key, bytes) and (offset := offset_of_key(key)) is not None:
                self._apply(self._ledger.refresh(ActionId(assignment, offset)), now)
        self._soon()

    def recreated(self, assignment: Assignment) -> None:
        """Write all of a partition again whose delay topic was deleted and made again."""
        _LOG.error(
            "the delay topic was deleted and made again; what is pending is written again",
            topic=assignment.topic,
            partition=assignment.partition,
        )
        now = self._clock()
        for effect in self._ledger.rewrite(assignment):
            write = self._write(effect, now)
            write.ticket = None  # it is no new intent: a later one, of the same count of sends, may be on its way
            self._writes.append(write)
        self._soon()

    def too_large(self, write: Write) -> None:
        """Forget an action that the journal had to set aside."""
        offset = offset_of_key(write.key or b"")
        if offset is not None:
            self._ledger.record_too_large(ActionId(write.assignment, offset), self._clock())
        self._soon()

    def fenced(self, why: str) -> None:
        """Another producer has our transactional.id: give everything up and come back."""
        _LOG.error("fenced: another producer uses our transactional.id; rejoining", why=why)
        self._source.rejoin()

    def _log_throttled(self, line: str, **fields: object) -> None:
        """Log a line that may come very often, at most once in LOG_INTERVAL_S for each connection."""
        now = self._clock()
        about = f"{line} {fields.get('connection', '')}"
        if now - self._said.get(about, -math.inf) >= LOG_INTERVAL_S:
            self._said[about] = now
            _LOG.warning(line, **fields)

    def client_error(self, why: str) -> None:
        """Say what ails a client."""
        self._log_throttled("Kafka", why=why)

    def aborted(self, why: str) -> None:
        """Count and say a transaction that came to nothing."""
        self._metrics.transaction_aborted()
        self._log_throttled("transaction aborted, trying again", why=why)


def _give_up(assignment: Assignment, restored: RestoredAction, reason: Reason, detail: str) -> GiveUp:
    action = restored.action
    action_id = ActionId(assignment, restored.offset)
    return GiveUp(action_id, action.route, action.payload, reason, detail, None, restored.attempts, restored.sends)


def _halt(connection: Connection, outcome: PollOutcome | DocumentOutcome | ActionOutcome, now: float) -> Halt | None:
    """Say why the connection is suspended or rests after this answer: since the first one of those in a row."""
    before, pace = connection.halt, connection.pace
    match outcome:
        case Withdrawn() | Rejected(0):
            return before  # Engage was not asked
        case Unauthorized(status):
            why = f"Engage refuses its API key ({status})"
        case Throttled():
            why = "Engage asks for fewer requests (429)"
        case Unavailable(why) | InDoubt(why):
            pass
        case _:
            return before if pace.cooling_down(now) else None  # a 429's rest goes on
    if before is not None and before.suspended and pace.suspended:
        return before
    if pace.suspended or pace.cooling_down(now):
        return Halt(why, now if before is None or before.suspended != pace.suspended else before.since, pace.suspended)
    return before


def _key_of(connection: Connection) -> str | None:
    try:
        return connection.api_key()
    except (OSError, ValueError):  # a key's file that is missing or holds none
        return None


class _SourceListener:
    """Brings the source's facts over to the event loop's thread."""

    def __init__(self, relay: Relay, metrics: Metrics) -> None:
        self._relay = relay
        self._metrics = metrics

    def assigned(self, assignments: list[Assignment]) -> None:
        self._relay.from_thread(self._relay.assigned, assignments)

    def revoked(self, assignments: list[Assignment], settled: threading.Event) -> None:
        self._relay.from_thread(self._relay.revoked, assignments, settled)

    def lost(self, assignments: list[Assignment]) -> None:
        self._relay.from_thread(self._relay.lost, assignments)

    def consumed(self, batch: Batch) -> None:
        self._relay.from_thread(self._relay.consumed, batch)

    def statistics(self, statistics: Mapping[str, object]) -> None:
        self._metrics.librdkafka_statistics("source", statistics)

    def partitions_counted(self, counts: Mapping[str, int]) -> None:
        self._relay.from_thread(self._relay.partitions_counted, counts)

    def client_error(self, why: str) -> None:
        self._relay.from_thread(self._relay.client_error, why)

    def failed(self, error: Exception) -> None:
        self._relay.from_thread(self._relay.fail, error)


class _JournalListener:
    """Brings the journal's facts over to the event loop's thread."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def committed(self, writes: list[Write], ownership_confirmed_at: float, seconds: float) -> None:
        self._relay.from_thread(self._relay.committed, writes, ownership_confirmed_at, seconds)

    def dropped(self, writes: list[Write]) -> None:
        self._relay.from_thread(self._relay.dropped, writes)

    def pinned(self, assignment: Assignment, keys: list[Hashable]) -> None:
        self._relay.from_thread(self._relay.pinned, assignment, keys)

    def recreated(self, assignment: Assignment) -> None:
        self._relay.from_thread(self._relay.recreated, assignment)

    def too_large(self, write: Write, replacement: Write) -> None:  # noqa: ARG002 - the journal's protocol
        self._relay.from_thread(self._relay.too_large, write)

    def aborted(self, why: str) -> None:
        self._relay.from_thread(self._relay.aborted, why)

    def fenced(self, why: str) -> None:
        self._relay.from_thread(self._relay.fenced, why)
