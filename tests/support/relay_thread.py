"""The relay in this process, on a thread of its own."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

import uvloop
from confluent_kafka import Consumer, KafkaException
from prometheus_client import CollectorRegistry

from consumer.admin.server import Heartbeats
from consumer.admin.status import status_of
from consumer.admin.status_model import Status
from consumer.core.clock import steady_clock
from consumer.core.ledger.waits import Policy
from consumer.core.ownership import Partition
from consumer.core.pacing import Pace, PollSchedule
from consumer.core.progress import STALL_S, Reading
from consumer.engage.client import EngageClient
from consumer.events.formats.formats import JSON, Formats
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from consumer.kafka.facts import Failed
from consumer.kafka.journal.journal import Journal
from consumer.kafka.parking.read_back import ReadBack
from consumer.kafka.restore.reader import KafkaReader
from consumer.kafka.restore.restore import Restorer
from consumer.kafka.source.initial_offsets import Started, settle_start
from consumer.kafka.source.membership import MIN_HAND_OVER_S
from consumer.kafka.source.source import Source
from consumer.relay.connections import Connection, ahead_of, slots_of
from consumer.relay.dispatch import lease_of
from consumer.relay.inbox import Inbox
from consumer.relay.loop import Relay
from consumer.relay.outbox import Limits, replace_too_large
from consumer.relay.schemas import Schemas
from consumer.telemetry.metrics import Metrics
from tests.support.engage import API_KEY
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_S, deaths, until

IMPATIENT = PollSchedule(initial_s=0.05, max_interval_s=0.3, backoff_s=(0.1, 0.2))
QUICK = Policy(schedule=IMPATIENT, deadline_s=120.0, not_found_grace_s=1.0, contact_grace_s=1.0, processing_s=0.5)
GRACE_S = 1.0  # of a schema that a registry does not know
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _settled_start(sandbox: Sandbox) -> Started | None:
    try:
        return settle_start(sandbox.properties, [sandbox.topics], "earliest")
    except KafkaException:  # the group's coordinator is not there yet; run waits for it, too
        return None


class RelayThread:
    """The Relay as consumer/run/wiring.py makes it, on a thread with an event loop of its own, and in a hurry."""

    def __init__(
        self,
        sandbox: Sandbox,
        engages: Mapping[str, str] | str,
        *,
        policy: Policy = QUICK,
        rules: Mapping[str, RouteRule] = BUILT_IN_ROUTES,
        loop_factory: LoopFactory = uvloop.new_event_loop,
        requests_per_second: float = 400.0,
        timeout_s: float = 20.0,
        max_pending: int = 100_000,
        max_parked: int | None = None,
        stall_s: float = STALL_S,
        api_key: Callable[[], str] = lambda: API_KEY,
        formats: Formats = JSON,
        schemas: Schemas | None = None,
    ) -> None:
        started = until(lambda: _settled_start(sandbox), "the start is written down")
        assert started is not None
        identities = started.identities
        urls = {"default": engages} if isinstance(engages, str) else engages
        self.registry = CollectorRegistry()
        self._metrics = metrics = Metrics(self.registry)
        rate = requests_per_second

        def connection(name: str, url: str) -> Connection:
            client = EngageClient(
                base_url=url,
                api_key=api_key,
                user_agent="engage-relay/tests",
                timeout_s=timeout_s,
                on_request=partial(metrics.request, name),
            )
            return Connection(
                name=name,
                client=client,
                pace=Pace(rate),
                api_key=api_key,
                slots=slots_of(rate),
                ahead=ahead_of(rate),
            )

        self._inbox = Inbox()
        clock, heartbeats, topics = steady_clock(), Heartbeats(), sandbox.relay_topics
        self._source = source = Source(
            properties=sandbox.properties,
            topics=topics,
            identities=identities,
            report=self._inbox.put,
            clock=clock,
            hand_over_s=MIN_HAND_OVER_S,
            beat=lambda: heartbeats.beat("consumer"),
        )
        journal = Journal(
            properties=sandbox.properties,
            transactional_id=sandbox.transactional_id,
            topics=topics,
            identities=identities,
            ownership=lambda: source.ownership,
            clock=clock,
            report=self._inbox.put,
            replace_too_large=partial(replace_too_large, clock=clock, tracing=None),
        )
        reader = KafkaReader(sandbox.properties)
        self._relay = Relay(
            inbox=self._inbox,
            source=source,
            journal=journal,
            restorer=Restorer(reader, topics=topics, identities=identities, say=print, wanted=source.owns, clock=clock),
            parked=ReadBack(lambda: KafkaReader(sandbox.properties), topics=topics, wanted=source.owns, clock=clock),
            partition_counts={sandbox.topics.source: sandbox.partitions},
            lease_s=lease_of(sandbox.properties),
            connections=[connection(name, url) for name, url in urls.items()],
            router=Router(compile_routes(rules), urls),
            policy=policy,
            limits=Limits(max_pending, max_parked),
            dead_letter_topics={sandbox.topics.dead_letters},
            clock=clock,
            jitter=random.Random(1).random,
            metrics=metrics,
            heartbeats=heartbeats,
            stall_s=stall_s,
            formats=formats,
            schemas=schemas,
            unknown_schema_grace_s=GRACE_S,
        )
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._running = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(loop_factory,), name="relay", daemon=True)

    def _run(self, loop_factory: LoopFactory) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(self._work())
        except Exception as error:  # noqa: BLE001 - raised where the test waits
            self._error = error
            deaths.append(error)

    async def _work(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._running.set()
        await self._relay.run(self._stop)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._running.wait(PATIENCE_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        deaths.clear()
        if kind is None and self._error is not None:
            raise self._error

    def wait_until_restored(self) -> Self:
        """Wait until it owns its partitions and consumes them."""
        until(lambda: self.metric("restore_duration_seconds_count"), "the relay has restored its partitions")
        return self

    def stop(self) -> None:
        """Stop as SIGTERM does, and wait for the end. Raises what ended it otherwise."""
        self._end()
        if self._error is not None:
            raise self._error

    def fail(self, error: Exception) -> None:
        """Have something end it."""
        self._inbox.put(Failed(error))

    def failure(self) -> BaseException:
        """Wait until it ends by itself; returns with what."""
        self._thread.join(PATIENCE_S)
        assert self._error is not None
        error, self._error = self._error, None
        deaths.remove(error)
        return error

    def _end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive(), "the relay does not end"

    def on_consumer(self, function: Callable[[Consumer], object]) -> None:
        """Have the source's thread call this with its consumer, behind everybody's back; returns when it has."""
        done = threading.Event()

        def call(consumer: Consumer) -> None:
            function(consumer)
            done.set()

        self._source._requests.append(call)
        assert done.wait(PATIENCE_S)

    @property
    def status(self) -> Status:
        """What its status page shows."""
        return status_of(self._metrics.published(), version="tests", age_s=0.0)

    @property
    def readings(self) -> Mapping[Partition, Reading]:
        """How far each partition was read."""
        return self._source.readings

    @property
    def waiting(self) -> str | None:
        """What /readyz says that it waits for."""
        return self._relay.waiting

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"engage_relay_{name}", labels) or 0.0
