"""What the demo gives to its relay: a configuration that is valid, and nothing of the user's own."""

from __future__ import annotations

from pathlib import Path

from consumer.demo.engage import simulator_options
from consumer.demo.figures import read_figures
from consumer.demo.stage import environment, settings_of, write_configuration
from consumer.demo.tally import Requests
from consumer.simulator.faults import FAULTS, parse_faults

OWN = {
    "PATH": "/bin",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": "the user's own",
    "ENGAGE_RELAY_CONFIG": "production.yaml",
    "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__REQUESTS_PER_SECOND": "1",
    "ENGAGE_RELAY__KAFKA__SASL_PASSWORD": "secret",
    "ENGAGE_RELAY__KAFKA__GROUP_ID": "production",
    "engage_relay__kafka__bootstrap_servers": "production:9092",
    "KAFKA_BOOTSTRAP_SERVERS": "production:9092",
}


def test_beside_the_stand_in_the_relay_gets_nothing_of_the_user_s_own_relay() -> None:
    assert environment(OWN, "demo-key", real_kafka=False) == {"PATH": "/bin", "ENGAGE_API_KEY": "demo-key"}


def test_with_real_brokers_the_relay_gets_their_properties_but_not_the_user_s_group() -> None:
    assert environment(OWN, "demo-key", real_kafka=True) == {
        "PATH": "/bin",
        "ENGAGE_API_KEY": "demo-key",
        "ENGAGE_RELAY__KAFKA__SASL_PASSWORD": "secret",
    }


def test_the_configuration_is_one_that_a_user_could_write_and_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    write_configuration(
        path,
        bootstrap_servers="127.0.0.1:1",
        name="engage-relay-demo-1",
        base_url="http://127.0.0.1:2",
        requests_per_second=50,
    )
    settings = settings_of(path, environment({}, "demo-key", real_kafka=False))
    assert settings.kafka["group.id"] == "engage-relay-demo-1"
    assert [each.source for each in settings.topics] == ["engage-relay-demo-1"]
    assert "demo-key" not in path.read_text()


def test_only_faults_on_actions_lose_the_answer_to_what_was_processed_so_each_one_leaves_an_action_in_doubt() -> None:
    for rule in parse_faults(simulator_options(1).faults):
        lost = any(effect.processed and effect.ending in ("reset", "close", "silence") for effect in FAULTS[rule.fault])
        assert not lost or rule.calls == ("action",), rule


def test_figures_are_read_from_the_relay_s_metrics() -> None:
    figures = read_figures(
        "\n".join(
            (
                "# TYPE engage_relay_events_consumed_total counter",
                'engage_relay_events_consumed_total{topic="a"} 7.0',
                "# TYPE engage_relay_events_unrouted_total counter",
                'engage_relay_events_unrouted_total{topic="a"} 1.0',
                "# TYPE engage_relay_pending_actions gauge",
                'engage_relay_pending_actions{state="queued"} 2.0',
                'engage_relay_pending_actions{state="sending"} 1.0',
                "# TYPE engage_relay_actions_answered_total counter",
                'engage_relay_actions_answered_total{action="Custom",connection="default",outcome="accepted"} 3.0',
                'engage_relay_actions_answered_total{action="Custom",connection="default",outcome="stale_tag"} 9.0',
                "# TYPE engage_relay_requests_total counter",
                'engage_relay_requests_total{call="job",connection="default",status="200"} 4.0',
                'engage_relay_requests_total{call="action",connection="default",status="202"} 3.0',
                "",
            )
        )
    )
    assert (figures.consumed, figures.ignored, figures.pending, figures.settled) == (7, 1, 3, False)
    assert figures.accepted == {"Custom": 3}
    assert figures.asked == Requests(polls=4, total=7)
