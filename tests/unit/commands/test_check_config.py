"""`check-config` and `config schema`, without a broker."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import Result

from consumer.errors import ExitCode
from tests.support.registry import TestRegistry
from tests.unit.commands.calling import KEY, called, shell


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


def test_check_config_notes_steps_that_may_lose_a_parcel_or_are_forgotten_at_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("steps: [ConfirmShipment, ConfirmDelivery]\noutcomes: off\n")
    noted = [line for line in called("check-config", "--config", str(file)).stdout.splitlines() if "steps: " in line]
    assert [line.partition(": ")[2].partition(",")[0] for line in noted] == [
        "no outcomes are written",
        "once one parcel of an order is delivered",
    ]


def test_check_config_notes_that_without_outcomes_a_restart_forgets_which_facts_were_sent(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("repeats: 24h\noutcomes: off\n")
    told = called("check-config", "--config", str(file)).stdout
    assert "note    repeats: no outcomes are written, so a restart forgets which facts were sent" in told
    file.write_text("repeats: off\noutcomes: off\n")
    assert "no outcomes are written" not in called("check-config", "--config", str(file)).stdout


def test_check_config_says_from_which_file_the_key_comes_and_not_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    result = called("check-config", ENGAGE_API_KEY="", ENGAGE_API_KEY_FILE=str(file))
    assert result.exit_code == 0
    assert f"key from {file}" in result.stdout
    assert KEY not in result.output


def test_check_config_names_every_file_that_cannot_be_read() -> None:
    result = called(
        "check-config",
        ENGAGE_API_KEY="",
        ENGAGE_API_KEY_FILE="/run/secrets/none",
        ENGAGE_RELAY__KAFKA__SASL_PASSWORD_FILE="/run/secrets/neither",
    )
    assert result.exit_code == ExitCode.CONFIGURATION
    assert [line for line in result.stdout.splitlines() if line.startswith("failed")] == [
        "failed  engage.connections.default.api_key_file: cannot read /run/secrets/none: No such file or directory",
        "failed  kafka.sasl.password.file: cannot read /run/secrets/neither: No such file or directory",
    ]


@pytest.mark.parametrize("command", [("topics", "check"), ("pending", "list"), ("dead-letters", "list")])
def test_a_command_says_why_kafka_does_not_answer(command: tuple[str, ...]) -> None:
    result = called(*command)
    assert result.exit_code == ExitCode.FAILED
    assert result.stderr == "Kafka does not answer at 127.0.0.1:1: connection refused\n"
    assert result.stdout == ""


def test_check_config_says_why_kafka_does_not_answer() -> None:
    result = called("check-config", "--online", KAFKA_BOOTSTRAP_SERVERS="nobody.invalid:9092,127.0.0.1:1")
    assert result.exit_code == ExitCode.FAILED
    (line,) = [line for line in result.stdout.splitlines() if "brokers" in line]
    assert line.startswith("failed  brokers: Kafka does not answer at 127.0.0.1:1: connection refused; nobody.invalid")
    assert "nobody.invalid:9092: unknown host (" in line


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "ok      registry {url}: answers, and accepts our credentials"),
        (401, "failed  registry {url}: it refuses our credentials (401)"),
        (403, "failed  registry {url}: it does not let us read schemas (403)"),
        (404, "failed  registry {url}: its address is wrong: what answers there is no Schema Registry (404)"),
        (503, "failed  registry {url}: it answered 503"),
    ],
)
def test_check_config_asks_the_registry_and_tells_a_wrong_login_apart(
    status: int | None, said: str, tmp_path: Path
) -> None:
    with TestRegistry() as registry:
        registry.status = status
        result = called("check-config", "--online", "--config", str(with_registry(registry.url, tmp_path)))
        assert registry.authorization == ["Basic bWU6b3Blbi1zZXNhbWU="]
    assert [line for line in result.stdout.splitlines() if "registry" in line] == [said.format(url=registry.url)]
    assert "open-sesame" not in result.output


def test_check_config_says_that_a_registry_cannot_be_reached(tmp_path: Path) -> None:
    result = called("check-config", "--online", "--config", str(with_registry("http://127.0.0.1:1", tmp_path)))
    assert result.exit_code == ExitCode.FAILED
    assert "failed  registry http://127.0.0.1:1: it cannot be reached (ConnectError)" in result.stdout


def test_check_config_notes_that_the_registrys_client_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` ends there, in its first second."""
    file = str(with_registry("https://registry.example", tmp_path))
    note = "note    registry: its client is not installed: pip install 'engage-relay[registry]'\n"
    assert note not in called("check-config", "--config", file).stdout
    monkeypatch.setitem(sys.modules, "consumer.kafka.registry.client", None)
    assert note in called("check-config", "--config", file).stdout


def with_registry(url: str, folder: Path) -> Path:
    file = folder / "relay.yaml"
    file.write_text(f"registry: {{url: {url}, username: me, password: open-sesame}}\n")
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable",
    ["ENGAGE_API_KEY_FILE", "ENGAGE_RELAY__KAFKA__SSL_CA_LOCATION", "ENGAGE_RELAY__KAFKA__SASL_PASSWORD_FILE"],
)
def test_run_ends_where_a_file_cannot_be_read_before_it_asks_anybody(variable: str) -> None:
    key = {"ENGAGE_API_KEY": ""} if variable == "ENGAGE_API_KEY_FILE" else {}
    listen = {"ENGAGE_RELAY__ADMIN__LISTEN": "127.0.0.1:0"}
    done = shell("sh", "exec engage-relay run", **key, **listen, **{variable: "/run/secrets/none"})
    assert done.returncode == ExitCode.CONFIGURATION
    assert "cannot read /run/secrets/none: No such file or directory" in done.stderr


def test_check_config_notes_connections_that_use_one_key_with_a_whole_rate_limit_each(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    shops = ("se", KEY, 50), ("fi", KEY, 30), ("no", "another-key", 50)
    file.write_text(
        "engage: {connections: {"
        + ", ".join(
            f"{name}: {{base_url: https://acme.voyado.com, api_key: {key}, requests_per_second: {rate}}}"
            for name, key, rate in shops
        )
        + "}}\n"
    )
    without = {"ENGAGE_BASE_URL": "", "ENGAGE_API_KEY": ""}
    result = called("check-config", "--config", str(file), **without)
    (note,) = [line for line in result.stdout.splitlines() if line.startswith("note")]
    assert note == (
        "note    connections se, fi: one key, to which Engage counts all requests; "
        "requests_per_second is 80 together, so give each a part of it"
    )
    file.write_text(file.read_text().replace("requests_per_second: 50", "requests_per_second: 20"))
    assert "one key" not in called("check-config", "--config", str(file), **without).stdout


def test_check_config_notes_an_action_that_engages_documentation_does_not_list(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("routes: {refunded: {when: \"type == 'refund'\", action: Återbetalning}}\n")
    result = called("check-config", "--config", str(file))
    assert result.exit_code == 0
    (note,) = [line for line in result.stdout.splitlines() if line.startswith("note")]
    assert note.startswith("note    route refunded: Engage's documentation does not list the action Återbetalning")


def test_check_config_notes_a_document_that_brings_an_action_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "routes: {paid: {action: ConfirmOrder, order: \"{orderId: id, orderAction: {action: 'ConfirmOrder'}}\"}}\n"
    )
    result = called("check-config", "--config", str(file))
    assert result.exit_code == 0
    (note,) = [line for line in result.stdout.splitlines() if line.startswith("note")]
    assert note.startswith("note    route paid: order: the document has an orderAction of its own")


def test_a_route_that_sends_with_no_document_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("routes:\n  paid: {action: ConfirmOrder, send: with_document}\n")
    result = called("check-config", "--config", str(file))
    assert result.exit_code == ExitCode.CONFIGURATION
    (line,) = [line for line in result.stderr.splitlines() if "relay.yaml:2" in line]
    assert line.endswith("routes.paid: send: with_document needs `order`, the document that the action travels in")


def kafka(tmp_path: Path, properties: str, timeout: str = "30s") -> tuple[int, list[str]]:
    file = tmp_path / "relay.yaml"
    connection = f"{{base_url: 'https://acme.voyado.com', api_key: k, action_timeout: {timeout}}}"
    file.write_text(
        f"kafka: {{bootstrap.servers: b, {properties}}}\nengage: {{connections: {{default: {connection}}}}}\n"
    )
    result = called("check-config", "--config", str(file), ENGAGE_API_KEY="", ENGAGE_BASE_URL="")
    return result.exit_code, [line for line in result.stdout.splitlines() if line.startswith("failed")]


def test_a_session_that_ends_before_an_action_must_be_answered_is_refused_with_the_sum(tmp_path: Path) -> None:
    code, (line,) = kafka(tmp_path, "session.timeout.ms: 20000")
    assert code == ExitCode.CONFIGURATION
    assert "session.timeout.ms: 20000 is too short: an intent's lease of 8 s and action_timeout of 30 s" in line
    assert "are 38 s, but after 17 s" in line
    assert line.endswith("make it at least 41000, or action_timeout at most 9s")


@pytest.mark.parametrize(
    ("properties", "timeout"),
    [
        ("session.timeout.ms: 41000", "30s"),
        ("session.timeout.ms: 20000", "9s"),
        ("session.timeout.ms: 10000", "3s"),
        ("heartbeat.interval.ms: 7000", "30s"),
        ("group.protocol: consumer", "30s"),  # the broker's to set
    ],
)
def test_a_session_that_is_just_long_enough_is_taken(tmp_path: Path, properties: str, timeout: str) -> None:
    assert kafka(tmp_path, properties, timeout) == (0, [])


@pytest.mark.parametrize(
    ("properties", "timeout", "enough"),
    [
        ("session.timeout.ms: 40999", "30s", 41000),
        ("session.timeout.ms: 10000", "3001ms", 10002),
        ("heartbeat.interval.ms: 7001", "30s", 45001),
    ],
)
def test_a_session_that_is_just_too_short_is_refused(
    tmp_path: Path, properties: str, timeout: str, enough: int
) -> None:
    code, (line,) = kafka(tmp_path, properties, timeout)
    assert code == ExitCode.CONFIGURATION
    assert f"make it at least {enough}," in line


def test_config_schema_is_json_on_stdout() -> None:
    result = called("config", "schema")
    assert result.exit_code == 0
    assert "routes" in json.loads(result.stdout)["properties"]


ROUTES = """
routes:
  gone:
    when: "status == 'gone' && (shop || market) == 'se'"
    action: ConfirmCancellation
    order_id: order.nummber
    language: order.locale
"""


def sampled(tmp_path: Path, routes: str, events: str) -> Result:
    """Check a configuration against events, one a line."""
    config, sample = tmp_path / "relay.yaml", tmp_path / "events.jsonl"
    config.write_text(routes)
    sample.write_text(events)
    return called("check-config", "--config", str(config), "--sample", str(sample))


def test_a_path_that_no_sample_has_is_named_with_the_nearest_that_one_has(tmp_path: Path) -> None:
    result = sampled(
        tmp_path, ROUTES, '{"status": "gone", "shop": "se", "order": {"number": "A-1"}}\n{"status": null}\n'
    )
    assert result.exit_code == ExitCode.CONFIGURATION
    assert [line for line in result.stdout.splitlines() if "no sample" in line] == [
        "note    route gone: when: no sample has market",
        "failed  route gone: order_id: no sample has order.nummber, did you mean order.number?",
        "note    route gone: language: no sample has order.locale",
    ]


def test_an_object_that_samples_have_as_json_in_a_text_is_named(tmp_path: Path) -> None:
    result = sampled(
        tmp_path,
        ROUTES.replace("nummber", "number"),
        '{"status": "gone", "shop": "se", "market": "se", "order": "{\\"number\\": 7, \\"locale\\": null}"}\n',
    )
    assert result.exit_code == ExitCode.CONFIGURATION
    assert [line for line in result.stdout.splitlines() if "no sample" in line] == [
        "failed  route gone: order_id: no sample has order.number, did you mean json(order).number?",
        "note    route gone: language: no sample has order.locale",
    ]


def test_an_item_of_a_route_without_each_is_a_field_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "relay.yaml").write_text(ROUTES.replace("order.nummber", "item.number"))
    (tmp_path / "events.jsonl").write_text('{"status": "gone", "shop": 1, "market": 1, "order": {"locale": "sv"}}\n')
    config, sample = (str(tmp_path / name) for name in ("relay.yaml", "events.jsonl"))
    checked = called("check-config", "--config", config, "--sample", sample)
    assert "failed  route gone: order_id: no sample has item.number\n" in checked.stdout
    (tmp_path / "relay.yaml").write_text(ROUTES.replace("order.nummber", "item.number\n    each: lines"))
    assert "item.number" not in called("check-config", "--config", config, "--sample", sample).stdout


def test_samples_that_have_all_are_no_finding(tmp_path: Path) -> None:
    result = sampled(
        tmp_path,
        ROUTES.replace("nummber", "number"),
        '{"status": null, "shop": null, "market": "se", "order": {"number": null, "locale": null}}\n',
    )
    assert result.exit_code == 0
    assert "no sample" not in result.stdout


def test_a_field_of_the_events_own_that_is_read_of_the_record_is_named(tmp_path: Path) -> None:
    """What takes webhooks writes their headers beside their body, and many events have a field `event`."""
    result = sampled(
        tmp_path,
        "routes:\n  gone:\n    action: ConfirmCancellation\n    order_id: event.order\n"
        "    when: headers.\"x-topic\" == 'orders/cancelled'\n",
        '{"headers": {"x-topic": "orders/cancelled"}, "event": {"order": "A-1"}}\n',
    )
    assert [line for line in result.stdout.splitlines() if "no sample" in line] == [
        "failed  route gone: order_id: no sample has order, did you mean event.event.order?",
        'note    route gone: when: no sample has headers."x-topic", did you mean event.headers."x-topic"?',
    ]
    config, sample = (str(tmp_path / name) for name in ("relay.yaml", "events.jsonl"))
    result = called("route", sample, "--config", config)
    note = 'note: route gone: when: headers."x-topic" finds nothing; the event\'s own field is event.headers."x-topic"'
    assert note in result.stdout


def test_a_name_that_nearly_is_one_of_the_records_is_noted(tmp_path: Path) -> None:
    (tmp_path / "relay.yaml").write_text(
        "routes: {gone: {when: \"header.kind == 'gone'\", action: ConfirmCancellation}}"
    )
    result = called("check-config", "--config", str(tmp_path / "relay.yaml"))
    assert "when: header is a field of the event; of its record there is `headers`" in result.stdout


@pytest.mark.parametrize(
    ("when", "wrong"),
    [
        ('status == "shipped"', "`shipped` names a field here: a text stands in single quotes, 'shipped'"),
        ("status == shipped", "`shipped` names a field here: a text stands in single quotes, 'shipped'"),
        ("lookup('countries', country) == 'x'", "there is no table countries; there are languages"),
        ("meta.partitions == `1`", "and no partitions; a field of the event itself is event.meta.partitions"),
        ("match(status, '(')", "is no regular expression"),
    ],
)
def test_a_trap_in_an_expression_is_refused_with_its_place(when: str, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "tables: {languages: {SE: sv-SE}}\nroutes:\n  gone:\n    action: ConfirmCancellation\n    when: "
        + json.dumps(when)
    )
    for command in (["check-config"], ["route", "-"]):
        result = called(*command, "--config", str(file))
        assert result.exit_code == ExitCode.CONFIGURATION
        assert result.stderr.startswith(f"{file}:5:5 routes.gone.when: ")
        assert wrong in result.stderr
