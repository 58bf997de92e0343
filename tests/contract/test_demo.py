"""The demo as a user starts it: a process of its own, Kafka's mock cluster, the simulator, the real relay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMO = "from consumer.demo import run_demo; raise SystemExit(run_demo(orders={orders}, seed=1{more}))"
ESCAPE = "\x1b"


@contextmanager
def demo(temporary: Path, *, orders: int, more: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start the demo; its temporary files lie in `temporary`, by which its processes are known, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", DEMO.format(orders=orders, more=more)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # not kill: it takes its relay down
            process.communicate(timeout=60)


def processes_that_name(path: Path) -> list[str]:
    """Return the command lines that hold this path."""
    return [
        line
        for line in subprocess.check_output(["ps", "-eww", "-o", "args"], text=True).splitlines()
        if str(path) in line
    ]


def test_the_demo_ends_by_itself_with_a_tally_that_adds_up(tmp_path: Path) -> None:
    with demo(tmp_path, orders=10) as process:
        out, progress = process.communicate(timeout=110)
    assert process.returncode == 0, out + progress
    tally = dict(line.split("  ", 1) for line in out.splitlines() if "  " in line.strip())
    counts = {what.strip(): count.strip() for what, count in tally.items()}
    assert int(counts["events in"]) > 20
    assert int(counts["actions accepted"]) > 10
    assert (counts["lost"], counts["doubled without doubt"], counts["out of order within an order"]) == ("0", "0", "0")
    assert "It adds up" in out
    assert ESCAPE not in out + progress
    assert processes_that_name(tmp_path) == []
    (log,) = tmp_path.iterdir()  # the relay's log, whose path the user was told
    assert f"the relay's log: {log}" in progress
    assert '"event": "stopped"' in log.read_text()


def test_ctrl_c_leaves_no_process_and_no_file_behind(tmp_path: Path) -> None:
    with demo(tmp_path, orders=200) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "events written" in line)
        assert len(processes_that_name(tmp_path)) == 1, line
        process.send_signal(signal.SIGINT)
        out, progress = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, progress
    assert "Traceback" not in progress
    assert out == ""
    assert processes_that_name(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_engage_that_does_not_answer_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGAGE_API_KEY", "key-of-nobody")
    with demo(tmp_path, orders=1, more=", base_url='http://127.0.0.1:9'") as process:
        out, progress = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert progress == "http://127.0.0.1:9 does not answer: ConnectError\n"
    assert list(tmp_path.iterdir()) == []
