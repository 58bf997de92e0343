"""What cannot work is refused before anything is installed, with the reason."""

from __future__ import annotations

import pytest

from tests.deploy.helm import Values, refusal

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

SECRET = "never-in-a-manifest"
USER = {"existingSecret": "relay-user"}
FILE = {"existingSecret": "registry-ca", "key": "ca.crt"}
SASL = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "relay"}


def kafka(**properties: object) -> Values:
    return {"config": {"kafka": {name.replace("_", "."): value for name, value in properties.items()}}}


def connection(**settings: object) -> Values:
    return {"config": {"engage": {"connections": {"default": settings}}}}


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 2},
        {"image": {"repo": "x"}},
        {"config": {"polling": {"initail": "2s"}}},
        {"config": {"limit": {}}},
        connection(request_per_second=5),
        {"config": {"routes": [{"name": "a", "action": "ConfirmOrder", "orderid": "x"}]}},
        {"scaling": {"keda": {"enable": True}}},
        {"monitoring": {"podMonitor": {"label": {}}}},
        {"secrets": {"engage": {"default": {"secretName": "x"}}}},
        {"secrets": {"kafka": {"sasl.pasword": USER}}},
        {"livenessProbe": {"period": 5}},
    ],
    ids=str,
)
def test_a_misspelt_key(values: Values) -> None:
    assert "additional properties" in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"workload": "DaemonSet"},
        {"replicas": "2"},
        {"replicas": -1},
        {"start": "yesterday"},
        {"logLevel": "loud"},
        {"image": {"digest": "latest"}},
        {"image": {"repository": ""}},
        {"scaling": {"minReplicas": 0}},
        {"scaling": {"keda": {"lagThreshold": 0}}},
        {"topicsHook": {"replication": "three"}},
        {"monitoring": {"podMonitor": {"interval": "often"}}},
        {"secrets": {"engage": {"default": {"existingSecret": ""}}}},
        {"secrets": {"engage": {"../default": {"existingSecret": "x"}}}},
        {"secrets": {"kafka": {"sasl.oauthbearer.client.secret": USER}}},
        connection(timeout="10 seconds"),
        connection(timeout="1m30"),
        connection(base_url="ftp://acme.voyado.com"),
        connection(base_url="acme.voyado.com"),
        connection(base_url="https://key@acme.voyado.com"),
        connection(base_url="https://acme.voyado.com?a=b"),
        connection(base_url="https://"),
        {"config": {"limits": {"pending": 0}}},
        {"config": {"source": {"topics": []}}},
        {"config": {"routes": [{"name": "a", "action": ""}]}},
        {"config": {"routes": [{"action": "ConfirmOrder"}]}},
        {"config": {"routes": [{"name": "a", "when": "no action"}]}},
    ],
    ids=str,
)
def test_a_value_that_cannot_be(values: Values) -> None:
    assert "don't meet the specifications of the schema" in refusal(values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        # both scalers, both monitors
        ({"scaling": {"keda": {"enabled": True}, "hpa": {"enabled": True}}}, "would fight over the number of pods"),
        ({"scaling": {"minReplicas": 4, "maxReplicas": 2}}, "must not be below scaling.minReplicas"),
        (
            {"scaling": {"hpa": {"enabled": True}}, "resources": {"requests": {"cpu": None}}},
            "needs resources.requests.cpu",
        ),
        (
            {"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
            "would scrape everything twice",
        ),
        # missing secrets
        ({"secrets": {"engage": {"default": None}}}, "secrets.engage.default.existingSecret: missing"),
        ({"config": {"kafka": SASL}}, 'secrets.kafka."sasl.password".existingSecret: missing, SCRAM-SHA-512 needs'),
        (
            {
                "config": {"kafka": {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "PLAIN"}},
                "secrets": {"kafka": {"sasl.password": USER}},
            },
            'config.kafka."sasl.username": missing, PLAIN needs a user',
        ),
        (
            {"config": {"kafka": {"security.protocol": "SSL"}}, "secrets": {"kafka": {"ssl.key.location": USER}}},
            "ssl.certificate.location and ssl.key.location go together",
        ),
        # secrets that nothing uses, or twice
        ({"secrets": {"engage": {"defualt": USER}}}, "secrets.engage.defualt: config.engage.connections has no such"),
        ({"secrets": {"kafka": {"ssl.ca.location": USER}}}, "is plaintext, which does not use it"),
        (
            {"config": {"kafka": {"security.protocol": "SSL"}}, "secrets": {"kafka": {"sasl.password": USER}}},
            "is ssl, which does not use it",
        ),
        (connection(api_key_file="/elsewhere"), "config.engage.connections.default.api_key_file and secrets.engage"),
        (
            {"config": {"kafka": {**SASL, "sasl.password.file": "/f"}}, "secrets": {"kafka": {"sasl.password": USER}}},
            "write one of them",
        ),
        ({"secrets": {"registry": {"ca_file": FILE}}}, "secrets.registry.ca_file: there is no config.registry"),
        (
            {
                "config": {"registry": {"url": "https://registry.example", "ca_file": "/f"}},
                "secrets": {"registry": {"ca_file": FILE}},
            },
            "config.registry.ca_file and secrets.registry.ca_file: write one of them",
        ),
        # what pods must not share
        (kafka(group_instance_id="relay-0"), "must differ from pod to pod"),
        (kafka(transactional_id="relay-0"), "must differ from pod to pod"),
        ({"workload": "StatefulSet", **kafka(group_instance_id="relay-0")}, "must differ from pod to pod"),
        # routes
        ({"config": {"routes": {"a": {"action": "ConfirmOrder"}}}}, "the order of routes matters"),
        (
            {"config": {"routes": [{"name": "a", "action": "Custom"}, {"name": "a", "action": "ConfirmOrder"}]}},
            "two of them have the same name",
        ),
        # addresses of Engage
        (connection(base_url="http://acme.voyado.com"), "default.base_url: must be https"),
        (connection(base_url="http://localhost.acme.com:80"), "default.base_url: must be https"),
        (connection(base_url="https://acme.voyado.com/api/v3"), "default.base_url: must end before /api/v3"),
        # others
        ({"config": {"admin": {"listen": "127.0.0.1:8080"}}}, "must be a port that probes can reach"),
        ({"config": {"admin": {"listen": "[::1]:8080"}}}, "must be a port that probes can reach"),
        ({"config": {"admin": {"listen": "0.0.0.0:0"}}}, "must be a port that probes can reach"),
        (
            {
                "config": {"kafka": {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}},
                "scaling": {"keda": {"enabled": True}},
            },
            "scaling.keda.authenticationRef: missing, the chart cannot make one for OAUTHBEARER",
        ),
    ],
    ids=str,
)
def test_what_cannot_work(values: Values, reason: str) -> None:
    assert reason in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        connection(api_key=SECRET),
        {"config": {"kafka": {**SASL, "sasl.password": SECRET}}},
        kafka(ssl_key_password=SECRET),
        kafka(ssl_key_pem=SECRET),
        kafka(ssl_keystore_password=SECRET),
        kafka(sasl_oauthbearer_client_secret=SECRET),
        kafka(sasl_oauthbearer_client_credentials_client_secret=SECRET),
        kafka(sasl_oauthbearer_assertion_private_key_pem=SECRET),
        kafka(sasl_oauthbearer_assertion_private_key_passphrase=SECRET),
        kafka(sasl_oauthbearer_config=SECRET),
        connection(proxy=f"http://user:{SECRET}@proxy:3128"),
        {"config": {"registry": {"url": "https://registry.example", "username": "u", "password": SECRET}}},
        {"config": {"registry": {"url": "https://registry.example", "token": SECRET}}},
    ],
    ids=str,
)
def test_a_secret_that_is_written_down_and_it_is_not_repeated(values: Values) -> None:
    said = refusal(values)

    assert "does not belong in values" in said
    assert SECRET not in said


def test_no_values_at_all_and_both_things_that_are_missing_are_named() -> None:
    said = refusal({}, base={})

    assert 'config.kafka."bootstrap.servers": say where your brokers are' in said
    assert "config.engage.connections: name at least one" in said
