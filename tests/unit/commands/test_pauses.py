"""`pause`, `resume` and `pauses`: what they write, and what they refuse before anything is written."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from consumer.commands.control import pauses as commands
from consumer.core.pauses import Pause
from consumer.errors import ExitCode
from consumer.kafka.control import control
from consumer.kafka.control.control import Record
from consumer.kafka.control.records import Controls, pause_key, pause_value
from tests.unit.commands.calling import called, json_lines

WHY = ("--reason", "a test")
HOUR_S = 3600.0


class Topic:
    """What the control topic holds."""

    def __init__(self, *pauses: Pause) -> None:
        self.written: list[Record] = []
        self.controls = Controls()
        self.write({}, "", [Record(pause_key(each), pause_value(each)) for each in pauses])
        self.written.clear()

    def write(self, _: object, __: str, records: Sequence[Record]) -> None:
        self.written += records
        for each in records:
            self.controls.take(each.key, each.value)

    def on(self) -> list[Pause]:
        return list(self.controls.pauses.on(time.time()))


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    made = Topic()
    monkeypatch.setattr(commands, "reach", lambda _: None)
    monkeypatch.setattr(control, "read_controls", lambda *_: made.controls)
    monkeypatch.setattr(control, "write_controls", made.write)
    return made


def pause(name: str = "p1", **more: object) -> Pause:
    fields: dict[str, object] = {"id": name, "begun": time.time() - 60, "reason": "a test", **more}
    return Pause(**fields)  # type: ignore[arg-type]


def test_a_pause_is_written_with_what_it_covers(topic: Topic) -> None:
    result = called("pause", *WHY, "--route", "shipped", "--action", "ConfirmShipment", "--until", "2h")
    (made,) = topic.on()
    assert (made.connection, made.route, made.action, made.discard) == (None, "shipped", "ConfirmShipment", False)
    assert made.reason == "a test"
    assert made.until is not None
    assert 1.9 * HOUR_S < made.until - time.time() <= 2 * HOUR_S
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{made.id}: route shipped, action ConfirmShipment is on hold until 20")


def test_one_that_discards_says_so(topic: Topic) -> None:
    assert called("pause", *WHY, "--discard", "--yes").exit_code == 0
    assert [each.discard for each in topic.on()] == [True]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pause",), "--reason"),
        (("resume",), "--reason"),
        (("pause", "--reason", " "), "--reason: say why"),
        (("resume", "--reason", ""), "--reason: say why"),
        (("pause", "--reason", "x" * 201), "--reason: must be at most 200 characters"),
        (("pause", *WHY, "--connection", "acme"), "--connection: acme is not configured; there are default"),
        (("pause", *WHY, "--route", "shiped"), "--route: shiped is not configured; there are "),
        (("pause", *WHY, "--action", "confirmorder"), "--action: confirmorder is not configured; there are "),
        (("pause", *WHY, "--until", "2020-01-01T00:00Z"), "--until: 2020-01-01T00:00Z is in the past"),
        (("pause", *WHY, "--until", "0s"), "--until: 0s is in the past"),
        (("pause", *WHY, "--until", "soon"), "--until: soon: must be a duration"),
        (("resume", *WHY, "--route", "shipped"), "no such pause is on; there are: none"),
        (("resume", *WHY, "p9"), "p9: no such pause is on"),
        (("resume", *WHY, "p9", "--route", "shipped"), "by their ids, or by what they cover, not both"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(topic: Topic, arguments: tuple[str, ...], text: str) -> None:
    result = called(*arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert text in " ".join(result.stderr.split())
    assert topic.written == []


@pytest.mark.parametrize("command", [("pause", *WHY), ("resume", *WHY), ("pauses",)])
def test_without_a_control_topic_nothing_can_be_paused(topic: Topic, command: tuple[str, ...]) -> None:
    result = called(*command, ENGAGE_RELAY__CONTROL__TOPIC="none")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "control.topic is none" in result.stderr
    assert topic.written == []


THREE = (pause("all"), pause("shipped", route="shipped"), pause("old", ended=time.time() - 1))


@pytest.mark.parametrize(
    ("arguments", "left"),
    [((), []), (("all",), ["shipped"]), (("--route", "shipped"), ["all"]), (("all", "shipped"), [])],
)
def test_resume_ends_all_or_those_that_are_meant(topic: Topic, arguments: tuple[str, ...], left: list[str]) -> None:
    topic.write({}, "", [Record(pause_key(each), pause_value(each)) for each in THREE])
    assert called("resume", *WHY, *arguments).exit_code == 0
    assert [each.id for each in topic.on()] == left
    assert {each.id for each in topic.controls.pauses.known} == {"all", "shipped", "old"}, "time on hold counts later"


def test_to_resume_what_nobody_paused_is_no_error(topic: Topic) -> None:
    result = called("resume", *WHY)
    assert (result.exit_code, result.stderr, topic.written) == (0, "nothing is paused\n", [])


def test_a_part_of_what_a_pause_covers_is_not_resumed(topic: Topic) -> None:
    topic.write({}, "", [Record(pause_key(THREE[0]), pause_value(THREE[0]))])
    result = called("resume", *WHY, "--route", "shipped")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "there are: all (everything)" in result.stderr


def test_pauses_lists_what_is_on_and_on_request_what_was(topic: Topic) -> None:
    topic.write({}, "", [Record(pause_key(each), pause_value(each)) for each in THREE])
    listed = json_lines(called("pauses", "--json"))
    assert {row["id"] for row in listed} == {"all", "shipped"}
    assert listed[0]["reason"] == "a test"
    assert {row["id"] for row in json_lines(called("pauses", "--ended", "--json"))} == {"all", "shipped", "old"}


def test_a_record_that_cannot_be_read_is_said(topic: Topic) -> None:
    topic.controls.take(b"pause/x", b"{}")
    result = called("pauses", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 records cannot be read" in result.stderr


def test_pauses_that_ended_long_ago_are_cleared_away(topic: Topic) -> None:
    days = 86_400.0
    recent, ancient = (
        pause(name, begun=1.0, ended=time.time() - age * days) for name, age in (("recent", 30), ("ancient", 32))
    )
    topic.write({}, "", [Record(pause_key(each), pause_value(each)) for each in (recent, ancient)])
    topic.written.clear()
    assert called("pause", *WHY).exit_code == 0
    assert [each.key for each in topic.written if each.value is None] == [b"pause/ancient"]
