"""`engage-relay run`, from the first check to the exit code.

Before the relay starts, it checks the topics (or creates them), and settles where a new topic starts. It waits for
brokers that do not answer. What a person must decide ends the process with an exit code of its own (`ExitCode`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from consumer import __version__, logs
from consumer.admin.fleet import Fleet
from consumer.admin.orders import Orders
from consumer.admin.server import AdminServer, Health, Heartbeats
from consumer.admin.status_model import Identity
from consumer.config.files import check_files
from consumer.config.formats import formats_of
from consumer.config.searching import search_of
from consumer.config.sections.connections import Connection as ConnectionSettings
from consumer.config.sections.polling import Polling
from consumer.config.settings import Settings
from consumer.core.clock import Clock, steady_clock
from consumer.core.ledger.waits import Policy
from consumer.core.pacing import Pace, PollSchedule
from consumer.core.repeats import Repeats
from consumer.engage.client import EngageClient
from consumer.engage.http import OnRequest, Origin
from consumer.errors import ConfigurationError, ExitCode, FatalError, KafkaUnreachableError
from consumer.events.deciding import decide
from consumer.events.guards import Shadow
from consumer.events.routing.event_times import UNKNOWN_TIME_MS
from consumer.events.routing.results import Routed, Several
from consumer.kafka import clients
from consumer.kafka.control.asked_for import READS, AskedFor
from consumer.kafka.control.reader import ControlReader
from consumer.kafka.dead_letters.waiting import WaitingDeadLetters
from consumer.kafka.identity.identity import unknown_ids
from consumer.kafka.identity.removed import Removed, removed_sources
from consumer.kafka.journal.journal import Journal
from consumer.kafka.limits import beyond_limits
from consumer.kafka.outcomes.sent_facts import read_facts
from consumer.kafka.own_thread import OwnThread
from consumer.kafka.parking.read_back import ReadBack
from consumer.kafka.reaching import Waiting, reached
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.restore import KafkaReader, Restorer
from consumer.kafka.source.initial_offsets import Beginnings, Start, settle_start, start_of
from consumer.kafka.source.membership import MIN_HAND_OVER_S
from consumer.kafka.source.old_events import OLD_S, refuse_old_events
from consumer.kafka.source.source import Source
from consumer.kafka.topics import topics as kafka_topics
from consumer.kafka.topics.topics import RelayTopics
from consumer.kafka.topics.watch import TopicsWatch
from consumer.relay.connections import Connection, ahead_of, slots_of
from consumer.relay.dispatch import LEASE_OF_SESSION, MAX_LEASE_S, lease_of
from consumer.relay.inbox import Inbox
from consumer.relay.loop import Relay
from consumer.relay.outbox import Limits, replace_too_large
from consumer.telemetry.metrics import Metrics
from schemas.pending_action import SourceIdentity

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

BROKER_RETRY_S = 1.0
HAND_OVER_SLACK_S = 1.0  # for the journal, when the last outcome is known
DEFAULT_HEARTBEAT_MS = 3_000  # librdkafka's
GC_THRESHOLDS = (20_000, 20, 20)
USER_AGENT = f"engage-relay/{__version__}"

_LOG = structlog.stdlib.get_logger(__name__)


def run(settings: Settings, *, start: Start | None, create_topics: bool, shadow: Shadow | None = None) -> ExitCode:
    """Run until SIGTERM or SIGINT (a second one ends it at once), or until something ends it.

    `shadow`: send nothing.
    """
    # What is loaded by now stays. The collector need not look at it again, and seldom at pending actions, which are
    # hardly ever part of a cycle.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(settings, start=start, create_topics=create_topics, shadow=shadow))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not made for every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(settings: Settings, *, start: Start | None, create_topics: bool, shadow: Shadow | None) -> ExitCode:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop_or_end, stop, number)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    heartbeats = Heartbeats()
    metrics.watch_heartbeats(heartbeats.ages)
    metrics.build_info(__version__)
    clock = steady_clock()
    relay: Relay | None = None
    tracing: Tracing | None = None
    beside: list[OwnThread] = []

    waiting = Waiting()

    def health() -> Health:
        if relay is None:
            return Health(heartbeats.ages(), draining=stop.is_set(), waiting=waiting.text)
        return Health(heartbeats.ages(), relay.failed_by, relay.joined, stop.is_set(), relay.waiting)

    who = Identity(instance_name(settings), str(settings.kafka["group.id"]))
    admin = AdminServer(
        (settings.admin.listen.host, settings.admin.listen.port),
        registry,
        health,
        metrics.published,
        identity=lambda: who,
        orders=Orders(settings.topics, partial(search_of, settings, clock)),
        fleet=Fleet(settings.admin.instances) if settings.admin.instances else None,
    )
    try:
        check_files(settings)
        formats_of(settings, clock)  # what is not installed ends it here, before it waits for any broker
        admin.start()
        _LOG.info("engage-relay starts", version=__version__, admin_port=admin.port)
        tracing = tracing_asked_for(settings, clock)
        connections = [_connection(name, settings, metrics) for name in settings.engage.connections]
        settle = partial(_settle_start, settings, start or start_of(settings.kafka), sends=shadow is None)
        ground = await _prepare(settings, stop, waiting, settle, create_topics=create_topics)
        if ground is None:
            return ExitCode.OK
        who = replace(who, cluster=next((each.cluster_id for each in ground.identities.values()), None))
        if shadow is not None:
            _LOG.warning("shadow run: nothing is sent to Engage", polls=shadow == "polls")
        relay = _relay(settings, ground, connections, metrics, heartbeats, clock=clock, tracing=tracing, shadow=shadow)
        counter = WaitingDeadLetters(
            settings.kafka,
            ground.topics,
            owned=lambda: metrics.published()[0].partitions,
            report=metrics.dead_letters_waiting,
        )
        beside += counter, TopicsWatch(partial(_unfit_topics, settings), metrics.topics_unfit)
        for each in beside:
            each.start()
        await relay.run(stop)
    except FatalError as error:
        _LOG.error("cannot run", why=str(error).splitlines(), advice=error.advice)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the process's edge: any error ends it, by its name
        _LOG.error("failed", exc_info=error)
        return ExitCode.FAILED
    finally:
        for each in beside:
            each.stop()
        if tracing is not None:
            tracing.close()
        admin.close()
    _LOG.info("stopped")
    return ExitCode.OK


def _stop_or_end(stop: asyncio.Event, number: int) -> None:
    if stop.is_set():
        sys.stderr.flush()
        os._exit(128 + number)
    stop.set()


@dataclass(frozen=True, slots=True)
class Ground:
    """What was found of the source topics, those included that are only drained: all by source topic."""

    topics: Mapping[str, RelayTopics]
    counts: Mapping[str, int]
    identities: Mapping[str, SourceIdentity]


async def _prepare(
    settings: Settings,
    stop: asyncio.Event,
    waiting: Waiting,
    settle: Callable[[], Ground],
    *,
    create_topics: bool,
) -> Ground | None:
    """Check what a relay needs. Returns what it stands on, or None if it was stopped meanwhile."""
    loop = asyncio.get_running_loop()
    stopped = loop.create_task(stop.wait())
    noted: set[str] = set()
    refused = False  # brokers that answer the check and then refuse a start are waited for all the time
    try:
        while not stop.is_set():
            check = partial(_check, settings, waiting, noted, stopped=stop.is_set, create_topics=create_topics)
            checking = _in_daemon_thread(check)
            ends: set[asyncio.Future[Any]] = {checking, stopped}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not checking.done():
                return None  # a call to brokers that do not answer takes seconds: do not wait for it
            try:
                checking.result()
                if not refused:
                    waiting.over()
                # Once begun, finish it: half of a start, once written, would be another start.
                ground = await loop.run_in_executor(None, settle)
            except KafkaException as error:
                refused = True
                if (beyond := beyond_limits(clients.error_of(error))) is not None:
                    raise beyond from None
                waiting.say(f"Kafka does not answer as it should, trying again: {clients.error_of(error).str()}")
            else:
                waiting.over()
                return ground
            await asyncio.wait({stopped}, timeout=BROKER_RETRY_S)
    finally:
        stopped.cancel()
    return None


def _in_daemon_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run what may block in a daemon thread. The process's end does not wait for it, unlike an executor's."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error = None
        try:
            work()
        except Exception as raised:  # noqa: BLE001 - raised again where `done` is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="check", daemon=True).start()
    return done


def _check(
    settings: Settings, waiting: Waiting, noted: set[str], *, stopped: Callable[[], bool], create_topics: bool
) -> None:
    """Wait for the brokers, and check the topics. `noted`: what was said of them before.

    Raises KafkaException, TopicError, ConfigurationError.
    """
    try:
        admin, causes = reached(settings.kafka, say=waiting.say, stopped=stopped)
    except KafkaUnreachableError:
        if stopped():
            return
        raise
    if stopped():
        return
    try:
        if create_topics:
            rules, control = settings.topic_rules, settings.control_topic
            for line in kafka_topics.create(admin, settings.topics, rules=rules, control=control):
                _LOG.info(line)
        for line in kafka_topics.check(admin, settings.topics, settings.topic_rules, settings.control_topic):
            if line not in noted:
                _LOG.warning(line)
            noted.add(line)
    except KafkaException as error:
        raise causes.explained(admin, error) from None


def _unfit_topics(settings: Settings) -> dict[str, list[str]]:
    # A client of its own for each look: it is idle for minutes, and its threads are not.
    admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
    return kafka_topics.unfit(admin, settings.topics, settings.topic_rules, settings.control_topic)


def _settle_start(settings: Settings, start: Start | None, *, sends: bool) -> Ground:
    check = _old_events_check(settings) if sends and start == "earliest" else None
    started = settle_start(settings.kafka, settings.topics, start, check)
    for line in started.decided:
        _LOG.info(line)
    for each in started.identities.values():
        if (why := unknown_ids(each)) is not None:
            _LOG.info(why)
    topics = {each.source: each for each in settings.topics}
    identities = dict(started.identities)
    for found in _removed(settings):
        _LOG.warning(str(found))
        if found.identity is not None and settings.source.removed == "deliver":
            topics[found.topics.source], identities[found.topics.source] = found.topics, found.identity
    admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
    return Ground(topics, kafka_topics.partition_counts(admin, topics), identities)


def _old_events_check(settings: Settings) -> Callable[[Sequence[Beginnings]], None] | None:
    """Return what refuses a start that mails old orders; None where the configuration says how old they may be."""
    if settings.max_age is not None or all(each.max_age is not None for each in settings.effective_routes.values()):
        return None
    router, ours, now = settings.router, settings.dead_letter_topics, time.time()
    formats, _ = formats_of(settings, time.time)

    def is_old(event: SourceEvent) -> bool:
        decided = decide(event, router, ours, now=now, formats=formats)
        actions = decided.actions if isinstance(decided, Several) else (decided,)
        return any(
            isinstance(each, Routed)
            and each.stopped is None
            and UNKNOWN_TIME_MS < each.event_time_ms < (now - OLD_S) * 1000
            for each in actions
        )

    return lambda starting: refuse_old_events(settings.kafka, starting, is_old, now)


def _removed(settings: Settings) -> list[Removed]:
    """Look for sources that are no longer configured. Where the group's offsets may not be read, there is no answer."""
    try:
        return removed_sources(settings.kafka, settings.topics, settings.delay.topic, settings.topics_of)
    except KafkaException as error:
        why = clients.error_of(error).str()
        _LOG.warning("nobody knows whether sources that are no longer configured have something pending", why=why)
        return []


def _relay(
    settings: Settings,
    ground: Ground,
    connections: list[Connection],
    metrics: Metrics,
    heartbeats: Heartbeats,
    *,
    clock: Clock,
    tracing: Tracing | None,
    shadow: Shadow | None,
) -> Relay:
    routes = settings.effective_routes
    metrics.expect(
        topics=ground.topics,
        connections=settings.engage.connections,
        routes=[(name, route.action) for name, route in routes.items()],
    )
    polling = settings.polling
    topics = ground.topics
    formats, schemas = formats_of(settings, clock)
    hand_over_s = hand_over_of(settings)
    if (why := short_session(settings)) is not None:
        _LOG.warning(why)
    repeats_s, window_s, sequences = settings.longest_repeats_s, settings.longest_window_s, settings.sequences
    drained = {name for name, each in topics.items() if each.drained}
    inbox = Inbox()
    source = Source(
        properties=settings.kafka,
        topics=topics,
        identities=ground.identities,
        report=inbox.put,
        clock=clock,
        hand_over_s=hand_over_s,
        beat=lambda: heartbeats.beat("consumer"),
        drained=drained,
    )
    journal = Journal(
        properties=settings.kafka,
        transactional_id=transactional_id(settings),
        topics=topics,
        identities=ground.identities,
        ownership=lambda: source.ownership,
        clock=clock,
        report=inbox.put,
        replace_too_large=partial(replace_too_large, clock=clock, tracing=tracing),
        control=settings.control_topic,
    )
    restorer = Restorer(
        KafkaReader(settings.kafka),
        topics=topics,
        identities=ground.identities,
        say=_LOG.warning,
        wanted=source.owns,
        clock=clock,
        sequences=sequences,
    )
    control = settings.control_topic
    parked = ReadBack(lambda: KafkaReader(settings.kafka), topics=topics, wanted=source.owns, clock=clock)
    return Relay(
        inbox=inbox,
        source=source,
        journal=journal,
        restorer=restorer,
        parked=parked,
        connections=connections,
        router=settings.router_of(shadow),
        policy=Policy(
            schedule=_schedule(polling),
            deadline_s=polling.deadline,
            not_found_grace_s=polling.not_found_grace,
            contact_grace_s=polling.contact_grace,
            processing_s=max(
                max(each.action_timeout, 2 * each.timeout) for each in settings.engage.connections.values()
            ),
            shadow=shadow is not None,
        ),
        limits=Limits(settings.limits.pending),
        dead_letter_topics=settings.dead_letter_topics,
        partition_counts=ground.counts,
        lease_s=lease_of(settings.kafka),
        clock=clock,
        jitter=random.random,
        metrics=metrics,
        heartbeats=heartbeats,
        hand_over_s=hand_over_s,
        repeats=None if repeats_s is None else Repeats(repeats_s),
        sequences=sequences,
        read_facts=None if window_s is None else read_facts(settings.kafka, topics, window_s, clock, sequences.steps),
        tracing=tracing,
        formats=formats,
        schemas=schemas,
        unknown_schema_grace_s=0.0 if settings.registry is None else settings.registry.unknown_schema_grace,
        drained=drained,
        control=None if control is None else ControlReader(settings.kafka, control, inbox.put),
        asked_for=AskedFor(lambda: KafkaReader({**settings.kafka, **READS}), topics=topics, clock=clock),
        incarnations={name: each.incarnation for name, each in ground.identities.items()},
    )


def _schedule(polling: Polling) -> PollSchedule:
    if polling.initial == "auto":
        return PollSchedule(learns=True, max_interval_s=polling.max_interval)
    return PollSchedule(initial_s=polling.initial, max_interval_s=polling.max_interval)


def tracing_asked_for(settings: Settings, clock: Clock) -> Tracing | None:
    """Return the tracing, if the environment asks for it (docs/tracing.md). Otherwise nothing of it is imported.

    Raises ConfigurationError where tracing is not installed or misconfigured.
    """
    exporter, disabled = (os.environ.get(name, "").strip() for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"))
    if exporter in ("", "none") or disabled.lower() == "true":
        return None
    try:
        from consumer.telemetry import tracing  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        why = "OTEL_TRACES_EXPORTER: tracing is not installed: pip install 'engage-relay[otel]'"
        raise ConfigurationError((why,)) from None
    origins = {name: Origin(each.base_url) for name, each in settings.engage.connections.items()}
    started = tracing.start(group=str(settings.kafka["group.id"]), origins=origins, clock=clock)
    _LOG.info("traces are exported")
    return started


def _connection(name: str, settings: Settings, metrics: Metrics) -> Connection:
    connection = settings.engage.connections[name]
    key = connection.key()
    rate = connection.requests_per_second
    known = ""

    def current_key() -> str:
        nonlocal known
        current = key.current()
        if current != known:  # a new key is as secret as the old one
            logs.redact(current)
            known = current
        return current

    client = engage_client(connection, current_key, partial(metrics.request, name))
    return Connection(
        name=name,
        client=client,
        pace=Pace(rate),
        api_key=current_key,
        slots=slots_of(rate),
        ahead=ahead_of(rate),
    )


def engage_client(
    connection: ConnectionSettings, api_key: Callable[[], str], on_request: OnRequest | None = None
) -> EngageClient:
    """Return the client of a configured connection. Raises ConfigurationError where its `ca_file` is of no use."""
    try:
        return EngageClient(
            base_url=connection.base_url,
            api_key=api_key,
            api_key_header=connection.api_key_header,
            user_agent=f"{connection.user_agent} {USER_AGENT}" if connection.user_agent else USER_AGENT,
            headers=connection.headers,
            timeout_s=connection.timeout,
            action_timeout_s=connection.action_timeout,
            ca_file=connection.ca_file,
            proxy=connection.proxy_in(os.environ),
            on_request=on_request,
        )
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror or "it holds no certificates"
        raise ConfigurationError((f"ca_file {connection.ca_file}: {why}",)) from None


def hand_over_of(settings: Settings) -> float:
    """Return how many seconds a hand-over waits: until every request under way has ended, and one more second.

    A request ends after twice its time-out T; an action after T/2 to connect and `action_timeout` for the answer: with
    the defaults 5 + 30 + 1 = 36 s.
    """
    calls_s = [max(2 * each.timeout, each.timeout / 2 + each.action_timeout) for each in _connections_of(settings)]
    return max(MIN_HAND_OVER_S, max(calls_s) + HAND_OVER_SLACK_S)


def _connections_of(settings: Settings) -> Iterable[ConnectionSettings]:
    return settings.engage.connections.values()


def short_session(settings: Settings) -> str | None:
    """Say why `session.timeout.ms` is too short for an action, with the sum; None where it is long enough.

    An action may leave until its intent's lease ends, and its answer takes `action_timeout` at most. It must be over
    before another instance can own the partition, which is one session after the last heartbeat.
    """
    kafka = settings.kafka
    if str(kafka.get("group.protocol", "classic")).lower() == "consumer":  # the session is the broker's to set
        return None
    session_s = clients.session_s(kafka)
    heartbeat_s = float(kafka.get("heartbeat.interval.ms", DEFAULT_HEARTBEAT_MS)) / 1000
    name, answer_s = max(
        ((name, each.action_timeout) for name, each in settings.engage.connections.items()), key=lambda each: each[1]
    )
    lease = lease_of(kafka)
    if lease + answer_s <= session_s - heartbeat_s:
        return None
    enough_s = min((answer_s + heartbeat_s) / (1 - LEASE_OF_SESSION), answer_s + heartbeat_s + MAX_LEASE_S)
    shorter_s = max(0.0, session_s - heartbeat_s - lease)
    return (
        f"kafka.session.timeout.ms: {session_s * 1000:.0f} is too short: an intent's lease of {lease:g} s and "
        f"action_timeout of {answer_s:g} s (connection {name}) are {lease + answer_s:g} s, but after "
        f"{session_s - heartbeat_s:g} s (less heartbeat.interval.ms) another instance may own the partition; "
        f"make it at least {math.ceil(enough_s * 1000)}, or action_timeout at most {shorter_s:g}s"
    )


def instance_name(settings: Settings) -> str:
    """Return what tells this instance from the others: its `group.instance.id`, else its host's name (the pod's)."""
    return str(settings.kafka.get("group.instance.id") or socket.gethostname())


def transactional_id(settings: Settings) -> str:
    """Return the id that fences this instance's producers.

    It is the user's own, or made of `group.instance.id`. Those are stable, so a restart ends the former run's
    transaction at once. Otherwise it is unique to this run: two instances with the same id would fence each other for
    ever.
    """
    group = settings.kafka["group.id"]
    if given := settings.kafka.get("transactional.id"):
        return str(given)
    if instance := settings.kafka.get("group.instance.id"):
        return f"{group}-{instance}"
    return f"{group}-{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
