"""What a connection to Engage may be."""

from __future__ import annotations

import pytest

from consumer.config.loading import load
from tests.unit.config.workspace import SECRET, THREE, Workspace, errors_of


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
