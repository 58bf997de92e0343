"""`engage-relay run`, from the first check to the exit code.

Before the relay starts, it checks the topics (or creates them), and settles where a new topic starts. It waits for
brokers that do not answer. What a person must decide ends the process with an exit code of its own (`ExitCode`).
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry

from consumer import __version__
from consumer.admin.fleet import Fleet
from consumer.admin.orders import Orders
from consumer.admin.server import AdminServer, Health, Heartbeats
from consumer.admin.status_model import Identity
from consumer.config.files import check_files
from consumer.config.formats import formats_of
from consumer.config.searching import search_of
from consumer.config.settings import Settings
from consumer.core.clock import steady_clock
from consumer.errors import ExitCode, FatalError
from consumer.events.guards import Shadow
from consumer.kafka.dead_letters.waiting import WaitingDeadLetters
from consumer.kafka.own_thread import OwnThread
from consumer.kafka.reaching import Waiting
from consumer.kafka.source.initial_offsets import Start, start_of
from consumer.kafka.topics.watch import TopicsWatch
from consumer.relay.loop import Relay
from consumer.run.ground import prepare, settled, unfit_topics
from consumer.run.wiring import connection_of, instance_name, relay_of, tracing_asked_for
from consumer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from consumer.telemetry.tracing import Tracing  # an extra

GC_THRESHOLDS = (20_000, 20, 20)

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
        connections = [connection_of(name, settings, metrics) for name in settings.engage.connections]
        settle = partial(settled, settings, start or start_of(settings.kafka), sends=shadow is None)
        ground = await prepare(settings, stop, waiting, settle, create_topics=create_topics)
        if ground is None:
            return ExitCode.OK
        who = replace(who, cluster=next((each.cluster_id for each in ground.identities.values()), None))
        if shadow is not None:
            _LOG.warning("shadow run: nothing is sent to Engage", polls=shadow == "polls")
        relay = relay_of(
            settings, ground, connections, metrics, heartbeats, clock=clock, tracing=tracing, shadow=shadow
        )
        counter = WaitingDeadLetters(
            settings.kafka,
            ground.topics,
            owned=lambda: metrics.published()[0].partitions,
            report=metrics.dead_letters_waiting,
        )
        beside += counter, TopicsWatch(partial(unfit_topics, settings), metrics.topics_unfit)
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
