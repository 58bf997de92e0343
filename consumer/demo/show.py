"""What the user sees of the demo: progress on stderr, the tally on stdout. Plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from consumer.demo.tally import Tally

PLAIN_EVERY_S = 5.0


def say(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


class Show:
    """The progress: a context manager."""

    def __init__(self, events: int) -> None:
        """`events` shall be written and settled."""
        self._events = events
        self._began_at = time.monotonic()
        self._plain_at = -PLAIN_EVERY_S
        self._bars = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._written = self._bars.add_task("events written", total=events)
        self._settled = self._bars.add_task("events settled", total=events)
        self._note = ""
        console = Console(stderr=True)
        self._live = Live(get_renderable=self._drawn, console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, written: int, settled: int, note: str) -> None:
        """Show how far it has come."""
        self._bars.update(self._written, completed=written)
        self._bars.update(self._settled, completed=settled)
        self._note = note
        now = time.monotonic()
        if self._live is None and now - self._plain_at >= PLAIN_EVERY_S:
            self._plain_at = now
            elapsed_s = now - self._began_at
            say(f"{elapsed_s:3.0f} s: {written} of {self._events} events written, {settled} settled; {note}")

    def _drawn(self) -> RenderableType:
        return Group(self._bars, Text(self._note))


def print_tally(tally: Tally, faults: Mapping[str, int]) -> None:
    """Print the tally to stdout, as a table on a terminal."""
    judge = (
        "the account of the Engage simulator"
        if tally.by_account
        else "the relay's own metrics: Engage shows no account"
    )
    lines = tally.lines()
    if faults:
        lines.append(("faults that Engage dealt", ", ".join(f"{name} {n}" for name, n in sorted(faults.items()))))
    console = Console()
    if console.is_terminal:
        table = Table("what", "how much", title=f"By the dead-letter topic and {judge}", title_justify="left")
        for what, count in lines:
            table.add_row(what, count)
        console.print(table)
    else:
        print(f"By the dead-letter topic and {judge}:")
        width = max(len(what) for what, _ in lines)
        for what, count in lines:
            print(f"{what:<{width}}  {count}")
    if not tally.adds_up:
        print("IT DOES NOT ADD UP.")
    elif tally.by_account:
        print(f"It adds up: each of {tally.events} events came to exactly one end.")
    else:
        print(f"It adds up, as far as the relay itself can tell: {tally.events} events in, as many came to an end.")
