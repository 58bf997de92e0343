"""Prometheus and promtool on this machine, for tests: those on the PATH, else Debian's, without root.

Debian's package `prometheus` is fetched once by apt (19 MB, see fetched.py).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from tests.support.downloads import UnavailableError, kept, last_line, needed, said
from tests.support.waiting import until

Tool = Literal["promtool", "prometheus"]

FETCH_TIMEOUT_S = 180.0
CHECK_TIMEOUT_S = 240.0  # the rules take 15 s of CPU, and more on a busy machine


def tool(name: Tool) -> Path:
    """Return the program; skips the test where there is none, and fails it in CI."""
    return needed(name, lambda: found(name))


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
    """Return the program, fetched where it has to be. Raises UnavailableError."""
    if on_the_path := shutil.which(name):
        return Path(on_the_path)
    return kept("prometheus", _fetch) / "usr" / "bin" / name


def _fetch(directory: Path) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError("none on the PATH, and no apt-get and dpkg-deb that could fetch it")
    try:
        _run("apt-get", "download", "prometheus", cwd=directory)
    except UnavailableError:  # a machine without package lists: they are fetched beside, which needs no root
        for name in ("lists", "cache"):
            (directory / name / "partial").mkdir(parents=True)
        private = ("-o", f"Dir::State::lists={directory / 'lists'}", "-o", f"Dir::Cache={directory / 'cache'}")
        _run("apt-get", *private, "update", cwd=directory)
        _run("apt-get", *private, "download", "prometheus", cwd=directory)
    complete = directory / "complete"
    _run("dpkg-deb", "--extract", next(directory.glob("prometheus_*.deb")), complete, cwd=directory)
    return complete


def _run(*command: str | Path, cwd: Path) -> None:
    code, text = said(command, cwd=cwd, timeout_s=FETCH_TIMEOUT_S)
    if code != 0:
        raise UnavailableError(f"{command[0]}: {last_line(text)}")


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
        try:
            until(prometheus.ready, "prometheus gets ready")
        except AssertionError as error:
            error.add_note(log.read_text()[-4000:])
            raise
        yield prometheus
    finally:
        process.kill()
        process.wait()
