"""Confluent's Parallel Consumer as a peer: java/Peer.java, on the measured core, as the relay is.

It needs a JDK and Maven. Its jars come from Maven Central once, and it is compiled once.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from benchmarks import process
from benchmarks.events import TOPIC
from benchmarks.running import BenchmarkError, Measured
from tests.support.broker import KafkaBroker
from tests.support.downloads import UnavailableError, first_error, kept, said

T = TypeVar("T")

NAME = "Parallel Consumer"
MAX_HEAP = "-Xmx512m"  # the chart's limit of the relay's memory; without one, the JVM takes a quarter of the machine's

_JAVA = Path(__file__).with_name("java")
_BUILD_TIMEOUT_S = 300.0


class Peer(Measured):
    """The peer's process. It logs nothing."""

    name = NAME

    def __init__(self, broker: KafkaBroker, engage_url: str) -> None:
        """Start it. Raises UnavailableError where it cannot be had on this machine."""
        folder = _built()
        classes = f"{folder / 'classes'}:{folder / 'libs' / '*'}"
        measured, _ = process.cores()
        with process.pinned_to(measured):
            started = subprocess.Popen(
                ["java", MAX_HEAP, "-cp", classes, "Peer", broker.bootstrap_servers, TOPIC, engage_url],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        super().__init__(started)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline():
            self._begin()


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
            raise UnavailableError(f"{command[0]}: {first_error(text)}")
    return folder
