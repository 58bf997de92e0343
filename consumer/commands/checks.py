"""EDGE. For `check-config`: what the configuration means and, with --online, whether brokers and Engage accept it.

Each check prints one line. The checks only ask and never change anything, with one exception: to find out whether we
may write in transactions, one opens a transactional id of its own, which the broker forgets after 7 days.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AclOperation, AdminClient

from consumer.config.files import unreadable
from consumer.config.formats import MISSING, client_of, has_client
from consumer.config.sections.connections import RECOMMENDED_REQUESTS_PER_SECOND, Connection
from consumer.config.sections.registry import Registry
from consumer.config.settings import Settings
from consumer.core.outcomes import (
    Forbidden,
    JobFailed,
    NotFound,
    NotReady,
    PollOutcome,
    Ready,
    Rejected,
    Throttled,
    Unauthorized,
    Undated,
)
from consumer.errors import ConfigurationError, ExitCode, IdentityError, KafkaUnreachableError, TopicError
from consumer.events.routing.notes import notes_on
from consumer.events.sequences import may_lose_a_parcel
from consumer.kafka import clients
from consumer.kafka.identity.identity import present_identities
from consumer.kafka.limits import beyond_limits
from consumer.kafka.reaching import GIVE_UP_S, reached
from consumer.kafka.registry.schemas import RegistryError
from consumer.kafka.source.initial_offsets import beginnings, start_of
from consumer.kafka.topics import asking, topics
from consumer.kafka.topics.rules import TopicRules
from consumer.run.time_outs import short_session
from consumer.run.wiring import engage_client

CALL_TIMEOUT_S = 15.0
ASK_RETRY_S = 0.2

_COORDINATOR_MOVES = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
)

T = TypeVar("T")
Standing = Literal["ok", "note", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. `code`: the exit code of `check-config` where the check failed."""

    standing: Standing
    what: str
    code: ExitCode = ExitCode.OK

    def __str__(self) -> str:
        return f"{self.standing:<6}  {self.what}"


def summary(settings: Settings) -> list[str]:
    """Say in a few lines what `run` would do. Holds no key."""
    lines = [f"group {settings.kafka['group.id']} at {settings.kafka['bootstrap.servers']}"]
    for each in settings.topics:
        outcomes = "none" if each.outcomes is None else each.outcomes
        lines.append(
            f"topic {each.source}: delay topic {each.delay}, dead letters {each.dead_letters}, outcomes {outcomes}"
        )
    lines.append(f"control topic {settings.control_topic or 'none: nothing can be paused'}")
    for name, connection in settings.engage.connections.items():
        key = f"from {connection.api_key_file}" if connection.api_key_file else "as configured"
        lines.append(
            f"connection {name}: {connection.base_url}, key {key} in header {connection.api_key_header}, "
            f"{connection.requests_per_second:g} requests/s{_way(connection)}"
        )
    for name, rule in settings.effective_routes.items():
        lines.append(f"route {name}: {rule.action} {f'when {rule.when}' if rule.when else 'for every event'}")
    return lines


def _way(connection: Connection) -> str:
    proxy = connection.proxy_in(os.environ)
    return "" if proxy is None else f", through the proxy {proxy.host}:{proxy.port}"


def offline(settings: Settings) -> Iterator[Finding]:
    """Check what the configuration and the files that it names can show."""
    for line in unreadable(settings):
        yield Finding("failed", line, ExitCode.CONFIGURATION)
    if settings.registry is not None and not has_client():  # here: where `run` runs, there may be one
        yield Finding("note", MISSING)
    if (why := short_session(settings)) is not None:
        yield Finding("failed", why, ExitCode.CONFIGURATION)
    if settings.longest_repeats_s is not None and any(each.outcomes is None for each in settings.topics):
        yield Finding("note", "repeats: no outcomes are written, so a restart forgets which facts were sent")
    if settings.steps and any(each.outcomes is None for each in settings.topics):
        yield Finding("note", "steps: no outcomes are written, so a restart forgets which step was sent")
    if may_lose_a_parcel(settings.steps):
        yield Finding(
            "note",
            "steps: once one parcel of an order is delivered, the shipment of its next one is not sent; if an order may"
            " have several parcels, leave ConfirmShipment out",
        )
    yield from _shared_keys(settings.engage.connections)
    for name, rule in settings.effective_routes.items():
        for note in notes_on(rule):
            yield Finding("note", f"route {name}: {note}")


def _shared_keys(connections: Mapping[str, Connection]) -> Iterator[Finding]:
    """Note the connections that use one key, which Engage counts together."""
    of_key: defaultdict[str, list[str]] = defaultdict(list)
    for name, connection in connections.items():
        with suppress(OSError, ValueError):  # `unreadable` tells it
            of_key[connection.key().current()].append(name)
    for names in of_key.values():
        together = sum(connections[name].requests_per_second for name in names)
        if len(names) > 1 and together > RECOMMENDED_REQUESTS_PER_SECOND:
            what = f"connections {', '.join(names)}: one key, to which Engage counts all requests"
            yield Finding("note", f"{what}; requests_per_second is {together:g} together, so give each a part of it")


def online(settings: Settings) -> Iterator[Finding]:
    """Ask the brokers, the Schema Registry, then each Engage connection."""
    yield from _kafka(settings)
    told = list(unreadable(settings))  # by `offline`
    if settings.registry is not None and not any(line.startswith("registry.") for line in told):
        yield _registry(settings.registry)
    for name, connection in settings.engage.connections.items():
        if not any(line.startswith(f"engage.connections.{name}.") for line in told):
            yield _engage(name, connection)


def _kafka(settings: Settings) -> Iterator[Finding]:
    try:
        admin, causes = reached(settings.kafka, give_up_s=GIVE_UP_S)
    except (ConfigurationError, KafkaUnreachableError) as error:
        yield Finding("failed", f"brokers: {error}", error.exit_code)
        return
    try:
        nodes = len(admin.describe_cluster(request_timeout=CALL_TIMEOUT_S).result(2 * CALL_TIMEOUT_S).nodes)
    except KafkaException as error:
        yield _kafka_failed("brokers", causes.explained(admin, error))
        return
    yield Finding("ok", f"brokers: {nodes} answer")
    if settings.control_topic is not None:
        yield from _control(admin, settings.control_topic)
    for each in settings.topics:
        found = list(_topics(admin, each, settings.topic_rules))
        yield from found
        if all(finding.standing != "failed" for finding in found):
            yield _rights(admin, each)
            yield _start(settings.kafka, admin, each)
    yield _group_rights(admin, str(settings.kafka["group.id"]))
    yield _transactions(settings.kafka)


def _topics(admin: AdminClient, each: topics.RelayTopics, rules: TopicRules) -> Iterator[Finding]:
    try:
        notes = topics.check(admin, [each], rules)
    except TopicError as error:
        for line in str(error).splitlines():
            yield Finding("failed", f"topics: {line}", ExitCode.TOPICS)
    except KafkaException as error:
        yield _kafka_failed(f"topics of {each.source}", error)
    else:
        for line in notes:
            yield Finding("note", f"topics: {line}")
        yield Finding("ok", f"topics: {', '.join((each.source, *each.own[:-1]))} and {each.own[-1]} fit")


def _control(admin: AdminClient, topic: str) -> Iterator[Finding]:
    try:
        notes = topics.check(admin, (), control=topic)
    except TopicError as error:
        for line in str(error).splitlines():
            yield Finding("failed", f"topics: {line}", ExitCode.TOPICS)
        return
    except KafkaException as error:
        yield _kafka_failed(f"topic {topic}", error)
        return
    for line in notes:
        yield Finding("note", f"topics: {line}")
    yield Finding("ok", f"topics: {topic} fits")
    yield _granted(admin, {topic: topics.CONTROL_RIGHTS}, f"read {topic} and answer requests there", topic)


def _rights(admin: AdminClient, each: topics.RelayTopics) -> Finding:
    needed = {
        each.source: (AclOperation.READ,),
        each.delay: (AclOperation.READ, AclOperation.WRITE),
        each.dead_letters: (AclOperation.WRITE,),
        **({} if each.outcomes is None else {each.outcomes: (AclOperation.READ, AclOperation.WRITE)}),
    }
    return _granted(admin, needed, f"read and write what {each.source} needs", f"the topics of {each.source}")


def _granted(admin: AdminClient, needed: Mapping[str, Collection[AclOperation]], what: str, on: str) -> Finding:
    try:
        missing = asking.missing_rights(admin, needed)
    except KafkaException as error:
        return _kafka_failed(f"rights on {on}", error)
    if missing:
        return Finding("failed", may_not(missing), ExitCode.FAILED)
    return Finding("ok", f"rights: may {what}")


def may_not(missing: Iterable[str]) -> str:
    """Name the rights that are missing."""
    return f"rights: may not {', nor '.join(missing)}"


def _group_rights(admin: AdminClient, group: str) -> Finding:
    def ask() -> set[AclOperation]:
        (described,) = admin.describe_consumer_groups([group], include_authorized_operations=True).values()
        return set(described.result(CALL_TIMEOUT_S).authorized_operations)

    try:
        granted = asked(ask)
    except KafkaException as error:
        return _kafka_failed(f"rights on group {group}", error)
    if AclOperation.READ not in granted:
        return Finding("failed", f"rights: may not Read group {group}", ExitCode.FAILED)
    return Finding("ok", f"rights: may join group {group}")


def asked(ask: Callable[[], T]) -> T:
    """Ask a group's coordinator, again while the cluster has none (it has just started, or lost a node).

    Raises KafkaException.
    """
    give_up_at = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if clients.error_of(error).code() not in _COORDINATOR_MOVES or time.monotonic() > give_up_at:
                raise
        time.sleep(ASK_RETRY_S)


def _start(properties: clients.Properties, admin: AdminClient, each: topics.RelayTopics) -> Finding:
    group = properties["group.id"]
    try:
        present = present_identities(admin, str(group), [each.source])[each.source]
        with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
            found = asked(lambda: beginnings(reader, admin, each, present))
    except KafkaException as error:
        return _kafka_failed(f"start of {each.source}", error)
    except IdentityError as error:
        return Finding("failed", f"identity: {'; '.join(str(error).splitlines())}. {error.advice}", ExitCode.IDENTITY)
    if found.started or not found.undecided:
        return Finding("ok", f"start: {each.source} continues where group {group} was")
    if not found.unread:
        return Finding("ok", f"start: {each.source} is new and empty")
    refusal = found.refusal(group)
    if start := start_of(properties):
        return Finding("ok", f"start: {refusal}; {found.decision(start)} (auto.offset.reset)")
    return Finding("note", f"start: {refusal}; `run` needs --from")


def _transactions(properties: clients.Properties) -> Finding:
    try:
        producer = Producer(
            clients.producer(properties, f"{properties['group.id']}-check-config"), logger=clients.LOGGER
        )
        producer.init_transactions(CALL_TIMEOUT_S)
    except KafkaException as error:
        if (beyond := beyond_limits(clients.error_of(error))) is not None:
            return Finding("failed", str(beyond), beyond.exit_code)
        return _kafka_failed("transactions", error)
    return Finding("ok", "transactions: may be written")


def _kafka_failed(what: str, error: KafkaException) -> Finding:
    return Finding("failed", f"{what}: {clients.error_of(error).str()}", ExitCode.FAILED)


def _registry(registry: Registry) -> Finding:
    try:
        client_of(registry).check()
    except ConfigurationError as error:
        return Finding("failed", str(error), error.exit_code)
    except RegistryError as error:
        return Finding("failed", f"registry {registry.url}: {error}", ExitCode.FAILED)
    login = "" if registry.username is None and not registry.has_token else ", and accepts our credentials"
    return Finding("ok", f"registry {registry.url}: answers{login}")


def _engage(name: str, connection: Connection) -> Finding:
    what = f"connection {name}"
    key = connection.key()
    try:
        outcome = asyncio.run(_unknown_job(connection, key.current))
    except ConfigurationError as error:
        return Finding("failed", f"{what}: {error}", ExitCode.CONFIGURATION)
    match outcome:
        case Unauthorized(status):
            return Finding("failed", f"{what}: the key is refused ({status})", ExitCode.FAILED)
        case Forbidden():
            why = "the key is refused, or our address is not allowed (403)"
            return Finding("failed", f"{what}: {why}", ExitCode.FAILED)
        case Throttled():
            return Finding("note", f"{what}: answers, and asks for fewer requests now")
        case Ready() | NotReady() | NotFound() | JobFailed() | Undated():
            return Finding("ok", f"{what}: answers, and accepts the key")
        case Rejected(_, why):
            return Finding("note", f"{what}: {why} when asked for a job that does not exist")
    return Finding("failed", f"{what}: {outcome.why}", ExitCode.FAILED)


async def _unknown_job(connection: Connection, key: Callable[[], str]) -> PollOutcome:
    client = engage_client(connection, key)
    try:
        return await client.poll_job(str(uuid.uuid4()))
    finally:
        await client.aclose()
