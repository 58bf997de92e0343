"""The relay as a process of its own.

A process whose log holds a secret or personal data fails the test that ran it, whatever that test is about.

Run as a program (`python -m tests.support.relay_process run ...`) it is the command line with short waits between
retries.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Self

from consumer.commands import cli
from consumer.core.pacing import PollSchedule
from consumer.run import wiring
from tests.support.engage import API_KEY
from tests.support.events import CUSTOMER, SECRET_ID
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
CRASH = "Fatal Python error"  # as faulthandler says it


def configuration(sandbox: Sandbox, engage_url: str, **sections: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration for a place; `kafka`, `connection`, `limits` ... add to it."""
    connection = {"base_url": engage_url, "api_key": API_KEY, "requests_per_second": 400}
    connection |= sections.pop("connection", {})
    connection.setdefault("action_timeout", connection.get("timeout", "10s"))
    return {
        "kafka": {**sandbox.properties, **sections.pop("kafka", {})},
        "source": {"topics": [sandbox.topics.source]},
        "engage": {"connections": {"default": connection}},
        "polling": {"initial": "50ms", "max_interval": "300ms", "not_found_grace": "1s", "contact_grace": "1s"},
        "admin": {"listen": "127.0.0.1:0"},
        "repeats": "off",  # tests send an order's actions again and again
        **sections,
    }


def written(directory: Path, configured: Mapping[str, object], name: str = "relay") -> Path:
    """Write a configuration file (JSON is YAML)."""
    file = directory / f"{name}.yaml"
    file.write_text(json.dumps(configured))
    return file


class RelayProcess:
    """`engage-relay run` as a process. Its log is JSON lines in a file."""

    def __init__(
        self,
        directory: Path,
        config: Path | None,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        impatient: bool = False,
        program: str | None = None,
        tree: Path = ROOT,
    ) -> None:
        """`impatient`: waits between retries of a fraction of a second instead of 10 s and more (`program` decides).

        `tree`: another checkout, whose code it runs.
        """
        self._log = directory / f"relay-{random.randrange(1 << 32):08x}.log"
        module = program or ("tests.support.relay_process" if impatient else "consumer.cli")
        given = [] if config is None else ["--config", str(config)]
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "run", *given, *arguments],
                cwd=tree,
                env={**clean, "PYTHONFAULTHANDLER": "1", **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if error is not None:
            error.add_note(f"the relay's log:\n{self.last_words}")
        else:
            self.assert_discreet()

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def last_words(self) -> str:
        """Return the end of what it said; where a signal ended it, from what Python's faulthandler says of that."""
        said, crash, threads = self.text.partition(CRASH)
        return said[-2000:] + crash + threads[:4000] if crash else said[-4000:]

    @property
    def log(self) -> list[dict[str, object]]:
        """The log's lines."""
        lines = [line for line in self.text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
        return [json.loads(line) for line in lines]

    def assert_discreet(self) -> None:
        said = self.text
        for secret in (API_KEY, CUSTOMER, SECRET_ID):
            assert secret not in said, f"{secret} was logged"

    def said(self, line: str) -> list[dict[str, object]]:
        """Return the log's entries of this text."""
        return [each for each in self.log if each.get("event") == line]

    def _alive(self) -> None:
        assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.last_words}"

    def wait_until_started(self) -> Self:
        """Wait until it takes signals, and its admin server answers."""
        assert self.admin_port
        return self

    @property
    def admin_port(self) -> int:
        def port() -> object:
            starts = self.said("engage-relay starts")
            if not starts:
                self._alive()
            return starts[0]["admin_port"] if starts else None

        return int(str(until(port, "the relay starts")))

    def get(self, path: str) -> tuple[int, str]:
        """Ask the admin server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> Self:
        def ready() -> bool:
            self._alive()
            return self.get("/readyz")[0] == 200

        until(ready, "the relay is ready")
        return self

    def metric(self, name: str) -> float:
        """Return the sum of a metric's series."""
        rows = (line.rsplit(" ", 1) for line in self.get("/metrics")[1].splitlines() if not line.startswith("#"))
        return sum(float(value) for series, value in rows if series.partition("{")[0] == f"engage_relay_{name}")

    @property
    def partitions(self) -> int:
        """How many it owns (it says so once a second); 0 while it starts."""
        return int(self.metric("partitions_owned")) if self.said("engage-relay starts") else 0

    def wait_until_owning(self, partitions: int) -> None:
        """Wait until it owns so many partitions (it says so once a second)."""
        until(lambda: self.metric("partitions_owned") == partitions, f"the relay owns {partitions} partitions")

    def _send(self, number: signal.Signals) -> None:
        self._alive()
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._send(signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def terminate(self) -> None:
        """Ask it to stop."""
        self._send(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to stop and wait for the end; returns the exit code."""
        self.terminate()
        return self.wait()

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the end; returns the exit code. One that does not end says where its threads stand."""
        try:
            return self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # faulthandler's
            self._process.wait(PATIENCE_S)
            raise AssertionError(f"it does not end: {self.text[-12000:]}") from None

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)


def main() -> None:
    """Be the command line, in a hurry."""
    vars(wiring)["PollSchedule"] = partial(PollSchedule, backoff_s=(0.5, 1.0))
    cli.main()


if __name__ == "__main__":
    main()
