"""A newcomer's terminals: what documents tell to run is given to a shell as it stands, line by line.

Rules:
 1. What is exported holds in every terminal, as the documents ask for it.
 2. A command that runs until somebody stops it gets a terminal of its own; the next line waits until it says that it
    is there. The relay has one address, so a second `run` begins when the first one was stopped.
 3. Only what a reader is told to replace is replaced: `reader` has the words of the documents and the reader's own.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import httpx

from tests.support.waiting import until

COMMAND_TIMEOUT_S = 1800.0  # `pip install`, where the network is slow; all others take seconds
STOP_TIMEOUT_S = 60.0
_ENDLESS = re.compile(r"engage-relay (run|simulate)\b|engage-relay status(?!.*--(once|json|check))")
# Variables of this machine's user, and of the `make` that plays the tests (its ARGS would be all others'), which a
# newcomer has not.
_READER_S = ("ENGAGE_", "KAFKA_", "OTEL_", "MAKE", "MFLAGS")


class Terminals:
    """Terminals side by side, in one directory."""

    def __init__(
        self, directory: Path, logs: Path, path: Sequence[Path], reader: Mapping[str, str], *, relay_port: int = 8080
    ) -> None:
        """`path` comes before this machine's own PATH; `logs`: where the output of what keeps running goes.

        `relay_port`: where a relay that is started listens.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_READER_S)}
        self._environ = {**kept, "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]])}
        self._directory, self._logs = directory, logs
        self._reader = reader
        self._relay = f"http://localhost:{relay_port}"
        self._running: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
        self._entered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for running in reversed(self._running):
            _end(running[1])
            running[2].close()

    def replaced(self, text: str) -> str:
        """Return a text of the documents with the reader's own words (rule 3)."""
        for word, own in self._reader.items():
            text = text.replace(word, own)
        return text

    def enter(self, line: str, *, codes: tuple[int, ...] = (0,), **environ: str) -> str:
        """Give a line to the shell; returns what it prints.

        With another exit code than `codes` the test fails, with all that it said.
        """
        line = self.replaced(line)
        self._entered += 1
        if line.startswith("export "):
            name, _, value = shlex.split(line, comments=True)[1].partition("=")
            self._environ[name] = value
            return ""
        if _ENDLESS.match(line):
            self._leave_running(line)
            return ""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self._directory,
            env={**self._environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode in codes, f"$ {line}\n{done.stdout}{done.stderr}{self._said()}"
        return done.stdout

    def stop(self, first: str) -> None:
        """Stop what was started with these words, and see that it ends well."""
        for running in [each for each in self._running if each[0].startswith(first)]:
            line, process, file = running
            code = _end(process)
            assert code == 0, f"$ {line}\nended with {code}{self._said()}"
            self._running.remove(running)
            file.close()

    def _leave_running(self, line: str) -> None:
        relay = line.startswith("engage-relay run")
        if relay:
            self.stop("engage-relay run")
        output = self._logs / f"terminal-{self._entered}.txt"
        file = output.open("wb")
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        self._running.append((line, process, file))

        def there() -> bool:
            assert process.poll() is None, f"$ {line}\n{self._said()}"
            return _ready(self._relay) if relay else output.stat().st_size > 0

        until(there, f"{line} is there")

    def _said(self) -> str:
        return "".join(f"\n$ {line}\n{Path(file.name).read_text()[-3000:]}" for line, _, file in self._running)


def _ready(relay: str) -> bool:
    try:
        return httpx.get(f"{relay}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
