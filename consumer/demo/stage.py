"""EDGE. The stage: Kafka, Engage and the relay, put up for one demo and taken down again.

Rules:
 1. The relay is the real one: `engage-relay run` in a process of its own, with no setting that a user could not write.
 2. Whatever happens, what was put up is taken down: the process, the topics, the files.
 3. Of the environment the relay gets nothing of the user's own relay (ENGAGE_..., KAFKA_...); with real brokers it
    gets the librdkafka properties (ENGAGE_RELAY__KAFKA__...), which they may need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.config.loading import load
from consumer.config.settings import Settings
from consumer.demo.story import ROUTES
from consumer.errors import TopicError
from consumer.kafka import clients
from consumer.kafka.topics import topics

PARTITIONS = 4  # what the mock cluster gives to each topic
CALL_TIMEOUT_S = 10.0
# The hand-over ends within the relay's own time-outs: a request in flight (twice REQUEST_TIMEOUT), then the journal.
STOP_S = 25.0
START_S = 60.0
REQUEST_TIMEOUT = "3s"
OWN_KAFKA = "ENGAGE_RELAY__KAFKA__"
_OURS = frozenset({OWN_KAFKA + "BOOTSTRAP_SERVERS", OWN_KAFKA + "GROUP_ID"})


class StageError(Exception):
    """The demo cannot continue; its text is for the user."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The relay's process, its admin server and its log."""

    process: asyncio.subprocess.Process
    admin_url: str
    log: Path


@contextlib.contextmanager
def mock_cluster(names: topics.RelayTopics, control: str) -> Iterator[str]:
    """Run librdkafka's mock cluster with these topics, the control topic among them; yields its address.

    It lives inside the client held here.
    """
    with _quiet():
        holder = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1}, logger=clients.LOGGER)
        for name in (names.source, *names.own, control):
            holder.list_topics(name, timeout=CALL_TIMEOUT_S)  # asked for by name, a topic is made
        brokers = holder.list_topics(timeout=CALL_TIMEOUT_S).brokers.values()
        yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


@contextlib.contextmanager
def real_topics(settings: Settings) -> Iterator[None]:
    """Make the demo's topics on real brokers, and remove them with the group at the end. Raises StageError."""
    with _quiet():
        admin = AdminClient(clients.base(settings.kafka), logger=clients.LOGGER)
        names = [name for each in settings.topics for name in (each.source, *each.own)]
        names += [] if settings.control_topic is None else [settings.control_topic]
        try:
            admin.list_topics(timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            raise StageError(f"the brokers do not answer: {clients.error_of(error).str()}") from None
        try:
            try:
                new = [NewTopic(each.source, PARTITIONS, -1) for each in settings.topics]
                for made in admin.create_topics(new, request_timeout=CALL_TIMEOUT_S).values():
                    made.result(2 * CALL_TIMEOUT_S)
                topics.create(admin, settings.topics, control=settings.control_topic)
            except KafkaException as error:
                raise StageError(f"cannot make the demo's topics: {clients.error_of(error).str()}") from None
            except (TopicError, TimeoutError) as error:
                raise StageError(f"cannot make the demo's topics: {error}") from None
            yield
        finally:
            group = str(settings.kafka["group.id"])
            deletions = list(admin.delete_topics(names, request_timeout=CALL_TIMEOUT_S).values())
            deletions += admin.delete_consumer_groups([group], request_timeout=CALL_TIMEOUT_S).values()
            for deletion in deletions:
                with contextlib.suppress(KafkaException, TimeoutError):  # one that was never made, most likely
                    deletion.result(2 * CALL_TIMEOUT_S)


def write_configuration(
    path: Path, *, bootstrap_servers: str, name: str, base_url: str, requests_per_second: float
) -> None:
    """Write the relay's configuration file; the API key isn't in it. The demo is in a hurry: short polling times."""
    configuration = {
        "kafka": {"bootstrap.servers": bootstrap_servers, "group.id": name},
        "source": {"topics": [name]},
        "engage": {
            "connections": {
                "default": {
                    "base_url": base_url,
                    "requests_per_second": requests_per_second,
                    "timeout": REQUEST_TIMEOUT,
                }
            }
        },
        "polling": {"max_interval": "3s", "not_found_grace": "5s", "contact_grace": "4s", "deadline": "120s"},
        "admin": {"listen": "127.0.0.1:0"},
        "routes": ROUTES,
    }
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))


def environment(environ: Mapping[str, str], api_key: str, *, real_kafka: bool) -> dict[str, str]:
    """Return the environment for the relay (rule 3)."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().startswith(("ENGAGE_", "KAFKA_"))
        or (real_kafka and name.upper().startswith(OWN_KAFKA) and name.upper() not in _OURS)
    }
    return {**kept, "ENGAGE_API_KEY": api_key}


def settings_of(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read the configuration as the relay will. Raises ConfigurationError."""
    return load(path, environ)


@contextlib.contextmanager
def scratch(name: str) -> Iterator[tuple[Path, Path]]:
    """Yield a path for the configuration and one for the relay's log. The log stays, unless the demo is broken off."""
    log = Path(tempfile.gettempdir()) / f"{name}.log"
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as directory:
        try:
            yield Path(directory) / "relay.yaml", log
        except (KeyboardInterrupt, asyncio.CancelledError):
            log.unlink(missing_ok=True)
            raise


@contextlib.asynccontextmanager
async def relay(configuration: Path, environ: Mapping[str, str], log: Path) -> AsyncIterator[Relay]:
    """Run the relay; yields it when its admin server listens. Raises StageError where it does not start."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "consumer.cli",
                "run",
                "--config",
                str(configuration),
                "--from",
                "earliest",
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environ,
            start_new_session=True,  # a terminal's Ctrl-C is for the demo, which then stops the relay
        )
    try:
        yield Relay(process, f"http://127.0.0.1:{await _admin_port(process, log)}", log)
    finally:
        await _stop(process)


async def _admin_port(process: asyncio.subprocess.Process, log: Path) -> int:
    """Learn from the log's first lines where the admin server listens: on a port that was free."""
    loop = asyncio.get_running_loop()
    until = loop.time() + START_S
    while loop.time() < until:
        if (port := _port_in(log)) is not None:
            return port
        if process.returncode is not None:
            raise StageError(f"the relay ended with exit code {process.returncode}; its log is {log}")
        await asyncio.sleep(0.05)
    raise StageError(f"the relay did not start within {START_S:g} s; its log is {log}")


def _port_in(log: Path) -> int | None:
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and isinstance(port := said.get("admin_port"), int):
                return port
    return None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        except asyncio.CancelledError:  # a second Ctrl-C: now
            process.kill()
            await process.wait()
            raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep librdkafka's remarks off the terminal: whatever matters comes back from a call."""
    nowhere, propagated = logging.NullHandler(), clients.LOGGER.propagate
    clients.LOGGER.addHandler(nowhere)
    clients.LOGGER.propagate = False
    try:
        yield
    finally:
        clients.LOGGER.propagate = propagated
        clients.LOGGER.removeHandler(nowhere)
