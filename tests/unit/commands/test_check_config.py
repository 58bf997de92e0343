"""`check-config` and `config schema`, without a broker."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.commands.calling import KEY, called


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
