"""What a user may write, what overrides what, and that every error is reported at once, at its place."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from consumer.config.settings import Address, Settings, json_schema, load
from consumer.errors import ConfigurationError
from consumer.events.durations import seconds
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.kafka.topics.topics import RelayTopics

SECRET = "hunter2!"
THREE = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": SECRET,
}

EXAMPLE = """\
kafka:                          # any librdkafka property, under its own name
  bootstrap.servers: localhost:9092
  group.id: engage-relay
source:
  topics: [orders]
delay:
  topic: "{source}.engage.delay"
dead_letters:
  topic: "{source}.engage.dead-letters"
engage:
  connections:
    default:
      base_url: https://acme.voyado.com
      api_key_file: /run/secrets/engage-api-key     # or api_key
      api_key_header: apikey
      requests_per_second: 50
      timeout: 10s
polling:
  initial: auto                 # or 2s
  max_interval: 60s
  deadline: 24h
limits:
  pending: 100000               # per instance; above it the source is paused
admin:
  listen: 0.0.0.0:8080          # /metrics /healthz /readyz
routes:                         # by name, first match wins (at most one action per event); expressions are JMESPath over the event
  shipped:
    when: "type == 'order.shipped'"
    action: ConfirmShipment     # or Custom …
    order_id: orderId
    job_id: engage.jobId        # any of version_tag, job_id, order (the document)
    language: language
    data: "{tracking: data.trackingNumber, carrier: data.carrier}"
    connection: engage.connection || 'default'
    on_unknown: resend          # or dead_letter
"""  # noqa: E501


class Workspace:
    """A folder that holds relay.yaml; errors are shown as if we stood in it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "relay.yaml"

    def load(self, text: str, environ: dict[str, str] | None = None) -> Settings:
        self.file.write_text(dedent(text), encoding="utf-8")
        return load(self.file, environ or {})

    def errors(self, text: str, environ: dict[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigurationError) as raised:
            self.load(text, environ)
        return [line.removeprefix(f"{self.file.parent}/") for line in raised.value.errors]


@pytest.fixture
def relay(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def errors_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        load(None, environ)
    return list(raised.value.errors)


def kafka_error(relay: Workspace, line: str) -> str:
    """Load a good file with this line more under kafka; return the one error, without its place."""
    found = relay.errors(f"kafka:\n  {line}\n", THREE)
    assert len(found) == 1
    return found[0].removeprefix("relay.yaml:2:3 ")


# What is enough


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


# Errors


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


# The environment


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


# kafka


def test_any_property_of_librdkafka_is_taken_under_its_own_name(relay: Workspace) -> None:
    written = {
        "bootstrap.servers": "a:9092,b:9092",
        "group.id": "g",
        "group.instance.id": "pod-0",
        "group.protocol": "consumer",
        "transactional.id": "relay-0",
        "session.timeout.ms": 45000,
        "auto.offset.reset": "latest",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.password": "p",
        "linger.ms": 0.5,
        "socket.keepalive.enable": True,
        "enable.auto.commit": False,  # as the relay has it anyway
        "acks": "all",
    }

    assert relay.load(yaml.safe_dump({"kafka": written}), {**THREE, "KAFKA_BOOTSTRAP_SERVERS": ""}).kafka == written


def test_a_secret_of_kafka_may_be_in_a_file_that_loading_does_not_open(relay: Workspace) -> None:
    written = {
        "sasl.password.file": "/nowhere/password",
        "sasl.oauthbearer.client.secret.file": "/nowhere/client-secret",
        "ssl.key.password.file": "/nowhere/key-password",
        "ssl.keystore.password.file": "/nowhere/keystore-password",
    }

    assert relay.load(yaml.safe_dump({"kafka": written}), THREE).kafka.items() >= written.items()
    assert load(None, {**THREE, "ENGAGE_RELAY__KAFKA__SASL_PASSWORD_FILE": "/f"}).kafka["sasl.password.file"] == "/f"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("group.idd: x", "did you mean group.id?"),
        ("bootstrap_servers: x", "did you mean bootstrap.servers?"),
        ("error_cb: x", "unknown property"),
        ("logger: x", "unknown property"),
        ("default.topic.config: x", "librdkafka takes no such value here"),
        ("session.timeout.ms: 0", "must be a whole number from 1 to 3600000"),
        ("linger.ms: true", "librdkafka takes no such value here"),
        ("socket.keepalive.enable: maybe", "must be true or false"),
        ("group.id: ''", "must not be empty"),
        ("sasl.username:", "must not be empty"),
        ("sasl.username: {a: b}", "must be text, a number, true or false"),
        ("sasl.password.file: ''", "must be the path of a file that holds the secret"),
        ("sasl.password.file: [x]", "must be the path of a file that holds the secret"),
        ("sasl.username.file: x", "unknown property"),
        ("enable.auto.commit: true", "must be false, or left out: offsets are committed in the delay topic's"),
        ("enable.auto.offset.store: true", "must be false, or left out"),
        ("enable.idempotence: false", "must be true, or left out: transactions need it"),
        ("isolation.level: read_uncommitted", "must be read_committed, or left out"),
        ("enable.partition.eof: false", "must be true, or left out"),
        ("acks: 1", "must be all or -1, or left out"),
        ("auto.offset.reset: none", "must be earliest or latest, or left out"),
    ],
)
def test_a_property_that_cannot_be_is_refused_with_the_reason(relay: Workspace, line: str, text: str) -> None:
    found = kafka_error(relay, line)

    assert found.startswith(f"kafka.{line.partition(':')[0]}: ")
    assert text in found


# Topics


def topics(delay: str, dead_letters: str, *sources: str) -> dict[str, str]:
    return {
        **THREE,
        "ENGAGE_RELAY__SOURCE__TOPICS": json.dumps(sources),
        "ENGAGE_RELAY__DELAY__TOPIC": delay,
        "ENGAGE_RELAY__DEAD_LETTERS__TOPIC": dead_letters,
    }


def test_each_source_topic_has_its_own_delay_topic_and_may_share_its_dead_letters() -> None:
    assert load(None, topics("wait.{source}", "dead", "a", "b")).topics == (
        RelayTopics("a", "wait.a", "dead", "a.engage.outcomes"),
        RelayTopics("b", "wait.b", "dead", "b.engage.outcomes"),
    )


def test_outcomes_are_written_unless_there_is_no_topic_for_them(tmp_path: Path) -> None:
    (off,) = load(None, {**THREE, "ENGAGE_RELAY__OUTCOMES__TOPIC": "none"}).topics
    (named,) = load(None, {**THREE, "ENGAGE_RELAY__OUTCOMES__TOPIC": "{source}.ends"}).topics
    assert (off.outcomes, off.own) == (None, (off.delay, off.dead_letters))
    assert named.outcomes == "orders.ends"
    for text in ("outcomes: off", "outcomes: false", "outcomes: {topic: none}"):
        path = tmp_path / "relay.yaml"
        path.write_text(text)
        assert load(path, THREE).topics == (off,)
    assert load(None, THREE).topic_rules.keep_outcomes_s == 90 * 24 * 3600


def test_the_control_topic_is_the_groups_unless_there_is_none() -> None:
    named = {**THREE, "ENGAGE_RELAY__KAFKA__GROUP_ID": "shop", "ENGAGE_RELAY__SOURCE__TOPICS": "a,b"}
    assert load(None, named).control_topic == "shop.engage.control"
    assert load(None, {**named, "ENGAGE_RELAY__CONTROL__TOPIC": "quiet"}).control_topic == "quiet"
    assert load(None, {**named, "ENGAGE_RELAY__CONTROL__TOPIC": "none"}).control_topic is None


def test_the_topics_are_held_against_the_longest_window_of_repeats() -> None:
    rules = load(None, {**THREE, "ENGAGE_RELAY__REPEATS": "3h"}).topic_rules
    none = load(None, {**THREE, "ENGAGE_RELAY__REPEATS": "off"}).topic_rules
    assert (rules.repeats_s, none.repeats_s) == (3 * 3600, None)
    steps = {**THREE, "ENGAGE_RELAY__STEPS": '["ConfirmOrder", "ConfirmDelivery"]'}
    assert load(None, {**steps, "ENGAGE_RELAY__REPEATS": "off"}).topic_rules.repeats_s == 24 * 3600
    assert load(None, {**steps, "ENGAGE_RELAY__REPEATS": "3h"}).sequences.window_s == 3 * 3600


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (topics("d", "x", "a", "b"), "DELAY__TOPIC: must hold {source}: each source topic needs a delay topic of its"),
        (topics("a", "x", "a"), "DELAY__TOPIC: must not be a source topic"),
        (topics("{source}.b", "x", "a", "a.b"), "DELAY__TOPIC: must not be a source topic"),
        (topics("d", "a", "a"), "DEAD_LETTERS__TOPIC: must not be a source topic"),
        (topics("d", "d", "a"), "DEAD_LETTERS__TOPIC: must not be a delay topic"),
        ({**topics("d", "x", "a"), "ENGAGE_RELAY__OUTCOMES__TOPIC": "d"}, "OUTCOMES__TOPIC: must not be a delay topic"),
        ({**topics("d", "x", "a"), "ENGAGE_RELAY__OUTCOMES__TOPIC": "x"}, "OUTCOMES__TOPIC: must not be a dead-letter"),
        (
            {**topics("{source}.d", "x", "a", "b"), "ENGAGE_RELAY__OUTCOMES__TOPIC": "o"},
            "OUTCOMES__TOPIC: must hold {source}: each source topic needs an outcomes topic of its own",
        ),
        ({**topics("d", "x", "a"), "ENGAGE_RELAY__CONTROL__TOPIC": "x"}, "CONTROL__TOPIC: must not be a dead-letter"),
        (
            {**topics("d", "x", "a"), "ENGAGE_RELAY__CONTROL__TOPIC": "{source}"},
            "CONTROL__TOPIC: must be a topic's name",
        ),
        (topics("{topic}", "x", "a"), "DELAY__TOPIC: must be a topic's name: letters, digits, '.', '_' and '-' (in br"),
        (topics("d", "{source", "a"), "DEAD_LETTERS__TOPIC: must be a topic's name"),
        (topics("d", "{source}", "a" * 250), "SOURCE__TOPICS source.topics[0]: must be at most 249 characters"),
        (topics("{source}." + "d" * 30, "x", "a" * 225), "DELAY__TOPIC: must be at most 249 characters"),
        (topics("d", "x"), "SOURCE__TOPICS: must not be empty"),
        (topics("d", "x", "a", "a"), "SOURCE__TOPICS: must not name a topic twice"),
        (topics("d", "x", "^a"), "SOURCE__TOPICS source.topics[0]: must be a topic's own name: patterns are not"),
        (topics("d", "x", ".."), "SOURCE__TOPICS source.topics[0]: must be a topic's name"),
    ],
)
def test_topics_that_cannot_be_or_would_meet_are_refused(environ: dict[str, str], text: str) -> None:
    (found,) = errors_of(environ)

    assert found.startswith(f"ENGAGE_RELAY__{text}")


# Connections


@pytest.mark.parametrize(
    "base_url",
    [
        "https://acme.voyado.com",
        "https://acme.staging.voyado.com/",
        "https://gateway:8443/engage",
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:8080",
    ],
)
def test_https_or_plain_http_to_this_host_is_a_base_url(base_url: str) -> None:
    assert load(None, {**THREE, "ENGAGE_BASE_URL": base_url}).engage.connections["default"].base_url == base_url


@pytest.mark.parametrize(
    ("base_url", "text"),
    [
        ("acme.voyado.com", "must be https://host[:port][/path]"),
        ("ftp://acme", "must be https://host"),
        ("https://me:x@acme", "must be https://host"),
        ("https://acme?x=1", "must be https://host"),
        ("https://acme#x", "must be https://host"),
        ("https://acme:99999", "must be https://host"),
        ("https://ac me", "must be https://host"),
        ("https://acme\n.com", "must be https://host"),
        ("https://[::1", "must be https://host"),
        ("https://acme.voyado.com/api/v3", "must end before /api/v3"),
        ("http://acme.voyado.com", "must be https: "),
        ("http://127.0.0.1.acme.com", "must be https: "),
        ("http://localhost.acme.com", "must be https: "),
    ],
)
def test_another_base_url_is_refused(base_url: str, text: str) -> None:
    (found,) = errors_of({**THREE, "ENGAGE_BASE_URL": base_url})

    assert found.startswith(f"ENGAGE_BASE_URL: {text}")


# A proxy

PROXY = f"http://someone:{SECRET}@proxy.example:3128"


def test_a_proxy_is_the_connections_own_or_the_environments_or_none(relay: Workspace) -> None:
    connections = "".join(
        f"\n    {name}: {{base_url: 'https://{name}.voyado.com', api_key: k{proxy}}}"
        for name, proxy in {"own": f", proxy: '{PROXY}'", "direct": ", proxy: none", "usual": ""}.items()
    )
    environ = {**THREE, "HTTPS_PROXY": "http://usual.example:8080"}
    found = relay.load(f"engage:\n  connections:{connections}\n", environ).engage.connections
    proxies = {name: connection.proxy_in(environ) for name, connection in found.items()}
    assert {name: proxy and proxy.host for name, proxy in proxies.items()} == {
        "own": "proxy.example",
        "direct": None,
        "usual": "usual.example",
        "default": "usual.example",
    }
    assert SECRET not in repr(found) + repr(proxies)


@pytest.mark.parametrize(
    "proxy", [f"https://someone:{SECRET}@proxy", f"someone:{SECRET}@proxy:3128", f"http://someone:{SECRET}@proxy/path"]
)
def test_a_wrong_proxy_is_refused_at_its_place_without_a_word_of_it(proxy: str, relay: Workspace) -> None:
    text = "must be http://[user:password@]host[:port]"
    variable = "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__PROXY"
    assert errors_of({**THREE, variable: proxy}) == [f"{variable}: {text}, or none"]
    if "://" in proxy:
        assert errors_of({**THREE, "HTTPS_PROXY": proxy}) == [f"HTTPS_PROXY: {text}"]
    (found,) = relay.errors(
        f"engage: {{connections: {{default: {{base_url: 'https://a', api_key: k, proxy: '{proxy}'}}}}}}",
        {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"},
    )
    assert "engage.connections.default.proxy: " + text in found
    assert ":1:" in found


def test_plain_http_elsewhere_is_possible_where_it_is_said_so(relay: Workspace) -> None:
    settings = relay.load(
        "engage: {connections: {default: {base_url: 'http://gateway', allow_insecure: true, api_key: k}}}", THREE
    )

    assert settings.engage.connections["default"].allow_insecure


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("api_key_header", "api key", "must be the name of an HTTP header"),
        ("api_key_header", "Host", "must not be a header that the relay sets itself"),
        ("requests_per_second", "0", "must be more than 0"),
        ("requests_per_second", "inf", "must be a finite number"),
        ("requests_per_second", "many", "must be a number"),
        ("timeout", "0", "must be longer than 0s"),
        ("action_timeout", "0s", "must be longer than 0s"),
        ("user_agent", "AcmePOS\n1.5", "must be printable ASCII, with no space at either end"),
        ("headers", "X-Tenant: acme", 'must be JSON: {"key": "value"}'),
        ("headers__x_tenant", "acmé", "must be printable ASCII, with no space at either end"),
        ("headers__content_type", "text/plain", "must not be a header that the relay sets itself"),
        ("allow_insecure", "maybe", "must be true or false"),
    ],
)
def test_a_connections_other_values_are_checked(key: str, value: str, text: str) -> None:
    variable = f"ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__{key.upper()}"

    assert errors_of({**THREE, variable: value}) == [f"{variable}: {text}"]


HEADERS = """\
kafka: {bootstrap.servers: b}
engage:
  connections:
    default:
      base_url: https://acme.voyado.com
      api_key: k
      api_key_header: x-api-key
      user_agent: "AcmePOS/1.5"
      headers:
        X-Gateway-Tenant: acme
"""


def test_a_connection_names_the_clients_system_and_adds_headers(relay: Workspace) -> None:
    connection = relay.load(HEADERS).engage.connections["default"]

    assert connection.user_agent == "AcmePOS/1.5"
    assert connection.headers == {"X-Gateway-Tenant": "acme"}
    assert "acme" not in repr(connection).replace("acme.voyado.com", "")


def test_a_variable_may_add_a_header() -> None:
    settings = load(None, {**THREE, "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__HEADERS__X_GATEWAY_TENANT": "acme"})

    assert settings.engage.connections["default"].headers == {"x-gateway-tenant": "acme"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("X-API-Key: k2", "X-API-Key: must not be the key's header, nor one that is there already"),
        ("x-gateway-tenant: b", "x-gateway-tenant: must not be the key's header, nor one that is there already"),
        *(
            (f"{name}: x", f"{name}: must not be a header that the relay sets itself")
            for name in ("Host", "content-type", "Content-MD5", "Connection", "user-agent", "Traceparent", "TE")
        ),
        ('"X Tenant": x', "X…: must be the name of an HTTP header"),
        ('X-Note: "two\\r\\nX-Other: lines"', "X-Note: must be printable ASCII, with no space at either end"),
        ("X-Note: blåbär", "X-Note: must be printable ASCII, with no space at either end"),
        ('X-Note: ""', "X-Note: must be printable ASCII, with no space at either end"),
        ("X-Number: 7", "X-Number: must be text: put it in quotes"),
    ],
)
def test_a_header_that_cannot_be_added_is_refused_with_its_place(relay: Workspace, line: str, text: str) -> None:
    errors = relay.errors(f"{HEADERS}        {line}\n")

    assert errors == [f"relay.yaml:11:9 engage.connections.default.headers.{text}"]


def test_a_user_agent_that_http_cannot_carry_is_refused_with_its_place(relay: Workspace) -> None:
    assert relay.errors(HEADERS.replace("AcmePOS/1.5", "Åcme")) == [
        "relay.yaml:8:7 engage.connections.default.user_agent: must be printable ASCII, with no space at either end"
    ]


def test_true_is_no_number(relay: Workspace) -> None:
    assert relay.errors("limits:\n  pending: true\n", THREE) == ["relay.yaml:2:3 limits.pending: must be a number"]


def test_a_rate_over_engages_limit_is_the_users_decision() -> None:
    variable = "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__REQUESTS_PER_SECOND"

    assert load(None, {**THREE, variable: "100000"}).engage.connections["default"].requests_per_second == 100_000


def test_another_connection_needs_no_default_one(relay: Workspace) -> None:
    settings = relay.load(
        "kafka: {bootstrap.servers: b}\nengage: {connections: {acme: {base_url: 'https://a.com', api_key: k}}}"
    )

    assert list(settings.engage.connections) == ["acme"]


# Durations and addresses


@pytest.mark.parametrize(
    ("written", "s"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("2m", 120),
        ("24h", 86_400),
        ("1d", 86_400),
        ("1.5s", 1.5),
        ("1m30s", 90),
        ("1h2m3s", 3723),
        ("1d12h", 129_600),
        ("2s500ms", 2.5),
        ("7", 7),
        (7, 7),
        (0, 0),
    ],
)
def test_a_duration_is_a_number_with_its_unit_or_of_seconds(written: object, s: float) -> None:
    assert seconds(written) == pytest.approx(s)


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none() | st.from_regex(r"\d+[dhms]+"))
@example("10 s")
@example("-1s")
@example("1e3")
@example("1m30")
@example("1m 30s")
@example("m")
@example(float("nan"))
@example("9" * 400 + "d")
@example(10**400)
def test_a_duration_is_bounded_or_refused(written: object) -> None:
    try:
        s = seconds(written)
    except ValueError:
        return
    assert 0 <= s <= 365 * 86_400


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::1]:0", "localhost:65535"])
def test_an_address_is_read_and_written_alike(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["8080", ":8080", "::1:8080", "[::1]", "[x]:1", "a b:1", "host:65536", "host:-1", 80])
def test_another_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        Address.parse(text)


# Routes


def test_the_users_routes_come_first_and_null_switches_a_built_in_off(relay: Workspace) -> None:
    routes = "routes: {vip: {action: Custom}, shipped: null, confirmed: {action: Custom}, gone: null}"

    effective = relay.load(routes, THREE).effective_routes

    left = [name for name in BUILT_IN_ROUTES if name not in ("shipped", "confirmed")]
    assert list(effective) == ["vip", "confirmed", *left]
    assert effective["confirmed"].action == "Custom"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"when": "'order.shipped'"}, "when: takes every event: a text by itself is true"),
        ({"when": "true"}, "when: `true` names a field here"),
        ({"order_id": "'A-1'"}, "order_id: is the same order for every event"),
        ({"connection": "default"}, "connection: `default` names a field here: a text stands in single quotes"),
        ({"connection": "'defualt'"}, "connection: 'defualt' is not configured; there are default"),
    ],
)
def test_a_constant_where_the_event_must_be_asked_is_refused(relay: Workspace, keys: dict[str, str], why: str) -> None:
    (error,) = relay.errors(yaml.safe_dump({"routes": {"mine": {"action": "ConfirmOrder", **keys}}}), THREE)
    assert f"routes.mine.{why}" in error


def test_a_route_without_a_connection_needs_the_one_that_is_called_default(relay: Workspace) -> None:
    connections = "engage: {connections: {se: {base_url: https://se, api_key: k}}}\n"
    (error,) = relay.errors(connections + "routes: {mine: {action: ConfirmOrder}}", {"KAFKA_BOOTSTRAP_SERVERS": "x:1"})
    assert error.endswith("routes.mine.connection: 'default' is not configured; there are se")
    relay.load(
        connections + "routes: {mine: {action: ConfirmOrder, connection: \"'se'\"}}", {"KAFKA_BOOTSTRAP_SERVERS": "x:1"}
    )


def test_what_is_wrong_with_an_orders_sequence_is_told_at_its_place(relay: Workspace) -> None:
    routes = "routes:\n  mine: {action: ConfirmOrder, superseded_by: [canceled]}\n"
    (error,) = relay.errors(routes, THREE)
    assert error.endswith("2:32 routes.mine.superseded_by: name 1 is no route's; did you mean cancelled?")
    (error,) = relay.errors("steps: [ConfirmOrder, ConfirmOrder]", THREE)
    assert error.endswith("1:1 steps: name 2 was named before: each action is one step")


def test_a_route_that_is_switched_off_supersedes_nothing(relay: Workspace) -> None:
    routes = "routes: {mine: {action: ConfirmOrder, superseded_by: [cancelled]}, cancelled: null}"
    assert "name 1 is no route's" in relay.errors(routes, THREE)[0]
    sequences = relay.load(routes.replace(", cancelled: null", ""), THREE).sequences
    assert sequences.superseded_by == {"mine": frozenset({"cancelled"})}


# JSON Schema


def test_the_json_schema_takes_the_example_and_refuses_a_misspelt_key() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    written = yaml.safe_load(EXAMPLE)

    validator.validate(written)
    written["polling"] = {"initial": 2, "max_interval": "sixty"}
    written["limit"] = {}
    assert {error.json_path for error in validator.iter_errors(written)} == {"$", "$.polling.max_interval"}


def test_the_json_schemas_defaults_are_what_one_would_write() -> None:
    sections = json_schema()["$defs"]

    assert sections["Admin"]["properties"]["listen"]["default"] == "0.0.0.0:8080"
    assert sections["Connection"]["properties"]["requests_per_second"]["exclusiveMinimum"] == 0


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
