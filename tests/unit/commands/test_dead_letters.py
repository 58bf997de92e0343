"""`dead-letters`: what is refused before a broker is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from consumer.core.requests import Answer, DeadLetterId, Request, done, refused
from consumer.errors import ExitCode
from consumer.kafka.control.asking import Told, TooManyOpenError
from consumer.kafka.dead_letters.redrive import Coordinates, Redrive, Result
from tests.unit.commands.calling import called


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name the dead letters"),
        (["--source-offset", "7"], "partition:offset"),
        (["--dead-letter-offset", "0:-1"], "partition:offset"),
        (["--reason", "bored"], "undecodable"),
        (["--since", "yesterday"], "duration"),
        (["--all", "--topic", "nobody"], "orders"),
        (["-"], "line 2"),
    ],
)
def test_redrive_refuses_what_names_no_letters_before_it_asks_a_broker(arguments: list[str], told: str) -> None:
    good = '{"dead_letter_topic": "orders.engage.dead-letters", "dead_letter_partition": 0, "dead_letter_offset": 1}'
    stdin = f'{good}\n{{"topic": "x"}}\n'
    result = called("dead-letters", "redrive", *arguments, stdin=stdin)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["--source-offset", "--dead-letter-offset"])
def test_an_offset_alone_is_refused_where_there_are_several_topics(option: str) -> None:
    result = called("dead-letters", "redrive", option, "0:7", ENGAGE_RELAY__SOURCE__TOPICS="a,b")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--topic" in result.stderr


# -- many at once ---------------------------------------------------------------------------------------------------


AT = Coordinates("orders.engage.dead-letters", 0, 3)


@pytest.fixture
def redriven(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Say which redrives were asked for, by whether they were dry runs."""
    asked: list[bool] = []

    def redrive(*_: object, dry_run: bool, only_mark: bool) -> Iterator[Redrive]:
        asked.append(dry_run)
        result: Result = "chosen" if dry_run else "marked" if only_mark else "redriven"
        yield from (Redrive(replace(AT, offset=offset), result, ("orders", 0)) for offset in (3, 4))

    monkeypatch.setattr("consumer.kafka.dead_letters.redrive.redrive", redrive)
    monkeypatch.setattr("consumer.commands.dead_letters.reach", lambda _: None)
    return asked


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.commands.options.is_a_terminal", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_is_asked_with_their_number_before_many_are_redriven(redriven: list[bool]) -> None:
    refused = called("dead-letters", "redrive", "--all", "--to-source", stdin="n\n")
    assert (refused.exit_code, redriven) == (1, [True])
    assert "Redrive 2 dead letters?" in refused.stderr
    done = called("dead-letters", "redrive", "--since", "1d", "--to-source", stdin="y\n")
    assert (done.exit_code, redriven) == (0, [True, True, False])
    assert "2 redriven" in done.stderr


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    "arguments",
    [["--all", "--yes"], ["--all", "--dry-run"], ["--source-offset", "0:1"], ["--dead-letter-offset", "0:3"]],
)
def test_nobody_is_asked_who_named_them_or_said_yes_or_changes_nothing(
    redriven: list[bool], arguments: list[str]
) -> None:
    done = called("dead-letters", "redrive", *arguments, "--to-source")
    assert (done.exit_code, len(redriven)) == (0, 1)


def test_a_script_is_not_asked_and_its_lines_are_what_they_were(redriven: list[bool]) -> None:
    done = called("dead-letters", "redrive", "--all", "--json", "--to-source")
    assert (done.exit_code, redriven) == (0, [False])
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["redriven", "redriven"]
    assert called("dead-letters", "redrive", "--all", "--to-source", "-o", "json").stdout == done.stdout
    listed = called("dead-letters", "redrive", "--all", "--to-source", "-o", "yaml").stdout
    assert yaml.safe_load(listed) == [json.loads(line) for line in done.stdout.splitlines()]


# -- asked of the relay -----------------------------------------------------------------------------------------------


def request(offset: int) -> Request:
    return Request(
        id=f"{offset}",
        what="send_again",
        topic="orders",
        partition=0,
        offset=offset,
        dead_letter=DeadLetterId(AT.topic, AT.partition, offset),
        reason="a test",
        asked_by="redrive",
        asked=1.0,
    )


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (done("it is saved"), 0, "redriven: it is saved"),
        (refused("it is still pending"), 1, "failed: it is still pending"),
        (None, 1, "asked for: request 3"),
    ],
)
def test_the_relay_is_asked_and_its_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, answer: Answer | None, code: int, told: str
) -> None:
    monkeypatch.setattr("consumer.kafka.dead_letters.redrive.requests_for", lambda *_: iter([request(3)]))
    monkeypatch.setattr("consumer.kafka.control.asking.ask", lambda *_, wait_s: iter([Told(request(3), answer)]))
    monkeypatch.setattr("consumer.commands.dead_letters.reach", lambda _: None)
    result = called("dead-letters", "redrive", "--all")
    assert (result.exit_code, result.stdout) == (code, f"{AT}: {told}\n")
    assert ("nobody answered" in result.stderr) is (answer is None)
    assert called("dead-letters", "redrive", "--all", "--no-wait").exit_code == (code if answer else 0)


def test_too_many_for_one_that_does_not_wait_are_refused_and_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(*_: object, wait_s: float) -> Iterator[Told]:
        raise TooManyOpenError("these are 1001 requests; 1000 may be open at a time")
        yield

    monkeypatch.setattr("consumer.kafka.dead_letters.redrive.requests_for", lambda *_: iter([request(3)]))
    monkeypatch.setattr("consumer.kafka.control.asking.ask", ask)
    monkeypatch.setattr("consumer.commands.dead_letters.reach", lambda _: None)
    result = called("dead-letters", "redrive", "--all", "--no-wait")
    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert "1000 may be open at a time. Nothing was written. Leave --no-wait out" in result.stderr


@pytest.mark.parametrize("arguments", [["--why", "x", "--to-source"], ["--no-wait", "--only-mark"], ["--why", " "]])
def test_what_asks_nobody_takes_no_reason(arguments: list[str]) -> None:
    assert called("dead-letters", "redrive", "--all", *arguments).exit_code == ExitCode.CONFIGURATION
