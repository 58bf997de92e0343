"""What the chart's pods are: hardened, configured by files, and stopped and probed as the relay needs it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from consumer.config.loading import load
from consumer.kafka.source.membership import MIN_HAND_OVER_S
from consumer.relay.loop import JOURNAL_AFTER_HAND_OVER_S, MIN_STOP_S, STOP_S
from consumer.run.time_outs import HAND_OVER_SLACK_S
from tests.deploy.helm import VALUE_SETS, Manifest, Rendered, Values, chart, each_value_set, refusal, value_set

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

STATIC: Values = {"workload": "StatefulSet", "replicas": 3}
CONFIG = {"name": "ENGAGE_RELAY_CONFIG", "value": "/etc/engage-relay/relay.yaml"}


def pod_specs(rendered: Rendered) -> list[Manifest]:
    """Return the specs of all pods: the workload's, the hook's, the test's."""
    jobs = [each["spec"]["template"]["spec"] for each in rendered.all("Job")]
    return [rendered.pod["spec"], *jobs, *(each["spec"] for each in rendered.all("Pod"))]


def ours(pod: Manifest) -> list[Manifest]:
    """Return the containers that are the relay's own."""
    return [each for each in pod["containers"] if each.get("command") == ["engage-relay"]]


# Hardening


@pytest.mark.parametrize("values", [value for value in VALUE_SETS if "everything" not in value.name])
def test_all_pods_meet_the_restricted_pod_security_standard(values: Path) -> None:
    for pod in pod_specs(value_set(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"}
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
        assert all(volume.keys() - {"name"} <= allowed for volume in pod["volumes"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert "runAsUser" not in context
            assert all("hostPort" not in port for port in container.get("ports", []))


@each_value_set
def test_no_pod_has_a_token_or_the_addresses_of_services(values: Path) -> None:
    for pod in pod_specs(value_set(values)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    assert all(each["automountServiceAccountToken"] is False for each in chart().all("ServiceAccount"))


def test_a_pod_runs_as_a_fixed_user_whose_group_may_read_the_secrets() -> None:
    context = chart().pod["spec"]["securityContext"]

    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532
    (secrets,) = [each for each in chart().pod["spec"]["volumes"] if each["name"] == "secrets"]
    assert secrets["projected"]["defaultMode"] == 0o440


def test_ids_can_be_left_to_the_cluster() -> None:
    none = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}

    assert chart({"podSecurityContext": none}).pod["spec"]["securityContext"].keys() == {
        "runAsNonRoot",
        "seccompProfile",
    }


@each_value_set
def test_memory_is_reserved_and_limited_and_cpu_has_no_limit(values: Path) -> None:
    for pod in pod_specs(value_set(values)):
        for container in ours(pod):
            resources = container["resources"]
            assert resources["limits"] == {"memory": resources["requests"]["memory"]}
            assert resources["requests"]["cpu"]


def test_memory_holds_what_may_be_pending() -> None:
    mib = int(chart().container["resources"]["limits"]["memory"].removesuffix("Mi"))
    base_mib, bytes_per_pending = 110, 2_800

    needed = base_mib + chart().config["limits"]["pending"] * bytes_per_pending / 2**20
    assert needed * 4 / 3 <= mib


# Configuration and secrets


def test_the_configuration_is_mounted_as_a_directory_and_named_by_the_arguments() -> None:
    rendered = chart()
    (mount,) = [each for each in rendered.container["volumeMounts"] if each["name"] == "config"]

    assert mount == {"name": "config", "mountPath": "/etc/engage-relay", "readOnly": True}
    assert rendered.container["args"][:3] == ["run", "--config", "/etc/engage-relay/relay.yaml"]
    assert {"name": "config", "configMap": {"name": "rel-engage-relay"}} in rendered.pod["spec"]["volumes"]


def test_pods_restart_when_their_configuration_changes_and_only_then() -> None:
    def checksum(values: Values) -> str:
        return str(chart(values).pod["metadata"]["annotations"]["checksum/config"])

    assert checksum({"config": {"limits": {"pending": 5}}}) != checksum({})
    assert checksum({"secrets": {"engage": {"default": {"key": "other"}}}}) == checksum({})
    assert checksum({"replicas": 3}) == checksum({})


def test_pods_do_not_restart_for_a_new_version_of_the_chart_alone() -> None:
    labels = chart().pod["metadata"]["labels"]

    assert not labels.keys() & {"helm.sh/chart", "app.kubernetes.io/version"}


def test_secrets_are_files_and_nothing_else() -> None:
    rendered = chart(
        {
            "config": {
                "kafka": {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "relay"},
                "engage": {"connections": {"norway": {"base_url": "https://acme-no.voyado.com"}}},
            },
            "secrets": {
                "engage": {"norway": {"existingSecret": "keys", "key": "no"}},
                "kafka": {
                    "sasl.password": {"existingSecret": "relay-user"},
                    "ssl.ca.location": {"existingSecret": "cluster-ca-cert"},
                },
            },
        }
    )
    (volume,) = [each for each in rendered.pod["spec"]["volumes"] if each["name"] == "secrets"]
    (mount,) = [each for each in rendered.container["volumeMounts"] if each["name"] == "secrets"]
    files = {
        f"{mount['mountPath']}/{item['path']}": (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    connections = rendered.config["engage"]["connections"]

    assert files[connections["default"]["api_key_file"]] == ("acme-engage", "api-key")
    assert files[connections["norway"]["api_key_file"]] == ("keys", "no")
    assert files[rendered.config["kafka"]["sasl.password.file"]] == ("relay-user", "password")
    assert files[rendered.config["kafka"]["ssl.ca.location"]] == ("cluster-ca-cert", "ca.crt")
    assert len(files) == 4
    assert not mount.get("subPath")  # which would not be renewed
    assert rendered.container["env"] == [CONFIG]


def test_the_relay_reads_a_schema_registrys_files_from_where_the_chart_mounts_them(tmp_path: Path) -> None:
    keys = ("password_file", "ca_file", "certificate_file", "key_file")
    rendered = chart(
        {
            "config": {"registry": {"url": "https://registry.example", "username": "shop"}},
            "secrets": {"registry": {key: {"existingSecret": "registry", "key": key} for key in keys}},
        }
    )
    (volume,) = [each for each in rendered.pod["spec"]["volumes"] if each["name"] == "secrets"]
    mounted = {item["path"]: item["key"] for each in volume["projected"]["sources"] for item in each["secret"]["items"]}
    for key in keys:
        assert rendered.config["registry"][key] == f"/run/secrets/engage-relay/registry/{key}"
        assert mounted[f"registry/{key}"] == key
    file = tmp_path / "relay.yaml"
    file.write_text(rendered.relay_yaml)
    registry = load(file, {}).registry
    assert registry is not None
    assert {name for name, _ in registry.files()} == set(keys)


def test_every_pod_that_runs_the_relays_command_has_what_comes_before_it_and_runs_on_its_nodes() -> None:
    nodes: Values = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]}}
    spread: Values = {"preferredDuringSchedulingIgnoredDuringExecution": []}
    rendered = chart(
        {
            "extraInitContainers": [{"name": "vault", "image": "vault"}],
            "affinity": {"nodeAffinity": nodes, "podAntiAffinity": spread},
            "topicsHook": {"enabled": True},
        }
    )
    others = [each["spec"]["template"]["spec"] for each in rendered.all("Job")]
    others += [each["spec"] for each in rendered.all("Pod")]
    assert len(others) == 3
    for pod in (*others, rendered.pod["spec"]):
        assert [each["name"] for each in pod["initContainers"]] == ["vault"]
        assert pod["affinity"]["nodeAffinity"] == nodes
    # A rule about neighbours might find no node for a pod that runs for a moment.
    assert all("podAntiAffinity" not in pod["affinity"] for pod in others)


def test_a_strimzi_users_certificate_is_found_under_its_own_key_names() -> None:
    user = {"existingSecret": "relay-user"}
    rendered = chart(
        {
            "config": {"kafka": {"security.protocol": "SSL"}},
            "secrets": {"kafka": {"ssl.certificate.location": user, "ssl.key.location": user}},
        }
    )
    (volume,) = [each for each in rendered.pod["spec"]["volumes"] if each["name"] == "secrets"]
    keys = {item["path"]: item["key"] for each in volume["projected"]["sources"] for item in each["secret"]["items"]}

    assert keys["kafka/ssl.certificate.location"] == "user.crt"
    assert keys["kafka/ssl.key.location"] == "user.key"


def test_a_key_that_something_else_mounts_needs_no_secret() -> None:
    rendered = chart(
        {
            "config": {"engage": {"connections": {"default": {"api_key_file": "/vault/secrets/engage"}}}},
            "secrets": {"engage": {"default": None}},
        }
    )

    assert rendered.config["engage"]["connections"]["default"]["api_key_file"] == "/vault/secrets/engage"
    assert "secrets" not in [each["name"] for each in rendered.pod["spec"]["volumes"]]


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ({}, "engage-relay:0.2.0"),
        ({"registry": "ghcr.io/acme", "tag": "edge"}, "ghcr.io/acme/engage-relay:edge"),
        ({"tag": "edge", "digest": f"sha256:{'0' * 64}"}, f"engage-relay@sha256:{'0' * 64}"),
    ],
)
def test_the_image_is_named_by_tag_or_digest(image: Values, named: str) -> None:
    assert chart({"image": image}).container["image"] == named


# Life of a pod


def test_probes_ask_what_the_relay_says_of_its_health() -> None:
    container = chart({"config": {"admin": {"listen": "[::]:9100"}}}).container

    assert container["ports"] == [{"name": "admin", "containerPort": 9100, "protocol": "TCP"}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}


def test_a_deployment_takes_one_pod_down_before_the_next_comes_up() -> None:
    assert chart().one("Deployment")["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }


def test_only_the_pods_of_a_stateful_set_are_static_members() -> None:
    assert chart().container["env"] == [CONFIG]
    assert chart(STATIC).container["env"] == [
        CONFIG,
        {
            "name": "ENGAGE_RELAY__KAFKA__GROUP_INSTANCE_ID",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
        },
    ]


def test_a_stateful_set_has_its_service_and_starts_all_pods_at_once() -> None:
    rendered = chart(STATIC)
    spec = rendered.one("StatefulSet")["spec"]
    service = rendered.one("Service")["spec"]

    assert spec["serviceName"] == rendered.one("Service")["metadata"]["name"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert service["clusterIP"] == "None"
    assert service["selector"].items() <= rendered.pod["metadata"]["labels"].items()
    assert chart().all("Service") == []


def drain_s(timeout_s: float, action_timeout_s: float = 30.0) -> int:
    """Return how long a stop takes at the most: see "Time-outs" in ARCHITECTURE.md."""
    request_s = max(2 * timeout_s, timeout_s / 2 + action_timeout_s)
    hand_over_s = max(MIN_HAND_OVER_S, request_s + HAND_OVER_SLACK_S)
    return math.ceil(max(STOP_S, hand_over_s + JOURNAL_AFTER_HAND_OVER_S) + MIN_STOP_S)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        ("500ms", 0.5),
        (9.5, 9.5),
        ("10s", 10),
        ("12.5s", 12.5),
        (30, 30),
        ("2m", 120),
        ("0.1h", 360),
        ("1m30s", 90),
        ("1m500ms", 60.5),
    ],
)
def test_the_grace_period_covers_a_stop_and_less_is_refused_with_the_reason(timeout: object, seconds: float) -> None:
    def values(grace_s: int) -> Values:
        connections = {"default": {"timeout": "1s"}, "slow": {"base_url": "https://a.voyado.com", "timeout": timeout}}
        return {
            "config": {"engage": {"connections": connections}},
            "secrets": {"engage": {"slow": {"existingSecret": "s"}}},
            "terminationGracePeriodSeconds": grace_s,
        }

    enough = drain_s(seconds)
    assert chart(values(enough)).pod["spec"]["terminationGracePeriodSeconds"] == enough
    assert f"terminationGracePeriodSeconds: must be at least {enough}" in refusal(values(enough - 1))


@pytest.mark.parametrize(("written", "seconds"), [("1s", 1.0), (20, 20.0), ("45s", 45.0), ("2m", 120.0)])
def test_the_grace_period_covers_an_action_that_is_under_way(written: object, seconds: float) -> None:
    def values(grace_s: int) -> Values:
        connections = {"default": {"action_timeout": written}}
        return {"config": {"engage": {"connections": connections}}, "terminationGracePeriodSeconds": grace_s}

    enough = drain_s(10.0, seconds)
    assert chart(values(enough)).pod["spec"]["terminationGracePeriodSeconds"] == enough
    assert f"terminationGracePeriodSeconds: must be at least {enough}" in refusal(values(enough - 1))


def test_the_grace_period_is_enough_as_it_is() -> None:
    assert chart().pod["spec"]["terminationGracePeriodSeconds"] >= drain_s(10.0)


def test_where_to_start_is_said_only_where_somebody_decided() -> None:
    assert "--from" not in chart().container["args"]
    assert chart({"start": "latest"}).container["args"][-2:] == ["--from", "latest"]


# Things of one's own


def test_everything_of_ones_own_arrives() -> None:
    (file,) = [each for each in VALUE_SETS if each.name == "everything-values.yaml"]
    rendered = value_set(file)
    pod, container = rendered.pod["spec"], rendered.container

    assert rendered.pod["metadata"]["labels"].items() >= {"team": "shop", "network": "kafka"}.items()
    assert rendered.pod["metadata"]["annotations"]["vault.hashicorp.com/agent-inject"] == "true"
    assert pod["affinity"]["nodeAffinity"]
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert pod["priorityClassName"] == "shop-critical"
    assert pod["serviceAccountName"] == "shop"
    assert rendered.all("ServiceAccount") == []
    assert [each["key"] for each in pod["tolerations"]] == ["shop"]
    assert [each["name"] for each in pod["containers"]] == ["relay", "sidecar"]
    assert [each["name"] for each in pod["initContainers"]] == ["before"]
    assert container["args"][-1] == "--create-topics"
    assert {"name": "TZ", "value": "UTC"} in container["env"]
    assert container["envFrom"]
    assert {"name": "scratch", "mountPath": "/scratch"} in container["volumeMounts"]
    assert {"name": "scratch", "emptyDir": {}} in pod["volumes"]
    assert rendered.one("ConfigMap", "rel-own")
    assert rendered.one("ConfigMap", "rel-text")
    for each in rendered.manifests:
        if "-engage-relay" in each["metadata"]["name"]:
            assert each["metadata"]["labels"]["team"] == "shop"
            assert each["metadata"]["annotations"]["example.com/owner"] == "shop"


def test_pods_are_spread_by_the_relays_own_labels_unless_others_are_named() -> None:
    (by_default,) = chart().pod["spec"]["topologySpreadConstraints"]
    assert by_default["whenUnsatisfiable"] == "ScheduleAnyway"
    assert by_default["labelSelector"]["matchLabels"].items() <= chart().pod["metadata"]["labels"].items()

    own = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    assert chart({"topologySpreadConstraints": [own]}).pod["spec"]["topologySpreadConstraints"] == [own]


def test_nobody_elses_pod_is_selected() -> None:
    rendered = chart({"topicsHook": {"enabled": True}, **STATIC})
    selector = rendered.one("StatefulSet")["spec"]["selector"]["matchLabels"]
    others = [each["spec"]["template"]["metadata"]["labels"] for each in rendered.all("Job")]
    others += [each["metadata"]["labels"] for each in rendered.all("Pod")]

    assert selector.items() <= rendered.pod["metadata"]["labels"].items()
    assert len(others) == 3
    assert not any(selector.items() <= labels.items() for labels in others)
