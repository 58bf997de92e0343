"""Dispatch: which request each connection makes next, and what its answers mean.

A tick looks only at the connections to which something happened: one of their actions moved, an answer came, a call
waits for a permit, or the time came that their pace told. So a thousand that wait cost a tick nothing.

Rules:
 1. An action or a document is sent only while we own its partition, and only within `lease_s` after its record's
    commit proved that. So a process that was frozen meanwhile (a zombie) sends nothing. The HTTP engine checks this
    right before the first byte of each request: a document's POST and its PUT, and a change.
 2. An intent is saved just before its action may leave. If it were saved earlier and waited out a long cooldown, a
    crash would put the action in doubt for nothing.
 3. Calls under way get the permits for their next requests before new calls begin.
 4. Whether a connection works again is tried with a poll, where one is due: an action without an answer is in doubt.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from consumer.core.clock import Clock
from consumer.core.effects import ActionId, Change, Close, Document, Job, Order, Poll, Request, Send
from consumer.core.ledger.ledger import Ledger
from consumer.core.outcomes import (
    Accepted,
    DocumentOutcome,
    DocumentTaken,
    Forbidden,
    InDoubt,
    NotReady,
    Outcome,
    PollOutcome,
    SendOutcome,
    Throttled,
    Unauthorized,
    Unavailable,
)
from consumer.core.poll_plan import PLAN_INTERVAL_S
from consumer.kafka.clients import Properties, session_s
from consumer.kafka.records.payloads import action_of, change_of, document_of, document_with_action_of, request_of
from consumer.relay.connections import Connection
from consumer.relay.edges import Source
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox
from consumer.relay.tasks import Tasks
from consumer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

MAX_PLANNED_S = 30.0  # a rate limit that nobody used for longer says no more than this
INTENT_EARLY_S = 0.5  # before the action may leave: many transactions' time, and little of a lease
# A dead member's partitions are given away after session.timeout.ms (45 s) less one heartbeat (3 s). An intent's
# commit proves that we were a member; until then the action must have left (the lease) and been answered
# (`action_timeout`, 30 s): 8 + 30 = 38 of 42 s. A shorter session makes the lease shorter, too (LEASE_OF_SESSION);
# where the sum does not fit, check-config says so (`short_session` in run/time_outs.py).
MAX_LEASE_S = 8.0
LEASE_OF_SESSION = 0.4

_Outcome = TypeVar("_Outcome", bound=Outcome)


def lease_of(properties: Properties) -> float:
    """Return for how many seconds an intent's commit entitles to its sending. See MAX_LEASE_S."""
    return min(MAX_LEASE_S, session_s(properties) * LEASE_OF_SESSION)


class Dispatch:
    """The requests to Engage, on all connections."""

    def __init__(
        self,
        connections: Iterable[Connection],
        *,
        ledger: Ledger,
        outbox: Outbox,
        source: Source,
        lease_s: float,
        clock: Clock,
        tasks: Tasks,
        tick_soon: Callable[[], None],
        metrics: Metrics,
        log: ThrottledLog,
        tracing: Tracing | None,
    ) -> None:
        self.connections = {each.name: each for each in connections}
        self._ledger = ledger
        self._outbox = outbox
        self._source = source
        self._lease_s = lease_s
        self._clock = clock
        self._tasks = tasks
        self._tick_soon = tick_soon
        self._metrics = metrics
        self._log = log
        self._tracing = tracing
        self._sends: set[asyncio.Task[None]] = set()
        self._to_look_at: dict[str, None] = {}
        self._later: list[tuple[float, str]] = []  # a heap; only what is still its connection's `look_at` counts

    # -- from the loop ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> float:
        """Save the intents and start the requests whose time has come; returns when to look again."""
        self._to_look_at.update(self._ledger.moved())
        while self._later and self._later[0][0] <= now:
            at, name = heapq.heappop(self._later)
            if at == self.connections[name].look_at:
                self._to_look_at[name] = None
        looked_at, self._to_look_at = self._to_look_at, {}
        for name in looked_at:
            if (connection := self.connections.get(name)) is not None:
                self._look(connection, now)
        while self._later and self._later[0][0] != self.connections[self._later[0][1]].look_at:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else math.inf

    def look_at_all(self) -> None:
        """Look at every connection in the next tick: what nothing reports is found, such as a key that has changed."""
        for name, connection in self.connections.items():
            connection.try_another_key()
            self._to_look_at[name] = None

    def set_share(self, share: float, now: float) -> None:
        """Take this fraction of every connection's rate limit."""
        for name, connection in self.connections.items():
            connection.pace.set_share(share, now)
            self._to_look_at[name] = None

    async def wait_for_sends(self, timeout_s: float) -> None:
        """Wait until no action is under way: one that is cut off would be in doubt."""
        if self._sends:
            await asyncio.wait(self._sends, timeout=max(0.0, timeout_s))

    async def aclose(self) -> None:
        """Close every connection's client."""
        for connection in self.connections.values():
            await connection.client.aclose()

    # -- what may leave -----------------------------------------------------------------------------------------

    def _look(self, connection: Connection, now: float) -> None:
        if now - connection.planned_at >= PLAN_INTERVAL_S:
            self._plan_polls(connection, now)
        look_at = min(self._save_intents(connection, now), self._give_requests(connection, now))
        if look_at != connection.look_at:
            connection.look_at = look_at
            if look_at < math.inf:
                heapq.heappush(self._later, (look_at, connection.name))

    def _plan_polls(self, connection: Connection, now: float) -> None:
        requests = connection.pace.requests - connection.planned_requests
        allowed = connection.pace.rate(now) * min(now - connection.planned_at, MAX_PLANNED_S)
        self._ledger.plan_polls(connection.name, requests, allowed)
        connection.planned_at, connection.planned_requests = now, connection.pace.requests

    def _save_intents(self, connection: Connection, now: float) -> float:
        """Save intents whose actions the pace will soon allow (rule 2). Returns when to look again."""
        if not self._ledger.wants_intents(connection.name):
            return math.inf
        soon = connection.pace.next_at(now) - INTENT_EARLY_S
        if soon > now:
            return soon
        if connection.in_flight < connection.slots:
            # An action that waits for its permit longer than its lease lasts is withdrawn, again and again.
            in_time = max(1, int(connection.pace.rate(now) * self._lease_s / 2))
            effects = self._ledger.save_intents(connection.name, min(connection.ahead, in_time), now)
            self._outbox.apply(effects, now)
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
            saved = not self._ledger.wants_intents(connection.name)
            not_this, is_probe = connection.pace.not_as_probe(now), connection.pace.is_half_open
            request = self._ledger.take(connection.name, not_this, now, poll_first=is_probe)
            if request is None:
                self._to_look_at[connection.name] = None
                if saved and self._ledger.wants_intents(connection.name):
                    self._tick_soon()  # a document came first instead: its record is to be saved
                break
            connection.pace.sent(now)
            waited = 0.0 if connection.waiting_since is None else now - connection.waiting_since
            self._metrics.limiter_waited(connection.name, waited)
            connection.waiting_since = None
            connection.in_flight += 1
            send, poll = self._send, self._poll
            call = send(connection, request) if isinstance(request, Send) else poll(connection, request)
            task = self._tasks.start(call)
            if request.ownership_confirmed_at is not None:  # an action or a document
                self._sends.add(task)
                task.add_done_callback(self._sends.discard)
        return math.inf

    def _grant_follow_ups(self, connection: Connection, now: float) -> float:
        """Grant the permits that calls under way wait for (rule 3); returns when the next one is due."""
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
        """Wait until a call may make its next request (engage.Permit). False while the connection cools down."""
        permit: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        connection.follow_ups.append(permit)
        self._to_look_at[connection.name] = None
        self._tick_soon()
        return await permit

    # -- requests and answers -----------------------------------------------------------------------------------

    async def _poll(self, connection: Connection, poll: Poll) -> None:
        started = self._clock()
        self._metrics.poll_started(connection.name, started - poll.due)
        outcome = await self._ask(connection, poll)
        if self._tracing is not None:
            self._tracing.polled(connection.name, poll, outcome, started)
        now = self._clock()
        outcome = self._answered(connection, outcome, now, poll.action_id)
        self._metrics.poll_answered(connection.name, outcome)
        if isinstance(outcome, NotReady) and outcome.status is not None:
            self._count_word(connection, outcome.status)
        effects = self._ledger.poll_answered(poll.action_id, outcome, now)
        if any(isinstance(effect, Close) for effect in effects):  # its action went with the document
            self._accepted(connection, poll, now)
        self._outbox.apply(effects, now)
        self._tick_soon()

    async def _ask(self, connection: Connection, poll: Poll) -> PollOutcome | DocumentOutcome:
        client, permit = connection.client, partial(self._permit_follow_up, connection)
        match poll.target:
            case Job(job_id):
                return await client.poll_job(job_id, permit, order_id=poll.order_id)
            case Order(newer_than):
                return await client.poll_order(poll.order_id, newer_than, permit)
            case Document() as how:
                may_send = partial(self._may_send, poll)
                return await client.send_document(poll.order_id, document_of(poll.payload), permit, may_send, how)
            case Change():
                may_send = partial(self._may_send, poll)
                return await client.send_change(poll.order_id, *change_of(poll.payload), may_send)

    async def _send(self, connection: Connection, send: Send) -> None:
        if send.version_tag is None:
            await self._send_with_document(connection, send)
            return
        request, event_time_ms = request_of(send.payload, send.version_tag)
        may_send = partial(self._may_send, send)
        if self._tracing is None:
            outcome = await connection.client.send_action(send.order_id, request, may_send)
        else:
            outcome = await self._tracing.send_action(connection.name, connection.client, send, request, may_send)
        now = self._clock()
        answered = self._sent(connection, send, request.action, outcome, now)
        if isinstance(answered, Accepted):
            waited_s, trace_id = now - send.tagged_at, self._trace_id(send.payload)
            self._metrics.accepted(connection.name, request.action, _since(event_time_ms, now), waited_s, trace_id)

    async def _send_with_document(self, connection: Connection, send: Send) -> None:
        """Send the document that the action travels in."""
        started, (action, _) = self._clock(), action_of(send.payload)
        permit, may_send = partial(self._permit_follow_up, connection), partial(self._may_send, send)
        document = document_with_action_of(send.payload)
        outcome = await connection.client.send_with_document(send.order_id, document, permit, may_send, send.document)
        if self._tracing is not None:
            self._tracing.sent_with_document(connection.name, send, action, outcome, started)
        now = self._clock()
        if self._sent(connection, send, action, outcome, now) == DocumentTaken(None):  # there is no job to poll
            self._accepted(connection, send, now)

    def _sent(self, connection: Connection, send: Send, action: str, outcome: SendOutcome, now: float) -> SendOutcome:
        """Take in what came of sending an action. Returns what it means."""
        meant = self._answered(connection, outcome, now, send.action_id)
        self._metrics.action_answered(connection.name, action, meant)
        if isinstance(meant, InDoubt):
            self._log.throttled("an action is in doubt", connection=connection.name, why=meant.why)
        self._outbox.apply(self._ledger.action_answered(send.action_id, meant, now), now)
        self._tick_soon()
        return meant

    def _accepted(self, connection: Connection, request: Request, now: float) -> None:
        """Count an action that went with its document."""
        action, event_time_ms = action_of(request.payload)
        self._metrics.action_answered(connection.name, action, Accepted())
        trace_id = self._trace_id(request.payload)
        self._metrics.accepted(connection.name, action, _since(event_time_ms, now), trace_id=trace_id)

    def _trace_id(self, payload: bytes) -> str | None:
        """Return the trace that an action belongs to; None where nothing is traced."""
        return None if self._tracing is None else self._tracing.trace_id(payload)

    def _may_send(self, request: Request) -> bool:
        """Rule 1. What was paused meanwhile does not leave, either."""
        is_ours = self._source.owns(request.action_id.assignment)
        confirmed_at = request.ownership_confirmed_at
        in_time = confirmed_at is not None and self._clock() < confirmed_at + self._lease_s
        return is_ours and in_time and not self._ledger.is_paused(request.action_id)

    def _count_word(self, connection: Connection, status: str) -> None:
        """Count the status of a job that is not ready. Each word is logged once, because no document lists them."""
        word = connection.word(status)
        self._metrics.job_status(connection.name, word)
        if word not in connection.words:
            connection.words.add(word)
            self._log.info("a job says a status that counts as not yet ready", connection=connection.name, status=word)

    def _answered(
        self, connection: Connection, outcome: _Outcome, now: float, about: ActionId
    ) -> _Outcome | Unauthorized | Forbidden:
        """Tell the connection what an answer says about it. Returns what the answer means for its action."""
        connection.in_flight -= 1
        self._to_look_at[connection.name] = None
        was_suspended = connection.pace.suspended
        meant = connection.answered(outcome, now, about)
        if isinstance(outcome, Unavailable):
            self._log.throttled("Engage is unavailable", connection=connection.name, why=outcome.why)
        elif isinstance(outcome, Throttled):
            self._log.throttled("Engage asks for fewer requests", connection=connection.name)
        elif isinstance(meant, Forbidden):
            self._log.throttled(
                "Engage refuses one action, which waits by itself", connection=connection.name, status=meant.status
            )
        if connection.pace.suspended and not was_suspended:
            said = "its key cannot be read" if outcome == Unauthorized(0) else "Engage refuses its key"
            self._log.error(
                f"connection suspended: {said}; nothing is lost, give it another one", connection=connection.name
            )
        elif was_suspended and not connection.pace.suspended:
            self._log.info("connection resumed: Engage accepts its key", connection=connection.name)
        return meant


def _since(event_time_ms: int, now: float) -> float | None:
    """Return how long ago an event happened, in seconds; None where nobody knows when."""
    return now - event_time_ms / 1000 if event_time_ms else None
