"""A real Kafka broker on this machine, for tests and benchmarks: one KRaft node in one JVM.

    with KafkaBroker() as broker:
        Producer({"bootstrap.servers": broker.bootstrap_servers})

Several that belong together: kafka_cluster.py.

Needs Java 17 and Maven. The jars come from Maven Central once (43 MB, ~8 s, see fetched.py); from then on a start takes
~3 s and no network.

Rules:
 1. Ready means that it answered a client, not that some time is over.
 2. It ends with its owner, whatever ends that: `with`, atexit, and a watchdog for SIGKILL.
 3. Its timings are a test's (sessions of seconds, transactions looked after every 200 ms); its guarantees are Kafka's.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.downloads import UnavailableError, first_error, kept, needed, said

DEFAULT_VERSION = "4.2.0"
ARCHIVE = "broker.jsa"
BROKER = "kafka_2.13"  # the artifact; its name says for which Scala
DOWNLOAD_TIMEOUT_S = 300.0
START_TIMEOUT_S = 60.0  # ~3 s on an idle machine; twenty times that for a busy one
STOP_TIMEOUT_S = 20.0
ARCHIVE_TIMEOUT_S = 60.0  # ~4 s on an idle machine
START_ATTEMPTS = 3  # a port that was free may be taken before the broker binds it

# Below Linux's ephemeral range (32768 up): while the broker is stopped, neither another client's connection takes its
# port, nor does a client that keeps reconnecting end up connected to itself (TCP's simultaneous open).
PORTS = range(20_000, 32_000)

JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
"""Quick to start rather than quick at its peak."""

JVM_FOR_LOAD = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:-UsePerfData")
"""For benchmarks: the full compiler."""

PROPERTIES: Mapping[str, str] = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "num.network.threads": "2",
    "num.io.threads": "4",
    # One node, so one copy; few partitions, so that it starts quickly.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # After a power cut the controller takes the broker back when its old session has ended (default: 9 s).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Groups: no wait for the first members, and dead members may be found out within a second or two.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    # A transaction that timed out is aborted at most 200 ms later (default: 10 s).
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
    # Compaction that a test can wait for; each topic says itself how dirty is dirty enough.
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "log.retention.check.interval.ms": "1000",
    "log.initial.task.delay.ms": "100",
}


class BrokerUnavailableError(UnavailableError):
    """No broker can be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A node's place in a cluster: what must be known of it before any of the nodes starts."""

    node: int
    ports: Mapping[str, int]  # by listener
    cluster_id: str
    voters: str  # controller.quorum.voters


class KafkaBroker:
    """One broker; `stop()` and `start()` keep its data, ports and cluster id, `close()` removes them."""

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        *,
        jvm: tuple[str, ...] = JVM,
        version: str | None = None,
        listeners: tuple[str, ...] = (),
        advertised: Mapping[str, int] | None = None,
        seat: Seat | None = None,
        classes_into: Path | None = None,
    ) -> None:
        """`listeners`: more of them beside PLAINTEXT, by name (see `address`); what they demand say `properties`.

        `advertised`: ports that clients are sent to in the place of a listener's own, as with a proxy before it.
        `seat`: its place in a cluster; it then starts only where that lets it.
        `classes_into`: the archive that it writes when it is stopped (see `shared_classes`).
        """
        self._version = version or os.environ.get("KAFKA_VERSION") or DEFAULT_VERSION
        self._properties = {**PROPERTIES, **(properties or {})}
        self._jvm = jvm
        self._classes_into = classes_into
        # Of a version that a single test names there are too few starts: to make the archive would take longer.
        self._shares_classes = version is None and classes_into is None
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._names = ("PLAINTEXT", *listeners, "CONTROLLER")
        self._advertised = dict(advertised or {})
        self._seat = seat
        self._ports = free_ports(self._names) if seat is None else seat.ports

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to, as librdkafka wants it."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """Where clients of another listener connect to."""
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def log(self) -> str:
        """What the broker has written so far."""
        if self._directory is None:
            return ""
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / "broker.log").read_text(errors="replace")
        return ""

    def start(self) -> None:
        """Start, or start again on the same data. Returns when the broker answers. Raises BrokerUnavailableError."""
        if self._process is not None:
            return
        if self._directory is not None:
            self._launch(self._directory)
            self._await_answer()
            return
        atexit.register(self.close)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_again()
            except BrokerUnavailableError as error:
                taken = "already in use" in str(error)
                self.close()
                if attempt == START_ATTEMPTS or not taken or self._seat is not None:
                    raise
                self._ports = free_ports(self._names)
            except BaseException:
                self.close()
                raise
            else:
                return

    def stop(self) -> None:
        """Stop it as an operator does (SIGTERM); its data stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a power cut does (SIGKILL); its data stay."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop its clock and its answers (SIGSTOP); its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it at once and remove its data. Does nothing the second time."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def limit_producers(self, bytes_per_s: int | None) -> None:
        """Give every producer this quota (None: lift it). The broker throttles whoever writes more."""
        self._limit("producer_byte_rate", bytes_per_s)

    def limit_consumers(self, bytes_per_s: int | None) -> None:
        """Give every consumer this quota (None: lift it). Who has read ten seconds' worth waits as long."""
        self._limit("consumer_byte_rate", bytes_per_s)

    def _limit(self, name: str, bytes_per_s: int | None) -> None:
        change = ["--delete-config", name] if bytes_per_s is None else ["--add-config", f"{name}={bytes_per_s}"]
        arguments = ["--alter", *change, "--entity-type", "users"]
        tool = ("kafka.admin.ConfigCommand", "--bootstrap-server", self.bootstrap_servers, "--entity-default")
        command = self._java(kafka_jars(self._version), *tool, *arguments)
        subprocess.run(command, capture_output=True, timeout=START_TIMEOUT_S, check=True)

    def _start_again(self) -> None:
        jars = kafka_jars(self._version)
        self._directory = Path(tempfile.mkdtemp(prefix="engage-relay-kafka-"))
        self._format(jars, self._directory)
        self._launch(self._directory)
        self._await_answer()

    def _java(self, jars: Path, *arguments: str | Path) -> list[str | Path]:
        shared = shared_classes(self._version) if self._shares_classes else ()
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *self._jvm, *shared, quiet, "-cp", f"{jars}/*", *arguments]

    def _format(self, jars: Path, directory: Path) -> None:
        seat = self._seat or Seat(1, self._ports, new_cluster_id(), f"1@{self.address('CONTROLLER')}")
        urls = {name: f"{name}://{self.address(name)}" for name in self._names}
        properties = {
            **self._properties,
            "listeners": ",".join(urls.values()),
            "advertised.listeners": ",".join(
                f"{name}://127.0.0.1:{self._advertised.get(name, self._ports[name])}"
                for name in self._names
                if name != "CONTROLLER"
            ),
            "node.id": str(seat.node),
            "controller.quorum.voters": seat.voters,
            "log.dirs": str(directory / "data"),
        }
        file = directory / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        # "=": the id may begin with a dash.
        named = f"--cluster-id={seat.cluster_id}"
        command = self._java(jars, "kafka.tools.StorageTool", "format", named, "--config", file)
        done = subprocess.run(command, capture_output=True, timeout=START_TIMEOUT_S, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise BrokerUnavailableError(f"Kafka's storage could not be formatted: {_end_of(said)}")

    def _launch(self, directory: Path) -> None:
        command = self._java(kafka_jars(self._version), "kafka.Kafka", directory / "server.properties")
        if self._classes_into is not None:
            command.insert(1, f"-XX:ArchiveClassesAtExit={self._classes_into}")
        with (directory / "broker.log").open("ab") as log:
            # A session of its own: Ctrl-C is for the tests, which then stop the broker.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, start_new_session=True
            )
        self._watchdog = _watch(self._process, directory)

    def _await_answer(self) -> None:
        assert self._process is not None
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = self.log
                self._end(signal.SIGKILL)
                raise BrokerUnavailableError(f"the broker ended while starting: {_end_of(said)}")
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=0.5).brokers:
                    return
        said = self.log
        self._end(signal.SIGKILL)
        raise BrokerUnavailableError(f"the broker did not answer within {START_TIMEOUT_S:.0f} s: {_end_of(said)}")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(number)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:  # first: it must not outlive the process id that it would kill
            watchdog.kill()
            watchdog.communicate()
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a frozen one would not hear it
        try:
            process.wait(STOP_TIMEOUT_S if self._classes_into is None else ARCHIVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kafka_jars(version: str = DEFAULT_VERSION, artifact: str = BROKER) -> Path:
    """Return the directory of an artifact's jars, the broker's; fetches them where they aren't there yet.

    Raises BrokerUnavailableError.
    """
    if shutil.which("java") is None:
        raise BrokerUnavailableError("no `java` on the PATH (Java 17 or newer)")
    name = "kafka" if artifact == BROKER else artifact
    return kept(f"{name}-{version}", partial(_fetch, version, artifact))


@cache
def shared_classes(version: str) -> tuple[str, ...]:
    """Return the options by which a JVM starts with a broker's classes as another one has loaded them.

    Loading and verifying thousands of classes is half of the CPU of a start (class data sharing spares it). The first
    start on a machine makes the archive: it starts and stops a broker once more. A JVM that has no use for it, as of
    another version, starts without it.
    """
    kafka_jars(version)
    java = Path(shutil.which("java") or "java").resolve()
    name = f"kafka-{version}-classes-{int(java.stat().st_mtime)}"  # of use to the very JVM that wrote it
    return (f"-XX:SharedArchiveFile={kept(name, partial(_archive_classes, version)) / ARCHIVE}", "-Xlog:disable")


def _archive_classes(version: str, directory: Path) -> Path:
    archive = directory / "classes" / ARCHIVE
    archive.parent.mkdir()
    with KafkaBroker(version=version, classes_into=archive) as broker:
        broker.stop()
    return archive.parent


def _fetch(version: str, artifact: str, directory: Path) -> Path:
    if shutil.which("mvn") is None:
        raise BrokerUnavailableError("no `mvn` on the PATH (it fetches Kafka from Maven Central)")
    jars = directory / "libs"
    command: list[str | Path] = ["mvn", "-q", "-B", "-f", Path(__file__).with_name("pom.xml")]
    command += ["dependency:copy-dependencies", f"-Dkafka.version={version}", f"-Dkafka.artifact={artifact}"]
    code, text = said([*command, f"-DoutputDirectory={jars}"], cwd=directory, timeout_s=DOWNLOAD_TIMEOUT_S)
    if code != 0:
        raise BrokerUnavailableError(f"Maven could not fetch Kafka {version}: {first_error(text)}")
    return jars


def _watch(process: subprocess.Popen[bytes], directory: Path) -> subprocess.Popen[bytes]:
    # Our end of its standard input closes when we end, even by SIGKILL. (Not prctl's PDEATHSIG: that follows the thread
    # that started the process, needs code between fork and exec, and is Linux's alone.)
    script = 'read -r _; kill -9 "$1" && sleep 1; rm -rf -- "$2"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "watchdog", str(process.pid), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def new_cluster_id() -> str:
    """Return an id as Kafka wants it: 16 bytes in base64."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Return a free port for each name. Raises BrokerUnavailableError."""
    with contextlib.ExitStack() as held:
        return {name: _bind_free(held) for name in names}


def _bind_free(held: contextlib.ExitStack) -> int:
    for _ in range(100):
        port = PORTS[secrets.randbelow(len(PORTS))]
        candidate = held.enter_context(socket.socket())
        with contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port
    raise BrokerUnavailableError(f"no free port found in {PORTS}")


def _end_of(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:]) or "(it said nothing)"


def started(broker: KafkaBroker) -> KafkaBroker:
    """Start a broker, or skip the test with the reason (in CI: fail it)."""
    needed("Kafka broker", broker.start)
    return broker
