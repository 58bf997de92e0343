"""The relay, made of the settings: the only file that knows every edge."""

from __future__ import annotations

import os
import random
import socket
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from consumer import __version__, logs
from consumer.admin.server import Heartbeats
from consumer.config.formats import formats_of
from consumer.config.sections.connections import Connection as ConnectionSettings
from consumer.config.sections.polling import Polling
from consumer.config.settings import Settings
from consumer.core.clock import Clock
from consumer.core.ledger.waits import Policy
from consumer.core.pacing import Pace, PollSchedule
from consumer.core.repeats import Repeats
from consumer.engage.client import EngageClient
from consumer.engage.http import OnRequest, Origin
from consumer.errors import ConfigurationError
from consumer.events.guards import Shadow
from consumer.kafka.control.asked_for import READS, AskedFor
from consumer.kafka.control.reader import ControlReader
from consumer.kafka.journal.journal import Journal
from consumer.kafka.outcomes.sent_facts import read_facts
from consumer.kafka.parking.read_back import ReadBack
from consumer.kafka.restore.reader import KafkaReader
from consumer.kafka.restore.restore import Restorer
from consumer.kafka.source.source import Source
from consumer.relay.connections import Connection, ahead_of, slots_of
from consumer.relay.dispatch import lease_of
from consumer.relay.inbox import Inbox
from consumer.relay.loop import Relay
from consumer.relay.outbox import Limits, replace_too_large
from consumer.run.ground import Ground
from consumer.run.time_outs import hand_over_of, short_session
from consumer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

USER_AGENT = f"engage-relay/{__version__}"

_LOG = structlog.stdlib.get_logger(__name__)


def relay_of(
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
    """Return the relay, ready to run. `connections`: see `connection_of`. Raises ConfigurationError."""
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


def connection_of(name: str, settings: Settings, metrics: Metrics) -> Connection:
    """Return a configured connection. Raises ConfigurationError."""
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
