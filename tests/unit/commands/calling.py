"""Calling the command line in a test, and reading what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from consumer.commands.cli import app

KEY = "4711-very-secret"


ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": KEY,
}


def called(*arguments: str, stdin: str = "", **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin, env={**ENVIRONMENT, **environment})


def json_lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def shell(name: str, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a shell in which `engage-relay` is a command."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    where = {**os.environ, **ENVIRONMENT, "PATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    return subprocess.run(
        [name, "-c", script], env={**where, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
