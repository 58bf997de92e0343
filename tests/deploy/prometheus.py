"""Prometheus and promtool on this machine, for tests: those on the PATH, else Debian's, without root.

Debian's package `prometheus` is fetched once by apt (19 MB) into `${XDG_CACHE_HOME:-~/.cache}/engage-relay/prometheus`;
it appears complete or not at all, and one run fetches while others wait. Where neither can be had, a test is skipped
with the reason; in CI that is a failure.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest

Tool = Literal["promtool", "prometheus"]

FETCH_TIMEOUT_S = 180.0
CHECK_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0  # it takes half a second on an idle machine


class ToolUnavailableError(RuntimeError):
    """There is no Prometheus on this machine; the text says why."""


def tool(name: Tool) -> Path:
    """Return the program; skips the test where there is none, and fails it in CI."""
    try:
        return found(name)
    except ToolUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"No {name}, which CI must have: {error}", pytrace=False)
        pytest.skip(f"No {name}: {error}")


def promtool(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool; returns what it said and its exit code."""
    command = [tool("promtool"), *arguments]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CHECK_TIMEOUT_S,
        check=False,
        cwd=Path(__file__).parent,
    )


def found(name: Tool) -> Path:
    """Return the program, fetched where it has to be. Raises ToolUnavailableError."""
    if on_the_path := shutil.which(name):
        return Path(on_the_path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engage-relay"
    package = cache / "prometheus"
    if not package.is_dir():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise ToolUnavailableError(f"no `{name}` on the PATH, and no apt-get and dpkg-deb that could fetch it")
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".prometheus.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not package.is_dir():
                _fetch(package)
    return package / "usr" / "bin" / name


def _fetch(package: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".prometheus-", dir=package.parent) as temporary:
        there = Path(temporary)
        private = _private_apt(there)
        try:
            if _failed("apt-get", "download", "prometheus", cwd=there):
                # A machine without package lists: they are fetched beside, which needs no root.
                for command in (("update",), ("download", "prometheus")):
                    if why := _failed("apt-get", *private, *command, cwd=there):
                        raise ToolUnavailableError(f"apt-get {command[0]}: {why}")
            archive = next(there.glob("prometheus_*.deb"))
            if why := _failed("dpkg-deb", "--extract", archive, there / "complete", cwd=there):
                raise ToolUnavailableError(f"dpkg-deb: {why}")
        except subprocess.TimeoutExpired as error:
            raise ToolUnavailableError(f"apt-get did not finish within {FETCH_TIMEOUT_S:.0f} s") from error
        (there / "complete").rename(package)


def _private_apt(there: Path) -> tuple[str, ...]:
    for name in ("lists", "cache"):
        (there / name / "partial").mkdir(parents=True)
    return "-o", f"Dir::State::lists={there / 'lists'}", "-o", f"Dir::Cache={there / 'cache'}"


def _failed(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=FETCH_TIMEOUT_S, check=False
    )
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


class Prometheus:
    """A running Prometheus, asked over its API."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._port = port
        self._log = log

    def _get(self, path: str, **query: str) -> Mapping[str, object]:
        url = f"http://127.0.0.1:{self._port}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=CHECK_TIMEOUT_S) as answer:
            body = json.load(answer)
        assert isinstance(body, dict)
        assert body["status"] == "success", body
        data = body["data"]
        assert isinstance(data, dict)
        return data

    def ready(self) -> bool:
        """Whether it answers. Fails where it has ended."""
        assert self._process.poll() is None, f"prometheus ended: {self._log.read_text()[-4000:]}"
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
            return True
        return False

    def query(self, expression: str) -> list[dict[str, object]]:
        """Return the series of an instant query. Raises urllib's HTTPError for one that does not parse."""
        result = self._get("/api/v1/query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def firing(self) -> dict[str, dict[str, str]]:
        """Return the labels of the alerts that fire now, by name (of several with one name: the last)."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        assert isinstance(alerts, list)
        return {each["labels"]["alertname"]: each["labels"] for each in alerts if each["state"] == "firing"}


@contextmanager
def running(config: Path) -> Iterator[Prometheus]:
    """Run Prometheus with this configuration, on a free port, its data beside the configuration."""
    directory = config.parent
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command: list[str | Path] = [
        tool("prometheus"),
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    command += [f"--storage.tsdb.path={directory / 'data'}", "--log.level=warn"]
    log = directory / "prometheus.log"
    with log.open("wb") as writing:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing)
    try:
        prometheus = Prometheus(process, port, log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not prometheus.ready():
            assert time.monotonic() < deadline, f"prometheus does not get ready: {log.read_text()[-4000:]}"
            time.sleep(0.05)
        yield prometheus
    finally:
        process.kill()
        process.wait()
