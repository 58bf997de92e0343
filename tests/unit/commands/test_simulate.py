"""`simulate`: the simulator as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import httpx
import pytest

from consumer.errors import ExitCode
from tests.unit.commands.calling import called


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fault", "nonsense"], "nonsense"),
        (["--processing", "soon"], "soon"),
        (["--failing", "0.7", "--stuck", "0.7"], "shares"),
        (["--listen", "here"], "host:port"),
    ],
)
def test_simulate_says_what_cannot_be_with_code_2(arguments: list[str], told: str) -> None:
    result = called("simulate", *arguments)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert told in result.stderr


def test_simulate_says_on_stdout_where_it_listens_and_ends_with_code_0_when_told() -> None:
    command = [sys.executable, "-m", "consumer.cli", "simulate", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/simulator/account").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
