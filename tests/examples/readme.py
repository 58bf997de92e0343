"""What an example's README tells to run.

Conventions of examples/*/README.md:
 1. A `console` block is a session: a line that begins with `$ ` is a command, the lines below
    it are its output.
 2. Commands that need a broker, Engage or a cluster are indented by four, as in docs/
    (tests/docs/documents.py).
 3. All of them are meant to be run in the example's folder.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.documents import ROOT, blocks, commands

EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*-*"))
COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Example:
    """A folder below examples/."""

    folder: Path
    commands: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "commands", commands(self.text))

    @property
    def text(self) -> str:
        """Its README."""
        return (self.folder / "README.md").read_text()

    def steps(self, *first: str) -> list[list[str]]:
        """Return the commands that begin with these words."""
        found = [words for words in self.commands if words[: len(first)] == [*first]]
        assert found, f"{self.folder.name} has no step {' '.join(first)}"
        return found

    def sessions(self) -> list[tuple[str, str]]:
        """Return the commands of its `console` blocks, each with the output that stands below it."""
        found: list[tuple[str, str]] = []
        for block in blocks(self.text):
            if block.language == "console":
                for part in block.text.removeprefix("$ ").split("\n$ "):
                    command, _, output = part.partition("\n")
                    found.append((command, output.rstrip("\n")))
        return found


def example(name: str) -> Example:
    """Return the example whose folder has this name."""
    return Example(ROOT / "examples" / name)


def output_of(command: str, folder: Path) -> str:
    """Run a shell command in a folder, with this environment's `engage-relay`; returns what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENGAGE_", "KAFKA_"))}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**kept, "PATH": path},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert done.returncode in (0, 1), f"{shlex.quote(command)}: {done.stderr}"
    return done.stdout.rstrip("\n")
