"""`config init` writes files that are valid; `config show --origin` tells where each value is from."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumer import logs
from consumer.commands.cli import app
from consumer.commands.options import loaded
from consumer.commands.platforms import CANONICAL, platforms
from consumer.config.loading import load

ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": "a-secret-key",
}


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=ENVIRONMENT if env is None else env)


@pytest.mark.parametrize("platform", [CANONICAL, *platforms()])
def test_a_file_is_valid_and_has_the_routes_of_its_platform(platform: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    assert run("config", "init", platform, "--file", str(file)).exit_code == 0
    settings = load(file, ENVIRONMENT)
    assert bool(settings.routes) == (platform != CANONICAL)
    assert "# polling:" in file.read_text()


def test_every_platform_of_the_examples_is_known() -> None:
    assert {"shopify", "magento", "bigcommerce", "saleor", "medusa", "woocommerce"} <= set(platforms())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("mine")
    done = run("config", "init", "shopify", "-f", str(file))
    assert done.exit_code == 2
    assert "is not overwritten" in done.output
    assert file.read_text() == "mine"


def test_an_unknown_platform_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    done = run("config", "init", "shopfy", "-f", str(tmp_path / "x"))
    assert done.exit_code == 2
    assert "shopify" in done.output
    assert not (tmp_path / "x").exists()


def test_each_value_is_shown_with_where_it_is_from_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "kafka:\n  group.id: mine\n  sasl.mechanism: PLAIN\n  sasl.password: kafka-secret\n"
        "engage:\n  connections:\n    default:\n      headers: {x-gate: gate-secret}\n"
        "limits:\n  pending: 7\n"
    )
    environment = {**ENVIRONMENT, "ENGAGE_RELAY__POLLING__DEADLINE": "1h"}
    done = run("config", "show", "--origin", "--config", str(file), env=environment)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert f'kafka.group.id: "mine"  # {file}:2' in lines
    assert f'kafka.sasl.password: "(hidden)"  # {file}:4' in lines
    assert f"limits.pending: 7  # {file}:10" in lines
    assert "polling.deadline: 3600.0  # ENGAGE_RELAY__POLLING__DEADLINE" in lines
    assert 'engage.connections.default.api_key: "(hidden)"  # ENGAGE_API_KEY' in lines
    assert "polling.max_interval: 60.0  # default" in lines
    assert not any(secret in done.output for secret in ("a-secret-key", "kafka-secret", "gate-secret"))


SECRET_PROPERTIES = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.config",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
]


@pytest.mark.parametrize("name", SECRET_PROPERTIES)
def test_no_secret_property_of_librdkafka_is_shown(name: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(f"kafka:\n  {name}: kafka-secret\n")
    done = run("config", "show", "--config", str(file))
    assert f'kafka.{name}: "(hidden)"' in done.output.splitlines()
    assert "kafka-secret" not in done.output


def test_every_secret_that_is_written_or_named_is_struck_from_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck: list[str] = []
    monkeypatch.setattr(logs, "redact", struck.append)
    (tmp_path / "token").write_text("registry-token\n")
    file = tmp_path / "relay.yaml"
    file.write_text(
        "kafka:\n  bootstrap.servers: b:9092\n  sasl.oauthbearer.assertion.private.key.passphrase: kafka-secret\n"
        "engage:\n  connections:\n    default:\n      base_url: https://acme.voyado.com\n"
        "      api_key: engage-secret\n      proxy: http://u:pass%40word@proxy:3128\n"
        f"registry:\n  url: https://registry.example\n  token_file: {tmp_path}/token\n"
    )
    loaded(file)
    assert {*struck} >= {"kafka-secret", "engage-secret", "pass%40word", "pass@word", "registry-token"}


def test_a_wrong_configuration_is_said_as_everywhere() -> None:
    assert run("config", "show", env={}).exit_code == 2
