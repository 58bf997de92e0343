"""`status`: a running instance as a person and a program see it."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from consumer.admin import server
from consumer.admin.fleet import StatusError
from consumer.admin.server import AdminServer, Health
from consumer.admin.status import status_of
from consumer.admin.status_model import Status
from consumer.commands.status import display as status_display
from consumer.errors import ExitCode
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import ConnectionFigures, PartitionFigures, Snapshot
from tests.unit.admin import status_sample
from tests.unit.commands.calling import called, json_lines


class Instance:
    """The admin server of an instance that is busy (see the sample)."""

    def __init__(self) -> None:
        self.snapshot = status_sample.snapshot()
        flow = status_sample.flow()
        health = Health({"event_loop": 0.4, "consumer": 0.4}, joined=True)
        self.server = AdminServer(("127.0.0.1", 0), CollectorRegistry(), lambda: health, lambda: (self.snapshot, flow))
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}"


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    monkeypatch.setattr(server, "CHECK_S", 0.01)  # so that the tests end soon
    instance = Instance()
    yield instance
    instance.server.close()


def test_status_says_once_and_plainly_what_an_instance_does_where_stdout_is_no_terminal(instance: Instance) -> None:
    result = called("status", "--url", instance.url)
    assert result.exit_code == 0
    assert re.match(r"engage-relay \S+  running  up 3 h 17 min", result.stdout)
    assert "! Connection outlet is suspended" in result.stdout
    for row in (
        r"pending 122 of 100,000 +oldest 11 min +next due in 500 ms +overdue 41",
        r"accepted/s +15\.1 ",
        r"outlet +suspended for 12 min +0 +0 +11\.1 of 25 +0 +Engage refuses its API key",
        r"tagged +41",
        r"orders\[2\] +open +44 +11",
        r"1 min 35 s ago +rejected +orders\[3\] +48211",
    ):
        assert re.search(row, result.stdout), row
    assert "\x1b" not in result.stdout


def test_status_as_json_is_what_the_instance_says(instance: Instance) -> None:
    result = called("status", "--url", f"{instance.url}/", "--json")
    assert result.exit_code == 0
    (row,) = json_lines(result)
    assert row == httpx.get(f"{instance.url}/status").json()


def test_status_has_code_1_and_one_line_where_nobody_answers() -> None:
    result = called("status", "--url", "http://127.0.0.1:1")
    assert result.exit_code == ExitCode.FAILED
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("nobody answers at http://127.0.0.1:1: ")


def test_status_has_code_1_where_somebody_else_answers(instance: Instance) -> None:
    result = called("status", "--url", f"{instance.url}/metrics")
    assert result.exit_code == ExitCode.FAILED
    assert "answers 404, but no status" in result.stderr


@pytest.mark.parametrize("url", ["here", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://a:b"])
def test_status_has_code_2_where_the_url_is_none(url: str) -> None:
    result = called("status", "--url", url)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert result.stderr.startswith("--url: ")


def test_what_an_instance_says_cannot_command_the_terminal(instance: Instance) -> None:
    figures = instance.snapshot.connections["dach"]
    instance.snapshot = replace(instance.snapshot, connections={"\x1b[2J[red]": figures})
    shown = called("status", "--url", instance.url).stdout
    assert "\\x1b[2J[red]" in shown
    assert "\x1b" not in shown


def on_a_terminal(url: str, *arguments: str, until: bytes, **environment: str) -> tuple[int, bytes]:
    """Run `status` on a terminal until it shows something, interrupt it, and return its code and all that it wrote."""
    ours, theirs = pty.openpty()
    # Where we ourselves were started to ignore an interrupt (by a script, with &), it would inherit that.
    ignored = signal.signal(signal.SIGINT, signal.SIG_DFL)
    where = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", "status", "--url", url, *arguments],
        env={**where, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "60", **environment},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        start_new_session=True,
    ) as process:
        signal.signal(signal.SIGINT, ignored)
        os.close(theirs)
        shown, interrupt_at = b"", 0.0
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
                # Python swallows the one that comes while it finalises an object: then once more.
                if until in shown and time.monotonic() > interrupt_at:
                    process.send_signal(signal.SIGINT)
                    interrupt_at = time.monotonic() + SWALLOWED_S
        except OSError:  # its end of the terminal is closed
            pass
        os.close(ours)
        return process.wait(30), shown


SWALLOWED_S = 10.0
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]")


def test_on_a_terminal_status_stays_and_an_interrupt_is_its_ordinary_end(instance: Instance) -> None:
    code, shown = on_a_terminal(instance.url, until=b"last dead letters")
    assert code == 0
    assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l") == 1  # a screen of its own, left in the end
    assert COLOUR.search(shown)


def test_without_colour_where_none_is_wanted(instance: Instance) -> None:
    code, shown = on_a_terminal(instance.url, "--once", until=b"never", NO_COLOR="1")
    assert code == 0
    assert b"last dead letters" in shown
    assert not COLOUR.search(shown)


LONG = "orders.of-the-northern-shops.v2"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_id_is_folded_or_cut_however_narrow_the_terminal_is(width: int) -> None:
    snapshot = status_sample.snapshot()
    shown = replace(
        snapshot,
        partitions={(LONG, 3): PartitionFigures("open", 3)},
        connections={**snapshot.connections, "denmark-outlet-and-seconds": ConnectionFigures()},
        dead_letters=tuple(replace(each, source_topic=LONG) for each in snapshot.dead_letters),
    )
    console = Console(file=(screen := io.StringIO()), width=width)
    console.print(status_display.drawn(status_of((shown, status_sample.flow()), version="0", age_s=0.4), console))
    text = screen.getvalue()
    assert len(re.findall(rf"{re.escape(LONG)}\[\d\]", text)) == 6
    assert "denmark-outlet-and-seconds" in text
    assert "invalid_event" in text
    assert max(map(len, text.splitlines())) <= width


def test_of_very_many_connections_the_terminal_shows_those_in_trouble() -> None:
    many = {f"shop-{number}": ConnectionFigures() for number in range(1000)}
    snapshot = replace(status_sample.snapshot(), connections={**status_sample.snapshot().connections, **many})
    console = Console(file=(screen := io.StringIO()), width=120)
    console.print(status_display.drawn(status_of((snapshot, status_sample.flow()), version="0", age_s=0.4), console))
    assert "outlet" in screen.getvalue()
    assert "and 991 more" in screen.getvalue()
    assert len(screen.getvalue().splitlines()) < 60


def test_a_partition_of_a_removed_source_is_no_ordinary_one() -> None:
    partitions = {("orders", 0): PartitionFigures("open", 3), ("old", 0): PartitionFigures("open", 2, drained=True)}
    snapshot = replace(status_sample.snapshot(), partitions=partitions)
    console = Console(file=(screen := io.StringIO()), width=120)
    console.print(status_display.drawn(status_of((snapshot, status_sample.flow()), version="0", age_s=0.4), console))
    (old,) = [line for line in screen.getvalue().splitlines() if "old[0]" in line]
    assert "open, drained only" in old
    assert screen.getvalue().count("drained only") == 1


def test_a_display_shows_what_came_last_when_the_instance_stops_answering() -> None:
    first = status_sample.status()
    newer = first.model_copy(update={"version": "0.3.0"})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=80, color_system=None)
    status_display.watch(first, [newer, StatusError("nobody answers at x"), first], console)
    pictures = screen.getvalue().split("engage-relay ")[1:]
    assert [each[:5] for each in pictures] == ["0.2.0", "0.3.0", "0.3.0", "0.2.0"]
    lost = ["nobody answers at x; these are its last figures" in each for each in pictures]
    assert lost == [False, False, True, False]


def test_watched_into_a_file_one_status_follows_the_other() -> None:
    screen = io.StringIO()
    first = status_sample.status()
    status_display.watch(first, [first, first], Console(file=screen, width=120))
    assert screen.getvalue().count("engage-relay 0.2.0") == 3
    assert "\x1b" not in screen.getvalue()


def test_watching_asks_again_and_again_and_survives_that_nobody_answers(instance: Instance) -> None:
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 2:
            instance.server.close()

    updates = status_display.updates(instance.url, sleep)
    assert isinstance(next(updates), Status)
    assert isinstance(next(updates), StatusError)
    assert asked == [status_display.EVERY_S] * 2


def test_an_instance_that_starts_has_a_status_too() -> None:
    bare = status_of((Snapshot(), Flow()), version="0.1.0", age_s=None)
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as shown:
        console.print(status_display.drawn(bare, console))
    assert "starting" in shown.get()
    assert "no figures yet" in shown.get()
    assert "pending" not in shown.get()


def test_an_instance_that_starts_says_what_it_waits_for_and_no_figures_that_it_does_not_know() -> None:
    waiting = "waiting for Kafka at broker-1:9092: unknown host"
    bare = status_of((Snapshot(), Flow()), version="0.1.0", age_s=None, joined=False, waiting=waiting)
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as shown:
        console.print(status_display.drawn(bare, console))
    assert "! Waiting for Kafka at broker-1:9092: unknown host" in shown.get()
    assert "rate limit" not in shown.get()
