"""What the configuration says of formats and the registry, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.config.files import unreadable
from consumer.config.loading import load
from consumer.config.settings import Settings
from consumer.errors import ConfigurationError

LEAST: dict[str, Any] = {
    "kafka": {"bootstrap.servers": "b:9092"},
    "engage": {"connections": {"default": {"base_url": "https://acme.voyado.com", "api_key": "k"}}},
}


def read(tmp_path: Path, environ: dict[str, str] | None = None, **written: Any) -> Settings:
    file = tmp_path / "relay.yaml"
    file.write_text(yaml.safe_dump({**LEAST, **written}))
    return load(file, environ or {})


def refused(tmp_path: Path, **written: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, **written)
    return str(raised.value)


def test_a_topic_has_the_format_that_it_is_given(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        source={"topics": ["orders", "shop.cdc"], "formats": {"shop.cdc": {"format": "debezium"}}},
    )
    assert settings.source.formats["shop.cdc"].format == "debezium"
    assert "orders" not in settings.source.formats


def test_a_format_of_a_topic_that_is_not_read_is_an_error(tmp_path: Path) -> None:
    assert "source.formats.order: must be one of source.topics" in refused(
        tmp_path, source={"topics": ["orders"], "formats": {"order": {"format": "plain"}}}
    )


def test_framed_values_need_a_registry(tmp_path: Path) -> None:
    source = {"topics": ["orders"], "formats": {"orders": {"format": "confluent"}}}
    assert "registry: missing: source.formats.orders needs" in refused(tmp_path, source=source)
    settings = read(tmp_path, source=source, registry={"url": "http://registry:8081"})
    assert settings.registry is not None
    assert settings.registry.unknown_schema_grace == 300.0


def test_the_environment_gives_the_registry_its_password(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        {"ENGAGE_RELAY__REGISTRY__PASSWORD": "secret"},
        registry={"url": "https://registry", "username": "me"},
    )
    assert settings.registry is not None
    assert settings.registry.properties()["basic.auth.user.info"] == "me:secret"
    assert "secret" not in repr(settings)


def test_a_file_of_the_registry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = read(tmp_path, registry={"url": "https://registry", "token_file": str(tmp_path / "none")})
    assert [line.partition(": cannot")[0] for line in unreadable(settings)] == ["registry.token_file"]
