"""Values that need a schema: a registry that fails holds up its partitions, and never makes a dead letter."""

from __future__ import annotations

import json

from consumer.config.sections.registry import Registry
from consumer.core.clock import steady_clock
from consumer.events.formats.formats import Formats, TopicFormat
from consumer.kafka.registry.client import ConfluentRegistry
from consumer.kafka.registry.readers import reader_of
from consumer.kafka.registry.schemas import Schemas
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import order_id
from tests.support.registry import TestRegistry, framed
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

JSON = {"schema": "{}", "schemaType": "JSON"}


def value(schema: int, order: str, job: str, number: int) -> bytes:
    event = {"type": "order.shipped", "orderId": order, "engage": {"jobId": job}, "data": {"event": number}}
    return framed(schema, json.dumps(event).encode())


def test_a_registry_that_is_down_holds_up_its_partition_alone_until_it_answers(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    source = sandbox.topics.source
    held, free = order_id("held"), order_id("free")
    with Engage() as engage, Books(sandbox) as books, TestRegistry({1: JSON, 2: JSON}) as registry:
        schemas = Schemas(ConfluentRegistry(Registry(url=registry.url).properties), steady_clock(), reader_of)
        schemas.fetch("1", framed(1, b"{}"))
        registry.status = 503
        formats = Formats({source: TopicFormat(format="confluent")}, schemas)
        with RelayThread(sandbox, engage.url, formats=formats, schemas=schemas) as relay:
            relay.wait_until_restored()
            first = [(b"k", value(1, held, engage.submit(held), 1)), (b"k", value(2, held, engage.submit(held), 2))]
            sandbox.write(source, [*first, (b"k", value(1, held, engage.submit(held), 3))], 0)
            until(lambda: relay.metric("stalled_partitions", reason="registry") == 1, "the partition stands still")
            assert relay.waiting == "waits for the Schema Registry (schema id 2): it answered 503"
            sandbox.write(source, [(b"k", value(1, free, engage.submit(free), 1))], 1)
            until(lambda: engage.events_of(free) == [1] and engage.events_of(held) == [1], "the others are accepted")
            assert sandbox.offset(source, 0) == 1

            registry.status = None
            until(lambda: engage.events_of(held) == [1, 2, 3], "what waited is accepted in its order")
            until(lambda: relay.waiting is None, "nothing waits")
            assert relay.metric("stalled_partitions", reason="registry") == 0
            books.wait_until_settled()
            assert books.dead_letters == []


def test_a_schema_that_stays_unknown_makes_a_dead_letter_after_the_grace(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    source, order = sandbox.topics.source, order_id("A")
    with Engage() as engage, Books(sandbox) as books, TestRegistry({1: JSON}) as registry:
        schemas = Schemas(ConfluentRegistry(Registry(url=registry.url).properties), steady_clock(), reader_of)
        formats = Formats({source: TopicFormat(format="confluent")}, schemas)
        with RelayThread(sandbox, engage.url, formats=formats, schemas=schemas) as relay:
            relay.wait_until_restored()
            unknown = value(9, order, "no job", 1)
            sandbox.write(source, [(b"k", unknown), (b"k", value(1, order, engage.submit(order), 2))])
            until(lambda: relay.metric("stalled_partitions", reason="unknown_schema") == 1, "it says what it waits for")
            until(lambda: engage.events_of(order) == [2], "the stream goes on")
            books.wait_until_settled()
            (dead,) = books.dead_letters
            assert dead.reason is Reason.UNKNOWN_SCHEMA
            assert dead.why.detail == "the Schema Registry has no schema id 9"
            assert dead.value == unknown
