"""The command line without a broker: exit codes, which stream says what, and that JSON is JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from rich.console import Console
from typer.testing import CliRunner, Result

from consumer import logs
from consumer.admin import server
from consumer.admin.server import AdminServer, Health
from consumer.admin.status import Status, status_of
from consumer.commands import output, status
from consumer.commands.cli import EXIT_CODES, app
from consumer.commands.route import events_in
from consumer.commands.status import StatusError
from consumer.errors import ExitCode
from consumer.kafka import topics
from consumer.kafka.pending import Filter, Pending
from consumer.telemetry.metrics import Snapshot
from consumer.telemetry.rolling import Flow
from tests.unit.admin import status_sample

KEY = "4711-very-secret"
ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": KEY,
}
SHIPPED = {"type": "order.shipped", "orderId": "A-1", "engage": {"jobId": "job-7"}, "data": {"carrier": "Nörd"}}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("KAFKA_", "ENGAGE_")):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    named = {name: logging.getLogger(name).level for name in (*logs.OURS, "librdkafka")}
    before = (root.handlers, root.level, sys.excepthook, sys.unraisablehook, threading.excepthook)
    yield
    root.handlers, root.level, sys.excepthook, sys.unraisablehook, threading.excepthook = before
    for name, level in named.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    logs._secrets = []


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


# -- what all commands share --------------------------------------------------------------------------------------


def test_help_documents_every_exit_code() -> None:
    shown = called("--help").stdout
    for code in ExitCode:
        assert f"  {code.value}  " in shown
    assert len([line for line in EXIT_CODES.splitlines() if line.startswith("  ")]) == len(ExitCode)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, consumer.commands.cli as cli\n"
        "heavy = {'pydantic', 'confluent_kafka', 'structlog', 'rich', 'asyncio'}\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["check-config"],
        ["route", "-"],
        ["topics", "create"],
        ["topics", "check"],
        ["pending", "list"],
        ["dead-letters", "list"],
        ["dead-letters", "redrive", "--all"],
    ],
)
def test_every_mistake_of_the_configuration_is_told_on_stderr_with_code_2(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("polling:\n  deadlin: 5s\nlimits:\n  pending: 0\n")
    result = called(*command, "--config", str(file))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{file}:2:3 polling.deadlin: ")
    assert second.startswith(f"{file}:4:3 limits.pending: ")


def test_the_file_may_be_named_in_the_environment_which_overrides_it(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("source: {topics: [sales]}\nkafka: {group.id: from-file}\n")
    result = called("check-config", ENGAGE_RELAY_CONFIG=str(file), ENGAGE_RELAY__KAFKA__GROUP_ID="from-environment")
    assert result.exit_code == 0
    assert "sales.engage.delay" in result.stdout
    assert "from-environment" in result.stdout
    assert "from-file" not in result.stdout


def test_a_fault_shows_no_local_variables() -> None:
    assert app.pretty_exceptions_enable is False


def test_what_a_terminal_would_obey_is_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    output.rows([{"route": "\x1b[2J\tx\n", "n": None}], ["route", "n"], as_json=False)
    output.data("\x1b]0;title\x07")
    shown = capsys.readouterr().out
    assert shown.splitlines() == ["route\tn", "\\x1b[2J\\tx\\n\t", "\\x1b]0;title\\x07"]


@given(st.dictionaries(st.text(), st.text()))
def test_json_is_one_printable_line_whatever_it_holds(row: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("typer.echo", written.append)
        output.json_line(row)
    assert json.loads(written[0]) == row
    assert written[0].isascii()
    assert written[0].isprintable()


def test_on_a_terminal_a_table_is_drawn_without_markup_and_without_colour_where_none_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    output.rows([{"order_id": "[red]A-1[/red]\x1b[2J"}], ["order_id"], as_json=False)
    shown = capsys.readouterr().out
    assert "order id" in shown
    assert "[red]A-1[/red]\\x1b[2J" in shown
    assert not re.search(r"\x1b\[(3\d|38;[\d;]*|2J)", shown)


# -- check-config, config schema ----------------------------------------------------------------------------------


def test_check_config_says_what_run_would_do_and_never_the_key(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "source: {topics: [sales]}\n"
        "routes:\n"
        "  gone: {when: \"kind == 'gone'\", action: ConfirmCancellation}\n"
        "  confirmed: null\n"
    )
    result = called("check-config", "--config", str(file))
    assert result.exit_code == 0
    assert "topic sales: delay topic sales.engage.delay, dead letters sales.engage.dead-letters" in result.stdout
    assert "https://acme.voyado.com" in result.stdout
    named = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("route ")]
    assert named == ["gone:", "shipped:", "delivered:", "cancelled:", "completed:", "custom:"]
    assert KEY not in result.output


def test_check_config_says_from_which_file_the_key_comes_without_opening_it() -> None:
    result = called("check-config", ENGAGE_API_KEY="", ENGAGE_API_KEY_FILE="/run/secrets/none")
    assert result.exit_code == 0
    assert "/run/secrets/none" in result.stdout


def test_config_schema_is_json_on_stdout() -> None:
    result = called("config", "schema")
    assert result.exit_code == 0
    assert "routes" in json.loads(result.stdout)["properties"]


# -- route --------------------------------------------------------------------------------------------------------


def test_route_says_which_action_an_event_becomes_and_why() -> None:
    result = called("route", "-", stdin=json.dumps(SHIPPED))
    assert result.exit_code == 0
    first, *why = result.stdout.splitlines()
    assert first == "event 1: ConfirmShipment of order A-1 on default, versionTag from job job-7"
    assert len(why) == 6
    assert any("shipped" in line and "is true" in line for line in why)


def test_route_as_json_holds_the_action_and_each_routes_answer() -> None:
    (row,) = json_lines(called("route", "-", "--json", stdin=json.dumps(SHIPPED)))
    assert row["fate"] == "routed"
    action = row["action"]
    assert isinstance(action, dict)
    assert (action["route"], action["action"], action["order_id"]) == ("shipped", "ConfirmShipment", "A-1")
    assert action["tag_source"] == {"kind": "job", "job_id": "job-7"}
    assert action["data"] == {"carrier": "Nörd"}
    routes = row["routes"]
    assert isinstance(routes, list)
    assert [each["route"] for each in routes if each["took"]] == ["shipped"]


def test_an_event_that_no_route_takes_is_passed_with_code_0() -> None:
    result = called("route", "-", "--json", stdin='{"type": "price.changed"}')
    assert result.exit_code == 0
    assert [row["fate"] for row in json_lines(result)] == ["passed"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("nonsense", "undecodable"),
        ('{"type": "order.shipped", "type": "order.shipped", "orderId": "A"}', "undecodable"),
        ('{"type": "order.shipped"}', "invalid_event"),
        ('{"type": "order.shipped", "orderId": "A", "engage": {"connection": "who"}}', "unknown_connection"),
    ],
)
def test_an_event_that_would_be_dead_lettered_gives_code_1_and_the_others_are_judged(event: str, reason: str) -> None:
    result = called("route", "-", "--json", stdin=f"{event}\n\n{json.dumps(SHIPPED)}\n")
    assert result.exit_code == 1
    assert [(row["fate"], row["reason"]) for row in json_lines(result)] == [("dead_letter", reason), ("routed", None)]


def test_route_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "events.json"
    file.write_text(json.dumps([SHIPPED, SHIPPED], indent=2))
    assert [row["fate"] for row in json_lines(called("route", str(file), "--json"))] == ["routed", "routed"]


def test_a_file_that_cannot_be_read_is_a_mistake_of_the_command_line(tmp_path: Path) -> None:
    result = called("route", str(tmp_path / "none"))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "none" in result.stderr


OBJECTS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=9), max_size=3)


@given(st.lists(OBJECTS, min_size=1), st.sampled_from([None, 0, 2]), st.booleans())
def test_events_are_found_in_lines_arrays_and_documents_alike(
    events: list[dict[str, object]], indent: int | None, ascii_only: bool
) -> None:
    array = json.dumps(events, indent=indent, ensure_ascii=ascii_only).encode()
    lines = [json.dumps(event, ensure_ascii=ascii_only).encode() + b"\r\n" for event in events]
    document = json.dumps(events[0], indent=indent).encode()
    assert [json.loads(event) for event in events_in(array.splitlines(keepends=True))] == events
    assert [json.loads(event) for event in events_in(lines)] == events
    assert [json.loads(event) for event in events_in(document.splitlines(keepends=True))] == events[:1]


def test_an_events_own_text_reaches_the_decoder_so_that_what_it_would_refuse_is_seen() -> None:
    assert list(events_in([b'[{"a":1,"a":2}, 7]'])) == [b'{"a":1,"a":2}', b"7"]


def test_events_are_judged_while_more_of_them_come() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b'{"a":1}\n'

    assert next(events_in(endless())) == b'{"a":1}'


def test_no_events_at_all_are_no_mistake() -> None:
    result = called("route", "-", stdin="\n\n")
    assert (result.exit_code, result.stdout) == (0, "")


# -- dead letters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name the letters"),
        (["--offset", "7"], "partition:offset"),
        (["--reason", "bored"], "undecodable"),
        (["--since", "yesterday"], "duration"),
        (["--all", "--topic", "nobody"], "orders"),
        (["-"], "line 2"),
    ],
)
def test_redrive_refuses_what_names_no_letters_before_it_asks_a_broker(arguments: list[str], told: str) -> None:
    stdin = '{"topic": "orders.engage.dead-letters", "partition": 0, "offset": 1}\n{"topic": "x"}\n'
    result = called("dead-letters", "redrive", *arguments, stdin=stdin)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert told in result.stderr
    assert result.stdout == ""


def test_an_offset_alone_is_refused_where_there_are_several_dead_letter_topics() -> None:
    result = called("dead-letters", "redrive", "--offset", "0:7", ENGAGE_RELAY__SOURCE__TOPICS="a,b")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--topic" in result.stderr


# -- brokers that do not answer, ends that must be ends -----------------------------------------------------------


def test_brokers_that_do_not_answer_give_code_1_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "CALL_TIMEOUT_S", 0.2)
    result = called("topics", "check")
    assert result.exit_code == ExitCode.FAILED
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Kafka: ")


def test_run_ends_the_process_although_a_client_hangs() -> None:
    """A thread that never ends stands for a librdkafka call that never returns."""
    script = """
import sys, threading
from consumer import cli, run
from consumer.errors import ExitCode
def failing(settings, *, start, create_topics):
    threading.Thread(target=threading.Event().wait).start()
    print("the last line", file=sys.stderr)
    return ExitCode.OFFSET_OUT_OF_RANGE
run.run = failing
sys.argv = ["engage-relay", "run"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.OFFSET_OUT_OF_RANGE
    assert done.stderr.endswith("the last line\n")


def test_keys_and_passwords_known_at_the_start_never_show_in_logs() -> None:
    result = called("check-config", ENGAGE_RELAY__KAFKA__SASL_PASSWORD="p4ssword-of-kafka")
    assert result.exit_code == 0
    assert {KEY, "p4ssword-of-kafka"} <= set(logs._secrets)


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


# -- status -------------------------------------------------------------------------------------------------------


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
    where = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", "status", "--url", url, *arguments],
        env={**where, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "60", **environment},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                if until in shown + chunk and until not in shown:
                    process.send_signal(signal.SIGINT)
                shown += chunk
        except OSError:  # its end of the terminal is closed
            pass
        os.close(ours)
        return process.wait(30), shown


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


def test_a_display_shows_what_came_last_when_the_instance_stops_answering() -> None:
    first = status_sample.status()
    newer = first.model_copy(update={"version": "0.2.0"})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=80, color_system=None)
    status.watch(first, [newer, StatusError("nobody answers at x"), first], console)
    pictures = screen.getvalue().split("engage-relay ")[1:]
    assert [each[:5] for each in pictures] == ["0.1.0", "0.2.0", "0.2.0", "0.1.0"]
    lost = ["nobody answers at x; these are its last figures" in each for each in pictures]
    assert lost == [False, False, True, False]


def test_watched_into_a_file_one_status_follows_the_other() -> None:
    screen = io.StringIO()
    first = status_sample.status()
    status.watch(first, [first, first], Console(file=screen, width=120))
    assert screen.getvalue().count("engage-relay 0.1.0") == 3
    assert "\x1b" not in screen.getvalue()


def test_watching_asks_again_and_again_and_survives_that_nobody_answers(instance: Instance) -> None:
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 2:
            instance.server.close()

    updates = status.updates(instance.url, sleep)
    assert isinstance(next(updates), Status)
    assert isinstance(next(updates), StatusError)
    assert asked == [status.EVERY_S] * 2


def test_an_instance_that_starts_has_a_status_too() -> None:
    bare = status_of((Snapshot(), Flow()), version="0.1.0", age_s=None)
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as shown:
        console.print(status.drawn(bare, console))
    assert "starting" in shown.get()
    assert "no figures yet" in shown.get()


# -- pending list -------------------------------------------------------------------------------------------------

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(
    st.sampled_from([None, "A", "B"]),
    st.sampled_from([None, "acme", "beta"]),
    st.sampled_from([None, "pending", "sending", "unreadable"]),
    st.sampled_from([None, NOON, NOON + timedelta(hours=1)]),
)
def test_a_filter_takes_what_fits_all_that_it_names(
    order_id: str | None, connection: str | None, state: str | None, seen_before: datetime | None
) -> None:
    wanted = Filter(order_id, connection, state, seen_before)  # type: ignore[arg-type]
    a = Pending("orders", 0, 1, "pending", "r", "ConfirmOrder", "A", "acme", NOON)
    assert wanted.takes(a) is (
        order_id in (None, "A")
        and connection in (None, "acme")
        and state in (None, "pending")
        and seen_before in (None, NOON + timedelta(hours=1))
    )
    unreadable = Pending("orders", 0, 2, "unreadable")
    nothing_else = (order_id, connection, seen_before) == (None, None, None)
    assert wanted.takes(unreadable) is (nothing_else and state in (None, "unreadable"))


def test_the_order_that_is_asked_for_does_not_show_in_a_filters_repr() -> None:
    assert "A-1" not in repr(Filter("A-1"))


@pytest.mark.parametrize("duration", ["soon", "-1h", "1 week", ""])
def test_an_age_that_is_no_duration_is_a_mistake_of_the_command_line(duration: str) -> None:
    result = called("pending", "list", "--older-than", duration)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--older-than: must be a duration" in result.stderr


# -- completion ---------------------------------------------------------------------------------------------------


def completed(line: str, **environment: str) -> list[str]:
    """What bash offers at the end of a line."""
    script = f"""
eval "$(engage-relay --show-completion bash)"
read -ra COMP_WORDS <<< "{line}"; [[ "{line}" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_engage_relay_completion engage-relay
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = shell("bash", script, **environment)
    assert done.stderr == ""
    return done.stdout.split()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


@needs_bash
def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    assert {"run", "status", "pending", "dead-letters"} <= set(completed("engage-relay "))
    assert completed("engage-relay pending list --ord") == ["--order-id"]
    assert completed("engage-relay pending list --state ") == ["pending", "sending", "unreadable"]
    assert completed("engage-relay dead-letters list --reason re") == ["rejected"]


@needs_bash
def test_bash_completes_names_of_the_configuration_that_the_line_names(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    connection = "{base_url: https://acme.voyado.com, api_key: k}"
    connections = f"nordics: {connection}, dach: {connection}"
    file.write_text(f"source: {{topics: [sales, returns]}}\nengage: {{connections: {{{connections}}}}}\n")
    for options, environment in ((f"--config {file} ", {}), ("", {"ENGAGE_RELAY_CONFIG": str(file)})):
        clean = {"ENGAGE_BASE_URL": "", "ENGAGE_API_KEY": "", **environment}
        assert completed(f"engage-relay pending list {options}--connection n", **clean) == ["nordics"]
        assert completed(f"engage-relay dead-letters list {options}--topic ", **clean) == ["sales", "returns"]


@needs_bash
def test_with_a_configuration_that_cannot_be_read_nothing_is_completed_and_nothing_said() -> None:
    assert completed("engage-relay pending list --config /none --connection ") == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_every_usual_shell_is_told_how_to_complete(name: str) -> None:
    done = shell("sh", f"engage-relay --show-completion {name}")
    assert done.returncode == 0
    assert "_ENGAGE_RELAY_COMPLETE" in done.stdout
