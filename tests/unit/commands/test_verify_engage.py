"""`verify-engage`: its command line, its exit codes, and what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.errors import ExitCode
from tests.support.engage import Asked, Reply, ScriptedEngage
from tests.support.scripted_server import refused_url
from tests.unit.commands.calling import KEY, called

ORDER = "secret-order-77"


def documented(asked: Asked) -> Reply:
    json_type = {"Content-Type": "application/json"}
    if "content-type" not in asked.headers:
        return Reply(500, {}, json_type)
    if "user-agent" not in asked.headers:
        return Reply(400, {}, json_type)
    found = asked.path.endswith(ORDER)
    return Reply(200 if found else 404, {"orderId": ORDER, "versionTag": "t"} if found else {}, json_type)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "one of --order and --create-order"),
        (["--order", ".."], "orderId"),
        (["--order", "A", "--create-order", "x.json"], "one of --order and --create-order"),
        (["--create-order", "/nowhere.json"], "No such file"),
        (["--order", "A", "--api-key-file", "/nowhere"], "no API key can be read"),
        (["--order", "A", "--base-url", "acme"], "base_url"),
        (["--order", "A", "--user-agent", "Kassa/\u00e5"], "--user-agent"),
        (["--order", "A", "--ca-file", "/nowhere.pem"], "/nowhere.pem: no certificate authorities"),
        (["--order", "A", "--ca-file", __file__], "no certificate authorities"),
    ],
)
def test_a_command_line_that_cannot_be_ends_with_code_2(arguments: list[str], told: str) -> None:
    result = called("verify-engage", *arguments)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert told in result.stderr


def test_as_documented_ends_with_code_0_and_shows_and_writes_neither_key_nor_id(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with ScriptedEngage(documented) as engage:
        result = called("verify-engage", "--base-url", engage.url, "--order", ORDER, "--json", str(file))
    assert result.exit_code == ExitCode.OK, result.output
    assert "as documented" in result.stdout
    assert json.loads(file.read_text())["findings"][0]["verdict"] == "as documented"
    for text in (result.output, file.read_text()):
        assert KEY not in text
        assert ORDER not in text


def test_what_differs_ends_with_code_1_and_names_its_setting() -> None:
    with ScriptedEngage(lambda _: Reply(401)) as engage:
        result = called("verify-engage", "--base-url", engage.url, "--order", ORDER)
    assert result.exit_code == ExitCode.FAILED
    assert "differs; setting: api_key_header" in result.stdout


def test_an_engage_out_of_reach_ends_with_code_1() -> None:
    assert called("verify-engage", "--base-url", refused_url(), "--order", ORDER).exit_code == ExitCode.FAILED


def test_sending_an_action_is_said_loudly() -> None:
    result = called("verify-engage", "--base-url", refused_url(), "--order", ORDER, "--send-action")
    assert "WARNING" in result.stderr
    assert "mails the order's customer" in result.stderr


def test_the_merchants_system_is_named_before_ours() -> None:
    with ScriptedEngage(documented) as engage:
        called("verify-engage", "--base-url", engage.url, "--order", ORDER, "--user-agent", "AcmePOS/1.5")
        named = {asked.headers["user-agent"] for asked in engage.asked if "user-agent" in asked.headers}
    assert named == {"AcmePOS/1.5 engage-relay-verify/1"}
