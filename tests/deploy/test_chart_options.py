"""What a cluster adds: scaling, disruption budgets, network policies, monitoring, hooks. Off unless it is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from consumer.errors import ExitCode
from tests.deploy.helm import CHART, NAMESPACE, Manifest, Values, chart, refusal
from tests.deploy.monitoring import alerts
from tests.deploy.pod import AnySecret, Pod

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

KEDA: Values = {"scaling": {"maxReplicas": 6, "keda": {"enabled": True}}}
HPA: Values = {"scaling": {"maxReplicas": 6, "hpa": {"enabled": True}}}


def test_only_what_is_safe_is_on_by_default() -> None:
    assert sorted(each["kind"] for each in chart().manifests) == [
        "ConfigMap",
        "ConfigMap",  # of the check before an upgrade
        "Deployment",
        "Job",
        "Pod",  # of `helm test`
        "ServiceAccount",
    ]


# What operators expect to pass through


def test_what_a_pod_and_its_workload_may_have_besides() -> None:
    pod = {
        "runtimeClassName": "gvisor",
        "dnsPolicy": "ClusterFirst",
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["kafka"]}],
    }
    workload = {"minReadySeconds": 10, "revisionHistoryLimit": 0}
    more = {
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "workloadAnnotations": {"reloader.stakater.com/auto": "true"},
        "livenessProbe": {"initialDelaySeconds": 3},
    }
    rendered = chart({**pod, **workload, **more})
    deployment = rendered.one("Deployment")

    assert rendered.pod["spec"].items() >= pod.items()
    assert deployment["spec"].items() >= workload.items()
    assert deployment["metadata"]["annotations"] == more["workloadAnnotations"]
    assert rendered.container["lifecycle"] == more["lifecycle"]
    assert rendered.container["livenessProbe"]["initialDelaySeconds"] == 3


@pytest.mark.parametrize(("workload", "key"), [("Deployment", "strategy"), ("StatefulSet", "updateStrategy")])
def test_how_pods_are_replaced_can_be_chosen(workload: str, key: str) -> None:
    own = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}
    assert chart({"workload": workload, "updateStrategy": own}).one(workload)["spec"][key] == own


def test_scalers_and_budgets_take_the_platforms_policies() -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    memory = {"type": "Resource", "resource": {"name": "memory"}}
    hpa = chart({"scaling": {"hpa": {"enabled": True, "behavior": behavior, "metrics": [memory]}}})
    spec = hpa.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["behavior"], spec["metrics"][1:]) == (behavior, [memory])

    fallback = {"failureThreshold": 3, "replicas": 3}
    keda = {"enabled": True, "pollingInterval": 15, "cooldownPeriod": 60, "fallback": fallback, "behavior": behavior}
    spec = chart({"scaling": {"keda": keda}}).one("ScaledObject")["spec"]
    assert (spec["pollingInterval"], spec["cooldownPeriod"], spec["fallback"]) == (15, 60, fallback)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == behavior

    budget = chart({"replicas": 3, "podDisruptionBudget": {"minAvailable": 2}}).one("PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 2
    assert "maxUnavailable" not in budget


def test_a_parent_charts_registry_holds_for_this_image_too() -> None:
    own = {"registry": "ghcr.io/acme"}
    assert chart({"global": {"imageRegistry": "mirror.acme.com"}, "image": own}).container["image"] == (
        "mirror.acme.com/engage-relay:0.2.0"
    )
    assert chart({"image": own}).container["image"] == "ghcr.io/acme/engage-relay:0.2.0"


# Scaling


def test_keda_scales_on_the_lag_of_each_source_topic_and_never_on_the_delay_topics() -> None:
    topics = {"config": {"source": {"topics": ["orders", "returns"]}, "kafka": {"group.id": "shop"}}}
    spec = chart({**KEDA, **topics}).one("ScaledObject")["spec"]

    for trigger, topic in zip(spec["triggers"], ["orders", "returns"], strict=True):
        assert trigger["type"] == "kafka"
        assert trigger["metadata"] == {
            "bootstrapServers": "kafka:9092",
            "consumerGroup": "shop",
            "topic": topic,  # without one, KEDA would count every topic of the group
            "lagThreshold": "1000",
            "allowIdleConsumers": "false",  # no more pods than partitions
        }


def test_keda_keeps_one_pod_at_the_least() -> None:
    spec = chart(KEDA).one("ScaledObject")["spec"]

    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 6)
    assert "idleReplicaCount" not in spec


@pytest.mark.parametrize("workload", ["Deployment", "StatefulSet"])
@pytest.mark.parametrize(("scaler", "kind"), [(KEDA, "ScaledObject"), (HPA, "HorizontalPodAutoscaler")])
def test_what_is_scaled_does_not_say_its_own_number(workload: str, scaler: Values, kind: str) -> None:
    rendered = chart({**scaler, "workload": workload})

    assert rendered.one(kind)["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": workload,
        "name": "rel-engage-relay",
    }
    assert "replicas" not in rendered.one(workload)["spec"]


@pytest.mark.parametrize(
    ("mechanism", "sasl"),
    [("PLAIN", "plaintext"), ("SCRAM-SHA-256", "scram_sha256"), ("SCRAM-SHA-512", "scram_sha512")],
)
def test_keda_logs_in_as_the_relay_does(mechanism: str, sasl: str) -> None:
    rendered = chart(
        {
            **KEDA,
            "config": {
                "kafka": {"security.protocol": "sasl_ssl", "sasl.mechanism": mechanism, "sasl.username": "relay"}
            },
            "secrets": {
                "kafka": {
                    "sasl.password": {"existingSecret": "relay-user"},
                    "ssl.ca.location": {"existingSecret": "cluster", "key": "ca.pem"},
                }
            },
        }
    )
    (trigger,) = rendered.one("ScaledObject")["spec"]["triggers"]
    spec = rendered.one("TriggerAuthentication")["spec"]

    assert trigger["authenticationRef"] == {"name": "rel-engage-relay"}
    assert (trigger["metadata"]["sasl"], trigger["metadata"]["tls"]) == (sasl, "enable")
    assert spec["secretTargetRef"] == [
        {"parameter": "password", "name": "relay-user", "key": "password"},
        {"parameter": "ca", "name": "cluster", "key": "ca.pem"},
    ]
    (username,) = spec["configMapTargetRef"]
    assert username == {"parameter": "username", "name": "rel-engage-relay", "key": "sasl.username"}
    assert rendered.one("ConfigMap")["data"]["sasl.username"] == "relay"


def test_keda_needs_no_authentication_where_brokers_ask_for_none() -> None:
    assert chart(KEDA).all("TriggerAuthentication") == []
    assert "authenticationRef" not in chart(KEDA).one("ScaledObject")["spec"]["triggers"][0]


def test_the_hpa_scales_on_cpu() -> None:
    spec = chart(HPA).one("HorizontalPodAutoscaler")["spec"]

    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 6)
    (metric,) = spec["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}


def test_the_values_say_that_more_pods_are_not_more_actions_per_second() -> None:
    text = " ".join((CHART / "values.yaml").read_text().replace("#", " ").split())

    assert "more pods do NOT send more actions per second for one key" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"replicas": 1}, False),
        ({"replicas": 2}, True),
        (KEDA, True),
        (HPA, True),
        ({"scaling": {"maxReplicas": 1, "keda": {"enabled": True}}}, False),
        ({"replicas": 2, "podDisruptionBudget": {"enabled": False}}, False),
    ],
    ids=str,
)
def test_a_disruption_budget_comes_with_the_second_pod(values: Values, expected: bool) -> None:
    budgets = chart(values).all("PodDisruptionBudget")

    assert bool(budgets) is expected
    for each in budgets:
        assert each["spec"]["maxUnavailable"] == 1
        assert each["spec"]["selector"]["matchLabels"].items() <= chart(values).pod["metadata"]["labels"].items()


# Network policy


def egress(values: Values) -> list[Manifest]:
    """Return the policy's rules for what the pods may reach, without DNS."""
    policy = chart({**values, "networkPolicy": {"enabled": True}}).one("NetworkPolicy")["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    dns, *rules = policy["egress"]
    assert {(each["protocol"], each["port"]) for each in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    return list(rules)


def brokers(servers: str) -> Values:
    # The Engage is one of the addresses: on a port of its own, so that tests tell it from brokers.
    return {
        "config": {
            "kafka": {"bootstrap.servers": servers},
            "engage": {"connections": {"default": {"base_url": "https://engage.invalid:1"}}},
        }
    }


@pytest.mark.parametrize(
    ("servers", "rules"),
    [
        ("kafka:9092", [(9092, [{"podSelector": {}}])]),  # of the same namespace
        ("kafka", [(9092, [{"podSelector": {}}])]),
        (
            "my-cluster-kafka-bootstrap.kafka.svc:9093",
            [(9093, [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}])],
        ),
        (
            "b-0.brokers.kafka.svc.cluster.local:9093",
            [(9093, [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}])],
        ),
        ("10.0.0.5:9094", [(9094, [{"ipBlock": {"cidr": "10.0.0.5/32"}}])]),
        ("[2001:db8::5]:9094", [(9094, [{"ipBlock": {"cidr": "2001:db8::5/128"}}])]),
        ("b1.example.com:9094, SASL_SSL://b2.example.com:9095", [(9094, None), (9095, None)]),  # any address
        ("10.0.0.5:9094,", [(9094, [{"ipBlock": {"cidr": "10.0.0.5/32"}}])]),  # and none where there is none
    ],
)
def test_the_policy_lets_the_pods_reach_the_configured_brokers(
    servers: str, rules: list[tuple[int, list[Manifest] | None]]
) -> None:
    found = [(each["ports"][0]["port"], each.get("to")) for each in egress(brokers(servers))]

    assert (1, None) in found
    assert sorted((each for each in found if each != (1, None)), key=str) == rules


def test_the_policy_lets_the_pods_reach_each_engage() -> None:
    urls = {"a": "https://a.voyado.com", "b": "https://b.voyado.com:8443/engage", "c": "http://sim.test.svc"}
    connections = {name: {"base_url": url, "allow_insecure": True} for name, url in urls.items()}
    secrets = {name: {"existingSecret": "s"} for name in urls}
    rules = egress({"config": {"engage": {"connections": connections}}, "secrets": {"engage": secrets}})

    ports = {each["ports"][0]["port"]: each.get("to") for each in rules}
    assert ports[443] is None
    assert ports[8443] is None
    assert ports[80] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "test"}}}]


def test_the_policy_lets_the_pods_reach_a_connections_proxy_instead_of_its_engage() -> None:
    urls = {"a": "https://a.voyado.com:8442", "b": "https://b.voyado.com:8443", "c": "https://c.voyado.com:8444"}
    proxies = {"a": "http://proxy.egress.svc:3128", "b": "http://10.0.0.7", "c": "none"}
    connections = {name: {"base_url": url, "proxy": proxies[name]} for name, url in urls.items()}
    secrets = {name: {"existingSecret": "s"} for name in urls}
    rules = egress({"config": {"engage": {"connections": connections}}, "secrets": {"engage": secrets}})

    ports = {each["ports"][0]["port"]: each.get("to") for each in rules}
    assert ports[3128] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "egress"}}}]
    assert ports[80] == [{"ipBlock": {"cidr": "10.0.0.7/32"}}]
    assert 8444 in ports
    assert not {8442, 8443} & set(ports)


def test_the_policy_lets_the_pods_reach_every_schema_registry() -> None:
    url = "http://registry.kafka.svc:8081, https://other.example.com/apis/ccompat/v7"
    rules = egress({"config": {"registry": {"url": url}}})

    ports = {each["ports"][0]["port"]: each.get("to") for each in rules}
    assert ports[8081] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}]
    assert ports[443] is None


def test_the_policy_opens_the_admin_port_to_the_scrapers_alone() -> None:
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}

    def ingress(scrapers: list[Manifest]) -> list[Manifest]:
        policy = {"networkPolicy": {"enabled": True, "scrapers": scrapers}}
        return list(chart(policy).one("NetworkPolicy")["spec"]["ingress"])

    assert ingress([scraper]) == [{"ports": [{"protocol": "TCP", "port": "admin"}], "from": [scraper]}]
    assert ingress([])[0]["from"] == [{"namespaceSelector": {}}]


WITH_SERVICE: list[Values] = [
    {"service": {"enabled": True}},
    {"workload": "StatefulSet"},
    {"monitoring": {"serviceMonitor": {"enabled": True}}},
]


@pytest.mark.parametrize("values", WITH_SERVICE, ids=lambda values: next(iter(values)))
def test_one_name_stands_for_all_pods_also_those_that_are_not_ready_and_they_may_ask_each_other(values: Values) -> None:
    rendered = chart({**values, "networkPolicy": {"enabled": True, "scrapers": [{"namespaceSelector": {}}]}})
    service = rendered.one("Service")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= rendered.pod["metadata"]["labels"].items()
    policy = rendered.one("NetworkPolicy")["spec"]
    pods = {"podSelector": {"matchLabels": service["selector"]}}
    ports = [{"protocol": "TCP", "port": "admin"}]
    assert pods in policy["ingress"][0]["from"]
    assert {"ports": ports, "to": [pods]} in policy["egress"]
    name = rendered.one("Service")["metadata"]["name"]
    assert rendered.config["admin"]["instances"] == [f"http://{name}:8080"]


def test_the_page_of_all_instances_asks_who_the_values_name_and_nobody_where_there_is_no_name_for_all() -> None:
    assert "instances" not in chart().config["admin"]
    named: Values = {"service": {"enabled": True}, "config": {"admin": {"instances": ["http://a:1", "http://b:1"]}}}
    assert chart(named).config["admin"]["instances"] == ["http://a:1", "http://b:1"]
    port: Values = {"service": {"enabled": True}, "config": {"admin": {"listen": "[::]:9100"}}}
    assert chart(port).config["admin"]["instances"][0].endswith(":9100")


def test_the_policy_covers_the_hooks_and_the_tests_pods_too() -> None:
    rendered = chart({"networkPolicy": {"enabled": True}, "topicsHook": {"enabled": True}})
    selector = rendered.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    pods = [rendered.pod["metadata"], *(each["metadata"] for each in rendered.all("Pod"))]
    pods += [each["spec"]["template"]["metadata"] for each in rendered.all("Job")]

    assert all(selector.items() <= each["labels"].items() for each in pods)


# Monitoring


@pytest.mark.parametrize(
    ("value", "kind", "endpoints"),
    [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")],
)
def test_a_monitor_scrapes_the_admin_port(value: str, kind: str, endpoints: str) -> None:
    rendered = chart({"monitoring": {value: {"enabled": True, "interval": "15s", "labels": {"release": "prom"}}}})
    monitor = rendered.one(kind)

    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["spec"][endpoints] == [{"port": "admin", "path": "/metrics", "interval": "15s"}]
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    selected = rendered.pod if kind == "PodMonitor" else rendered.one("Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= selected["metadata"]["labels"].items()
    assert ("Service" in {each["kind"] for each in rendered.manifests}) is (kind == "ServiceMonitor")


def test_the_rules_are_exactly_prometheus_own() -> None:
    rendered = chart({"monitoring": {"prometheusRule": {"enabled": True, "labels": {"release": "prom"}}}})
    rule = rendered.one("PrometheusRule")

    assert rule["metadata"]["labels"]["release"] == "prom"
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    assert "{{ $" in json.dumps(rule["spec"])  # its templates are Prometheus's, not Helm's


@pytest.mark.parametrize(
    ("value", "kind", "endpoints"),
    [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")],
)
def test_a_monitor_takes_what_a_platform_asks_of_all_its_monitors(value: str, kind: str, endpoints: str) -> None:
    drop = [{"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}]
    more = {"scrapeTimeout": "10s", "honorLabels": True, "relabelings": drop, "metricRelabelings": drop}
    own = {"enabled": True, "namespace": "monitoring", "jobLabel": "app.kubernetes.io/name", **more}
    monitor = chart({"monitoring": {value: own}}).one(kind)

    assert monitor["metadata"]["namespace"] == "monitoring"
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert monitor["spec"][endpoints][0].items() >= more.items()


def test_alerts_lead_to_the_runbook_where_it_is_and_carry_the_platforms_labels() -> None:
    where = "https://git.acme.com/engage-relay/docs/runbook.md"
    own = {"enabled": True, "runbookUrl": where, "alertLabels": {"team": "shop", "severity": "none"}}
    groups = chart({"monitoring": {"prometheusRule": own}}).one("PrometheusRule")["spec"]["groups"]
    rendered = [rule for group in groups for rule in group["rules"] if "alert" in rule]

    assert len(rendered) > 10
    for each in rendered:
        assert each["annotations"]["runbook_url"] == f"{where}#{each['alert'].lower()}"
        assert each["labels"]["team"] == "shop"
        assert each["labels"]["severity"] in ("critical", "warning")


def test_an_alert_can_be_left_out_and_only_one_that_there_is() -> None:
    def rendered(disabled: list[str]) -> set[str]:
        rule = chart({"monitoring": {"prometheusRule": {"enabled": True, "disabled": disabled}}}).one("PrometheusRule")
        return {each["alert"] for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each}

    assert rendered([]) - rendered(["EngageRelayThrottled"]) == {"EngageRelayThrottled"}
    wrong: Values = {"monitoring": {"prometheusRule": {"disabled": ["EngageRelayThrotled"]}}}
    assert "there is no alert EngageRelayThrotled" in refusal(wrong)


def test_an_alert_takes_a_platforms_threshold_and_severity() -> None:
    own: dict[str, Values] = {
        "EngageRelayOldPending": {"threshold": 3600, "severity": "page"},
        "EngageRelayThrottled": {"threshold": 0.05},
    }
    values: Values = {"monitoring": {"prometheusRule": {"enabled": True, "alerts": own}}}
    groups = chart(values).one("PrometheusRule")["spec"]["groups"]
    rules = {each["alert"]: each for group in groups for each in group["rules"] if "alert" in each}
    as_built = alerts()

    old, throttled = rules["EngageRelayOldPending"], rules["EngageRelayThrottled"]
    assert old["expr"] == as_built["EngageRelayOldPending"].expr.replace("> 1800", "> 3600")
    assert old["labels"]["severity"] == "page"
    assert throttled["expr"] == as_built["EngageRelayThrottled"].expr.replace("> 0.01", "> 0.05")
    assert throttled["labels"] == as_built["EngageRelayThrottled"].labels
    for name in as_built.keys() - own.keys():
        assert rules[name]["expr"] == as_built[name].expr


@pytest.mark.parametrize("name", alerts())
def test_an_alert_takes_a_threshold_where_it_compares_with_one_number_and_else_says_so(name: str) -> None:
    values: Values = {"monitoring": {"prometheusRule": {"enabled": True, "alerts": {name: {"threshold": 77}}}}}
    numbers = re.findall(r"[<>=]=? [0-9.]+", alerts()[name].expr)
    if len(numbers) == 1 and re.search(r"[<>]=? [0-9.]+$", alerts()[name].expr):
        groups = chart(values).one("PrometheusRule")["spec"]["groups"]
        (expr,) = [each["expr"] for group in groups for each in group["rules"] if each.get("alert") == name]
        assert re.sub(r"[0-9.]+$", "77", alerts()[name].expr) == expr
    else:
        assert f"alerts.{name}.threshold: the alert does not compare with one number" in refusal(values)


def test_a_threshold_of_an_alert_that_there_is_not_is_refused() -> None:
    wrong: Values = {"monitoring": {"prometheusRule": {"alerts": {"EngageRelayOldPendin": {"threshold": 1}}}}}
    assert "there is no alert EngageRelayOldPendin" in refusal(wrong)
    assert "additional properties" in refusal(
        {"monitoring": {"prometheusRule": {"alerts": {"EngageRelayOldPending": {"treshold": 1}}}}}
    )


def test_no_alerts_text_repeats_a_threshold_that_can_be_changed() -> None:
    for name in ("EngageRelayOldPending", "EngageRelayVeryOldPending", "EngageRelayPendingNearLimit"):
        texts = [text for key, text in alerts()[name].annotations.items() if key != "runbook_url"]
        assert not [text for text in texts if re.search(r"[0-9]", text)], name


def test_the_dashboard_is_what_grafanas_sidecar_looks_for() -> None:
    values = {"dashboard": {"enabled": True, "annotations": {"grafana_folder": "Kafka"}}}
    found = chart({"monitoring": values}).one("ConfigMap", "rel-engage-relay-dashboard")

    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Kafka"}
    (text,) = found["data"].values()
    assert json.loads(text) == json.loads((CHART / "files" / "dashboard.json").read_text())


# Hooks


def check_hook(values: Values, where: Path) -> tuple[int, str]:
    """Run the hook as the cluster does before an upgrade; returns its exit code and what it says."""
    rendered = chart(values)
    job = rendered.one("Job", "rel-engage-relay-check")
    done = Pod(where, rendered, AnySecret(), spec=job["spec"]["template"]["spec"]).run()
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"routes": [{"name": "a", "action": "ConfirmOrder", "when": "resource = 1"}]}, "routes.a.when"),
        ({"kafka": {"sesion.timeout.ms": 6000}}, "did you mean session.timeout.ms?"),
        ({"kafka": {"session.timeout.ms": 6000}}, "session.timeout.ms: 6000 is too short"),
        ({"source": {"topics": ["orders", "orders.engage.delay"]}}, "delay.topic"),
    ],
    ids=str,
)
def test_an_upgrade_ends_before_the_pods_do_where_the_relay_refuses_its_configuration(
    config: dict[str, object], why: str, tmp_path: Path
) -> None:
    code, said = check_hook({"config": config}, tmp_path)

    assert code == ExitCode.CONFIGURATION
    assert why in said


def test_an_upgrade_goes_on_where_the_relay_accepts_its_configuration(tmp_path: Path) -> None:
    code, said = check_hook({}, tmp_path)

    assert code == 0, said


def test_the_check_before_an_upgrade_is_on_asks_nobody_and_needs_nothing_of_the_release() -> None:
    rendered = chart({"extraInitContainers": [{"name": "vault", "image": "vault"}], "topicsHook": {"enabled": True}})
    job, config = rendered.one("Job", "rel-engage-relay-check"), rendered.one("ConfigMap", "rel-engage-relay-check")
    pod = job["spec"]["template"]["spec"]
    topics = rendered.one("ConfigMap", "rel-engage-relay-topics")

    def weight(each: Manifest) -> int:
        return int(each["metadata"]["annotations"]["helm.sh/hook-weight"])

    assert pod["containers"][0]["args"] == ["check-config", "--config", "/etc/engage-relay/relay.yaml"]
    assert pod["containers"][0]["image"] == rendered.container["image"]
    assert pod["serviceAccountName"] == "default"
    assert [each["name"] for each in pod["initContainers"]] == ["vault"]
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    assert weight(config) < weight(job) < weight(topics)
    assert job["spec"]["backoffLimit"] == 0
    for each in (job, config):
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    assert chart({"checkHook": {"enabled": False}}).all("Job") == []


def test_topics_are_made_before_an_install_and_an_upgrade() -> None:
    rendered = chart({"topicsHook": {"enabled": True, "replication": 3}})
    job, config = rendered.one("Job", "rel-engage-relay-topics"), rendered.one("ConfigMap", "rel-engage-relay-topics")
    pod = job["spec"]["template"]["spec"]

    assert pod["containers"][0]["args"] == [
        *("topics", "create", "--config", "/etc/engage-relay/relay.yaml"),
        *("--replication", "3"),
    ]
    assert pod["containers"][0]["image"] == rendered.container["image"]
    assert pod["restartPolicy"] == "Never"
    for each in (job, config):
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    # The release's own objects are not there yet: the hook needs none of them.
    assert int(config["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    assert pod["volumes"][0]["configMap"]["name"] == "rel-engage-relay-topics"
    assert config["data"]["relay.yaml"] == rendered.relay_yaml
    assert pod["serviceAccountName"] == "default"


def test_helm_test_asks_brokers_and_engage_with_the_relays_own_image() -> None:
    rendered = chart()
    pod = rendered.one("Pod", "rel-engage-relay-check-config")
    (container,) = pod["spec"]["containers"]

    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["image"] == rendered.container["image"]
    assert container["command"] == ["engage-relay"]
    assert container["args"] == ["check-config", "--online", "--config", "/etc/engage-relay/relay.yaml"]
    assert pod["spec"]["restartPolicy"] == "Never"
    assert container["volumeMounts"] == rendered.container["volumeMounts"]
    assert pod["spec"]["volumes"] == rendered.pod["spec"]["volumes"]
