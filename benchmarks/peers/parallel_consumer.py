"""Confluent's Parallel Consumer as a peer: java/Peer.java, on the measured core, as the relay is.

It needs a JDK and Maven. Its jars come from Maven Central once, and it is compiled once.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from benchmarks import process
from benchmarks.events import TOPIC
from benchmarks.running import LOOK_EVERY_S, START_TIMEOUT_S, STOP_TIMEOUT_S, BenchmarkError
from tests.support.broker import KafkaBroker
from tests.support.downloads import UnavailableError, kept, last_line, said

T = TypeVar("T")

NAME = "Parallel Consumer"
MAX_HEAP = "-Xmx512m"  # the chart's limit of the relay's memory; without one, the JVM takes a quarter of the machine's

_JAVA = Path(__file__).with_name("java")
_BUILD_TIMEOUT_S = 300.0


class Peer:
    """The peer's process."""

    def __init__(self, broker: KafkaBroker, engage_url: str) -> None:
        """Start it. Raises UnavailableError where it cannot be had on this machine."""
        folder = _built()
        classes = f"{folder / 'classes'}:{folder / 'libs' / '*'}"
        measured, _ = process.cores()
        with process.pinned_to(measured):
            self._process = subprocess.Popen(
                ["java", MAX_HEAP, "-cp", classes, "Peer", broker.bootstrap_servers, TOPIC, engage_url],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        self._ready = threading.Event()
        self.log = ""  # it logs nothing
        self.began_at = 0.0
        self._began_cpu_s = 0.0
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has taken since it was ready."""
        return process.cpu_s(self.pid) - self._began_cpu_s

    @property
    def peak_mib(self) -> float:
        """The most memory that it ever held."""
        return process.memory_bytes(self.pid, "VmHWM") / 2**20

    def _read(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline():
            self.began_at, self._began_cpu_s = time.monotonic(), process.cpu_s(self.pid)
            self._ready.set()

    def await_ready(self) -> None:
        """Wait until it has partitions. Raises BenchmarkError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready.wait(LOOK_EVERY_S):
            self.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{NAME} did not start")

    def check_alive(self) -> None:
        """Raise BenchmarkError where it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(f"{NAME} ended with {self._process.returncode}")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def peer_against(broker: KafkaBroker, engage_url: str) -> Iterator[Peer]:
    """Run it within. Raises UnavailableError."""
    peer = Peer(broker, engage_url)
    try:
        yield peer
    finally:
        peer.stop()


def beside(run: Callable[[], T]) -> T | str:
    """Run the peer; where it cannot be had on this machine, or does not come to its end, return why."""
    try:
        return run()
    except (UnavailableError, BenchmarkError) as error:
        return str(error)


def _built() -> Path:
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"no `{tool}` on the PATH")
    sources = b"".join(each.read_bytes() for each in sorted(_JAVA.iterdir()))
    return kept(f"parallel-consumer-{hashlib.sha256(sources).hexdigest()[:12]}", _build)


def _build(directory: Path) -> Path:
    folder = directory / "peer"
    libs = folder / "libs"
    folder.mkdir()
    fetched: list[str | Path] = ["mvn", "-q", "-B", "-f", _JAVA / "pom.xml", "dependency:copy-dependencies"]
    fetched.append(f"-DoutputDirectory={libs}")
    compiled: list[str | Path] = ["javac", "-cp", f"{libs}/*", "-d", folder / "classes", _JAVA / "Peer.java"]
    for command in (fetched, compiled):
        code, text = said(command, cwd=directory, timeout_s=_BUILD_TIMEOUT_S)
        if code != 0:
            reason = next((line for line in text.splitlines() if "ERROR" in line), last_line(text))
            raise UnavailableError(f"{command[0]}: {reason.strip()[:500]}")
    return folder
