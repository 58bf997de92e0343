"""Events whose schema is not known wait, with what lies behind them; a registry's failure never makes a dead letter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import cast

import structlog

from consumer.core.ownership import Assignment
from consumer.events.formats.formats import Awaiting
from consumer.kafka.facts import Read
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.registry.schemas import RegistryError, UnknownSchemaError
from consumer.relay.edges import Source
from consumer.relay.log import ThrottledLog
from consumer.relay.schemas import SchemaWaits
from consumer.relay.tasks import Tasks
from tests.support.waiting import PATIENCE_S

ORDERS, OTHERS = Assignment("orders", 0, 1), Assignment("orders", 1, 2)


class Registry:
    """Knows schemas; asks are answered when `answers` says so."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.given_up: set[str] = set()
        self.before: set[str] = set()
        self.failure: Exception | None = None
        self.threads: set[int] = set()
        self.asked = 0

    def fetch(self, schema: str, sample: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.asked += 1
        if self.failure is not None:
            raise self.failure

        self.known.add(schema)

    def give_up(self, schema: str) -> None:
        self.given_up.add(schema)

    def was_given_up(self, schema: str) -> bool:
        return schema in self.given_up | self.before


class World:
    """The waits, with a source and an outbox that write down what they are asked."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.now = 0.0
        self.taken: list[tuple[int, int]] = []
        self.held: list[Assignment] = []
        self.failures: list[BaseException] = []
        self.waits = SchemaWaits(
            self.registry,
            source=cast("Source", self),
            take=self._take,
            grace_s=60.0,
            clock=lambda: self.now,
            tasks=Tasks(self.failures.append),
            tick_soon=lambda: None,
            log=ThrottledLog(cast("structlog.stdlib.BoundLogger", structlog.get_logger()), lambda: self.now),
        )

    def hold(self, assignment: Assignment) -> None:
        if assignment not in self.held:
            self.held.append(assignment)

    def release(self, assignment: Assignment) -> None:
        self.held.remove(assignment)

    def _take(self, read: Read, _: float) -> tuple[Read, Awaiting] | None:
        for number, event in enumerate(read.events):
            schema = (event.value or b"").decode()
            if schema and schema not in self.registry.known | self.registry.given_up:
                return Read(read.assignment, read.events[number:], read.next_offset), Awaiting(schema, b"")
            self.taken.append((event.partition, event.offset))
        return None


def read(assignment: Assignment, offset: int, *schemas: str) -> Read:
    events = [
        SourceEvent(
            topic=assignment.topic,
            partition=assignment.partition,
            offset=offset + number,
            timestamp_ms=None,
            key=None,
            value=schema.encode(),
        )
        for number, schema in enumerate(schemas)
    ]
    return Read(assignment, events, offset + len(schemas))


def played(play: Callable[[World], Awaitable[None]]) -> World:
    """Play a scene on an event loop whose sleeps take no time."""
    world = World()
    sleep = asyncio.sleep

    async def at_once(delay_s: float) -> None:
        world.now += min(delay_s, 1.0)  # `until` lets none pass, however slow another thread is
        await sleep(0)

    async def scene() -> None:
        asyncio.sleep = at_once  # type: ignore[assignment]
        try:
            await asyncio.wait_for(play(world), PATIENCE_S)
        finally:
            asyncio.sleep = sleep
            world.waits.close()

    asyncio.run(scene())
    assert world.failures == []
    return world


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - no time passes here
        await asyncio.sleep(0)


def test_what_lies_behind_waits_and_comes_in_its_order() -> None:
    async def play(world: World) -> None:
        world.waits.take(read(ORDERS, 0, "", "7", ""), 0.0)
        world.waits.take(read(ORDERS, 3, "", "8"), 0.0)
        world.waits.take(read(OTHERS, 0, ""), 0.0)
        assert world.taken == [(0, 0), (1, 0)]
        assert world.held == [ORDERS]
        assert world.waits.reason(ORDERS) == "registry"
        assert world.waits.reason(OTHERS) is None
        assert world.waits.why == "waits for the Schema Registry (schema id 7): it did not answer yet"
        await until(lambda: not world.held)

    world = played(play)
    assert world.taken == [(0, 0), (1, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    assert world.waits.why is None
    assert threading.get_ident() not in world.registry.threads


def test_a_registry_that_fails_is_waited_for_without_end() -> None:
    async def play(world: World) -> None:
        world.registry.failure = RegistryError("it cannot be reached (ConnectError)")
        world.waits.take(read(ORDERS, 0, "7"), 0.0)
        await until(lambda: world.registry.asked > 100)
        assert world.now > 60
        assert world.registry.given_up == set()
        assert world.waits.reason(ORDERS) == "registry"
        assert "ConnectError" in str(world.waits.why)
        world.registry.failure = None
        await until(lambda: not world.held)

    assert played(play).taken == [(0, 0)]


def test_an_unknown_schema_is_given_up_after_the_grace_and_not_before() -> None:
    async def play(world: World) -> None:
        world.registry.failure = UnknownSchemaError()
        world.waits.take(read(ORDERS, 0, "7", ""), 0.0)
        await until(lambda: world.waits.reason(ORDERS) == "unknown_schema")
        await until(lambda: world.now > 50)
        assert world.registry.given_up == set()
        await until(lambda: not world.held)
        assert world.now >= 60

    world = played(play)
    assert world.registry.given_up == {"7"}
    assert world.taken == [(0, 0), (0, 1)]


def test_a_failure_between_does_not_count_against_the_grace() -> None:
    async def play(world: World) -> None:
        world.registry.failure = UnknownSchemaError()
        world.waits.take(read(ORDERS, 0, "7"), 0.0)
        await until(lambda: world.now > 50)
        world.registry.failure = RegistryError("down")
        await until(lambda: world.waits.reason(ORDERS) == "registry")
        world.registry.failure = UnknownSchemaError()
        await until(lambda: world.now > 100)
        assert world.registry.given_up == set()

    played(play)


def test_a_partition_that_is_given_away_takes_along_what_waits() -> None:
    async def play(world: World) -> None:
        world.registry.failure = RegistryError("down")
        world.waits.take(read(ORDERS, 0, "7"), 0.0)
        world.waits.drop([ORDERS])
        again = Assignment("orders", 0, 9)
        world.waits.take(read(again, 0, "7"), 0.0)
        world.registry.failure = None
        await until(lambda: (0, 0) in world.taken)
        await until(lambda: world.waits.why is None)

    assert played(play).taken == [(0, 0)]


def test_a_schema_that_was_given_up_before_gets_no_second_grace() -> None:
    async def play(world: World) -> None:
        world.registry.failure = UnknownSchemaError()
        world.registry.before.add("7")
        world.waits.take(read(ORDERS, 0, "7"), 0.0)
        await until(lambda: not world.held)
        assert world.now < 10

    assert played(play).taken == [(0, 0)]
