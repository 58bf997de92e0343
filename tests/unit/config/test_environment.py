"""What a variable overrides, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.config.loading import load
from consumer.config.sections.admin import Address
from tests.unit.config.workspace import EXAMPLE, SECRET, THREE, Workspace, errors_of


def test_a_variable_overrides_the_file_at_any_depth(relay: Workspace) -> None:
    settings = relay.load(
        EXAMPLE,
        {
            "ENGAGE_RELAY__KAFKA__GROUP_ID": "other",
            "ENGAGE_RELAY__KAFKA__SESSION_TIMEOUT_MS": "9000",
            "ENGAGE_RELAY__SOURCE__TOPICS": "orders, returns",
            "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__REQUESTS_PER_SECOND": "7.5",
            "engage_relay__polling__max_interval": "2m",
            "ENGAGE_RELAY__LIMITS__PENDING": "5",
            "ENGAGE_RELAY__ADMIN__LISTEN": "[::]:0",
            "ENGAGE_RELAY__ROUTES__SHIPPED__ON_UNKNOWN": "dead_letter",
        },
    )

    assert settings.kafka["group.id"] == "other"
    assert settings.kafka["session.timeout.ms"] == "9000"
    assert settings.source.topics == ("orders", "returns")
    assert settings.engage.connections["default"].requests_per_second == 7.5
    assert settings.polling.max_interval == 120
    assert settings.limits.pending == 5
    assert settings.admin.listen == Address("::", 0)
    assert settings.effective_routes["shipped"].on_unknown == "dead_letter"


def test_a_section_or_list_may_be_json_which_is_merged_over_the_file(relay: Workspace) -> None:
    settings = relay.load(
        EXAMPLE,
        {
            "ENGAGE_RELAY__SOURCE__TOPICS": '["returns"]',
            "ENGAGE_RELAY__POLLING": '{"initial": "3s"}',
            "ENGAGE_RELAY__ROUTES__CONFIRMED": "null",
            "ENGAGE_RELAY__KAFKA": '{"linger.ms": 3}',
        },
    )

    assert settings.source.topics == ("returns",)
    assert (settings.polling.initial, settings.polling.max_interval) == (3, 60)
    assert "confirmed" not in settings.effective_routes
    assert (settings.kafka["linger.ms"], settings.kafka["bootstrap.servers"]) == (3, "localhost:9092")


def test_an_error_inside_a_json_variable_names_the_key_too() -> None:
    assert errors_of({**THREE, "ENGAGE_RELAY__POLLING": '{"initial": "3s", "deadline": 0}'}) == [
        "ENGAGE_RELAY__POLLING polling.deadline: must be longer than 0s"
    ]


@pytest.mark.parametrize("name", ["Acme-SE", "acme_se", "acme.se"])
def test_a_variable_means_the_connection_that_the_file_names(relay: Workspace, name: str) -> None:
    settings = relay.load(
        f"engage: {{connections: {{{name}: {{base_url: https://acme.voyado.com, api_key: k}}}}}}",
        {**THREE, "ENGAGE_RELAY__ENGAGE__CONNECTIONS__ACME_SE__TIMEOUT": "3"},
    )

    assert settings.engage.connections[name].timeout == 3
    assert set(settings.engage.connections) == {name, "default"}


def test_a_long_name_wins_over_a_short_one() -> None:
    long = {"ENGAGE_RELAY__KAFKA__BOOTSTRAP_SERVERS": "other:9092"}

    assert load(None, {**long, **THREE}).kafka["bootstrap.servers"] == "other:9092"


def test_a_key_in_the_environment_takes_the_place_of_the_files(relay: Workspace) -> None:
    from_environment = relay.load(EXAMPLE, {"ENGAGE_API_KEY": SECRET}).engage.connections["default"]
    assert from_environment.key().current() == SECRET
    assert from_environment.api_key_file is None

    inline = EXAMPLE.replace("api_key_file: /run/secrets/engage-api-key", "api_key: inline")
    from_file = relay.load(inline, {"ENGAGE_API_KEY_FILE": "/run/key"}).engage.connections["default"]
    assert (from_file.api_key, from_file.api_key_file) == (None, Path("/run/key"))


def test_two_keys_of_one_source_are_an_error(relay: Workspace) -> None:
    both = EXAMPLE.replace("api_key_header: apikey", "api_key: inline")

    assert relay.errors(both) == [
        "relay.yaml:15:7 engage.connections.default.api_key: write either api_key or api_key_file, not both"
    ]
    assert errors_of({**THREE, "ENGAGE_API_KEY_FILE": "/run/key"}) == [
        "ENGAGE_API_KEY: write either api_key or api_key_file, not both"
    ]


def test_an_empty_variable_counts_as_not_set(relay: Workspace) -> None:
    assert relay.load(EXAMPLE, {"ENGAGE_API_KEY": "", "ENGAGE_RELAY__POLLING__INITIAL": ""}) == relay.load(EXAMPLE)


@pytest.mark.parametrize("name", ["ENGAGE_RELAY_SERVICE_HOST", "ENGAGE_RELAY_PORT", "KAFKA_PORT", "HOME"])
def test_variables_of_others_are_none_of_ours(name: str) -> None:
    # Kubernetes sets the first two for a service named engage-relay.
    assert load(None, {**THREE, name: "tcp://10.0.0.1:80"}) == load(None, THREE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "ENGAGE_RELAY__ENGAGE__BASE_URL",
            "unknown name, did you mean ENGAGE_RELAY__ENGAGE__CONNECTIONS__NAME__BASE_URL?",
        ),
        (
            "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__APIKEY",
            "unknown name, did you mean ENGAGE_API_KEY?",
        ),
        ("ENGAGE_RELAY__LIMITS__PENDING__MAX", "unknown name"),
        ("ENGAGE_RELAY__", "unknown name"),
        ("ENGAGE_RELAY__LIMITS", 'must be JSON: {"key": "value"}'),
        ("ENGAGE_RELAY__LIMITS__PENDING", "must be a whole number"),
    ],
)
def test_a_variable_that_means_nothing_is_an_error(name: str, text: str) -> None:
    assert errors_of({**THREE, name: "x"}) == [f"{name}: {text}"]
