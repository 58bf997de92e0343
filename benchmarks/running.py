"""The processes of a benchmark: the relay as a user runs it, and an Engage beside it.

Rules:
 1. The relay runs from its command line and environment, with nothing in it switched off, on a core of its own.
 2. What it took is read from the kernel and from its own /metrics, never asked of its code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import process
from benchmarks.sampled_relay import PROFILE
from tests.support.broker import KafkaBroker

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.05
STALLED_S = 90.0  # nothing accepted for so long: more than any wait between two tries of the relay's
ENGAGE_LIMIT = 200  # requests per second over which Engage answers 429
BULK = 1000  # orders that are submitted at once

_READY = b'"partition restored"'


class BenchmarkError(Exception):
    """The run came to nothing, or lost something."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the relay itself took. CPU covers everything from its first event to its last tombstone."""

    cpu_ms_per_action: float
    peak_mib: float
    transactions: int
    writes_per_transaction: float


class Measured:
    """A process on the measured core: the relay, or a peer."""

    name: str

    def __init__(self, process_: subprocess.Popen[bytes]) -> None:
        """Watch a process that was started on that core. `_begin` says that it reads."""
        self._process = process_
        self._ready = threading.Event()
        self.began_at = 0.0
        self._began_cpu_s = 0.0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """The last lines that it logged."""
        return ""

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has taken since it began."""
        return process.cpu_s(self.pid) - self._began_cpu_s

    @property
    def peak_mib(self) -> float:
        """The most memory that it ever held."""
        return process.memory_bytes(self.pid, "VmHWM") / 2**20

    def _begin(self) -> None:
        self.began_at, self._began_cpu_s = time.monotonic(), process.cpu_s(self.pid)
        self._ready.set()

    def await_ready(self) -> None:
        """Wait until it reads its first partition. Raises BenchmarkError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready.wait(LOOK_EVERY_S):
            self.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name} did not start:\n{self.log}")

    def check_alive(self) -> None:
        """Raise BenchmarkError where it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(f"{self.name} ended with {self._process.returncode}:\n{self.log}")

    def stop(self) -> None:
        """End it as an operator does."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Relay(Measured):
    """The relay's process."""

    name = "the relay"

    def __init__(
        self,
        broker: KafkaBroker,
        engage_url: str | None,
        environment: Mapping[str, str],
        profile: Path | None = None,
        config: Path | None = None,
    ) -> None:
        self.port = process.free_port()
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ENGAGE_")},
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            **({} if engage_url is None else {"ENGAGE_BASE_URL": engage_url, "ENGAGE_API_KEY": "benchmark"}),
            "ENGAGE_RELAY__ADMIN__LISTEN": f"127.0.0.1:{self.port}",
            **({} if profile is None else {PROFILE: str(profile)}),
            **environment,
        }
        module = "consumer.cli" if profile is None else "benchmarks.sampled_relay"
        measured, _ = process.cores()
        with process.pinned_to(measured):
            started = subprocess.Popen(
                [
                    *(sys.executable, "-m", module, "run", "--from", "earliest", "--create-topics"),
                    *(() if config is None else ("--config", str(config))),
                ],
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        super().__init__(started)
        self._profile = profile
        self._log: list[bytes] = []
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            if _READY in line and not self._ready.is_set():
                if self._profile is not None:
                    self._process.send_signal(signal.SIGUSR1)
                self._begin()

    @property
    def log(self) -> str:
        """The last lines that it logged."""
        return b"".join(self._log[-20:]).decode(errors="replace")

    def cost(self, actions: int) -> Cost:
        """Wait until all is settled; return what it took."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        # The figures are as old as the last tick (1 s): an idle second costs a few milliseconds.
        while (figures := self.figures())["pending_actions"] or figures["journal_backlog_writes"]:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the relay still holds actions that were accepted:\n{self.log}")
            time.sleep(LOOK_EVERY_S)
        if self._profile is not None:
            self._process.send_signal(signal.SIGUSR2)
        transactions = figures["transaction_duration_seconds_count"]
        return Cost(
            cpu_ms_per_action=self.cpu_s / actions * 1000,
            peak_mib=self.peak_mib,
            transactions=int(transactions),
            writes_per_transaction=figures["transaction_records_total"] / transactions,
        )

    def scrape(self) -> list[Metric]:
        """Return what its /metrics says now."""
        return list(text_string_to_metric_families(get(f"http://127.0.0.1:{self.port}/metrics").decode()))

    def figures(self) -> Counter[str]:
        """Return its metrics without their prefix, each summed over its labels."""
        figures: Counter[str] = Counter()
        for family in self.scrape():
            for sample in family.samples:
                figures[sample.name.removeprefix("engage_relay_")] += sample.value  # type: ignore[assignment]
        return figures


@contextlib.contextmanager
def relay_against(
    broker: KafkaBroker,
    engage_url: str | None,
    environment: Mapping[str, str],
    profile: Path | None = None,
    config: Path | None = None,
) -> Iterator[Relay]:
    """Run the relay within. `config`: its file, where the environment does not say all, or has no `engage_url`."""
    relay = Relay(broker, engage_url, environment, profile, config)
    try:
        yield relay
    finally:
        relay.stop()


def await_accepted(url: str, count: str, expected: int, running: Sequence[Measured]) -> None:
    """Look at an account until as many were accepted. Raises BenchmarkError where nothing moves."""
    most, moved_at = -1, time.monotonic()
    while (accepted := int(json.loads(get(url))[count])) < expected:
        for each in running:
            each.check_alive()
        if accepted > most:
            most, moved_at = accepted, time.monotonic()
        elif time.monotonic() - moved_at > STALLED_S:
            raise BenchmarkError(
                f"{accepted} of {expected} actions accepted, no more for {STALLED_S:g} s:\n{running[0].log}"
            )
        time.sleep(LOOK_EVERY_S)


@contextlib.contextmanager
def instant_engage(expected: int) -> Iterator[str]:
    """Run the Engage that answers at once; yields its URL. `expected`: how many orders make all of them."""
    command = [sys.executable, "-m", "benchmarks.instant_engage", str(expected)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(running.stdout.readline())}"
        finally:
            running.terminate()


@contextlib.contextmanager
def simulator(processing: str, limit: int) -> Iterator[str]:
    """Run the simulator; yields its URL."""
    port = process.free_port()
    script = (
        "import sys; from consumer.simulator import SimulatorOptions, run; "
        "run(SimulatorOptions(listen=sys.argv[1], processing=sys.argv[2], requests_per_second=int(sys.argv[3])), repr)"
    )
    running = subprocess.Popen([sys.executable, "-c", script, f"127.0.0.1:{port}", processing, str(limit)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                get(f"{url}/simulator/account?summary=1")
                break
            except OSError:
                if running.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError("the simulator did not start") from None
            time.sleep(LOOK_EVERY_S)
        yield url
    finally:
        running.terminate()
        running.wait()


def get(url: str, body: bytes | None = None) -> bytes:
    """Ask a URL, by POST where there is a body. Raises OSError."""
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        content: bytes = answer.read()
        return content


def submit(url: str, order_ids: list[str]) -> dict[str, str]:
    """Submit orders to the simulator, as the platform does before it publishes. Returns their jobs, by order."""
    answer = json.loads(get(f"{url}/simulator/orders/bulk", json.dumps({"orderIds": order_ids}).encode()))
    return {job["orderId"]: job["jobId"] for job in answer["jobs"]}


def requests_in(account: Mapping[str, Any]) -> int:
    """Return how many polls and actions a simulator was asked."""
    return sum(count for call in ("job", "order", "action") for count in account["requests"].get(call, {}).values())


def answers_429_in(account: Mapping[str, Any]) -> int:
    """Return how many of its answers were 429."""
    return sum(statuses.get("429", 0) for statuses in account["requests"].values())
