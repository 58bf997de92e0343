"""What the usual shells complete."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.commands.calling import shell

pytestmark = pytest.mark.slow  # each completion starts the command line once more


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
    assert completed("engage-relay pending list --state ") == ["pending", "sending", "refused", "unreadable"]
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
def test_the_script_is_of_the_shell_that_is_named_whichever_asks(name: str) -> None:
    """No shell is guessed: in an image there is no terminal and no parent that could be one."""
    named = shell("sh", f"engage-relay completion {name}", SHELL="/bin/other")
    shown = shell("sh", f"engage-relay --show-completion {name}")
    assert named.returncode == 0
    assert named.stdout == shown.stdout


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_every_usual_shell_is_told_how_to_complete(name: str) -> None:
    done = shell("sh", f"engage-relay --show-completion {name}")
    assert done.returncode == 0
    assert "_ENGAGE_RELAY_COMPLETE" in done.stdout
