"""A variable that was meant for the relay and is not one is told, instead of being ignored in silence."""

from __future__ import annotations

import pytest

from consumer.config.environment import near_misses
from tests.unit.commands.calling import called


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ENGAGE_RELAY_LIMITS__PENDING", "ENGAGE_RELAY__LIMITS__PENDING"),
        ("engage_relay_kafka__group_id", "ENGAGE_RELAY__KAFKA__GROUP_ID"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_BOOTSTRAPSERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("ENGAGE_APIKEY", "ENGAGE_API_KEY"),
        ("ENGAGE_API_KEYFILE", "ENGAGE_API_KEY_FILE"),
        ("ENGAGE_BASEURL", "ENGAGE_BASE_URL"),
        ("ENGAGE_RELAY_CONFIGS", "ENGAGE_RELAY_CONFIG"),
    ],
)
def test_a_near_miss_is_told_with_what_was_meant(variable: str, meant: str) -> None:
    (line,) = near_misses({variable: "of-no-consequence"})
    assert line == f"{variable}: not a variable of engage-relay, and ignored; did you mean {meant}?"


@pytest.mark.parametrize(
    "variable",
    [
        *("KAFKA_BOOTSTRAP_SERVERS", "ENGAGE_API_KEY", "engage_base_url", "ENGAGE_RELAY__LIMITS__PENDING"),
        *("ENGAGE_RELAY_CONFIG", "ENGAGE_RELAY_SERVICE_HOST", "ENGAGE_RELAY_SERVICE_PORT_ADMIN"),
        *("ENGAGE_RELAY_PORT", "ENGAGE_RELAY_PORT_8080_TCP_ADDR", "ENGAGE_RELAY_STAGING_SERVICE_HOST"),
        *("KAFKA_HOME", "KAFKA_OPTS", "API_KEY", "PATH", "ENGAGE_TENANT", "KAFKA_BROKERS"),
    ],
)
def test_ours_kubernetes_and_other_programs_variables_are_no_news(variable: str) -> None:
    assert near_misses({variable: "x"}) == []


def test_every_command_that_reads_the_configuration_says_so_without_the_value() -> None:
    result = called("check-config", ENGAGE_APIKEY="4711-in-the-wrong-place")
    assert result.exit_code == 0
    assert "did you mean ENGAGE_API_KEY?" in result.stderr
    assert "4711-in-the-wrong-place" not in result.output
