"""`send` produces one event, and `route --offset` decides on it straight from the topic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumer.commands import send
from consumer.commands.cli import app
from tests.support.sandbox import SandboxFactory

EVENT = {"kind": "sent", "total": 1}


def test_an_event_that_is_sent_is_there_with_key_and_headers_and_is_judged_as_it_lies(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes()
    file, event = tmp_path / "relay.yaml", tmp_path / "event.json"
    route = {"when": "headers.kind == 'sent'", "action": "ConfirmShipment", "order_id": "key"}
    config = {
        "kafka": {"bootstrap.servers": sandbox.properties["bootstrap.servers"]},
        "source": {"topics": [sandbox.topics.source]},
        "engage": {"connections": {"default": {"base_url": "https://localhost", "api_key": "k"}}},
        "routes": {"mine": route},
    }
    file.write_text(json.dumps(config))
    event.write_text(json.dumps(EVENT))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(file)])

    sent = run("send", str(event), "--key", "A-1", "--header", "kind=sent")
    assert sent.stdout == f"{sandbox.topics.source}[0] offset 0\n"
    judged = run("route", "--topic", sandbox.topics.source, "--offset", "0:0")
    assert "ConfirmShipment of order A-1 on default" in judged.output
    assert judged.exit_code == 0
    (record,) = sandbox.read(sandbox.topics.source)
    assert record.headers() == [("kind", b"sent")]

    assert run("send", "--tombstone", "--key", "A-1").exit_code == 0
    assert run("route", "--topic", sandbox.topics.source, "--offset", "0:1").output.endswith("a tombstone\n")
    assert "has no record" in run("route", "--topic", sandbox.topics.source, "--offset", "0:7").output
    assert "must be one of source.topics" in run("send", str(event), "--topic", "other").output


def test_a_topic_that_is_not_there_is_said_at_once(
    sandboxes: SandboxFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took 31 s, in which nothing was said."""
    servers = sandboxes().properties["bootstrap.servers"]
    file, event = tmp_path / "relay.yaml", tmp_path / "event.json"
    file.write_text(
        json.dumps(
            {
                "kafka": {"bootstrap.servers": servers},
                "source": {"topics": ["nowhere"]},
                "engage": {"connections": {"default": {"base_url": "https://localhost", "api_key": "k"}}},
            }
        )
    )
    event.write_text(json.dumps(EVENT))
    monkeypatch.setattr(send, "FLUSH_S", 15.0)
    result = CliRunner().invoke(app, ["send", str(event), "--config", str(file)])
    assert (result.exit_code, result.output) == (1, "not sent: Broker: Unknown topic or partition\n")
