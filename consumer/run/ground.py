"""What a relay stands on, before it starts: brokers that answer, topics that fit, and a place to start from.

It waits for brokers that do not answer. What a person must decide raises a FatalError.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.config.formats import formats_of
from consumer.config.settings import Settings
from consumer.errors import KafkaUnreachableError
from consumer.events.deciding import decide
from consumer.events.routing.event_times import UNKNOWN_TIME_MS
from consumer.events.routing.results import Routed, Several
from consumer.kafka import clients
from consumer.kafka.identity.identity import unknown_ids
from consumer.kafka.identity.removed import Removed, removed_sources
from consumer.kafka.limits import beyond_limits
from consumer.kafka.reaching import Waiting, reached
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.source.initial_offsets import Beginnings, Start, settle_start
from consumer.kafka.source.old_events import OLD_S, refuse_old_events
from consumer.kafka.topics import topics as kafka_topics
from consumer.kafka.topics.asking import partition_counts
from consumer.kafka.topics.topics import RelayTopics
from schemas.pending_action import SourceIdentity

BROKER_RETRY_S = 1.0

_LOG = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What was found of the source topics, those included that are only drained: all by source topic."""

    topics: Mapping[str, RelayTopics]
    counts: Mapping[str, int]
    identities: Mapping[str, SourceIdentity]


async def prepare(
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


def unfit_topics(settings: Settings) -> dict[str, list[str]]:
    """Return why topics do not fit, by topic. Raises KafkaException."""
    # A client of its own for each look: it is idle for minutes, and its threads are not.
    admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
    return kafka_topics.unfit(admin, settings.topics, settings.topic_rules, settings.control_topic)


def settled(settings: Settings, start: Start | None, *, sends: bool) -> Ground:
    """Settle where each topic starts. Returns what was found. `sends`: False in a shadow run.

    Raises KafkaException, FatalError.
    """
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
    return Ground(topics, partition_counts(admin, topics), identities)


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
