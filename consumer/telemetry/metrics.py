"""The metrics. The relay reports what happened, and this module turns it into numbers.

Rules:
 1. Names start with `engage_relay_`, units are seconds, records and plain counts, counters end in `_total`.
 2. A label's values come from the configuration or from our own code (a broker's: its node id), never from an event.
    Partitions are a label of the lag alone.
 3. Facts may come from any thread and cost a microsecond or two: a series is looked up once, then kept.
 4. What is a state rather than a fact (what is pending, the lag, ...) comes as a frozen `Snapshot` from the event
    loop's thread (snapshot.py, gauges.py). A scrape reads the last one, so it never touches the ledger, and the series
    of a revoked partition vanish with the next snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Generic, Literal, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from consumer.core.outcomes import Accepted, DocumentOutcome, PollOutcome, SendOutcome
from consumer.engage.http import Endpoint, FailureKind
from consumer.events.deciding import Ignoring
from consumer.events.guards import StoppedBy
from consumer.telemetry.brokers import BrokerFigures, broker_families, broker_figures
from consumer.telemetry.gauges import gauge, snapshot_families
from consumer.telemetry.names import PREFIX, OutcomeNames
from consumer.telemetry.rolling import Flow, History
from consumer.telemetry.snapshot import Snapshot
from schemas.dead_letter import Reason
from schemas.engage import DOCUMENTED_ACTIONS

Rebalance = Literal["assigned", "revoked", "lost"]
Thread = Literal["event_loop", "consumer"]

# From an event's own time: a tag that is there at once, Engage's processing (seconds to minutes), the waits after
# failures (10 s to 5 min), an outage of hours, and the deadline (24 h).
_EVENT_TO_ACCEPTED_S = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400, 43200, 86400)
# The relay's own part: saving the intent and one request, then waiting for the rate limit, then waits after failures.
_READY_TO_ACCEPTED_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
# Up to twice the default time-out of 10 s, which ends every request.
_REQUEST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
# From no wait over one permit at 50 requests/s (0.02 s) to a cooldown (30 s) and the probe of a refused key (60 s).
_LIMITER_WAIT_S = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# From the event loop's own work (milliseconds) over the aim (0.25 s below the rate limit) to a reached rate limit,
# a cooldown (30 s) and the probe of a refused key (60 s).
_DUE_LATENESS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# A healthy transaction takes 3-25 ms; a call times out after 15 s.
_TRANSACTION_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
# Reading alone is fast; a dead instance's transaction adds about 10 s; it is given up after 120 s.
_RESTORE_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
# A status that nobody registered is one series, not up to 900.
_STATUSES = frozenset({*(str(status.value) for status in HTTPStatus), *get_args(FailureKind)})
_CALLS = get_args(Endpoint)

MAX_STARTED = 20  # connections whose series begin at 0

M = TypeVar("M", Counter, Histogram)


class Metrics:
    """The metrics of one registry. Every method may be called from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # A second series per counter and histogram, for a time that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def counter(name: str, text: str, *labels: str) -> _Series[Counter]:
            return _Series(Counter(PREFIX + name, text, labels, registry=registry))

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Series[Histogram]:
            return _Series(Histogram(PREFIX + name, text, labels, registry=registry, buckets=buckets))

        self._consumed = counter("events_consumed_total", "Records read from the source.", "topic")
        self._unrouted = counter("events_unrouted_total", "Events that no route takes: ignored.", "topic")
        self._tombstones = counter(
            "tombstones_ignored_total", "Tombstones (no value, by the configuration): ignored.", "topic"
        )
        self._foreign_redrives = counter(
            "foreign_redrives_ignored_total",
            "Events that another relay's dead letters were redriven as: ignored.",
            "topic",
        )
        self._dropped = counter(
            "fields_dropped_total",
            "Language, data and event times that could not be used: the action went without them.",
            "route",
            "field",
        )
        self._routed = counter("actions_routed_total", "Events that became an action.", "route", "action")
        self._stopped = counter(
            "actions_stopped_total",
            "Actions that were not sent: withheld, too_old, shadow, repeat.",
            "route",
            "reason",
        )
        self._facts_lost = Counter(
            PREFIX + "facts_lost_total",
            "Restores that could not read which facts were sent, and losses of parked actions: repeats may be sent.",
            registry=registry,
        )
        self._polls = counter(
            "polls_answered_total", "Polls for a versionTag and documents sent, by outcome.", "connection", "outcome"
        )
        self._job_statuses = counter(
            "job_statuses_total", "Jobs that were not ready, by the word of their status.", "connection", "status"
        )
        self._actions = counter(
            "actions_answered_total", "Actions sent to Engage, by outcome.", "connection", "action", "outcome"
        )
        self._event_to_accepted = histogram(
            "event_to_accepted_seconds",
            "Time from the event until Engage accepted its action.",
            _EVENT_TO_ACCEPTED_S,
            "connection",
            "action",
        )
        self._ready_to_accepted = histogram(
            "tag_ready_to_accepted_seconds",
            "Time from the versionTag until Engage accepted the action.",
            _READY_TO_ACCEPTED_S,
            "connection",
        )
        self._requests = counter(
            "requests_total", "Requests to Engage, by HTTP status or failure.", "connection", "call", "status"
        )
        self._request_duration = histogram(
            "request_duration_seconds", "Duration of requests to Engage.", _REQUEST_S, "connection", "call"
        )
        self._limiter_wait = histogram(
            "limiter_wait_seconds",
            "How long a request waited for a permit of the rate limit.",
            _LIMITER_WAIT_S,
            "connection",
        )
        self._due_lateness = histogram(
            "due_lateness_seconds",
            "How long after its due time a poll started.",
            _DUE_LATENESS_S,
            "connection",
        )
        self._dead_letters = counter("dead_letters_total", "Events that became dead letters, by reason.", "reason")
        self._refused = counter(
            "dead_letters_refused_total",
            "Times that the dead-letter topic refused a dead letter: it waits in the delay topic.",
            "topic",
        )
        self._transactions = Histogram(
            PREFIX + "transaction_duration_seconds",
            "Duration of the journal's committed transactions.",
            registry=registry,
            buckets=_TRANSACTION_S,
        )
        self._written = Counter(
            PREFIX + "transaction_records_total", "Records in the journal's committed transactions.", registry=registry
        )
        self._aborts = Counter(
            PREFIX + "transactions_aborted_total",
            "Transactions that failed and were tried again.",
            registry=registry,
        )
        self._restores = Histogram(
            PREFIX + "restore_duration_seconds",
            "How long it took to read a delay partition after its assignment.",
            registry=registry,
            buckets=_RESTORE_S,
        )
        self._restored = Counter(
            PREFIX + "restored_records_total", "Records of the delay topic that restores read.", registry=registry
        )
        self._rebalances = counter(
            "rebalances_total", "Rebalances, by kind: assigned, revoked (handed over), lost (taken away).", "kind"
        )
        self._build = Info(PREFIX + "build", "The running version.", registry=registry)

        self._outcomes = OutcomeNames()
        self._known_actions = set(DOCUMENTED_ACTIONS)
        self._history = History()
        self._published = (Snapshot(), Flow())
        self._heartbeat_ages: Callable[[], Mapping[Thread, float]] = dict
        self._statistics: dict[str, list[BrokerFigures]] = {}
        self._dead_letters_waiting: Mapping[str, int] = {}
        self._topics_unfit: Mapping[str, Sequence[str]] = {}

        self._dead_letters.start((reason,) for reason in Reason)
        self._rebalances.start((kind,) for kind in get_args(Rebalance))
        registry.register(_AtScrape(self._at_scrape))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def expect(self, *, topics: Iterable[str], connections: Iterable[str], routes: Iterable[tuple[str, str]]) -> None:
        """Let the series that follow from the configuration start at 0. `routes`: (route, action).

        A series that appears with its first event has no increase that a rate or an alert could see. With more
        connections than MAX_STARTED theirs begin with their first event all the same, but for what an alert reads
        where nothing ever happened: each connection has hundreds, mostly of what it never does.
        """
        routes, connections = list(routes), list(connections)
        actions = sorted({action for _, action in routes})
        self._known_actions.update(actions)
        polled = [self._outcomes[each] for each in (*get_args(PollOutcome), *get_args(DocumentOutcome))]
        sent = [self._outcomes[each] for each in get_args(SendOutcome)]
        for topic in topics:
            for series in (self._consumed, self._unrouted, self._tombstones, self._foreign_redrives, self._refused):
                series.start([(topic,)])
        self._routed.start(routes)
        self._stopped.start((route, reason) for route, _ in routes for reason in get_args(StoppedBy))
        self._dropped.start((route, field) for route, _ in routes for field in ("language", "data", "event_time"))
        accepted = self._outcomes[Accepted]
        self._actions.start((connection, action, accepted) for connection in connections for action in actions)
        if len(connections) > MAX_STARTED:
            return
        for connection in connections:
            self._event_to_accepted.start((connection, action) for action in actions)
            self._ready_to_accepted.start([(connection,)])
            self._polls.start((connection, outcome) for outcome in polled)
            self._actions.start((connection, action, outcome) for action in actions for outcome in sent)
            self._request_duration.start((connection, call) for call in _CALLS)
            self._limiter_wait.start([(connection,)])
            self._due_lateness.start([(connection,)])

    # -- facts --------------------------------------------------------------------------------------------------

    def events_consumed(self, topic: str, count: int) -> None:
        """Record that a batch was read."""
        self._consumed[topic,].inc(count)
        self._history.consumed(count)

    def routed(self, route: str, action: str) -> None:
        """Record that an event became an action."""
        self._routed[route, self._known(action)].inc()

    def _known(self, action: str) -> str:
        """Bound the label: an event may name any action, and only documented or configured ones are told apart."""
        return action if action in self._known_actions else "other"

    def ignored(self, topic: str, why: Ignoring) -> None:
        """Record that nothing became of a record."""
        series = {
            "unrouted": self._unrouted,
            "tombstone": self._tombstones,
            "foreign_redrive": self._foreign_redrives,
        }[why]
        series[topic,].inc()

    def stopped(self, route: str, reason: StoppedBy) -> None:
        """Record that a guard stopped an action."""
        self._stopped[route, reason].inc()

    def facts_lost(self) -> None:
        """Record that nobody knows which facts of a partition were sent before, or which are parked."""
        self._facts_lost.inc()

    def field_dropped(self, route: str, field: str) -> None:
        """Record that an action went without a field of its event."""
        self._dropped[route, field].inc()

    def poll_answered(self, connection: str, outcome: PollOutcome | DocumentOutcome) -> None:
        """Record the outcome of a poll."""
        self._polls[connection, self._outcomes[type(outcome)]].inc()

    def job_status(self, connection: str, status: str) -> None:
        """Record the status of a job that is not ready. The caller bounds how many there are."""
        self._job_statuses[connection, status].inc()

    def action_answered(self, connection: str, action: str, outcome: SendOutcome) -> None:
        """Record the outcome of sending an action."""
        self._actions[connection, self._known(action), self._outcomes[type(outcome)]].inc()
        if isinstance(outcome, Accepted):
            self._history.accepted(connection)

    def accepted(
        self,
        connection: str,
        action: str,
        event_to_accepted_s: float | None,
        ready_to_accepted_s: float | None = None,
        trace_id: str | None = None,
    ) -> None:
        """Record how long an accepted action took. A sender's clock that is ahead of ours counts as 0.

        None: nobody knows when the event happened, or the action had no tag to wait for. `trace_id`: of the event's
        trace, where there is one; it is the exemplar of both histograms.
        """
        action = self._known(action)
        exemplar = {"trace_id": trace_id} if trace_id else None
        if event_to_accepted_s is not None:
            self._event_to_accepted[connection, action].observe(max(0.0, event_to_accepted_s), exemplar)
        if ready_to_accepted_s is not None:
            self._ready_to_accepted[connection,].observe(max(0.0, ready_to_accepted_s), exemplar)
        self._history.took(event_to_accepted_s, ready_to_accepted_s)

    def request(self, connection: str, call: str, status: str, seconds: float) -> None:
        """Record a request to Engage. `status` is HTTP's, or the kind of failure where there was no answer."""
        self._requests[connection, call, status if status in _STATUSES else "other"].inc()
        self._request_duration[connection, call].observe(seconds)
        if status != "withdrawn":
            self._history.requested(connection)

    def limiter_waited(self, connection: str, seconds: float) -> None:
        """Record how long a request waited for its permit."""
        self._limiter_wait[connection,].observe(seconds)

    def poll_started(self, connection: str, late_s: float) -> None:
        """Record how long after its due time a poll was started."""
        self._due_lateness[connection,].observe(late_s)

    def dead_lettered(self, reason: Reason) -> None:
        """Record that an event became a dead letter."""
        self._dead_letters[reason,].inc()
        self._history.dead_lettered(reason)

    def dead_letter_refused(self, topic: str) -> None:
        """Record that the dead-letter topic of a source topic refused a dead letter."""
        self._refused[topic,].inc()

    def dead_letters_waiting(self, counts: Mapping[str, int]) -> None:
        """Take how many dead letters wait for a redrive, by source topic; a topic that is left out was not counted."""
        self._dead_letters_waiting = counts

    def topics_unfit(self, why: Mapping[str, Sequence[str]]) -> None:
        """Take which topics do not fit, and why."""
        self._topics_unfit = why

    def transaction_committed(self, seconds: float, records: int) -> None:
        """Record a transaction that the broker committed."""
        self._transactions.observe(seconds)
        self._written.inc(records)

    def transaction_aborted(self) -> None:
        """Record a transaction that came to nothing."""
        self._aborts.inc()

    def restored(self, records: int, seconds: float) -> None:
        """Record a restore: of how many records of the delay topic, and how long it took."""
        self._restores.observe(seconds)
        self._restored.inc(records)

    def rebalanced(self, kind: Rebalance) -> None:
        """Record that partitions came or went."""
        self._rebalances[kind,].inc()

    def librdkafka_statistics(self, client: str, statistics: Mapping[str, object]) -> None:
        """Take librdkafka's statistics (its STATISTICS.md), parsed. `client` is the client's part: consumer, producer.

        Each call replaces what the same client said before; a rebuilt one starts again at 0, as counters may.
        """
        self._statistics[client] = broker_figures(statistics)

    def build_info(self, version: str) -> None:
        """Say which version runs."""
        self._build.info({"version": version})

    # -- states -------------------------------------------------------------------------------------------------

    def publish(self, snapshot: Snapshot) -> None:
        """Replace what the next scrapes say of the state of things. Once a second is enough."""
        flow = self._history.tick(snapshot.at, sum(snapshot.pending.values()), snapshot.overdue)
        self._published = (
            replace(snapshot, dead_letters_waiting=self._dead_letters_waiting, topics_unfit=self._topics_unfit),
            flow,
        )

    def published(self) -> tuple[Snapshot, Flow]:
        """The state of things and the last minutes, as they were published last. For any thread."""
        return self._published

    def watch_heartbeats(self, ages: Callable[[], Mapping[Thread, float]]) -> None:
        """Ask `ages` at each scrape for the seconds since each thread's last heartbeat; it is called on that thread.

        Not part of the snapshot, which is as old as the event loop's own heartbeat.
        """
        self._heartbeat_ages = ages

    def _at_scrape(self) -> Iterator[Metric]:
        yield from snapshot_families(self._published[0])
        yield gauge(
            "heartbeat_age_seconds",
            "Seconds since the thread's last heartbeat.",
            "thread",
            self._heartbeat_ages().items(),
        )
        yield from broker_families(dict(self._statistics))


class _Series(Generic[M], dict[tuple[str, ...], M]):
    """A metric's series by the values of its labels: a dict's look-up instead of the client's locked one."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, labels: tuple[str, ...]) -> M:
        series = self[labels] = self._metric.labels(*labels)
        return series

    def start(self, labels: Iterable[tuple[str, ...]]) -> None:
        """Let these series exist from now on."""
        for each in labels:
            self[each]


class _AtScrape(Collector):
    """What is only known at the moment of the scrape."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return what the scrape shall hold."""
        return self._families()

    def describe(self) -> Iterable[Metric]:
        """Return the same: the registry wants only the names."""
        return self._families()
