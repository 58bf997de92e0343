"""What a file tells somebody to run, held against the command line as it is."""

from __future__ import annotations

import re
import shlex

import typer

from consumer.commands.cli import app

COMMAND_LINE = typer.main.get_command(app)


def accept(arguments: list[str]) -> None:
    """Parse a command's arguments as `engage-relay` does, without running it. Raises the parser's own error."""
    command, remaining = COMMAND_LINE, list(arguments)
    while isinstance(command, typer.core.TyperGroup):
        name = remaining.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context("engage-relay", remaining)


def told(text: str) -> list[list[str]]:
    """Return the `engage-relay` commands of a Markdown text: its code lines (also inside `kubectl exec`) and `code`."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    inline = re.findall(r"`(engage-relay [^`]+)`", text)
    found = []
    for line in [*lines, *inline]:
        for part in line.split(" | "):
            match = re.match(r"(?:kubectl .* -- )?engage-relay (.+)", part)
            if match:
                found.append(shlex.split(match[1]))
    return found
