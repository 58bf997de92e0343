"""What is loaded, and that every error is reported at once, at its place, without a value."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.config.loading import load
from consumer.config.sections.admin import Address
from consumer.errors import ConfigurationError
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.kafka.topics.topics import RelayTopics
from tests.unit.config.workspace import EXAMPLE, SECRET, THREE, Workspace, errors_of


def test_three_variables_are_enough() -> None:
    settings = load(None, THREE)

    connection = settings.engage.connections["default"]
    assert settings.kafka == {"bootstrap.servers": "kafka:9092", "group.id": "engage-relay"}
    own = "orders.engage.delay", "orders.engage.dead-letters", "orders.engage.outcomes"
    assert settings.topics == (RelayTopics("orders", *own),)
    assert (connection.base_url, connection.key().current()) == ("https://acme.voyado.com", SECRET)
    assert (connection.api_key_header, connection.requests_per_second) == ("apikey", 50)
    assert (connection.timeout, connection.action_timeout) == (10, 30)
    assert (connection.user_agent, connection.headers) == (None, {})
    assert settings.polling.model_dump() == {
        "initial": "auto",
        "max_interval": 60,
        "deadline": 86_400,
        "not_found_grace": 600,
        "contact_grace": 600,
    }
    assert settings.limits.pending == 100_000
    assert settings.admin.listen == Address("0.0.0.0", 8080)
    assert list(settings.effective_routes) == list(BUILT_IN_ROUTES)


def test_the_documented_example_is_valid_and_says_the_defaults(relay: Workspace) -> None:
    settings = relay.load(EXAMPLE)

    defaults = load(None, THREE)
    assert settings.routes["shipped"] is not None
    assert (settings.topics, settings.polling, settings.limits, settings.admin) == (
        defaults.topics,
        defaults.polling,
        defaults.limits,
        defaults.admin,
    )


def test_nothing_at_all_says_what_to_set() -> None:
    assert errors_of({}) == [
        "kafka.bootstrap.servers: missing (set KAFKA_BOOTSTRAP_SERVERS, or write it in the configuration file)",
        "engage.connections.default.base_url: missing (set ENGAGE_BASE_URL, or write it in the configuration file)",
        "engage.connections.default.api_key: missing "
        "(set ENGAGE_API_KEY or ENGAGE_API_KEY_FILE, or write it in the configuration file)",
    ]


def test_a_section_with_nothing_in_it_is_left_out(relay: Workspace) -> None:
    settings = relay.load(
        "polling:\n  # initial: 2s\nlimits:\n  pending:\nengage:\n  connections:\n    default:\n", THREE
    )

    assert settings == load(None, THREE)


def test_every_error_is_reported_at_once_in_the_files_order(relay: Workspace) -> None:
    found = relay.errors(
        """\
        kafka:
          group.idd: engage-relay
          enable.auto.commit: true
        engage:
          request_per_second: 4
          connections:
            default:
              base_url: http://acme.voyado.com
              api_key: 12345
              timeout: soon
              request_per_second: 4
        limits:
          pending: 0
        source:
          topics: [orders, ^orders.*]
        admin:
          listen: 8080
        routes:
          late:
            when: "type =="
            action: ""
            onunknown: resend
        """,
        {"ENGAGE_RELAY__POLLING__INITIAL": "now", "ENGAGE_RELAY__LIMIT__PENDING": "3"},
    )

    places = [line.partition(": ")[0] for line in found]
    assert places == [
        "relay.yaml:1:1 kafka.bootstrap.servers",
        "relay.yaml:2:3 kafka.group.idd",
        "relay.yaml:3:3 kafka.enable.auto.commit",
        "relay.yaml:5:3 engage.request_per_second",
        "relay.yaml:8:7 engage.connections.default.base_url",
        "relay.yaml:9:7 engage.connections.default.api_key",
        "relay.yaml:10:7 engage.connections.default.timeout",
        "relay.yaml:11:7 engage.connections.default.request_per_second",
        "relay.yaml:13:3 limits.pending",
        "relay.yaml:15:20 source.topics[1]",
        "relay.yaml:17:3 admin.listen",
        "relay.yaml:20:5 routes.late.when",
        "relay.yaml:21:5 routes.late.action",
        "relay.yaml:22:5 routes.late.onunknown",
        "ENGAGE_RELAY__LIMIT__PENDING",
        "ENGAGE_RELAY__POLLING__INITIAL",
    ]
    texts = {place.rpartition(" ")[2]: line.partition(": ")[2] for place, line in zip(places, found, strict=True)}
    assert texts["kafka.group.idd"].endswith("did you mean group.id?")
    assert texts["engage.request_per_second"] == (
        "unknown key, did you mean engage.connections.NAME.requests_per_second?"
    )
    assert texts["engage.connections.default.request_per_second"] == "unknown key, did you mean requests_per_second?"
    assert texts["engage.connections.default.api_key"] == "must be text: put it in quotes"
    assert texts["limits.pending"] == "must be at least 1"
    assert texts["routes.late.onunknown"] == "unknown key, did you mean on_unknown?"
    assert texts["ENGAGE_RELAY__LIMIT__PENDING"] == "unknown name, did you mean ENGAGE_RELAY__LIMITS__PENDING?"


def test_a_key_with_dots_is_told_from_an_unknown_one(relay: Workspace) -> None:
    """It said: source.tombstones: unknown key, did you mean source.tombstones?"""
    (error,) = relay.errors("source.tombstones: [absent]\n", THREE)
    assert error.endswith(
        "source.tombstones: unknown key: a dot stands for a section here, so write source: and below it tombstones"
    )
    (other,) = relay.errors("nothing.of.ours: 1\n", THREE)
    assert other.endswith("nothing.of.ours: unknown key")


def test_an_error_is_one_line_however_the_value_looks(relay: Workspace) -> None:
    (found,) = relay.errors('routes:\n  odd:\n    action: Custom\n    when: "a ==\\n\\n b ["\n', THREE)

    assert found.startswith("relay.yaml:4:5 routes.odd.when: ")
    assert "\n" not in found


def test_an_unreadable_file_is_reported_beside_what_is_wrong_in_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "relay.yaml", {"ENGAGE_RELAY__LIMITS__PENDNG": "3"})

    assert raised.value.errors == (
        f"{tmp_path}/relay.yaml: there is no such file",
        "ENGAGE_RELAY__LIMITS__PENDNG: unknown name, did you mean ENGAGE_RELAY__LIMITS__PENDING?",
    )


def test_a_value_that_yaml_cannot_give_is_one_error_not_two(relay: Workspace) -> None:
    found = relay.errors("limits:\n  pending: 1e5\n", THREE)

    assert [line.partition(": ")[0] for line in found] == ["relay.yaml:2:12 limits.pending"]


@pytest.mark.parametrize(
    "text",
    [
        "engage: {connections: {default: {api_key: 'hunter2! x'}}}",
        "engage: {connections: {default: {api_key: [hunter2!]}}}",
        "engage: {connections: {default: {api_key: !hunter2! x}}}",
        "engage: {connections: {default: {api_key: &hunter2! x}}}",
        "engage: {connections: {default: {api_key:hunter2!}}}",
        "engage: {connections: {default: {apikey: hunter2!}}}",
        "engage: {connections: {default: {timeout: hunter2!}}}",
        "engage: {connections: {default: {requests_per_second: hunter2!}}}",
        "engage: {connections: {default: {base_url: 'https://me:hunter2!@acme.voyado.com'}}}",
        "engage: {connections: {default: {base_url: 'https://acme.voyado.com:hunter2!'}}}",
        "engage: {connections: {default: {allow_insecure: hunter2!}}}",
        "engage: hunter2!",
        "engage: [hunter2!",
        "kafka: {sasl.pasword: hunter2!}",
        "kafka: {sasl.password: [hunter2!]}",
        "kafka: {security.protocol: hunter2!}",
        "kafka: {linger.ms: hunter2!}",
        "kafka: {sasl.password=hunter2!}",
        "kafka: {plugin.library.paths: hunter2!}",
        "routes: {shipped: {action: hunter2!}}",
        "routes: hunter2!",
    ],
)
def test_no_error_shows_a_value_not_even_in_its_traceback(relay: Workspace, text: str) -> None:
    relay.file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        load(relay.file, {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})

    assert raised.value.errors
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert "hunter2" not in shown
    assert raised.value.__context__ is None


def test_no_variables_value_is_shown() -> None:
    found = errors_of(
        {
            **THREE,
            "ENGAGE_API_KEY": "hunter2! x",
            "ENGAGE_BASE_URL": "https://hunter2!@acme",
            "ENGAGE_RELAY__LIMITS": SECRET,
            "ENGAGE_RELAY__ADMIN__LISTEN": SECRET,
            "ENGAGE_RELAY__POLLING": '{"initial": "hunter2!"}',
            "ENGAGE_RELAY__KAFKA__SECURITY_PROTOCOL": SECRET,
        }
    )

    assert len(found) == 6
    assert "hunter2" not in "".join(found)


def test_what_is_loaded_shows_no_secret() -> None:
    settings = load(None, {**THREE, "ENGAGE_RELAY__KAFKA__SASL_PASSWORD": SECRET})

    assert settings.kafka["sasl.password"] == SECRET
    assert SECRET not in repr(settings) + str(settings)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        *("kafka", "bootstrap.servers", "source", "topics", "delay", "dead_letters", "topic", "polling", "initial"),
        *("engage", "connections", "default", "base_url", "api_key", "api_key_file", "timeout", "limits", "pending"),
        *("admin", "listen", "routes", "shipped", "when", "action"),
    ]
)


@given(
    values=st.dictionaries(KEYS, st.recursive(ANYTHING, lambda inner: st.dictionaries(KEYS, inner), max_leaves=8)),
    variables=st.dictionaries(
        st.lists(KEYS, max_size=4).map(lambda parts: "__".join(["ENGAGE_RELAY", *parts])),
        st.text(st.characters(), max_size=9) | ANYTHING.map(json.dumps),
        max_size=3,
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_written_is_loaded_or_refused_in_lines(
    tmp_path: Path, values: object, variables: dict[str, str]
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    try:
        load(file, {**THREE, **variables})
    except ConfigurationError as error:
        found = error.errors
    else:
        return
    assert found
    assert all(line.splitlines() == [line] for line in found)
